"""Splits: footprints that share no bar, for every scheme, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio.model_selection import CombinatorialPurgedCV, WalkForward

from sentio_rllib.errors import SplitError
from sentio_rllib.validation.schemes import (
    combinatorial,
    cut_ranges,
    purged_kfold,
    training_segments,
    walk_forward,
)
from sentio_rllib.validation.splits import SCHEMES, Footprint, Range, Splits, holdout_split, make_splits

SMALL: dict[str, Any] = {
    "footprint": Footprint(lookback=20, receptive_field=4, decision_interval=5),
    "embargo": 30,
    "episode_length": 60,
    "min_validation_bars": 40,
}
CASES = (
    {"scheme": "purged_kfold", "folds": 4},
    {"scheme": "purged_kfold", "folds": 2, "holdout": 0.0},
    {"scheme": "walk_forward", "folds": 3},
    {"scheme": "walk_forward", "folds": 3, "expanding": False},
    {"scheme": "walk_forward", "folds": 3, "train_bars": 200, "validation_bars": 100},
    {"scheme": "walk_forward", "folds": 2, "train_bars": 200, "expanding": False},
    {"scheme": "combinatorial", "groups": 6, "test_groups": 2},
    {"scheme": "combinatorial", "groups": 5, "test_groups": 3, "holdout": 0.35},
)
every_scheme = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))


def bars_of(ranges: Iterable[Range]) -> list[int]:
    return [bar for each in ranges for bar in range(each.start, each.stop)]


def decisions_of(ranges: Iterable[Range], footprint: Footprint) -> list[int]:
    return [t for each in ranges for t in range(each.start, each.stop - footprint.after)]


def footprints_of(ranges: Iterable[Range], footprint: Footprint) -> set[int]:
    """The definition in DESIGN section 7, bar by bar."""
    back = footprint.lookback + footprint.receptive_field - 1
    ahead = footprint.decision_interval + 1
    return {bar for t in decisions_of(ranges, footprint) for bar in range(t - back, t + ahead + 1)}


def needed_bars(**arguments: Any) -> int:
    with pytest.raises(SplitError, match=r"needed \d+, available 1 ") as caught:
        make_splits(1, **arguments)
    return int(caught.value.lines[0].split("needed ")[1].split(",")[0])


def check_contract(splits: Splits, n: int, cuts: Sequence[int], arguments: dict[str, Any]) -> None:
    """What every scheme promises."""
    footprint, embargo = splits.footprint, splits.embargo
    min_train = arguments["episode_length"] + footprint.decision_interval + 2
    held = footprints_of(splits.holdout_blocks, footprint)
    assert not held & set(range(splits.development.stop))  # the tape that trials get
    assert bool(held) == (arguments.get("holdout", 0.2) > 0)
    assert not footprints_of(splits.refit, footprint) & held
    for fold in splits.folds:
        train = footprints_of(fold.train, footprint)
        validation = footprints_of(fold.validation, footprint)
        assert train
        assert validation
        assert not train & validation
        assert not (train | validation) & held
        assert min(train | validation) >= 0
        assert max(train | validation) < splits.development.stop
        assert all(len(each) >= min_train for each in fold.train)
        assert sum(map(len, fold.validation)) >= arguments["min_validation_bars"]
        for block, t in itertools.product(fold.validation, decisions_of(fold.train, footprint)):
            assert t < block.start or t >= block.stop - 1 + embargo
        for part in (fold.train, fold.validation):
            assert list(part) == sorted(part)
            assert len(set(bars_of(part))) == len(bars_of(part))
    ranges = [each for fold in splits.folds for part in (fold.train, fold.validation) for each in part]
    trained = [each for fold in splits.folds for each in fold.train] + list(splits.refit)
    assert not any(each.start < cut < each.stop for each in trained for cut in cuts)
    for each in (*ranges, *splits.refit, *splits.holdout_blocks):
        assert {each.start, each.stop} <= set(splits.boundaries())
    assert list(splits.boundaries()) == sorted(set(splits.boundaries()))
    assert 0 <= splits.boundaries()[0] < splits.boundaries()[-1] <= n


@st.composite
def split_arguments(draw: st.DrawFn) -> dict[str, Any]:
    embargo = draw(st.integers(0, 60))
    interval = draw(st.integers(1, 12))
    least = draw(st.integers(1, 80))
    episode = draw(st.integers(1, 100))
    arguments: dict[str, Any] = {
        "scheme": draw(st.sampled_from(SCHEMES)),
        "footprint": Footprint(draw(st.integers(0, 40)), draw(st.integers(1, 20)), interval),
        "embargo": embargo,
        "holdout": draw(st.sampled_from([0.0, 0.1, 0.2, 0.5]) | st.floats(0.05, 0.5)),
        "episode_length": episode,
        "min_validation_bars": least,
        "folds": draw(st.integers(2, 5)),
        "expanding": draw(st.booleans()),
        "groups": draw(st.integers(3, 6)),
    }
    arguments["test_groups"] = draw(st.integers(1, arguments["groups"] - 1))
    block = max(least, 2 * interval + 2, embargo + 1)
    arguments["train_bars"] = draw(st.none() | st.integers(episode + interval + 2, 250))
    arguments["validation_bars"] = draw(st.none() | st.integers(block, 150))
    return arguments


@settings(max_examples=150, deadline=None)
@given(split_arguments(), st.integers(0, 900), st.data())
def test_footprints_are_disjoint(arguments: dict[str, Any], more: int, data: st.DataObject) -> None:
    n = needed_bars(**arguments) + more
    cuts = data.draw(st.lists(st.integers(1, n - 1), max_size=4, unique=True).map(sorted))
    check_contract(make_splits(n, **arguments), n, (), arguments)
    try:
        splits = make_splits(n, cuts=cuts, **arguments)
    except SplitError as error:
        refusal = error.lines
    else:
        check_contract(splits, n, cuts, arguments)
        return
    assert refusal
    assert all(f"{len(cuts)} cuts" in line for line in refusal)


@settings(max_examples=60, deadline=None)
@given(split_arguments(), st.integers(0, 900))
def test_exactly_enough_bars_pass_and_one_fewer_fails(arguments: dict[str, Any], more: int) -> None:
    needed = needed_bars(**arguments)
    make_splits(needed, **arguments)
    make_splits(needed + more, **arguments)
    with pytest.raises(SplitError, match=f"needed {needed}, available {needed - 1} "):
        make_splits(needed - 1, **arguments)


@every_scheme
@pytest.mark.parametrize("cuts", [(), (700, 2400), (2400, 2405)])
def test_contract(case: dict[str, Any], cuts: tuple[int, ...]) -> None:
    arguments = SMALL | case
    check_contract(make_splits(3000, cuts=cuts, **arguments), 3000, cuts, arguments)


@every_scheme
def test_needed_bars_suffice_exactly(case: dict[str, Any]) -> None:
    needed = needed_bars(**SMALL, **case)
    splits = make_splits(needed, **SMALL, **case)
    assert splits == make_splits(needed, cuts=np.array([], dtype=np.int64), **SMALL, **case)
    for fewer in range(1, 40):
        with pytest.raises(SplitError, match=f"needed {needed}, available {needed - fewer} "):
            make_splits(needed - fewer, **SMALL, **case)


@every_scheme
def test_describe_counts_the_bars(case: dict[str, Any]) -> None:
    splits = make_splits(3000, cuts=(700, 2400), **SMALL, **case)
    stamps = np.datetime64("2024-01-01", "ns").astype(np.int64) + np.arange(3000) * 60_000_000_000
    rows = splits.describe(stamps)
    parts = [part for fold in splits.folds for part in (fold.train, fold.validation)]
    if splits.holdout:
        parts.append(splits.holdout_blocks)
    assert [row["bars"] for row in rows] == [len(bars_of(part)) for part in parts]
    assert [row["ranges"] for row in rows] == [len(part) for part in parts]
    first = str(np.datetime64("2024-01-01T00:00") + parts[0][0].start)[:10]
    assert rows[0] | {"first": first, "fold": 0, "part": "train"} == rows[0]
    assert (rows[-1]["part"], rows[-1]["fold"] == "-") == (
        ("holdout", True) if splits.holdout else ("validation", False)
    )
    with pytest.raises(SplitError, match="2000 bars"):
        splits.describe(stamps[:2000])
    with pytest.raises(TypeError, match="int64"):
        splits.describe(stamps.astype(np.float64))


def test_defaults_by_hand() -> None:
    splits = make_splits(100_000)
    assert splits.holdout == Range(80_000, 100_000)
    assert splits.development == Range(390, 79_610)
    assert [fold.validation for fold in splits.folds] == [
        (Range(390, 20_195),),
        (Range(20_195, 40_000),),
        (Range(40_000, 59_805),),
        (Range(59_805, 79_610),),
    ]
    assert splits.folds[1].train == (Range(390, 19_805), Range(40_390, 79_610))
    assert splits.folds[3].train == (Range(390, 59_415),)
    assert splits.refit == (splits.development,)


def test_training_ends_at_cuts_and_validation_is_carried_over_them() -> None:
    splits = make_splits(3000, cuts=(300, 310, 2990), folds=2, **SMALL)
    assert splits.development == Range(23, 2377)
    assert splits.folds[0].validation == (Range(23, 1200),)
    assert splits.folds[1].train == (Range(23, 300), Range(310, 1177))
    assert splits.folds[0].train == (Range(1229, 2377),)  # 1199 + embargo, later than 1200 + purge 23
    assert splits.holdout_blocks == (Range(2400, 3000),)


def test_boundaries_are_the_edges() -> None:
    splits = make_splits(3000, folds=2, **SMALL)
    assert splits.boundaries() == (23, 1177, 1200, 1229, 2377, 2400, 3000)


def test_one_bar_of_each_range_is_one_decision() -> None:
    footprint = Footprint(lookback=3, receptive_field=2, decision_interval=5)
    assert (footprint.before, footprint.after) == (4, 6)
    shortest = Range(10, 10 + footprint.after + 1)
    assert decisions_of([shortest], footprint) == [10]
    assert footprints_of([shortest], footprint) == set(range(10 - footprint.before, shortest.stop))


def test_kfold_groups_are_those_of_array_split() -> None:
    folds = purged_kfold(Range(7, 110), 4, purge=3, embargo=0)
    groups = np.array_split(np.arange(7, 110), 4)
    assert [bars_of(fold.validation) for fold in folds] == [group.tolist() for group in groups]


@pytest.mark.parametrize(("rows", "groups", "test_groups", "purge"), [(12, 3, 2, 1), (60, 6, 2, 3), (50, 5, 3, 0)])
def test_combinatorial_agrees_with_skfolio(rows: int, groups: int, test_groups: int, purge: int) -> None:
    peer = CombinatorialPurgedCV(groups, test_groups, purged_size=purge, embargo_size=0)
    folds = combinatorial(Range(0, rows), groups, test_groups, purge=purge, embargo=0)
    expected = list(peer.split(np.zeros((rows, 1))))
    assert len(folds) == len(expected)
    for fold, (train, tests) in zip(folds, expected, strict=True):
        assert bars_of(fold.train) == train.tolist()
        assert bars_of(fold.validation) == np.concatenate(tests).tolist()


def test_combinatorial_reference() -> None:
    folds = combinatorial(Range(0, 12), 3, 2, purge=1, embargo=0)
    assert [bars_of(fold.train) for fold in folds] == [[9, 10, 11], [5, 6], [0, 1, 2]]
    assert folds[0].validation == (Range(0, 8),)
    assert folds[1].validation == (Range(0, 4), Range(8, 12))


@pytest.mark.parametrize("embargo", [0, 1, 2, 4])
def test_the_later_of_purge_and_embargo_wins(embargo: int) -> None:
    """skfolio skips purge + embargo bars after a block; ours starts at the later of the two."""
    purge, rows = 2, 60
    peer = CombinatorialPurgedCV(6, 2, purged_size=purge, embargo_size=embargo)
    same = combinatorial(Range(0, rows), 6, 2, purge=purge, embargo=purge + embargo + 1)
    for fold, (train, _) in zip(same, peer.split(np.zeros((rows, 1))), strict=True):
        assert bars_of(fold.train) == train.tolist()
    (after,) = training_segments(Range(0, rows), [Range(0, 10)], purge=purge, embargo=embargo)
    assert after.start == {0: 12, 1: 12, 2: 12, 4: 13}[embargo]  # skfolio's: 12, 13, 14, 16


@pytest.mark.parametrize("expanding", [True, False])
@pytest.mark.parametrize("purge", [0, 3])
def test_walk_forward_agrees_with_skfolio(expanding: bool, purge: int) -> None:
    peer = WalkForward(test_size=10, train_size=20, expand_train=expanding, purged_size=purge)
    rows = 20 + purge + 4 * 10
    folds = walk_forward(Range(0, rows), 4, purge=purge, expanding=expanding, train_bars=20, validation_bars=10)
    expected = list(peer.split(np.zeros((rows, 1))))
    assert len(expected) == 4
    for fold, (train, test) in zip(folds, expected, strict=True):
        assert bars_of(fold.train) == train.tolist()
        assert bars_of(fold.validation) == test.tolist()


def test_walk_forward_ends_with_the_last_bar() -> None:
    folds = walk_forward(Range(5, 100), 2, purge=4, train_bars=30, validation_bars=20)
    assert [fold.validation for fold in folds] == [(Range(60, 80),), (Range(80, 100),)]
    assert [fold.train for fold in folds] == [(Range(26, 56),), (Range(26, 76),)]
    rolling = walk_forward(Range(5, 100), 2, purge=4, expanding=False, train_bars=30)
    assert [fold.validation for fold in rolling] == [(Range(39, 70),), (Range(70, 100),)]
    assert [fold.train for fold in rolling] == [(Range(5, 35),), (Range(36, 66),)]


def test_cut_ranges_by_hand() -> None:
    assert cut_ranges([Range(0, 10), Range(12, 20)], [3, 10, 12, 15], 4) == (Range(3, 10), Range(15, 20))


def test_holdout_is_rounded_and_may_be_none() -> None:
    footprint = Footprint(lookback=10)
    assert holdout_split(100, 0.29, footprint) == (Range(10, 61), Range(71, 100))
    assert holdout_split(100, 0.0, footprint) == (Range(10, 100), None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 1}, "folds: 1, allowed whole numbers 2"),
        ({"folds": True}, "folds: True"),
        ({"folds": 5000}, r"2 \.\. 1000"),
        ({"scheme": "walk_forward", "folds": 1}, "folds: 1"),
        ({"scheme": "kfold"}, "did you mean 'purged_kfold'"),
        ({"scheme": "combinatorial", "groups": 3, "test_groups": 3}, r"test_groups: 3, .* 1 \.\. 2"),
        ({"scheme": "combinatorial", "groups": 30, "test_groups": 10}, "30045015 splits"),
        ({"scheme": "walk_forward", "train_bars": 50}, "train_bars: 50, allowed whole numbers 67"),
        ({"scheme": "walk_forward", "validation_bars": 39}, "validation_bars: 39, .* 40"),
        ({"scheme": "walk_forward", "validation_bars": 50, "embargo": 50}, "validation_bars: 50, .* 51"),
        ({"embargo": -1}, "embargo: -1"),
        ({"embargo": 1.5}, "embargo: 1.5"),
        ({"holdout": 0.51}, r"holdout: 0.51, allowed 0 \.\. 0.5"),
        ({"holdout": -0.1}, "holdout: -0.1"),
        ({"holdout": float("nan")}, "holdout: nan"),
        ({"holdout": False}, "holdout: False"),
        ({"episode_length": 0}, "episode_length: 0"),
        ({"min_validation_bars": 0}, "min_validation_bars: 0"),
        ({"cuts": (0, 5)}, "cuts: allowed .* from 1 to 2999, found 0 after 0"),
        ({"cuts": (7, 5)}, "found 5 after 7"),
        ({"cuts": (5, 5)}, "cuts"),
        ({"cuts": (3000,)}, "found 3000 after 3000"),
    ],
)
def test_refused_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        make_splits(3000, **(SMALL | arguments))


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SplitError) as caught:
        make_splits(-1, folds=0, embargo=-2, holdout=2.0)
    assert [line.split(":")[0] for line in caught.value.lines] == ["n", "embargo", "holdout", "folds"]
    with pytest.raises(SplitError) as caught:
        Footprint(lookback=-1, receptive_field=0, decision_interval=0)
    assert len(caught.value.lines) == 3


def test_an_embargo_as_long_as_a_block_is_refused() -> None:
    splits = make_splits(3000, folds=4, **SMALL)
    shortest = min(len(block) for fold in splits.folds for block in fold.validation)
    make_splits(3000, folds=4, **(SMALL | {"embargo": shortest - 1}))
    with pytest.raises(SplitError, match=f"embargo: {shortest} bars, must be below the shortest block"):
        make_splits(3000, folds=4, **(SMALL | {"embargo": shortest}))


def test_cuts_that_leave_too_little_are_named() -> None:
    cuts = tuple(range(60, 1200, 60))
    with pytest.raises(SplitError) as caught:
        make_splits(3000, cuts=cuts, folds=2, **SMALL)
    (line,) = caught.value.lines
    assert line.startswith("fold 1: longest training segment: needed 67 bars (one episode), available 60;")
    assert "19 cuts" in line


def test_an_unreachable_holdout_is_refused() -> None:
    with pytest.raises(SplitError, match="available 3000"):
        make_splits(3000, holdout=1e-300, **SMALL)
