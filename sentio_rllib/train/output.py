"""Where a single run writes: ``{name}.pth``, ``{name}_metadata.json`` and the folder ``{name}_checkpoint/``.

Knows no torch, so that a wrong or a used name is told at once.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentio_rllib.command_line import at_home, not_local
from sentio_rllib.errors import TrainError
from sentio_rllib.sweep.folder import CONFIG, FINGERPRINT

LIMITS = "limits.json"

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
    reason = not_local(text)
    if reason:
        raise TrainError(f"--output {text!r} {reason}")
    base = Path(at_home(text))
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
