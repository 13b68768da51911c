"""Folders with a manifest: what is missing or altered is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sentio_rllib.errors import CheckpointError
from sentio_rllib.policy.checkpoint import load_model, save_model, verify_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "m", {"w": torch.arange(6.0).view(2, 3).T, "b": torch.zeros(1)}, {"score": 1.25, "name": "x"})
    return tmp_path / "m"


def test_what_was_saved_is_loaded(folder: Path) -> None:
    weights, metadata = load_model(folder)
    assert weights["w"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert metadata == {"score": 1.25, "name": "x"}


@pytest.mark.parametrize("name", ["model.safetensors", "metadata.json"])
def test_a_flipped_byte_or_a_missing_file_is_named(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 4
    (folder / name).write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=f"{name} is not what was written"):
        load_model(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load_model(folder)


def test_without_its_manifest_a_folder_is_no_checkpoint(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing"):
        verify_manifest(folder)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_torn_manifest_is_told(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"cannot be read|not an object"):
        load_model(folder)


def test_a_manifest_names_nothing_outside_its_folder(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["sha256"]) == {"model.safetensors", "metadata.json"}
