"""What a single run keeps: its networks, and the newest two checkpoints, of which one is always whole.

The folder holds the configuration and fingerprint as a sweep's does, the limits, and the checkpoints. Knows no Ray.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sentio_rllib.errors import TrainError
from sentio_rllib.policy.checkpoint import sha256_of
from sentio_rllib.search.durable import write_json
from sentio_rllib.search.prepare import Prepared
from sentio_rllib.search.selection import last_checkpoint
from sentio_rllib.sweep.folder import FINGERPRINT, fingerprint
from sentio_rllib.train.output import Output, read_json

COURSE = "course.json"
KEPT = 2
"""Checkpoints that are kept, so that one that is damaged leaves another."""


def check_same(output: Output, prepared: Prepared) -> None:
    """Refuse to go on with other bars, code or features than the run was started with.

    Raises
    ------
    TrainError
        Names what has changed.
    """
    before, now = read_json(output.folder / FINGERPRINT), fingerprint(prepared)
    changed = [
        f"{key}: changed since the run was started ({str(before.get(key))[:24]} then, {now[key][:24]} now); put it "
        "back or start a new run"
        for key in now
        if before.get(key) != now[key]
    ]
    if changed:
        raise TrainError(*changed)


def save_checkpoint(output: Output, env_steps: int, course: Mapping[str, Any], save: Callable[[str], None]) -> None:
    """Write a checkpoint and drop those that are too old; a kill at any moment leaves one that is whole.

    Parameters
    ----------
    output
        Of the run.
    env_steps
        Names the checkpoint.
    course
        What the run keeps beside the trial's state.
    save
        Writes the trial's state, and last the manifest, to a folder.
    """
    folder = output.folder / f"checkpoint_{env_steps:012d}"
    shutil.rmtree(folder, ignore_errors=True)  # one of the same step that was not finished, or is written again
    folder.mkdir()
    write_json(folder / COURSE, course)
    save(str(folder))
    for old in sorted(output.folder.glob("checkpoint_*"))[:-KEPT]:
        shutil.rmtree(old)


def newest_checkpoint(output: Output) -> tuple[Path | None, dict[str, Any], str]:
    """Return the newest whole checkpoint with its course, and what was wrong with newer ones."""
    path, note = last_checkpoint(output.folder)
    return path, {} if path is None else read_json(path / COURSE), note


def drop_newer(output: Output, checkpoint: Path | None) -> None:
    """Remove what is newer than the checkpoint that a run goes on from: it is not whole."""
    for path in output.folder.glob("checkpoint_*"):
        if checkpoint is None or path.name > checkpoint.name:
            shutil.rmtree(path)


def write_model(output: Output, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Replace the networks, then their metadata, which hold the SHA-256 of the networks they belong to.

    A kill between the two leaves new networks beside old metadata: the SHA-256 tells, ``--resume`` writes both anew.
    """
    temporary = output.weights.with_name(f".{output.weights.name}.tmp")
    with temporary.open("wb") as file:
        torch.save({key: value.detach().cpu().contiguous() for key, value in weights.items()}, file)
        file.flush()
        os.fsync(file.fileno())
    digest = sha256_of(temporary)
    temporary.replace(output.weights)
    write_json(output.metadata, {**metadata, "sha256": {output.weights.name: digest}})
