"""Markets, policies and searches at the level of returns, four bars a session; no network is trained.

Trials and evaluations correlate as those of a sweep do: `correlation.py` measures between the session returns of
trials on a market without an edge 0.4 to 0.7 at the same evaluation and 0.2 at their best, and between the evaluations
of one 0.7, falling to 0.3; the exposures here give 0.6 and 0.8 for returns, 0.2 and 0.7 for timing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import ndtr

from sentio_rllib.statistics.deflation import Looks, Panel
from sentio_rllib.statistics.metrics import cv_score, sharpe
from sentio_rllib.validation.evaluation import Record
from sentio_rllib.validation.series import combine, timing_returns

YEAR, FOLDS, BARS = 252, 4, 4
"""Sessions of a year, folds, and bars of a session here."""
VOLATILITY = 0.0125
"""Of a session, about QQQ's."""
DWELL = 2
"""Mean sessions of a position of the random policy, and of a planted regime."""
HOLDOUT = 4
"""Sessions of cross-validation to one of the holdout."""

Floats = NDArray[np.float64]
Exposures = NDArray[np.bool_]


def spans(sessions: int) -> list[tuple[int, int]]:
    """First session and the one after the last of each fold."""
    edges = np.linspace(0, sessions, FOLDS + 1).astype(int)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def persistent(random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Standard normal, autoregressive along the last axis with a memory of :data:`DWELL` sessions."""
    keep = 1.0 - 1.0 / (DWELL * BARS)
    noise = random.standard_normal(shape)
    noise[..., 1:] *= np.sqrt(1.0 - keep**2)
    return np.asarray(lfilter([1.0], [1.0, -keep], noise, axis=-1))


def market(random: np.random.Generator, sessions: int, drift: float, count: int = 1) -> Floats:
    """Bar returns float64[count, bars] with the annual Sharpe ratio `drift`, independent but for that."""
    noise = random.standard_normal((count, sessions * BARS)) * VOLATILITY / np.sqrt(BARS)
    return noise + drift / np.sqrt(YEAR) * VOLATILITY / BARS


def rule(policy: str, random: np.random.Generator, log_prices: Floats) -> Exposures:
    """Exposures bool[n, bars] of a rule that starts anew; log_prices float64[n, bars + 1], 0 at first.

    The rules of several rows differ by a tenth, as neighbouring trials do.
    """
    count, bars = log_prices.shape[0], log_prices.shape[1] - 1
    vary = random.uniform(0.95, 1.05, count)
    held = np.zeros((count, bars), dtype=np.bool_)
    name, _, argument = policy.partition(" ")
    if name == "trend":
        rows = np.arange(count)
        back = np.maximum(1, np.round(float(argument) * BARS * vary).astype(int))
        for bar in range(1, bars):
            held[:, bar] = log_prices[:, bar] > log_prices[rows, np.maximum(bar - back, 0)]
        return held
    inside, since, peak = np.full(count, name == "take"), np.zeros(count), np.zeros(count)
    mark = np.zeros(count)
    for bar in range(bars):
        held[:, bar] = inside
        now = log_prices[:, bar + 1]
        if name == "take":  # sold 3% above where it was bought, bought again after ten sessions
            sold = inside & (now - mark > 0.03 * vary)
            since = np.where(sold, 0, since + 1)
            again = ~inside & (since >= 10 * BARS)
            inside, mark = (inside & ~sold) | again, np.where(again, now, mark)
        else:  # bought so far below the peak, sold at it
            peak = np.maximum(peak, now)
            fall = float(argument.rstrip("%")) / 100 * vary
            inside = np.where(inside, now < peak, now < peak - fall)
    return held


def exposures(
    policy: str,
    random: np.random.Generator,
    returns: Floats,
    size: tuple[int, int],
    *,
    planted: Floats,
    shared: Floats | None = None,
) -> tuple[Exposures, Floats]:
    """Exposures bool[trials, evaluations, bars] of a search on one stretch of a market, and what they were made of.

    `shared` float64[bars]: what all trials have in common; None: drawn anew.
    """
    (trials, evaluations), bars = size, returns.size
    shared = persistent(random, (bars,)) if shared is None else shared
    own = persistent(random, (trials, 1, bars))
    course = np.empty((trials, evaluations, bars))
    for step in range(evaluations):
        fresh = persistent(random, (trials, bars))
        course[:, step] = fresh if step == 0 else 0.7 * course[:, step - 1] + np.sqrt(1.0 - 0.49) * fresh
    wish = 0.6 * shared + 0.5 * own + 0.62 * course
    if policy == "random":
        return np.asarray(wish + planted > 0.0), wish
    log_prices = np.concatenate([[0.0], np.cumsum(np.log1p(returns))])
    held = rule(policy, random, np.broadcast_to(log_prices, (trials, bars + 1)))
    return np.asarray(held[:, None] & (wish > -0.84)), wish  # four fifths of it


def made_record(returns: Floats, exposure: Floats, opening: float, first: int) -> Record:
    """A record of these sessions, which begin with `first`; only what series are made of is filled in."""
    sessions, bars = np.arange(first, first + returns.size), np.full(returns.size, float(BARS))
    trades = int(exposure.any())
    return Record(returns, sessions, exposure, bars, returns.size * BARS, 1, trades, 0, 0.0, opening, 0.0, 0.0, 0.0)


def by_session(held: Exposures | Floats, returns: Floats) -> tuple[Floats, Floats]:
    """Session returns and mean exposures float64[..., S] of exposures [..., bars]."""
    shape = (*np.shape(held)[:-1], -1, BARS)
    grown = np.prod(1.0 + (held * returns).reshape(shape), axis=-1) - 1.0
    return grown, np.asarray(held, dtype=np.float64).reshape(shape).mean(-1)


@dataclass(frozen=True)
class Search:
    """A search that has come to its end, as the evidence sees it."""

    panel: Panel
    chosen: int
    holdout_raw: Floats
    holdout_timing: Floats
    looks: Looks
    wishes: tuple[Floats, ...] = ()


def hold_records(returns: Floats, sessions: int) -> dict[int, Record]:
    """Buy-and-hold on each fold."""
    hold, _ = by_session(np.ones(returns.size), returns)
    return {
        fold: made_record(hold[first:last], np.ones(last - first), 1.0, first)
        for fold, (first, last) in enumerate(spans(sessions))
    }


@dataclass(frozen=True)
class Made:
    """A market with what is planted in it, float64[bars] each."""

    returns: Floats
    regime: Floats
    sessions: int


def make(random: np.random.Generator, sessions: int, *, drift: float, edge: float = 0.0) -> Made:
    """Make the sessions of cross-validation and the holdout's behind them."""
    returns = market(random, sessions + sessions // HOLDOUT, drift)[0]
    regime = np.where(persistent(random, (returns.size,)) > 0.0, 1.0, -1.0)
    return Made(returns + edge * regime, regime, sessions)


def search(
    policy: str,
    random: np.random.Generator,
    size: tuple[int, int],
    made: Made,
    *,
    skill: float = 0.0,
    shared: tuple[Floats, ...] = (),
) -> Search:
    """Search `size` trials and evaluations and take the best by its cv_score, as a sweep does."""
    returns, sessions, held_out = made.returns, made.sessions, made.sessions // HOLDOUT
    parts, wishes = [], []
    for number, (first, last) in enumerate([*spans(sessions), (sessions, sessions + held_out)]):
        bars = slice(first * BARS, last * BARS)
        common = shared[number] if shared else None
        held_there, wish = exposures(
            policy, random, returns[bars], size, planted=skill * made.regime[bars], shared=common
        )
        parts.append(held_there)
        wishes.append(wish)
    held = np.concatenate(parts, axis=-1)
    grown, exposure = by_session(held, returns)
    opening = held[..., ::BARS].astype(np.float64)
    best = [max(range(size[1]), key=lambda step: _score(grown[trial, step], sessions)) for trial in range(size[0])]
    chosen = max(range(size[0]), key=lambda trial: _score(grown[trial, best[trial]], sessions))
    hold = hold_records(returns, sessions)
    raw, timing = np.empty((sessions, size[0])), np.empty((sessions, size[0]))
    for trial, step in enumerate(best):
        way = (grown[trial, step], exposure[trial, step])
        records = [
            made_record(way[0][first:last], way[1][first:last], opening[trial, step, first], first)
            for first, last in spans(sessions)
        ]
        series = combine(records, hold, [(0, fold) for fold in range(FOLDS)])
        raw[:, trial], timing[:, trial] = series.raw, series.timing
    whole, _ = by_session(np.ones(returns.size), returns)
    way = (chosen, best[chosen])
    last = made_record(grown[way][sessions:], exposure[way][sessions:], opening[way][sessions], sessions)
    held_hold = made_record(whole[sessions:], np.ones(held_out), 1.0, sessions)
    even, odd = (np.concatenate([np.arange(*span) for span in spans(sessions)[start::2]]) for start in (0, 1))
    usual, mean = float(exposure[way][even].mean()), float(whole[odd].mean()) / BARS
    last_timing = timing_returns(last, held_hold, mean, usual)
    names = tuple(f"trial_{trial:04d}" for trial in range(size[0]))
    panel = Panel(names, raw, timing, whole[:sessions], (1,) * size[0])
    kept = tuple(wish[way].copy() for wish in wishes)
    return Search(panel, chosen, last.session_returns, last_timing, _looks(panel, size[0] * size[1]), kept)


def _score(returns: Floats, sessions: int) -> float:
    return cv_score(np.array([[sharpe(returns[first:last], YEAR)] for first, last in spans(sessions)]))


def _looks(panel: Panel, evaluations: int) -> Looks:
    trading = panel.trading()
    raw, timing = (
        np.array([sharpe(returns[:, trial], 1) for trial in trading]) for returns in (panel.raw, panel.timing)
    )
    return Looks(len(trading), evaluations, 0, 0, raw, timing)


def edge_of(target: float, skill: float) -> float:
    """Drift of a bar in a planted regime that gives each trial the annual timing Sharpe ratio `target`."""
    right = 2.0 * float(ndtr(skill)) - 1.0
    return target / np.sqrt(YEAR) * VOLATILITY * 0.5 / (BARS * right / 2.0)
