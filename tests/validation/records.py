"""Records with chosen figures, for what is made of records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sentio_rllib.validation.evaluation import Record


def record(
    returns: ArrayLike, session: ArrayLike | None = None, *, exposure: ArrayLike = 0.5, **changes: Any
) -> Record:
    """A record of these session returns with one `exposure` or one for each session, of a hundred bars each.

    Sessions count from 0 where none are given. The first bar's exposure is that of the first session.
    """
    values = np.asarray(returns, dtype=np.float64)
    labels = np.arange(values.size) if session is None else np.asarray(session, dtype=np.int64)
    held = np.broadcast_to(np.asarray(exposure, dtype=np.float64), values.shape).copy()
    figures: dict[str, Any] = {
        "session_exposure": held,
        "session_bars": np.ones(values.size),  # so that a mean a bar is one a session
        "bars": 100 * values.size,
        "decisions": 10 * values.size,
        "trades": 4,
        "drawdown_stops": 0,
        "exposure": float(held.mean()),
        "opening_exposure": float(held[0]),
        "mean_return": math.expm1(float(np.log1p(values).sum()) / (100 * values.size)),
        "turnover_usd": 4e4,
        "fees_usd": 40.0,
        "trips": 2,
        "winning_trips": 1,
        "max_drawdown": 0.02,
        "longest_drawdown": 30,
    }
    return Record(values, labels, **(figures | changes))
