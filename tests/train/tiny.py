"""Single runs that take a second: a small file of bars, small networks, and figures that are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from sentio_rllib.train.__main__ import main
from sentio_rllib.train.display import Progress
from sentio_rllib.train.output import Output

EVALUATE_EVERY = 256
"""Two rollouts."""

EPISODES_A_ROLLOUT = 64
"""Of 4 environments that make 32 decisions, episodes being of 2: of an environment's, only the first may be of 1."""

SET = {
    "policy.hidden": "[8]",
    "ppo.environments": "4",
    "ppo.rollout_steps": "32",
    "ppo.minibatch_rows": "64",
    "ppo.epochs": "1",
    "ppo.precision": "float32",
    "search.evaluate_every": str(EVALUATE_EVERY),
    "search.grace_steps": str(EVALUATE_EVERY),
    "search.patience": "0",
    "evidence.probes": "false",
}
ENHANCED = {"policy.d_model": "8", "policy.band": "4", "ppo.sequence_length": "32"}


def arguments(bars: Path, output: Path, *more: str, kind: str = "maskable", **changes: str) -> list[str]:
    """The command's arguments; changes of `SET` are named with double underscores."""
    values = SET | (ENHANCED if kind == "enhanced-maskable" else {})
    values |= {"evidence.ledger": str(output.parent / "ledger.sqlite")}
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    sets = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    base = ["--type", kind, "--data", str(bars), "--output", str(output), "--episode-length", "30"]
    return [*base, *sets, *more]


def run(bars: Path, output: Path, *more: str, **changes: str) -> dict[str, Any]:
    """Run the command in this process and return the metadata that it wrote."""
    assert main(arguments(bars, output, *more, **changes)) == 0
    return metadata(output)


def metadata(output: Path) -> dict[str, Any]:
    """The metadata of a run."""
    content: dict[str, Any] = json.loads(Output(output).metadata.read_text())
    return content


def weights(output: Path) -> dict[str, torch.Tensor]:
    """The networks of a run."""
    loaded: dict[str, torch.Tensor] = torch.load(Output(output).weights, weights_only=True)
    return loaded


def trained(output: Path) -> dict[str, torch.Tensor]:
    """The networks in the newest checkpoint, which are those that training had come to."""
    newest = sorted(Output(output).folder.glob("checkpoint_*"))[-1]
    state: dict[str, torch.Tensor] = torch.load(newest / "training_state.pt", weights_only=True)["weights"]
    return state


class Kept(Progress):
    """Keeps what it shows."""

    def __init__(self, *, terminal: bool = False) -> None:
        self.screen = StringIO()
        super().__init__(Console(file=self.screen, force_terminal=terminal, width=200))
        self.iterations: list[dict[str, Any]] = []
        self.lines: list[str] = []

    def told(self, line: str) -> None:
        """Keep and print it."""
        self.lines.append(line)
        super().told(line)

    def iteration(self, figures: Mapping[str, Any]) -> None:
        """Keep and show them."""
        if figures:
            self.iterations.append(dict(figures))
        super().iteration(figures)
