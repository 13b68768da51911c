"""Records with chosen figures, for what is made of records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sentio_rllib.validation.evaluation import Record


def record(returns: Sequence[float], session: Sequence[int] | None = None, **changes: Any) -> Record:
    """A record of these session returns; sessions count from 0 where none are given."""
    values = np.asarray(returns, dtype=np.float64)
    labels = np.arange(values.size) if session is None else np.asarray(session, dtype=np.int64)
    figures: dict[str, Any] = {
        "bars": 100 * values.size,
        "decisions": 10 * values.size,
        "trades": 4,
        "drawdown_stops": 0,
        "exposure": 0.5,
        "mean_return": float(values.sum()) / (100 * values.size),
        "turnover_usd": 4e4,
        "fees_usd": 40.0,
        "trips": 2,
        "winning_trips": 1,
        "max_drawdown": 0.02,
        "longest_drawdown": 30,
    }
    return Record(values, labels, **(figures | changes))
