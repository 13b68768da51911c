"""Text of stamps as wall times and zones, by one grammar that has to match in full: no stamp follows an example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sentio_rllib.errors import BarsError
from sentio_rllib.market.sessions import on_session_days

NOT_A_TIME = int(np.iinfo(np.int64).min)
_SECOND_NS = 1_000_000_000
_IMPOSSIBLE = 10**9
_FIRST_YEAR, _LAST_YEAR = 1900, 2200

_DATE = (
    r"(?:(?P<year>\d{4})(?:-(?P<month>\d{1,2})-|/(?P<month_s>\d{1,2})/|\.(?P<month_d>\d{1,2})\.)(?P<day>\d{1,2})"
    r"|(?P<compact>\d{8})"
    r"|(?P<first>\d{1,2})(?:-(?P<second>\d{1,2})-|/(?P<second_s>\d{1,2})/|\.(?P<second_d>\d{1,2})\.)(?P<last>\d{4}))"
)
_GAP = r"(?P<gap>(?:\.0+)? *[ ,] *|[TtD_]| *- *)?"
_CLOCK = (
    r"(?:(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<whole>\d{2})(?:[.,](?P<fraction>\d+))?)?"
    r"(?: *(?P<half>[AaPp])\.?[Mm]\b\.?)?"
    r"|(?P<digits>\d{1,6})(?:\.0+)?)"
)
_ZONE = r" *(?:(?:GMT|UTC)? *(?P<offset>[+-]\d{1,2}(?::?\d{2})?) *(?:\[[^\]]*\])?|(?P<zone>[A-Za-z][\w+/-]*))?"
_GRAMMAR = f"^{_DATE}{_GAP}{_CLOCK}{_ZONE}$"
_DATE_ALONE = f"^{_DATE}$"


@dataclass(frozen=True)
class WallTimes:
    """What the text of stamps says, row by row.

    Attributes
    ----------
    wall
        int64[T], ns since 1970 as the clock on the wall had them; ``NOT_A_TIME`` where the text is no date with a time.
    offset
        int64[T], seconds east of Greenwich; 0 where none is written.
    has_offset
        bool[T].
    zone
        object[T], the name or abbreviation of a zone; empty where none is written.
    notes
        How dates were read.
    """

    wall: NDArray[np.int64]
    offset: NDArray[np.int64]
    has_offset: NDArray[np.bool_]
    zone: NDArray[np.object_]
    notes: tuple[str, ...]


def read_wall_times(text: pa.ChunkedArray, *, calendar: str, date_order: str | None) -> WallTimes:
    """Read a column of trimmed text, null where there is none.

    Parameters
    ----------
    text
        A date (year first, ``YYYYMMDD``, or year last), a time of day (``9:30``, ``09:30:00.000``, ``9:30 AM``, or
        digits, of which leading zeros may be missing), and perhaps an offset or a zone.
    calendar
        Its session days settle whether 11/5/2019 is in May or November where one reading alone is possible.
    date_order
        ``mdy`` or ``dmy`` settles it otherwise.

    Raises
    ------
    BarsError
        No stamp is of a known format; dates can be read in two ways; digits can be hours and minutes as well as hours,
        minutes and seconds.
    """
    parts = _Parts(text)
    glued = ~parts.holds("gap") & ~parts.holds("compact")  # two figures of a day, read as a day and an hour
    if not (parts.matched & ~glued).any():
        raise _unknown_format(text)
    year, month, day, notes = _dates(parts, calendar, date_order)
    hour, minute, second, timed = _clocks(parts)
    # without a gap, or behind a hyphen, only padded digits are a time: 20240307-05 may be a date with an offset
    close = parts.lookup(lambda gap: gap.strip() == "-" or not gap, "gap") & parts.holds("digits")
    padded = parts.lookup(lambda digits: len(digits) in (4, 6), "digits")
    sound = parts.matched & timed & ~glued & (~close | padded)
    wall = _instants(year, month, day, (hour * 60 + minute) * 60 + second, sound)
    fraction = parts.lookup(lambda each: int(each[:9].ljust(9, "0")), "fraction").astype(np.int64)
    offset = parts.lookup(_offset_seconds, "offset").astype(np.int64)
    impossible = (wall == NOT_A_TIME) | (offset == _IMPOSSIBLE)
    wall = np.where(impossible, NOT_A_TIME, wall + fraction)
    return WallTimes(wall, offset, parts.holds("offset"), parts.text("zone"), notes)


class _Parts:
    """The named parts of the grammar as columns of text, empty where a part or the whole is absent."""

    def __init__(self, text: pa.ChunkedArray) -> None:
        parts = pc.extract_regex(text, _GRAMMAR)
        self._parts = parts.combine_chunks() if isinstance(parts, pa.ChunkedArray) else parts
        self.matched: NDArray[np.bool_] = pc.is_valid(self._parts).to_numpy(zero_copy_only=False)

    def lookup(self, function: Callable[[str], Any], *names: str) -> NDArray[Any]:
        """Return a function of the part, or of the one of several alternatives that is there, row by row.

        It is called once for each distinct text.
        """
        fields = [pc.fill_null(pc.struct_field(self._parts, name), "") for name in names]
        joined = fields[0] if len(fields) == 1 else pc.binary_join_element_wise(*fields, "")
        encoded = joined.dictionary_encode()
        distinct = np.array([function(each) for each in encoded.dictionary.to_pylist()])
        return np.asarray(distinct[encoded.indices.to_numpy(zero_copy_only=False)])

    def text(self, name: str) -> NDArray[np.object_]:
        """Return the part as object[T]."""
        return np.asarray(self.lookup(str, name), dtype=object)

    def distinct(self, name: str) -> list[str]:
        """Return the distinct texts of the part, without the empty one."""
        return [each for each in pc.unique(pc.struct_field(self._parts, name)).to_pylist() if each]

    def number(self, *names: str) -> NDArray[np.int64]:
        """Return the part as int64[T], 0 where it is absent."""
        return self.lookup(lambda each: int(each or 0), *names).astype(np.int64)

    def holds(self, *names: str) -> NDArray[np.bool_]:
        """Tell where the part is there, bool[T]."""
        return self.lookup(bool, *names)


def _dates(
    parts: _Parts, calendar: str, date_order: str | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Year, month and day, int64[T] each, and a note where their order was settled."""
    compact = parts.number("compact")
    year = parts.number("year") + compact // 10_000 + parts.number("last")
    month = parts.number("month", "month_s", "month_d") + compact // 100 % 100
    day = parts.number("day") + compact % 100
    first, second = parts.number("first"), parts.number("second", "second_s", "second_d")
    dotted = parts.holds("second_d")  # 5.11.2019 is a day before a month wherever it is written
    month, day = np.where(dotted, second, month), np.where(dotted, first, day)
    doubtful = (first > 0) & ~dotted
    if not doubtful.any():
        return year, month, day, ()
    notes: tuple[str, ...] = ()
    if date_order is None:
        distinct = np.unique(np.stack((year, first, second), axis=1)[doubtful], axis=0)
        date_order = _settle_date_order(distinct, calendar)
        notes = (f"dates read as {date_order} (m month, d day, y year), the only reading that fits them all",)
    in_order = (first, second) if date_order == "mdy" else (second, first)
    return year, np.where(doubtful, in_order[0], month), np.where(doubtful, in_order[1], day), notes


def _settle_date_order(dates: NDArray[np.int64], calendar: str) -> str:
    """Tell month/day from day/month for distinct dates int64[K, 3] of (year, first, second), else refuse.

    The reading that is no date for some, or that falls on days without a session, is ruled out.
    """
    year, first, second = dates.T
    if (first == second).all():
        return "mdy"
    midnight = np.zeros_like(year)
    all_of_them = np.ones(year.size, dtype=bool)
    readings = {
        "mdy": _instants(year, first, second, midnight, all_of_them),
        "dmy": _instants(year, second, first, midnight, all_of_them),
    }
    absent = {order: int(np.sum(reading == NOT_A_TIME)) for order, reading in readings.items()}
    possible = [order for order in readings if absent[order] == min(absent.values())]
    if len(possible) > 1:
        days = {order: readings[order][readings[order] != NOT_A_TIME].astype("datetime64[ns]") for order in possible}
        days = {order: each.astype("datetime64[D]") for order, each in days.items()}
        possible = [each for each in possible if days[each].size and on_session_days(days[each], calendar).all()]
    if len(possible) != 1:
        sample = f"{first[0]}/{second[0]}/{year[0]}"
        raise BarsError(
            f"dates like {sample!r} can be month/day or day/month: pass date_order='mdy' or date_order='dmy'"
        )
    return possible[0]


def _clocks(
    parts: _Parts,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Hour, minute and second, int64[T] each, and which rows hold a time of day."""
    hour, minute, second = parts.number("hour"), parts.number("minute"), parts.number("whole")
    twelve, afternoon = parts.holds("half"), parts.lookup(lambda half: half in "Pp" and bool(half), "half")
    sound = ~twelve | ((hour >= 1) & (hour <= 12))
    hour = np.where(twelve, hour % 12 + 12 * afternoon, hour)
    bare = parts.holds("digits")
    if bare.any():
        number = parts.number("digits")
        if _with_seconds(parts.distinct("digits")):
            number, seconds = number // 100, number % 100
            second = np.where(bare, seconds, second)
        hour, minute = np.where(bare, number // 100, hour), np.where(bare, number % 100, minute)
    return hour, minute, second, sound & (hour < 24) & (minute < 60) & (second < 60)


def _with_seconds(times: list[str]) -> bool:
    """Tell HHMMSS from HHMM for distinct times in digits, whose leading zeros may be missing; refuse what fits both.

    Five or six digits are hours, minutes and seconds, so that a shorter number beside them is a time soon after
    midnight; one of four digits that is padded, or that stands beside six alone, is more likely of another layout.
    """
    widths = {len(time) for time in times}
    if max(widths) <= 4:
        minutes = [int(time) for time in times]
        if len(times) > 2 and max(minutes) > 0 and not any(each % 100 for each in minutes):
            raise BarsError(_two_ways(times, "are whole hours as HHMM and whole minutes as HHMMSS"))
        return False
    shorter = [time for time in times if len(time) < 6]
    if any(time.startswith("0") and len(time) > 1 for time in shorter):
        raise BarsError(_two_ways(times, "mix padded times of different widths"))
    if {4, 6} <= widths and 5 not in widths:
        raise BarsError(_two_ways(times, "mix times of four and of six digits"))
    return True


def _two_ways(times: list[str], why: str) -> str:
    sample = ", ".join(sorted(times, key=lambda time: (len(time), time))[:: max(1, len(times) // 4)][:5])
    return f"times of day like {sample} {why}: bring HH:MM:SS, or digits of one width"


def _instants(
    year: NDArray[np.int64],
    month: NDArray[np.int64],
    day: NDArray[np.int64],
    seconds: NDArray[np.int64],
    sound: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Ns since 1970 of a calendar date and seconds of the day, ``NOT_A_TIME`` where there is no such date."""
    sound = sound & (year >= _FIRST_YEAR) & (year < _LAST_YEAR) & (month >= 1) & (month <= 12) & (day >= 1)
    months = np.where(sound, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    last = ((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.int64)
    sound &= day <= last
    days = months.astype("datetime64[D]").astype(np.int64) + day - 1
    return np.where(sound, (days * 86_400 + seconds) * _SECOND_NS, NOT_A_TIME)


def _offset_seconds(offset: str) -> int:
    """Seconds east of Greenwich of ``+05:30``, ``-0500`` or ``-05``; 0 of nothing."""
    if not offset:
        return 0
    digits = offset[1:].replace(":", "")
    hours, minutes = (int(digits), 0) if len(digits) <= 2 else (int(digits[:-2]), int(digits[-2:]))
    if hours > 15 or minutes >= 60:
        return _IMPOSSIBLE
    return (-1 if offset[0] == "-" else 1) * (hours * 60 + minutes) * 60


def _unknown_format(text: pa.ChunkedArray) -> BarsError:
    present = text.drop_null()
    sample = str(present[0].as_py()) if len(present) else ""
    if sample and pc.match_substring_regex(pa.array([sample]), _DATE_ALONE)[0].as_py():
        return BarsError(
            f"stamps like {sample!r} hold a date without a time of day: bring 1-minute bars, not daily ones"
        )
    return BarsError(
        f"stamps like {sample!r} are of no known format: bring YYYY-MM-DD HH:MM:SS or an epoch, "
        "or pass columns if this is not the column of stamps"
    )
