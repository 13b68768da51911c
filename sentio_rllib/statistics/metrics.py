"""Returns to figures: Sharpe ratio, drawdown, trades and the score that decides a sweep.

Pure functions of float64 arrays. Each checks rank and dtype first (``TypeError``, ``ValueError``) and refuses
NaN and infinite input with :class:`~sentio_rllib.errors.NonFiniteError`. Ratios are annualised with the
sessions of a year of the calendar, returns are those of whole sessions, and equity is in any one currency.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.statistics.inputs import Floats, check_returns


def session_returns(bar_returns: Floats, session: NDArray[np.integer]) -> Floats:
    """Compound the simple returns of bars by session: equity at its last mark over that at the last one before, less 1.

    Sums would book the profit of a position that is rebalanced at every bar, which nobody made.

    Parameters
    ----------
    bar_returns
        float64[..., T], net simple returns.
    session
        int[T], the bar's session, never descending; numbers may be left out.

    Returns
    -------
    float64[..., S]
        One return for each of the S sessions present, in time order.
    """
    check_returns("bar_returns", bar_returns)
    if not isinstance(session, np.ndarray) or session.dtype.kind not in "iu":
        raise TypeError("session must be an integer array")
    if session.shape != bar_returns.shape[-1:]:
        raise ValueError(f"session has shape {session.shape}, needed {bar_returns.shape[-1:]}")
    changes = np.flatnonzero(session[1:] != session[:-1]) + 1
    if np.any(session[1:] < session[:-1]):
        raise ValueError("session descends; bars must be in time order")
    if session.size == 0:
        return bar_returns.copy()
    return np.asarray(np.multiply.reduceat(1.0 + bar_returns, np.concatenate(([0], changes)), axis=-1) - 1.0)


def equity_curve(returns: Floats, initial: float = 1.0) -> Floats:
    """Compound simple returns float64[T] to equity float64[T + 1], whose first value is `initial`."""
    check_returns("returns", returns, rank=1)
    return np.concatenate(([initial], initial * np.cumprod(1.0 + returns)))


def sharpe(returns: Floats, sessions_per_year: int) -> float:
    """Return the annualised Sharpe ratio, mean / standard deviation (ddof 1) * sqrt(sessions_per_year).

    Parameters
    ----------
    returns
        float64[S], returns of sessions.
    sessions_per_year
        252 for XNYS, 365 for 24/7.

    Returns
    -------
    float
        0 for constant returns (nothing was traded) and for fewer than two sessions.
    """
    check_returns("returns", returns, rank=1)
    year = _positive("sessions_per_year", sessions_per_year)
    deviation = _deviation(returns)
    return float(returns.mean()) / deviation * math.sqrt(year) if deviation else 0.0


def sortino(returns: Floats, sessions_per_year: int) -> float:
    """Return the annualised Sortino ratio, mean / sqrt(mean(min(r, 0)^2)) * sqrt(sessions_per_year).

    `returns` as in :func:`sharpe`, the target is 0. 0 for fewer than two sessions and for no return at all;
    infinite where there are gains and not one losing session.
    """
    check_returns("returns", returns, rank=1)
    year = _positive("sessions_per_year", sessions_per_year)
    if returns.size < 2:
        return 0.0
    mean = float(returns.mean())
    return _ratio(mean * math.sqrt(year), math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2))))


def calmar(returns: Floats, sessions_per_year: int) -> float:
    """Return the compound annual return of `returns` float64[S] over their maximum drawdown.

    0 for no sessions and for no return at all; infinite for gains without any drawdown. A total loss is -1.
    """
    check_returns("returns", returns, rank=1)
    year = _positive("sessions_per_year", sessions_per_year)
    if returns.size == 0:
        return 0.0
    equity = equity_curve(returns)
    if equity.min() <= 0.0:
        return -1.0
    annual = math.expm1(min(math.log(equity[-1]) * year / returns.size, 700.0))
    return _ratio(annual, max_drawdown(equity))


def total_return(equity: Floats) -> float:
    """Return the last value over the first, minus 1, of `equity` float64[T >= 1]."""
    _check_equity(equity)
    return float(equity[-1] / equity[0] - 1.0)


def max_drawdown(equity: Floats) -> float:
    """Return the greatest fall from a running peak as a fraction of it, in [0, 1].

    Parameters
    ----------
    equity
        float64[T >= 1], the starting value included, so that a loss of the first bar counts; the first value
        is > 0, none is negative.
    """
    _check_equity(equity)
    return float(np.max(1.0 - equity / np.maximum.accumulate(equity)))


def longest_drawdown(equity: Floats) -> int:
    """Return the most consecutive values of `equity` float64[T >= 1] below the peak before them, in bars."""
    _check_equity(equity)
    at_peak = np.flatnonzero(equity >= np.maximum.accumulate(equity))
    return int(np.max(np.diff(np.append(at_peak, equity.size)))) - 1


def cvar(returns: Floats, tail: float = 0.05) -> float:
    """Return the conditional value at risk: the mean of the worst `tail` of `returns` float64[S].

    At least one session counts, part of one as a whole. Negative for a loss; 0 without any session.
    `tail` is in (0, 1].
    """
    check_returns("returns", returns, rank=1)
    if not 0.0 < tail <= 1.0:
        raise ValueError(f"tail is {tail}, allowed 0 < tail <= 1")
    if returns.size == 0:
        return 0.0
    worst = min(math.ceil(tail * returns.size - 1e-9), returns.size)
    return float(np.sort(returns)[: max(worst, 1)].mean())


def projected_return(returns: Floats, sessions: int = 21) -> float:
    """Return what `returns` float64[S] compound to in a month of `sessions`, usually 21 or 22, at their geometric mean.

    0.0039 a session, the target pace of 1e-5 per bar over 390 bars, is 8.5% in 21 sessions and 8.9% in 22.
    0 without any session; a return of -1 or below is a total loss, -1.
    """
    check_returns("returns", returns, rank=1)
    month = _positive("sessions", sessions)
    if returns.size == 0:
        return 0.0
    return math.expm1(month * float(np.log1p(returns).mean())) if returns.min() > -1.0 else -1.0


def round_trips(equity: Floats, over: Floats, after: NDArray[np.bool_]) -> Floats:
    """Return the net returns of all closed round trips: from flat to flat, costs inside.

    Parameters
    ----------
    equity
        float64[T + 1], the start and the mark at each bar's close, after what was filled there.
    over
        float64[T], what is held over each bar, after what was filled at its open, shares or fraction; 0 when flat.
    after
        bool[T], whether any of it is left after the bar's close.

    Returns
    -------
    float64[R]
        Equity at the first mark after a trip over equity at the last one before it, minus 1; a trip can begin and
        end on one bar. One that is still open at the end is left out.
    """
    _check_equity(equity)
    check_returns("over", over, rank=1)
    if not over.shape == after.shape == (equity.size - 1,):
        raise ValueError(f"over has shape {over.shape}, after {after.shape}, needed {(equity.size - 1,)}")
    before = np.concatenate(([False], after[:-1]))
    held = over != 0.0
    opened = np.flatnonzero(held & ~before)
    closed = np.flatnonzero((before & ~held) | (held & ~after))
    return np.asarray(equity[closed + 1] / equity[opened[: closed.size]] - 1.0)


def cv_score(fold_scores: Floats, fold_penalty: float = 0.5) -> float:
    """Return the score of a trial: what its folds reach on average, less how much they differ.

    Mean over folds of the median over seeds, minus `fold_penalty` times the standard deviation over folds of
    the same medians (ddof 1; 0 for one fold).

    Parameters
    ----------
    fold_scores
        float64[F >= 1, seeds >= 1].
    fold_penalty
        Weight of the deviation, >= 0.

    Raises
    ------
    NonFiniteError
        A score is NaN or infinite; a trial fails for it.
    """
    check_returns("fold_scores", fold_scores, rank=2)
    if fold_scores.size == 0:
        raise ValueError(f"fold_scores has shape {fold_scores.shape}, needed at least one fold and seed")
    if not 0.0 <= fold_penalty < math.inf:
        raise ValueError(f"fold_penalty is {fold_penalty}, allowed 0 or more")
    by_fold = np.median(fold_scores, axis=1)
    return float(by_fold.mean()) - fold_penalty * _deviation(by_fold)


def _deviation(values: Floats) -> float:
    """Return the standard deviation (ddof 1), exactly 0 for equal numbers despite rounding."""
    if values.size < 2 or values.min() == values.max():
        return 0.0
    return float(values.std(ddof=1))


def _ratio(gain: float, risk: float) -> float:
    if risk > 0.0:
        return gain / risk
    return math.copysign(math.inf, gain) if gain else 0.0


def _positive(name: str, value: int) -> int:
    if value <= 0:
        raise ValueError(f"{name} is {value}, allowed 1 or more")
    return value


def _check_equity(equity: Floats) -> None:
    check_returns("equity", equity, rank=1)
    if equity.size == 0:
        raise ValueError("equity is empty, needed at least the starting value")
    if equity[0] <= 0.0 or equity.min() < 0.0:
        raise ValueError("equity must start above 0 and never be negative")
