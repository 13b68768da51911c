"""Interest on idle cash: it is earned bar by bar, and skill is what comes on top of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sentio_rllib.market.tape import Tape
from sentio_rllib.trading.masks import BUY, HOLD
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.trading.simulator import Simulator
from sentio_rllib.validation.baselines import run_baselines, table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator, Record, fold_score
from sentio_rllib.validation.performance import describe, describe_baselines
from sentio_rllib.validation.splits import Range
from tests.trading.tapes import bars_of, make_tape, whole

SESSION_BARS, SESSIONS, YEAR, RATE = 4, 300, 252, 0.05
FIRST = SESSION_BARS - 1
"""The last bar of the first session: a block that starts here marks whole sessions."""
RULES = TradingRules(
    fee_rate=0.0, max_position=1.0, decision_interval=3, episode_length=60, max_drawdown=0.9, cash_rate=RATE
)


def moving(seed: int = 0) -> Tape:
    """A tape of whole sessions that moves at random, each bar from the close before it."""
    steps = np.random.default_rng(seed).normal(2e-4, 0.004, SESSION_BARS * SESSIONS)
    close = 100.0 * np.exp(np.cumsum(steps))
    return make_tape(np.append(100.0, close[:-1]), close, session_lengths=[SESSION_BARS] * SESSIONS)


def walked(tape: Tape, action: int, sessions: int, rules: TradingRules = RULES) -> Record:
    """The record of an account that does the same at every decision of so many sessions."""
    block = Range(FIRST, FIRST + SESSION_BARS * sessions + 1)
    evaluator = BlockEvaluator(tape.tensors(), rules, [[block]], [(0, 0)])
    return evaluator.evaluate(table_policy(np.full(tape.n, action, dtype=np.int64))).greedy[0]


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5])
def test_an_idle_account_earns_the_rate_in_a_year(rate: float) -> None:
    tape = moving()
    assert (tape.sessions_per_year, tape.session_bars) == (YEAR, SESSION_BARS)
    record = walked(tape, HOLD, YEAR, RULES.replace(cash_rate=rate))
    assert record.bars == YEAR * SESSION_BARS
    assert np.prod(1.0 + record.session_returns) == pytest.approx(1.0 + rate, rel=1e-9)
    assert (record.trades, record.exposure) == (0, 0.0)


@pytest.mark.parametrize("interval", [1, 7, 500])
def test_the_pace_of_decisions_changes_nothing(interval: int) -> None:
    rules = RULES.replace(decision_interval=interval, episode_length=500)
    record = walked(moving(), HOLD, YEAR, rules)
    assert np.prod(1.0 + record.session_returns) == pytest.approx(1.0 + RATE, rel=1e-9)


def test_an_idle_account_has_nothing_beyond_cash() -> None:
    record = walked(moving(), HOLD, YEAR)
    assert record.session_returns.size == YEAR
    assert record.cash_growth == pytest.approx(1.05 ** (1 / (YEAR * SESSION_BARS)), rel=1e-14)
    np.testing.assert_allclose(record.session_returns, 1.05 ** (1 / YEAR) - 1.0, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(record.excess_returns, 0.0, rtol=0.0, atol=1e-12)
    assert fold_score(record, YEAR) == 0.0


def test_half_days_and_divided_sessions_are_no_skill_of_an_idle_account() -> None:
    close = np.linspace(100.0, 90.0, 240)
    tape = make_tape(close, close, session_lengths=[8, 8, 4, 8, 8, 8, 3, 8] * 4 + [20])
    blocks = [Range(5, 100), Range(103, 203)]
    found = run_baselines(tape.tensors(), RULES, blocks)
    assert np.ptp(found.flat.session_returns) > 1e-5
    np.testing.assert_array_equal(found.flat.excess_returns, 0.0)
    told = describe_baselines(found, sessions_per_year=YEAR, initial_cash=1e5, market=0.0)
    assert told["flat"]["sharpe"] == 0.0
    assert told["flat"]["sharpe_with_cash"] > 10.0
    assert told["hold"]["sharpe"] < told["hold"]["sharpe_with_cash"] < 0.0


def test_the_sharpe_ratio_of_what_is_held_is_beyond_cash() -> None:
    tape = moving(seed=4)
    record = walked(tape, BUY, 100)
    # bought with all money at the first open of a session: there is no idle cash, so what it earns is the price's
    closes = tape.close[FIRST : FIRST + 100 * SESSION_BARS + 1 : SESSION_BARS].copy()
    closes[0] = tape.open[FIRST + 1]
    by_hand = closes[1:] / closes[:-1] - 1.0
    np.testing.assert_allclose(record.session_returns, by_hand, rtol=0.0, atol=1e-12)
    beyond = by_hand - (1.05 ** (1 / 252) - 1.0)
    ratio = beyond.mean() / beyond.std(ddof=1) * np.sqrt(252)
    assert fold_score(record, YEAR) == pytest.approx(ratio, rel=1e-9)
    found = describe(
        record.session_returns,
        record.excess_returns,
        [record],
        sessions_per_year=YEAR,
        initial_cash=1e5,
        count=1,
        excess=record.excess_returns,
    )
    assert found["sharpe"] == pytest.approx(ratio, rel=1e-9)
    with_cash = by_hand.mean() / by_hand.std(ddof=1) * np.sqrt(252)
    assert found["sharpe_with_cash"] == pytest.approx(with_cash, rel=1e-9)
    assert with_cash > ratio + 0.01
    # money that was made is told whole, interest and all
    assert found["total_return"] == pytest.approx(closes[-1] / closes[0] - 1.0, rel=1e-9)


def test_without_interest_both_ratios_are_one_number() -> None:
    record = walked(moving(), BUY, 100, RULES.replace(cash_rate=0.0))
    found = describe(
        record.session_returns, record.excess_returns, [record], sessions_per_year=YEAR, initial_cash=1e5, count=1
    )
    assert record.cash_growth == 1.0
    assert found["sharpe"] == found["sharpe_with_cash"] != 0.0


def test_only_what_is_not_invested_earns_interest() -> None:
    tape = moving(seed=2)
    rules = RULES.replace(max_position=0.5, cash_rate=0.5, decision_interval=5)
    simulator = Simulator(tape.tensors(), rules, 1)
    simulator.reset(whole(1), bars_of(1, FIRST), bars_of(1, tape.n))
    path = simulator.step(bars_of(1, BUY)).equity_path[0].numpy()
    bars = np.arange(FIRST + 1, FIRST + 6)
    interest = 1.5 ** ((bars - FIRST) / (YEAR * SESSION_BARS))
    by_hand = 50_000.0 * interest + 50_000.0 / tape.open[FIRST + 1] * tape.close[bars]
    np.testing.assert_allclose(path, by_hand, rtol=1e-12)
    assert float(simulator.cash) == pytest.approx(50_000.0 * interest[-1], rel=1e-12)


def test_what_a_forced_sale_brings_earns_from_then_on() -> None:
    # 30% lost at the second close: sold at the third open, at 60
    close = [100.0, 100.0, 100.0, 70.0, *[60.0] * 8]
    tape = make_tape([100.0, 100.0, 100.0, 100.0, *[60.0] * 8], close, session_lengths=[4, 4, 4])
    rules = RULES.replace(decision_interval=5, max_drawdown=0.2, cash_rate=0.5)
    simulator = Simulator(tape.tensors(), rules, 1, horizon=None)
    simulator.reset(whole(1), bars_of(1, 1), bars_of(1, 12))
    result = simulator.step(torch.tensor([BUY]))
    a_bar = 1.5 ** (1 / (YEAR * 4))
    assert bool(result.terminated)
    assert result.equity_path[0].tolist() == pytest.approx(
        [100_000.0, 70_000.0, 60_000.0 * a_bar, 60_000.0 * a_bar**2, 60_000.0 * a_bar**3], rel=1e-12
    )
