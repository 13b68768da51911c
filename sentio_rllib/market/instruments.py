"""Which instrument a row is of: a file of several is refused or one is picked, never mixed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sentio_rllib.errors import BarsError
from sentio_rllib.market.checks import iso_minute

_NAMES = """
symbol symbols ticker tickers tic instrument instrument_id instrument_name contract contract_id root sym publisher
publisher_id underlying asset asset_id security security_id sec_code code stock stock_code pair currency_pair
market_pair coin base product product_id isin cusip sedol figi permno conid con_id ric secid raw_symbol local_symbol
localsymbol s expiry expiration maturity delivery contract_month
"""
INSTRUMENT_NAMES = frozenset(_NAMES.split())
"""Names of columns, lower case with underscores, whose values tell instruments apart."""
_CONTRACT = r"^[A-Z0-9]{1,4}[FGHJKMNQUVXZ]\d{1,4}$"
_TOLD = 5
_MOST_DISTINCT = 1_000
_MOST_NUMBERS = 50

Columns = Mapping[str, pa.ChunkedArray]


def pick(columns: Columns, symbol: str | None) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """Return the rows bool[T] that `symbol` picks, None for all of them, and a note.

    Parameters
    ----------
    columns
        Columns of the file that are no stamp, price or volume, by normalised name.
    symbol
        A value of a column of instruments; where there is no such column, or one with one other value, it is a name
        and picks nothing.

    Raises
    ------
    BarsError
        The file holds several instruments, and none of this name.
    """
    if symbol is None:
        return None, ()
    counted = {name: _counts(column) for name, column in columns.items() if name in INSTRUMENT_NAMES}
    for name, counts in counted.items():
        if symbol in counts and len(counts) > 1:
            rows = pc.fill_null(pc.equal(_text(columns[name]), symbol), False)
            picked = np.asarray(rows.to_numpy())
            return picked, (f"symbol {symbol} picks {int(picked.sum()):,} of {picked.size:,} rows by column {name}",)
    for name, counts in counted.items():
        if len(counts) > 1:
            raise BarsError(
                f"symbol {symbol!r} is none of the {len(counts):,} instruments of column {name} ({_names(counts)}): "
                "pass symbol with one of them"
            )
    others = [f"{next(iter(counts))} (column {name})" for name, counts in counted.items() if counts]
    if others and not any(symbol in counts for counts in counted.values()):
        return None, (f"symbol {symbol} is taken as a name; the file is of {', '.join(others)}",)
    return None, ()


def several(columns: Columns, timestamp: NDArray[np.int64] | None, *, picked: bool) -> str | None:
    """Return the line that refuses a file of several instruments, None where there is one.

    Parameters
    ----------
    columns
        As in :func:`pick`, of the rows that were picked.
    timestamp
        int64[T] ns UTC, or None where the stamps could not be read. Where stamps are there twice, a column of any name
        tells instruments apart if it tells the rows of one stamp apart.
    picked
        A symbol has picked among them, so that it cannot pick once more.
    """
    named = [name for name in columns if name in INSTRUMENT_NAMES or _holds_contracts(columns[name])]
    twice = timestamp is not None and np.unique(timestamp).size < timestamp.size
    any_name = [name for name in columns if name not in named] if twice else []
    for name in (*named, *any_name):
        counts = _counts(columns[name])
        if len(counts) < 2 or (name in any_name and not _tells_apart(columns[name], counts, timestamp)):
            continue
        return _refusal(name, columns[name], counts, timestamp, may_pick=name in INSTRUMENT_NAMES and not picked)
    return None


def _refusal(
    name: str, column: pa.ChunkedArray, counts: dict[str, int], timestamp: NDArray[np.int64] | None, *, may_pick: bool
) -> str:
    text = _text(column)
    ranges = {}
    for value in list(counts)[: _TOLD if timestamp is None else None]:
        rows = pc.fill_null(pc.equal(text, value), False).to_numpy() if timestamp is not None else None
        if timestamp is not None and rows is not None:
            ranges[value] = (int(timestamp[rows].min()), int(timestamp[rows].max()))
    told = [
        f"{value} ({rows:,} rows"
        + (f", {iso_minute(ranges[value][0])} .. {iso_minute(ranges[value][1])})" if value in ranges else ")")
        for value, rows in list(counts.items())[:_TOLD]
    ]
    more = f" and {len(counts) - _TOLD:,} more" if len(counts) > _TOLD else ""
    spans = sorted(ranges.values())
    chain = bool(spans) and all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    way_out = f"pass symbol={next(iter(counts))!r} or another one of them"
    way_out = way_out if may_pick else "keep the rows of one of them in the file"
    if chain:
        way_out = (
            f"they follow each other as contracts do, and a roll is no return: {way_out}, or bring a series without "
            f"column {name} that is adjusted by ratios"
        )
    return f"{len(counts):,} instruments in one file by column {name}: {', '.join(told)}{more}: {way_out}"


def _names(counts: dict[str, int]) -> str:
    return ", ".join(list(counts)[:_TOLD]) + (", ..." if len(counts) > _TOLD else "")


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return pc.utf8_trim_whitespace(column.cast(pa.string()))


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Rows of each distinct value, in the order of the file; empty cells and NaN are none."""
    try:
        counted = pc.value_counts(_text(column)).to_pylist()
    except pa.ArrowException:  # a nested type names no instrument
        return {}
    return {each["values"]: each["counts"] for each in counted if each["values"] not in (None, "", "nan", "NaN")}


def _holds_contracts(column: pa.ChunkedArray) -> bool:
    """Tell whether every value is written as a futures contract, as ESH4."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    present = column.drop_null()
    if not len(present) or not re.match(_CONTRACT, str(present[0].as_py()).strip()):
        return False
    counts = _counts(column)
    return 2 <= len(counts) <= _MOST_DISTINCT and all(re.match(_CONTRACT, value) for value in counts)


def _tells_apart(column: pa.ChunkedArray, counts: dict[str, int], timestamp: NDArray[np.int64] | None) -> bool:
    """Tell whether few values of a column tell nearly all rows of one stamp apart."""
    assert timestamp is not None
    numeric = all(re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", value) for value in counts)
    if len(counts) > (_MOST_NUMBERS if numeric else _MOST_DISTINCT) or 3 * len(counts) > timestamp.size:
        return False
    codes = pc.fill_null(pc.index_in(_text(column), pa.array(list(counts))), len(counts)).to_numpy()
    pairs = np.unique(np.stack((timestamp, codes.astype(np.int64)), axis=1), axis=0)
    twice = timestamp.size - np.unique(timestamp).size
    return bool(timestamp.size - pairs.shape[0] <= 0.1 * twice)
