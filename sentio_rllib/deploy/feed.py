"""Bars as they arrive: one finished minute at a time, checked as a file's are, and placed in its session."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from numbers import Real
from typing import NamedTuple

import numpy as np

from sentio_rllib.errors import BarsError
from sentio_rllib.market.checks import iso_minute, widened_range
from sentio_rllib.market.sessions import CUT_MINUTES, DAY_NS, MINUTE_NS, assign_sessions, session_parts

Stamp = int | np.integer | np.datetime64 | datetime
"""Start of a minute: ns since 1970 in UTC, ``datetime64`` (UTC by numpy's convention), or an aware datetime."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = (int(np.datetime64(date, "ns").astype(np.int64)) for date in ("1990-01-01", "2101-01-01"))
VALUES = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Bar:
    """One finished minute bar.

    Attributes
    ----------
    timestamp
        Start of the minute.
    open, high, low, close
        Prices, > 0.
    volume
        >= 0.
    """

    timestamp: Stamp
    open: float
    high: float
    low: float
    close: float
    volume: float


class Place(NamedTuple):
    """Where a bar stands in its session.

    `minute` and `length` in minutes as in :class:`~sentio_rllib.market.sessions.Sessions`; `regular`: it lies inside
    the calendar's hours; `new_session`: it is the first of its session.
    """

    minute: int
    length: int
    regular: bool
    new_session: bool


def nanoseconds(stamp: Stamp) -> int:
    """Return the start of a minute in ns UTC.

    Raises
    ------
    BarsError
        The stamp is naive, no stamp, on no full minute, or outside the years 1990 .. 2100.
    """
    kinds = int | np.integer | np.datetime64 | datetime
    if isinstance(stamp, bool | np.timedelta64) or not isinstance(stamp, kinds):
        raise BarsError(f"timestamp {stamp!r} is no stamp: pass ns since 1970 in UTC, or an aware datetime")
    if isinstance(stamp, datetime):
        if stamp.tzinfo is None or stamp.utcoffset() is None:
            raise BarsError(f"timestamp {stamp} carries no time zone: pass an aware datetime, as in tzinfo=UTC")
        value = int((stamp - _EPOCH) // timedelta(microseconds=1)) * 1000
        value += getattr(stamp, "nanosecond", 0)  # pandas' stamps know them
    elif isinstance(stamp, np.datetime64):
        value = int(stamp.astype("datetime64[ns]").astype(np.int64))
    else:
        value = int(stamp)
    if not _FIRST <= value < _LAST:
        raise BarsError(f"timestamp {stamp!r} lies outside the years 1990 .. 2100: pass ns since 1970 in UTC")
    if value % MINUTE_NS:
        raise BarsError(f"timestamp {np.datetime64(value, 'ns')}Z is on no full minute: pass the start of the minute")
    return value


def check_bar(bar: Bar) -> tuple[int, tuple[float, float, float, float, float]]:
    """Return the stamp of a bar in ns UTC, and its values in the order of :data:`VALUES`.

    Raises
    ------
    BarsError
        It holds what no market has; one line for the first mistake.
    """
    if not isinstance(bar, Bar):
        raise BarsError(f"bar: {bar!r} is none; pass a Bar(timestamp, open, high, low, close, volume)")
    stamp = nanoseconds(bar.timestamp)
    values = [_number(bar, name, stamp) for name in VALUES]
    opening, high, low, close, volume = values
    wide = widened_range(*(np.array(price) for price in (opening, high, low, close)))  # as of a file's bars
    high, low = float(wide[0]), float(wide[1])
    mistake = None
    if min(values[:4]) <= 0.0:
        mistake = "a price is not positive"
    elif volume < 0.0:
        mistake = f"volume {volume:g} is negative"
    elif high < low:
        mistake = "high < low"
    elif max(opening, close) > high or min(opening, close) < low:
        mistake = "open or close lies outside low .. high"
    if mistake is not None:
        told = f"open {opening:g} high {high:g} low {low:g} close {close:g}"
        raise BarsError(f"bar {iso_minute(stamp)}: {mistake} ({told}): send it corrected, or leave it out")
    return stamp, (opening, high, low, close, volume)


def _number(bar: Bar, name: str, stamp: int) -> float:
    value = getattr(bar, name)
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise BarsError(f"bar {iso_minute(stamp)}: {name} is {value!r}, no finite number: send it corrected")
    return float(value)


def place(stamp: int, previous: int | None, calendar: str, hours: str) -> Place:
    """Return where the bar at `stamp` stands, by the rules that training used.

    Parameters
    ----------
    stamp, previous
        Starts in ns UTC of this bar and of the one before it; None for the first.
    calendar
        Exchange calendar.
    hours
        ``regular``: bars outside the calendar's sessions are refused; ``all``: they are taken.

    Raises
    ------
    BarsError
        The bar is not later than the one before, or outside the hours.
    """
    if previous is not None and stamp <= previous:
        what = "was there already" if stamp == previous else "comes late or out of order"
        raise BarsError(
            f"bar {iso_minute(stamp)} {what}, the last one taken is {iso_minute(previous)}: send each minute once, in "
            "the order of time"
        )
    if previous is not None and stamp - previous <= (CUT_MINUTES + 1) * MINUTE_NS:  # what most bars are
        for part in session_parts(stamp // DAY_NS, calendar):
            if part.start <= previous and stamp < part.stop:
                minute, length = (stamp - part.opened) // MINUTE_NS, (part.closed - part.opened) // MINUTE_NS
                return Place(minute, length, regular=True, new_session=False)
    stamps = [stamp] if previous is None else [previous, stamp]
    sessions, regular = assign_sessions(np.array(stamps, dtype=np.int64), calendar)
    if hours == "regular" and not regular[-1]:
        raise BarsError(
            f"bar {iso_minute(stamp)} lies outside the sessions of {calendar}, which are all that this policy was "
            "trained on: leave such bars out"
        )
    return Place(
        minute=int(sessions.minute[-1]),
        length=int(sessions.length[-1]),
        regular=bool(regular[-1]),
        new_session=len(sessions.labels) > 1,
    )
