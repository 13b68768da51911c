"""Drawdown stops and exits at the close: by hand, and not to look where none can be."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentio_rllib.trading.simulator import Simulator, StepResult, TradingRules
from tests.trading.tapes import bars_of, make_tape, random_tape, trading_rules, whole

BUSY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def drop(level: list[float], **changes: object) -> tuple[Simulator, StepResult]:
    """Buy everything at 100 at the open of bar 2, then follow `level` (open = previous close)."""
    rules = TradingRules(fee_rate=0.0, max_position=1.0, decision_interval=3, episode_length=30).replace(**changes)
    close = [100.0, 100.0, *level]
    tape = make_tape([100.0, *close[:-1]], close, session_lengths=[4, len(close) - 4])
    simulator = Simulator(tape.tensors(), rules, 1)
    simulator.reset(whole(1), bars_of(1, 1), bars_of(1, len(close)))
    return simulator, simulator.step(bars_of(1, 1))


def test_drawdown_is_measured_from_the_peak_within_the_interval() -> None:
    simulator, result = drop([125.0, 100.0, 90.0, 80.0, 80.0])
    assert result.terminated.item()
    assert result.equity_path[0].tolist() == pytest.approx([125_000, 100_000, 100_000])
    assert float(simulator.shares) == 0.0
    # sold at the open of the third bar, so held over two and still there at the close of the second
    assert simulator.holdings().over.tolist() == [pytest.approx([1_000, 1_000, 0])]
    assert simulator.holdings().after.tolist() == [[True, True, False]]


def test_a_stop_at_the_last_close_is_executed_at_the_open_after_and_covered() -> None:
    close = [100.0, 100.0, 100.0, 100.0, 79.0, 79.0, 79.0]
    opening = [100.0, 100.0, 100.0, 100.0, 100.0, 70.0, 79.0]
    rules = TradingRules(fee_rate=0.0, max_position=1.0, decision_interval=3, episode_length=30)
    simulator = Simulator(make_tape(opening, close).tensors(), rules, 1)
    simulator.reset(whole(1), bars_of(1, 1), bars_of(1, 7))
    result = simulator.step(bars_of(1, 1))
    assert result.terminated.item()
    assert result.equity_path[0].tolist() == pytest.approx([100_000, 100_000, 70_000])
    assert float(result.log_return) == pytest.approx(math.log(0.7))
    # the loss is booked to the bar whose close brought the stop, over which it was held
    assert simulator.holdings().over.tolist() == [pytest.approx([1_000, 1_000, 1_000])]
    assert simulator.holdings().after.tolist() == [[True, True, False]]


def test_a_drawdown_just_short_of_the_limit_goes_on() -> None:
    _, result = drop([100.0, 80.01, 80.01, 80.01, 80.01])
    assert not result.terminated.item()


def test_end_of_session_comes_before_a_later_drop() -> None:
    simulator, result = drop([110.0, 110.0, 10.0, 10.0, 10.0], flat_by_close=True, close_minutes=0)
    assert not result.terminated.item()
    assert result.equity_path[0].tolist() == pytest.approx([110_000, 110_000, 110_000])
    assert float(simulator.cash) == pytest.approx(110_000)
    assert simulator.holdings().over.tolist() == [pytest.approx([1_000, 1_000, 0])]
    assert simulator.holdings().after.tolist() == [[True, False, False]]


def test_a_stop_before_the_end_of_the_session_sells_once() -> None:
    _, result = drop([70.0, 60.0, 10.0, 10.0, 10.0], flat_by_close=True, close_minutes=0, fee_rate=0.001)
    assert result.terminated.item()
    bought = 100_000 / 1.001
    assert float(result.turnover) == pytest.approx(bought * 1.7)
    assert result.equity_path[0, 1].item() == result.equity_path[0, 2].item()


def test_a_drop_at_the_last_close_of_a_session_stops_a_flat_account() -> None:
    _, result = drop([100.0, 70.0, 70.0, 70.0, 70.0], flat_by_close=True, close_minutes=0)
    assert result.terminated.item()
    assert result.equity_path[0].tolist() == pytest.approx([100_000, 70_000, 70_000])


@given(rules=trading_rules(), seed=st.integers(0, 10_000))
@BUSY
def test_not_to_look_for_stops_out_of_reach_changes_nothing(rules: TradingRules, seed: int) -> None:
    """What a GPU does, which looks always, against a CPU, which does where a stop may be."""
    tape, rows, generator = random_tape(seed), 3, torch.Generator().manual_seed(seed)
    looked = []
    steps = min(8, (tape.n - 3) // rules.decision_interval - 1)
    actions = torch.randint(0, 3, (steps, rows), generator=generator)
    for always in (False, True):
        simulator = Simulator(tape.tensors(), rules, rows, horizon=None)
        if always:
            simulator._out_of_reach = lambda _: False  # type: ignore[method-assign]  # as on a GPU
        everywhere = torch.ones(rows, dtype=torch.bool)
        simulator.reset(everywhere, torch.ones(rows, dtype=torch.int64), torch.full((rows,), tape.n))
        results = [simulator.step(each) for each in actions]
        results.append(simulator.liquidate(everywhere, simulator.bar + 1))
        looked.append([*(part for result in results for part in result), *simulator.holdings(), simulator.cash])
    for fast, slow in zip(*looked, strict=True):
        assert torch.equal(fast, slow)
