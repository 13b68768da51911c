"""Read a bars file as it comes: columns, lines, numbers, their scale and decimal mark; no bar is judged here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
import pyarrow.parquet
from numpy.typing import NDArray

from sentio_rllib.errors import BarsError
from sentio_rllib.market.checks import PRICES, Places, Unreadable
from sentio_rllib.market.delimited import ABSENT, Skip, TextTable, is_empty, read_text
from sentio_rllib.market.file_options import VolumeKind, Written
from sentio_rllib.market.matching import (
    COLUMNS_EXAMPLE,
    SKIP,
    Matched,
    doubtful,
    given_names,
    match_columns,
    normalise,
)
from sentio_rllib.market.stamps import read_stamps
from sentio_rllib.market.vendors import advice, recognise

VALUES = (*PRICES, "volume")
LARGE_PRICE = 1e7
"""Whole prices from here on, or from a hundredth where all are full hundreds, are more likely in fixed point."""

_OTHER_KINDS = {
    "zip": "unpack it and pass the file inside; QuantConnect's have no dates: join them with the date, then pass "
    "columns and price_scale=1e4",
    "json": "write it as csv or parquet, for instance with pandas.read_json(...).to_csv(..., index=False)",
    "jsonl": "write it as csv or parquet, for instance with pandas.read_json(..., lines=True).to_csv(...)",
    "xlsx": "save the sheet as csv",
    "xls": "save the sheet as csv",
    "h5": "write it as parquet, for instance with pandas.read_hdf(...).to_parquet(...)",
    "dbn": "write it as csv or parquet with databento's DBNStore.to_csv or to_parquet",
    "bi5": "write it as csv first",
    **dict.fromkeys(("zst", "bz2", "xz", "7z", "rar", "tar", "tgz"), "unpack it first, or compress it with gzip"),
}


@dataclass(frozen=True)
class RawColumns:
    """The columns of a file in file order, T rows, header lines taken out.

    Attributes
    ----------
    stamps
        The column of time as it stands in the file; text where it was text.
    numbers
        ``open, high, low, close, volume`` as float64[T]; NaN where absent or no number.
    unreadable
        For each column with text that is no number: the first such text, and the rows int64[K].
    others
        Columns that are neither, by normalised name, for what they tell of instruments.
    places
        The line of the file, or its data row, of each row.
    repeated_headers
        int64[H], lines where the header line stood again.
    vendor
        Whose layout this looks like, or None.
    notes
        What a reader should know about how the file was taken.
    """

    stamps: pa.ChunkedArray
    numbers: dict[str, NDArray[np.float64]]
    unreadable: Unreadable
    others: dict[str, pa.ChunkedArray]
    places: Places
    repeated_headers: NDArray[np.int64]
    vendor: str | None
    notes: tuple[str, ...]

    def take(self, rows: NDArray[np.bool_]) -> RawColumns:
        """Return the rows bool[T] alone; places are still those of the file."""
        if rows.all():
            return self
        mask, number = pa.array(rows), np.cumsum(rows) - 1
        bad = {name: (sample, number[which[rows[which]]]) for name, (sample, which) in self.unreadable.items()}
        return replace(
            self,
            stamps=self.stamps.filter(mask),
            numbers={name: column[rows] for name, column in self.numbers.items()},
            unreadable={name: each for name, each in bad.items() if each[1].size},
            others={name: column.filter(mask) for name, column in self.others.items()},
            places=Places(self.places.kind, self.places.numbers[rows]),
        )


def read_columns(path: Path, written: Written) -> RawColumns:
    """Read feather, parquet or csv.

    Parameters
    ----------
    path
        ``.feather .arrow .parquet .pq .csv .tsv .txt``, the last three also as ``.gz``.
    written
        How the file is written, filled by its vendor's layout. Its `columns` win over the names in the file, those of
        the layout are taken only where the file has no header line.

    Raises
    ------
    BarsError
        The file is absent, unreadable or empty, or it cannot be known which column is which or what numbers mean.
    """
    columns, volume = written.columns, written.volume or "file"
    table, text = _read_table(path, written.skip, header_given=columns is not None)
    header = list(table.column_names) if text is None else text.header
    vendor = recognise([normalise(name) for name in header or ()], "" if text is None else text.first_line)
    if header is None and columns is None:
        columns = written.layout.columns
    notes = list(text.notes) if text is not None else []

    def holds_stamps(place: int) -> bool:
        return _holds_stamps(table.column(place))

    try:
        names = _names(table, columns, header, text, vendor)
        matched = match_columns(names, by_name=columns is None, volume=volume, holds_stamps=holds_stamps)
        stamps = _stamp_column(table, matched, names, notes)
        numbers, unreadable = _read_numbers(table, matched, text, written.decimal, notes)
        _choose_volume(numbers, unreadable, volume, notes)
        _scale(numbers, written.price_scale, written.layout.fixed_point, notes)
    except BarsError as error:
        raise BarsError(*(f"{path.name}: {line}" for line in error.lines)) from error
    left = [names[place] for place in matched.rest if names[place] != SKIP]
    if left:
        notes.append(f"columns left out: {', '.join(left)}")
    # a column that is left out by `columns` is still known by the file's own name
    known = {place: names[place] if names[place] != SKIP else (header or names)[place] for place in matched.rest}
    others = {normalise(name) if name != SKIP else f"{place + 1}": table.column(place) for place, name in known.items()}
    places = Places("row", np.arange(1, table.num_rows + 1)) if text is None else Places("line", text.lines)
    repeated = np.empty(0, dtype=np.int64) if text is None else text.repeated_headers
    return RawColumns(stamps, numbers, unreadable, others, places, repeated, vendor, tuple(notes))


def _read_table(path: Path, skip: Skip, *, header_given: bool) -> tuple[pa.Table, TextTable | None]:
    """Read the table and, of text, what else is known of it."""
    if not path.exists():
        raise BarsError(f"bars file {str(path)!r} does not exist: pass the path of a feather, parquet or csv file")
    if path.is_dir():
        raise BarsError(f"{str(path)!r} is a folder: pass the path of one feather, parquet or csv file")
    readers: dict[str, Callable[[Path], pa.Table]] = {
        ".feather": pa.feather.read_table,
        ".arrow": pa.feather.read_table,
        ".parquet": _read_parquet,
        ".pq": _read_parquet,
    }
    suffix = path.with_suffix("").suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    try:
        if suffix in readers:
            table = readers[suffix](path)
            if table.num_rows == 0:
                raise BarsError(f"{path.name} holds no bars: a file with at least one row is needed")
            return table, None
        if suffix in (".csv", ".tsv", ".txt"):
            text = read_text(path, skip=skip, header_given=header_given)
            return text.table, text
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise BarsError(f"{path.name} cannot be read as {suffix[1:]}: {reason}") from error
    way_out = _OTHER_KINDS.get(path.suffix[1:].lower())
    raise BarsError(
        f"{path.name} ends in {path.suffix!r}: a bars file ends in .feather, .parquet or .csv (or .csv.gz)"
        + (f"; {way_out}" if way_out else "")
    )


def _read_parquet(path: Path) -> pa.Table:
    return pa.parquet.ParquetFile(path).read()


def _names(
    table: pa.Table,
    columns: str | Sequence[str] | None,
    header: list[str] | None,
    text: TextTable | None,
    vendor: str | None,
) -> list[str]:
    if columns is not None:
        last = text is not None and is_empty(table.column(table.num_columns - 1))
        found = header or [f"column {place + 1}" for place in range(table.num_columns)]
        return given_names(columns, table.num_columns, found, last_is_empty=last)
    if header is not None:
        return header
    assert text is not None
    hint = f"; it looks like a file of {vendor}: {advice(vendor)}, else pass" if vendor else ": pass"
    raise BarsError(
        f"there is no header line (it begins {text.first_line[:80]!r}), so the order of its columns is not known{hint} "
        f"columns with the names in the file's order, for instance {COLUMNS_EXAMPLE}"
    )


def _holds_stamps(column: pa.ChunkedArray) -> bool:
    """Tell whether a column without a name is an index of times; whole numbers are an index of rows."""
    if pa.types.is_timestamp(column.type):
        return True
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    try:
        pc.cast(column, pa.float64())
    except pa.ArrowInvalid:
        return True
    return False


def _stamp_column(table: pa.Table, matched: Matched, names: Sequence[str], notes: list[str]) -> pa.ChunkedArray:
    if not matched.stamps:
        parts = [_day_or_time(table.column(matched.positions[name])) for name in ("date", "time")]
        return pc.binary_join_element_wise(*parts, " ")
    first = table.column(matched.stamps[0])
    if len(matched.stamps) > 1:
        told = [names[place] for place in matched.stamps]
        if not _same_times([table.column(place) for place in matched.stamps]):
            raise BarsError(doubtful("timestamp", told))
        notes.append(f"columns {', '.join(told)} tell the same times in UTC; {told[0]} is read")
    return first


def _day_or_time(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.date32())
    return column.cast(pa.string())


def _same_times(columns: Sequence[pa.ChunkedArray]) -> bool:
    try:
        times = [read_stamps(column, tz="UTC").timestamp for column in columns]
    except BarsError:
        return False
    return all(np.array_equal(times[0], other) for other in times[1:])


def _read_numbers(
    table: pa.Table, matched: Matched, text: TextTable | None, decimal: str | None, notes: list[str]
) -> tuple[dict[str, NDArray[np.float64]], Unreadable]:
    columns = {name: table.column(matched.positions[name]) for name in (*VALUES, "ticks") if name in matched.positions}
    if text is not None and decimal is None and text.delimiter != ",":
        decimal = _decimal_of([columns[name] for name in PRICES])
        if decimal == ",":
            notes.append("commas read as decimal marks (decimal: ',')")
    numbers: dict[str, NDArray[np.float64]] = {}
    unreadable: Unreadable = {}
    for name, column in columns.items():
        numbers[name], bad, sample = _numbers(column, decimal or ".")
        if bad.size:
            unreadable[name] = (sample, bad)
    return numbers, unreadable


def _decimal_of(prices: Sequence[pa.ChunkedArray]) -> str:
    """The decimal mark of columns of text between other delimiters than commas."""
    commas = [column.filter(pc.fill_null(pc.match_substring(column, ","), False)) for column in prices]
    if not any(len(column) for column in commas):
        return "."
    if any(pc.any(pc.match_substring(column, ".")).as_py() for column in prices):
        return "."  # both marks: one of them parts thousands, and such text is no number
    thousands = [pc.all(pc.match_substring_regex(column, r"^\s*\d{1,3},\d{3}\s*$")).as_py() for column in commas]
    if False not in thousands:
        sample = next(str(column[0].as_py()) for column in commas if len(column))
        raise BarsError(
            f"prices like {sample!r} may have a decimal comma or one between thousands: pass decimal=',' or "
            "decimal='.' (with the latter, write them without commas)"
        )
    return ","


def _numbers(column: pa.ChunkedArray, decimal: str) -> tuple[NDArray[np.float64], NDArray[np.int64], str]:
    """The column as float64[T], the rows with text that is no number int64[K], and the first such text."""
    nothing = np.empty(0, dtype=np.int64)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        try:
            numbers = pc.cast(column, pa.float64(), safe=False)
        except pa.ArrowException:
            return np.full(len(column), np.nan), np.arange(len(column)), f"a {column.type}"
        return np.array(numbers.to_numpy(), dtype=np.float64), nothing, ""
    original = column
    if decimal == ",":  # a point is then no decimal mark
        column = pc.replace_substring(pc.replace_substring(column, ".", "?"), ",", ".")
    try:
        return np.array(pc.cast(column, pa.float64()).to_numpy(), dtype=np.float64), nothing, ""
    except pa.ArrowInvalid:
        text = column.to_pandas().astype(str).str.strip()
        numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
        absent = original.to_pandas().astype(str).str.strip().str.lower().isin(ABSENT).to_numpy()
        bad = np.flatnonzero(np.isnan(numbers) & ~absent)
        return np.array(numbers), bad, str(original[int(bad[0])].as_py()) if bad.size else ""


def _choose_volume(
    numbers: dict[str, NDArray[np.float64]], unreadable: Unreadable, volume: VolumeKind, notes: list[str]
) -> None:
    """Leave one column of volume: ticks where that is 0 throughout, zeros where there is none."""
    ticks, bad = numbers.pop("ticks", None), unreadable.pop("ticks", None)
    if volume == "none":
        numbers["volume"] = np.zeros_like(numbers["open"])
        notes.append("volume: none; every bar counts as traded, and no order is limited or moved by volume")
    elif volume == "tick":
        notes.append("volume is the number of ticks (volume: tick)")
    elif ticks is not None and not np.any(numbers["volume"]) and np.any(ticks):
        numbers["volume"] = ticks
        if bad is not None:
            unreadable["volume"] = bad
        notes.append("volume is the number of ticks, as the column of volume is 0 throughout")


def _scale(
    numbers: Mapping[str, NDArray[np.float64]], price_scale: float | None, fixed_point: float | None, notes: list[str]
) -> None:
    """Divide prices in fixed point by their scale, in place, or refuse what looks like them."""
    if price_scale is None and looks_fixed_point(numbers):
        price_scale = fixed_point or _refuse_fixed_point(numbers)
    if price_scale not in (None, 1):
        for name in PRICES:
            numbers[name][:] /= price_scale
        notes.append(f"prices divided by {price_scale:g} (price_scale)")


def looks_fixed_point(numbers: Mapping[str, NDArray[np.float64]]) -> bool:
    """Tell whether prices are whole and so large that they are more likely multiples of a small unit."""
    present = np.concatenate([numbers[name][np.isfinite(numbers[name])] for name in PRICES])
    if not present.size or np.any(present != np.rint(present)):
        return False
    usual = float(np.median(np.abs(present)))
    return usual >= LARGE_PRICE or (usual >= LARGE_PRICE / 100 and not np.any(present % 100))


def _refuse_fixed_point(numbers: Mapping[str, NDArray[np.float64]]) -> NoReturn:
    usual = float(np.nanmedian(numbers["close"]))
    scale, who = ("1e9", "Databento's") if usual >= 1e8 else ("1e4", "QuantConnect's or Nasdaq's")
    raise BarsError(
        f"prices are whole numbers about {usual:.3g}, as fixed-point prices are: pass price_scale={scale} if they are "
        f"{who} (then about {usual / float(scale):.6g}), or price_scale=1 if they are true prices"
    )
