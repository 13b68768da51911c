"""Series of session returns: what timing leaves, seeds averaged, folds side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentio_rllib.market.tape import Tape
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.baselines import table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator
from sentio_rllib.validation.schemes import Fold, Range, combinatorial, purged_kfold
from sentio_rllib.validation.series import (
    APART,
    by_session,
    combine,
    coverage,
    market_mean,
    timing_returns,
    usual_exposure,
)
from tests.validation.records import record


def test_timing_by_hand() -> None:
    agent = record([0.01, -0.02, 0.03], exposure=[0.2, 0.8, 0.5], opening_exposure=0.4)
    hold = record([0.02, -0.01, 0.04], exposure=[0.8, 1.0, 0.5], opening_exposure=0.8)
    # relative to buy-and-hold's: 0.5 at first, then 0.25, 0.8 and 1.0
    # the means before each session: 0.5, (0.5 + 0.25) / 2 = 0.375, (0.5 + 0.25 + 0.8) / 3 = 0.51667
    expected = [
        0.01 - 0.5 * 0.02 - (0.25 - 0.5) * 0.004,
        -0.02 + 0.375 * 0.01 - (0.8 - 0.375) * 0.004,
        0.03 - 1.55 / 3 * 0.04 - (1.0 - 1.55 / 3) * 0.004,
    ]
    assert expected == pytest.approx([0.001, -0.01795, 0.0074], abs=1e-15)
    assert timing_returns(agent, hold, 0.004).tolist() == pytest.approx(expected, abs=1e-15)
    assert timing_returns(agent, hold, np.full(3, 0.004)).tolist() == pytest.approx(expected, abs=1e-15)
    # a mean of each session's own
    others = timing_returns(agent, hold, np.array([0.004, 0.1, 0.0]))
    assert others.tolist() == pytest.approx([0.001, -0.02 + 0.00375 - 0.0425, 0.03 - 1.55 / 3 * 0.04], abs=1e-15)


def test_a_single_fold_takes_the_markets_mean_from_elsewhere() -> None:
    gains = [0.01, 0.02, 0.03]
    agent, hold = record([0.0] * 3, exposure=[0.0, 1.0, 0.0]), record(gains, exposure=1.0)
    before = [0.0, 0.0, 1 / 3]
    expected = [-b * h - (e - b) * 0.05 for b, h, e in zip(before, gains, [0.0, 1.0, 0.0], strict=True)]
    found = combine([agent], {0: hold}, [(0, 0)], elsewhere=0.05).timing
    assert found.tolist() == pytest.approx(expected, abs=1e-15)
    without = combine([agent], {0: hold}, [(0, 0)]).timing  # as of a market without a drift
    assert without.tolist() == pytest.approx([-b * h for b, h in zip(before, gains, strict=True)], abs=1e-15)


@pytest.mark.parametrize("market", [0.0, 0.01])
def test_who_is_always_long_has_no_timing_at_all(market: float) -> None:
    hold = record([0.1 / 3, -0.07, 0.013], exposure=[0.95, 0.9501, 0.94], opening_exposure=0.951)
    assert timing_returns(hold, hold, market).tolist() == [0.0, 0.0, 0.0]
    nearly = replace(hold, session_returns=hold.session_returns * (1 + 1e-12))
    assert timing_returns(nearly, hold, market).tolist() == [0.0, 0.0, 0.0]


def test_who_is_never_long_keeps_its_returns() -> None:
    idle = record([0.0, 0.0], exposure=0.0, trades=0)
    assert timing_returns(idle, record([0.5, -0.5], exposure=0.9), 0.01).tolist() == [0.0, 0.0]
    assert timing_returns(record([0.1]), record([0.0], exposure=0.0), 0.0).tolist() == [0.1]


@given(seed=st.integers(0, 10_000), at=st.integers(0, 29))
def test_a_sessions_timing_is_of_what_was_held_before_it(seed: int, at: int) -> None:
    """What is held from a session on changes no timing before it; its own counts by the market's mean alone."""
    rng = np.random.default_rng(seed)
    returns, gains, held = rng.normal(0, 0.01, 30), rng.normal(0, 0.01, 30), rng.random(30)
    hold, later = record(gains, exposure=1.0), np.where(np.arange(30) < at, held, rng.random(30))
    one, two = (
        timing_returns(record(returns, exposure=each, opening_exposure=0.5), hold, 0.002) for each in (held, later)
    )
    assert one[:at].tolist() == two[:at].tolist()
    assert one[at] - two[at] == pytest.approx((later[at] - held[at]) * 0.002, abs=1e-15)


def test_nobody_is_paid_for_having_been_in_a_market_that_rose() -> None:
    """A market that gains the same at every session has no moments, so that no exposure has any timing."""
    rng = np.random.default_rng(3)
    folds = np.array_split(np.arange(100), 4)
    members = [(seed, fold) for fold in range(4) for seed in range(2)]
    hold = {fold: record(np.full(25, 0.01), each, exposure=1.0) for fold, each in enumerate(folds)}
    records = []
    for _, fold in members:
        held = rng.random(25)
        records.append(record(0.01 * held, folds[fold], exposure=held, opening_exposure=float(rng.random())))
    series = combine(records, hold, members)
    assert np.ptp(series.raw) > 1e-3
    np.testing.assert_allclose(series.timing, 0.0, atol=1e-15)


def test_a_short_session_and_the_parts_of_one_are_charged_by_their_bars() -> None:
    """A market that gains 0.01% a bar pays nobody for having been in it, however its sessions are divided."""
    bars = {0: [100.0, 54.0, 30.0], 1: [70.0, 100.0, 100.0]}
    hold = {
        fold: record(1.0001 ** np.array(each) - 1.0, [2 * fold, 2 * fold + 1, 2 * fold + 2], exposure=1.0)
        for fold, each in bars.items()
    }
    hold = {fold: replace(each, session_bars=np.array(bars[fold])) for fold, each in hold.items()}
    exposures = {0: [1.0, 1.0, 0.0], 1: [0.0, 1.0, 1.0]}
    records = [
        replace(
            each, session_returns=each.session_returns * exposures[fold], session_exposure=np.array(exposures[fold])
        )
        for fold, each in hold.items()
    ]
    series = combine(records, hold, [(0, 0), (0, 1)])
    np.testing.assert_allclose(series.timing, 0.0, atol=1e-4)  # but for compounding; a whole session is 1e-2


def test_other_sessions_are_refused() -> None:
    with pytest.raises(ValueError, match="different sessions"):
        timing_returns(record([0.1, 0.2]), record([0.1, 0.2], [0, 2]), 0.0)


# -- the market's mean elsewhere --------------------------------------------------------------------------------


def test_sessions_near_a_fold_do_not_tell_its_market() -> None:
    sessions, own = np.arange(100), np.arange(40, 60)
    hold = np.where((sessions < 40 - APART) | (sessions >= 60 + APART), 0.01, 9.9)
    assert APART == 10
    assert market_mean(own, sessions, hold, np.ones(sessions.size)) == pytest.approx(0.01)
    hold[[40 - APART - 1, 60 + APART]] = 0.03  # the nearest that count
    assert market_mean(own, sessions, hold, np.ones(sessions.size)) == pytest.approx((58 * 0.01 + 2 * 0.03) / 60)


def test_distances_are_of_ordinals_and_to_the_nearest_session_of_a_fold() -> None:
    # sessions 1, 25 and 50 are missing; combinatorial folds have blocks apart
    sessions = np.setdiff1d(np.arange(140), [1, 25, 50])
    own = np.array([30, 31, 90])
    apart = (np.abs(sessions[:, None] - own) > APART).all(1)
    hold = np.where(apart, 0.02, -9.9)
    assert sessions[apart].tolist() == [0, *range(2, 20), *range(42, 50), *range(51, 80), *range(101, 140)]
    assert market_mean(own, sessions, hold, np.ones(sessions.size)) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("last", "nearest"),
    [
        (15, 11),  # of 15 others the last five are a third
        (14, 10),  # four of 14 would be less
        (6, 5),
        (2, 2),  # one of two
        (1, 1),
    ],
)
def test_a_third_of_the_others_is_left_however_near(last: int, nearest: int) -> None:
    sessions = np.arange(last + 1)
    hold = np.where(sessions >= nearest, 0.02, -9.9)
    assert market_mean(np.array([0]), sessions, hold, np.ones(sessions.size)) == pytest.approx(0.02)


def test_without_other_sessions_the_market_has_no_mean() -> None:
    assert market_mean(np.arange(5), np.arange(5), np.full(5, 0.1), np.ones(5)) == 0.0


@given(seed=st.integers(0, 10_000))
def test_a_folds_own_sessions_do_not_tell_its_market(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sessions = np.sort(rng.choice(150, int(rng.integers(2, 100)), replace=False))
    own = np.sort(rng.choice(sessions, int(rng.integers(1, sessions.size)), replace=False))
    hold = rng.normal(0.0, 0.01, sessions.size)
    changed = np.where(np.isin(sessions, own), rng.normal(0.0, 9.9, sessions.size), hold)
    found = market_mean(own, sessions, hold, np.ones(sessions.size))
    assert market_mean(own, sessions, changed, np.ones(sessions.size)) == found
    # it is the mean of all that are farther than some distance, of at least a third of the others
    distance = np.array([min(abs(each - mine) for mine in own) for each in sessions])
    means = {far: hold[distance > far].mean() for far in range(APART + 1) if (distance > far).any()}
    chosen = max(far for far in means if 3 * (distance > far).sum() >= (distance > 0).sum())
    assert found == pytest.approx(means[chosen], abs=1e-15)


# -- configurations ---------------------------------------------------------------------------------------------


def test_buy_and_hold_walked_twice_has_no_timing(small_tape: Tape) -> None:
    blocks = [[Range(500, 2000)], [Range(2500, 4000)]]
    rules = TradingRules()
    evaluator = BlockEvaluator(small_tape.tensors(), rules, blocks, [(0, 0), (0, 1)])
    always = evaluator.evaluate(table_policy(np.ones(small_tape.n, dtype=np.int64))).greedy
    series = combine(always, dict(enumerate(always)), [(0, 0), (0, 1)])
    assert np.abs(series.raw).max() > 1e-4
    assert not series.timing.any()


def test_seeds_are_averaged_and_parts_of_a_session_multiplied() -> None:
    members = [(7, 0), (8, 0), (7, 1), (8, 1)]
    records = [
        record([0.01, 0.02], [3, 4], exposure=0.0),
        record([0.03, 0.00], [3, 4], exposure=0.0),
        record([0.10, 0.20], [4, 6], exposure=0.0),
        record([0.30, 0.00], [4, 6], exposure=0.0),
    ]
    hold = {0: records[0], 1: records[2]}
    series = combine(records, hold, members)
    assert series.session.tolist() == [3, 4, 6]
    assert series.raw.tolist() == pytest.approx([0.02, 1.01 * 1.20 - 1, 0.10])
    # who holds nothing has its own returns as timing, of which those of parts are added
    assert series.timing.tolist() == pytest.approx([0.02, 0.01 + 0.20, 0.10])


def test_timing_of_two_folds_that_divide_a_session_by_hand() -> None:
    hold = {
        0: record([0.01, 0.02, 0.03], [0, 1, 2], exposure=1.0),
        1: record([0.10, 0.00, 0.05], [2, 3, 4], exposure=1.0),
    }
    records = [
        record([0.002, 0.01, 0.02], [0, 1, 2], exposure=[0.5, 1.0, 0.25], opening_exposure=1.0),
        record([0.03, 0.01, -0.02], [2, 3, 4], exposure=[0.0, 0.5, 1.0], opening_exposure=0.0),
    ]
    series = combine(records, hold, [(0, 0), (0, 1)])
    assert series.raw.tolist() == pytest.approx([0.002, 0.01, 1.02 * 1.03 - 1, 0.01, -0.02])
    # of the sessions outside fold 0, 3 and 4, the farther one tells 0.05, and of those outside fold 1 session 0 0.01
    # means before: 1, (1 + 0.5) / 2, (1 + 0.5 + 1) / 3 in fold 0, and 0, 0, 0.5 / 3 in fold 1
    first = 0.02 - 2.5 / 3 * 0.03 - (0.25 - 2.5 / 3) * 0.05
    second = 0.03 - 0.0 * 0.10 - (0.0 - 0.0) * 0.01
    expected = [
        0.002 - 1.0 * 0.01 - (0.5 - 1.0) * 0.05,
        0.01 - 0.75 * 0.02 - (1.0 - 0.75) * 0.05,
        first + second,
        0.01 - 0.0 * 0.00 - (0.5 - 0.0) * 0.01,
        -0.02 - 0.5 / 3 * 0.05 - (1.0 - 0.5 / 3) * 0.01,
    ]
    assert series.timing.tolist() == pytest.approx(expected, abs=1e-15)


def test_the_market_of_a_divided_session_is_that_of_both_parts() -> None:
    """A third fold is told the mean by what buy-and-hold's parts multiply to, over the bars of both."""
    hold = {
        0: record([0.10], [0], exposure=1.0),
        1: record([0.10], [0], exposure=1.0),
        2: record([0.0, 0.0], [1, 2], exposure=1.0),
        3: record([0.3], [90], exposure=1.0),  # the farthest, which tells what is usual, and no mean
    }
    agent = {fold: record(0.0 * each.session_returns, each.session, exposure=0.0) for fold, each in hold.items()}
    agent[2] = record([0.0, 0.0], [1, 2], exposure=[1.0, 0.0], opening_exposure=0.7)
    series = combine(list(agent.values()), hold, [(0, 0), (0, 1), (0, 2), (0, 3)])
    # before: 0 of two sessions that count for what is usual, then 1 of three
    assert series.timing[1:3].tolist() == pytest.approx([-(1.1 * 1.1 - 1) / 2, 0.105 / 3])


def test_what_is_usual_is_told_by_the_farthest_fold_and_the_mean_by_the_others() -> None:
    hold = {
        fold: record([gain] * 2, [50 * fold, 50 * fold + 1], exposure=0.5)
        for fold, gain in enumerate([0.01, 0.02, 0.04])
    }
    agent = [
        record([0.0, 0.0], [0, 1], exposure=[0.25, 0.5], opening_exposure=0.1),
        record([0.0, 0.0], [50, 51], exposure=[0.1, 0.1]),
        record([0.0, 0.0], [100, 101], exposure=[0.3, 0.2]),
    ]
    series = combine(agent, hold, [(7, 0), (7, 1), (7, 2)])
    # fold 0: usual (0.6 + 0.4) / 2 from fold 2 for two sessions, the mean 0.02 from fold 1
    first, second = 0.5, (2 * 0.5 + 0.5) / 3
    expected = [-first * 0.01 - (0.5 - first) * 0.02, -second * 0.01 - (1.0 - second) * 0.02]
    assert series.timing[:2].tolist() == pytest.approx(expected)
    # with two folds there is none to spare: the first bar's exposure, and the other fold's mean
    pair = combine(agent[:2], {fold: hold[fold] for fold in (0, 1)}, [(7, 0), (7, 1)])
    first, second = 0.2, (0.2 + 0.5) / 2
    expected = [-first * 0.01 - (0.5 - first) * 0.02, -second * 0.01 - (1.0 - second) * 0.02]
    assert pair.timing[:2].tolist() == pytest.approx(expected)
    assert usual_exposure(agent[:1], [hold[0]]) == pytest.approx(0.75)


def test_paths_of_combinatorial_folds_are_averaged() -> None:
    usable = Range(0, 400)
    folds = combinatorial(usable, 4, 2, purge=1, embargo=1)
    assert coverage(folds) == 3
    assert coverage(purged_kfold(usable, 4, purge=1, embargo=1)) == 1
    assert coverage([Fold(0, (), (Range(0, 10), Range(20, 30))), Fold(1, (), (Range(5, 25),))]) == 2
    gains = dict(enumerate([0.01, 0.02, 0.03, 0.04]))
    records, members = [], []
    for fold in folds:
        groups = [group for group in gains for block in fold.validation if block.start <= group * 100 < block.stop]
        records.append(record([gains[group] for group in groups], groups, exposure=0.0))
        members.append((0, fold.index))
    series = combine(records, dict(enumerate(records)), members, coverage(folds))
    assert series.raw.tolist() == pytest.approx(list(gains.values()))
    assert series.timing.tolist() == pytest.approx(list(gains.values()))  # who holds nothing


def test_paths_are_averaged_geometrically() -> None:
    records = [record([0.21], [0], exposure=0.0), record([0.0], [0], exposure=0.0)]
    _, returns, _, _ = by_session(records, [(0, 0), (0, 1)], 2)
    assert returns.tolist() == pytest.approx([0.1])
