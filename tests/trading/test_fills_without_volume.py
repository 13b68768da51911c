"""Bars in which nothing was traded: nobody is there to fill an order, unless the file tells no volume at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.tape import build_tape
from sentio_rllib.trading.masks import BUY, HOLD, SELL
from sentio_rllib.trading.simulator import Simulator, StepResult, TradingRules
from tests.strategies import make_bars, session_minutes
from tests.trading.tapes import bars_of, make_tape, whole

RULES = TradingRules(fee_rate=0.0, max_position=1.0, decision_interval=2, episode_length=20, max_drawdown=0.3)


def account(quiet: list[int], close: list[float] | None = None, **changes: Any) -> Simulator:
    """One flat account at bar 1 of a tape on which nothing is traded in the bars `quiet`."""
    prices = [100.0] * 12 if close is None else close
    fillable = np.ones(len(prices), dtype=np.bool_)
    fillable[quiet] = False
    tape = make_tape([prices[0], *prices[:-1]], prices, session_lengths=[6, len(prices) - 6], fillable=fillable)
    simulator = Simulator(tape.tensors(), RULES.replace(**changes), 1)
    simulator.reset(whole(1), bars_of(1, 1), bars_of(1, len(prices)))
    return simulator


def told(result: StepResult) -> tuple[bool, bool, float]:
    return bool(result.traded), bool(result.invalid), float(result.turnover)


def test_an_order_finds_nobody_and_is_cancelled() -> None:
    simulator = account(quiet=[2])
    assert told(simulator.step(bars_of(1, BUY))) == (False, False, 0.0)
    assert (float(simulator.shares), float(simulator.cash)) == (0.0, 100_000.0)
    seen = simulator.observe()
    assert seen.mask.tolist() == [[True, True, False]]
    assert seen.portfolio[0].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]  # no fill, no trade
    # the next one is filled, at the open of a bar with volume
    assert told(simulator.step(bars_of(1, BUY))) == (True, False, pytest.approx(100_000.0))
    assert float(simulator.shares) == pytest.approx(1_000.0)


def test_a_sell_finds_nobody_and_the_position_stays() -> None:
    simulator = account(quiet=[4], close=[100.0] * 4 + [90.0] * 8)
    simulator.step(bars_of(1, BUY))
    assert told(simulator.step(bars_of(1, SELL))) == (False, False, 0.0)
    assert float(simulator.shares) == pytest.approx(1_000.0)
    assert float(simulator.equity) == pytest.approx(90_000.0)  # and falls with the price
    assert told(simulator.step(bars_of(1, SELL))) == (True, False, pytest.approx(90_000.0))
    assert float(simulator.shares) == 0.0


def test_what_the_account_cannot_do_is_invalid_whether_there_is_volume_or_not() -> None:
    for quiet in ([], [2]):
        assert told(account(quiet).step(bars_of(1, SELL))) == (False, True, 0.0)


def test_orders_fill_without_volume_where_the_rules_say_so() -> None:
    simulator = account(quiet=[2, 4], fill_without_volume=True)
    assert told(simulator.step(bars_of(1, BUY))) == (True, False, pytest.approx(100_000.0))
    assert told(simulator.step(bars_of(1, SELL))) == (True, False, pytest.approx(100_000.0))


@pytest.mark.parametrize("marked", [1, 3, 4])
def test_volume_of_other_bars_than_the_fills_does_not_matter(marked: int) -> None:
    assert told(account(quiet=[marked]).step(bars_of(1, BUY)))[0]


def test_forced_exits_are_filled_all_the_same() -> None:
    # the close of bar 4 is a stop, executed at the open of bar 5, in which nothing is traded
    simulator = account(quiet=[4, 5], close=[100.0] * 4 + [60.0] * 8)
    simulator.step(bars_of(1, BUY))
    stopped = simulator.step(bars_of(1, HOLD))
    assert (bool(stopped.terminated), float(stopped.turnover)) == (True, pytest.approx(60_000.0))
    # bar 5 is the last one of its session
    simulator = account(quiet=[5], flat_by_close=True, close_minutes=0)
    simulator.step(bars_of(1, BUY))
    closed = simulator.step(bars_of(1, HOLD))
    assert (bool(closed.traded), float(simulator.shares)) == (True, 0.0)


def bars_with(volume: list[float]) -> Bars:
    """Bars of one session whose first volumes are these, and then 5."""
    bars = make_bars(session_minutes("2024-11-04", "2024-11-04"), seed=1)
    values = np.full(bars.n, 5.0)
    values[: len(volume)] = volume
    return replace(bars, volume=values)


def test_bars_are_fillable_with_volume_or_before_any_was_told() -> None:
    tape = build_tape(bars_with([0.0, 0.0, 0.0, 7.0, 9.0, 0.0, 4.0, 0.0, 0.0]))
    assert tape.fillable[:9].tolist() == [True, True, True, True, True, False, True, False, False]
    assert tape.fillable[9:].all()
    assert not tape.always_fillable
    assert build_tape(bars_with([7.0, 0.0])).fillable[:3].tolist() == [True, False, True]


def test_a_file_that_tells_no_volume_fills_every_order() -> None:
    tape = build_tape(bars_with([0.0] * 390))
    assert tape.fillable.all()
    assert tape.always_fillable
    simulator = Simulator(tape.tensors(), RULES.replace(decision_interval=1), 1)
    simulator.reset(whole(1), bars_of(1, 1), bars_of(1, tape.n))
    traded = [bool(simulator.step(bars_of(1, action)).traded) for action in [BUY, SELL] * 8]
    assert traded == [True] * 16


def test_rows_at_different_bars_are_told_apart() -> None:
    fillable = np.ones(12, dtype=np.bool_)
    fillable[5] = False
    tape = make_tape([100.0] * 12, [100.0] * 12, fillable=fillable)
    simulator = Simulator(tape.tensors(), RULES, 3)
    simulator.reset(whole(3), torch.tensor([3, 4, 5]), bars_of(3, 12))
    assert simulator.step(bars_of(3, BUY)).traded.tolist() == [True, False, True]
