"""The folds in time: what is trained on, what is purged, what scores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sentio_rllib.report.blocks import Chart, Details, Note, ReportSection, Table
from sentio_rllib.report.figures import folds_figure
from sentio_rllib.report.formats import count
from sentio_rllib.report.sweep_files import DatedRange, Sweep


def folds_section(sweep: Sweep) -> ReportSection:
    """Return the folds on a time line, the purged gaps set apart."""
    if not sweep.folds:
        return ReportSection("folds", "Folds in time", [Note("folds.json is missing or holds no range.", "missing")])
    ranges = [*sweep.folds, *gaps(sweep.folds)]
    caption = (
        "Purged bars lie between training and validation, so that no decision of one reads bars of the other; where "
        "they are narrower than the eye they are drawn wider."
    )
    order = {fold: place for place, fold in enumerate(dict.fromkeys(each.fold for each in ranges))}
    rows = [
        (
            f"fold {each.fold}" if each.fold.isdecimal() else "holdout",
            "purged" if each.part == "gap" else each.part,
            f"{each.first:%Y-%m-%d %H:%M}",
            f"{each.last:%Y-%m-%d %H:%M}",
            count(each.bars),
        )
        for each in sorted(ranges, key=lambda each: (order[each.fold], each.first))
    ]
    table = Table(("fold", "part", "first, UTC", "last, UTC", "bars"), rows, words=frozenset({1}))
    details = Details(f"The {len(sweep.folds)} ranges and the gaps between them", blocks=[table])
    return ReportSection("folds", "Folds in time", [Chart(folds_figure(ranges), caption), details])


def gaps(ranges: Sequence[DatedRange]) -> list[DatedRange]:
    """Return the time between ranges of different parts that follow each other in a fold, and before a holdout."""
    found = []
    for fold in dict.fromkeys(each.fold for each in ranges):
        ordered = sorted((each for each in ranges if each.fold == fold), key=lambda each: each.first)
        found += [
            DatedRange(fold, "gap", before.last, after.first)
            for before, after in pairwise(ordered)
            if before.part != after.part and after.first > before.last
        ]
    for holdout in (each for each in ranges if each.part == "holdout"):
        earlier = [each.last for each in ranges if each.last < holdout.first]
        if earlier:
            found.append(DatedRange(holdout.fold, "gap", max(earlier), holdout.first))
    return found
