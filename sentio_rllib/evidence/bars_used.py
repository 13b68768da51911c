"""Which bars a model was trained and validated on and which were held out, to be carried with it and told again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sentio_rllib.evidence.session_marks import NEAR, SessionMark, session_marks
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.validation.schemes import Range
from sentio_rllib.validation.splits import Fold, Splits

HELD_OUT = "held_out"


def bars_used(bars: Bars, splits: Splits, folds: Sequence[Fold] = ()) -> dict[str, Any]:
    """Return ranges and sessions of ``trained``, ``validated`` and ``held_out``, as a bundle carries them.

    Parameters
    ----------
    bars, splits
        Of the sweep.
    folds
        Whose training segments trained the networks; none: the champion's, everything but the holdout.
    """
    trained = [each for fold in folds for each in fold.train] if folds else list(splits.refit)
    validated = [each for fold in splits.folds for each in fold.validation]
    parts = {"trained": trained, "validated": validated, HELD_OUT: list(splits.holdout_blocks)}
    marks, ends = session_marks(bars), bars.timestamp.astype("datetime64[ns]").astype("datetime64[m]")
    return {
        name: {
            "ranges": [[f"{ends[each.start]}Z", f"{ends[each.stop - 1]}Z"] for each in sorted(set(ranges))],
            "sessions": [list(marks[index]) for index in _sessions_of(bars, ranges)],
        }
        for name, ranges in parts.items()
    }


def _sessions_of(bars: Bars, ranges: Iterable[Range]) -> list[int]:
    session = bars.sessions.session
    return sorted({int(index) for each in ranges for index in np.unique(session[each.start : each.stop])})


def sealed_sessions(metadata: Mapping[str, Any], walked: Sequence[SessionMark]) -> list[SessionMark]:
    """Return those of `walked` that the model with `metadata` had held out, by bars or by date and gain.

    Empty where the metadata do not say, as those of earlier versions.
    """
    held = ((metadata.get("bars_used") or {}).get(HELD_OUT) or {}).get("sessions") or []
    known = {str(date): (str(value), float(gain)) for value, date, gain in held}
    return [
        mark
        for mark in walked
        if mark.date in known and (known[mark.date][0] == mark.hash or abs(known[mark.date][1] - mark.gain) <= NEAR)
    ]
