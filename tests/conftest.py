"""Fixtures that the whole suite shares: one Ray cluster per process, one small planted market."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray
import torch

from sentio_rllib.market.synthetic import synthetic_market
from sentio_rllib.market.tape import Tape, build_tape
from sentio_rllib.validation.splits import Footprint, Splits, make_splits

torch.set_num_threads(1)
SMALL_BARS = 12_000


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
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
