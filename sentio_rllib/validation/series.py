"""One series of session returns per configuration, raw and as timing: what selection is judged by.

A configuration has a record for each fold and seed. Seeds are averaged; folds lie side by side in time, and where
a session is cut between two of them its parts are added.

**Timing is what is left of a return after exposure.** Per member, its session returns less ``e / e_hold`` times
buy-and-hold's on the same blocks, e being mean position fractions. Dividing by buy-and-hold's own exposure leaves
exactly 0 of who is always long; with e alone a constant share of the market's luck would remain, whose Sharpe ratio
is the market's. Taken per fold and seed, since what a fold's exposure happened to be is no timing either.
Buy-and-hold is not stopped by the drawdown limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.seeding import Member
from sentio_rllib.statistics.inputs import Floats
from sentio_rllib.validation.evaluation import Record
from sentio_rllib.validation.schemes import Fold

ROUNDING = 1e-9
"""Differences of returns below this share of them are none."""


@dataclass(frozen=True)
class Series:
    """Out-of-sample returns of one configuration.

    Attributes
    ----------
    session
        int64[S], ordinals of the sessions, ascending.
    raw
        float64[S], net simple returns.
    timing
        float64[S], `raw` less what buy-and-hold earned at the same mean exposure (:func:`timing_returns`).
    """

    session: NDArray[np.int64]
    raw: Floats
    timing: Floats


def timing_returns(record: Record, hold: Record) -> Floats:
    """Return a record's session returns less buy-and-hold's at the same mean exposure, float64[S].

    ``r - e / e_hold * r_hold`` with e the mean position fraction at the decisions. What all who are long earn
    together is luck that no spread between trials shows; being always long leaves exactly 0 here. The mean
    exposure is known only afterwards, so this is a measure and never an input.

    Parameters
    ----------
    record, hold
        Of the same blocks and rules; `hold` buys at each block's first decision and keeps.

    Raises
    ------
    ValueError
        The two are not of the same sessions.
    """
    if not np.array_equal(record.session, hold.session):
        raise ValueError("record and hold are of different sessions; evaluate both on the same blocks")
    scale = record.exposure / hold.exposure if hold.exposure > 0.0 else 0.0
    share = scale * hold.session_returns
    timing = record.session_returns - share
    # what is left by rounding would pass for a Sharpe ratio
    return np.where(np.abs(timing) <= ROUNDING * np.maximum(np.abs(share), np.abs(record.session_returns)), 0.0, timing)


def coverage(folds: Sequence[Fold]) -> int:
    """Return in how many folds the same bar validates: 1, but for combinatorial splits."""
    steps: dict[int, int] = {}
    for fold in folds:
        for block in fold.validation:
            steps[block.start] = steps.get(block.start, 0) + 1
            steps[block.stop] = steps.get(block.stop, 0) - 1
    return int(np.max(np.cumsum([steps[bar] for bar in sorted(steps)])))


def combine(records: Sequence[Record], hold: Sequence[Record], members: Sequence[Member], count: int = 1) -> Series:
    """Return the series of a configuration.

    Parameters
    ----------
    records
        One per member.
    hold
        Buy-and-hold on each member's blocks.
    members
        (seed, fold) of each; every fold has every seed.
    count
        How often the folds cover each bar, :func:`coverage`.
    """
    session = np.unique(np.concatenate([record.session for record in records]))
    raw, timing = np.zeros(session.size), np.zeros(session.size)
    share = 1.0 / (count * len({seed for seed, _ in members}))
    for record, held in zip(records, hold, strict=True):
        at = np.searchsorted(session, record.session)
        raw[at] += share * record.session_returns
        timing[at] += share * timing_returns(record, held)
    return Series(session, raw, timing)
