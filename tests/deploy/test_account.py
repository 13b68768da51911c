"""The account of a live policy: its six figures are the simulator's, and entry prices by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentio_rllib.deploy.account import Account, DecisionError, Portfolio
from sentio_rllib.market.tape import Tape
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.trading.simulator import Simulator
from tests.deploy.replay import Broker
from tests.trading.tapes import bars_of, random_tape, trading_rules, whole


def simulated(rules: TradingRules, seed: int) -> tuple[Tape, Simulator, int]:
    """A random tape, and a simulator on it that starts at the bar returned last."""
    tape, start = random_tape(seed, bars=220), 1 + seed % 7
    simulator = Simulator(tape.tensors(), rules, 1, horizon=None)
    simulator.reset(whole(1), bars_of(1, start), bars_of(1, tape.n))
    return tape, simulator, start


TOLD: dict[str, Any] = {"fill_without_volume": True, "cash_rate": 0.0}
"""Orders that find nobody, and interest, are what a user reports; here nobody reports them."""


@settings(max_examples=30, deadline=None)
@given(
    rules=trading_rules(flat_by_close=False, max_drawdown=0.999, **TOLD),
    seed=st.integers(0, 2**16),
    every_bar=st.booleans(),
)
def test_the_six_figures_are_the_simulators(rules: TradingRules, seed: int, every_bar: bool) -> None:
    tape, simulator, start = simulated(rules, seed)
    account, generator = Account(rules), np.random.default_rng(seed)
    account.begin(float(tape.close[start]))
    for bar in range(start, tape.n - rules.decision_interval - 2, rules.decision_interval):
        seen = simulator.observe()
        account.report(Portfolio(float(simulator.cash), float(simulator.shares)))
        view = account.view()
        np.testing.assert_allclose(view.portfolio.numpy(), seen.portfolio.numpy(), atol=2e-6)
        assert float(view.fraction) == pytest.approx(float(seen.portfolio[0, 0]), abs=1e-6)
        assert not account.stop_reached
        action = int(generator.integers(0, 3))
        account.ordered = (0, 1, -1)[action]
        simulator.step(torch.tensor([action]))
        for each in range(bar + 1, bar + 1 + rules.decision_interval):
            account.mark(float(tape.close[each]), new_session=bool(tape.session[each] != tape.session[each - 1]))
            if every_bar:  # a fill that is told at once is the same fill
                account.report(Portfolio(float(simulator.cash), float(simulator.shares)))


@settings(max_examples=60, deadline=None)
@given(
    rules=trading_rules(flat_by_close=True, **TOLD) | trading_rules(max_drawdown=0.01, **TOLD),
    seed=st.integers(0, 2**16),
    every_bar=st.booleans(),
)
def test_the_six_figures_with_forced_exits(rules: TradingRules, seed: int, every_bar: bool) -> None:
    """Every fill is reported at its bar, two of one bar one after the other."""
    tape, simulator, start = simulated(rules, seed)
    broker, account, generator = Broker(tape, rules, start), Account(rules), np.random.default_rng(seed)
    account.begin(float(tape.close[start]))
    for _ in range(start, tape.n - rules.decision_interval - 2, rules.decision_interval):
        account.report(broker.portfolio)
        np.testing.assert_allclose(account.view().portfolio.numpy(), simulator.observe().portfolio.numpy(), atol=2e-6)
        order = int(generator.integers(0, 3))
        account.ordered = (0, 1, -1)[order]
        result = simulator.step(torch.tensor([order]))
        for _ in range(rules.decision_interval):
            traded, order = broker.open_bar(order, close_out=account.stop_reached), 0
            bar = broker.books.bar
            account.mark(float(tape.close[bar]), new_session=bool(tape.session[bar] != tape.session[bar - 1]))
            if traded or every_bar:
                account.report(broker.portfolio)
            if rules.flat_by_close and tape.session_last[bar] and broker.sell_at_close():
                account.report(broker.portfolio)
        assert account.stop_reached == bool(result.terminated)
        if account.stop_reached:
            return


def test_a_stop_is_not_forgotten_when_the_sale_recovers() -> None:
    account = Account(TradingRules(fee_rate=0.0, max_drawdown=0.2))
    account.begin(100.0)
    account.report(Portfolio(0.0, 1_000.0))
    account.mark(79.0, new_session=False)
    assert account.stop_reached
    account.mark(85.0, new_session=False)
    account.report(Portfolio(85_000.0, 0.0))  # sold at this bar's open, above the level of 80,000
    assert account.stop_reached


@pytest.mark.parametrize("told_before", [True, False])
def test_a_sale_at_a_close_is_the_same_whether_or_not_the_bar_was_reported_before(told_before: bool) -> None:
    account = Account(TradingRules(fee_rate=0.01, max_drawdown=0.05))
    account.begin(100.0)
    account.report(Portfolio(100_000.0, 0.0))
    account.ordered = 1
    account.mark(100.0, new_session=False)
    account.report(Portfolio(1_000.0, 980.0))
    account.mark(110.0, new_session=False)
    if told_before:
        account.report(Portfolio(1_000.0, 980.0))  # worth 108,800: never marked so, for the close sells
    account.report(Portfolio(107_722.0, 0.0))
    assert (account.last_fill, account.stop_reached) == (2, False)
    assert account.trades == pytest.approx(1.0 + 0.5 ** (1 / 390))
    account.mark(111.0, new_session=True)
    account.report(Portfolio(107_722.0, 0.0))
    assert account.marks.max() == account.session_equity == account.peak == 107_722.0


def test_entry_prices_by_hand() -> None:
    account = Account(TradingRules(fee_rate=0.01))
    account.begin(100.0)
    account.report(Portfolio(10_000.0, 0.0))
    account.mark(110.0, new_session=False)
    account.report(Portfolio(10_000.0 - 10 * 105.0 * 1.01, 10.0))  # 10 at 105
    assert account.entry == pytest.approx(105.0)
    account.mark(110.0, new_session=False)
    account.report(Portfolio(account.cash - 30 * 109.0 * 1.01, 40.0))  # 30 at 109
    assert account.entry == pytest.approx(108.0)
    account.report(Portfolio(account.cash + 20 * 120.0 * 0.99, 20.0))  # a sale leaves it
    assert account.entry == pytest.approx(108.0)
    account.report(Portfolio(account.cash, 20.0, entry_price=107.5))  # who knows better says so
    assert account.entry == 107.5
    account.report(Portfolio(account.cash, 25.0))  # shares for nothing: taken at the close
    assert account.entry == pytest.approx((20 * 107.5 + 5 * 110.0) / 25)
    account.report(Portfolio(account.cash, 0.0))
    assert float(account.view().portfolio[0, 1]) == 0.0


def test_a_position_that_was_there_before_counts_from_the_close() -> None:
    account = Account(TradingRules())
    account.begin(100.0)
    account.report(Portfolio(0.0, 50.0))
    assert account.entry == 100.0
    assert account.view().portfolio.numpy()[0].round(6).tolist() == [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ((math.nan, 0.0, None), r"portfolio\.cash: nan"),
        ((1.0, -1.0, None), r"portfolio\.shares: -1\.0"),
        ((1.0, math.inf, None), r"portfolio\.shares: inf"),
        (("1", 1.0, None), r"portfolio\.cash: '1' is no number"),
        ((None, 1.0, None), r"portfolio\.cash: None is no number"),
        ((1.0, True, None), r"portfolio\.shares: True is no number"),
        ((1.0, 1.0, 0.0), r"portfolio\.entry_price: 0\.0"),
    ],
)
def test_portfolios_that_are_none(values: tuple[float, float, float | None], match: str) -> None:
    with pytest.raises(DecisionError, match=match):
        Portfolio(*values)
