"""By what the ledger knows a session again: its bars to the bit, or its date and what it gained.

Neither one share of volume, nor float32, nor prices adjusted for a split, nor another vendor's rounding makes bars new,
so a hash alone would not do. Two sessions of a date are taken for the same where their returns from the first open to
the last close are near, and two sets of sessions where at least half of their common dates are, or where any session
is equal to the bit.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from sentio_rllib.market.ohlcv import Bars

HASH_DIGITS = 32
NEAR, LEAST_NEAR, NEAR_SHARE = 5e-4, 5e-5, 0.1
"""Gains of one session are near by at most 5e-4, and by a tenth of the gain where that is less, but 5e-5.

Prices of two vendors differ by a cent or two; different markets by more, on most days.
"""
MIN_DATES = 3
"""Common dates from which gains tell that two markets are the same; fewer may be near by chance."""


def near(gain: float, other: float) -> bool:
    """Whether two gains of a date may be those of the same session."""
    return abs(gain - other) <= max(LEAST_NEAR, min(NEAR, NEAR_SHARE * abs(gain)))


class SessionMark(NamedTuple):
    """One session: the `hash` of its bars, its `date` (ISO 8601), and its `gain`, last close over first open less 1."""

    hash: str
    date: str
    gain: float


def session_marks(bars: Bars) -> tuple[SessionMark, ...]:
    """Return the marks of all sessions in time order, of regular bars only, but where a session has no others."""
    kept = _kept(bars)
    session, labels = bars.sessions.session[kept], bars.sessions.labels
    first = np.flatnonzero(np.diff(session, prepend=-1))
    last = np.append(first[1:], session.size) - 1
    gains = bars.close[kept][last] / bars.open[kept][first] - 1.0
    dates = [str(labels[index]) for index in session[first]]
    return tuple(map(SessionMark, session_hashes(bars), dates, gains.tolist()))


def session_hashes(bars: Bars) -> tuple[str, ...]:
    """Hash the bars of each session.

    Parameters
    ----------
    bars
        T bars of S sessions. Pass whole bars: a session that a slice divides is another session here.

    Returns
    -------
    tuple[str, ...]
        S hashes in time order, each the first 32 hex digits of the SHA-256 of the session's stamps (int64, ns UTC) and
        its open, high, low, close and volume (float64), little-endian, one array after the other. The symbol is left
        out, so that a renamed file is the same data, and so are bars outside the calendar's hours, so that keeping
        them makes no new session; one that has no others is hashed by them.
    """
    kept = _kept(bars)
    starts = np.flatnonzero(np.diff(bars.sessions.session[kept])) + 1  # of all but the first
    values = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    columns = [bars.timestamp[kept].astype("<i8"), *(column[kept].astype("<f8") for column in values)]
    sessions = zip(*(np.split(column, starts) for column in columns), strict=True)
    return tuple(
        hashlib.sha256(b"".join(part.tobytes() for part in session)).hexdigest()[:HASH_DIGITS] for session in sessions
    )


def _kept(bars: Bars) -> np.ndarray:
    """Rows of the bars that count, int64."""
    session, regular = bars.sessions.session, bars.sessions.regular
    return np.flatnonzero(regular | (np.bincount(session, regular) == 0)[session])
