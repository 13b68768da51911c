"""The market features of a tape: causal, with a finite memory, bounded, and counted in bars.

Every feature at bar t reads bar t and at most its declared look-back of bars before it, nothing else: sums
over windows are built from the bars of the window alone, never as differences of sums over the tape, so that
a change outside the window leaves the value untouched to the last bit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.market.feature_set import (
    ABSOLUTE_RETURN_WINDOWS,
    BOLLINGER_WINDOW,
    CLASSIC,
    DEFAULT_SET,
    DOLLAR_VOLUME_WINDOW,
    FAST_MEAN,
    FEATURE_SETS,
    LOG_VOLUME_DEVIATION_FLOOR,
    MEAN_ABSOLUTE_NORMAL,
    MEAN_DISTANCE_DEVIATION,
    REFERENCE_VOLATILITY,
    RELATIVE_DEVIATION_FLOOR,
    RETURN_WINDOWS,
    RSI_WINDOW,
    SHORT_VOLATILITY_WINDOW,
    SLOW_MEAN,
    VOLATILITY_FLOOR,
    VOLATILITY_WINDOW,
    VOLUME_WINDOW,
    FeatureSet,
    check_reference_volatility,
)
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.sessions import Sessions


def trailing_sum(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Sum over the bars t - window + 1 .. t, over those present where there are fewer.

    Built by doubling (sums over 1, 2, 4, ... bars): it costs O(T log window), the order of the additions is
    the same at every t, and no value outside the window enters.

    Parameters
    ----------
    values
        float64[T].
    window
        Number of bars, at least 1.

    Returns
    -------
    float64[T]
    """
    if values.ndim != 1 or values.dtype != np.float64:
        raise TypeError(f"values must be float64[T], not {values.dtype} of shape {values.shape}")
    if window < 1:
        raise ValueError(f"window is {window}: at least 1 bar")
    total = np.zeros_like(values)
    partial, size, covered = values, 1, 0
    while covered < window:
        if window & size:
            total += _shifted(partial, covered)
            covered += size
        partial = partial + _shifted(partial, size)
        size *= 2
    return total


def _shifted(values: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """`values` `lag` bars before, 0 before the first bar."""
    shifted = np.zeros_like(values)
    shifted[lag:] = values[: max(values.size - lag, 0)]
    return shifted


def _lagged(values: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """`values` `lag` bars before, the first bar's value before the first bar."""
    lagged = np.full_like(values, values[0])
    lagged[lag:] = values[: max(values.size - lag, 0)]
    return lagged


def _present(n: int, window: int) -> NDArray[np.float64]:
    """Number of bars present in the window that ends at each of n bars."""
    return np.asarray(np.minimum(np.arange(1.0, n + 1.0), window), dtype=np.float64)


def volatility(close: NDArray[np.float64], window: int = VOLATILITY_WINDOW) -> NDArray[np.float64]:
    """Root mean square of the last `window` one-bar log returns (a gap counts as one bar).

    Parameters
    ----------
    close
        float64[T], prices > 0.
    window
        Number of returns; reads ``close[t - window .. t]``.

    Returns
    -------
    float64[T]
        Log return per bar, >= 0; over the returns there are in the first rows, 0 in the first.
    """
    log_close = np.log(close)
    squares = np.square(log_close - _lagged(log_close, 1))
    returns_present = np.minimum(np.maximum(np.arange(float(close.size)), 1.0), window)
    return np.asarray(np.sqrt(trailing_sum(squares, window) / returns_present))


def trailing_dollar_volume(bars: Bars) -> NDArray[np.float64]:
    """Mean of close * volume over the last 390 bars, float64[T] per bar in the currency of the prices."""
    total = trailing_sum(bars.close * bars.volume, DOLLAR_VOLUME_WINDOW)
    return np.asarray(total / _present(bars.n, DOLLAR_VOLUME_WINDOW))


def compute_market_features(
    bars: Bars, chosen: FeatureSet = FEATURE_SETS[DEFAULT_SET], *, reference_volatility: float = REFERENCE_VOLATILITY
) -> NDArray[np.float32]:
    """Compute the market features of every bar.

    Features count bars, not minutes: a missing minute, a night or a cut is one step.

    Parameters
    ----------
    bars
        T validated bars.
    chosen
        Of F features.
    reference_volatility
        Log return per bar (RMS) at which ``volatility_level`` is 0, and the absolute returns of a normal. To be fixed
        by hand: a value estimated on the bars themselves would look ahead.

    Returns
    -------
    float32[T, F]
        Columns as in `chosen`, finite, in [-1, 1] or [-5, 5]. Rows before
        the set's look-back use the bars there are (padded with the first) and are for warming up only.

    Raises
    ------
    ConfigError
        Where `reference_volatility` is not positive and finite.
    """
    check_reference_volatility(reference_volatility)
    raw = _raw_features(bars, reference_volatility)
    if chosen is not CLASSIC:
        raw |= _absolute_returns(bars.close, reference_volatility)
    features = np.empty((bars.n, len(chosen)), dtype=np.float32)
    for column, feature in enumerate(chosen.features):
        features[:, column] = feature.bound(raw.pop(feature.name))
    return features


def _raw_features(bars: Bars, reference_volatility: float) -> dict[str, NDArray[np.float64]]:
    """Every feature before it is bounded, float64[T] by name."""
    close, sessions = bars.close, bars.sessions
    long_volatility = np.maximum(volatility(close), VOLATILITY_FLOOR)
    short_volatility = np.maximum(volatility(close, SHORT_VOLATILITY_WINDOW), VOLATILITY_FLOOR)
    log_close = np.log(close)
    raw = {
        f"return_{window}": (log_close - _lagged(log_close, window)) / (long_volatility * math.sqrt(window))
        for window in RETURN_WINDOWS
    }
    session_return = np.log(close / bars.open[session_anchor(sessions)])
    raw["return_session"] = session_return / (long_volatility * np.sqrt(sessions.minute + 1.0))
    raw["volatility_ratio"] = np.log(short_volatility / long_volatility)
    raw["volatility_level"] = np.log(long_volatility / reference_volatility)
    raw["close_location"] = _close_location(bars.high, bars.low, close)
    raw[f"rsi_{RSI_WINDOW}"] = _centred_rsi(close)
    mean_distance, raw[f"bollinger_{BOLLINGER_WINDOW}"] = _mean_distance_and_bollinger(close)
    raw[f"sma_{FAST_MEAN}_{SLOW_MEAN}"] = mean_distance / (MEAN_DISTANCE_DEVIATION * long_volatility)
    raw["volume_z"] = _volume_z(bars.volume)
    angle = 2 * np.pi * sessions.minute / sessions.length
    raw["minute_sin"], raw["minute_cos"] = np.sin(angle), np.cos(angle)
    return raw


def _absolute_returns(close: NDArray[np.float64], reference_volatility: float) -> dict[str, NDArray[np.float64]]:
    """Log of the mean absolute one-bar log return over that of a normal one of the reference, by its windows."""
    log_close = np.log(close)
    sizes = np.abs(log_close - _lagged(log_close, 1))
    raw = {}
    for window in ABSOLUTE_RETURN_WINDOWS:
        present = np.minimum(np.maximum(np.arange(float(close.size)), 1.0), window)
        mean = np.maximum(trailing_sum(sizes, window) / present, VOLATILITY_FLOOR)
        raw[f"absolute_return_{window}"] = np.log(mean / (MEAN_ABSOLUTE_NORMAL * reference_volatility))
    return raw


def session_anchor(sessions: Sessions) -> NDArray[np.int64]:
    """Bar whose open price is the session's open price, as known at each bar; int64[T].

    The first bar present of the session's regular hours; before that, the first bar present of the session.
    It never lies more than the session's length - 1 bars back, which binds only where bars outside the hours
    are kept.
    """
    bar = np.arange(sessions.session.size)
    starts = np.flatnonzero(np.diff(sessions.session, prepend=sessions.session[0] - 1))
    ordinal = sessions.session - sessions.session[0]
    first_regular = np.minimum.reduceat(np.where(sessions.regular, bar, bar.size), starts)[ordinal]
    anchor = np.where(first_regular <= bar, first_regular, starts[ordinal])
    return np.asarray(np.maximum(anchor, bar - (sessions.length.astype(np.int64) - 1)))


def _close_location(
    high: NDArray[np.float64], low: NDArray[np.float64], close: NDArray[np.float64]
) -> NDArray[np.float64]:
    """-1 where the bar closes at its low, 1 at its high, 0 where it has one price."""
    spread = high - low
    moved = spread > 0
    return np.where(moved, 2 * (close - low) / np.where(moved, spread, 1.0) - 1, 0.0)


def _centred_rsi(close: NDArray[np.float64]) -> NDArray[np.float64]:
    """RSI(14) with simple means (Cutler), as RSI / 50 - 1 in [-1, 1]; 0 where no price changed."""
    change = close - _lagged(close, 1)
    gain = trailing_sum(np.maximum(change, 0.0), RSI_WINDOW)
    loss = trailing_sum(np.maximum(-change, 0.0), RSI_WINDOW)
    total = gain + loss
    moved = total > 0
    return np.where(moved, (gain - loss) / np.where(moved, total, 1.0), 0.0)


def _mean_distance_and_bollinger(
    close: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(SMA12 - SMA26) / close and the z of close in its last 20 bars (ddof 0), float64[T] each.

    Moments are taken of the distances to the present close, ``close[t - i] / close[t] - 1``: exactly 0 for a
    constant price, and of the size of their own deviation, so that nothing cancels.
    """
    sums = {window: np.zeros_like(close) for window in (FAST_MEAN, BOLLINGER_WINDOW, SLOW_MEAN)}
    squares = np.zeros_like(close)
    for lag in range(1, SLOW_MEAN):
        distance = (_lagged(close, lag) - close) / close
        for window, total in sums.items():
            if lag < window:
                np.add(total, distance, out=total)
        if lag < BOLLINGER_WINDOW:
            squares += np.square(distance)
    mean_distance = sums[FAST_MEAN] / FAST_MEAN - sums[SLOW_MEAN] / SLOW_MEAN
    mean = sums[BOLLINGER_WINDOW] / BOLLINGER_WINDOW
    deviation = np.sqrt(np.maximum(squares / BOLLINGER_WINDOW - np.square(mean), 0.0))
    return mean_distance, -mean / np.maximum(deviation, RELATIVE_DEVIATION_FLOOR)


def _volume_z(volume: NDArray[np.float64]) -> NDArray[np.float64]:
    """z of log(1 + volume) among the last 390 bars (ddof 0), over those present in the first rows."""
    log_volume = np.log1p(volume)
    present = _present(volume.size, VOLUME_WINDOW)
    mean = trailing_sum(log_volume, VOLUME_WINDOW) / present
    variance = trailing_sum(np.square(log_volume), VOLUME_WINDOW) / present - np.square(mean)
    deviation = np.sqrt(np.maximum(variance, 0.0))
    return np.asarray((log_volume - mean) / np.maximum(deviation, LOG_VOLUME_DEVIATION_FLOOR))
