"""Index arithmetic of the splitting schemes: which ranges train and which validate, whatever their lengths.

The schemes are those of Lopez de Prado, *Advances in Financial Machine Learning* (2018), chapters 7 and 12,
with one difference: where libraries such as skfolio add the embargo to the purge, here **the later of the two
wins** (:func:`training_segments`). `sentio_rllib.validation.splits` turns them into the folds of a sweep.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Range:
    """Half-open range of bars ``[start, stop)``.

    Decisions of a range fall where everything after them still lies inside: at t in
    ``[start, stop - 1 - after]``. What they read begins at ``start - before``.
    """

    start: int
    stop: int

    def __len__(self) -> int:
        return max(self.stop - self.start, 0)


@dataclass(frozen=True)
class Fold:
    """Training segments and validation blocks of one split, each in time order."""

    index: int
    train: tuple[Range, ...]
    validation: tuple[Range, ...]


def training_segments(usable: Range, blocks: Sequence[Range], *, purge: int, embargo: int) -> tuple[Range, ...]:
    """Return what remains of `usable` for training beside validation `blocks` in time order.

    Before a block ``[a, b)`` training stops at ``a - purge``. After it training starts at
    ``max(b + purge, b - 1 + embargo)``: `purge` bars are skipped, and the first decision comes at least
    `embargo` bars after the block's last bar. **The later of purge and embargo wins.** skfolio skips
    purge + embargo bars instead: its (purge p, embargo e) is (purge p, embargo p + e + 1) here.

    Parameters
    ----------
    usable
        Bars on which decisions may start.
    blocks
        Validation blocks.
    purge
        Bars that a footprint reaches back, >= 0; a smaller number than the footprint's is look-ahead.
    embargo
        Bars from a block's last bar to the first training decision after it, >= 0.
    """
    starts = [usable.start, *(max(each.stop + purge, each.stop - 1 + embargo) for each in blocks)]
    stops = [*(each.start - purge for each in blocks), usable.stop]
    return tuple(Range(start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop)


def purged_kfold(usable: Range, folds: int, *, purge: int, embargo: int) -> tuple[Fold, ...]:
    """Split `usable` into equal groups (as ``numpy.array_split``); each is once the validation block."""
    return combinatorial(usable, folds, 1, purge=purge, embargo=embargo)


def combinatorial(usable: Range, groups: int, test_groups: int, *, purge: int, embargo: int) -> tuple[Fold, ...]:
    """Make a fold of every choice of `test_groups` out of `groups` equal groups, in lexicographic order.

    Adjacent test groups become one block. With 12 bars, 3 groups, 2 of them test, and a purge of 1 the
    training bars are [9, 10, 11], [5, 6] and [0, 1, 2], as in skfolio's ``CombinatorialPurgedCV``. (Where
    `groups` does not divide the bars, skfolio gives all that is left over to the last group.)
    """
    edges = _group_edges(usable, groups)
    folds = []
    for index, chosen in enumerate(itertools.combinations(range(groups), test_groups)):
        blocks = _merged(Range(edges[group], edges[group + 1]) for group in chosen)
        train = training_segments(usable, blocks, purge=purge, embargo=embargo)
        folds.append(Fold(index, train, blocks))
    return tuple(folds)


def walk_forward(
    usable: Range,
    folds: int,
    *,
    purge: int,
    expanding: bool = True,
    train_bars: int | None = None,
    validation_bars: int | None = None,
) -> tuple[Fold, ...]:
    """Validate on adjacent blocks that end with `usable`; each fold trains on what lies before its block.

    No training follows a block of its fold, so an embargo has nothing to do.

    Parameters
    ----------
    usable
        Bars on which decisions may start.
    folds
        Number of validation blocks.
    purge
        Bars that a footprint reaches back.
    expanding
        True: all folds train from the start of the first window. False: windows keep the length of the first.
    train_bars
        Length of the first training window; older bars are not used. None: everything before the first block,
        which is one of ``folds + 1`` equal groups unless `validation_bars` says otherwise.
    validation_bars
        Length of a block. None: equal groups.

    Returns
    -------
    tuple of Fold
        A training window that does not fit into `usable` is left out.
    """
    if validation_bars is not None:
        edges = [usable.stop - validation_bars * left for left in range(folds, -1, -1)]
    elif train_bars is not None:
        edges = _group_edges(Range(usable.start + train_bars + purge, usable.stop), folds)
    else:
        edges = _group_edges(usable, folds + 1)[1:]
    first_start = usable.start if train_bars is None else edges[0] - purge - train_bars
    made = []
    for index, (start, stop) in enumerate(itertools.pairwise(edges)):
        train = Range(first_start + (0 if expanding else start - edges[0]), start - purge)
        fits = usable.start <= train.start < train.stop
        made.append(Fold(index, (train,) if fits else (), (Range(start, stop),)))
    return tuple(made)


def training_stretch(fold: Fold) -> Range:
    """Return training bars as many as the fold validates on, or as there are in one segment, next to its block.

    On them an agent's score tells, beside that in validation, how much of it is fit to its own bars.
    """
    first = fold.validation[0]
    bars = sum(map(len, fold.validation))
    near = [
        Range(max(each.start, each.stop - bars), each.stop)
        if each.start < first.start
        else Range(each.start, min(each.stop, each.start + bars))
        for each in fold.train
    ]
    return max(near, key=lambda each: (len(each), -abs(each.start - first.start)))


def cut_ranges(ranges: Iterable[Range], cuts: Sequence[int], least: int) -> tuple[Range, ...]:
    """Split `ranges` at every cut inside them and leave out pieces shorter than `least` bars."""
    pieces = []
    for each in ranges:
        edges = [each.start, *(cut for cut in cuts if each.start < cut < each.stop), each.stop]
        pieces += [Range(*pair) for pair in itertools.pairwise(edges) if pair[1] - pair[0] >= least]
    return tuple(pieces)


def _group_edges(usable: Range, groups: int) -> list[int]:
    """Return the ``groups + 1`` edges of equal groups; the first are one bar longer, as in array_split."""
    size, longer = divmod(usable.stop - usable.start, groups)
    return [usable.start + group * size + min(group, longer) for group in range(groups + 1)]


def _merged(blocks: Iterable[Range]) -> tuple[Range, ...]:
    """Join the ranges, in time order, that touch."""
    merged: list[Range] = []
    for block in blocks:
        if merged and merged[-1].stop == block.start:
            merged[-1] = Range(merged[-1].start, block.stop)
        else:
            merged.append(block)
    return tuple(merged)
