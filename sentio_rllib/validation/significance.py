"""Figures to evidence: what a Sharpe ratio picked from many trials still says.

Probabilistic and deflated Sharpe ratios, the length of record they take, the probability of backtest
overfitting, tests of superior predictive ability, and bootstrap intervals. Everything is per period, usually
a session: a Sharpe ratio, its variance over trials and the number of periods share one unit, and the one
annual figure is that of :func:`minimum_backtest_length`. Kurtosis is never excess, 3 for a normal law.

Wrong arguments raise ``TypeError`` or ``ValueError``; NaN and infinite input
:class:`~sentio_rllib.errors.NonFiniteError`; too short a record :class:`NotEnoughData`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from sentio_rllib.errors import NonFiniteError, SentioError
from sentio_rllib.validation import metrics

Floats = NDArray[np.float64]
Under = Literal["estimate", "null"]
Statistic = Literal["sharpe", "mean_return", "max_drawdown"]

MIN_MOMENT_PERIODS = 4
"""Fewest returns whose four moments say anything."""
MIN_BOOTSTRAP_PERIODS = 20
"""Fewest returns from which a block length and a resampled distribution are taken."""
MAX_BLOCKS = 20
"""Of CSCV; 20 blocks are 184,756 halves."""
NEAR_COPY = 0.95
"""Mean correlation from which trials count as one and the same."""


class NotEnoughData(SentioError):  # noqa: N818  # the verdict of that name, as much as an error
    """The record is too short for the statistic.

    Parameters
    ----------
    statistic
        What was asked for.
    needed, available
        How many, and how many there are.
    unit
        Of both.
    """

    def __init__(self, statistic: str, needed: int, available: int, unit: str = "periods") -> None:
        self.statistic = statistic
        self.needed = needed
        self.available = available
        super().__init__(f"{statistic}: {available} {unit}, needed {needed} or more; evaluate on more data")


class NoVarianceError(SentioError):
    """Returns do not vary, so that a statistic divided by their deviation is undefined."""


class SharpeMoments(NamedTuple):
    """Sharpe ratio per period (ddof 1), skew, and kurtosis that is not excess, of one series of returns."""

    sharpe: float
    skew: float
    kurtosis: float


@dataclass(frozen=True)
class Overfitting:
    """What CSCV finds over its C = C(S, S/2) choices of an in-sample half.

    Attributes
    ----------
    pbo
        Probability of backtest overfitting, 0 .. 1.
    logits
        float64[C], log(w / (1 - w)) of the relative rank w out of sample of the trial best in sample.
    slope
        Performance degradation: least-squares slope of out-of-sample on in-sample Sharpe ratio of the trial
        best in sample; 0 where the latter is the same in all halves.
    loss_probability
        Share of halves in which that trial's Sharpe ratio out of sample is below 0.
    """

    pbo: float
    logits: Floats
    slope: float
    loss_probability: float


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap percentile interval; `block` is the mean block length in periods."""

    estimate: float
    low: float
    high: float
    level: float
    block: int


def sharpe_moments(returns: Floats) -> SharpeMoments:
    """Return Sharpe ratio, skew and kurtosis of `returns` float64[T >= 4], per period.

    The Sharpe ratio has ddof 1, as :func:`~sentio_rllib.validation.metrics.sharpe`; Bailey and Lopez de Prado
    leave it open, and ddof 0 is larger by sqrt(T / (T - 1)). Skew and kurtosis are those of the sample, without
    correction for bias. Raises :class:`NotEnoughData`, and :class:`NoVarianceError` for constant returns.
    """
    _check("returns", returns, rank=1)
    if returns.size < MIN_MOMENT_PERIODS:
        raise NotEnoughData("Sharpe ratio with its moments", MIN_MOMENT_PERIODS, returns.size)
    if returns.min() == returns.max():
        raise NoVarianceError(f"returns: all {returns.size} are {returns[0]:g}, needed returns that vary")
    # in units of the largest, whose square neither over- nor underflows
    scaled = returns / np.abs(returns).max()
    centred = scaled - scaled.mean()
    sharpe = float(scaled.mean() / scaled.std(ddof=1))
    centred /= np.sqrt(np.mean(centred**2))
    return SharpeMoments(sharpe, float(np.mean(centred**3)), float(np.mean(centred**4)))


def sharpe_standard_error(sharpe: float, periods: int, skew: float, kurtosis: float) -> float:
    """Return the standard error of a Sharpe ratio per period, sqrt((1 - g3 SR + (g4 - 1)/4 SR^2) / T).

    Lopez de Prado, Lipton and Zoonekynd (How to Use the Sharpe Ratio, 2025), independent returns.

    Parameters
    ----------
    sharpe
        Per period.
    periods
        T >= 2.
    skew, kurtosis
        g3 and g4 of the returns; g4 is not excess and at least 1 + g3^2, as of any distribution.
    """
    _check_periods("standard error of the Sharpe ratio", periods)
    return math.sqrt(_variance_factor(sharpe, skew, kurtosis) / periods)


def probabilistic_sharpe_ratio(
    sharpe: float, benchmark: float, periods: int, skew: float, kurtosis: float, *, under: Under = "estimate"
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
    skew, kurtosis
        g3 and g4 of the returns, as in :func:`sharpe_standard_error`.

    Raises
    ------
    NotEnoughData
        Fewer than two periods.
    NoVarianceError
        The moments, of returns with two values only, leave the estimator without variance.
    """
    _check_periods("probabilistic Sharpe ratio", periods)
    _check_finite(sharpe=sharpe, benchmark=benchmark)
    at, count = (sharpe, periods - 1) if _under(under) == "estimate" else (benchmark, periods)
    return float(ndtr((sharpe - benchmark) * math.sqrt(count / _variance_factor(at, skew, kurtosis))))


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
    _check_finite(trials=trials, variance=variance)
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
    under: Under = "estimate",
) -> float:
    """Return the probability that the true Sharpe ratio is above what luck alone gives the best of `trials`.

    :func:`probabilistic_sharpe_ratio` at :func:`expected_maximum_sharpe_ratio` (Bailey and Lopez de Prado,
    2014), with their parameters and errors. `trials` are all that were looked at, given up ones
    included, and `variance` is theirs, per period: leaving any out looks ahead.
    """
    benchmark = expected_maximum_sharpe_ratio(trials, variance)
    return probabilistic_sharpe_ratio(sharpe, benchmark, periods, skew, kurtosis, under=under)


def minimum_track_record_length(
    sharpe: float,
    benchmark: float,
    skew: float,
    kurtosis: float,
    *,
    confidence: float = 0.95,
    under: Under = "estimate",
) -> float:
    """Return the periods from which the probabilistic Sharpe ratio reaches `confidence` (MinTRL).

    The formula of :func:`probabilistic_sharpe_ratio` solved for T: 1 + s^2 (z / (SR - SR*))^2 for ``estimate``
    (Bailey and Lopez de Prado, 2012), without the 1 for ``null`` (2025).

    Parameters
    ----------
    sharpe, benchmark, skew, kurtosis, under
        As there, per period.
    confidence
        Above 0.5 and below 1.

    Returns
    -------
    float
        Periods, not rounded; infinite where `sharpe` is not above `benchmark`, as no record is long enough.
    """
    _check_finite(sharpe=sharpe, benchmark=benchmark)
    _check_open("confidence", confidence, low=0.5)
    at, extra = (sharpe, 1.0) if _under(under) == "estimate" else (benchmark, 0.0)
    factor = _variance_factor(at, skew, kurtosis)
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
    _check_finite(sharpe=sharpe)
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
    _check_finite(benchmark=benchmark, alternative=alternative)
    _check_open("significance", significance)
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
    _check_open("prior", prior)
    _check_open("significance", significance)
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta is {beta}, allowed 0 .. 1")
    return 1.0 / (1.0 + (1.0 - beta) * prior / (significance * (1.0 - prior)))


def probability_of_backtest_overfitting(returns: Floats, blocks: int = 16) -> Overfitting:
    """Return how often the trial best in one half of the record is below the median in the other (PBO, by CSCV).

    Bailey, Borwein, Lopez de Prado and Zhu (The Probability of Backtest Overfitting, 2017): the periods are cut
    into S contiguous blocks, and each choice of S/2 of them is once in sample. Trials are ranked by Sharpe ratio
    (ddof 1), 0 for one that is constant in a half. Ties have their mean rank, and where several trials are best
    in sample their mean counts. A rank at the very median, logit 0, counts half, so that without skill 1/2 is
    expected whatever N is.

    Parameters
    ----------
    returns
        float64[T, N], one column per trial, on the same periods.
    blocks
        S, even, 2 .. 20. The first T mod S blocks are longer by a period.

    Raises
    ------
    NotEnoughData
        T below S or 4, or N below 2.
    NoVarianceError
        No trial's returns vary.
    """
    from scipy.stats import rankdata  # noqa: PLC0415  # half a second to import, here only

    _check("returns", returns, rank=2)
    if not 2 <= blocks <= MAX_BLOCKS or blocks % 2:
        raise ValueError(f"blocks is {blocks}, allowed even numbers 2 .. {MAX_BLOCKS}")
    periods, trials = returns.shape
    name = "probability of backtest overfitting"
    if trials < 2:
        raise NotEnoughData(name, 2, trials, "trials")
    if periods < max(blocks, 4):
        raise NotEnoughData(name, max(blocks, 4), periods)
    if np.all(np.ptp(returns, axis=0) == 0.0):
        raise NoVarianceError(f"returns: none of the {trials} trials varies, needed one that does")
    # rounded, for copies to tie
    inside = np.round(_half_sharpes(returns, blocks), 12)
    # the complement of the i-th combination is the i-th from the end
    outside = inside[::-1]
    best = inside == inside.max(axis=1, keepdims=True)
    winners = best.sum(axis=1)
    rank = np.where(best, rankdata(outside, axis=1), 0.0).sum(axis=1) / winners / (trials + 1)
    logits = np.round(np.log(rank / (1.0 - rank)), 12)
    chosen, reached = inside.max(axis=1), np.where(best, outside, 0.0).sum(axis=1) / winners
    spread = chosen - chosen.mean()
    slope = float(spread @ reached / (spread @ spread)) if np.ptp(chosen) > 0.0 else 0.0
    pbo = float(np.mean((logits < 0.0) + 0.5 * (logits == 0.0)))
    return Overfitting(pbo, logits, slope, float(np.mean(reached < 0.0)))


def _half_sharpes(returns: Floats, blocks: int) -> Floats:
    """Sharpe ratio of each column over each choice of half the blocks; float64[C, N], combinations in order."""
    sizes = np.full(blocks, len(returns) // blocks)
    sizes[: len(returns) % blocks] += 1
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    halves = np.array(list(combinations(range(blocks), blocks // 2)))
    member = np.zeros((len(halves), blocks))
    np.put_along_axis(member, halves, 1.0, axis=1)
    # the second moment about the column's mean: about 0 it would cancel
    centre = returns.mean(axis=0)
    centred = returns - centre
    count = member @ sizes.astype(np.float64)[:, None]
    mean = member @ np.add.reduceat(centred, starts) / count
    squares = member @ np.add.reduceat(centred**2, starts)
    deviation = np.sqrt(np.maximum(squares - count * mean**2, 0.0) / (count - 1.0))
    low, high = np.minimum.reduceat(returns, starts), np.maximum.reduceat(returns, starts)
    least, most = low[halves[:, 0]], high[halves[:, 0]]
    for block in halves.T[1:]:
        least, most = np.minimum(least, low[block]), np.maximum(most, high[block])
    varies = (least < most) & (deviation > 0.0)
    return np.where(varies, (mean + centre) / np.where(varies, deviation, 1.0), 0.0)


def effective_trials(returns: Floats) -> float:
    """Return how many independent trials the columns of `returns` amount to, 1 .. N.

    Near copies are clustered first (average linkage, mean correlation of 0.95 and above) and each cluster is
    averaged. Of the clusters' correlation matrix the eigenvalues are then counted, each l with [l >= 1] plus
    its fraction (Li and Ji, Adjusting Multiple Testing, Heredity 95, 2005). Clusters alone, as ONC's
    (Lopez de Prado and Lewis, 2019), make one trial of many that correlate by half, whose best is well above
    any single one, and deflate too little; their silhouette finds clusters among independent trials as well.
    The effective rank falls with each copy of one trial. The count here errs to the upper side.

    Negative correlations count as none, for the maximum gains from them. All constant columns are one trial.

    Parameters
    ----------
    returns
        float64[T >= 4, N >= 1], one column per trial. Needs T well above N: independent columns count nearly
        N for T > 5 N, fewer below.

    Raises
    ------
    NotEnoughData
        T below 4, or no column.
    """
    _check("returns", returns, rank=2)
    periods, trials = returns.shape
    if trials < 1:
        raise NotEnoughData("effective trials", 1, trials, "trials")
    if periods < MIN_MOMENT_PERIODS:
        raise NotEnoughData("effective trials", MIN_MOMENT_PERIODS, periods)
    deviation = returns.std(axis=0)
    varies = (np.ptp(returns, axis=0) > 0.0) & (deviation > 0.0)
    flat = 0.0 if varies.all() else 1.0
    if not varies.any():
        return flat
    columns = _merge_copies(((returns - returns.mean(axis=0)) / np.where(varies, deviation, 1.0))[:, varies])
    eigenvalues = np.abs(np.linalg.eigvalsh(np.maximum(_correlation(columns), 0.0)))
    # a whole eigenvalue must stay whole: a hair below it would count as nearly one more
    eigenvalues = np.round(eigenvalues, 9)
    count = round(float(np.sum((eigenvalues >= 1.0) + eigenvalues - np.floor(eigenvalues))), 6)
    return flat + min(max(count, 1.0), float(columns.shape[1]))


def _merge_copies(columns: Floats) -> Floats:
    """Means of the clusters of near copies among standardised `columns` float64[T, N]; float64[T, clusters]."""
    from scipy.cluster.hierarchy import fcluster, linkage  # noqa: PLC0415  # a tenth of a second, here only

    trials = columns.shape[1]
    if trials == 1:
        return columns
    distance = 1.0 - _correlation(columns)[np.triu_indices(trials, 1)]
    labels = fcluster(linkage(distance, "average"), 1.0 - NEAR_COPY, "distance")
    return np.stack([columns[:, labels == label].mean(axis=1) for label in np.unique(labels)], axis=1)


def _correlation(columns: Floats) -> Floats:
    """Correlation matrix of columns that vary, float64[N, N] with ones on the diagonal, also for N = 1."""
    correlation = np.clip(np.atleast_2d(np.corrcoef(columns, rowvar=False)), -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    return correlation


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
    NotEnoughData
        T below 20, or no column.
    NoVarianceError
        A column differs from the benchmark by a constant other than 0.
    """
    from arch.bootstrap import SPA  # noqa: PLC0415  # it loads statsmodels, a second

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
    from arch.bootstrap import StepM  # noqa: PLC0415  # as above

    _check_open("size", size)
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
) -> Interval:
    """Return a statistic of returns with its percentile interval by the stationary bootstrap.

    Politis and Romano (The Stationary Bootstrap, 1994), by ``arch.bootstrap``.

    Parameters
    ----------
    returns
        float64[T >= 20].
    statistic
        ``sharpe`` (per period, ddof 1), ``mean_return`` (per period), ``max_drawdown`` (0 .. 1, of the
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
    NotEnoughData
        T below 20.
    NoVarianceError
        The returns are constant.
    NonFiniteError
        `statistic` is NaN or infinite for some resample.
    """
    from arch.bootstrap import StationaryBootstrap  # noqa: PLC0415  # as above

    _check("returns", returns, rank=1)
    _check_open("level", level)
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
    return Interval(estimate, float(low), float(high), level, length)


def _drawdown(returns: Floats) -> float:
    return metrics.max_drawdown(metrics.equity_curve(returns))


_STATISTICS: dict[str, Callable[[Floats], float]] = {
    "sharpe": lambda returns: metrics.sharpe(returns, 1),
    "mean_return": lambda returns: float(returns.mean()),
    "max_drawdown": _drawdown,
}


def _scaled_losses(name: str, returns: Floats, benchmark: Floats, reps: int, block: int | None) -> tuple[Floats, int]:
    """Losses against the benchmark in standard deviations, float64[T, N], and the mean block length."""
    _check("returns", returns, rank=2)
    _check("benchmark", benchmark, rank=1)
    if benchmark.shape[0] != returns.shape[0]:
        raise ValueError(f"benchmark has {benchmark.shape[0]} periods, returns {returns.shape[0]}; needed the same")
    if returns.shape[1] < 1:
        raise NotEnoughData(name, 1, 0, "trials")
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
    from arch.bootstrap import optimal_block_length  # noqa: PLC0415  # as above

    # a column whose end equals its mean divides 0 by 0 there
    with np.errstate(divide="ignore", invalid="ignore"):
        lengths = np.asarray(optimal_block_length(columns)["stationary"], dtype=np.float64)
    return max(math.ceil(float(np.where(np.isfinite(lengths), lengths, 1.0).mean())), 1)


def _variance_factor(sharpe: float, skew: float, kurtosis: float) -> float:
    """T times the variance of a Sharpe ratio, 1 - g3 SR + (g4 - 1)/4 SR^2."""
    _check_finite(sharpe=sharpe, skew=skew, kurtosis=kurtosis)
    least = 1.0 + skew**2
    if kurtosis < least * (1.0 - 1e-9):
        raise ValueError(f"kurtosis is {kurtosis}, allowed 1 + skew^2 = {least:g} or more; give it not as excess")
    factor = 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2
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


def _check(name: str, values: Floats, rank: int) -> None:
    if not isinstance(values, np.ndarray) or values.dtype != np.float64:
        raise TypeError(f"{name} must be a float64 array")
    if values.ndim != rank:
        raise ValueError(f"{name} has rank {values.ndim}, needed {rank}")
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise NonFiniteError(f"{name}: {bad} of {values.size} values are NaN or infinite; needed finite ones")


def _check_finite(**values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteError(f"{name} is {value}, needed a finite number")


def _check_open(name: str, value: float, low: float = 0.0) -> None:
    if not low < value < 1.0:
        raise ValueError(f"{name} is {value}, allowed above {low:g} and below 1")


def _check_periods(name: str, periods: int) -> None:
    if periods < 2:
        raise NotEnoughData(name, 2, periods)


def _check_bootstrap(name: str, periods: int, reps: int, block: int | None) -> None:
    if periods < MIN_BOOTSTRAP_PERIODS:
        raise NotEnoughData(name, MIN_BOOTSTRAP_PERIODS, periods)
    if reps < 1:
        raise ValueError(f"reps is {reps}, allowed 1 or more")
    if block is not None and not 1 <= block <= periods:
        raise ValueError(f"block is {block}, allowed 1 .. {periods}")
