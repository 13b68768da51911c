"""The batched simulator against the scalar oracle, its invariants, and examples computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentio_rllib.errors import ConfigError
from sentio_rllib.trading.simulator import Simulator, StepResult, TradingRules
from tests.trading.scalar_simulator import ScalarSimulator
from tests.trading.tapes import bars_of, make_tape, random_tape, trading_rules, whole

CLOSE = {"rtol": 1e-10, "atol": 1e-13}
BUSY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_same_step(result: StepResult, row: int, expected: object) -> None:
    """Compare one row of a step with the oracle's."""
    for name in ("terminated", "truncated", "traded", "invalid"):
        assert bool(getattr(result, name)[row]) is getattr(expected, name), name
    for name in ("log_return", "fee", "turnover"):
        np.testing.assert_allclose(
            float(getattr(result, name)[row]), getattr(expected, name), rtol=1e-10, atol=1e-9, err_msg=name
        )
    np.testing.assert_allclose(result.equity_path[row].numpy(), expected.path, **CLOSE)  # type: ignore[attr-defined]


def assert_same_holdings(simulator: Simulator, row: int, oracle: ScalarSimulator) -> None:
    """Compare the shares over each bar of the last walk, and whether any are left after it, with the oracle's."""
    over, after = (each[row, : len(oracle.over)] for each in simulator.holdings())
    np.testing.assert_allclose(over.numpy(), oracle.over, rtol=1e-10, atol=1e-10)
    assert over.ne(0.0).tolist() == [shares > 0.0 for shares in oracle.over]  # flat is exactly nothing
    assert after.tolist() == oracle.after


def assert_same_account(simulator: Simulator, row: int, oracle: ScalarSimulator) -> None:
    """Compare state, mask and portfolio features of one row with the oracle's."""
    seen = simulator.observe()
    assert int(seen.bar[row]) == oracle.bar
    assert seen.mask[row].tolist() == oracle.mask()
    np.testing.assert_allclose(seen.portfolio[row].numpy(), oracle.portfolio(), rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(float(simulator.cash[row]), oracle.cash, rtol=1e-10, atol=1e-6)
    np.testing.assert_allclose(float(simulator.shares[row]), oracle.shares, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(float(simulator.peak[row]), oracle.peak, rtol=1e-10)


@given(rules=trading_rules(), seed=st.integers(0, 10_000), limited=st.booleans())
@BUSY
def test_batch_equals_the_scalar_oracle(rules: TradingRules, seed: int, limited: bool) -> None:
    tape, rows, generator = random_tape(seed), 4, np.random.default_rng(seed)
    horizon = rules.episode_length if limited else None
    simulator = Simulator(tape.tensors(), rules, rows, horizon=horizon)
    latest = tape.n - rules.decision_interval - 2
    oracles: list[ScalarSimulator | None] = [None] * rows
    for _ in range(25):
        fresh = np.array([oracle is None for oracle in oracles])
        starts = generator.integers(1, latest + 1, rows)
        stops = np.minimum(tape.n, starts + rules.decision_interval + 2 + generator.integers(0, 120, rows))
        for row in np.flatnonzero(fresh):
            oracles[row] = ScalarSimulator(tape, rules, int(starts[row]), int(stops[row]), horizon)
        simulator.reset(torch.tensor(fresh), torch.tensor(starts), torch.tensor(stops))
        actions = generator.choice(3, rows, p=[0.3, 0.45, 0.25])
        for row, oracle in enumerate(oracles):
            assert oracle is not None
            assert_same_account(simulator, row, oracle)
        result = simulator.step(torch.tensor(actions))
        for row, oracle in enumerate(oracles):
            assert oracle is not None
            step = oracle.step(int(actions[row]))
            assert_same_step(result, row, step)
            assert_same_holdings(simulator, row, oracle)
            assert_same_account(simulator, row, oracle)
            if step.terminated or step.truncated:
                oracles[row] = None


@given(rules=trading_rules(), seed=st.integers(0, 10_000), ahead=st.integers(0, 15))
@BUSY
def test_liquidation_at_the_end_of_a_block_equals_the_oracle(rules: TradingRules, seed: int, ahead: int) -> None:
    tape = random_tape(seed)
    simulator = Simulator(tape.tensors(), rules, 2, horizon=None)
    start = 5 + seed % 40
    simulator.reset(whole(2), bars_of(2, start), bars_of(2, tape.n))
    oracle = ScalarSimulator(tape, rules, start, tape.n, None)
    for action in (1, 0, 1):
        simulator.step(bars_of(2, action))
        oracle.step(action)
    last = oracle.bar + min(ahead, rules.decision_interval)
    other = (float(simulator.cash[1]), float(simulator.shares[1]))
    before, oracle.fee, oracle.turnover = oracle.equity, 0.0, 0.0
    if last == oracle.bar:
        oracle.sell_all(float(tape.close[last]), last)
        path, hit = [oracle.cash], None
    else:
        path, hit = oracle.walk(0, last, liquidate=True)
    result = simulator.liquidate(torch.tensor([True, False]), bars_of(2, last))
    if hit is not None:
        assert_same_holdings(simulator, 0, oracle)
    np.testing.assert_allclose(result.equity_path[0, : len(path)].numpy(), path, **CLOSE)
    assert (result.equity_path[0, len(path) - 1 :] == result.equity_path[0, -1]).all()
    np.testing.assert_allclose(float(result.fee[0]), oracle.fee, rtol=1e-10)
    np.testing.assert_allclose(float(result.log_return[0]), math.log(oracle.cash / before), atol=1e-12)
    if hit is not None:
        assert bool(result.terminated[0]) is hit
    assert float(simulator.shares[0]) == 0.0
    assert (float(simulator.cash[1]), float(simulator.shares[1])) == other
    assert float(result.log_return[1]) == 0.0
    assert not bool(result.truncated[1])


@given(rules=trading_rules(), seed=st.integers(0, 10_000))
@BUSY
def test_invariants(rules: TradingRules, seed: int) -> None:
    tape, rows = random_tape(seed).tensors(), 8
    simulator = Simulator(tape, rules, rows, horizon=None)
    generator = torch.Generator().manual_seed(seed)
    simulator.reset(whole(rows), bars_of(rows, 3), bars_of(rows, tape.n))
    for _ in range(min(25, (tape.n - 5) // rules.decision_interval - 1)):
        equity = simulator.equity
        result = simulator.step(torch.randint(0, 3, (rows,), generator=generator))
        assert (simulator.cash >= 0).all()
        assert (simulator.shares >= 0).all()
        marked = simulator.cash + simulator.shares * tape.close[simulator.bar]
        torch.testing.assert_close(simulator.equity, marked, rtol=1e-12, atol=0.0)
        torch.testing.assert_close(result.fee, rules.fee_rate * result.turnover)
        torch.testing.assert_close(result.log_return, (result.equity_path[:, -1] / equity).log())
        pace = rules.target_return_per_bar * rules.decision_interval
        torch.testing.assert_close(result.reward, (result.log_return / pace).float())
        portfolio = simulator.observe().portfolio
        assert portfolio.dtype == torch.float32
        assert torch.isfinite(portfolio).all()
        assert (portfolio.abs() <= 1).all()


@given(rules=trading_rules(max_drawdown=0.9, flat_by_close=False, half_spread_bps=0.0, impact=0.0),
       seed=st.integers(0, 10_000))  # fmt: skip
@BUSY
def test_fraction_at_the_fill_stays_within_the_limit_across_gaps(rules: TradingRules, seed: int) -> None:
    tape = random_tape(seed, scale=0.03).tensors()
    simulator = Simulator(tape, rules, 1, horizon=None)
    simulator.reset(whole(1), bars_of(1, 3), bars_of(1, tape.n))
    for _ in range(8):
        if int(simulator.bar) + rules.decision_interval + 2 > tape.n:
            break
        opening, shares = tape.open[simulator.bar + 1], simulator.shares
        fill = simulator._fill(torch.ones(1, dtype=torch.float64), simulator._ceiling[1:2])
        fraction = fill.shares * opening / (fill.cash + fill.shares * opening)
        if bool(fill.filled):
            assert float(fraction) <= rules.max_position * (1 + 1e-12)
            assert float(fill.shares) > float(shares)
        else:
            assert torch.equal(fill.shares, shares)
        simulator.step(bars_of(1, 1))


@given(rules=trading_rules(), seed=st.integers(0, 10_000), action=st.integers(0, 2))
@BUSY
def test_nothing_shown_or_earned_up_to_t_depends_on_later_bars(rules: TradingRules, seed: int, action: int) -> None:
    tape, changed, cut = random_tape(seed), random_tape(seed + 1), 40
    later = {
        name: np.concatenate([getattr(tape, name)[: cut + 1], getattr(changed, name)[cut + 1 :]])
        for name in ("open", "close", "volatility", "dollar_volume")
    }
    seen = []
    for each in (tape, replace(tape, **later)):
        simulator = Simulator(each.tensors(), rules, 1, horizon=None)
        simulator.reset(whole(1), bars_of(1, cut - 2 * rules.decision_interval), bars_of(1, tape.n))
        first = simulator.step(bars_of(1, 1))
        second = simulator.step(bars_of(1, action))
        seen.append((first.equity_path, second.equity_path[:, :-1], simulator.shares, *simulator.observe()))
    # a stop at the close of the cut is executed after it
    comparable = 2 if bool(second.terminated) else len(seen[0])
    for left, right in list(zip(*seen, strict=True))[:comparable]:
        torch.testing.assert_close(left, right, rtol=0.0, atol=0.0)


@given(rules=trading_rules(), seed=st.integers(0, 10_000))
@BUSY
def test_an_action_at_t_changes_nothing_before_the_open_of_t_plus_1(rules: TradingRules, seed: int) -> None:
    """With a first bar whose close equals its open, without costs, all actions are worth the same at t+1."""
    tape = random_tape(seed)
    rules = rules.replace(fee_rate=0.0, half_spread_bps=0.0, impact=0.0, decision_interval=1, episode_length=30)
    rules = rules.replace(cash_rate=0.0)
    close = tape.close.copy()
    close[41] = tape.open[41]
    simulator = Simulator(replace(tape, close=close).tensors(), rules, 3, horizon=None)
    simulator.reset(whole(3), bars_of(3, 39), bars_of(3, tape.n))
    simulator.step(bars_of(3, 1))
    result = simulator.step(torch.arange(3))
    torch.testing.assert_close(result.log_return, result.log_return[:1].expand(3), rtol=0.0, atol=1e-12)


def test_hand_computed_round_trip() -> None:
    """100,000 dollars, 1% fee, half of the equity: bought at 101 (open 100, 100 bps), sold at 118.8."""
    rules = TradingRules(
        fee_rate=0.01, half_spread_bps=100.0, max_position=0.5, decision_interval=2, episode_length=10,
        target_return_per_bar=0.001,
    )  # fmt: skip
    tape = make_tape([90, 90, 100, 110, 120, 115, 115, 115], [90, 95, 110, 120, 110, 115, 115, 115])
    simulator = Simulator(tape.tensors(), rules, 1)
    simulator.reset(whole(1), bars_of(1, 1), bars_of(1, 8))
    bought = simulator.step(bars_of(1, 1))
    shares = 50_000 / (101 * 1.005)
    cash = 100_000 - shares * 101 * 1.01
    assert float(simulator.shares) == pytest.approx(shares)
    assert float(simulator.cash) == pytest.approx(cash)
    assert shares * 101 / (cash + shares * 101) == pytest.approx(0.5)
    assert float(bought.fee) == pytest.approx(shares * 1.01)
    assert bought.equity_path[0].tolist() == pytest.approx([cash + shares * 110, cash + shares * 120])
    gain = math.log((cash + shares * 120) / 100_000)
    assert float(bought.log_return) == pytest.approx(gain)
    assert float(bought.reward) == pytest.approx(gain / 0.002, rel=1e-6)
    observed = simulator.observe()
    assert observed.mask.tolist() == [[True, False, True]]
    assert float(observed.portfolio[0, 1]) == pytest.approx(math.tanh(10 * math.log(120 / 101)), rel=1e-6)
    assert float(observed.portfolio[0, 2]) == pytest.approx(0.1)
    sold = simulator.step(bars_of(1, 2))
    proceeds = shares * 118.8
    assert float(sold.turnover) == pytest.approx(proceeds)
    assert float(simulator.cash) == pytest.approx(cash + proceeds * 0.99)
    assert float(simulator.shares) == 0.0


def test_truncation_by_horizon_and_by_range() -> None:
    tape = make_tape([100.0] * 60, [100.0] * 60).tensors()
    rules = TradingRules(decision_interval=5, episode_length=22)
    for horizon, stop, steps in (
        ("episode", 60, 4),
        (None, 23, 4),
        (None, 24, 4),
        (None, 28, 5),
        (12, 60, 2),
    ):
        simulator = Simulator(tape, rules, 1, horizon=horizon)  # type: ignore[arg-type]
        simulator.reset(whole(1), bars_of(1, 1), bars_of(1, stop))
        ends = [bool(simulator.step(bars_of(1, 0)).truncated) for _ in range(steps)]
        assert ends == [False] * (steps - 1) + [True], (horizon, stop)


def test_reset_touches_only_the_chosen_rows() -> None:
    tape = random_tape(3).tensors()
    rules = TradingRules(decision_interval=5, max_drawdown=0.9)
    whole_run, partial = (Simulator(tape, rules, 3) for _ in range(2))
    for simulator in (whole_run, partial):
        simulator.reset(whole(3), bars_of(3, 2), bars_of(3, tape.n))
        simulator.step(bars_of(3, 1))
    partial.reset(torch.tensor([False, True, False]), bars_of(3, 60), bars_of(3, tape.n))
    left, right = whole_run.step(torch.tensor([0, 0, 2])), partial.step(torch.tensor([0, 0, 2]))
    for row in (0, 2):
        assert torch.equal(left.equity_path[row], right.equity_path[row])
        assert torch.equal(whole_run.observe().portfolio[row], partial.observe().portfolio[row])
    assert int(partial.observe().bar[1]) == 65
    assert float(partial.cash[1]) == rules.initial_cash


def test_portfolio_features_forget_what_is_older_than_their_window() -> None:
    """After a long flat stretch a block's account looks like a fresh episode's, whatever happened before."""
    bars = 6000
    close = np.full(bars, 100.0)
    close[:40] = np.linspace(100, 110, 40)
    close[40:80] = np.linspace(110, 97, 40)
    tape = make_tape(close, close, session_lengths=[100] * 60).tensors()
    rules = TradingRules(decision_interval=10, episode_length=100)
    simulator = Simulator(tape, rules, 1, horizon=None)
    simulator.reset(whole(1), bars_of(1, 1), bars_of(1, bars))
    for action in [1, 0, 0, 0, 0, 0, 0, 2]:
        simulator.step(bars_of(1, action))
    assert float(simulator.observe().portfolio[0, 3]) > 0.4
    for _ in range(580):
        simulator.step(bars_of(1, 0))
    assert simulator.observe().portfolio[0].tolist() == pytest.approx([0, 0, 1, 0, 0, 0], abs=1e-4)


def test_state_round_trip() -> None:
    tape = random_tape(5).tensors()
    rules = TradingRules(decision_interval=4, episode_length=20, position_step=0.3)
    actions = torch.randint(0, 3, (12, 3), generator=torch.Generator().manual_seed(0))
    simulator, copy = Simulator(tape, rules, 3, horizon=None), Simulator(tape, rules, 3, horizon=None)
    simulator.reset(whole(3), bars_of(3, 2), bars_of(3, tape.n))
    for action in actions[:6]:
        simulator.step(action)
    copy.set_state(simulator.get_state())
    for action in actions[6:]:
        left, right = simulator.step(action), copy.step(action)
        assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(simulator.observe(), copy.observe(), strict=True))


def test_results_do_not_change_under_later_steps() -> None:
    tape = random_tape(6).tensors()
    simulator = Simulator(tape, TradingRules(decision_interval=4), 2)
    simulator.reset(whole(2), bars_of(2, 2), bars_of(2, tape.n))
    seen, result = simulator.observe(), simulator.step(bars_of(2, 1))
    kept = [value.clone() for value in (*seen, *result)]
    simulator.step(bars_of(2, 2))
    simulator.reset(whole(2), bars_of(2, 9), bars_of(2, tape.n))
    assert all(torch.equal(a, b) for a, b in zip(kept, (*seen, *result), strict=True))


def test_works_inside_and_outside_inference_mode() -> None:
    tape = random_tape(7).tensors()
    simulator = Simulator(tape, TradingRules(decision_interval=4), 2)
    with torch.inference_mode():
        simulator.reset(whole(2), bars_of(2, 2), bars_of(2, tape.n))
        simulator.step(bars_of(2, 1))
    result = simulator.step(bars_of(2, 2))
    assert not result.log_return.requires_grad
    assert simulator.observe().portfolio.shape == (2, 6)


def test_no_value_is_read_back_and_no_tensor_is_made_on_the_wrong_device() -> None:
    """On the meta device every read of a value raises, as every mix of devices does."""
    rules = TradingRules(flat_by_close=True, impact=1.0, max_participation=0.1, masks="risk", half_spread_bps=1.0)
    tape = random_tape(8).tensors(device="meta")
    simulator = Simulator(tape, rules, 4)
    rows = torch.ones(4, dtype=torch.bool, device="meta")
    bar = torch.ones(4, dtype=torch.int64, device="meta")
    simulator.reset(rows, bar, bar)
    simulator.observe()
    assert simulator.step(bar).equity_path.shape == (4, 15)
    simulator.liquidate(rows, bar)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same() -> None:
    rules = TradingRules(decision_interval=4, flat_by_close=True, impact=1.0, max_participation=0.5, masks="risk")
    tape = random_tape(9)
    actions = torch.randint(0, 3, (20, 16), generator=torch.Generator().manual_seed(0))
    paths = []
    for device in ("cpu", "cuda"):
        simulator = Simulator(tape.tensors(device), rules, 16, horizon=None)
        simulator.reset(whole(16).to(device), bars_of(16, 2).to(device), bars_of(16, tape.n).to(device))
        steps = [simulator.step(action.to(device)) for action in actions]
        paths.append(torch.stack([step.equity_path.cpu() for step in steps]))
    torch.testing.assert_close(paths[0], paths[1], rtol=1e-10, atol=0.0)


def test_wrong_arguments_are_refused() -> None:
    tape = make_tape([1.0] * 20, [1.0] * 20).tensors()
    with pytest.raises(ConfigError, match="at least 1 row"):
        Simulator(tape, TradingRules(), 0)
    with pytest.raises(ConfigError, match="15 bars are needed"):
        Simulator(tape, TradingRules(), 1, horizon=14)
    with pytest.raises(ConfigError, match="at least 32 are needed"):
        Simulator(tape, TradingRules(decision_interval=30), 1)


def test_rules_report_every_mistake_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TradingRules(fee_rate=-0.1, max_drawdown=1.0, decision_interval=0, masks="strict")  # type: ignore[arg-type]
    lines = caught.value.lines
    assert [line.split(":")[0] for line in lines] == [
        "trading.fee_rate", "trading.max_drawdown", "trading.decision_interval", "trading.masks",
    ]  # fmt: skip
    assert "[0, 0.05]" in lines[0]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"fee_rate": math.inf}, "finite number"),
        ({"initial_cash": True}, "finite number"),
        ({"decision_interval": 2.5}, "whole number"),
        ({"min_trade": 0.2, "position_step": 0.1}, "exceeds what an action can trade"),
        ({"episode_length": 10}, "holds? no decision interval|hold no decision interval"),
        ({"flat_by_close": 1}, "truth value"),
        ({"allow_short": True}, "trading.allow_short: unknown"),
    ],
)
def test_rules_out_of_range(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        TradingRules().replace(**changes)
