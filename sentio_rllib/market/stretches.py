"""Stretches of a file that are no minutes: a regular step of several minutes, or bars that repeat the one before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.market.checks import PRICES, iso_minute
from sentio_rllib.market.sessions import DAY_NS, MINUTE_NS

LEAST_STEPS = 8
"""Fewest equal steps in a row that count as a regular step, whatever its size."""
CHANCE = 1e-8
"""Largest chance that a market in which bars are missing at random takes so many equal steps at a given bar."""
REPEATED_SHARE = 0.45
"""Share of a day's bars from which repeated ones are looked at: bars of two minutes that are filled have one half."""
ON_GRID = 0.95
"""Share of the bars that are new that has to lie on a grid of k minutes."""
_LONGEST_STEP = 60


def check_steps(timestamp: NDArray[np.int64]) -> list[str]:
    """Tell of stretches whose regular step is k > 1 minutes, a line for each k.

    Parameters
    ----------
    timestamp
        int64[T] ns UTC, sorted and unique, on full minutes.
    """
    if timestamp.size < 2:
        return []
    steps = np.diff(timestamp) // MINUTE_NS
    sizes, counts = np.unique(steps, return_counts=True)
    usual = int(sizes[np.argmax(counts)])
    apart = int(np.gcd.reduce(steps))
    usual = apart if apart > 1 else usual
    if usual > 1 and (apart > 1 or 2 * counts.max() > steps.size):  # in a thin market no step is of most bars
        return [f"the bars are {usual:,} minutes apart: bring 1-minute bars"]
    starts = np.flatnonzero(np.concatenate(([True], steps[1:] != steps[:-1])))
    lengths = np.diff(np.append(starts, steps.size))
    step = np.maximum(steps[starts], 2).astype(np.float64)
    # with a bar in a share p of the minutes a step of k has p (1 - p)^(k - 1), at most this, where p is 1 / k
    likely = (1 - 1 / step) ** (step - 1) / step
    regular = (steps[starts] > 1) & (lengths >= np.maximum(LEAST_STEPS, np.log(CHANCE) / np.log(likely)))
    lines = []
    for size in np.unique(steps[starts[regular]]):
        first = starts[regular & (steps[starts] == size)]
        last = int(first[-1] + lengths[np.searchsorted(starts, first[-1])])
        bars = int(np.sum(lengths[np.searchsorted(starts, first)])) + first.size
        lines.append(
            f"{bars:,} bars between {iso_minute(int(timestamp[first[0]]))} and {iso_minute(int(timestamp[last]))} are "
            f"{size:,} minutes apart throughout: bring 1-minute bars of these times, or cut them from the file"
        )
    return lines


def check_repeats(timestamp: NDArray[np.int64], values: dict[str, NDArray[np.float64]]) -> list[str]:
    """Tell of days that were filled forward from bars of k minutes.

    A bar repeats the one before where all its values are the same, or where it holds the close alone, with no volume
    or the same. In a thin market that happens at any minute; after resampling, all but every k-th bar does.

    Parameters
    ----------
    timestamp
        int64[T] ns UTC, sorted and unique.
    values
        ``open, high, low, close, volume``, float64[T].
    """
    if timestamp.size < 2:
        return []
    alike = _repeats(timestamp, values)
    day = timestamp // DAY_NS
    starts = np.flatnonzero(np.concatenate(([True], np.diff(day) > 0)))
    sizes = np.diff(np.append(starts, timestamp.size))
    shares = np.add.reduceat(alike.astype(np.int64), starts) / sizes
    filled: dict[int, list[int]] = {}
    for index in np.flatnonzero(shares >= REPEATED_SHARE):
        rows = np.arange(starts[index], starts[index] + sizes[index])
        step = _grid(timestamp[rows[~alike[rows]]] // MINUTE_NS, float(shares[index]))
        if step:
            filled.setdefault(step, []).append(int(index))
    lines = []
    for step, days in sorted(filled.items()):
        first, last = int(starts[days[0]]), int(starts[days[-1]] + sizes[days[-1]] - 1)
        lines.append(
            f"most bars of {len(days):,} days between {iso_minute(int(timestamp[first]))} and "
            f"{iso_minute(int(timestamp[last]))} repeat the one before; only every {step} minutes is one new, as after "
            f"filling forward from bars of {step} minutes: bring true 1-minute bars"
        )
    return lines or _mostly_repeated(alike & (values["high"] > values["low"]))


def _repeats(timestamp: NDArray[np.int64], values: dict[str, NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Tell the bars that repeat the one of the minute before, bool[T]."""
    same = {name: np.concatenate(([False], column[1:] == column[:-1])) for name, column in values.items()}
    equal = np.logical_and.reduce(list(same.values()))
    before = np.concatenate(([np.nan], values["close"][:-1]))
    flat = np.logical_and.reduce([values[name] == before for name in PRICES])
    flat &= same["volume"] | (values["volume"] == 0)
    follows = np.concatenate(([False], np.diff(timestamp) == MINUTE_NS))
    return np.asarray((equal | flat) & follows)


def _grid(minutes: NDArray[np.int64], share: float) -> int:
    """Return the largest step k on whose grid nearly all of the minutes lie, 0 where there is none.

    As many bars as k - 1 of k have to be repeated, so that a thin market on a grid by chance is none.
    """
    if minutes.size < LEAST_STEPS:
        return 0
    for step in range(_LONGEST_STEP, 1, -1):
        on_grid = int(np.bincount(minutes % step).max())
        if on_grid >= ON_GRID * minutes.size and share >= 0.9 * (step - 1) / step:
            return step
    return 0


def _mostly_repeated(repeated: NDArray[np.bool_]) -> list[str]:
    share = float(np.mean(repeated))
    if share <= 0.5 or repeated.size < _LONGEST_STEP:
        return []
    return [f"{share:.0%} of the bars repeat the one before, in range and volume too: bring bars that are not filled"]
