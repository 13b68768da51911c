"""The market features of a tape: causal, with a finite memory, bounded, and counted in bars.

Every feature at bar t reads bar t and at most its declared look-back of bars before it, nothing else: sums
over windows are built from the bars of the window alone, never as differences of sums over the tape, so that
a change outside the window leaves the value untouched to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.errors import ConfigError
from sentio_rllib.market.bars import Bars
from sentio_rllib.market.sessions import Sessions

FEATURE_VERSION = "features/v1"

VOLATILITY_WINDOW = 390
SHORT_VOLATILITY_WINDOW = 30
RETURN_WINDOWS = (1, 5, 30, 390)
RSI_WINDOW = 14
FAST_MEAN, SLOW_MEAN = 12, 26
BOLLINGER_WINDOW = 20
VOLUME_WINDOW = 390
DOLLAR_VOLUME_WINDOW = 390

SESSION_MINUTES = 390
REFERENCE_VOLATILITY = 5e-4

VOLATILITY_FLOOR = 1e-6
"""Least volatility that anything is divided by: a hundredth of a basis point a bar."""
RELATIVE_DEVIATION_FLOOR = 1e-9
"""Least standard deviation of the Bollinger window, as a share of the close."""
LOG_VOLUME_DEVIATION_FLOOR = 1e-3
"""Least standard deviation of the log volume."""
CLIP = 5.0


def _mean_distance_deviation(fast: int, slow: int) -> float:
    """Standard deviation of SMA(fast) - SMA(slow) of a random walk with steps of deviation 1."""
    weights = [max(0.0, 1 - lag / slow) - max(0.0, 1 - lag / fast) for lag in range(1, slow)]
    return math.sqrt(sum(weight * weight for weight in weights))


MEAN_DISTANCE_DEVIATION = _mean_distance_deviation(FAST_MEAN, SLOW_MEAN)
"""1.587: SMA12 - SMA26 is given in this multiple of close * volatility: deviation 1 for a random walk."""


@dataclass(frozen=True)
class MarketFeature:
    """One market feature: its name, what it reads, and how its raw value is bounded.

    Attributes
    ----------
    name
        Name of the column.
    window_lookback
        Bars before t that its windows read, the normaliser included.
    squash
        ``tanh``: tanh(scale * raw); ``clip``: scale * raw clipped at ±5; ``none``: raw, in [-1, 1] as it is.
    scale
        Chosen so that a random walk with bursts of volatility spreads by 0.3 to 1.
    since_open
        Whether it also reads back to the open of the session.
    """

    name: str
    window_lookback: int
    squash: Literal["tanh", "clip", "none"] = "none"
    scale: float = 1.0
    since_open: bool = False

    @property
    def limit(self) -> float:
        """Largest value; the least is its negative."""
        return CLIP if self.squash == "clip" else 1.0

    def lookback(self, session_minutes: int = SESSION_MINUTES) -> int:
        """Bars before t that it reads, where the calendar's longest session has `session_minutes`."""
        return max(self.window_lookback, session_minutes - 1) if self.since_open else self.window_lookback

    def bound(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bring raw values float64[...] into [-1, 1], or into [-5, 5] for ``clip``."""
        if self.squash == "tanh":
            return np.asarray(np.tanh(self.scale * raw))
        return np.asarray(np.clip(self.scale * raw, -self.limit, self.limit))

    def bound_one(self, raw: float) -> float:
        """What :meth:`bound` does, of one value and much faster."""
        if self.squash == "tanh":
            return math.tanh(self.scale * raw)
        return min(max(self.scale * raw, -self.limit), self.limit)


MARKET_FEATURES: tuple[MarketFeature, ...] = (
    *(MarketFeature(f"return_{window}", max(window, VOLATILITY_WINDOW), "tanh", 0.5) for window in RETURN_WINDOWS),
    MarketFeature("return_session", VOLATILITY_WINDOW, "tanh", 0.5, since_open=True),
    MarketFeature("volatility_ratio", VOLATILITY_WINDOW, "clip"),
    MarketFeature("volatility_level", VOLATILITY_WINDOW, "clip"),
    MarketFeature("close_location", 0),
    MarketFeature(f"rsi_{RSI_WINDOW}", RSI_WINDOW),
    MarketFeature(f"sma_{FAST_MEAN}_{SLOW_MEAN}", VOLATILITY_WINDOW, "tanh", 0.5),
    MarketFeature(f"bollinger_{BOLLINGER_WINDOW}", BOLLINGER_WINDOW - 1, "tanh", 0.5),
    MarketFeature("volume_z", VOLUME_WINDOW - 1, "tanh", 0.5),
    MarketFeature("minute_sin", 0),
    MarketFeature("minute_cos", 0),
)
"""The 14 market features, in the order of the columns."""

REGIME_FEATURES: tuple[str, ...] = ("volatility_level", "volatility_ratio", "return_390", "return_30")
"""What tells regimes apart: volatility (level and ratio) and trend."""

PORTFOLIO_FEATURES: tuple[str, ...] = (
    "position_fraction",
    "unrealised_return",
    "bars_since_fill",
    "local_drawdown",
    "session_return",
    "trade_count",
)
"""Names of the 6 features of the portfolio, which the simulator computes."""


def feature_hash() -> str:
    """SHA-256 (hex) of version, names and parameters of the 20 features; it travels with every checkpoint.

    `reference_volatility` belongs to the configuration and is not part of it.
    """
    description = {
        "version": FEATURE_VERSION,
        "market": [
            [feature.name, feature.window_lookback, feature.squash, feature.scale, feature.since_open]
            for feature in MARKET_FEATURES
        ],
        "portfolio": PORTFOLIO_FEATURES,
        "short_volatility_window": SHORT_VOLATILITY_WINDOW,
        "floors": [VOLATILITY_FLOOR, RELATIVE_DEVIATION_FLOOR, LOG_VOLUME_DEVIATION_FLOOR],
        "clip": CLIP,
    }
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def max_lookback(session_minutes: int = SESSION_MINUTES) -> int:
    """Most bars before t that any market feature reads: 390 for XNYS, 1439 for ``24/7``.

    Parameters
    ----------
    session_minutes
        Minutes of the calendar's longest session.
    """
    return max(feature.lookback(session_minutes) for feature in MARKET_FEATURES)


def check_reference_volatility(value: float) -> float:
    """Return `value`, or raise :class:`ConfigError` where it is not positive and finite."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(
            f"features.reference_volatility is {value}: it must be finite and > 0, "
            f"the volatility per bar of a usual market (default {REFERENCE_VOLATILITY})"
        )
    return value


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


def compute_market_features(bars: Bars, *, reference_volatility: float = REFERENCE_VOLATILITY) -> NDArray[np.float32]:
    """Compute the 14 market features of every bar.

    Features count bars, not minutes: a missing minute, a night or a cut is one step.

    Parameters
    ----------
    bars
        T validated bars.
    reference_volatility
        Log return per bar (RMS) at which ``volatility_level`` is 0. To be fixed by hand: a value estimated on
        the bars themselves would look ahead.

    Returns
    -------
    float32[T, 14]
        Columns as in :data:`MARKET_FEATURES`, finite, in [-1, 1] or [-5, 5]. Rows before
        :func:`max_lookback` use the bars there are (padded with the first) and are for warming up only.

    Raises
    ------
    ConfigError
        Where `reference_volatility` is not positive and finite.
    """
    check_reference_volatility(reference_volatility)
    raw = _raw_features(bars, reference_volatility)
    features = np.empty((bars.n, len(MARKET_FEATURES)), dtype=np.float32)
    for column, feature in enumerate(MARKET_FEATURES):
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
