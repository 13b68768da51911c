"""Cost stress: fees that a policy of known gross return can bear, what comes too late, and how rows are made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from sentio_rllib.errors import ConfigError
from sentio_rllib.market.tape import Tape
from sentio_rllib.statistics.metrics import sharpe
from sentio_rllib.trading.masks import BUY, SELL
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.baselines import table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator, Decide, Record
from sentio_rllib.validation.schemes import Range
from sentio_rllib.validation.stress import HIGHEST_FEE, Evaluate, breakeven_fee, cost_stress, delayed
from tests.trading.tapes import make_tape
from tests.validation.records import record

MEMBERS = [(0, 0), (1, 0)]
RULES = TradingRules(decision_interval=1, episode_length=50, max_position=1.0, max_drawdown=0.9, fee_rate=0.001)


def _alternating(gain: float, bars: int = 120, sessions: int = 1) -> tuple[Tape, np.ndarray]:
    """A price that rises by `gain` from every even bar's open to the next open and falls back after it."""
    opening = np.where(np.arange(bars) % 2 == 0, 100.0, 100.0 * (1 + gain))
    close = np.roll(opening, -1)  # marked where the next order fills
    tape = make_tape(opening, close, session_lengths=[bars // sessions] * sessions)
    return tape, np.where(np.arange(bars) % 2 == 1, BUY, SELL)  # decided at t, bought at t + 1, which is even


def _walked(tape: Tape, actions: np.ndarray, blocks: Sequence[Range], calls: list[float] | None = None) -> Evaluate:
    """Two members that do the same, on a stress's rules and delay."""

    def evaluate(rules: TradingRules, bars_late: int) -> tuple[Record, ...]:
        if calls is not None:
            calls.append(rules.fee_rate)
        evaluator = BlockEvaluator(tape.tensors(), rules, [blocks] * 2, MEMBERS)
        return evaluator.evaluate(delayed(table_policy(actions), bars_late)).greedy

    return evaluate


# -- the fee that it can bear ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "error"), [(0.0005, 5e-7), (0.004, 4e-6), (0.03, 5e-5)])
def test_breakeven_fee_of_a_known_gross_return(gain: float, error: float) -> None:
    tape, actions = _alternating(gain)
    calls: list[float] = []
    fee, note = breakeven_fee(_walked(tape, actions, [Range(1, 119)], calls), RULES)
    # a dollar buys 1 / (1 + fee) dollars' worth, which are sold for (1 + gain) (1 - fee) times as much
    # the last lies beyond twice what the turnover of an account that grows to five times its size suggests
    assert fee == pytest.approx(gain / (2 + gain), rel=0.0, abs=error)
    assert note == ""
    assert len(calls) <= 12


def test_a_fee_is_found_where_the_drawdown_stop_bends_the_curve() -> None:
    tape, actions = _alternating(0.01)
    calls: list[float] = []
    tight = RULES.replace(max_drawdown=0.02)
    fee, _ = breakeven_fee(_walked(tape, actions, [Range(1, 119)], calls), tight)
    assert fee == pytest.approx(0.01 / 2.01, rel=0.002)
    assert len(calls) <= 12


def test_no_breakeven_without_trades_or_gross_gain_and_none_above_the_highest_fee() -> None:
    tape, actions = _alternating(0.004)
    blocks = [Range(1, 119)]
    assert breakeven_fee(_walked(tape, np.full(120, SELL), blocks), RULES) == (None, "it never trades")
    fee, note = breakeven_fee(_walked(tape, BUY + SELL - actions, blocks), RULES)
    assert fee is None
    assert note.startswith("it earns nothing even without a fee: -0.00")
    rising = 100.0 * np.exp(0.01 * np.arange(120))
    calls: list[float] = []
    held = _walked(make_tape(rising, rising), np.full(120, BUY), blocks, calls)
    fee, note = breakeven_fee(held, RULES)
    assert fee == HIGHEST_FEE
    assert note.startswith("it still earns at 0.05, the highest fee there is: 0.00")
    assert calls == [0.0, HIGHEST_FEE]


def test_the_highest_fee_is_that_of_the_rules() -> None:
    assert RULES.replace(fee_rate=HIGHEST_FEE).fee_rate == HIGHEST_FEE
    with pytest.raises(ConfigError, match="fee_rate"):
        RULES.replace(fee_rate=np.nextafter(HIGHEST_FEE, 1.0))


# -- delay ------------------------------------------------------------------------------------------------------


def test_one_bar_of_delay_kills_a_signal_of_one_bar() -> None:
    bars = 1000
    steps = np.random.default_rng(0).normal(0, 0.002, bars)
    opening = 100.0 * np.exp(np.concatenate(([0.0], np.cumsum(steps)[:-1])))  # steps[t]: from open t to open t + 1
    tape = make_tape(opening, opening * np.exp(steps), session_lengths=[100] * 10)
    known = np.where(np.append(steps[1:], 0.0) > 0, BUY, SELL)  # what follows the open at which it fills
    evaluate = _walked(tape, known, [Range(10, bars - 10)])
    earned = [evaluate(RULES.replace(fee_rate=0.0), late)[0].mean_return for late in range(4)]
    error = 0.002 / np.sqrt(bars - 20)  # of the mean return per bar of a timing that knows nothing
    assert earned[0] > 10 * error
    assert max(abs(each) for each in earned[1:]) < 3 * error


def test_a_delayed_policy_sees_an_old_market_and_its_present_account() -> None:
    seen = []

    def decide(bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append((bar.tolist(), portfolio, mask))
        return torch.zeros(mask.shape)

    bar, portfolio = torch.tensor([[1, 7]]), torch.rand(1, 2, 6)
    mask = torch.ones(1, 2, 3, dtype=torch.bool)
    late: Decide = delayed(decide, 3)
    late(bar, portfolio, mask)
    delayed(decide, 0)(bar, portfolio, mask)
    assert [each[0] for each in seen] == [[[0, 4]], [[1, 7]]]  # never from the tape's end
    assert seen[0][1] is portfolio
    assert seen[0][2] is mask
    with pytest.raises(ValueError, match="bars_late is -1, allowed 0 or more"):
        delayed(decide, -1)


# -- rows -------------------------------------------------------------------------------------------------------


def _names_and_rules(rules: TradingRules) -> dict[str, tuple[TradingRules, int]]:
    """Return what each row was evaluated on."""
    tape, actions = _alternating(0.004, bars=40)
    made: list[tuple[TradingRules, int]] = []

    def evaluate(changed: TradingRules, bars_late: int) -> Sequence[Record]:
        made.append((changed, bars_late))
        return _walked(tape, actions, [Range(1, 39)])(changed, bars_late)

    stress = cost_stress(evaluate, rules, MEMBERS, sessions_per_year=252)
    assert len(made) <= 20
    return {row.name: found for row, found in zip(stress.rows, made, strict=False)}


def test_slippage_is_scaled_where_there_is_any() -> None:
    rules = RULES.replace(half_spread_bps=1.5, impact=0.2)
    assert _names_and_rules(rules) == {
        "as configured": (rules, 0),
        "slippage x2": (rules.replace(half_spread_bps=3.0, impact=0.4), 0),
        "slippage x4": (rules.replace(half_spread_bps=6.0, impact=0.8), 0),
        "delay 1 bar": (rules, 1),
        "delay 2 bars": (rules, 2),
        "delay 3 bars": (rules, 3),
        "fee x2": (rules.replace(fee_rate=0.002), 0),
    }


def test_half_spreads_are_put_in_where_there_is_no_slippage() -> None:
    found = _names_and_rules(RULES)
    assert [found[f"half spread {bps} bp"][0].half_spread_bps for bps in (1, 2, 4)] == [1.0, 2.0, 4.0]
    assert not any(name.startswith("slippage") for name in found)


def test_rows_that_the_rules_refuse_or_that_change_nothing_are_left_out() -> None:
    found = _names_and_rules(RULES.replace(half_spread_bps=400.0, fee_rate=0.03))
    assert "slippage x2" in found
    assert not {"slippage x4", "fee x2"} & set(found)
    assert "fee x2" not in _names_and_rules(RULES.replace(fee_rate=0.0))


def test_figures_average_seeds_and_join_folds_also_within_a_session() -> None:
    # two seeds in each of two folds, which divide session 1 between them
    records = [
        record([0.01, 0.02], [0, 1], bars=100, mean_return=1e-4),
        record([0.03, 0.00], [0, 1], bars=100, mean_return=2e-4),
        record([0.01, 0.04], [1, 2], bars=300, mean_return=3e-4),
        record([0.03, 0.00], [1, 2], bars=300, mean_return=5e-4),
    ]
    members = [(0, 0), (1, 0), (0, 1), (1, 1)]
    row = cost_stress(lambda rules, late: records, RULES, members, sessions_per_year=252).rows[0]
    expected = np.array([0.02, 1.01 * 1.02 - 1, 0.02])
    assert (1 + row.mean_return) ** 800 == pytest.approx(1.0001**100 * 1.0002**100 * 1.0003**300 * 1.0005**300)
    assert row.sharpe == pytest.approx(sharpe(expected, 252))
    assert row.total_return == pytest.approx(1.02 * 1.01 * 1.02 * 1.02 - 1)
    # the same bars walked twice, as combinatorial folds do: a path's growth is the root of both
    twice = cost_stress(lambda rules, late: records, RULES, members, sessions_per_year=252, count=2).rows[0]
    assert (1 + twice.total_return) ** 2 == pytest.approx(1 + row.total_return)
    with pytest.raises(ValueError, match="shorter"):
        cost_stress(lambda rules, late: records, RULES, members[:2], sessions_per_year=252)


def test_costs_that_eat_nearly_all_are_told_as_the_account_tells_them() -> None:
    tape, actions = _alternating(0.0)
    rules = RULES.replace(fee_rate=0.025, max_drawdown=0.999999)
    found = cost_stress(_walked(tape, actions, [Range(1, 119)]), rules, MEMBERS, sessions_per_year=252)
    # bought at every even bar from 2 to 116 and sold at the bar after it; sums of these returns are below -100%
    assert found.rows[0].total_return == pytest.approx((0.975 / 1.025) ** 58 - 1, rel=1e-9)
    assert found.rows[0].total_return > -1.0


def test_one_session_and_no_trades_have_figures() -> None:
    tape, actions = _alternating(0.004, bars=40)
    row = cost_stress(_walked(tape, actions, [Range(1, 39)]), RULES, MEMBERS, sessions_per_year=252).rows[0]
    assert row.sharpe == 0.0  # one session has no deviation
    assert row.total_return == pytest.approx((1.004 * 0.999 / 1.001) ** 18 - 1, rel=1e-9)
    never = cost_stress(_walked(tape, np.full(40, SELL), [Range(1, 39)]), RULES, MEMBERS, sessions_per_year=252)
    assert {each[1:] for each in never.rows} == {(0.0, 0.0, 0.0)}
    assert (never.breakeven_fee, never.note) == (None, "it never trades")
