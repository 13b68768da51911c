"""Evidence by resampling: superior predictive ability, stepwise tests and bootstrap intervals, by ``arch``.

Apart from the formulas, since arch loads statsmodels, which takes a second. Errors as in
:mod:`~sentio_rllib.statistics.significance`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from arch.bootstrap import SPA, StationaryBootstrap, StepM, optimal_block_length

from sentio_rllib.errors import NonFiniteError
from sentio_rllib.statistics import metrics
from sentio_rllib.statistics.inputs import Floats, NotEnoughDataError, NoVarianceError, check_open, check_returns

Statistic = Literal["sharpe", "mean_return", "monthly_return", "max_drawdown"]

MIN_BOOTSTRAP_PERIODS = 20
"""Fewest returns from which a block length and a resampled distribution are taken."""


@dataclass(frozen=True)
class ConfidenceInterval:
    """An estimate with its bootstrap percentile interval; `block` is the mean block length in periods."""

    estimate: float
    low: float
    high: float
    level: float
    block: int


def superior_predictive_ability(
    returns: Floats, benchmark: Floats, *, reps: int = 1000, block: int | None = None, seed: int
) -> float:
    """Return the p-value of the hypothesis that no column is better than `benchmark` in mean return.

    Hansen's test (A Test for Superior Predictive Ability, 2005), consistent version, by ``arch.bootstrap.SPA``
    with the stationary bootstrap. The differences to the benchmark are divided by their standard deviation
    first, without which one volatile trial hides all others; a column equal to the benchmark has no part.

    Parameters
    ----------
    returns
        float64[T >= 20, N >= 1], one column per trial, pruned ones included: a choice among trials looks ahead.
    benchmark
        float64[T], of the same periods; zeros for staying flat.
    reps
        Resamples, the resolution of the p-value.
    block
        Mean block length in periods, 1 .. T; None: the mean over columns of
        ``arch.bootstrap.optimal_block_length`` (Politis and White, 2004), rounded up.
    seed
        Of the bootstrap.

    Raises
    ------
    NotEnoughDataError
        T below 20, or no column.
    NoVarianceError
        A column differs from the benchmark by a constant other than 0.
    """
    losses, block = _scaled_losses("superior predictive ability", returns, benchmark, reps, block)
    test = SPA(np.zeros(len(losses)), losses, block_size=block, reps=reps, seed=seed)
    test.compute()
    return float(test.pvalues["consistent"])


def stepwise_superior(
    returns: Floats,
    benchmark: Floats,
    *,
    size: float = 0.05,
    reps: int = 1000,
    block: int | None = None,
    seed: int,
) -> tuple[int, ...]:
    """Return the columns that are better than `benchmark`, ascending, with no false one but for `size`.

    Stepwise multiple testing (Romano and Wolf, 2005) by ``arch.bootstrap.StepM``, of the same scaled
    differences, with the same parameters and errors, as :func:`superior_predictive_ability`. `size` is the
    probability, above 0 and below 1, of at least one false column.
    """
    check_open("size", size)
    losses, block = _scaled_losses("stepwise test", returns, benchmark, reps, block)
    # StepM fails once every column is found; one equal to the benchmark never is
    losses = np.concatenate((losses, np.zeros((len(losses), 1))), axis=1)
    test = StepM(np.zeros(len(losses)), losses, size=size, block_size=block, reps=reps, seed=seed)
    test.compute()
    return tuple(np.asarray(test.superior_models, dtype=np.int64).tolist())


def stationary_bootstrap_interval(
    returns: Floats,
    statistic: Statistic | Callable[[Floats], float],
    level: float = 0.95,
    *,
    reps: int = 2000,
    block: int | None = None,
    seed: int,
) -> ConfidenceInterval:
    """Return a statistic of returns with its percentile interval by the stationary bootstrap.

    Politis and Romano (The Stationary Bootstrap, 1994), by ``arch.bootstrap``.

    Parameters
    ----------
    returns
        float64[T >= 20].
    statistic
        ``sharpe`` (per period, ddof 1), ``mean_return`` (per period), ``monthly_return`` (what 21
        periods compound to), ``max_drawdown`` (0 .. 1, of the
        compounded returns), or a function of float64[T].
    level
        Coverage, above 0 and below 1.
    reps
        Resamples.
    block
        Mean block length in periods, 1 .. T; None: ``arch.bootstrap.optimal_block_length`` (Politis and White,
        2004), rounded up.
    seed
        Of the bootstrap.

    Raises
    ------
    NotEnoughDataError
        T below 20.
    NoVarianceError
        The returns are constant.
    NonFiniteError
        `statistic` is NaN or infinite for some resample.
    """
    check_returns("returns", returns, rank=1)
    check_open("level", level)
    if isinstance(statistic, str) and statistic not in _STATISTICS:
        raise ValueError(f"statistic is {statistic!r}, allowed {', '.join(_STATISTICS)} or a function")
    _check_bootstrap("bootstrap interval", returns.shape[0], reps, block)
    if returns.min() == returns.max():
        raise NoVarianceError(f"returns: all {returns.size} are {returns[0]:g}, needed returns that vary")
    function = _STATISTICS[statistic] if isinstance(statistic, str) else statistic
    length = block or _block_length(returns[:, None])
    values = StationaryBootstrap(length, returns, seed=seed).apply(lambda sample: np.array([function(sample)]), reps)
    estimate = float(function(returns))
    if not (math.isfinite(estimate) and np.isfinite(values).all()):
        raise NonFiniteError(f"statistic {statistic} is NaN or infinite for a resample; needed finite values")
    low, high = np.quantile(values, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return ConfidenceInterval(estimate, float(low), float(high), level, length)


def _drawdown(returns: Floats) -> float:
    return metrics.max_drawdown(metrics.equity_curve(returns))


_STATISTICS: dict[str, Callable[[Floats], float]] = {
    "sharpe": lambda returns: metrics.sharpe(returns, 1),
    "mean_return": lambda returns: float(returns.mean()),
    "monthly_return": lambda returns: metrics.projected_return(returns, 21),
    "max_drawdown": _drawdown,
}


def _scaled_losses(name: str, returns: Floats, benchmark: Floats, reps: int, block: int | None) -> tuple[Floats, int]:
    """Losses against the benchmark in standard deviations, float64[T, N], and the mean block length."""
    check_returns("returns", returns, rank=2)
    check_returns("benchmark", benchmark, rank=1)
    if benchmark.shape[0] != returns.shape[0]:
        raise ValueError(f"benchmark has {benchmark.shape[0]} periods, returns {returns.shape[0]}; needed the same")
    if returns.shape[1] < 1:
        raise NotEnoughDataError(name, 1, 0, "trials")
    _check_bootstrap(name, returns.shape[0], reps, block)
    difference = returns - benchmark[:, None]
    # what is left by rounding would pass for an edge once it is scaled
    rounding = 1e-12 * np.maximum(np.abs(returns).max(axis=0), np.abs(benchmark).max())
    constant = np.ptp(difference, axis=0) <= rounding
    always = np.flatnonzero(constant & (np.abs(difference[0]) > rounding))
    if always.size:
        raise NoVarianceError(f"returns: column {always[0]} less the benchmark is constant, needed one that varies")
    scaled = np.zeros_like(difference)
    scaled[:, ~constant] = difference[:, ~constant] / difference[:, ~constant].std(axis=0, ddof=1)
    return -scaled, block or (1 if constant.all() else _block_length(scaled[:, ~constant]))


def _block_length(columns: Floats) -> int:
    """Mean over columns float64[T, N] of the best mean block length of the stationary bootstrap, at least 1."""
    # a column whose end equals its mean divides 0 by 0 there
    with np.errstate(divide="ignore", invalid="ignore"):
        lengths = np.asarray(optimal_block_length(columns)["stationary"], dtype=np.float64)
    return max(math.ceil(float(np.where(np.isfinite(lengths), lengths, 1.0).mean())), 1)


def _check_bootstrap(name: str, periods: int, reps: int, block: int | None) -> None:
    if periods < MIN_BOOTSTRAP_PERIODS:
        raise NotEnoughDataError(name, MIN_BOOTSTRAP_PERIODS, periods)
    if reps < 1:
        raise ValueError(f"reps is {reps}, allowed 1 or more")
    if block is not None and not 1 <= block <= periods:
        raise ValueError(f"block is {block}, allowed 1 .. {periods}")
