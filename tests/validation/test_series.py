"""Series of session returns: what timing leaves, seeds averaged, folds side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sentio_rllib.market.tape import Tape
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.baselines import table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator
from sentio_rllib.validation.schemes import Fold, Range, combinatorial, purged_kfold
from sentio_rllib.validation.series import combine, coverage, timing_returns
from tests.validation.records import record


def test_timing_by_hand() -> None:
    agent, hold = record([0.01, -0.02], exposure=0.3), record([0.02, -0.01], exposure=0.9)
    assert timing_returns(agent, hold).tolist() == pytest.approx([0.01 - 0.02 / 3, -0.02 + 0.01 / 3])


def test_who_is_always_long_has_no_timing_at_all() -> None:
    hold = record([0.1 / 3, -0.07, 0.013], exposure=0.95)
    assert timing_returns(hold, hold).tolist() == [0.0, 0.0, 0.0]
    nearly = replace(hold, session_returns=hold.session_returns * (1 + 1e-12))
    assert timing_returns(nearly, hold).tolist() == [0.0, 0.0, 0.0]


def test_who_is_never_long_keeps_its_returns() -> None:
    idle = record([0.0, 0.0], exposure=0.0, trades=0)
    assert timing_returns(idle, record([0.5, -0.5], exposure=0.9)).tolist() == [0.0, 0.0]
    assert timing_returns(record([0.1]), record([0.0], exposure=0.0)).tolist() == [0.1]


def test_other_sessions_are_refused() -> None:
    with pytest.raises(ValueError, match="different sessions"):
        timing_returns(record([0.1, 0.2]), record([0.1, 0.2], [0, 2]))


def test_buy_and_hold_walked_twice_has_no_timing(small_tape: Tape) -> None:
    blocks = [[Range(500, 2000)], [Range(2500, 4000)]]
    rules = TradingRules()
    evaluator = BlockEvaluator(small_tape.tensors(), rules, blocks, [(0, 0), (0, 1)])
    always = evaluator.evaluate(table_policy(np.ones(small_tape.n, dtype=np.int64))).greedy
    series = combine(always, always, [(0, 0), (0, 1)])
    assert np.abs(series.raw).max() > 1e-4
    assert not series.timing.any()


def test_seeds_are_averaged_and_parts_of_a_session_added() -> None:
    members = [(7, 0), (8, 0), (7, 1), (8, 1)]
    records = [
        record([0.01, 0.02], [3, 4], exposure=0.0),
        record([0.03, 0.00], [3, 4], exposure=0.0),
        record([0.10, 0.20], [4, 6], exposure=0.0),
        record([0.30, 0.00], [4, 6], exposure=0.0),
    ]
    series = combine(records, records, members)
    assert series.session.tolist() == [3, 4, 6]
    assert series.raw.tolist() == pytest.approx([0.02, 0.01 + 0.20, 0.10])


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
    assert combine(records, records, members, coverage(folds)).raw.tolist() == pytest.approx(list(gains.values()))
