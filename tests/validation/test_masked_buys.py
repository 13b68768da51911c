"""Buys that risk masks forbid: counted by cause, where there was room for one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sentio_rllib.market.tape import Tape
from sentio_rllib.trading.masks import BUY, HOLD
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.baselines import table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator, Record
from sentio_rllib.validation.performance import describe
from sentio_rllib.validation.splits import Range
from tests.trading.tapes import make_tape

BARS = 60
DECISIONS = 11
"""Of the block, at bars 2, 7, 12, .. 52: minutes 2, 7, 12 and 17 of sessions of 20 bars, the last of them cut short."""
RULES = TradingRules(
    masks="risk",
    fee_rate=0.0,
    decision_interval=5,
    episode_length=100,
    max_drawdown=0.1,
    risk_first_minutes=5,
    risk_last_minutes=5,
    risk_volatility=3.0,
    reference_volatility=5e-4,
    risk_drawdown=0.75,
)


def calm(close: list[float] | None = None, volatility: dict[int, float] | None = None) -> Tape:
    """A price of 100, or `close`, and one-bar volatilities of 5e-4 but where others are given."""
    prices = [100.0] * BARS if close is None else close
    levels = np.full(BARS, 5e-4)
    for bar, level in (volatility or {}).items():
        levels[bar] = level
    return make_tape([prices[0], *prices[:-1]], prices, session_lengths=[20] * 3, volatility=levels)


def walked(tape: Tape, bought: int | None = None, **changes: Any) -> Record:
    """The record of an account that buys at one bar's close, or never."""
    actions = np.full(BARS, HOLD, dtype=np.int64)
    if bought is not None:
        actions[bought] = BUY
    evaluator = BlockEvaluator(tape.tensors(), RULES.replace(**changes), [[Range(2, BARS)]], [(0, 0)])
    return evaluator.evaluate(table_policy(actions)).greedy[0]


def counted(record: Record) -> tuple[int, int, int, int]:
    return record.could_buy, record.masked_volatility, record.masked_clock, record.masked_drawdown


def test_the_clock_forbids_the_first_and_the_last_minutes() -> None:
    # minute 2 in three sessions, minute 17, which leaves 2, in two
    assert counted(walked(calm())) == (DECISIONS, 0, 5, 0)
    assert counted(walked(calm(), risk_first_minutes=0)) == (DECISIONS, 0, 2, 0)
    assert counted(walked(calm(), risk_first_minutes=3, risk_last_minutes=2)) == (DECISIONS, 0, 3, 0)


def test_volatility_forbids_above_its_limit_at_the_bars_of_decisions() -> None:
    # above the limit of 1.5e-3 at three decisions, of which the clock forbids the one at bar 22 as well
    levels = {12: 1.6e-3, 22: 2e-3, 27: 1.51e-3, 32: 1.49e-3, 13: 9e-3, 14: 9e-3, 53: 9e-3}
    assert counted(walked(calm(volatility=levels))) == (DECISIONS, 3, 5, 0)
    assert counted(walked(calm(volatility=levels), risk_volatility=3.1)) == (DECISIONS, 2, 5, 0)


def test_a_drawdown_forbids_from_its_share_of_the_stop_on() -> None:
    # half of the money at 100, then 84: 8% lost, of 10% that stop
    fallen = calm(close=[100.0] * 15 + [84.0] * 45)
    # the eight decisions from bar 17 on
    assert counted(walked(fallen, bought=7, position_step=0.5)) == (DECISIONS, 0, 5, 8)
    assert counted(walked(fallen, bought=7, position_step=0.5, risk_drawdown=0.85)) == (DECISIONS, 0, 5, 0)


def test_where_there_is_no_room_nothing_is_forbidden() -> None:
    # full after the Buy at bar 7, so that only it and the one at bar 2 could have been
    levels = {7: 2e-3, 12: 2e-3}
    record = walked(calm(), bought=7, max_position=0.5, position_step=0.5)
    assert counted(record) == (2, 0, 1, 0)
    assert record.trades == 2
    # a Buy that is forbidden is none, and leaves room for others
    record = walked(calm(volatility=levels), bought=7, max_position=0.5, position_step=0.5)
    assert counted(record) == (DECISIONS, 2, 5, 0)
    assert record.trades == 0


def test_after_a_drawdown_stop_nothing_could_have_been_bought() -> None:
    fallen = calm(close=[100.0] * 15 + [80.0] * 45)
    record = walked(fallen, bought=7)
    assert record.drawdown_stops == 1
    assert counted(record) == (2, 0, 1, 0)  # at bars 2 and 7; then full, and after the stop out for good


@pytest.mark.parametrize("masks", ["none", "state"])
def test_without_risk_masks_nothing_is_counted(masks: str) -> None:
    record = walked(calm(volatility={12: 1.0}), masks=masks)
    assert counted(record) == (0, 0, 0, 0)
    assert described([record])["masked_volatility"] is None


def test_members_and_blocks_are_counted_apart() -> None:
    tape = calm(volatility={12: 1.6e-3})
    blocks = [[Range(2, 20), Range(42, BARS)], [Range(22, BARS)]]
    evaluator = BlockEvaluator(tape.tensors(), RULES, blocks, [(0, 0), (0, 1)], phases=2)
    found = evaluator.evaluate(table_policy(np.full(BARS, HOLD, dtype=np.int64)))
    # bars 2, 7, 12 and 42, 47, 52 of the first; 22, 27, .. 52 of the second
    assert [counted(record) for record in found.greedy] == [(6, 1, 2, 0), (7, 0, 3, 0)]
    assert [counted(record) for record in found.sampled] == [(6, 1, 2, 0), (7, 0, 3, 0)]
    # two bars later: 4, 9 and 44, 49; 24, 29, .. 49, of which minutes 4, 19 and 4 are forbidden
    assert [counted(record) for record in found.phases[1]] == [(4, 0, 2, 0), (6, 0, 3, 0)]


def described(records: list[Record]) -> dict[str, Any]:
    returns = records[0].session_returns
    return describe(returns, returns, records, sessions_per_year=252, initial_cash=1e5, count=len(records))


def test_shares_are_those_of_all_possible_buys() -> None:
    first = walked(calm(volatility={12: 1.6e-3, 27: 2e-3}))
    second = walked(calm(), bought=7, max_position=0.5, position_step=0.5)
    found = described([first, second])
    assert found["masked_volatility"] == pytest.approx(2 / 13)
    assert found["masked_clock"] == pytest.approx(6 / 13)
    assert found["masked_drawdown"] == 0.0
