"""Phases of the decision grid: each is the walk of an evaluator that begins so many bars later."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.baselines import table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator, Evaluation, Record
from sentio_rllib.validation.splits import Range
from tests.trading.tapes import random_tape

BLOCKS = [[Range(2, 61), Range(70, 97)], [Range(30, 150)], [Range(5, 40), Range(41, 80), Range(100, 159)]]
"""Of three members, of unequal number and length."""
MEMBERS = [(1, 0), (1, 1), (2, 0)]


def assert_same(found: tuple[Record, ...], expected: tuple[Record, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        for field in fields(Record):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def evaluated(seed: int, interval: int, phases: int, blocks: list[list[Range]] = BLOCKS) -> Evaluation:
    """Random actions by bar on a wild tape with cuts, holdings over them and risk masks."""
    tape = random_tape(seed, bars=170)
    rules = TradingRules(
        decision_interval=interval,
        episode_length=60,
        max_drawdown=0.15,
        masks="risk",
        risk_first_minutes=1,
        risk_last_minutes=1,
        risk_volatility=2.0,
        cash_rate=0.05,
    )
    actions = np.random.default_rng(seed).integers(0, 3, tape.n)
    regimes = [(np.arange(tape.n) % 3).astype(np.int8)] * 3
    evaluator = BlockEvaluator(tape.tensors(), rules, blocks, MEMBERS, regimes=regimes, phases=phases)
    return evaluator.evaluate(table_policy(actions))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("interval", "phases"), [(5, 3), (3, 3), (7, 2), (8, 3)])
def test_each_phase_is_the_walk_of_blocks_that_begin_later(seed: int, interval: int, phases: int) -> None:
    found = evaluated(seed, interval, phases)
    assert len(found.phases) == phases
    for phase in range(phases):
        late = phase * interval // phases
        shifted = [[Range(block.start + late, block.stop) for block in each] for each in BLOCKS]
        assert_same(found.phases[phase], evaluated(seed, interval, 1, shifted).greedy)
    assert found.phases[0] is found.greedy


def test_phases_differ_where_it_matters_when_one_decides() -> None:
    first, *others = evaluated(0, 5, 3).phases
    assert all(first[0].session_returns.tolist() != each[0].session_returns.tolist() for each in others)


@pytest.mark.parametrize("phases", [1, 2, 5])
def test_more_phases_leave_the_first_and_the_sampled_walk_as_they_are(phases: int) -> None:
    one, several = evaluated(1, 5, 1), evaluated(1, 5, phases)
    assert_same(several.greedy, one.greedy)
    assert_same(several.sampled, one.sampled)
    assert one.phases == (one.greedy,)


def test_the_shortest_block_holds_a_decision_in_every_phase() -> None:
    # 12 bars hold two decisions every 5 bars, and from 3 bars later on one
    found = evaluated(2, 5, 3, [[Range(20, 32)], [Range(20, 32)], [Range(20, 32)]])
    assert [records[0].decisions for records in found.phases] == [2, 1, 1]
    assert [records[0].bars for records in found.phases] == [11, 10, 8]
