"""Bars for the tests of files: frames of valid minutes, files of them, and where the real ones lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sentio_rllib.errors import BarsError
from sentio_rllib.market.bars import load_bars
from sentio_rllib.market.ohlcv import Bars

NEW_YORK = "America/New_York"
CLOCK: dict[str, Any] = {"calendar": "24/7", "max_missing": 1.0}
REAL = Path(__file__).parents[2] / "../shared/data"
needs_real_bars = pytest.mark.skipif(
    not REAL.is_dir(), reason="the real bars of ../shared/data are not distributed with the project"
)


def minutes(first: str, count: int) -> pd.DatetimeIndex:
    """`count` consecutive minutes in UTC from `first`."""
    return pd.date_range(first, periods=count, freq="min", tz="UTC").as_unit("ns")


def frame_of(stamps: pd.DatetimeIndex, seed: int = 0) -> pd.DataFrame:
    """Valid bars at `stamps`: prices in cents around 100, volumes above 0."""
    rng = np.random.default_rng(seed)
    close = np.round(100 + np.cumsum(rng.normal(0, 0.02, len(stamps))), 2)
    open_ = np.concatenate(([100.0], close[:-1]))
    return pd.DataFrame(
        {
            "timestamp": stamps,
            "open": open_,
            "high": np.round(np.maximum(open_, close) + 0.01, 2),
            "low": np.round(np.minimum(open_, close) - 0.01, 2),
            "close": close,
            "volume": rng.integers(1, 1_000, len(stamps)).astype(float),
        }
    )


def session_frame(day: str = "2025-06-02", count: int = 390) -> pd.DataFrame:
    """Valid bars of the first `count` minutes of one summer session of New York."""
    return frame_of(minutes(f"{day} 13:30", count))


def write(frame: pd.DataFrame, path: Path, *, header: bool = True) -> Path:
    """Write the frame as the ending of `path` says."""
    if path.suffix == ".feather":
        frame.to_feather(path)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, header=header)
    return path


def assert_holds(bars: Bars, frame: pd.DataFrame) -> None:
    """Assert that the bars are those of the frame, value by value."""
    stamps = frame["timestamp"].dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    np.testing.assert_array_equal(bars.timestamp, stamps)
    for name in ("open", "high", "low", "close", "volume"):
        column = getattr(bars, name)
        assert column.dtype == np.float64
        np.testing.assert_array_equal(column, frame[name].to_numpy())


def refusal(path: Path, **options: Any) -> str:
    """The one line that refuses the file."""
    with pytest.raises(BarsError) as caught:
        load_bars(path, **options)
    [line] = caught.value.lines
    return line


def text(path: Path, content: str) -> Path:
    """Write a file of text."""
    path.write_text(content)
    return path
