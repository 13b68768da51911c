"""The market features bar by bar, as a live agent computes them: the values of the batch form to 1e-6."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.market import feature_set as declared
from sentio_rllib.market.feature_set import DEFAULT_SET, SESSION_MINUTES, feature_set

_CLOSE, _LOG_CLOSE, _SQUARED_RETURN, _ABSOLUTE_RETURN, _LOG_VOLUME, _DOLLARS = range(6)


class StreamingFeatures:
    """Computes the market features of one bar after the other from a bounded window of bars.

    The first bar fed plays the part of the first bar of a batch; from :attr:`is_warm` on the values do not
    depend on where the feed began.

    Parameters
    ----------
    features
        Name of the set, of F features.
    session_minutes
        Minutes of the calendar's longest session (XNYS 390, ``24/7`` 1440).
    reference_volatility
        As in :func:`sentio_rllib.market.features.compute_market_features`.

    Attributes
    ----------
    volatility
        RMS of the last 390 one-bar log returns at the last bar.
    dollar_volume
        Mean of close * volume over the last 390 bars.
    """

    def __init__(
        self,
        features: str = DEFAULT_SET,
        *,
        session_minutes: int = SESSION_MINUTES,
        reference_volatility: float = declared.REFERENCE_VOLATILITY,
    ) -> None:
        self.reference_volatility = declared.check_reference_volatility(reference_volatility)
        self.features = feature_set(features)
        self._absolute = any(name.startswith("absolute") for name in self.features.names)
        self.lookback = self.features.lookback(session_minutes)
        self.bars_seen = 0
        self.volatility = 0.0
        self.dollar_volume = 0.0
        self._history = np.zeros((6, 4 * (self.lookback + 1)))
        self._stop = 0
        self._session: int | None = None
        self._opens: list[float] = []
        self._regular_opened = False

    @property
    def is_warm(self) -> bool:
        """Whether the last features read no bar from before the feed began."""
        return self.bars_seen > self.lookback

    def push(
        self,
        *,
        open_price: float,
        high: float,
        low: float,
        close: float,
        volume: float,
        session: int,
        minute: int,
        length: int,
        regular: bool = True,
    ) -> NDArray[np.float32]:
        """Take the next bar and return its features.

        Parameters
        ----------
        open_price, high, low, close, volume
            The bar; prices > 0, volume >= 0.
        session
            Any number that changes with the session.
        minute, length
            Minutes since the session's open, 0 .. length - 1, and minutes in the session.
        regular
            Whether the bar lies inside the calendar's hours.

        Returns
        -------
        float32[F]
            Columns as in the set.
        """
        self._append(close, volume)
        session_open = self._session_open(open_price, session, length, regular)
        raw = self._window_features(close)
        deviation = max(self.volatility, declared.VOLATILITY_FLOOR)
        raw["return_session"] = math.log(close / session_open) / (deviation * math.sqrt(minute + 1))
        raw["close_location"] = 2 * (close - low) / (high - low) - 1 if high > low else 0.0
        angle = 2 * math.pi * minute / length
        raw["minute_sin"], raw["minute_cos"] = math.sin(angle), math.cos(angle)
        return np.array([feature.bound_one(raw[feature.name]) for feature in self.features.features], dtype=np.float32)

    def _append(self, close: float, volume: float) -> None:
        """Write the bar behind the others, moving the window to the front when the space is used up."""
        if self._stop == self._history.shape[1]:
            kept = self.lookback + 1
            self._history[:, :kept] = self._history[:, -kept:]
            self._stop = kept
        log_close = math.log(close)
        step = log_close - float(self._history[_LOG_CLOSE, self._stop - 1]) if self.bars_seen else 0.0
        row = (close, log_close, step * step, abs(step), math.log1p(volume), close * volume)
        self._history[:, self._stop] = row
        self._stop += 1
        self.bars_seen += 1

    def _window(self, row: int, window: int) -> NDArray[np.float64]:
        """The last `window` values of a row of the history, fewer where there are fewer."""
        return self._history[row, max(self._stop - window, 0) : self._stop]

    def _session_open(self, open_price: float, session: int, length: int, regular: bool) -> float:
        """Open price of the bar that :func:`sentio_rllib.market.features.session_anchor` names."""
        starts_regular = regular and not (self._regular_opened and session == self._session)
        if session != self._session or starts_regular:
            self._opens = []
            self._regular_opened = regular
        self._session = session
        self._opens.append(open_price)
        del self._opens[: max(len(self._opens) - length, 0)]
        return self._opens[0]

    def _window_features(self, close: float) -> dict[str, float]:
        """Raw values of the features that read windows of closes and volumes."""
        self.volatility = self._volatility(declared.VOLATILITY_WINDOW)
        self.dollar_volume = float(self._window(_DOLLARS, declared.DOLLAR_VOLUME_WINDOW).mean())
        deviation = max(self.volatility, declared.VOLATILITY_FLOOR)
        short = max(self._volatility(declared.SHORT_VOLATILITY_WINDOW), declared.VOLATILITY_FLOOR)
        log_close = float(self._history[_LOG_CLOSE, self._stop - 1])
        raw = {
            f"return_{window}": (log_close - float(self._window(_LOG_CLOSE, window + 1)[0]))
            / (deviation * math.sqrt(window))
            for window in declared.RETURN_WINDOWS
        }
        raw["volatility_ratio"] = math.log(short / deviation)
        raw["volatility_level"] = math.log(deviation / self.reference_volatility)
        closes = self._window(_CLOSE, declared.RSI_WINDOW + 1)
        change = closes[1:] - closes[:-1]
        moved = float(np.abs(change).sum())
        raw[f"rsi_{declared.RSI_WINDOW}"] = float(change.sum()) / moved if moved > 0 else 0.0
        distance = self._distances(close)
        fast = float(distance[-declared.FAST_MEAN :].sum()) / declared.FAST_MEAN
        mean_distance = fast - float(distance.sum()) / declared.SLOW_MEAN
        raw[f"sma_{declared.FAST_MEAN}_{declared.SLOW_MEAN}"] = mean_distance / (
            declared.MEAN_DISTANCE_DEVIATION * deviation
        )
        mean, spread = _mean_and_deviation(distance[-declared.BOLLINGER_WINDOW :])
        raw[f"bollinger_{declared.BOLLINGER_WINDOW}"] = -mean / max(spread, declared.RELATIVE_DEVIATION_FLOOR)
        volumes = self._window(_LOG_VOLUME, declared.VOLUME_WINDOW)
        mean, spread = _mean_and_deviation(volumes)
        raw["volume_z"] = (float(volumes[-1]) - mean) / max(spread, declared.LOG_VOLUME_DEVIATION_FLOOR)
        return raw | self._absolute_returns() if self._absolute else raw

    def _absolute_returns(self) -> dict[str, float]:
        usual, raw = declared.MEAN_ABSOLUTE_NORMAL * self.reference_volatility, {}
        for window in declared.ABSOLUTE_RETURN_WINDOWS:
            returns_present = max(min(self.bars_seen - 1, window), 1)
            mean = float(self._window(_ABSOLUTE_RETURN, window).sum()) / returns_present
            raw[f"absolute_return_{window}"] = math.log(max(mean, declared.VOLATILITY_FLOOR) / usual)
        return raw

    def _distances(self, close: float) -> NDArray[np.float64]:
        """Relative distances of the last 26 closes to the present one, padded with the first close."""
        closes = self._window(_CLOSE, declared.SLOW_MEAN)
        if closes.size < declared.SLOW_MEAN:
            closes = np.pad(closes, (declared.SLOW_MEAN - closes.size, 0), mode="edge")
        return (closes - close) / close

    def _volatility(self, window: int) -> float:
        """RMS of the last `window` one-bar log returns; the first bar of the feed has none."""
        squares = self._window(_SQUARED_RETURN, window)
        returns_present = max(min(self.bars_seen - 1, window), 1)
        return math.sqrt(float(squares.sum()) / returns_present)


def _mean_and_deviation(values: NDArray[np.float64]) -> tuple[float, float]:
    """What ``mean`` and ``std`` of numpy return, without the cost of their calls."""
    mean = float(values.sum()) / len(values)
    apart = values - mean
    return mean, math.sqrt(float((apart * apart).sum()) / len(values))
