"""Open, high, low, close and volume of the minutes of one market, as arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.market.checks import iso_minute
from sentio_rllib.market.sessions import Sessions


@dataclass(frozen=True)
class Bars:
    """T minute bars of one symbol, validated.

    Attributes
    ----------
    symbol
        Name of the market.
    timestamp
        int64[T], start of each bar in ns UTC, strictly ascending.
    open, high, low, close, volume
        float64[T], finite; prices > 0 in the currency of the file, volume >= 0.
    sessions
        The sessions of these bars.
    """

    symbol: str
    timestamp: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]
    sessions: Sessions

    @property
    def n(self) -> int:
        """Number of bars."""
        return int(self.timestamp.size)

    def __len__(self) -> int:
        return self.n

    @property
    def first(self) -> str:
        """Start of the first bar, ISO 8601 in UTC to the minute."""
        return iso_minute(int(self.timestamp[0]))

    @property
    def last(self) -> str:
        """Start of the last bar, ISO 8601 in UTC to the minute."""
        return iso_minute(int(self.timestamp[-1]))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of stamps, prices and volumes; the same bars give the same on every machine."""
        digest = hashlib.sha256(b"bars/v1")
        digest.update(np.ascontiguousarray(self.timestamp, dtype="<i8").tobytes())
        for column in (self.open, self.high, self.low, self.close, self.volume):
            digest.update(np.ascontiguousarray(column, dtype="<f8").tobytes())
        return digest.hexdigest()

    def slice(self, start: int, stop: int) -> Bars:
        """Bars ``start .. stop - 1`` with the sessions counted from there; the arrays are views."""
        if not 0 <= start < stop <= self.n:
            raise IndexError(f"bars {start} .. {stop} of {self.n}: needs 0 <= start < stop <= {self.n}")
        return Bars(
            symbol=self.symbol,
            timestamp=self.timestamp[start:stop],
            open=self.open[start:stop],
            high=self.high[start:stop],
            low=self.low[start:stop],
            close=self.close[start:stop],
            volume=self.volume[start:stop],
            sessions=self.sessions.slice(start, stop),
        )
