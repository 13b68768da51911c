"""How long does a command take until it has said what is wrong, or how it is used?

Whole processes, each several times: ``--help`` of every command, and mistakes in a configuration, the second of which
is found by the last check of all. The slowest run counts. Beside them, as what is not waited for: an import of all
that a sweep runs on.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

PROGRAM = "startup"
CEILING_SECONDS = 1.0
REPEATS = 5
ROOT = Path(__file__).parents[2]

ROOMS = ("sweep", "train", "compare", "placebo", "pull", "backtest", "market", "report")
MISTAKES = {
    "sweep, an unknown key": ["sweep", "configs/enhanced.yaml", "--set", "ppo.gama=1"],
    "sweep, too few bars": ["sweep", "configs/enhanced.yaml", "--set", "validation.embargo=1000000"],
    "sweep, an unknown calendar": ["sweep", "configs/enhanced.yaml", "--set", "data.calendar=XNSE"],
    "compare, an unknown key": ["compare", "configs/variants.yaml", "--set", "ppo.gama=1"],
    "train, a wrong learning rate": ["train", "--learning-rate", "-1"],
}


def timed(arguments: list[str], folder: str) -> tuple[float, float, int]:
    """Return seconds, peak memory in MB and exit status of a Python process."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - started, used.ru_maxrss / 1024, process.returncode


def measured(arguments: list[str], wanted: int) -> dict[str, float]:
    """Return the figures of a command that exits with `wanted`, over some runs after one that warms up."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [timed(arguments, folder) for _ in range(REPEATS + 1)][1:]
    assert {status for *_, status in runs} == {wanted}, f"{arguments}: exit status {runs[0][2]}, not {wanted}"
    seconds = [each for each, _, _ in runs]
    return {
        "seconds_median": statistics.median(seconds),
        "seconds_max": max(seconds),
        "peak_mb": max(memory for _, memory, _ in runs),
    }


def of_module(arguments: list[str]) -> list[str]:
    """Return a command as ``python -m`` takes it, files of the project by their whole path."""
    whole = [str(ROOT / each) if each.startswith("configs/") else each for each in arguments[1:]]
    return ["-m", f"sentio_rllib.{arguments[0]}", *whole]


def main() -> None:
    """Run the program."""
    args = common.parser(__doc__).parse_args()
    told = {f"{room} --help": measured(of_module([room, "--help"]), 0) for room in ROOMS}
    told |= {name: measured(of_module(arguments), 2) for name, arguments in MISTAKES.items()}
    beside = {"import sentio_rllib.sweep.run": measured(["-c", "import sentio_rllib.sweep.run"], 0)}
    for name, figures in (told | beside).items():
        print(
            f"{name:32s} {figures['seconds_median']:.2f} s, at most {figures['seconds_max']:.2f} s, "
            f"{figures['peak_mb']:.0f} MB"
        )
    common.write_result(PROGRAM, {"ceiling_seconds": CEILING_SECONDS, "told": told, "not_waited_for": beside})
    # a floor for the time that is left
    floors = {
        f"seconds left of {CEILING_SECONDS:g}: {name}": CEILING_SECONDS - told[name]["seconds_max"] for name in told
    }
    common.finish({name: (left, 0.0) for name, left in floors.items()}, args.check)


if __name__ == "__main__":
    main()
