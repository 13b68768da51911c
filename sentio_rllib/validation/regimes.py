"""Regimes for attribution: bars labelled by volatility and trend, and what was earned and lost in each.

Labels explain a result after the fact. They are fitted on a fold's training segments alone and no policy
reads them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from sentio_rllib.errors import NonFiniteError
from sentio_rllib.market.feature_set import CLASSIC, REGIME_FEATURES, set_of_size
from sentio_rllib.validation.schemes import Range

MAX_FIT_ROWS = 20_000
FIT_STARTS = 3
"""Fits of the mixture from different starts, of which the likeliest counts."""
FIT_ITERATIONS = 500
FIT_TOLERANCE = 1e-5
"""In log likelihood per bar; at the 1e-3 of scikit-learn a fit stops before it has left a poor start."""
MAX_REGIMES = 100

_COLUMNS = [CLASSIC.names.index(name) for name in REGIME_FEATURES]
_LEVEL = REGIME_FEATURES.index("volatility_level")


@dataclass(frozen=True)
class Attribution:
    """What fell into each of R regimes; float64[R] each, regime 0 first.

    Attributes
    ----------
    bars
        Count of bar returns.
    log_return
        Sum of the logarithms of its bars' growth: those of all regimes add up to that of the whole growth.
    trades
        Count of trades.
    drawdown_share
        Share of the maximum drawdown's log loss, summing to 1; negative where the regime gained between peak
        and trough. All 0 where equity never fell.
    """

    bars: NDArray[np.float64]
    log_return: NDArray[np.float64]
    trades: NDArray[np.float64]
    drawdown_share: NDArray[np.float64]


def fit_regimes(
    features: NDArray[np.float32], train: Sequence[Range], *, regimes: int = 2, seed: int
) -> NDArray[np.int8]:
    """Label every bar with the regime that its features at its close tell.

    A Gaussian mixture with full covariances (McLachlan and Peel, Finite Mixture Models, 2000) of the columns
    :data:`~sentio_rllib.market.feature_set.REGIME_FEATURES`, standardised by their training moments.

    Parameters
    ----------
    features
        float32[T, F], of a tape.
    train
        Training segments of the fold. The mixture sees these bars only, at most 20,000 spaced evenly; bars of
        a validation block among them would look ahead.
    regimes
        Number of components R, 1 .. 100.
    seed
        Of the starts of the fit.

    Returns
    -------
    int8[T]
        0 .. R - 1 by ascending mean of ``volatility_level``: regime 0 is the calmest. All 0 where the training
        bars have fewer than R distinct rows.

    Raises
    ------
    TypeError, ValueError
        `features` is not float32[T, F] of a set, `regimes` is out of its range, or a segment leaves the tape.
    NonFiniteError
        A regime feature is NaN or infinite.
    """
    _check_fit(features, train, regimes)
    values = features[:, _COLUMNS].astype(np.float64)
    bars = np.concatenate([np.arange(each.start, each.stop) for each in train])
    if bars.size > MAX_FIT_ROWS:
        bars = bars[np.linspace(0, bars.size - 1, MAX_FIT_ROWS).astype(np.int64)]
    sample = values[bars]
    if regimes == 1 or len(np.unique(sample, axis=0)) < regimes:
        return np.zeros(len(values), dtype=np.int8)
    deviation = np.where(np.ptp(sample, axis=0) > 0.0, sample.std(axis=0), 1.0)
    mean = sample.mean(axis=0)
    return _mixture_labels((sample - mean) / deviation, (values - mean) / deviation, regimes, seed)


def _mixture_labels(
    sample: NDArray[np.float64], values: NDArray[np.float64], regimes: int, seed: int
) -> NDArray[np.int8]:
    """Fit on `sample` float64[N, 4], label `values` float64[T, 4]; int8[T], calmest first."""
    mixture = GaussianMixture(
        regimes, tol=FIT_TOLERANCE, max_iter=FIT_ITERATIONS, n_init=FIT_STARTS, random_state=seed % 2**32
    )
    # one thread: k-means adds up in the order in which threads come to an end
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        # repeated rows make k-means find fewer clusters, which the mixture then starts from as well
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = mixture.fit(sample).predict(values)
    rank = np.empty(regimes, dtype=np.int8)
    rank[np.argsort(mixture.means_[:, _LEVEL], kind="stable")] = np.arange(regimes)
    return np.asarray(rank[labels])


def attribute(
    bar_returns: NDArray[np.float64],
    bars: NDArray[np.int64],
    trade_bars: NDArray[np.int64],
    labels: NDArray[np.int8],
    regimes: int,
) -> Attribution:
    """Divide returns, trades and the maximum drawdown among regimes.

    A bar's return belongs to the regime of the bar before, which was known before the return; a trade to the
    regime of the bar at whose close it was decided.

    Parameters
    ----------
    bar_returns
        float64[N], net simple returns above -1, in time order; the equity of several blocks is chained.
    bars
        int64[N], bar of each return, >= 1.
    trade_bars
        int64[K], decision bar of each trade.
    labels
        int8[T], as :func:`fit_regimes` gives.
    regimes
        Number of regimes R, above every label.

    Raises
    ------
    TypeError, ValueError
        Ranks, dtypes or lengths are wrong, or a bar or label is out of its range.
    NonFiniteError
        A return is NaN or infinite, or -1 or below, which has no logarithm.
    """
    _check_attribution(bar_returns, bars, trade_bars, labels, regimes)
    regime = labels[bars - 1]
    log_returns = np.log1p(bar_returns)
    peak, trough = _deepest_fall(log_returns)
    fall = np.bincount(regime[peak:trough], log_returns[peak:trough], regimes)
    total = float(fall.sum())
    return Attribution(
        bars=np.bincount(regime, minlength=regimes).astype(np.float64),
        log_return=np.asarray(np.bincount(regime, log_returns, regimes), dtype=np.float64),
        trades=np.bincount(labels[trade_bars], minlength=regimes).astype(np.float64),
        drawdown_share=fall / total if total < 0.0 else np.zeros(regimes),
    )


def _deepest_fall(log_returns: NDArray[np.float64]) -> tuple[int, int]:
    """Slice of the returns between the peak and the trough of the maximum drawdown, empty without one."""
    log_equity = np.concatenate([[0.0], np.cumsum(log_returns)])
    trough = int(np.argmin(log_equity - np.maximum.accumulate(log_equity)))
    return int(np.argmax(log_equity[: trough + 1])), trough


def _check_fit(features: NDArray[np.float32], train: Sequence[Range], regimes: int) -> None:
    if not isinstance(features, np.ndarray) or features.dtype != np.float32:
        raise TypeError("features must be a float32 array")
    if features.ndim != 2:
        raise ValueError(f"features has shape {features.shape}, needed [T, F]")
    set_of_size(features.shape[1])
    if not 1 <= regimes <= MAX_REGIMES:
        raise ValueError(f"regimes is {regimes}, allowed 1 .. {MAX_REGIMES}")
    if not any(len(each) for each in train):
        raise ValueError("train holds no bars")
    if any(each.start < 0 or each.stop > len(features) for each in train):
        raise ValueError(f"train: a segment leaves the {len(features)} bars of the tape")
    if not np.isfinite(features[:, _COLUMNS]).all():
        raise NonFiniteError("features: a value of the regime features is NaN or infinite; needed finite ones")


def _check_attribution(
    bar_returns: NDArray[np.float64],
    bars: NDArray[np.int64],
    trade_bars: NDArray[np.int64],
    labels: NDArray[np.int8],
    regimes: int,
) -> None:
    wanted = {"bar_returns": np.float64, "bars": np.int64, "trade_bars": np.int64, "labels": np.int8}
    for (name, dtype), values in zip(wanted.items(), (bar_returns, bars, trade_bars, labels), strict=True):
        if not isinstance(values, np.ndarray) or values.dtype != dtype:
            raise TypeError(f"{name} must be a {dtype.__name__} array")
        if values.ndim != 1:
            raise ValueError(f"{name} has rank {values.ndim}, needed 1")
    if bars.shape != bar_returns.shape:
        raise ValueError(f"bars has shape {bars.shape}, bar_returns {bar_returns.shape}")
    for name, at, least in (("bars", bars, 1), ("trade_bars", trade_bars, 0)):
        if at.size and not least <= at.min() <= at.max() < labels.size:
            raise ValueError(f"{name} spans {at.min()} .. {at.max()}, allowed {least} .. {labels.size - 1}")
    if labels.size and not 0 <= labels.min() <= labels.max() < regimes:
        raise ValueError(f"labels span {labels.min()} .. {labels.max()}, allowed 0 .. {regimes - 1}")
    if not (np.isfinite(bar_returns).all() and (bar_returns > -1.0).all()):
        raise NonFiniteError("bar_returns: a value is NaN or infinite, or -1 or below; needed finite ones above -1")
