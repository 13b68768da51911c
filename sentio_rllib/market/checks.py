"""Checks of bars: values no market has, duplicates, order; a finding says how many, where, the way out."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.market.sessions import MINUTE_NS

FIRST_ROWS = 3
PRICES = ("open", "high", "low", "close")
ROUNDING = 1e-9
"""Relative amount by which open and close may lie outside low .. high, as products of adjusted prices do."""
TWO_MARKETS = 0.05
"""Rows of one stamp whose closes differ by more are of two instruments rather than of two downloads."""
_REMOVE = "correct or remove these rows in the file"
_ORDER = "pass columns if the file's order is another, else correct or remove these rows"
_NEGATIVE = (
    "returns are of positive prices, so true prices below 0 (oil in April 2020, spreads) cannot be traded here; "
    "futures that are back-adjusted by differences come below 0 as well: bring them adjusted by ratios"
)
_NO_VOLUME = "correct these rows, or pass volume='none' where the file has no true volume (some write -1 for that)"

Unreadable = dict[str, tuple[str, NDArray[np.int64]]]


def iso_minute(timestamp_ns: int) -> str:
    """``2025-04-01T13:30Z`` for an instant in ns UTC."""
    return f"{np.datetime64(timestamp_ns, 'ns').astype('datetime64[m]')}Z"


@dataclass(frozen=True)
class Places:
    """Where the rows of a file stand in it: `numbers` int64[T], from 1, are `kind` ``line`` (of text) or ``row``."""

    kind: str
    numbers: NDArray[np.int64]


@dataclass(frozen=True)
class Fault:
    """What is wrong, in which rows int64[K] (counted from 0), and the way out; `shown` names columns to quote."""

    what: str
    rows: NDArray[np.int64]
    way_out: str
    shown: tuple[str, ...] = ()

    def line(
        self,
        total: int,
        places: Places,
        timestamp: NDArray[np.int64] | None = None,
        values: dict[str, NDArray[np.float64]] | None = None,
    ) -> str:
        """One line: what is wrong, in how many of `total` rows, the first of them with time and values, the way out."""
        told = []
        for row in self.rows[:FIRST_ROWS]:
            seen = [] if timestamp is None else [iso_minute(int(timestamp[row]))]
            seen += [f"{name} {column[row]:.12g}" for name, column in (values or {}).items() if name in self.shown]
            told.append(f"{places.numbers[row]:,}" + (f" ({' '.join(seen)})" if seen else ""))
        first = f"first: {places.kind} {', '.join(told)}"
        return f"{self.what} in {self.rows.size:,} of {total:,} rows; {first}: {self.way_out}"


def widened_range(
    open_: NDArray[np.float64], high: NDArray[np.float64], low: NDArray[np.float64], close: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """High and low, float64[T] each, that hold open and close where these lie outside by no more than rounding.

    Adjusted prices are products, so that a close that was the high may come out an ulp above it.
    """
    top, bottom = np.maximum.reduce((open_, high, low, close)), np.minimum.reduce((open_, high, low, close))
    slack = ROUNDING * np.abs(top)
    return np.where(top - high <= slack, top, high), np.where(low - bottom <= slack, bottom, low)


def without_prices(values: dict[str, NDArray[np.float64]], unreadable: Unreadable) -> NDArray[np.bool_]:
    """Tell the rows, bool[T], in which open, high, low and close are all empty or NaN."""
    absent = np.logical_and.reduce([np.isnan(values[name]) for name in PRICES])
    for name in PRICES:
        if name in unreadable:
            absent[unreadable[name][1]] = False
    return np.asarray(absent)


def check_values(values: dict[str, NDArray[np.float64]], unreadable: Unreadable) -> list[Fault]:
    """Findings on prices and volumes, one for each cause.

    Parameters
    ----------
    values
        ``open, high, low, close, volume``, float64[T].
    unreadable
        Text that is no number, by column: a sample and the rows.
    """
    found = _not_numbers(values, unreadable)

    def tell(what: str, bad: NDArray[np.bool_], way_out: str, *shown: str) -> None:
        rows = np.flatnonzero(bad)
        if rows.size:
            found.append(Fault(what, rows, way_out, shown))

    def of_prices(what: str, bad: dict[str, NDArray[np.bool_]], way_out: str) -> None:
        names = [name for name in PRICES if bad[name].any()]
        tell(f"{', '.join(names)} is {what}", np.logical_or.reduce(list(bad.values())), way_out, *names)

    of_prices("negative", {name: values[name] < 0 for name in PRICES}, _NEGATIVE)
    of_prices("0", {name: values[name] == 0 for name in PRICES}, _REMOVE)
    tell("volume is negative", values["volume"] < 0, _NO_VOLUME, "volume")
    open_, high, low, close = (values[name] for name in PRICES)
    tell("high < low", high < low, _ORDER, *PRICES)
    outside = (np.maximum(open_, close) > high) | (np.minimum(open_, close) < low)
    tell("open or close lies outside low .. high", outside & (high >= low), _ORDER, *PRICES)
    return found


def _not_numbers(values: dict[str, NDArray[np.float64]], unreadable: Unreadable) -> list[Fault]:
    found: list[Fault] = []
    total = values["open"].size
    not_finite = {name: ~np.isfinite(column) for name, column in values.items()}
    for name, (_, rows) in unreadable.items():
        not_finite[name][rows] = False
    if unreadable:
        rows = np.unique(np.concatenate([rows for _, rows in unreadable.values()]))
        sample = next(iter(unreadable.values()))[0]
        mended = re.fullmatch(r"[+-]?\d+,\d+", sample)
        way_out = "pass decimal=',' if the comma is a decimal mark" if mended else _REMOVE
        found.append(Fault(f"{', '.join(unreadable)} is no number (like {sample!r})", rows, way_out))
    names = [name for name in values if not_finite[name].any()]
    if names:
        rows = np.flatnonzero(np.logical_or.reduce([not_finite[name] for name in names]))
        way_out = _NO_VOLUME if names == ["volume"] and rows.size == total else _REMOVE
        found.append(Fault(f"{', '.join(names)} is NaN, absent or infinite", rows, way_out))
    return found


def check_stamps(timestamp: NDArray[np.int64]) -> list[Fault]:
    """Findings on stamps that are no starts of minutes; `timestamp` int64[T] ns UTC."""
    off_minute = np.flatnonzero(timestamp % MINUTE_NS)
    if not off_minute.size:
        return []
    what = f"the stamp is on no full minute (like {np.datetime64(int(timestamp[off_minute[0]]), 'ns')}Z)"
    return [Fault(what, off_minute, "bring 1-minute bars stamped at a full minute")]


@dataclass(frozen=True)
class Order:
    """How the rows of a file stand in time.

    Attributes
    ----------
    keep
        int64[K], the rows that make sorted, unique bars: of each stamp the last row in file order.
    exact_duplicates
        Rows dropped so whose stamp has equal values throughout.
    disagreeing_stamps, disagreeing_rows
        Stamps whose rows differ, and the rows dropped for them.
    steps_back
        Places where a row is earlier than the one before it.
    """

    keep: NDArray[np.int64]
    exact_duplicates: int
    disagreeing_stamps: int
    disagreeing_rows: int
    steps_back: int


def examine_order(
    timestamp: NDArray[np.int64], values: dict[str, NDArray[np.float64]], *, fix: bool
) -> tuple[Order, list[Fault]]:
    """Sort out order and duplicates; the findings name the option that mends them, and hold what `fix` may not.

    `timestamp` int64[T] ns UTC, `values` float64[T] each.
    """
    total = timestamp.size
    backward = np.flatnonzero(np.diff(timestamp) < 0) + 1
    order = np.argsort(timestamp, kind="stable") if backward.size else np.arange(total)
    ordered = timestamp[order]
    repeats = np.concatenate(([False], ordered[1:] == ordered[:-1]))
    differs = np.zeros(total, dtype=bool)
    for column in values.values():
        arranged = column[order]
        differs[1:] |= arranged[1:] != arranged[:-1]
    group = np.cumsum(~repeats) - 1
    disagreeing = np.zeros(group[-1] + 1, dtype=bool)
    disagreeing[group[repeats & differs]] = True
    in_disagreeing = int((repeats & disagreeing[group]).sum())
    result = Order(
        keep=order[np.concatenate((~repeats[1:], [True]))],
        exact_duplicates=int(repeats.sum()) - in_disagreeing,
        disagreeing_stamps=int(disagreeing.sum()),
        disagreeing_rows=in_disagreeing,
        steps_back=int(backward.size),
    )
    close = values["close"][order]
    apart = repeats.copy()
    apart[1:] &= np.abs(close[1:] / close[:-1] - 1) > TWO_MARKETS
    if 2 * apart.sum() > repeats.sum():
        what = f"rows of one stamp have closes more than {TWO_MARKETS:.0%} apart, as of several instruments,"
        way_out = "bring one of them, or keep the column that tells which is which and pass symbol"
        return result, [Fault(what, np.sort(order[apart]), way_out, ("close",))]
    found = []
    if repeats.any() and not fix:
        what = f"the stamp is a duplicate ({result.disagreeing_stamps:,} stamps disagree in their values)"
        found.append(Fault(what, np.sort(order[repeats]), "pass fix to keep the last row of each"))
    if backward.size and not fix:
        found.append(Fault("time goes back (unsorted)", backward, "pass fix to sort"))
    return result, found
