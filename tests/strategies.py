"""Hypothesis strategies, and the small markets behind them, that the whole suite shares."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.sessions import MINUTE_NS, assign_sessions

Market = Literal["walk", "constant", "sticky", "split", "silent"]
MARKETS: tuple[Market, ...] = get_args(Market)

# each span holds a half day; the first also crosses Thanksgiving, the second Independence Day
_SPANS = (("2024-11-27", "2024-12-02"), ("2024-07-02", "2024-07-05"), ("2024-12-23", "2024-12-26"))


@lru_cache(maxsize=8)
def session_minutes(first: str, last: str, *, hours: str = "regular") -> NDArray[np.int64]:
    """Start of every XNYS minute from the date `first` to `last`, int64 ns UTC; all minutes with ``all``."""
    start, stop = (np.datetime64(date, "ns").astype(np.int64) for date in (first, last))
    timestamp = np.arange(start, stop + 1440 * MINUTE_NS, MINUTE_NS, dtype=np.int64)
    _, regular = assign_sessions(timestamp)
    return timestamp[regular] if hours == "regular" else timestamp


def make_bars(timestamp: NDArray[np.int64], *, seed: int = 0, market: Market = "walk", calendar: str = "XNYS") -> Bars:
    """A random market on the given minutes.

    `market`: ``walk``; ``constant``: one price for ever; ``sticky``: most bars repeat the price before;
    ``split``: jumps by a factor of ten both ways; ``silent``: a walk without any volume.
    """
    rng = np.random.default_rng(seed)
    n = timestamp.size
    steps = rng.standard_t(4, n) * 5e-4 * np.exp(rng.normal(0, 0.3, n))
    if market == "constant":
        steps[:] = 0.0
    if market == "sticky":
        steps[rng.random(n) < 0.8] = 0.0
    if market == "split":
        steps[rng.integers(0, n, 4)] += np.log([0.1, 10.0, 0.1, 10.0])
    close = 100.1 * np.exp(np.cumsum(steps))
    moving = 0.0 if market == "constant" else 1e-4
    open_price = np.concatenate((close[:1], close[:-1])) * np.exp(moving * rng.normal(size=n))
    high = np.maximum(open_price, close) * (1 + moving * rng.exponential(size=n))
    low = np.minimum(open_price, close) / (1 + moving * rng.exponential(size=n))
    volume = np.zeros(n) if market == "silent" else rng.lognormal(7, 1, n).round() * (rng.random(n) > 0.05)
    sessions, _ = assign_sessions(timestamp, calendar)
    return Bars("TEST", timestamp, open_price, high, low, close, volume, sessions)


@st.composite
def irregular_bars(draw: st.DrawFn, *, markets: tuple[Market, ...] = MARKETS) -> Bars:
    """Bars of three sessions, one of them a half day, with missing minutes and a hole."""
    grid = session_minutes(*draw(st.sampled_from(_SPANS)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    present = rng.random(grid.size) >= draw(st.sampled_from([0.0, 0.02, 0.3]))
    hole = draw(st.integers(1, grid.size - 100))
    present[hole : hole + draw(st.sampled_from([0, 90]))] = False
    present[0] = present[-1] = True
    return make_bars(grid[present], seed=int(rng.integers(2**32)), market=draw(st.sampled_from(markets)))
