"""Which bars a model was trained and validated on and which were held out, to be carried with it and told again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sentio_rllib.evidence.session_marks import SessionMark, near, session_marks
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


def sealed_sessions(metadata: Mapping[str, Any], bars: Bars, first: int = 0) -> list[SessionMark]:
    """Return the sessions from the bar `first` on that the model with `metadata` had held out.

    Bars are the model's market where their symbol is, or where any session is known to the bit, or at least half of
    the common dates by their gains; then a held-out date is sealed, however much of the session there is.
    Empty where the metadata do not say, as those of other sources.
    """
    used = metadata.get("bars_used") or {}
    known = {str(date): (str(value), float(gain)) for part in used.values() for value, date, gain in part["sessions"]}
    held = {str(date) for _, date, _ in (used.get(HELD_OUT) or {}).get("sessions") or []}
    marks = session_marks(bars)
    common = [mark for mark in marks if mark.date in known]
    exact = any(mark.hash == known[mark.date][0] for mark in common)
    alike = 2 * sum(near(known[mark.date][1], mark.gain) for mark in common) >= len(common)
    symbol = (metadata.get("data") or {}).get("symbol")
    if not common or not (symbol == bars.symbol or exact or alike):
        return []
    walked = marks[int(bars.sessions.session[min(first, bars.n - 1)]) :]
    return [mark for mark in walked if mark.date in held]
