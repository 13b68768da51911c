"""Which features there are: what each reads, how it is bounded, and the version and hash of each set of them.

Declarations alone; :mod:`sentio_rllib.market.features` computes them over a tape, `streaming` bar by bar.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.errors import ConfigError

VOLATILITY_WINDOW = 390
SHORT_VOLATILITY_WINDOW = 30
RETURN_WINDOWS = (1, 5, 30, 390)
RSI_WINDOW = 14
FAST_MEAN, SLOW_MEAN = 12, 26
BOLLINGER_WINDOW = 20
VOLUME_WINDOW = 390
DOLLAR_VOLUME_WINDOW = 390
ABSOLUTE_RETURN_WINDOWS = (5, 10, 15, 60, 120, 240)

SESSION_MINUTES = 390
REFERENCE_VOLATILITY = 5e-4

VOLATILITY_FLOOR = 1e-6
"""Least volatility that anything is divided by: a hundredth of a basis point a bar."""
RELATIVE_DEVIATION_FLOOR = 1e-9
"""Least standard deviation of the Bollinger window, as a share of the close."""
LOG_VOLUME_DEVIATION_FLOOR = 1e-3
"""Least standard deviation of the log volume."""
CLIP = 5.0
MEAN_ABSOLUTE_NORMAL = math.sqrt(2.0 / math.pi)
"""Mean absolute value of a standard normal."""


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


_CLASSIC: tuple[MarketFeature, ...] = (
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


@dataclass(frozen=True)
class FeatureSet:
    """The market features that a network reads, in the order of the columns, and their version.

    All sets begin with the 14 of :data:`CLASSIC`, and no two are of one size.
    """

    name: str
    version: str
    features: tuple[MarketFeature, ...]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(feature.name for feature in self.features)

    def lookback(self, session_minutes: int = SESSION_MINUTES) -> int:
        """Most bars before t that any feature reads: 390 for XNYS, 1439 for ``24/7``.

        Parameters
        ----------
        session_minutes
            Minutes of the calendar's longest session.
        """
        return max(feature.lookback(session_minutes) for feature in self.features)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of version, names and parameters, the portfolio's included; it travels with every checkpoint.

        `reference_volatility` belongs to the configuration and is not part of it.
        """
        description = {
            "version": self.version,
            "market": [
                [feature.name, feature.window_lookback, feature.squash, feature.scale, feature.since_open]
                for feature in self.features
            ],
            "portfolio": PORTFOLIO_FEATURES,
            "short_volatility_window": SHORT_VOLATILITY_WINDOW,
            "floors": [VOLATILITY_FLOOR, RELATIVE_DEVIATION_FLOOR, LOG_VOLUME_DEVIATION_FLOOR],
            "clip": CLIP,
        }
        return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()

    def description(self) -> dict[str, Any]:
        """Return what checkpoints tell of it."""
        return {
            "set": self.name,
            "version": self.version,
            "hash": self.digest,
            "market": list(self.names),
            "portfolio": list(PORTFOLIO_FEATURES),
        }


CLASSIC = FeatureSet("classic", "features/v1", _CLASSIC)
"""Returns, volatility, position in ranges, volume and time of day: 14 features."""
MULTISCALE = FeatureSet(
    "multiscale",
    "features/v2",
    (*_CLASSIC, *(MarketFeature(f"absolute_return_{w}", w, "clip") for w in ABSOLUTE_RETURN_WINDOWS)),
)
"""The classic ones, and the mean absolute return over six windows: volatility on its way, 20 features."""
FEATURE_SETS: dict[str, FeatureSet] = {each.name: each for each in (CLASSIC, MULTISCALE)}
DEFAULT_SET = MULTISCALE.name


def feature_set(name: str) -> FeatureSet:
    """Return a set by its name.

    Raises
    ------
    ConfigError
        Unknown name; names those that there are.
    """
    if name not in FEATURE_SETS:
        raise ConfigError(f"features.set: {name!r} is unknown; choose one of {', '.join(FEATURE_SETS)}")
    return FEATURE_SETS[name]


def set_of_digest(digest: str) -> FeatureSet | None:
    """Return the set with this :attr:`FeatureSet.digest`; None where this version has none."""
    return next((each for each in FEATURE_SETS.values() if each.digest == digest), None)


def set_of_size(size: int) -> FeatureSet:
    """Return the set that has `size` market features.

    Raises
    ------
    ValueError
        There is none.
    """
    for each in FEATURE_SETS.values():
        if len(each) == size:
            return each
    sizes = ", ".join(f"{len(each)} ({each.name})" for each in FEATURE_SETS.values())
    raise ValueError(f"{size} market features: no set has so many; allowed {sizes}")


def check_reference_volatility(value: float) -> float:
    """Return `value`, or raise :class:`ConfigError` where it is not positive and finite."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(
            f"features.reference_volatility is {value}: it must be finite and > 0, "
            f"the volatility per bar of a usual market (default {REFERENCE_VOLATILITY})"
        )
    return value
