"""Delimited text as columns of text: encoding, lines to skip, delimiter, header line, rows of one width."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from sentio_rllib.errors import BarsError

ABSENT = ("", "nan", "na", "n/a", "null", "none", "-", ".")
"""What stands for a value that is not there, in lower case."""
Skip = int | str | Sequence[int | str] | None

_DELIMITERS = ("\t", ";", "|", ",")
_LEAST_DELIMITERS = 4
_SAMPLE = 50
_SHOWN = 60


@dataclass(frozen=True)
class TextTable:
    """A delimited text.

    Attributes
    ----------
    table
        T rows of cells as text, in columns that are named by their number.
    header
        The cells of the header line, one for each column, or None.
    lines
        int64[T], line of the file of each row, from 1.
    repeated_headers
        int64[H], lines where the header line stands again.
    delimiter
        What parts the cells.
    first_line
        The first line that was not skipped.
    notes
        What a reader should know about how the text was taken.
    """

    table: pa.Table
    header: list[str] | None
    lines: NDArray[np.int64]
    repeated_headers: NDArray[np.int64]
    delimiter: str
    first_line: str
    notes: tuple[str, ...]


def read_text(path: Path, *, skip: Skip = None, header_given: bool = False) -> TextTable:
    """Read delimited text, plain or gzipped, in UTF-8 or with a byte order mark in UTF-16; every cell stays text.

    Parameters
    ----------
    path
        The file.
    skip
        Leading lines to leave out, as a number; or what the lines to leave out begin with; or a list of both.
    header_given
        The names of the columns are known, so that a header line may be of another width than the rows.

    Raises
    ------
    BarsError
        The text is empty, of another encoding, or rows differ in their number of cells; names the lines.
    """
    with pa.input_stream(str(path), compression="detect") as stream:
        data = _as_utf8(path, stream.read())
    lines = data.splitlines()
    kept, notes = _kept(lines, skip)
    if not kept:
        raise BarsError(f"{path.name} is empty: a file with at least one row is needed")
    first_line = lines[kept[0]].decode("utf-8", errors="replace")
    delimiter = _delimiter([lines[index].decode("utf-8", errors="replace") for index in kept[:_SAMPLE]])

    def cells_of(index: int) -> list[str]:
        return next(csv.reader([lines[index].decode("utf-8", errors="replace")], delimiter=delimiter))

    header = header_line = None
    for place in (0, -1) if len(kept) > 1 else (0,):
        if is_header(cells_of(kept[place])):
            header_line = lines[kept[place]].strip()
            header = [cell.strip() for cell in cells_of(kept[place])]
            notes = (*notes, "the header line is the last line") if place == -1 else notes
            kept.pop(place)
            break
    repeated = [index for index in kept if header_line is not None and _stripped(lines[index]) == header_line]
    if repeated:
        again = set(repeated)
        kept = [index for index in kept if index not in again]
    if not kept:
        raise BarsError(f"{path.name} holds no bars: a file with at least one row is needed")
    width = Counter(len(cells_of(index)) for index in kept[:_SAMPLE]).most_common(1)[0][0]
    table = _cells(path, lines, kept, delimiter, width)
    table, header = _fitted(path, table, header, header_given)
    numbers = np.array(kept, dtype=np.int64) + 1
    return TextTable(table, header, numbers, np.array(repeated, dtype=np.int64) + 1, delimiter, first_line, notes)


def is_header(cells: Sequence[str]) -> bool:
    """Tell whether a line of cells names columns: some words, and no number, date or time."""
    words = [cell for cell in cells if any(map(str.isalpha, cell)) and cell.strip().lower() not in ABSENT]
    numeric = [cell for cell in cells if _is_number(cell) or re.match(r"\s*(\d+[-/.:T]\d|\d{6})", cell)]
    return len(words) >= 2 and not numeric


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return text.strip().lower() not in ABSENT


def _as_utf8(path: Path, data: bytes) -> bytes:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace").encode()
    if b"\0" in data[:4096]:
        raise BarsError(
            f"{path.name} is no text in UTF-8 (it holds NUL bytes): save it as UTF-8, or as feather or parquet"
        )
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BarsError(
            f"{path.name} cannot be read as csv: line {line:,} is no UTF-8 (byte {data[error.start]:#04x}): save it so"
        ) from error
    return data


def _kept(lines: list[bytes], skip: Skip) -> tuple[list[int], tuple[str, ...]]:
    """Indices of the lines that are neither blank nor skipped, and a note on those that are skipped."""
    asked = [skip] if isinstance(skip, int | str) else list(skip or ())
    leading = sum(each for each in asked if isinstance(each, int))
    prefixes = tuple(each.encode() for each in asked if isinstance(each, str))
    kept = [index for index, line in enumerate(lines) if line.strip()]
    if not asked:
        return kept, ()
    skipped = [index for index in kept if index < leading or (prefixes and lines[index].lstrip().startswith(prefixes))]
    left_out = set(skipped)
    shown = ", ".join(f"{index + 1:,}" for index in skipped[:5]) + (", ..." if len(skipped) > 5 else "")
    note = f"lines left out by skip: {len(skipped):,}" + (f" (line {shown})" if skipped else "")
    return [index for index in kept if index not in left_out], (note,)


def _delimiter(lines: list[str]) -> str:
    """The first delimiter that parts most lines into the same number of cells, of which a bar needs five."""
    counts = {mark: Counter(line.count(mark) for line in lines).most_common(1)[0] for mark in _DELIMITERS}
    for mark, (count, times) in counts.items():
        if count >= _LEAST_DELIMITERS and 2 * times > len(lines):
            return mark
    return max(_DELIMITERS, key=lambda mark: sum(line.count(mark) for line in lines))


def _stripped(line: bytes) -> bytes:
    return line.removeprefix(codecs.BOM_UTF8).strip()  # files with a mark each that were joined


def _cells(path: Path, lines: list[bytes], kept: list[int], delimiter: str, width: int) -> pa.Table:
    uneven: list[int] = []

    def count(row: pa.csv.InvalidRow) -> str:
        uneven.append(row.actual_columns)
        return "skip"

    names = [str(index) for index in range(width)]
    table = pa.csv.read_csv(
        io.BytesIO(b"\n".join(lines[index] for index in kept) + b"\n"),
        read_options=pa.csv.ReadOptions(column_names=names),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=count),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )
    if not uneven and table.num_rows == len(kept):
        return table
    others = [
        (index, len(cells))
        for index, cells in zip(
            kept, csv.reader((lines[index].decode() for index in kept), delimiter=delimiter), strict=False
        )
        if len(cells) != width
    ]
    if not others:
        raise BarsError(f"{path.name} cannot be read as csv: quotation marks do not close; write it without them")
    index, cells = others[0]
    first = lines[index].decode()
    shown = f"{first[:_SHOWN]}..." if len(first) > _SHOWN else first
    begins = "#" if first.startswith("#") else first.split(delimiter)[0].strip()[:20]
    way_out = f"pass skip={begins!r} to leave out what begins so, or correct these lines"
    if [each for each, _ in others] == kept[: len(others)]:
        way_out = f"pass skip={others[-1][0] + 1} to leave out the first lines"
    elif re.match(r"[\d.+-]", begins) or not begins:
        way_out = "correct or remove these lines in the file"
    raise BarsError(
        f"{path.name}: {len(others):,} of {len(kept):,} rows have another number of cells than {width}; first: line "
        f"{index + 1:,} ({shown!r}) with {cells}: {way_out}"
    )


def _fitted(
    path: Path, table: pa.Table, header: list[str] | None, header_given: bool
) -> tuple[pa.Table, list[str] | None]:
    """Table and header of one width: what ends in a delimiter has an empty cell too many."""
    width = table.num_columns
    if header is None:
        return table, None
    if width == len(header) + 1 and is_empty(table.column(width - 1)):
        table = table.drop_columns([table.column_names[-1]])
        width -= 1
    while len(header) > width and not header[-1]:
        header.pop()
    if len(header) == width:
        return table, header
    if header_given:
        return table, None
    raise BarsError(
        f"{path.name}: the header line names {len(header)} columns ({', '.join(header)}) but rows have {width} cells: "
        "pass columns with the names in the file's order, '_' for one to leave out, or skip if it is no header line"
    )


def is_empty(column: pa.ChunkedArray) -> bool:
    """Tell whether every cell of a column of text is blank."""
    return not any(str(each).strip() for each in column.unique().to_pylist())
