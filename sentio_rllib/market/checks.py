"""Checks of bars: values no market has, duplicates, order; a finding says how many, where, the way out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.market.sessions import MINUTE_NS

FIRST_ROWS = 3
_REMOVE = "correct or remove these rows in the file"


def iso_minute(timestamp_ns: int) -> str:
    """``2025-04-01T13:30Z`` for an instant in ns UTC."""
    return f"{np.datetime64(timestamp_ns, 'ns').astype('datetime64[m]')}Z"


def finding(
    what: str,
    rows: NDArray[np.int64],
    total: int,
    way_out: str,
    *,
    timestamp: NDArray[np.int64] | None = None,
    values: dict[str, NDArray[np.float64]] | None = None,
) -> str:
    """One line: what is wrong, in how many of `total` rows, the first of them, and the way out.

    `rows` int64[K] count data rows of the file from 0 and are told from 1; with `timestamp` int64[T] and
    `values` (float64[T] each) the first rows show their time and values.
    """
    told = []
    for row in rows[:FIRST_ROWS]:
        seen = [] if timestamp is None else [iso_minute(int(timestamp[row]))]
        seen += [f"{name} {column[row]:g}" for name, column in (values or {}).items()]
        told.append(f"{row + 1:,}" + (f" ({' '.join(seen)})" if seen else ""))
    return f"{what} in {rows.size:,} of {total:,} rows; first: row {', '.join(told)}: {way_out}"


def check_values(
    values: dict[str, NDArray[np.float64]],
    unreadable: dict[str, tuple[str, NDArray[np.int64]]],
    timestamp: NDArray[np.int64] | None,
) -> list[str]:
    """Findings on prices and volumes, one line per kind of mistake.

    Parameters
    ----------
    values
        ``open, high, low, close, volume``, float64[T].
    unreadable
        Text that is no number, by column: a sample and the rows.
    timestamp
        int64[T] ns UTC, or None where the stamps could not be read.
    """
    total = values["open"].size
    mistakes = []

    def tell(what: str, bad: NDArray[np.bool_], way_out: str, *names: str) -> None:
        rows = np.flatnonzero(bad)
        if rows.size:
            shown = {name: values[name] for name in names}
            mistakes.append(finding(what, rows, total, way_out, timestamp=timestamp, values=shown))

    for name, column in values.items():
        not_finite = ~np.isfinite(column)
        if name in unreadable:
            sample, rows = unreadable[name]
            not_finite[rows] = False
            mistakes.append(finding(f"{name} is no number (like {sample!r})", rows, total, _REMOVE))
        tell(f"{name} is NaN, absent or infinite", not_finite, _REMOVE)
        if name == "volume":
            tell("volume is negative", column < 0, _REMOVE, name)
        else:
            tell(f"{name} is not positive", column <= 0, _REMOVE, name)
    order = "pass columns if the file's order is another, else correct or remove these rows"
    open_, high, low, close = (values[name] for name in ("open", "high", "low", "close"))
    tell("high < low", high < low, order, "open", "high", "low", "close")
    outside = (np.maximum(open_, close) > high) | (np.minimum(open_, close) < low)
    tell(
        "open or close lies outside low .. high",
        outside & (high >= low),
        order,
        "open",
        "high",
        "low",
        "close",
    )
    return mistakes


def check_stamps(timestamp: NDArray[np.int64]) -> list[str]:
    """Findings on stamps that are no starts of minute bars; `timestamp` int64[T] ns UTC."""
    off_minute = np.flatnonzero(timestamp % MINUTE_NS)
    if off_minute.size:
        way_out = "bring 1-minute bars stamped at a full minute"
        what = f"the stamp is on no full minute (like {np.datetime64(int(timestamp[off_minute[0]]), 'ns')}Z)"
        return [finding(what, off_minute, timestamp.size, way_out)]
    steps = np.diff(np.unique(timestamp)) // MINUTE_NS
    if steps.size:
        sizes, counts = np.unique(steps, return_counts=True)
        usual = int(sizes[np.argmax(counts)])
        if usual != 1:
            return [f"the bars are {usual:,} minutes apart: bring 1-minute bars"]
    return []


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


def examine_order(timestamp: NDArray[np.int64], values: dict[str, NDArray[np.float64]]) -> tuple[Order, list[str]]:
    """Sort out order and duplicates; the findings name the option that mends them.

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
    mistakes = []
    if repeats.any():
        what = f"the stamp is a duplicate ({result.disagreeing_stamps:,} stamps disagree in their values)"
        way_out = "pass fix to keep the last row of each"
        mistakes.append(finding(what, np.sort(order[repeats]), total, way_out, timestamp=timestamp))
    if backward.size:
        what = "time goes back (unsorted)"
        mistakes.append(finding(what, backward, total, "pass fix to sort", timestamp=timestamp))
    return result, mistakes
