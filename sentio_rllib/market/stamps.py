"""Stamps of a bars file as instants in UTC: epochs, text, time zones and daylight saving, nothing guessed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sentio_rllib.errors import BarsError
from sentio_rllib.market.calendars import check_zone
from sentio_rllib.market.checks import Fault
from sentio_rllib.market.wall_times import NOT_A_TIME, WallTimes, read_wall_times

__all__ = ["NOT_A_TIME", "Stamps", "read_stamps"]

_BLANKS = r"[\s\x{00a0}\x{202f}]+"
_EPOCH_UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_EPOCH_LOW = pd.Timestamp("1990-01-01").value
_EPOCH_HIGH = pd.Timestamp("2101-01-01").value
_ABBREVIATIONS = {
    name: hours
    for hours, names in {
        0: "Z UTC GMT WET", 1: "CET WEST BST", 2: "CEST EET", 3: "EEST MSK", 8: "HKT SGT AWST", 9: "JST KST",
        10: "AEST", 11: "AEDT", 12: "NZST", 13: "NZDT", -3: "BRT", -4: "EDT AST", -5: "EST CDT", -6: "CST MDT",
        -7: "MST PDT", -8: "PST", -10: "HST",
    }.items()
    for name in names.split()
}  # fmt: skip
"""Hours east of Greenwich. An abbreviation is an offset, also out of season; those that may be several are absent."""
_SHORT_ZONES = {
    "ET": "America/New_York", "CT": "America/Chicago", "MT": "America/Denver", "PT": "America/Los_Angeles",
}  # fmt: skip


@dataclass(frozen=True)
class Stamps:
    """Stamps in ns UTC, int64[T], ``NOT_A_TIME`` where there is none, how they were read, and what is wrong."""

    timestamp: NDArray[np.int64]
    notes: tuple[str, ...] = ()
    mistakes: tuple[Fault, ...] = ()


def read_stamps(
    column: pa.ChunkedArray, *, tz: str | None, calendar: str = "XNYS", date_order: str | None = None
) -> Stamps:
    """Turn a column of stamps into instants.

    Parameters
    ----------
    column
        Timestamps with or without a zone, epochs in s, ms, us or ns (told by their size; 1990 .. 2100), text.
    tz
        Zone of naive stamps; without one they are refused. Not used where the stamps are instants already.
    calendar
        Tells 5 November from 11 May where only one of the two readings falls on session days throughout.
    date_order
        ``mdy`` or ``dmy`` for dates such as 11/5/2019.

    Raises
    ------
    BarsError
        The stamps cannot be known for sure: naive without `tz`, an unknown epoch or text format, dates that
        can be read in two ways.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return read_stamps(column.cast(kind.value_type), tz=tz, calendar=calendar, date_order=date_order)
    if pa.types.is_timestamp(kind):
        timestamp = _to_nanoseconds(column)
        absent = _absent(timestamp, None)
        if kind.tz is None:
            stamps = _localise(timestamp, tz)
            return replace(stamps, mistakes=(*absent, *stamps.mistakes))
        return Stamps(timestamp, _unused(tz, f"the stamps carry their zone ({kind.tz})"), absent)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        digits = column.cast(pa.string()) if pa.types.is_integer(kind) else None
        if digits is None or not _of_digits(digits):
            return _from_epoch(column, tz)
        column = digits
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise BarsError(f"the column of stamps holds {kind}: timestamps, epochs or text with date and time are needed")
    text = pc.utf8_trim_whitespace(pc.replace_substring_regex(column.cast(pa.string()), _BLANKS, " "))
    text = pc.if_else(pc.equal(text, ""), None, text)
    numbers = None if _of_digits(text) else _as_numbers(text)
    return _from_text(text, tz, calendar, date_order) if numbers is None else _from_epoch(numbers, tz)


def _as_numbers(text: pa.ChunkedArray) -> pa.ChunkedArray | None:
    for numeric in (pa.int64(), pa.float64()):
        try:
            return pc.cast(text, numeric)
        except pa.ArrowInvalid:
            continue
    return None


def _of_digits(text: pa.ChunkedArray) -> bool:
    """Tell whether every stamp is a date and a time in 12 or 14 digits, as 20240307093000."""
    matches = pc.match_substring_regex(text, r"^(19|20)\d{6}([0-2]\d[0-5]\d)([0-5]\d)?$")
    return bool(pc.all(matches).as_py())


def _to_nanoseconds(column: pa.ChunkedArray) -> NDArray[np.int64]:
    try:
        nanoseconds = pc.cast(column, pa.timestamp("ns", column.type.tz)).cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise BarsError(f"stamps lie outside the years 1990 .. 2100: {error}") from error
    return np.array(pc.fill_null(nanoseconds, NOT_A_TIME).to_numpy(), dtype=np.int64)


def _unused(tz: str | None, why: str) -> tuple[str, ...]:
    return (f"tz {tz} was not needed: {why}",) if tz is not None else ()


def _from_epoch(column: pa.ChunkedArray, tz: str | None) -> Stamps:
    present = pc.is_valid(column).to_numpy()
    exact = pa.types.is_integer(column.type)
    if exact:
        values = np.array(pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy())
    else:
        values = np.array(pc.cast(column, pa.float64()).to_numpy())
        present &= np.isfinite(values)
    if not present.any():
        raise BarsError("the column of stamps is empty: a stamp for every bar is needed")
    low, high = values[present].min(), values[present].max()
    for unit, scale in _EPOCH_UNITS.items():
        if low >= _EPOCH_LOW // scale and high < _EPOCH_HIGH // scale:
            timestamp = np.full(values.size, NOT_A_TIME, dtype=np.int64)
            scaled = values[present] * scale
            timestamp[present] = scaled if exact else np.rint(scaled)
            notes = (f"stamps read as epoch in {unit}", *_unused(tz, "an epoch is in UTC"))
            return Stamps(timestamp, notes, _absent(timestamp, None))
    raise BarsError(
        f"stamps {low} .. {high} are no epoch in s, ms, us or ns between 1990 and 2100: "
        "bring stamps of one unit, or pass columns if this is not the column of stamps"
    )


def _absent(timestamp: NDArray[np.int64], text: pa.ChunkedArray | None) -> tuple[Fault, ...]:
    rows = np.flatnonzero(timestamp == NOT_A_TIME)
    if not rows.size:
        return ()
    bad_text = [] if text is None else [value for value in text.take(pa.array(rows)).to_pylist() if value]
    sample = f" (like {bad_text[0]!r})" if bad_text else ""
    what = f"the stamp is absent or unreadable{sample}"
    return (Fault(what, rows, "correct or remove these rows in the file, or pass skip for lines that are none"),)


def _from_text(text: pa.ChunkedArray, tz: str | None, calendar: str, date_order: str | None) -> Stamps:
    times = read_wall_times(text, calendar=calendar, date_order=date_order)
    present = times.wall != NOT_A_TIME
    absent = _absent(times.wall, text)
    if not present.any():
        return Stamps(times.wall, times.notes, absent)
    zoned = present & (times.has_offset | (times.zone != ""))
    if not zoned.any():
        stamps = _localise(times.wall, tz)
        return Stamps(stamps.timestamp, (*times.notes, *stamps.notes), (*absent, *stamps.mistakes))
    timestamp, notes, mistakes = _with_zones(times, zoned)
    bare = np.flatnonzero(present & ~zoned)
    if bare.size:
        mistakes = (*mistakes, Fault("the stamp lacks the zone that others carry", bare, "add it"))
    return Stamps(timestamp, (*times.notes, *notes, *_unused(tz, "the stamps carry their zone")), (*absent, *mistakes))


def _with_zones(
    times: WallTimes, zoned: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[Fault, ...]]:
    """Instants of stamps that carry an offset, an abbreviation or the name of a zone each."""
    shift = times.offset.copy()
    timestamp = np.where(zoned, times.wall, NOT_A_TIME)
    notes: list[str] = []
    mistakes: list[Fault] = []
    for zone in sorted(set(times.zone[zoned]) - {""}):
        rows = zoned & (times.zone == zone)
        if zone.upper() in _ABBREVIATIONS:
            hours = _ABBREVIATIONS[zone.upper()]
            shift[rows] = hours * 3600
            notes += [f"{zone} read as UTC{hours:+03d}:00"] if hours else []
            continue
        stamps = _localise(np.where(rows, times.wall, NOT_A_TIME), _zone_name(zone))
        timestamp[rows] = stamps.timestamp[rows]
        notes += [f"stamps that name {zone} read so"]
        mistakes += stamps.mistakes
    by_shift = zoned & (times.has_offset | np.isin(np.char.upper(times.zone.astype(str)), list(_ABBREVIATIONS)))
    timestamp[by_shift] = times.wall[by_shift] - shift[by_shift] * 1_000_000_000
    return timestamp, tuple(notes), tuple(mistakes)


def _zone_name(zone: str) -> str:
    name = _SHORT_ZONES.get(zone.upper(), zone)
    try:
        check_zone(name)
    except BarsError:
        raise BarsError(
            f"stamps end in {zone!r}, which is no zone or may be several: bring an offset such as -05:00 in its place, "
            "or take it out and pass tz"
        ) from None
    return name


def _localise(naive: NDArray[np.int64], tz: str | None) -> Stamps:
    """Place naive wall times in `tz`; times that a clock change makes absent or double are mistakes."""
    index = pd.DatetimeIndex(naive.view("datetime64[ns]"))
    present = ~np.asarray(index.isna())
    if tz is None:
        first = f" (the first is {index[int(np.argmax(present))]})" if present.any() else ""
        raise BarsError(
            f"the stamps{first} carry no time zone: pass tz, for instance tz='America/New_York' or tz='UTC'"
        )
    check_zone(tz)
    placed = index.tz_localize(tz, ambiguous="NaT", nonexistent="NaT")
    doubtful = present & np.asarray(placed.isna())
    if doubtful.any():
        placed, doubtful = _infer_by_order(index, tz, placed, present)
    instants = placed.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ns]")
    timestamp = np.array(instants.astype(np.int64))
    mistakes: tuple[Fault, ...] = ()
    if doubtful.any():
        rows = np.flatnonzero(doubtful)
        what = f"the time is absent or twice in {tz} (clock change; the first is {index[int(rows[0])]})"
        mistakes = (Fault(what, rows, "bring these stamps with an offset or pass another tz"),)
    return Stamps(timestamp, (f"naive stamps read as {tz}",), mistakes)


def _infer_by_order(
    index: pd.DatetimeIndex, tz: str, placed: pd.DatetimeIndex, present: NDArray[np.bool_]
) -> tuple[pd.DatetimeIndex, NDArray[np.bool_]]:
    """Tell the two passes of a repeated hour apart where the file holds both in order."""
    with contextlib.suppress(ValueError):  # raised where the order does not tell them apart
        placed = index.tz_localize(tz, ambiguous="infer", nonexistent="NaT")
    return placed, present & np.asarray(placed.isna())
