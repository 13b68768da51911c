"""The command in a process of its own: an interruption, a kill, and a part of a GPU."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from optuna.trial import TrialState

from sentio_rllib.config.loading import load_config
from sentio_rllib.sweep.run import run_sweep
from tests.sweep_checks import FINISHED, assert_complete, board_of, study_of
from tests.tiny_sweep import (
    EVALUATE_EVERY,
    environment,
    run_command,
    sweep_command,
    tiny_values,
    write_config,
)


def _descendants(pid: int) -> set[tuple[int, str]]:
    """Process ids below `pid` with their start times, which tell a reused id from the process that had it."""
    parents: dict[int, tuple[int, str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = (int(fields[1]), fields[19])
    found: set[tuple[int, str]] = set()
    front = {pid}
    while front:
        front = {child for child, (parent, _) in parents.items() if parent in front}
        found |= {(child, parents[child][1]) for child in front}
    return found


def _alive(process: tuple[int, str]) -> bool:
    try:
        fields = Path(f"/proc/{process[0]}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[19] == process[1] and fields[0] != "Z"


class Running:
    """A sweep's command that runs, the head of a process group of its own."""

    def __init__(self, config: Path, log: Path) -> None:
        self.log = log
        self.started: set[tuple[int, str]] = set()
        with log.open("w") as file:
            self.process = subprocess.Popen(
                sweep_command(config), stdout=file, stderr=file, env=environment(), start_new_session=True
            )

    def wait_until(self, reached: Callable[[], bool], seconds: float = 180.0) -> None:
        """Wait while the sweep runs, noting the processes it starts."""
        limit = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < limit, self.log.read_text()
            self.started |= _descendants(self.process.pid)
            time.sleep(0.05)
        self.started |= _descendants(self.process.pid)

    def left(self, seconds: float = 20.0) -> set[tuple[int, str]]:
        """The processes it started that are still there after so long."""
        limit = time.monotonic() + seconds
        while (left := {each for each in self.started if _alive(each)}) and time.monotonic() < limit:
            time.sleep(0.2)
        return left

    def kill(self) -> None:
        """Kill it and what is left of what it started."""
        self.process.kill()
        self.process.wait()
        for process in self.started:
            if _alive(process):
                with suppress(ProcessLookupError):
                    os.kill(process[0], signal.SIGKILL)


@contextmanager
def running(config: Path) -> Iterator[Running]:
    """Start a sweep's command; nothing of it is left afterwards."""
    sweep = Running(config, config.with_suffix(".log"))
    try:
        yield sweep
    finally:
        sweep.kill()


def _states(folder: Path) -> list[str]:
    """States of the study's trials, as an onlooker reads them while it is written."""
    try:
        database = sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True)
        rows = database.execute("SELECT state FROM trials").fetchall()
        database.close()
    except sqlite3.Error:
        return []
    return [state for (state,) in rows]


def _saved(folder: Path) -> set[str]:
    """Names of the trials that have a whole checkpoint."""
    return {path.parts[-3] for path in folder.glob("trials/run_*/trial_*/checkpoint_*/manifest.json")}


EVALUATIONS = 12


def _long(bars_file: Path, folder: Path, trials: int) -> Path:
    """A sweep whose trials take a second and more each; nothing is stopped early."""
    search = {"env_steps": EVALUATIONS * EVALUATE_EVERY, "scheduler": "none", "trials": trials, "max_concurrent": 2}
    search["patience"] = 0
    named = {f"search__{key}": value for key, value in search.items()}
    return write_config(tiny_values(bars_file, folder, **named), folder / "tiny.yaml")


def test_a_killed_sweep_resumes_to_exactly_the_trials_asked_for(bars_file: Path, tmp_path: Path) -> None:
    config, folder = _long(bars_file, tmp_path, 4), tmp_path / "tiny"

    def midway() -> bool:
        states = _states(folder)
        return "COMPLETE" in states and "RUNNING" in states and len(_saved(folder)) > states.count("COMPLETE")

    with running(config) as sweep:
        sweep.wait_until(midway)
        os.kill(sweep.process.pid, signal.SIGKILL)
        sweep.process.wait()
    before = study_of(folder)
    done = {trial.user_attrs["label"]: trial.value for trial in before if trial.state in FINISHED}
    orphans = [trial.number for trial in before if trial.state is TrialState.RUNNING]
    assert done
    assert orphans

    answer = run_command(config, "--resume")
    assert answer.returncode == 0, answer.stderr
    assert_complete(folder, 4)
    after = {trial.number: trial for trial in study_of(folder)}
    # one that had ended, but was killed before the study was told, is settled as it ended; the others go on
    cut_off = [number for number in orphans if after[number].state is TrialState.FAIL]
    assert all(after[number].state in {TrialState.FAIL, TrialState.COMPLETE} for number in orphans)
    told = f"{len(cut_off)} trials were cut off; they go on from their last checkpoints"
    assert not cut_off or told in answer.stdout
    kept = {trial.user_attrs["label"]: trial.value for trial in after.values() if trial.state in FINISHED}
    assert kept.items() >= done.items()
    assert {path.name for path in folder.glob("trials/run_001/trial_*")}.isdisjoint(done), "no finished trial ran again"
    board = board_of(folder)
    assert set(board["evaluations"]) == {EVALUATIONS}, "no evaluation was lost"
    assert set(board["ended"]) == {f"budget at {EVALUATIONS * EVALUATE_EVERY:,} env steps"}


def test_an_interrupted_sweep_writes_what_it_reached_and_resumes(
    bars_file: Path, tmp_path: Path, ray_cluster: None
) -> None:
    config, folder = _long(bars_file, tmp_path, 2), tmp_path / "tiny"
    with running(config) as sweep:
        sweep.wait_until(lambda: bool(_saved(folder)))
        os.killpg(sweep.process.pid, signal.SIGINT)  # a terminal sends it to the whole group
        assert sweep.process.wait(120) == 1
        assert sweep.left() == set()
        said = sweep.log.read_text()
    assert "ending: trials are stopped, what was reached is written" in said
    assert "Traceback" not in said
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["state"] == "interrupted"
    assert summary["trials"]["unfinished"] == summary["trials"]["total"] >= 1
    ended = board_of(folder)["ended"]
    assert ended.str.endswith("; goes on with --resume").all()
    reached = board_of(folder)["env_steps"].max()
    assert 0 < reached < EVALUATIONS * EVALUATE_EVERY

    summary = run_sweep(load_config(config), resume=True)
    assert summary["state"] == "completed"
    assert_complete(folder, 2)
    assert set(board_of(folder)["evaluations"]) == {EVALUATIONS}


GPU_PROGRAM = """
import json, sys, time
from pathlib import Path
import ray, torch
from sentio_rllib.ppo.algorithm import SentioPPO
from sentio_rllib.config.loading import load_config
from sentio_rllib.search import tuning
from sentio_rllib.sweep.run import run_sweep

config, folder = load_config(sys.argv[1]), Path(sys.argv[2])

class Trial(SentioPPO):
    def setup(self, *args, **kwargs):
        super().setup(*args, **kwargs)
        mine = folder / f"{self.config.label}.json"
        mine.write_text(json.dumps({
            "resources": ray.get_runtime_context().get_assigned_resources(),
            "device": next(self.network().parameters()).device.type,
            "cuda": torch.cuda.is_available(),
        }))
        limit = time.monotonic() + 120
        while len(list(folder.glob("*.json"))) < 2:  # both are placed before either trains
            assert time.monotonic() < limit, "the other trial is not placed"
            time.sleep(0.1)

ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
tuning.SentioPPO = Trial
print(json.dumps(run_sweep(config)["trials"]))
assert ray.is_initialized()
"""


@pytest.mark.slow
def test_two_trials_share_a_gpu(bars_file: Path, tmp_path: Path) -> None:
    search = {"scheduler": "none", "trials": 2, "max_concurrent": 2, "env_steps": EVALUATE_EVERY}
    named = {f"search__{key}": value for key, value in search.items()}
    values = tiny_values(bars_file, tmp_path, resources={"cpu": 1.0, "gpu": 0.5}, **named)
    noted = tmp_path / "noted"
    noted.mkdir()
    arguments = [sys.executable, "-c", GPU_PROGRAM, str(write_config(values, tmp_path / "tiny.yaml")), str(noted)]
    answer = subprocess.run(
        arguments, capture_output=True, text=True, check=False, timeout=300, env=environment(PYTHONPATH=str(Path.cwd()))
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout.splitlines()[-1])["completed"] == 2
    for path in noted.glob("*.json"):
        trial = json.loads(path.read_text())
        assert trial["resources"] == {"CPU": 1.0, "GPU": 0.5}
        assert trial["device"] == ("cuda" if trial["cuda"] else "cpu")
    assert_complete(tmp_path / "tiny", 2)
