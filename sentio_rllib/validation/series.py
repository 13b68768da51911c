"""One series of session returns per configuration, raw and as timing: what selection is judged by.

A configuration has a record for each fold and seed. Seeds are averaged; folds lie side by side in time, and where
a session is divided between two of them the growth of its parts multiplies.

**Timing is what exposure earns by its moments.** Of a record's return r of session t beyond idle cash, with
exposure e relative to buy-and-hold's, and buy-and-hold's return h:

    timing_t = r_t - E_t h_t - (e_t - E_t) m n_t

E_t is the mean of the exposures before t, begun with what is known from elsewhere; m is the market's mean return a bar
in *other* folds, and n_t the session's bars. Each bar's exposure is known before the bar and E_t before the session, so
without an edge the mean is 0 whatever the rule does: an exposure that is known only afterwards would pay who takes
profits or buys dips and charge who follows trends (annual Sharpe ratios of +1.2 and -2.1 over 107 sessions). With m,
nobody is paid for having been in a market that rose; the market's own mean in the same fold would be known only
afterwards again. Who is always long has exactly 0. `experiments/benchmarks/calibration.py` measures bias, size, power.

Of each fold's others, the farthest one tells what exposure E_t begins with, as :data:`WEIGHT` sessions; m is of those
that are left, for both from the same sessions would go together. Without a fold to spare, E_t begins with the exposure
of the first bar, which the first decision alone has made. Sessions within :data:`APART` of a fold are left out of its
m, since what a rule holds there may depend on them.

Buy-and-hold is not stopped by the drawdown limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.seeding import Member
from sentio_rllib.statistics.inputs import Floats
from sentio_rllib.validation.evaluation import ROUNDING, Record, beyond_cash
from sentio_rllib.validation.schemes import Fold

WEIGHT = 2.0
"""Sessions that what is known from elsewhere counts for; more adds noise where exposure drifts, fewer lose power."""
APART = 10
"""Sessions between a fold and those that tell it the market's mean, fewer where less than a third would be left."""
MIN_OTHERS = 2
"""Other folds from which one can be spared."""


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
    excess
        float64[S], `raw` less what idle cash earns: what Sharpe ratios are of.
    """

    session: NDArray[np.int64]
    raw: Floats
    timing: Floats
    excess: Floats


def timing_returns(record: Record, hold: Record, market: Floats | float, usual: float | None = None) -> Floats:
    """Return what a record's exposure earned by its moments, float64[S]; exactly 0 for buy-and-hold itself.

    Parameters
    ----------
    record, hold
        Of the same blocks and rules; `hold` buys at each block's first decision and keeps.
    market
        Mean excess return a bar of buy-and-hold elsewhere, one for all sessions or float64[S]: on sessions that the
        record's exposure does not depend on. From other parts of the same record it would be biased.
    usual
        Exposure of the same configuration elsewhere, relative to buy-and-hold's (:func:`usual_exposure`); None: that
        of the first bar.

    Raises
    ------
    ValueError
        The two are not of the same sessions.
    """
    if not np.array_equal(record.session, hold.session):
        raise ValueError("record and hold are of different sessions; evaluate both on the same blocks")
    exposure, weight = _relative_exposure(record, hold), 1.0 if usual is None else WEIGHT
    begun = weight * (_opening_exposure(record, hold) if usual is None else usual)
    before = (begun + np.cumsum(exposure) - exposure) / (weight + np.arange(exposure.size))
    share = before * hold.excess_returns + (exposure - before) * market * record.session_bars
    timing = record.excess_returns - share
    # what is left by rounding would pass for a Sharpe ratio
    return np.where(np.abs(timing) <= ROUNDING * np.maximum(np.abs(share), np.abs(record.excess_returns)), 0.0, timing)


def usual_exposure(records: Sequence[Record], hold: Sequence[Record]) -> float:
    """Return the mean exposure of records by session, relative to buy-and-hold's on the same blocks."""
    return float(np.concatenate([_relative_exposure(*pair) for pair in zip(records, hold, strict=True)]).mean())


def _opening_exposure(record: Record, hold: Record) -> float:
    return record.opening_exposure / hold.opening_exposure if hold.opening_exposure > 0.0 else 0.0


def _relative_exposure(record: Record, hold: Record) -> Floats:
    """Exposure by session in units of buy-and-hold's; where that has none yet, what the first bar has."""
    exposure = np.full(record.session.size, _opening_exposure(record, hold))
    np.divide(record.session_exposure, hold.session_exposure, out=exposure, where=hold.session_exposure > 0.0)
    return exposure


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


def coverage(folds: Sequence[Fold]) -> int:
    """Return in how many folds the same bar validates: 1, but for combinatorial splits."""
    steps: dict[int, int] = {}
    for fold in folds:
        for block in fold.validation:
            steps[block.start] = steps.get(block.start, 0) + 1
            steps[block.stop] = steps.get(block.stop, 0) - 1
    return int(np.max(np.cumsum([steps[bar] for bar in sorted(steps)])))


class BySession(NamedTuple):
    """What records are together: int64[S] sessions, ascending, and float64[S] each."""

    session: NDArray[np.int64]
    returns: Floats
    excess: Floats
    bars: Floats


def by_session(records: Sequence[Record], members: Sequence[Member], count: int = 1) -> BySession:
    """Return sessions, net returns, returns beyond idle cash, and bars: seeds averaged, parts of a session multiplied.

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
    growth, bars = np.ones(session.size), np.zeros(session.size)
    for fold in sorted({fold for _, fold in members}):
        of_fold = [record for record, member in zip(records, members, strict=True) if member[1] == fold]
        at = np.searchsorted(session, of_fold[0].session)
        growth[at] *= (1.0 + np.mean([record.session_returns for record in of_fold], axis=0)) ** (1.0 / count)
        bars[at] += np.mean([record.session_bars for record in of_fold], axis=0) / count
    returns = growth - 1.0
    return BySession(session, returns, beyond_cash(returns, records[0].cash_growth, bars), bars)


def market_means(hold: Mapping[int, Record], count: int = 1, elsewhere: float | None = None) -> dict[int, float]:
    """Return for each fold the market's mean excess return a bar in other folds, away from it.

    Parameters
    ----------
    hold, count
        As in :func:`combine`.
    elsewhere
        What is told of a single fold, from bars that do not validate; None: 0, as of a market without a drift.
    """
    if len(hold) < 2:
        return dict.fromkeys(hold, elsewhere or 0.0)
    session, _, market, bars = by_session(list(hold.values()), [(0, fold) for fold in hold], count)
    means = {}
    for fold, held in hold.items():
        far = _farthest(fold, hold)
        left = np.ones(session.size, dtype=np.bool_) if far is None else ~np.isin(session, hold[far].session)
        means[fold] = market_mean(held.session, session[left], market[left], bars[left])
    return means


def combine(
    records: Sequence[Record],
    hold: Mapping[int, Record],
    members: Sequence[Member],
    count: int = 1,
    elsewhere: float | None = None,
) -> Series:
    """Return the series of a configuration.

    Parameters
    ----------
    records, members, count
        As in :func:`by_session`.
    hold
        Buy-and-hold on each fold's blocks.
    elsewhere
        As in :func:`market_means`.
    """
    session, raw, excess, _ = by_session(records, members, count)
    timing = np.zeros(session.size)
    share = 1.0 / (count * len({seed for seed, _ in members}))
    found = timing_by_member(records, hold, members, count, elsewhere)
    for (_, fold), each in zip(members, found, strict=True):
        timing[np.searchsorted(session, hold[fold].session)] += share * each
    return Series(session, raw, timing, excess)


def timing_by_member(
    records: Sequence[Record],
    hold: Mapping[int, Record],
    members: Sequence[Member],
    count: int = 1,
    elsewhere: float | None = None,
) -> list[Floats]:
    """Return the timing of each record, float64 of its own sessions; arguments as in :func:`combine`."""
    means, by_member, found = market_means(hold, count, elsewhere), dict(zip(members, records, strict=True)), []
    for seed, fold in members:
        far = _farthest(fold, hold)
        usual = None if far is None else usual_exposure([by_member[seed, far]], [hold[far]])
        found.append(timing_returns(by_member[seed, fold], hold[fold], means[fold], usual))
    return found


def _farthest(fold: int, hold: Mapping[int, Record]) -> int | None:
    """The fold farthest from `fold` that shares no session with it; None where the market's mean needs all others."""
    own = hold[fold].session
    apart = [other for other, held in hold.items() if not np.isin(held.session, own).any()]
    if len(apart) < MIN_OTHERS:
        return None
    return max(apart, key=lambda other: abs(float(hold[other].session.mean() - own.mean())))
