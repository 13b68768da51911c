"""What a search does to evidence: backtest overfitting by CSCV, and how many trials were really made.

Errors as in :mod:`~sentio_rllib.statistics.significance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.stats import rankdata

from sentio_rllib.statistics.inputs import Floats, NotEnoughDataError, NoVarianceError, check_returns

MIN_CORRELATED_PERIODS = 4
"""Fewest returns whose correlations are counted."""
MAX_BLOCKS = 20
"""Of CSCV; 20 blocks are 184,756 halves."""
NEAR_COPY = 0.95
"""Mean correlation from which trials count as one and the same."""


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
    NotEnoughDataError
        T below S or 4, or N below 2.
    NoVarianceError
        No trial's returns vary.
    """
    check_returns("returns", returns, rank=2)
    if not 2 <= blocks <= MAX_BLOCKS or blocks % 2:
        raise ValueError(f"blocks is {blocks}, allowed even numbers 2 .. {MAX_BLOCKS}")
    periods, trials = returns.shape
    name = "probability of backtest overfitting"
    if trials < 2:
        raise NotEnoughDataError(name, 2, trials, "trials")
    if periods < max(blocks, 4):
        raise NotEnoughDataError(name, max(blocks, 4), periods)
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
    NotEnoughDataError
        T below 4, or no column.
    """
    check_returns("returns", returns, rank=2)
    periods, trials = returns.shape
    if trials < 1:
        raise NotEnoughDataError("effective trials", 1, trials, "trials")
    if periods < MIN_CORRELATED_PERIODS:
        raise NotEnoughDataError("effective trials", MIN_CORRELATED_PERIODS, periods)
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
