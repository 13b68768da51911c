"""The markets and trial settings that the benchmark programs train on."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.market.oracle import oracle_actions
from sentio_rllib.market.synthetic import SyntheticMarket, synthetic_market
from sentio_rllib.market.tape import Tape, build_tape
from sentio_rllib.seeding import stream_seed
from sentio_rllib.validation.splits import Footprint, Splits, make_splits


class Law(NamedTuple):
    """How long a regime is, in bars, and how many bars before it what tells it lies; 0: it is told as it comes."""

    regime_bars: int
    memory: int


PLAIN, MEMORY = Law(780, 0), Law(120, 400)
MEMORY_EDGE = 5e-5
"""Log return of a bar on the memory market, whose regimes are too short for a smaller one to pay the fees."""


class Market(NamedTuple):
    """A synthetic market cut before its holdout, its folds, and the oracle's action at every bar."""

    tape: Tape
    splits: Splits
    oracle: NDArray[np.int64]


def synthetic(bars: int, edge: float, seed: int, splits: Splits, law: Law = PLAIN) -> SyntheticMarket:
    """Return the market whose sections are those of `splits`."""
    return synthetic_market(bars, seed=seed, edge=edge, boundaries=splits.boundaries(), **law._asdict())


@cache
def market(bars: int, edge: float, seed: int = 0, interval: int = 15, folds: int = 4, *, law: Law = PLAIN) -> Market:
    """Return the planted (or, with `edge` 0, the null) market."""
    splits = make_splits(bars, footprint=Footprint(decision_interval=interval), folds=folds)
    made = synthetic(bars, edge, seed, splits, law)
    tape = build_tape(made.bars).cut(splits.development.stop)
    actions = oracle_actions(made.regime, np.arange(tape.n))  # the holdout follows, so every bar has a next one
    return Market(tape, splits, actions.astype(np.int64))


def members(seeds: int, folds: int) -> tuple[tuple[int, int], ...]:
    """Return (seed, fold) of every member."""
    return tuple((stream_seed("benchmark", index) % 2**31, fold) for fold in range(folds) for index in range(seeds))
