"""Checkpoints that fail loudly: tensors and JSON, each file listed with its SHA-256.

RLlib's own format leaves a missing component with fresh random weights and loads a flipped byte. Here
a folder is written whole or not at all as far as a reader can tell: the manifest comes last.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from sentio_rllib.errors import CheckpointError

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """List every file below `folder` with its SHA-256 and flush it to disk."""
    files = {
        str(path.relative_to(folder)): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder) != Path(MANIFEST)
    }
    temporary = folder / f".{MANIFEST}.tmp"
    with temporary.open("w") as file:
        json.dump({"sha256": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)


def verify_manifest(folder: Path) -> None:
    """Compare every file with the manifest.

    Raises
    ------
    CheckpointError
        If the manifest or a file is missing or cannot be read, or a file differs; names it.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise CheckpointError(f"{folder}: {MANIFEST} is missing; this is no complete checkpoint")
    wanted = _read_json(manifest).get("sha256", {})
    lines = []
    for name, digest in wanted.items():
        path = folder / name
        try:
            if not path.is_file():
                lines.append(f"{folder}: {name} is missing; copy the folder whole")
            elif sha256_of(path) != digest:
                lines.append(f"{folder}: {name} is not what was written (SHA-256 differs); copy it again")
        except OSError as error:  # a name that is no file's, or a file that may not be read
            lines.append(f"{folder}: {name[:80]} cannot be read ({error.strerror}); copy the folder whole")
    if lines:
        raise CheckpointError(*lines)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds {type(content).__name__}, not an object")
    return content


def save_model(folder: Path, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write weights and metadata as a verified folder (safetensors and JSON, no pickle)."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    (folder / WEIGHTS).write_bytes(save(tensors))  # `save_file` makes files that only their owner reads
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=1, sort_keys=True))
    write_manifest(folder)


def load_model(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return weights and metadata of a folder that :func:`save_model` wrote, after verifying it.

    Raises
    ------
    CheckpointError
        If anything is missing or altered.
    """
    verify_manifest(folder)
    return load_file(folder / WEIGHTS), _read_json(folder / "metadata.json")
