"""Stamps of a bars file as instants in UTC: epochs, text, time zones and daylight saving, nothing guessed."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sentio_rllib.errors import BarsError
from sentio_rllib.market.calendars import check_zone
from sentio_rllib.market.checks import finding
from sentio_rllib.market.sessions import on_session_days

NOT_A_TIME = np.iinfo(np.int64).min

_EPOCH_UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_EPOCH_LOW = pd.Timestamp("1990-01-01").value
_EPOCH_HIGH = pd.Timestamp("2101-01-01").value
_OFFSET = r":\d{2}([.,]\d+)?\s*(Z|z|UTC|GMT|[+-]\d{2}:?\d{2})$"
_TIME_FORMATS = (
    (r"\d{1,2}:\d{2}", "%H:%M"),
    (r"\d{1,2}:\d{2}:\d{2}", "%H:%M:%S"),
    (r"\d{1,2}:\d{2}:\d{2}\.\d+", "%H:%M:%S.%f"),
    (r"\d{1,2}:\d{2} [AaPp][Mm]", "%I:%M %p"),
    (r"\d{1,2}:\d{2}:\d{2} [AaPp][Mm]", "%I:%M:%S %p"),
    (r"\d{6}", "%H%M%S"),
    (r"\d{4}", "%H%M"),
)
_DATE_FORMATS = (
    (r"\d{4}/\d{1,2}/\d{1,2}", "%Y/%m/%d"),
    (r"\d{4}\.\d{1,2}\.\d{1,2}", "%Y.%m.%d"),
    (r"\d{8}", "%Y%m%d"),
    (r"\d{1,2}\.\d{1,2}\.\d{4}", "%d.%m.%Y"),
)
_DATE_ORDERS = {"mdy": ("%m", "%d", "%Y"), "dmy": ("%d", "%m", "%Y")}
_DOUBTFUL_DATE = r"\d{1,2}([/-])\d{1,2}\1\d{4}"


@dataclass(frozen=True)
class Stamps:
    """Stamps in ns UTC, int64[T], ``NOT_A_TIME`` where there is none, and how they were read."""

    timestamp: NDArray[np.int64]
    notes: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()


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
        return _from_epoch(column, tz)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        text = pc.utf8_trim_whitespace(column)
        text = pc.if_else(pc.equal(text, ""), None, text)
        for numeric in (pa.int64(), pa.float64()):
            try:
                return _from_epoch(pc.cast(text, numeric), tz)
            except pa.ArrowInvalid:
                continue
        return _from_text(text, tz, calendar, date_order)
    raise BarsError(f"the column of stamps holds {kind}: timestamps, epochs or text with date and time are needed")


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


def _absent(timestamp: NDArray[np.int64], text: pa.ChunkedArray | None) -> tuple[str, ...]:
    rows = np.flatnonzero(timestamp == NOT_A_TIME)
    if not rows.size:
        return ()
    bad_text = [] if text is None else [value for value in text.take(pa.array(rows)).to_pylist() if value]
    sample = f" (like {bad_text[0]!r})" if bad_text else ""
    what = f"the stamp is absent or unreadable{sample}"
    return (finding(what, rows, timestamp.size, "correct or remove these rows in the file"),)


def _from_text(text: pa.ChunkedArray, tz: str | None, calendar: str, date_order: str | None) -> Stamps:
    with_offset = pc.fill_null(pc.match_substring_regex(text, _OFFSET), False).to_numpy()
    if with_offset.any():
        bare = np.flatnonzero(~with_offset)
        in_numbers = pc.replace_substring_regex(text, r"\s*(UTC|GMT)$", "+00:00")
        parsed, notes = _parse(in_numbers, calendar, date_order, offset=True)
        timestamp = _as_int(parsed)
        mistakes = _absent(timestamp, text)
        if bare.size and not mistakes:
            mistakes = (finding("the stamp lacks the zone that others carry", bare, timestamp.size, "add it"),)
        return Stamps(timestamp, (*notes, *_unused(tz, "the stamps carry their offset")), mistakes)
    parsed, notes = _parse(text, calendar, date_order, offset=False)
    stamps = _localise(_as_int(parsed), tz)
    absent = _absent(_as_int(parsed), text)
    return Stamps(stamps.timestamp, (*notes, *stamps.notes), (*absent, *stamps.mistakes))


def _as_int(parsed: pd.DatetimeIndex) -> NDArray[np.int64]:
    return np.array(parsed.to_numpy().astype("datetime64[ns]").astype(np.int64))


def _parse(
    text: pa.ChunkedArray, calendar: str, date_order: str | None, *, offset: bool
) -> tuple[pd.DatetimeIndex, tuple[str, ...]]:
    """Parse by the format of the first stamp; what does not follow it becomes NaT. With `offset`, in UTC."""
    present = text.drop_null()
    sample = str(present[0].as_py()) if len(present) else ""
    series = text.to_pandas()
    if re.match(r"\d{4}-\d{1,2}-\d{1,2}[T ]", sample):
        return _to_datetime(series, "ISO8601", offset), ()
    match = re.match(r"^(?P<date>\S+)(?P<gap>[T ]| {2,})(?P<time>.+)$", sample)
    if match is None:
        raise _unknown_format(sample)
    clock, zone = match["time"], ""
    if offset:
        zone = "%z"
        clock = re.sub(r"\s*(Z|z|UTC|GMT|[+-]\d{2}:?\d{2})$", "", clock)
    time_format = _format_of(clock, _TIME_FORMATS)
    if time_format is None:
        raise _unknown_format(sample)
    tail = match["gap"] + time_format + zone
    date_format = _format_of(match["date"], _DATE_FORMATS)
    if date_format is not None:
        return _to_datetime(series, date_format + tail, offset), ()
    doubtful = re.fullmatch(_DOUBTFUL_DATE, match["date"])
    if doubtful is None:
        raise _unknown_format(sample)
    mark = doubtful[1]
    notes: tuple[str, ...] = ()
    if date_order is None:
        dates = series.dropna().str.replace(r"[T ].*", "", regex=True).drop_duplicates()
        date_order = _settle_date_order(dates, mark, calendar)
        notes = (f"dates read as {date_order} (m month, d day, y year), the only reading that fits them all",)
    return _to_datetime(series, mark.join(_DATE_ORDERS[date_order]) + tail, offset), notes


def _format_of(text: str, formats: tuple[tuple[str, str], ...]) -> str | None:
    return next((form for pattern, form in formats if re.fullmatch(pattern, text)), None)


def _to_datetime(series: pd.Series, form: str, offset: bool) -> pd.DatetimeIndex:
    parsed = pd.DatetimeIndex(pd.to_datetime(series, format=form, errors="coerce", utc=offset))
    return parsed.tz_localize(None) if parsed.tz is not None else parsed


def _settle_date_order(dates: pd.Series, mark: str, calendar: str) -> str:
    """Tell month/day from day/month for the distinct dates of a file, where only one reading is possible.

    The reading that is no date for some, or that falls on days without a session, is ruled out.
    """
    readings = {
        order: pd.DatetimeIndex(pd.to_datetime(dates, format=mark.join(form), errors="coerce"))
        for order, form in _DATE_ORDERS.items()
    }
    if readings["mdy"].equals(readings["dmy"]):
        return "mdy"
    fewest = min(int(np.sum(reading.isna())) for reading in readings.values())
    possible = [order for order, reading in readings.items() if np.sum(reading.isna()) == fewest]
    if len(possible) > 1:
        days = {order: readings[order].dropna().to_numpy().astype("datetime64[D]") for order in possible}
        possible = [o for o in possible if days[o].size and on_session_days(days[o], calendar).all()]
    if len(possible) != 1:
        raise BarsError(
            f"dates like {str(dates.iloc[0])!r} can be month/day or day/month: "
            "pass date_order='mdy' or date_order='dmy'"
        )
    return possible[0]


def _unknown_format(sample: str) -> BarsError:
    return BarsError(
        f"stamps like {sample!r} are of no known format: bring YYYY-MM-DD HH:MM:SS or an epoch, "
        "or pass columns if this is not the column of stamps"
    )


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
    timestamp = _as_int(placed.tz_convert("UTC").tz_localize(None))
    mistakes: tuple[str, ...] = ()
    if doubtful.any():
        rows = np.flatnonzero(doubtful)
        what = f"the time is absent or twice in {tz} (clock change; the first is {index[int(rows[0])]})"
        mistakes = (finding(what, rows, naive.size, "bring these stamps with an offset or pass another tz"),)
    return Stamps(timestamp, (f"naive stamps read as {tz}",), mistakes)


def _infer_by_order(
    index: pd.DatetimeIndex, tz: str, placed: pd.DatetimeIndex, present: NDArray[np.bool_]
) -> tuple[pd.DatetimeIndex, NDArray[np.bool_]]:
    """Tell the two passes of a repeated hour apart where the file holds both in order."""
    with contextlib.suppress(ValueError):  # raised where the order does not tell them apart
        placed = index.tz_localize(tz, ambiguous="infer", nonexistent="NaT")
    return placed, present & np.asarray(placed.isna())
