"""Masks: Hold always valid, what is shown is what is executed, each rule by itself."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentio_rllib.market.tape import Tape
from sentio_rllib.trading.masks import action_mask, buy_window, executable_actions
from sentio_rllib.trading.rules import MaskKind, TradingRules
from sentio_rllib.trading.simulator import Simulator
from tests.trading.tapes import bars_of, make_tape, random_tape, trading_rules, whole


@given(rules=trading_rules(), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_mask_shown_is_the_mask_used(rules: TradingRules, seed: int) -> None:
    """Masked actions do what Hold does and are counted; valid ones are never counted."""
    tape = random_tape(seed).tensors()
    simulator, held = (Simulator(tape, rules, 3, horizon=None) for _ in range(2))
    simulator.reset(whole(3), bars_of(3, 2), bars_of(3, tape.n))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(12):
        mask = simulator.observe().mask
        assert mask[:, 0].all()
        held.set_state(simulator.get_state())
        action = torch.randint(0, 3, (3,), generator=generator)
        shown_valid = mask.gather(1, action[:, None])[:, 0]
        result = simulator.step(action)
        after_hold = held.step(torch.zeros_like(action))
        assert torch.equal(result.equity_path[result.invalid], after_hold.equity_path[result.invalid])
        assert not after_hold.invalid.any()
        if rules.masks == "none":
            assert mask.all()
        else:
            assert torch.equal(result.invalid, ~shown_valid)
        simulator.reset(result.terminated | result.truncated, bars_of(3, 2), bars_of(3, tape.n))


@pytest.mark.parametrize("masks", get_args(MaskKind))
def test_what_an_account_cannot_do_is_a_hold_whatever_is_shown(masks: MaskKind) -> None:
    rules = TradingRules(masks=masks, decision_interval=2, risk_first_minutes=0, risk_last_minutes=0)
    simulator = Simulator(make_tape([10.0] * 40, [10.0] * 40).tensors(), rules, 1)
    simulator.reset(whole(1), bars_of(1, 1), bars_of(1, 40))
    shown, invalid, shares = [], [], []
    for action in (2, 1, 1, 0, 2, 2):
        shown.append(simulator.observe().mask[0].tolist())
        result = simulator.step(bars_of(1, action))
        invalid.append(bool(result.invalid))
        shares.append(bool(simulator.shares > 0))
    assert invalid == [True, False, True, False, False, True]
    assert shares == [False, True, True, True, False, False]
    flat, holding = [True, True, False], [True, False, True]
    expected = [flat, flat, holding, holding, holding, flat]
    assert shown == ([[True] * 3] * 6 if masks == "none" else expected)


def market(**changes: Any) -> Tape:
    """40 bars in two sessions of 20 minutes at a constant price."""
    return make_tape([10.0] * 40, [10.0] * 40, session_lengths=[20, 20], **changes)


def buyable(rules: TradingRules, tape: Tape) -> list[int]:
    """Bars at which a flat account may buy."""
    tensors = tape.tensors()
    window = buy_window(rules, tensors.volatility, tensors.minute, tensors.minutes_left)
    flat = torch.zeros(tape.n, dtype=torch.float64)
    can_buy, can_sell = executable_actions(rules, flat, flat, flat, window)
    assert not can_sell.any()
    return torch.nonzero(can_buy).flatten().tolist()


def test_buy_is_masked_in_the_minutes_before_a_forced_close() -> None:
    everywhere = list(range(40))
    assert buyable(TradingRules(close_minutes=15), market()) == everywhere
    rules = TradingRules(flat_by_close=True, close_minutes=15)
    assert buyable(rules, market()) == [*range(5), *range(20, 25)]


def test_risk_layers() -> None:
    volatility = np.full(40, 0.0015)
    volatility[30] = 0.00151
    rules = TradingRules(masks="risk", risk_first_minutes=5, risk_last_minutes=10)
    expected = [*range(5, 10), *range(25, 30)]
    assert buyable(rules, market(volatility=volatility)) == expected
    late = rules.replace(risk_last_minutes=0)
    assert buyable(late, market(volatility=volatility)) == [*range(5, 20), *range(25, 30), *range(31, 40)]


def test_no_new_risk_within_reach_of_the_drawdown_limit_yet_selling_is_allowed() -> None:
    rules = TradingRules(masks="risk")
    drawdown = torch.tensor([0.0, 0.149, 0.151, 0.151], dtype=torch.float64)
    fraction = torch.tensor([0.0, 0.0, 0.0, 0.5], dtype=torch.float64)
    can_buy, can_sell = executable_actions(rules, fraction, fraction, drawdown, None)
    assert can_buy.tolist() == [True, True, False, False]
    assert can_sell.tolist() == [False, False, False, True]
    can_buy, _ = executable_actions(rules.replace(masks="state"), fraction, fraction, drawdown, None)
    assert can_buy.all()


def test_a_flat_agent_is_not_locked_out_for_ever() -> None:
    """The local drawdown is forgotten after `episode_length` bars, so a Buy is possible again."""
    close = np.full(400, 100.0)
    close[11:] = 83.0
    tape = make_tape(np.append(100.0, close[:-1]), close).tensors()
    rules = TradingRules(
        masks="risk", risk_first_minutes=0, risk_last_minutes=0, decision_interval=5, episode_length=50
    )
    simulator = Simulator(tape, rules, 1, horizon=None)
    simulator.reset(whole(1), bars_of(1, 1), bars_of(1, 400))
    simulator.step(bars_of(1, 1))
    simulator.step(bars_of(1, 0))
    simulator.step(bars_of(1, 2))
    shown = []
    for _ in range(12):
        shown.append(bool(simulator.observe().mask[0, 1]))
        simulator.step(bars_of(1, 0))
    # bars 7 .. 11 hold the last high mark: they leave the window of 50 bars at bar 61, nine decisions on
    assert shown == [False] * 9 + [True] * 3


def test_less_than_the_smallest_trade_is_not_worth_a_buy() -> None:
    rules = TradingRules(min_trade=0.05)
    fraction = torch.tensor([0.0, 0.89, 0.91, 0.99], dtype=torch.float64)
    can_buy, can_sell = executable_actions(rules, fraction, fraction, torch.zeros(4), None)
    assert can_buy.tolist() == [True, True, False, False]
    assert can_sell.tolist() == [False, True, True, True]


def test_action_mask_shows_everything_only_without_masks() -> None:
    can_buy, can_sell = torch.tensor([True, False]), torch.tensor([False, False])
    assert action_mask("none", can_buy, can_sell).all()
    for kind in ("state", "risk"):
        mask = action_mask(kind, can_buy, can_sell)  # type: ignore[arg-type]
        assert mask.tolist() == [[True, True, False], [True, False, False]]
