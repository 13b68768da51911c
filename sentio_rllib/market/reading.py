"""Read a bars file as it comes: which column is which, header lines, numbers; nothing is judged here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
from numpy.typing import NDArray

from sentio_rllib.errors import BarsError

PRICES = ("open", "high", "low", "close")
VALUES = (*PRICES, "volume")
SKIP = "_"
COLUMNS_EXAMPLE = "columns='timestamp,open,high,low,close,volume'"

_ALIASES = {
    "timestamp": "timestamp datetime date_time ts ts_utc ts_event unix epoch unix_timestamp open_time "
    "window_start gmt_time time_utc dt t __index_level_0__",
    "date": "date day yyyymmdd",
    "time": "time hhmmss",
    "open": "open o open_price 1._open",
    "high": "high h high_price max 2._high",
    "low": "low l low_price min 3._low",
    "close": "close c close_price last 4._close",
    "volume": "volume v vol 5._volume",
}
_CANONICAL = {alias: name for name, aliases in _ALIASES.items() for alias in aliases.split()}
_ABSENT = ["", "nan", "na", "n/a", "null", "none", "-", "."]
_DELIMITERS = (",", ";", "\t", "|")


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
    repeated_headers
        int64[H], rows (counted from 0, header lines included) where the header line stood again.
    notes
        What a reader should know about how the file was taken.
    """

    stamps: pa.ChunkedArray
    numbers: dict[str, NDArray[np.float64]]
    unreadable: dict[str, tuple[str, NDArray[np.int64]]]
    repeated_headers: NDArray[np.int64]
    notes: tuple[str, ...]


def read_columns(path: Path, columns: str | Sequence[str] | None = None) -> RawColumns:
    """Read feather, parquet or csv.

    Parameters
    ----------
    path
        ``.feather .arrow .parquet .pq .csv .tsv .txt``, the last three also as ``.gz``.
    columns
        Names of the file's columns in their order there, ``_`` for one to leave out. Needed where the file
        has no header line or where its names leave a choice; it wins over the names in the file.

    Raises
    ------
    BarsError
        The file is absent, unreadable or empty, or it cannot be known which column is which.
    """
    table, header = _read_table(path, columns is None)
    names = _given_names(columns, table) if columns is not None else list(table.column_names)
    try:
        positions, notes = _match_columns(names, by_name=columns is None)
    except BarsError as error:
        raise BarsError(*(f"{path.name}: {line}" for line in error.lines)) from error
    table, repeated = _take_out_headers(table, header)
    if table.num_rows == 0:
        raise BarsError(f"{path.name} holds no bars: a file with at least one row is needed")
    numbers: dict[str, NDArray[np.float64]] = {}
    unreadable: dict[str, tuple[str, NDArray[np.int64]]] = {}
    for name in VALUES:
        numbers[name], bad, sample = _numbers(table.column(positions[name]))
        if bad.size:
            unreadable[name] = (sample, bad)
    return RawColumns(_stamp_column(table, positions), numbers, unreadable, repeated, tuple(notes))


def _read_table(path: Path, header_needed: bool) -> tuple[pa.Table, list[str] | None]:
    """Read the table and, for csv, the header line that was found."""
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
            return readers[suffix](path), None
        if suffix in (".csv", ".tsv", ".txt"):
            return _read_csv(path, header_needed)
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise BarsError(f"{path.name} cannot be read as {suffix[1:]}: {reason}") from error
    raise BarsError(f"{path.name} ends in {path.suffix!r}: a bars file ends in .feather, .parquet or .csv (or .csv.gz)")


def _read_parquet(path: Path) -> pa.Table:
    return pa.parquet.ParquetFile(path).read()


def _read_csv(path: Path, header_needed: bool) -> tuple[pa.Table, list[str] | None]:
    """Read every cell as text, so that nothing is guessed; a first line without a number is a header."""
    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(65_536).decode("utf-8-sig", errors="replace")
    first_line = next((line for line in head.splitlines() if line.strip()), "")
    if not first_line:
        raise BarsError(f"{path.name} is empty: a file with at least one row is needed")
    delimiter = max(_DELIMITERS, key=first_line.count)
    width = first_line.count(delimiter) + 1
    table = pa.csv.read_csv(
        path,
        read_options=pa.csv.ReadOptions(column_names=[str(i) for i in range(width)]),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter),
        convert_options=pa.csv.ConvertOptions(
            column_types={str(i): pa.string() for i in range(width)}, strings_can_be_null=False
        ),
    )
    cells = [str(table.column(i)[0].as_py()) for i in range(width)]
    if not any(_is_number(cell) for cell in cells):
        unnamed = [cell.strip() or f"column {i + 1}" for i, cell in enumerate(cells)]
        return table.rename_columns(unnamed), cells
    if header_needed:
        raise BarsError(
            f"{path.name} has no header line (it begins {first_line[:80]!r}): the order of its columns is "
            f"not known; pass columns with the names in the file's order, for instance {COLUMNS_EXAMPLE}"
        )
    return table, None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip().lower() not in _ABSENT


def _given_names(columns: str | Sequence[str], table: pa.Table) -> list[str]:
    names = columns.split(",") if isinstance(columns, str) else list(columns)
    names = [name.strip() for name in names]
    if len(names) != table.num_columns:
        raise BarsError(
            f"columns names {len(names)} columns but the file has {table.num_columns} "
            f"({', '.join(table.column_names)}): name each, {SKIP!r} for one to leave out"
        )
    allowed = ["timestamp", "date", "time", *VALUES, SKIP]
    unknown = [name for name in names if name != SKIP and _normalise(name) not in _CANONICAL]
    if unknown:
        raise BarsError(f"columns holds unknown names {', '.join(unknown)}: allowed are {', '.join(allowed)}")
    return names


def _normalise(name: str) -> str:
    return re.sub(r"[\s_]+", "_", name.strip().strip("<>").lower())


def _match_columns(names: Sequence[str], *, by_name: bool) -> tuple[dict[str, int], list[str]]:
    """Position of every column that is needed, and a note on those left out."""
    found: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        canonical = None if name == SKIP else _CANONICAL.get(_normalise(name))
        if canonical is not None:
            found.setdefault(canonical, []).append(position)
    if "timestamp" not in found:  # a lone date or time column holds the whole stamp
        alone = [name for name in ("date", "time") if name in found]
        if len(alone) == 1:
            found["timestamp"] = found.pop(alone[0])
    elif by_name and ("date" in found or "time" in found):
        found["timestamp"] += found.pop("date", []) + found.pop("time", [])
    _refuse_doubtful(found, names)
    used = {position for positions in found.values() for position in positions}
    left = [name for position, name in enumerate(names) if position not in used and name != SKIP]
    notes = [f"columns left out: {', '.join(left)}"] if left else []
    return {name: positions[0] for name, positions in found.items()}, notes


def _refuse_doubtful(found: dict[str, list[int]], names: Sequence[str]) -> None:
    lines = []
    stamp_known = "timestamp" in found or {"date", "time"} <= found.keys()
    missing = [name for name in VALUES if name not in found]
    missing = missing if stamp_known else ["timestamp", *missing]
    if missing:
        lines.append(
            f"column {', '.join(missing)} not found among {', '.join(names)}: pass columns with the names in "
            f"the file's order, {SKIP!r} for one to leave out, for instance {COLUMNS_EXAMPLE}"
        )
    for name, positions in found.items():
        if len(positions) > 1:
            lines.append(
                f"columns {', '.join(names[position] for position in positions)} could each be {name}: "
                f"pass columns with the names in the file's order, {SKIP!r} for one to leave out"
            )
    if lines:
        raise BarsError(*lines)


def _take_out_headers(table: pa.Table, header: list[str] | None) -> tuple[pa.Table, NDArray[np.int64]]:
    """Take out the header line and its repetitions; return the rows of the repetitions."""
    if header is None:
        return table, np.empty(0, dtype=np.int64)
    table = table.slice(1)
    repeated = np.ones(table.num_rows, dtype=bool)
    for column, cell in zip(table.columns, header, strict=True):
        if not repeated.any():
            break
        repeated &= pc.equal(column, cell).to_numpy()
    return table.filter(pa.array(~repeated)), np.flatnonzero(repeated)


def _stamp_column(table: pa.Table, positions: dict[str, int]) -> pa.ChunkedArray:
    if "timestamp" in positions:
        return table.column(positions["timestamp"])
    parts = [table.column(positions[name]).cast(pa.string()) for name in ("date", "time")]
    return pc.binary_join_element_wise(*parts, " ")


def _numbers(column: pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.int64], str]:
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
    try:
        return np.array(pc.cast(column, pa.float64()).to_numpy(), dtype=np.float64), nothing, ""
    except pa.ArrowInvalid:
        text = column.to_pandas().astype(str).str.strip()
        numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
        bad = np.flatnonzero(np.isnan(numbers) & ~text.str.lower().isin(_ABSENT).to_numpy())
        return np.array(numbers), bad, str(text.iloc[bad[0]]) if bad.size else ""
