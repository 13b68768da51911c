"""One file of bars and one finished sweep for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentio_rllib.sweep.ledger import Ledger
from sentio_rllib.sweep.run import run_sweep
from tests.sweep.tiny import market_frame, tiny_config


@pytest.fixture(scope="session")
def bars_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feather file of a small planted market."""
    path = tmp_path_factory.mktemp("bars") / "PLANTED_1m.feather"
    market_frame().to_feather(path)
    return path


@pytest.fixture(scope="session")
def finished(bars_file: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """The folder of a sweep of four trials under ASHA that ran to its end; tests copy it before they write."""
    storage = tmp_path_factory.mktemp("experiments")
    run_sweep(tiny_config(bars_file, storage))
    return storage / "tiny"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty ledger in a folder of its own."""
    return Ledger(tmp_path / "data" / "ledger.sqlite")
