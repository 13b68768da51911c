"""Small made-up tapes, rules and walks that the tests of this folder share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from sentio_rllib.market.tape import Tape
from sentio_rllib.trading.rules import TradingRules


def make_tape(
    opening: np.ndarray | list[float],
    close: np.ndarray | list[float],
    *,
    session_lengths: list[int] | None = None,
    volatility: np.ndarray | None = None,
    dollar_volume: np.ndarray | None = None,
    fillable: np.ndarray | None = None,
    cuts: list[int] | None = None,
    warmup: int = 1,
    seed: int = 0,
) -> Tape:
    """Build a tape of T bars from prices; sessions follow one another with the given numbers of bars."""
    close = np.asarray(close, dtype=np.float64)
    bars = len(close)
    lengths = [bars] if session_lengths is None else session_lengths
    length = np.repeat(lengths, lengths)[:bars].astype(np.int32)
    session = np.repeat(np.arange(len(lengths)), lengths)[:bars].astype(np.int32)
    minute = np.concatenate([np.arange(each) for each in lengths])[:bars].astype(np.int32)
    generator = np.random.default_rng(seed)
    return Tape(
        timestamp=np.arange(bars, dtype=np.int64) * 60_000_000_000,
        open=np.asarray(opening, dtype=np.float64),
        close=close,
        volatility=np.full(bars, 5e-4) if volatility is None else volatility,
        dollar_volume=np.full(bars, 1e6) if dollar_volume is None else dollar_volume,
        fillable=np.ones(bars, dtype=np.bool_) if fillable is None else fillable,
        features=generator.normal(size=(bars, 20)).clip(-5, 5).astype(np.float32),
        session=session,
        minute=minute,
        minutes_left=length - 1 - minute,
        session_last=np.append(session[1:] != session[:-1], True),
        cuts=np.array(cuts or [], dtype=np.int64),
        warmup=warmup,
        sessions_per_year=252,
        session_labels=np.datetime64("2024-01-01") + np.arange(int(session[-1]) + 1),
    )


def random_tape(seed: int, bars: int = 160, scale: float = 0.01) -> Tape:
    """A wild market: short sessions of uneven length, overnight gaps, some bars without any volume."""
    generator = np.random.default_rng(seed)
    lengths: list[int] = []
    while sum(lengths) < bars:
        lengths.append(int(generator.integers(1, 40)))
    inside = generator.normal(0, scale, bars)
    ends = np.cumsum(lengths)
    gaps = np.zeros(bars)
    starts = ends[ends < bars]
    gaps[starts] = generator.normal(0, 8 * scale, len(starts))
    gaps += generator.normal(0, scale / 3, bars)
    quiet = np.random.default_rng([seed, 1]).random(bars) < 0.1
    close = 50.0 * np.exp(np.cumsum(inside + gaps))
    return make_tape(
        close * np.exp(-inside),
        close,
        session_lengths=lengths,
        volatility=np.abs(generator.normal(0, 1e-3, bars)),
        dollar_volume=generator.exponential(1e6, bars) * (generator.random(bars) > 0.1),
        fillable=~quiet,
        seed=seed,
    )


@st.composite
def trading_rules(draw: st.DrawFn, **fixed: Any) -> TradingRules:
    """All combinations of rules, with events frequent enough to meet in a short walk."""
    interval = draw(st.sampled_from([1, 2, 3, 7, 15]))
    drawn: dict[str, Any] = {
        "fee_rate": draw(st.sampled_from([0.0, 0.001, 0.02])),
        "half_spread_bps": draw(st.sampled_from([0.0, 5.0])),
        "impact": draw(st.sampled_from([0.0, 1.0, 50.0])),
        "max_participation": draw(st.sampled_from([None, 0.01, 0.2])),
        "position_step": draw(st.sampled_from([0.1, 0.33, 1.0])),
        "max_position": draw(st.sampled_from([0.5, 0.95, 1.0])),
        "min_trade": draw(st.sampled_from([1e-4, 0.05])),
        "flat_by_close": draw(st.booleans()),
        "close_minutes": draw(st.sampled_from([0, 1, 4])),
        "fill_without_volume": draw(st.booleans()),
        "cash_rate": draw(st.sampled_from([0.0, 0.0, 0.5])),
        "max_drawdown": draw(st.sampled_from([0.03, 0.1, 0.3])),
        "decision_interval": interval,
        "episode_length": interval * draw(st.integers(1, 12)) + draw(st.integers(0, interval - 1)),
        "masks": draw(st.sampled_from(["none", "state", "risk"])),
        "risk_first_minutes": 2,
        "risk_last_minutes": 3,
        "reference_volatility": 5e-4,
    }
    return TradingRules(**(drawn | fixed))


def whole(n: int, value: bool = True) -> torch.Tensor:
    """bool[n] of one value."""
    return torch.full((n,), value)


def bars_of(n: int, value: int) -> torch.Tensor:
    """int64[n] of one value."""
    return torch.full((n,), value, dtype=torch.int64)
