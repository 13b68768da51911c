"""Files of minute bars: a user's file becomes :class:`Bars`, or a list of what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
from numpy.typing import NDArray

from sentio_rllib.errors import BarsError
from sentio_rllib.market.calendars import check_calendar, check_zone
from sentio_rllib.market.checks import check_stamps, check_values, examine_order, finding, iso_minute
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.reading import VALUES, RawColumns, read_columns
from sentio_rllib.market.report import BarsReport, FileFacts, describe
from sentio_rllib.market.sessions import MINUTE_NS, assign_sessions, missing_before
from sentio_rllib.market.stamps import NOT_A_TIME, read_stamps

__all__ = ["Bars", "BarsReport", "check_output", "load_bars", "write_bars"]


def load_bars(
    path: str | Path,
    *,
    symbol: str | None = None,
    tz: str | None = None,
    columns: str | Sequence[str] | None = None,
    stamp: Literal["start", "end"] = "start",
    calendar: str = "XNYS",
    hours: Literal["regular", "all"] = "regular",
    max_missing: float = 0.10,
    fix: bool = False,
    date_order: Literal["mdy", "dmy"] | None = None,
) -> tuple[Bars, BarsReport]:
    """Read and validate a file of minute bars.

    Parameters
    ----------
    path
        A feather, parquet or csv file (csv also as ``.gz``).
    symbol
        Name of the market; by default the first part of the file's name, between underscores, that is no number.
    tz
        Time zone of stamps that carry none, for instance ``America/New_York``.
    columns
        Names of the file's columns in their order, ``_`` for one to leave out.
    stamp
        Whether a stamp is its bar's start or end. Start stamps declared ``end`` date every bar a minute before its
        prices were known: **look-ahead** against the clock and against other markets.
    calendar
        Exchange calendar of the sessions.
    hours
        ``regular`` leaves out bars outside the calendar's sessions (counted), ``all`` keeps them.
    max_missing
        Largest share, 0 .. 1, of the regular minutes of the sessions present, first bar to last, that may lack a bar.
    fix
        Sort the rows, of a duplicate stamp keep the last row, drop repeated header lines; all counted.
    date_order
        ``mdy`` or ``dmy``, needed only for dates such as 11/5/2019 that fit both ways.

    Returns
    -------
    bars, report
        The bars, and what was found, left out and mended.

    Raises
    ------
    BarsError
        One line for every mistake, with counts, the first rows and the option that mends it.
    """
    _check_options(tz=tz, stamp=stamp, calendar=calendar, hours=hours, max_missing=max_missing, date_order=date_order)
    path = Path(path)
    symbol = symbol or _symbol_of(path)
    raw = read_columns(path, columns)
    try:
        read, facts = _validate(raw, tz=tz, stamp=stamp, calendar=calendar, fix=fix, date_order=date_order)
        bars, report = _within_hours(symbol, read, facts, calendar, hours)
        _refuse_thin(bars, report, max_missing)
    except BarsError as error:
        raise BarsError(*(f"{symbol}: {line}" for line in error.lines)) from error
    return bars, report


def check_output(path: Path) -> None:
    """Raise :class:`BarsError` where bars cannot be written to `path`: its ending, or its folder."""
    if path.suffix not in (".feather", ".parquet"):
        raise BarsError(f"output {path.name!r} ends in {path.suffix!r}: pass a name that ends in .feather or .parquet")
    if not path.parent.is_dir():
        raise BarsError(f"folder {str(path.parent)!r} does not exist: make it first or pass another output")


def write_bars(bars: Bars | pd.DataFrame, path: str | Path) -> Path:
    """Write bars as feather or parquet: ``timestamp`` (UTC, ns, start of the bar) and OHLCV in float64.

    Parameters
    ----------
    bars
        Bars, or a frame with the columns ``timestamp`` (with a time zone) and ``open high low close volume``.
    path
        File to write, ``.feather`` or ``.parquet``; one that exists is replaced.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    BarsError
        Another ending, a folder that does not exist, a column that is absent, stamps without a time zone.
    """
    path = Path(path)
    check_output(path)
    if isinstance(bars, Bars):
        stamps, values = bars.timestamp, {name: getattr(bars, name) for name in VALUES}
    else:
        stamps, values = _from_frame(bars)
    arrays = {"timestamp": pa.array(stamps, pa.timestamp("ns", "UTC"))}
    arrays |= {name: pa.array(column, pa.float64()) for name, column in values.items()}
    part = path.with_name(path.name + ".part")
    try:
        if path.suffix == ".feather":
            pa.feather.write_feather(pa.table(arrays), part, compression="zstd")
        else:
            pa.parquet.write_table(pa.table(arrays), part, compression="zstd")
        part.replace(path)
    except OSError as error:
        raise BarsError(f"{str(path)!r} cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _symbol_of(path: Path) -> str:
    parts = path.name.split(".")[0].split("_")
    return next((part for part in parts if part and not part.isdigit()), path.name)


def _from_frame(frame: pd.DataFrame) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    absent = [name for name in ("timestamp", *VALUES) if name not in frame.columns]
    if absent:
        raise BarsError(f"the frame lacks the columns {', '.join(absent)}: name them timestamp, {', '.join(VALUES)}")
    stamps = pd.DatetimeIndex(frame["timestamp"])
    if stamps.tz is None:
        raise BarsError("the frame's timestamp has no time zone: localise it first (tz_localize)")
    naive = stamps.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ns]")
    return naive.astype(np.int64), {name: frame[name].to_numpy(dtype=np.float64) for name in VALUES}


@dataclass(frozen=True)
class _Read:
    """Sorted, unique, valid rows of a file: stamps int64[T], numbers float64[T] each."""

    timestamp: NDArray[np.int64]
    numbers: dict[str, NDArray[np.float64]]


def _check_options(
    *, tz: str | None, stamp: str, calendar: str, hours: str, max_missing: float, date_order: str | None
) -> None:
    mistakes: list[str] = []
    for check, value in ((check_zone, tz), (check_calendar, calendar)):
        try:
            if value is not None:
                check(value)
        except BarsError as error:
            mistakes += error.lines
    if stamp not in ("start", "end"):
        mistakes.append(f"stamp {stamp!r} is unknown: pass start or end")
    if hours not in ("regular", "all"):
        mistakes.append(f"hours {hours!r} is unknown: pass regular or all")
    if not (math.isfinite(max_missing) and 0 <= max_missing <= 1):
        mistakes.append(f"max_missing {max_missing} is out of range: pass a share from 0 to 1")
    if date_order not in (None, "mdy", "dmy"):
        mistakes.append(f"date_order {date_order!r} is unknown: pass mdy or dmy")
    if mistakes:
        raise BarsError(*mistakes)


def _validate(
    raw: RawColumns, *, tz: str | None, stamp: str, calendar: str, fix: bool, date_order: str | None
) -> tuple[_Read, FileFacts]:
    """Check every row; sort and drop duplicates where `fix` allows it, else refuse."""
    mistakes: list[str] = []
    total = raw.numbers["open"].size
    if raw.repeated_headers.size and not fix:
        way_out = "pass fix to drop these lines"
        what = "the header line stands again"
        mistakes.append(finding(what, raw.repeated_headers, total + raw.repeated_headers.size, way_out))
    timestamp, notes = None, raw.notes
    try:
        stamps = read_stamps(raw.stamps, tz=tz, calendar=calendar, date_order=date_order)
    except BarsError as error:
        mistakes += error.lines
    else:
        notes += stamps.notes
        mistakes += stamps.mistakes
        if not (stamps.timestamp == NOT_A_TIME).any():
            timestamp = stamps.timestamp - (MINUTE_NS if stamp == "end" else 0)
    if timestamp is not None:
        mistakes += check_stamps(timestamp)
    mistakes += check_values(raw.numbers, raw.unreadable, timestamp)
    if timestamp is None:
        raise BarsError(*mistakes)
    order, disorder = examine_order(timestamp, raw.numbers)
    mistakes += [] if fix else disorder
    if mistakes:
        raise BarsError(*mistakes)
    facts = FileFacts(total, int(raw.repeated_headers.size), order, notes)
    return _Read(timestamp[order.keep], {name: v[order.keep] for name, v in raw.numbers.items()}), facts


def _within_hours(symbol: str, read: _Read, facts: FileFacts, calendar: str, hours: str) -> tuple[Bars, BarsReport]:
    timestamp, values = read.timestamp, read.numbers
    sessions, regular = assign_sessions(timestamp, calendar)
    off_hours = timestamp[~regular]
    if hours == "regular" and off_hours.size:
        if off_hours.size == timestamp.size:
            raise BarsError(
                f"none of the {timestamp.size:,} bars ({iso_minute(int(timestamp[0]))} .. "
                f"{iso_minute(int(timestamp[-1]))}) lies inside the sessions of {calendar}: "
                "pass another calendar or tz, or hours='all'"
            )
        timestamp = timestamp[regular]
        values = {name: column[regular] for name, column in values.items()}
        sessions, _ = assign_sessions(timestamp, calendar)
    bars = Bars(symbol=symbol, timestamp=timestamp, sessions=sessions, **values)
    return bars, describe(bars, facts, off_hours, hours)


def _refuse_thin(bars: Bars, report: BarsReport, max_missing: float) -> None:
    """Refuse where too many minutes lack a bar; a file may begin and end in mid-session."""
    stamps = bars.timestamp[bars.sessions.regular]
    if not stamps.size:
        return
    before, elapsed = (int(missing_before(stamps[[row]], report.calendar)[0]) for row in (0, -1))
    last_session = int(bars.sessions.session[np.flatnonzero(bars.sessions.regular)[-1]])
    outside = before + int(bars.sessions.session_minutes[last_session]) - 1 - elapsed
    missing, expected = report.missing_minutes - outside, report.regular_minutes - outside
    if missing > max_missing * expected:
        share = missing / expected
        needed = math.ceil(share * 100) / 100
        raise BarsError(
            f"{share:.4f} of the regular minutes from the first bar to the last lack one ({missing:,} of {expected:,} "
            f"in {report.sessions:,} sessions of {report.calendar}), above "
            f"max_missing {max_missing:g}: pass max_missing {needed:.2f} to accept it, or another calendar"
        )
