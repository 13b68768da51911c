"""Files of minute bars: a user's file becomes :class:`Bars`, or a list of what is wrong with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
from numpy.typing import NDArray

from sentio_rllib.errors import BarsError
from sentio_rllib.market.checks import (
    PRICES,
    Fault,
    Places,
    check_stamps,
    check_values,
    examine_order,
    iso_minute,
    widened_range,
    without_prices,
)
from sentio_rllib.market.file_options import FileOptions, Written, check_options
from sentio_rllib.market.instruments import pick, several
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.reading import VALUES, RawColumns, read_columns
from sentio_rllib.market.report import BarsReport, FileFacts, describe
from sentio_rllib.market.sessions import MINUTE_NS, assign_sessions, missing_before
from sentio_rllib.market.stamps import NOT_A_TIME, read_stamps
from sentio_rllib.market.stretches import check_repeats, check_steps
from sentio_rllib.market.vendors import VENDORS, advice

__all__ = ["Bars", "BarsReport", "check_output", "load_bars", "write_bars"]


def load_bars(
    path: str | Path,
    *,
    symbol: str | None = None,
    calendar: str = "XNYS",
    hours: Literal["regular", "all"] = "regular",
    max_missing: float = 0.10,
    fix: bool = False,
    **options: Unpack[FileOptions],
) -> tuple[Bars, BarsReport]:
    """Read and validate a file of minute bars.

    Parameters
    ----------
    path
        A feather, parquet or csv file (csv also as ``.gz``).
    symbol
        The instrument to pick, where a column of the file holds it; else a name of the market, by default the first
        part of the file's name, between underscores, that is no number.
    calendar
        Exchange calendar of the sessions.
    hours
        ``regular`` leaves out bars outside the calendar's sessions (counted), ``all`` keeps them.
    max_missing
        Largest share, 0 .. 1, of the regular minutes of the sessions present, first bar to last, that may lack a bar.
    fix
        Sort the rows, of a duplicate stamp keep the last row, drop repeated header lines and rows without prices;
        all counted.
    **options
        How the file is written: ``vendor tz columns skip decimal price_scale volume stamp date_order``, see
        :class:`sentio_rllib.market.file_options.FileOptions`.

    Returns
    -------
    bars, report
        The bars, and what was found, left out and mended.

    Raises
    ------
    BarsError
        One line for every cause, with counts, the first lines of the file and the option that mends it.
    """
    written = Written(**options)
    check_options(written, calendar=calendar, hours=hours, max_missing=max_missing)
    written, path = written.filled(), Path(path)
    raw, name = read_columns(path, written), symbol or _symbol_of(path)
    try:
        read, facts = _validate(raw, written, symbol=symbol, calendar=calendar, fix=fix)
        bars, report = _within_hours(name, read, facts, calendar, hours)
        _refuse_stretches(bars)
        _refuse_thin(bars, report, max_missing)
    except BarsError as error:
        raise BarsError(*(f"{name}: {line}" for line in (*error.lines, *_hint(raw, written)))) from error
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


def _validate(
    raw: RawColumns, written: Written, *, symbol: str | None, calendar: str, fix: bool
) -> tuple[_Read, FileFacts]:
    """Pick the instrument and check every row; sort and drop duplicates where `fix` allows it, else refuse."""
    mistakes: list[str] = []
    notes = (*_layout_note(raw, written), *raw.notes)
    picked, told = pick(raw.others, symbol)
    raw, notes = raw if picked is None else raw.take(picked), (*notes, *told)
    total, places = raw.numbers["open"].size, raw.places
    if raw.repeated_headers.size and not fix:
        again = Fault("the header line stands again", np.arange(raw.repeated_headers.size), "pass fix to drop it")
        mistakes.append(again.line(total + raw.repeated_headers.size, Places(places.kind, raw.repeated_headers)))
    empty = without_prices(raw.numbers, raw.unreadable)
    if empty.any():
        rows = np.flatnonzero(empty)
        way_out = "pass fix to drop them, which makes their minutes missing"
        mistakes += [] if fix else [Fault("there are no prices (NaN or empty)", rows, way_out).line(total, places)]
        raw = raw.take(~empty)
    if empty.all():
        raise BarsError(*mistakes or ["no row has a price: pass columns if these are no columns of prices"])
    high, low = widened_range(*(raw.numbers[name] for name in PRICES))
    widened = int(np.sum((high != raw.numbers["high"]) | (low != raw.numbers["low"])) - np.sum(np.isnan(high)))
    notes += (f"high or low widened by rounding to hold open and close: {widened:,} bars",) if widened > 0 else ()
    numbers = {**raw.numbers, "high": high, "low": low}
    timestamp, found, lines, stamp_notes = _timestamps(raw, written, calendar)
    mistakes += lines
    crowd = several(raw.others, timestamp, picked=picked is not None)
    mistakes += [crowd] if crowd else []
    found += check_values(numbers, raw.unreadable)
    if timestamp is not None and not crowd:  # what duplicates and order tell of several instruments is no fault
        order, disorder = examine_order(timestamp, numbers, fix=fix)
        found += disorder
    mistakes += [each.line(total, raw.places, timestamp, numbers) for each in found]
    if mistakes or timestamp is None:
        raise BarsError(*mistakes)
    facts = FileFacts(total, int(raw.repeated_headers.size), int(empty.sum()), order, (*notes, *stamp_notes))
    return _Read(timestamp[order.keep], {name: v[order.keep] for name, v in numbers.items()}), facts


def _layout_note(raw: RawColumns, written: Written) -> tuple[str, ...]:
    if written.vendor is not None:
        return (f"read as a file of {written.vendor} (data.vendor)",)
    if raw.vendor is None:
        return ()
    return (f"the layout is that of {raw.vendor} (data.vendor: {raw.vendor.partition(' or ')[0]})",)


def _hint(raw: RawColumns, written: Written) -> list[str]:
    """A line on a vendor whose options would have read the file otherwise."""
    if written.vendor is not None or raw.vendor is None or not VENDORS[raw.vendor.partition(" or ")[0]].options:
        return []
    return [f"the layout is that of {raw.vendor}: {advice(raw.vendor)}"]


def _timestamps(
    raw: RawColumns, written: Written, calendar: str
) -> tuple[NDArray[np.int64] | None, list[Fault], list[str], tuple[str, ...]]:
    """Starts of the bars where all are known, findings, lines that tell of the whole column, and notes."""
    try:
        stamps = read_stamps(raw.stamps, tz=written.tz, calendar=calendar, date_order=written.date_order)
    except BarsError as error:
        return None, [], list(error.lines), ()
    found = list(stamps.mistakes)
    if (stamps.timestamp == NOT_A_TIME).any():
        return None, found, [], stamps.notes
    timestamp = stamps.timestamp - (MINUTE_NS if written.stamp == "end" else 0)
    return timestamp, found + check_stamps(timestamp), [], stamps.notes


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


def _refuse_stretches(bars: Bars) -> None:
    lines = check_steps(bars.timestamp)
    lines += [] if lines else check_repeats(bars.timestamp, {name: getattr(bars, name) for name in VALUES})
    if lines:
        raise BarsError(*lines)


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
