"""Timing where nothing can be known: rules that read past prices in markets that have no edge, and late comers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest

from sentio_rllib.statistics.inputs import Floats
from sentio_rllib.statistics.metrics import sharpe
from sentio_rllib.validation.series import combine
from tests.validation.records import record

BARS, SESSIONS, EARLIER, FOLDS, YEAR = 8, 252, 20, 4, 252
SEED = 0
VOLATILITY = 0.02
"""Of a session."""


def _growth(markets: int, seed: int, drift: float = 0.0) -> Floats:
    """Simple returns of bars float64[markets, T], independent of all before them, with some sessions of the past."""
    rng = np.random.default_rng(seed)
    return rng.normal(drift / BARS, VOLATILITY / np.sqrt(BARS), (markets, (EARLIER + SESSIONS) * BARS))


def _held(rule: str, returns: Floats, seed: int) -> Floats:
    """Share of equity held over each bar, decided by the prices before it."""
    markets, bars = returns.shape
    price = np.concatenate([np.ones((markets, 1)), np.cumprod(1.0 + returns, axis=1)], axis=1)[:, :-1]  # before a bar
    held = np.zeros_like(returns)
    if rule == "random":
        return np.repeat(np.random.default_rng(seed + 1).random((markets, bars // BARS)), BARS, axis=1)
    if rule == "trend":  # long above the price of 20 sessions ago
        back = 20 * BARS
        held[:, back:] = price[:, back:] > price[:, :-back]
        return held
    long = np.full(markets, rule == "take profit")
    mark, until = price[:, 0].copy(), np.zeros(markets, dtype=np.int64)
    for bar in range(bars):
        now = price[:, bar]
        if rule == "take profit":  # sells 3% above what it paid and comes back after ten sessions
            sold = long & (now >= 1.03 * mark)
            until[sold] = bar + 10 * BARS
            bought = ~long & ~sold & (until <= bar)
            long = (long & ~sold) | bought
            mark[bought] = now[bought]
        else:  # buys 5% below the highest price and sells where it is reached again
            mark = np.maximum(mark, now)
            long = np.where(long, now < mark, now <= 0.95 * mark)
        held[:, bar] = long
    return held


def _walked(rule: str, returns: Floats, seed: int) -> Floats:
    """Share held over each bar by accounts that start anew with each fold, as validation does; a trend looks back."""
    held, folds = np.zeros_like(returns), np.array_split(np.arange(SESSIONS), FOLDS)
    for each in folds:
        first, last = (EARLIER + each[0]) * BARS, (EARLIER + each[-1] + 1) * BARS
        back = EARLIER * BARS if rule == "trend" else 0
        held[:, first:last] = _held(rule, returns[:, first - back : last], seed + each[0])[:, back:]
    return held


class Judged(NamedTuple):
    """Of each market: annual Sharpe ratio of timing, its mean a session, and the ratio of returns less mean share."""

    ratio: Floats
    mean: Floats
    afterwards: Floats


def _judge(returns: Floats, held: Floats) -> Judged:
    """Fold by fold records of accounts that hold `held` over each bar, and what timing says of them."""
    returns, held = (each[:, EARLIER * BARS :].reshape(-1, SESSIONS, BARS) for each in (returns, held))
    own, hold = (1.0 + held * returns).prod(-1) - 1.0, (1.0 + returns).prod(-1) - 1.0
    share, opening = held.mean(-1), held[:, :, 0]
    folds = np.array_split(np.arange(SESSIONS), FOLDS)
    members = [(0, fold) for fold in range(FOLDS)]
    found = []
    for market in range(len(own)):
        r, h, e = own[market], hold[market], share[market]
        records = [
            record(r[each], each, exposure=e[each], opening_exposure=float(opening[market, each[0]])) for each in folds
        ]
        always = {fold: record(h[each], each, exposure=1.0) for fold, each in enumerate(folds)}
        timing = combine(records, always, members).timing
        known_later = np.concatenate([r[each] - e[each].mean() * h[each] for each in folds])
        found.append((sharpe(timing, YEAR), timing.mean(), sharpe(known_later, YEAR)))
    return Judged(*np.array(found).T)


def _errors(values: Floats) -> float:
    """How many of its standard errors a mean is away from 0."""
    return abs(float(values.mean())) / float(values.std(ddof=1)) * math.sqrt(values.size)


# the range is of what a mean exposure that is known only afterwards pays or charges
@pytest.mark.parametrize(
    ("rule", "low", "high"),
    [("random", -0.2, 0.2), ("trend", -9.0, -0.4), ("take profit", 0.4, 9.0), ("dip", 0.4, 9.0)],
)
def test_no_rule_has_timing_in_a_martingale(rule: str, low: float, high: float) -> None:
    returns = _growth(1000, seed=SEED)
    found = _judge(returns, _walked(rule, returns, seed=SEED))
    assert _errors(found.mean) < 3.0
    assert abs(found.ratio.mean()) <= 0.15  # a standard error is 0.03
    assert 0.7 < found.ratio.std() < 1.3  # and one market's is that of a year
    assert low < found.afterwards.mean() < high


def test_who_comes_late_to_a_market_that_rises_has_no_timing() -> None:
    """Long in the second half of each fold: nothing of the market's rise is due to when that was."""
    returns = _growth(150, seed=SEED, drift=0.004)
    half = SESSIONS // FOLDS // 2
    late = (np.arange(EARLIER + SESSIONS) - EARLIER) % (2 * half + 1) >= half
    held = np.broadcast_to(np.repeat(late, BARS), returns.shape).astype(np.float64)
    found = _judge(returns, held)
    assert _errors(found.mean) < 3.0
    # without the market's mean they would be paid for the rise
    growth = (1.0 + returns[:, EARLIER * BARS :]).reshape(-1, SESSIONS, BARS).prod(-1) - 1.0
    shown = late[EARLIER:].astype(np.float64).reshape(FOLDS, -1)
    before = np.cumsum(shown, axis=1) - shown
    paid = (shown - before / np.maximum(1, np.arange(shown.shape[1]))).ravel() * growth
    assert _errors(paid.mean(1)) > 10.0


def test_a_planted_edge_is_timing() -> None:
    """Out of the market before a fifth of its falling sessions: the ratio is far from what luck gives."""
    returns = _growth(60, seed=SEED)
    falls = (1.0 + returns).reshape(60, -1, BARS).prod(-1) < 1.0
    warned = falls & (np.random.default_rng(SEED).random(falls.shape) < 0.2)
    found = _judge(returns, np.repeat(~warned, BARS, axis=1).astype(np.float64))
    assert found.ratio.mean() > 2.0
    assert _errors(found.mean) > 10.0
