"""One series of session returns per configuration, raw and as timing: what selection is judged by.

A configuration has a record for each fold and seed. Seeds are averaged; folds lie side by side in time, and where
a session is divided between two of them the growth of its parts multiplies.

**Timing is what exposure earns by its moments.** Of a record's return r of session t beyond idle cash, with
exposure e relative to buy-and-hold's, and buy-and-hold's return h:

    timing_t = r_t - E_t h_t - (e_t - E_t) m n_t

E_t is the mean of the exposures before t, the first of which is that of the first bar; m is the market's mean return a
bar in *other* folds, and n_t the session's bars. Each bar's exposure is known before the bar and E_t before the
session, so without an edge the mean is 0 whatever the rule does: an exposure that is known only afterwards would pay
who takes profits or buys dips and charge who follows trends (annual Sharpe ratios of +1.8 and -1.7 over 107 sessions).
With m, nobody is paid for having been in a market that rose; the market's own mean in the same fold would be known only
afterwards again. Who is always long has exactly 0. `experiments/benchmarks/calibration.py` measures bias, size, power.

Sessions within :data:`APART` of a fold are left out of its m, since what a rule holds there may depend on them.
Buy-and-hold is not stopped by the drawdown limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.seeding import Member
from sentio_rllib.statistics.inputs import Floats
from sentio_rllib.validation.evaluation import Record
from sentio_rllib.validation.schemes import Fold

ROUNDING = 1e-9
"""Differences of returns below this share of them are none."""
APART = 20
"""Sessions between a fold and those that tell it the market's mean, fewer where less than a third would be left."""
PARTS = 4
"""Parts that one record without other folds is divided into, each of which takes its mean from the others."""


@dataclass(frozen=True)
class Series:
    """Out-of-sample returns of one configuration.

    Attributes
    ----------
    session
        int64[S], ordinals of the sessions, ascending.
    raw
        float64[S], net simple returns, compounded within the session.
    timing
        float64[S], of :func:`timing_returns`.
    cash
        What idle cash earns in a session.
    """

    session: NDArray[np.int64]
    raw: Floats
    timing: Floats
    cash: float = 0.0

    @property
    def excess(self) -> Floats:
        """`raw` less `cash`: what Sharpe ratios are of, float64[S]."""
        return self.raw - self.cash


def timing_returns(record: Record, hold: Record, market: Floats | float | None = None) -> Floats:
    """Return what a record's exposure earned by its moments, float64[S]; exactly 0 for buy-and-hold itself.

    Parameters
    ----------
    record, hold
        Of the same blocks and rules; `hold` buys at each block's first decision and keeps.
    market
        Mean excess return a bar of buy-and-hold in other folds, one for all sessions or float64[S]; None: the record's
        sessions in :data:`PARTS` parts, each with the mean of the others. It has to come from sessions that the
        record's exposure does not depend on.

    Raises
    ------
    ValueError
        The two are not of the same sessions.
    """
    if not np.array_equal(record.session, hold.session):
        raise ValueError("record and hold are of different sessions; evaluate both on the same blocks")
    if market is None:
        market = _means_of_parts(hold)
    opening = record.opening_exposure / hold.opening_exposure if hold.opening_exposure > 0.0 else 0.0
    exposure = np.full(record.session.size, opening)
    np.divide(record.session_exposure, hold.session_exposure, out=exposure, where=hold.session_exposure > 0.0)
    before = np.cumsum(np.concatenate([[opening], exposure[:-1]])) / np.arange(1, exposure.size + 1)
    share = before * hold.excess_returns + (exposure - before) * market * record.session_bars
    timing = record.excess_returns - share
    # what is left by rounding would pass for a Sharpe ratio
    return np.where(np.abs(timing) <= ROUNDING * np.maximum(np.abs(share), np.abs(record.excess_returns)), 0.0, timing)


def market_mean(own: NDArray[np.int64], session: NDArray[np.int64], hold: Floats, bars: Floats) -> float:
    """Return buy-and-hold's mean return a bar away from the sessions `own`; 0 where there are no others.

    Parameters
    ----------
    own
        int64[K >= 1], sessions of a fold, ascending.
    session, hold, bars
        int64[S] and float64[S], all sessions, ascending, with their returns and how many bars they have.
    """
    after = np.searchsorted(own, session)
    to_next = np.abs(own[np.minimum(after, own.size - 1)] - session)
    distance = np.minimum(to_next, np.abs(own[np.maximum(after - 1, 0)] - session))
    others = int(np.count_nonzero(distance))
    for apart in range(APART, -1, -1):
        far = distance > apart
        if 3 * int(np.count_nonzero(far)) >= others:
            return float(hold[far].sum() / bars[far].sum()) if others else 0.0
    raise AssertionError("with no distance all others are left")


def _means_of_parts(hold: Record) -> Floats:
    parts = [part for part in np.array_split(hold.session, PARTS) if part.size]
    told = (hold.session, hold.excess_returns, hold.session_bars)
    return np.concatenate([np.full(part.size, market_mean(part, *told)) for part in parts])


def coverage(folds: Sequence[Fold]) -> int:
    """Return in how many folds the same bar validates: 1, but for combinatorial splits."""
    steps: dict[int, int] = {}
    for fold in folds:
        for block in fold.validation:
            steps[block.start] = steps.get(block.start, 0) + 1
            steps[block.stop] = steps.get(block.stop, 0) - 1
    return int(np.max(np.cumsum([steps[bar] for bar in sorted(steps)])))


def returns_by_session(
    records: Sequence[Record], members: Sequence[Member], count: int = 1
) -> tuple[NDArray[np.int64], Floats]:
    """Return sessions int64[S] and their net returns float64[S]: seeds averaged, parts of a session multiplied.

    Parameters
    ----------
    records
        One per member.
    members
        (seed, fold) of each; every fold has every seed.
    count
        How often the folds cover each bar, :func:`coverage`; the growth of the paths is averaged geometrically.
    """
    session = np.unique(np.concatenate([record.session for record in records]))
    growth = np.ones(session.size)
    for fold in sorted({fold for _, fold in members}):
        of_fold = [record for record, member in zip(records, members, strict=True) if member[1] == fold]
        mean = np.mean([record.session_returns for record in of_fold], axis=0)
        growth[np.searchsorted(session, of_fold[0].session)] *= (1.0 + mean) ** (1.0 / count)
    return session, growth - 1.0


def combine(records: Sequence[Record], hold: Mapping[int, Record], members: Sequence[Member], count: int = 1) -> Series:
    """Return the series of a configuration.

    Parameters
    ----------
    records, members, count
        As in :func:`returns_by_session`.
    hold
        Buy-and-hold on each fold's blocks.
    """
    session, raw = returns_by_session(records, members, count)
    _, market = returns_by_session(list(hold.values()), [(0, fold) for fold in hold], count)
    bars, cash = np.zeros(session.size), records[0].cash_return
    for each in hold.values():
        bars[np.searchsorted(session, each.session)] += each.session_bars / count
    means = {fold: market_mean(each.session, session, market - cash, bars) for fold, each in hold.items()}
    timing = np.zeros(session.size)
    share = 1.0 / (count * len({seed for seed, _ in members}))
    for record, (_, fold) in zip(records, members, strict=True):
        mean = means[fold] if len(hold) > 1 else None
        timing[np.searchsorted(session, record.session)] += share * timing_returns(record, hold[fold], mean)
    return Series(session, raw, timing, cash)
