"""Fixtures that the whole suite shares: one Ray cluster per process, one small planted market, one finished sweep."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from sentio_rllib.evidence.ledger import Ledger
from sentio_rllib.market.synthetic import synthetic_market
from sentio_rllib.market.tape import Tape, build_tape
from sentio_rllib.sweep.run import run_sweep
from sentio_rllib.validation.splits import Footprint, Splits, make_splits
from tests.tiny_sweep import market_frame, tiny_config

torch.set_num_threads(1)
SMALL_BARS = 12_000

LONG = ("test_runs", "test_interruptions", "test_faults", "test_run", "test_algorithm", "test_searcher", "test_claims")
"""Files that take half a minute and more, the longest first: begun last, one would keep a single process busy."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    rank = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session")
def small_splits() -> Splits:
    """Two folds and a holdout over SMALL_BARS bars, for episodes of 300 bars."""
    return make_splits(SMALL_BARS, footprint=Footprint(), folds=2, episode_length=300, min_validation_bars=780)


@pytest.fixture(scope="session")
def small_tape(small_splits: Splits) -> Tape:
    """The tape of a planted market, cut before the holdout."""
    market = synthetic_market(SMALL_BARS, seed=5, edge=1e-4, boundaries=small_splits.boundaries())
    return build_tape(market.bars).cut(small_splits.development.stop)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray of two CPUs, started once and shut down at the end."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


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
