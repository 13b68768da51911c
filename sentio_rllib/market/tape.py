"""The tape: all that a simulator and a policy read of a market, as arrays shared between processes."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sentio_rllib.market.feature_set import DEFAULT_SET, REFERENCE_VOLATILITY, FeatureSet, feature_set, set_of_size
from sentio_rllib.market.features import compute_market_features, trailing_dollar_volume, volatility
from sentio_rllib.market.ohlcv import Bars


@dataclass(frozen=True)
class TapeTensors:
    """The tape as tensors on one device; fields as in :class:`Tape`, without the session labels.

    On a CPU they share memory with the tape's arrays, which may be read-only: never write to them.
    """

    timestamp: torch.Tensor
    open: torch.Tensor
    close: torch.Tensor
    volatility: torch.Tensor
    dollar_volume: torch.Tensor
    fillable: torch.Tensor
    features: torch.Tensor
    session: torch.Tensor
    minute: torch.Tensor
    minutes_left: torch.Tensor
    session_last: torch.Tensor
    cuts: torch.Tensor
    warmup: int
    sessions_per_year: int
    always_fillable: bool
    session_bars: int

    @property
    def n(self) -> int:
        """Number of bars."""
        return int(self.timestamp.shape[0])

    @property
    def device(self) -> torch.device:
        """Device that holds the tensors."""
        return self.timestamp.device


@dataclass(frozen=True, eq=False)
class Tape:
    """T bars with their features.

    Attributes
    ----------
    timestamp
        int64[T], start of the bar in ns UTC.
    open, close
        float64[T], prices.
    volatility
        float64[T], RMS of the last 390 one-bar log returns known at t.
    dollar_volume
        float64[T], mean of close * volume over the last 390 bars known at t.
    fillable
        bool[T], whether an order finds somebody at the bar's open: it has volume, or no bar before it had any, as in
        files that tell none.
    features
        float32[T, F], columns as in :attr:`feature_set`.
    session
        int32[T], ordinal of the session, ascending from 0.
    minute, minutes_left
        int32[T], minutes since the session's open, and until its last minute (0 in the last minute).
    session_last
        bool[T], whether the bar is the last one present of its session.
    cuts
        int64[C], bars > 0 where a new stretch starts.
    warmup
        Rows at the start whose features read bars from before the tape: not to be used for decisions.
    sessions_per_year
        Trading days of the calendar in a year.
    session_labels
        datetime64[D][S], dates of the sessions.
    """

    timestamp: NDArray[np.int64]
    open: NDArray[np.float64]
    close: NDArray[np.float64]
    volatility: NDArray[np.float64]
    dollar_volume: NDArray[np.float64]
    fillable: NDArray[np.bool_]
    features: NDArray[np.float32]
    session: NDArray[np.int32]
    minute: NDArray[np.int32]
    minutes_left: NDArray[np.int32]
    session_last: NDArray[np.bool_]
    cuts: NDArray[np.int64]
    warmup: int
    sessions_per_year: int
    session_labels: NDArray[np.datetime64]

    @property
    def n(self) -> int:
        """Number of bars."""
        return int(self.timestamp.size)

    def __len__(self) -> int:
        return self.n

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all fields, bytes in little-endian order."""
        digest = hashlib.sha256(b"tape/v1")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                plain = value.view(np.int64) if value.dtype.kind == "M" else value
                digest.update(f"{field.name}:{value.dtype.str[1:]}:{value.shape}".encode())
                digest.update(np.ascontiguousarray(plain, dtype=plain.dtype.newbyteorder("<")).tobytes())
            else:
                digest.update(f"{field.name}={value}".encode())
        return digest.hexdigest()

    @property
    def feature_set(self) -> FeatureSet:
        """The set that its features are of."""
        return set_of_size(self.features.shape[1])

    @property
    def always_fillable(self) -> bool:
        """Whether every bar is fillable."""
        return bool(self.fillable.all())

    @property
    def session_bars(self) -> int:
        """Bars of a session, on average."""
        return max(1, round(self.n / len(self.session_labels)))

    def cut(self, stop: int) -> Tape:
        """The tape of the bars before `stop`, equal to the one built from those bars alone.

        What trials receive: nothing from bar `stop` on can be reached from it. Arrays of bars are views; the
        bar ``stop - 1`` becomes the last one present of its session.

        Raises
        ------
        IndexError
            Where `stop` is not in 1 .. n.
        """
        if not 1 <= stop <= self.n:
            raise IndexError(f"stop is {stop}: the tape has {self.n} bars, so it must be 1 .. {self.n}")
        session_last = self.session_last[:stop].copy()
        session_last[-1] = True
        per_bar = {
            name: getattr(self, name)[:stop]
            for name in (
                "timestamp", "open", "close", "volatility", "dollar_volume", "fillable", "features", "session",
                "minute", "minutes_left",
            )
        }  # fmt: skip
        return replace(
            self,
            **per_bar,
            session_last=session_last,
            cuts=self.cuts[self.cuts < stop],
            session_labels=self.session_labels[: int(self.session[stop - 1]) + 1],
        )

    def tensors(self, device: str | torch.device = "cpu") -> TapeTensors:
        """The tape on `device`; on a CPU without copies, also of read-only arrays."""
        values: dict[str, Any] = {}
        with warnings.catch_warnings():
            # arrays from Ray's object store are read-only; the tensors are only ever read (see TapeTensors)
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            for field in fields(TapeTensors):
                value = getattr(self, field.name)
                is_array = isinstance(value, np.ndarray)
                values[field.name] = torch.from_numpy(value).to(device) if is_array else value
        return TapeTensors(**values)


def build_tape(bars: Bars, features: str = DEFAULT_SET, *, reference_volatility: float = REFERENCE_VOLATILITY) -> Tape:
    """Compute features and trailing quantities of the bars.

    Parameters
    ----------
    bars
        T validated bars.
    features
        Name of the set of market features.
    reference_volatility
        As in :func:`sentio_rllib.market.features.compute_market_features`; no value estimated on the
        bars themselves, which would look ahead.

    Raises
    ------
    ConfigError
        Where `reference_volatility` is not positive and finite, or the set is unknown.
    """
    sessions, chosen = bars.sessions, feature_set(features)
    return Tape(
        timestamp=bars.timestamp,
        open=bars.open,
        close=bars.close,
        volatility=volatility(bars.close),
        dollar_volume=trailing_dollar_volume(bars),
        fillable=(bars.volume > 0.0) | (np.cumsum(bars.volume > 0.0) == 0),
        features=compute_market_features(bars, chosen, reference_volatility=reference_volatility),
        session=sessions.session,
        minute=sessions.minute,
        minutes_left=(sessions.length - 1 - sessions.minute).astype(np.int32),
        session_last=sessions.last,
        cuts=sessions.cuts,
        warmup=chosen.lookback(int(sessions.length.max())),
        sessions_per_year=sessions.sessions_per_year,
        session_labels=sessions.labels,
    )
