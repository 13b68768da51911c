"""Intervals of figures as the summary holds them: ``estimate, low, high``, None where there is none."""

from __future__ import annotations

from scipy.stats import binomtest

from sentio_rllib.statistics.inputs import Floats, NotEnoughDataError, NoVarianceError
from sentio_rllib.statistics.resampling import Statistic, stationary_bootstrap_interval


def return_interval(
    returns: Floats, statistic: Statistic, *, level: float, resamples: int, seed: int
) -> dict[str, float | None]:
    """Return ``estimate, low, high`` of a statistic of session returns; without bounds where it has none.

    Parameters as in :func:`~sentio_rllib.statistics.resampling.stationary_bootstrap_interval`.
    """
    try:
        found = stationary_bootstrap_interval(returns, statistic, level, reps=resamples, seed=seed)
    except (NotEnoughDataError, NoVarianceError):
        return {"estimate": None, "low": None, "high": None}
    return {"estimate": found.estimate, "low": found.low, "high": found.high}


def win_rate_interval(wins: int, trips: int, level: float) -> dict[str, float | None]:
    """Return ``estimate, low, high`` of a win rate, exact binomial bounds (Clopper and Pearson, 1934)."""
    if trips == 0:
        return {"estimate": None, "low": None, "high": None}
    bounds = binomtest(wins, trips).proportion_ci(level, method="exact")
    return {"estimate": wins / trips, "low": float(bounds.low), "high": float(bounds.high)}
