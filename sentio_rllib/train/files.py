"""The files of a single run: ``{name}.pth``, ``{name}_metadata.json`` and the folder ``{name}_checkpoint/``.

The folder holds the configuration and fingerprint as a sweep's does, the limits, and the newest two checkpoints, of
which one is always whole. Knows no Ray.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sentio_rllib.errors import TrainError
from sentio_rllib.policy.checkpoint import sha256_of
from sentio_rllib.sweep.claim import CONFIG, FINGERPRINT, fingerprint
from sentio_rllib.sweep.files import write_json
from sentio_rllib.sweep.prepare import Prepared
from sentio_rllib.sweep.selection import last_checkpoint

LIMITS = "limits.json"
COURSE = "course.json"
KEPT = 2
"""Checkpoints that are kept, so that one that is damaged leaves another."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_EXTENSIONS = {".pth", ".pt", ".json", ".safetensors", ".onnx", ".zip"}


@dataclass(frozen=True)
class Output:
    """Where a run writes: `base` is the path of its files without their endings."""

    base: Path

    @property
    def weights(self) -> Path:
        """The networks of the best evaluation, a state dict of tensors."""
        return self.base.with_name(f"{self.base.name}.pth")

    @property
    def metadata(self) -> Path:
        """What they are."""
        return self.base.with_name(f"{self.base.name}_metadata.json")

    @property
    def folder(self) -> Path:
        """From which ``--resume`` goes on."""
        return self.base.with_name(f"{self.base.name}_checkpoint")

    def used(self) -> bool:
        """Whether any of them is there; a folder in which a run ended before it had begun is not."""
        begun = self.folder.exists() and not self._unbegun()
        return begun or self.weights.exists() or self.metadata.exists()

    def _unbegun(self) -> bool:
        """Whether the folder holds at most what is written before the configuration."""
        before = {LIMITS, FINGERPRINT}
        try:
            return all(path.name in before or path.name.startswith(".") for path in self.folder.iterdir())
        except OSError:  # no folder, or one that may not be read
            return False


def output_of(text: str | None, variant: str) -> Output:
    """Return where ``--output`` points, by default a name of variant and time that is free.

    Raises
    ------
    TrainError
        If it is no name without extension.
    """
    if text is None:
        return _free(f"{variant}_{time.strftime('%Y%m%d_%H%M%S')}")
    base = Path(text)
    if not _NAME.fullmatch(base.name) or text.endswith("/") or base.suffix in _EXTENSIONS:
        raise TrainError(
            f"--output {text!r}: allowed is a name without extension, of up to 80 letters, digits, '.', '_' and '-', "
            "the first a letter or digit; it may lie in a folder, as models/first"
        )
    return Output(base)


def _free(name: str) -> Output:
    output, number = Output(Path(name)), 1
    while output.used() or output.folder.exists():  # a run of the same second may have made it just now
        number += 1
        output = Output(Path(f"{name}_{number}"))
    return output


def check_free(output: Output) -> None:
    """Refuse an output of which any file exists.

    Raises
    ------
    TrainError
        Names the way out.
    """
    if output.used():
        raise TrainError(f"{output.base}: exists already; pass --resume to go on with it, or another --output")


def make_folder(output: Output, *, named: bool) -> Output:
    """Make the folder of a new run and return its output: another one where a run of the same second was faster.

    Raises
    ------
    TrainError
        If it was `named` and another run has taken it just now, or it cannot be made.
    """
    try:
        output.folder.mkdir(parents=True)
    except FileExistsError:
        if not named:
            return make_folder(_free(output.base.name), named=named)
        check_free(output)
    except OSError as error:
        raise TrainError(f"{output.folder}: cannot be made ({error.strerror}); choose another --output") from error
    return output


def check_resumable(output: Output) -> None:
    """Refuse to go on where nothing was started.

    Raises
    ------
    TrainError
        Names the file that is missing.
    """
    for path in (output.folder / CONFIG, output.folder / FINGERPRINT):
        if not path.is_file():
            raise TrainError(
                f"--output {output.base}: there is no run to resume ({path} is missing); leave --resume out"
            )


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


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file of a run.

    Raises
    ------
    TrainError
        If it cannot be read.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TrainError(f"{path}: cannot be read ({error}); start a new run with another --output") from error
    return content


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
