"""Trading sessions: which session of the exchange calendar each bar belongs to, and where the tape is cut."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import exchange_calendars
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sentio_rllib.errors import BarsError
from sentio_rllib.market.calendars import check_calendar

MINUTE_NS = 60_000_000_000
DAY_NS = 24 * 60 * MINUTE_NS
CUT_MINUTES = 60
"""More consecutive missing minutes than this inside a session cut the tape."""

_SESSIONS_PER_YEAR = {"XNYS": 252, "24/7": 365}
_SUPPORTED_YEARS = (1990, 2100)
_REFERENCE_YEARS = (2015, 2024)  # where the sessions of any other calendar are counted


@dataclass(frozen=True)
class Sessions:
    """The sessions of T bars, S of them present.

    A bar outside the calendar's hours (kept with ``hours="all"`` only) belongs to the session of its local
    date, or else to the session that opened last; its minute is clipped into the session.

    Attributes
    ----------
    calendar
        Name of the exchange calendar, for instance ``XNYS`` or ``24/7``.
    session
        int32[T], ordinal of the bar's session among the sessions present, ascending from 0.
    minute
        int32[T], minutes since the session's open, 0 .. length - 1.
    length
        int32[T], minutes from the open to the close of the bar's session (390; half day 210; 24/7: 1440).
    last
        bool[T], whether the bar is the last one present of its session.
    labels
        datetime64[D][S], dates of the sessions present.
    cuts
        int64[C], bar indices > 0 where a new stretch starts: a session of the calendar is missing in between,
        or more than 60 consecutive minutes of one session are.
    missing_minutes, regular_minutes
        Minutes without a bar, and minutes in all, over the sessions that have a regular bar.
    sessions_per_year
        252 for XNYS, 365 for 24/7, else counted from the calendar.
    regular
        bool[T], whether the bar lies inside the calendar's hours.
    session_minutes
        int32[S], trading minutes of each session (a lunch break does not count).
    """

    calendar: str
    session: NDArray[np.int32]
    minute: NDArray[np.int32]
    length: NDArray[np.int32]
    last: NDArray[np.bool_]
    labels: NDArray[np.datetime64]
    cuts: NDArray[np.int64]
    missing_minutes: int
    regular_minutes: int
    sessions_per_year: int
    regular: NDArray[np.bool_]
    session_minutes: NDArray[np.int32]

    def slice(self, start: int, stop: int) -> Sessions:
        """Sessions of the bars ``start .. stop - 1``, with ordinals and cuts counted from `start`.

        The last bar of the slice is the last one present of its session, and a session that the slice
        divides counts its other minutes as missing: the same as for a file that holds these bars only.
        """
        session = self.session[start:stop]
        first = int(session[0]) if session.size else 0
        stop_session = int(session[-1]) + 1 if session.size else 0
        session_minutes = self.session_minutes[first:stop_session]
        session = session - np.int32(first)
        regular = self.regular[start:stop]
        cuts = self.cuts[(self.cuts > start) & (self.cuts < stop)] - start
        missing, expected = _count_missing(session, regular, session_minutes)
        return Sessions(
            calendar=self.calendar,
            session=session,
            minute=self.minute[start:stop],
            length=self.length[start:stop],
            last=_last_of_session(session),
            labels=self.labels[first:stop_session],
            cuts=cuts,
            missing_minutes=missing,
            regular_minutes=expected,
            sessions_per_year=self.sessions_per_year,
            regular=regular,
            session_minutes=session_minutes,
        )


@dataclass(frozen=True)
class _Schedule:
    """Sessions of a calendar over a range of dates; instants int64[N] in ns UTC, breaks equal when absent."""

    labels: NDArray[np.datetime64]
    opens: NDArray[np.int64]
    closes: NDArray[np.int64]
    break_starts: NDArray[np.int64]
    break_ends: NDArray[np.int64]
    zone: str

    def trading_minutes(self) -> NDArray[np.int64]:
        """int64[N], minutes of each session without its break."""
        return _minutes(self.closes - self.opens - (self.break_ends - self.break_starts))


def assign_sessions(timestamp: NDArray[np.int64], calendar: str = "XNYS") -> tuple[Sessions, NDArray[np.bool_]]:
    """Assign every bar to a session of the calendar.

    Parameters
    ----------
    timestamp
        int64[T], start of each bar in ns UTC, strictly ascending.
    calendar
        A calendar of `exchange_calendars`, membership with ``side="left"``: the minute of the open belongs to
        the session, the minute of the close does not.

    Returns
    -------
    sessions, regular
        The sessions, and bool[T], False for a bar outside the calendar's sessions.

    Raises
    ------
    BarsError
        Unknown calendar; stamps that are empty, not ascending, or outside the years that the calendar knows.
    """
    timestamp = np.asarray(timestamp)
    if timestamp.ndim != 1 or timestamp.dtype != np.int64:
        raise TypeError(f"timestamp must be int64[T], not {timestamp.dtype} of shape {timestamp.shape}")
    if timestamp.size == 0:
        raise BarsError("no bars: at least one is needed to assign sessions")
    if np.any(np.diff(timestamp) <= 0):
        raise BarsError("the stamps are not strictly ascending: sort them and remove duplicates first (fix)")
    schedule = _schedule_around(calendar, int(timestamp[0]), int(timestamp[-1]))
    index, regular = _locate(timestamp, schedule)
    ordinals = np.cumsum(np.concatenate(([False], np.diff(index) > 0)), dtype=np.int32)
    present = index[np.concatenate(([True], np.diff(index) > 0))]
    length = _minutes(schedule.closes - schedule.opens)[index]
    minute = np.clip(_minutes(timestamp - schedule.opens[index]), 0, length - 1)
    session_minutes = schedule.trading_minutes()[present].astype(np.int32)
    missing, expected = _count_missing(ordinals, regular, session_minutes)
    sessions = Sessions(
        calendar=calendar,
        session=ordinals,
        minute=minute.astype(np.int32),
        length=length.astype(np.int32),
        last=_last_of_session(ordinals),
        labels=schedule.labels[present],
        cuts=_find_cuts(timestamp, index, regular, schedule),
        missing_minutes=missing,
        regular_minutes=expected,
        sessions_per_year=_sessions_per_year(calendar),
        regular=regular,
        session_minutes=session_minutes,
    )
    return sessions, regular


def missing_before(timestamp: NDArray[np.int64], calendar: str = "XNYS") -> NDArray[np.int32]:
    """Count the trading minutes without a bar between each bar and the one before it in its session.

    int32[T]; for the first bar of a session, the minutes since the open. `timestamp` as in
    :func:`assign_sessions`.
    """
    schedule = _schedule_around(calendar, int(timestamp[0]), int(timestamp[-1]))
    index, regular = _locate(timestamp, schedule)
    before, after, _ = _positions(timestamp, index, regular, schedule)
    missing = before.copy()
    same = index[1:] == index[:-1]
    missing[1:] -= np.where(same, after[:-1], 0)
    return missing.astype(np.int32)


class SessionPart(NamedTuple):
    """A stretch of a session without a break, from `start` to before `stop`, of the session `opened` to `closed`.

    All in ns UTC.
    """

    start: int
    stop: int
    opened: int
    closed: int


@lru_cache(maxsize=64)
def session_parts(day: int, calendar: str = "XNYS") -> tuple[SessionPart, ...]:
    """Return the parts of the sessions that have minutes on a day: one of each, or two around its break.

    Parameters
    ----------
    day
        Days since 1970 in UTC.
    calendar
        As in :func:`assign_sessions`.
    """
    first = day * DAY_NS
    last = first + DAY_NS - 1
    schedule = _schedule_around(calendar, first, last)
    today = (schedule.opens <= last) & (schedule.closes > first)
    columns = (schedule.opens, schedule.break_starts, schedule.break_ends, schedule.closes)
    parts = []
    for opened, break_start, break_end, closed in zip(*(column[today].tolist() for column in columns), strict=True):
        parts += [SessionPart(opened, break_start, opened, closed), SessionPart(break_end, closed, opened, closed)]
    return tuple(part for part in parts if part.start < part.stop)


def on_session_days(dates: NDArray[np.datetime64], calendar: str = "XNYS") -> NDArray[np.bool_]:
    """Tell which dates, datetime64[D], are session days of the calendar."""
    instants = dates.astype("datetime64[ns]").astype(np.int64)
    schedule = _schedule_around(calendar, int(instants.min()), int(instants.max()))
    return np.isin(dates, schedule.labels)


def load_calendar(calendar: str) -> None:
    """Load the calendar, which takes up to a few seconds, so that no later bar has to wait for it.

    Raises
    ------
    BarsError
        It is unknown.
    """
    first, last = _known_years(calendar)
    _load_schedule(calendar, f"{first}-01-01", f"{last}-12-31")
    _sessions_per_year(calendar)


def _locate(timestamp: NDArray[np.int64], schedule: _Schedule) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Index into the schedule int64[T] and regular bool[T]."""
    opened = np.searchsorted(schedule.opens, timestamp, side="right") - 1
    index = np.clip(opened, 0, None)
    in_break = (timestamp >= schedule.break_starts[index]) & (timestamp < schedule.break_ends[index])
    regular = (opened >= 0) & (timestamp < schedule.closes[index]) & ~in_break
    off = np.flatnonzero(~regular & ~in_break)
    if off.size:
        dates = _local_dates(timestamp[off], schedule.zone)
        following = np.clip(opened[off] + 1, 0, schedule.labels.size - 1)
        index[off] = np.where(schedule.labels[following] == dates, following, index[off])
    return index, regular


def _positions(
    timestamp: NDArray[np.int64],
    index: NDArray[np.int64],
    regular: NDArray[np.bool_],
    schedule: _Schedule,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Trading minutes of its session before each bar, up to its end, and in all; int64[T] each."""
    total = schedule.trading_minutes()[index]
    break_start, break_end = schedule.break_starts[index], schedule.break_ends[index]
    elapsed = _minutes(timestamp - schedule.opens[index])
    elapsed -= _minutes(np.clip(timestamp, break_start, break_end) - break_start)
    before = np.clip(elapsed, 0, total)
    return before, np.clip(before + regular, 0, total), total


def _find_cuts(
    timestamp: NDArray[np.int64],
    index: NDArray[np.int64],
    regular: NDArray[np.bool_],
    schedule: _Schedule,
) -> NDArray[np.int64]:
    """Bars before which a session, or more than ``CUT_MINUTES`` minutes of one, are missing."""
    before, after, total = _positions(timestamp, index, regular, schedule)
    same = index[1:] == index[:-1]
    joined = schedule.closes[index[:-1]] == schedule.opens[index[1:]]
    tail, head = (total - after)[:-1], before[1:]
    across = np.where(joined, tail + head, np.maximum(tail, head))
    run = np.where(same, before[1:] - after[:-1], across)
    return np.flatnonzero((run > CUT_MINUTES) | (np.diff(index) > 1)) + 1


def _count_missing(
    session: NDArray[np.int32], regular: NDArray[np.bool_], session_minutes: NDArray[np.int32]
) -> tuple[int, int]:
    """Missing and expected minutes over the sessions that have a regular bar."""
    counts = np.bincount(session[regular], minlength=session_minutes.size)
    present = counts > 0
    expected = int(session_minutes[present].sum())
    return expected - int(counts.sum()), expected


def _last_of_session(session: NDArray[np.int32]) -> NDArray[np.bool_]:
    last = np.ones(session.size, dtype=bool)
    last[:-1] = session[1:] != session[:-1]
    return last


def _minutes(duration_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(duration_ns // MINUTE_NS, dtype=np.int64)


def _local_dates(timestamp: NDArray[np.int64], zone: str) -> NDArray[np.datetime64]:
    local = pd.DatetimeIndex(timestamp.view("datetime64[ns]")).tz_localize("UTC").tz_convert(zone)
    return np.asarray(local.tz_localize(None).to_numpy().astype("datetime64[D]"))


def _schedule_around(calendar: str, first_ns: int, last_ns: int) -> _Schedule:
    """The schedule over the years of the bars, with a fortnight on both sides.

    Cut from that over all years that the calendar knows, which is loaded once, unless the bars go beyond them.
    """
    margin = 14 * DAY_NS
    first, last = (pd.Timestamp(value, unit="ns") for value in (first_ns - margin, last_ns + margin))
    low, high = _SUPPORTED_YEARS
    if first.year < low - 1 or last.year > high:
        raise BarsError(
            f"bars from {first.date()} to {last.date()} lie outside the years {low} .. {high}: "
            "check the unit of the stamps"
        )
    years = _known_years(calendar)
    if not (years[0] <= first.year and last.year <= years[1]):
        return _load_schedule(calendar, f"{first.year}-01-01", f"{last.year}-12-31")
    schedule = _load_schedule(calendar, f"{years[0]}-01-01", f"{years[1]}-12-31")
    edges = np.array([f"{first.year}-01-01", f"{last.year + 1}-01-01"], dtype="datetime64[D]")
    start, stop = np.searchsorted(schedule.labels, edges)
    columns = ("labels", "opens", "closes", "break_starts", "break_ends")
    return replace(schedule, **{name: getattr(schedule, name)[start:stop] for name in columns})


@lru_cache(maxsize=16)
def _known_years(calendar: str) -> tuple[int, int]:
    """First and last of the supported years that the calendar knows whole."""
    low, high = _SUPPORTED_YEARS[0] - 1, _SUPPORTED_YEARS[1]
    exchange = _open_calendar(calendar, f"{_REFERENCE_YEARS[1]}-01-01", f"{_REFERENCE_YEARS[1]}-12-31")
    first, last = exchange.bound_min(), exchange.bound_max()
    if first is not None:
        low = max(low, first.year + ((first.month, first.day) > (1, 1)))
    if last is not None:
        high = min(high, last.year - ((last.month, last.day) < (12, 31)))
    return low, high


@lru_cache(maxsize=16)
def _load_schedule(calendar: str, first: str, last: str) -> _Schedule:
    exchange = _open_calendar(calendar, first, last)
    opens, closes = (_instants(series) for series in (exchange.opens, exchange.closes))
    break_starts, break_ends = (_instants(s) for s in (exchange.break_starts, exchange.break_ends))
    without = break_starts == np.iinfo(np.int64).min  # NaT
    return _Schedule(
        labels=exchange.sessions.to_numpy().astype("datetime64[D]"),
        opens=opens,
        closes=closes,
        break_starts=np.where(without, closes, break_starts),
        break_ends=np.where(without, closes, break_ends),
        zone=str(exchange.tz),
    )


def _open_calendar(calendar: str, first: str, last: str) -> Any:
    check_calendar(calendar)
    try:
        with warnings.catch_warnings():
            # exchange_calendars 4.13 uses what pandas 3.1 deprecates; its results are right
            warnings.simplefilter("ignore", pd.errors.Pandas4Warning)
            return exchange_calendars.get_calendar(calendar, start=first, end=last, side="left")
    except (ValueError, exchange_calendars.errors.CalendarError) as error:
        reason = " ".join(str(error).split())
        raise BarsError(f"calendar {calendar!r} does not cover {first} .. {last}: {reason}") from error


def _instants(series: Any) -> NDArray[np.int64]:
    """Instants of a series of the calendar as int64 ns UTC, NaT as the smallest int64."""
    index = pd.DatetimeIndex(series)
    naive = index.tz_convert("UTC").tz_localize(None) if index.tz is not None else index
    return np.asarray(naive.to_numpy().astype("datetime64[ns]").astype(np.int64))


@lru_cache(maxsize=16)
def _sessions_per_year(calendar: str) -> int:
    if calendar in _SESSIONS_PER_YEAR:
        return _SESSIONS_PER_YEAR[calendar]
    first, last = _REFERENCE_YEARS
    sessions = _open_calendar(calendar, f"{first}-01-01", f"{last}-12-31").sessions
    return round(len(sessions) / (last - first + 1))
