"""Figures to evidence: what a Sharpe ratio picked from many trials still says.

Probabilistic and deflated Sharpe ratios and the length of record they take; with what a search does to them from
``overfitting.py``. Tests and intervals by resampling are in ``resampling.py``. Everything is per period, usually
a session: a Sharpe ratio, its variance over trials and the number of periods share one unit, and the one
annual figure is that of :func:`minimum_backtest_length`. Kurtosis is never excess, 3 for a normal law.

Wrong arguments raise ``TypeError`` or ``ValueError``; NaN and infinite input
:class:`~sentio_rllib.errors.NonFiniteError`; too short a record :class:`NotEnoughDataError`.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from sentio_rllib.statistics.inputs import (
    Floats,
    NotEnoughDataError,
    NoVarianceError,
    check_finite,
    check_open,
    check_returns,
)
from sentio_rllib.statistics.overfitting import Overfitting, effective_trials, probability_of_backtest_overfitting

__all__ = [
    "NoVarianceError",
    "NotEnoughDataError",
    "Overfitting",
    "SharpeMoments",
    "deflated_sharpe_ratio",
    "effective_trials",
    "expected_maximum_sharpe_ratio",
    "false_discovery_rate",
    "least_supported_sharpe_ratio",
    "minimum_backtest_length",
    "minimum_track_record_length",
    "probabilistic_sharpe_ratio",
    "probability_of_backtest_overfitting",
    "sharpe_moments",
    "sharpe_standard_error",
    "type_two_error",
]

Under = Literal["estimate", "null"]

MIN_MOMENT_PERIODS = 4
"""Fewest returns whose four moments say anything."""


class SharpeMoments(NamedTuple):
    """Sharpe ratio per period (ddof 1), skew, kurtosis that is not excess, and lag-1 autocorrelation of returns."""

    sharpe: float
    skew: float
    kurtosis: float
    autocorrelation: float


def sharpe_moments(returns: Floats) -> SharpeMoments:
    """Return Sharpe ratio, skew, kurtosis and lag-1 autocorrelation of `returns` float64[T >= 4], per period.

    The Sharpe ratio has ddof 1, as :func:`~sentio_rllib.statistics.metrics.sharpe`; Bailey and Lopez de Prado
    leave it open, and ddof 0 is larger by sqrt(T / (T - 1)). Skew and kurtosis are those of the sample, without
    correction for bias. Raises :class:`NotEnoughDataError`, and :class:`NoVarianceError` for constant returns.
    """
    check_returns("returns", returns, rank=1)
    if returns.size < MIN_MOMENT_PERIODS:
        raise NotEnoughDataError("Sharpe ratio with its moments", MIN_MOMENT_PERIODS, returns.size)
    if returns.min() == returns.max():
        raise NoVarianceError(f"returns: all {returns.size} are {returns[0]:g}, needed returns that vary")
    # in units of the largest, whose square neither over- nor underflows
    scaled = returns / np.abs(returns).max()
    centred = scaled - scaled.mean()
    sharpe = float(scaled.mean() / scaled.std(ddof=1))
    centred /= np.sqrt(np.mean(centred**2))
    autocorrelation = float(centred[1:] @ centred[:-1]) / returns.size
    return SharpeMoments(sharpe, float(np.mean(centred**3)), float(np.mean(centred**4)), autocorrelation)


def sharpe_standard_error(
    sharpe: float, periods: int, skew: float, kurtosis: float, autocorrelation: float = 0.0
) -> float:
    """Return the standard error of a Sharpe ratio per period, sqrt((a - b g3 SR + c (g4 - 1)/4 SR^2) / T).

    With a = (1 + p) / (1 - p), b = (1 + p + p^2) / (1 - p^2), c = (1 + p^2) / (1 - p^2), all 1 for independent
    returns (Lopez de Prado, Lipton and Zoonekynd, How to Use the Sharpe Ratio, 2025).

    Parameters
    ----------
    sharpe
        Per period.
    periods
        T >= 2.
    skew, kurtosis
        g3 and g4 of the returns; g4 is not excess and at least 1 + g3^2, as of any distribution.
    autocorrelation
        p, of lag 1, of autoregressive returns; above -1 and below 1.
    """
    _check_periods("standard error of the Sharpe ratio", periods)
    return math.sqrt(_variance_factor(sharpe, skew, kurtosis, autocorrelation) / periods)


def probabilistic_sharpe_ratio(
    sharpe: float,
    benchmark: float,
    periods: int,
    skew: float,
    kurtosis: float,
    *,
    autocorrelation: float = 0.0,
    under: Under = "estimate",
) -> float:
    """Return the probability that the true Sharpe ratio exceeds `benchmark` (PSR).

    Phi((SR - SR*) / standard error), with as variance of the estimator

    - ``estimate``: (1 - g3 SR + (g4 - 1)/4 SR^2) / (T - 1), that at the estimate (Bailey and Lopez de Prado,
      The Sharpe Ratio Efficient Frontier, 2012);
    - ``null``: (1 - g3 SR* + (g4 - 1)/4 SR*^2) / T, that were `benchmark` true (Lopez de Prado, Lipton and
      Zoonekynd, 2025), one minus the p-value of a test.

    Parameters
    ----------
    sharpe, benchmark
        SR and SR*, per period both.
    periods
        T >= 2.
    skew, kurtosis, autocorrelation
        g3, g4 and p of the returns, as in :func:`sharpe_standard_error`.

    Raises
    ------
    NotEnoughDataError
        Fewer than two periods.
    NoVarianceError
        The moments, of returns with two values only, leave the estimator without variance.
    """
    _check_periods("probabilistic Sharpe ratio", periods)
    check_finite(sharpe=sharpe, benchmark=benchmark)
    at, count = (sharpe, periods - 1) if _under(under) == "estimate" else (benchmark, periods)
    factor = _variance_factor(at, skew, kurtosis, autocorrelation)
    return float(ndtr((sharpe - benchmark) * math.sqrt(count / factor)))


def expected_maximum_sharpe_ratio(trials: float, variance: float) -> float:
    """Return the Sharpe ratio that the best of `trials` reaches by luck alone.

    sqrt(V) [(1 - g) Phi^-1(1 - 1/N) + g Phi^-1(1 - 1/(N e))], g Euler's constant: the False Strategy theorem
    (Bailey and Lopez de Prado, The Deflated Sharpe Ratio, 2014). An approximation, below N of about 10
    off by some percent.

    Parameters
    ----------
    trials
        N >= 1 independent trials, not necessarily whole; 1 gives 0, as no choice was made.
    variance
        V >= 0, of the trials' Sharpe ratios; per period gives a result per period.
    """
    check_finite(trials=trials, variance=variance)
    if trials < 1:
        raise ValueError(f"trials is {trials}, allowed 1 or more")
    if variance < 0.0:
        raise ValueError(f"variance is {variance}, allowed 0 or more")
    if trials == 1:
        return 0.0
    normal = -(1.0 - np.euler_gamma) * ndtri(1.0 / trials) - np.euler_gamma * ndtri(1.0 / (trials * math.e))
    # between 1 and 2 trials the approximation falls below the mean, which no maximum does
    return math.sqrt(variance) * max(float(normal), 0.0)


def deflated_sharpe_ratio(
    sharpe: float,
    periods: int,
    skew: float,
    kurtosis: float,
    *,
    trials: float,
    variance: float,
    autocorrelation: float = 0.0,
    under: Under = "estimate",
) -> float:
    """Return the probability that the true Sharpe ratio is above what luck alone gives the best of `trials`.

    :func:`probabilistic_sharpe_ratio` at :func:`expected_maximum_sharpe_ratio` (Bailey and Lopez de Prado,
    2014), with their parameters and errors. `trials` are all that were looked at, given up ones
    included, and `variance` is theirs, per period: leaving any out looks ahead.
    """
    benchmark = expected_maximum_sharpe_ratio(trials, variance)
    return probabilistic_sharpe_ratio(
        sharpe, benchmark, periods, skew, kurtosis, autocorrelation=autocorrelation, under=under
    )


def least_supported_sharpe_ratio(trials: float, periods: int, *, confidence: float = 0.95) -> float:
    """Return the Sharpe ratio per period from which the deflated one reaches `confidence`.

    Of independent normal returns, with the variance 1 / T that they have without any edge, so that it can be told
    before anything is measured: s with (s - SR*) / sqrt((1 + SR*^2 / 2) / T) = Phi^-1(confidence), SR* of
    :func:`expected_maximum_sharpe_ratio`.

    Parameters
    ----------
    trials
        N >= 1 independent trials.
    periods
        T >= 2.
    confidence
        Above 0.5 and below 1.
    """
    _check_periods("least supported Sharpe ratio", periods)
    check_open("confidence", confidence, low=0.5)
    luck = expected_maximum_sharpe_ratio(trials, 1.0 / periods)
    return luck + float(ndtri(confidence)) * sharpe_standard_error(luck, periods, 0.0, 3.0)


def minimum_track_record_length(
    sharpe: float,
    benchmark: float,
    skew: float,
    kurtosis: float,
    *,
    confidence: float = 0.95,
    autocorrelation: float = 0.0,
    under: Under = "estimate",
) -> float:
    """Return the periods from which the probabilistic Sharpe ratio reaches `confidence` (MinTRL).

    The formula of :func:`probabilistic_sharpe_ratio` solved for T: 1 + s^2 (z / (SR - SR*))^2 for ``estimate``
    (Bailey and Lopez de Prado, 2012), without the 1 for ``null`` (2025).

    Parameters
    ----------
    sharpe, benchmark, skew, kurtosis, autocorrelation, under
        As there, per period.
    confidence
        Above 0.5 and below 1.

    Returns
    -------
    float
        Periods, not rounded; infinite where `sharpe` is not above `benchmark`, as no record is long enough.
    """
    check_finite(sharpe=sharpe, benchmark=benchmark)
    check_open("confidence", confidence, low=0.5)
    at, extra = (sharpe, 1.0) if _under(under) == "estimate" else (benchmark, 0.0)
    factor = _variance_factor(at, skew, kurtosis, autocorrelation)
    if sharpe <= benchmark:
        return math.inf
    errors = float(ndtri(confidence)) / (sharpe - benchmark)
    return extra + factor * errors * errors


def minimum_backtest_length(trials: float, sharpe: float = 1.0) -> float:
    """Return the years below which the best of `trials` reaches the annual Sharpe ratio `sharpe` by luck (MinBTL).

    (E[max of N] / SR)^2, with the maximum of :func:`expected_maximum_sharpe_ratio` (Bailey, Borwein, Lopez de
    Prado and Zhu, Pseudo-Mathematics and Financial Charlatanism, 2014). `sharpe` is annual, > 0;
    0 years for one trial.
    """
    check_finite(sharpe=sharpe)
    if sharpe <= 0.0:
        raise ValueError(f"sharpe is {sharpe}, allowed above 0, a year")
    return (expected_maximum_sharpe_ratio(trials, 1.0) / sharpe) ** 2


def type_two_error(
    benchmark: float, alternative: float, periods: int, skew: float, kurtosis: float, *, significance: float = 0.05
) -> float:
    """Return beta, the probability that a true Sharpe ratio of `alternative` is not told from `benchmark`.

    Phi((SRc - SR1) / s1) with SRc = SR0 + s0 Phi^-1(1 - alpha), s of :func:`sharpe_standard_error` at SR0 and
    SR1 (Lopez de Prado, Lipton and Zoonekynd, 2025); the power is 1 - beta. All per period.

    Parameters
    ----------
    benchmark, alternative
        SR0 and SR1 > SR0.
    periods, skew, kurtosis
        As in :func:`sharpe_standard_error`.
    significance
        alpha, above 0 and below 1.
    """
    check_finite(benchmark=benchmark, alternative=alternative)
    check_open("significance", significance)
    if alternative <= benchmark:
        raise ValueError(f"alternative is {alternative}, allowed above the benchmark, {benchmark}")
    null, other = (sharpe_standard_error(each, periods, skew, kurtosis) for each in (benchmark, alternative))
    critical = benchmark - null * float(ndtri(significance))
    return float(ndtr((critical - alternative) / other))


def false_discovery_rate(prior: float, significance: float, beta: float) -> float:
    """Return the probability that a strategy found significant has no edge (pFDR).

    1 / (1 + (1 - beta) p1 / (alpha (1 - p1))) (Lopez de Prado, Lipton and Zoonekynd, 2025).

    Parameters
    ----------
    prior
        p1, share of strategies that have an edge, above 0 and below 1.
    significance
        alpha of the test, above 0 and below 1.
    beta
        :func:`type_two_error` of the test, 0 .. 1.
    """
    check_open("prior", prior)
    check_open("significance", significance)
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta is {beta}, allowed 0 .. 1")
    return 1.0 / (1.0 + (1.0 - beta) * prior / (significance * (1.0 - prior)))


def _variance_factor(sharpe: float, skew: float, kurtosis: float, autocorrelation: float = 0.0) -> float:
    """T times the variance of a Sharpe ratio, see :func:`sharpe_standard_error`."""
    check_finite(sharpe=sharpe, skew=skew, kurtosis=kurtosis)
    check_open("autocorrelation", autocorrelation, low=-1.0)
    least = 1.0 + skew**2
    if kurtosis < least * (1.0 - 1e-9):
        raise ValueError(f"kurtosis is {kurtosis}, allowed 1 + skew^2 = {least:g} or more; give it not as excess")
    rho = autocorrelation
    a, b, c = (1.0 + rho) / (1.0 - rho), (1.0 + rho + rho**2) / (1.0 - rho**2), (1.0 + rho**2) / (1.0 - rho**2)
    factor = a - b * skew * sharpe + c * (kurtosis - 1.0) / 4.0 * sharpe**2
    if factor <= 1e-12:
        raise NoVarianceError(
            f"Sharpe ratio {sharpe:g} with skew {skew:g} and kurtosis {kurtosis:g}: its variance is 0, needed "
            "returns with more than two values"
        )
    return factor


def _under(under: Under) -> Under:
    if under not in {"estimate", "null"}:
        raise ValueError(f"under is {under!r}, allowed estimate or null")
    return under


def _check_periods(name: str, periods: int) -> None:
    if periods < 2:
        raise NotEnoughDataError(name, 2, periods)


def gap_by_chance(years: float, confidence: float = 0.95) -> float:
    """Return how far apart the annual Sharpe ratios of two records of `years` each lie by chance alone.

    The half-width of the interval around 0 that holds their difference with `confidence` where both have the same
    true ratio, near 0, and nothing in common (Lo 2002).
    """
    if years <= 0.0:
        raise ValueError(f"years: {years!r}, needed > 0")
    return float(ndtri(0.5 + confidence / 2.0)) * math.sqrt(2.0 / years)
