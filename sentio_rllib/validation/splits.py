"""Purged splits: the bars that train, those that validate, and those nobody sees before the holdout opens.

The *footprint* of a decision at bar t is every bar that it can read or that can change its outcome:
``[t - before, t + after]``. Within a fold the footprints of training and of validation share no bar, and
neither shares one with the holdout.

Decisions in ``[start, stop)`` fall where the next decision's fill still lies inside, so footprints of training,
validation and holdout are compared as plain ranges. Validation takes its last decision up to one interval before a
block's end and holds to the last close, where it is liquidated.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.errors import SplitError
from sentio_rllib.validation.schemes import (
    Fold,
    Range,
    combinatorial,
    cut_ranges,
    purged_kfold,
    walk_forward,
)

__all__ = [
    "MAX_FOLDS",
    "SCHEMES",
    "Fold",
    "Footprint",
    "Range",
    "Splits",
    "combinatorial",
    "holdout_split",
    "make_splits",
    "purged_kfold",
    "walk_forward",
]

SCHEMES = ("purged_kfold", "walk_forward", "combinatorial")
MAX_FOLDS = 1_000
"""More folds than this are refused: every fold is a network of the trial."""

_LONGEST_SEARCH = 2**53  # bars; beyond it no number of bars is named


def _whole(name: str, value: object, least: int, most: int | None = None) -> list[str]:
    """Return a line where `value` is no whole number within its range."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if whole and least <= value and (most is None or value <= most):  # type: ignore[operator]
        return []
    return [f"{name}: {value!r}, allowed whole numbers {least} .. {'' if most is None else most}".rstrip()]


@dataclass(frozen=True)
class Footprint:
    """How far a decision reaches, in bars; the largest of the search space keeps scores comparable.

    Too small a `lookback` or `receptive_field` lets training read bars of the validation (look-ahead).

    Parameters
    ----------
    lookback
        Bars before the current one that a feature reads, >= 0.
    receptive_field
        Bars of features that the encoder reads, >= 1 (1 for an MLP).
    decision_interval
        Bars between two decisions, >= 1.

    Raises
    ------
    SplitError
        A value is no whole number or below its minimum.
    """

    lookback: int = 390
    receptive_field: int = 1
    decision_interval: int = 15

    def __post_init__(self) -> None:
        mistakes = [
            *_whole("lookback", self.lookback, 0),
            *_whole("receptive_field", self.receptive_field, 1),
            *_whole("decision_interval", self.decision_interval, 1),
        ]
        if mistakes:
            raise SplitError(*mistakes)

    @property
    def before(self) -> int:
        """Bars before t that a decision at t reads."""
        return self.lookback + self.receptive_field - 1

    @property
    def after(self) -> int:
        """Bars after t until the fill of the next decision, which ends the reward of this one."""
        return self.decision_interval + 1


@dataclass(frozen=True)
class Splits:
    """All folds of a sweep and the holdout.

    Attributes
    ----------
    folds
        What the trials train and score on. No training segment crosses a cut of the tape; validation blocks do, and
        carry what is held over it, since nobody could have sold before a hole.
    development
        The bars in which folds and refit lie. Trials get the tape cut at ``development.stop``.
    holdout
        The last bars, None for a share of 0. Its footprints begin at ``development.stop``.
    footprint, embargo
        What the separation was computed with, in bars.
    refit
        Training segments of the champion: the development between the cuts.
    holdout_blocks
        The holdout as one block, across cuts.
    """

    folds: tuple[Fold, ...]
    development: Range
    holdout: Range | None
    footprint: Footprint
    embargo: int
    refit: tuple[Range, ...]
    holdout_blocks: tuple[Range, ...]

    def boundaries(self) -> tuple[int, ...]:
        """Return the sorted bar indices of every edge of segments, blocks and holdout.

        A stop is exclusive, so the end of the tape appears as the number of its bars.
        """
        ranges = [*self.refit, *self.holdout_blocks, *((self.holdout,) if self.holdout else ())]
        for fold in self.folds:
            ranges += [*fold.train, *fold.validation]
        return tuple(sorted({edge for each in ranges for edge in (each.start, each.stop)}))

    def describe(self, timestamps: NDArray[np.int64]) -> list[dict[str, str | int]]:
        """Return one row per fold and part, and one for the holdout, to be printed.

        Parameters
        ----------
        timestamps
            int64[T], starts of the bars, nanoseconds UTC, of the tape that was split.

        Returns
        -------
        list of dict
            Keys ``fold`` ("-" for the holdout), ``part`` (train, validation, holdout), ``first`` and ``last``
            (dates in UTC, last inclusive), ``bars`` and ``ranges`` (number of segments or blocks).

        Raises
        ------
        SplitError
            The tape is shorter than the splits.
        TypeError
            `timestamps` is not int64[T].
        """
        if not isinstance(timestamps, np.ndarray) or timestamps.dtype != np.int64 or timestamps.ndim != 1:
            raise TypeError("timestamps must be an int64 array of rank 1 (nanoseconds UTC)")
        needed = self.boundaries()[-1]
        if len(timestamps) < needed:
            raise SplitError(f"timestamps: {len(timestamps)} bars, needed {needed}; pass the tape that was split")
        parts: list[tuple[str | int, str, tuple[Range, ...]]] = []
        for fold in self.folds:
            parts += [(fold.index, "train", fold.train), (fold.index, "validation", fold.validation)]
        if self.holdout_blocks:
            parts.append(("-", "holdout", self.holdout_blocks))
        return [_row(fold, part, ranges, timestamps) for fold, part, ranges in parts]


def holdout_split(n: int, share: float, footprint: Footprint) -> tuple[Range, Range | None]:
    """Return the development and the holdout, the last `share` of `n` bars (rounded).

    The development starts at the first bar whose look-back is on the tape and ends where the footprints of
    the holdout begin, so a tape cut at its stop shows nothing that the holdout reads.
    """
    held = round(n * share)
    if held == 0:
        return Range(footprint.before, n), None
    return Range(footprint.before, n - held - footprint.before), Range(n - held, n)


@dataclass(frozen=True)
class _Plan:
    """The parameters of :func:`make_splits` but the tape, so that any number of bars can be tried."""

    scheme: str
    footprint: Footprint
    embargo: int
    holdout: float
    episode_length: int
    min_validation_bars: int
    folds: int
    expanding: bool
    groups: int
    test_groups: int
    train_bars: int | None
    validation_bars: int | None

    @property
    def min_train_bars(self) -> int:
        return self.episode_length + self.footprint.decision_interval + 2

    @property
    def min_block_bars(self) -> int:
        return 2 * self.footprint.decision_interval + 2

    def mistakes(self) -> list[str]:
        """Return a line for every parameter of the scheme that is out of its range."""
        found = [
            *_whole("embargo", self.embargo, 0),
            *_whole("episode_length", self.episode_length, 1),
            *_whole("min_validation_bars", self.min_validation_bars, 1),
        ]
        share = self.holdout
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 <= share <= 0.5:
            found.append(f"holdout: {share!r}, allowed 0 .. 0.5 (share of the bars)")
        if self.scheme not in SCHEMES:
            near = difflib.get_close_matches(str(self.scheme), SCHEMES, n=1, cutoff=0.0)[0]
            found.append(f"scheme: {self.scheme!r}, allowed {', '.join(SCHEMES)}; did you mean {near!r}?")
        elif self.scheme == "combinatorial":
            found += self._wrong_groups()
        else:
            found += _whole("folds", self.folds, 2, MAX_FOLDS)
        if self.scheme == "walk_forward" and not found:
            least = max(self.min_validation_bars, self.min_block_bars, self.embargo + 1)
            if self.train_bars is not None:
                found += _whole("train_bars", self.train_bars, self.min_train_bars)
            if self.validation_bars is not None:
                found += _whole("validation_bars", self.validation_bars, least)
        return found

    def _wrong_groups(self) -> list[str]:
        found = _whole("groups", self.groups, 2, MAX_FOLDS)
        found += _whole("test_groups", self.test_groups, 1, None if found else self.groups - 1)
        if not found and math.comb(self.groups, self.test_groups) > MAX_FOLDS:
            count = math.comb(self.groups, self.test_groups)
            found.append(f"groups, test_groups: {count} splits, allowed up to {MAX_FOLDS}; lower `groups`")
        return found

    def layout(self, usable: Range) -> tuple[Fold, ...]:
        """Return the folds of `usable` as the scheme lays them out, whatever their lengths."""
        purge = self.footprint.before
        if self.scheme == "purged_kfold":
            return purged_kfold(usable, self.folds, purge=purge, embargo=self.embargo)
        if self.scheme == "combinatorial":
            return combinatorial(usable, self.groups, self.test_groups, purge=purge, embargo=self.embargo)
        return walk_forward(
            usable,
            self.folds,
            purge=purge,
            expanding=self.expanding,
            train_bars=self.train_bars,
            validation_bars=self.validation_bars,
        )

    def split(self, n: int, cuts: Sequence[int]) -> Splits:
        """Return the splits of `n` bars, or name what is needed and what is available."""
        splits, lacks = self.splits(n, cuts)
        if splits is not None:
            return splits
        needed = self.needed_bars()
        if n < needed:
            raise SplitError(
                f"too few bars for {self.scheme}: needed {needed}, available {n} ({lacks[0]}); bring more bars, or "
                "lower the number of folds, `episode_length`, `embargo`, `min_validation_bars` or the footprint"
            )
        raise SplitError(*(f"{lack}; the tape has {len(cuts)} cuts: bring bars with fewer gaps" for lack in lacks))

    def splits(self, n: int, cuts: Sequence[int]) -> tuple[Splits | None, list[str]]:
        """Return the splits of `n` bars and nothing, or None and a line for everything that is too short."""
        development, holdout = holdout_split(n, self.holdout, self.footprint)
        raw = self.layout(development)
        lacks = []
        shortest = min(len(block) for fold in raw for block in fold.validation)
        if shortest <= self.embargo:
            lacks.append(f"embargo: {self.embargo} bars, must be below the shortest block, {shortest} bars")
        folds = []
        for fold in raw:
            train = cut_ranges(fold.train, cuts, self.min_train_bars)
            blocks = tuple(block for block in fold.validation if len(block) >= self.min_block_bars)
            folds.append(Fold(fold.index, train, blocks))
            if not train:
                longest = max(map(len, cut_ranges(fold.train, cuts, 0)), default=0)
                needed = f"needed {self.min_train_bars} bars (one episode)"
                lacks.append(f"fold {fold.index}: longest training segment: {needed}, available {longest}")
            lacks += self._short(f"fold {fold.index}: validation", blocks)
        held = (holdout,) if holdout is not None and len(holdout) >= self.min_block_bars else ()
        if self.holdout > 0:
            lacks += self._short("holdout", held)
        if lacks:
            return None, lacks
        refit = cut_ranges([development], cuts, self.min_train_bars)
        return Splits(tuple(folds), development, holdout, self.footprint, self.embargo, refit, held), []

    def _short(self, part: str, blocks: Sequence[Range]) -> list[str]:
        available = sum(map(len, blocks))
        if available >= self.min_validation_bars:
            return []
        return [f"{part}: needed {self.min_validation_bars} bars in usable blocks, available {available}"]

    def needed_bars(self) -> int:
        """Return the least number of bars without cuts that suffices, by bisection.

        No length within a fold shrinks when the tape grows, so what suffices once suffices ever after.
        """

        def enough(n: int) -> bool:
            return self.splits(n, ())[0] is not None

        high = 1
        while not enough(high):
            high *= 2
            if high > _LONGEST_SEARCH:
                return high
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high


def make_splits(
    n: int,
    *,
    cuts: Sequence[int] | NDArray[np.int64] = (),
    scheme: str = "purged_kfold",
    footprint: Footprint = Footprint(),
    embargo: int = 390,
    holdout: float = 0.2,
    episode_length: int = 1000,
    min_validation_bars: int = 780,
    folds: int = 4,
    expanding: bool = True,
    groups: int = 6,
    test_groups: int = 2,
    train_bars: int | None = None,
    validation_bars: int | None = None,
) -> Splits:
    """Return the folds and the holdout of a tape of `n` bars.

    Training segments shorter than one episode (``episode_length + decision_interval + 2``) and validation
    blocks with fewer than two decisions (``2 * decision_interval + 2``) are left out.

    Parameters
    ----------
    n
        Bars of the tape.
    cuts
        Ascending bar indices, 0 < cut < n, at which a new stretch starts; no training segment crosses one.
    scheme
        ``purged_kfold`` (`folds`), ``walk_forward`` (`folds`, `expanding`, `train_bars`, `validation_bars`)
        or ``combinatorial`` (`groups`, `test_groups`). What a scheme does not use is not looked at.
    footprint
        The largest one of the search space. Too small a one leaks (look-ahead).
    embargo
        Bars from a block's last bar to the first training decision after it; below the shortest block.
    holdout
        Share of the bars, 0 .. 0.5; 0 keeps none.
    episode_length
        Bars of a training episode, the longest one of the search space.
    min_validation_bars
        Least number of bars that a fold validates on, and that the holdout holds.
    folds, expanding, groups, test_groups, train_bars, validation_bars
        See :func:`purged_kfold`, :func:`walk_forward` and :func:`combinatorial`.

    Raises
    ------
    SplitError
        An argument is out of its range, or the bars do not suffice: then needed and available are named.
    """
    sizes = (embargo, holdout, episode_length, min_validation_bars)
    plan = _Plan(scheme, footprint, *sizes, folds, expanding, groups, test_groups, train_bars, validation_bars)
    mistakes = [*_whole("n", n, 0), *plan.mistakes()]
    if mistakes:
        raise SplitError(*mistakes)
    return plan.split(n, _ascending(cuts, n))


def _ascending(cuts: Sequence[int] | NDArray[np.int64], n: int) -> list[int]:
    at = [int(cut) for cut in cuts]
    for left, right in itertools.pairwise([0, *at, n] if at else []):
        if right <= left:
            raise SplitError(f"cuts: allowed ascending bar indices from 1 to {n - 1}, found {right} after {left}")
    return at


def _row(fold: int | str, part: str, ranges: tuple[Range, ...], timestamps: NDArray[np.int64]) -> dict[str, str | int]:
    ends = timestamps[[ranges[0].start, ranges[-1].stop - 1]].astype("datetime64[ns]").astype("datetime64[D]")
    bars = sum(map(len, ranges))
    row: dict[str, str | int] = {"fold": fold, "part": part, "first": str(ends[0]), "last": str(ends[1])}
    return row | {"bars": bars, "ranges": len(ranges)}
