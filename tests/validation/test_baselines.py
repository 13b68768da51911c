"""Baselines by hand, the oracle's lead, causality of the crossover, and random traders of a given turnover."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentio_rllib.market.synthetic import synthetic_market
from sentio_rllib.market.tape import Tape, build_tape
from sentio_rllib.trading.masks import BUY, HOLD, SELL
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation import baselines
from sentio_rllib.validation.baselines import (
    Switching,
    random_policy,
    run_baselines,
    sma_crossover,
    switching,
    table_policy,
)
from sentio_rllib.validation.evaluation import BlockEvaluator, Record
from sentio_rllib.validation.schemes import Range
from tests.trading.tapes import make_tape, random_tape

RULES = TradingRules(decision_interval=1, episode_length=100, max_drawdown=0.9)
QUIET = make_tape(np.full(3000, 100.0), np.full(3000, 100.0), session_lengths=[100] * 30)


def _records(tape: Tape, rules: TradingRules, blocks: list[Range], actions: np.ndarray) -> Record:
    return BlockEvaluator(tape.tensors(), rules, [blocks], [(0, 0)]).evaluate(table_policy(actions)).greedy[0]


def _agent(trades: int, exposure: float, decisions: int, bars: int | None = None) -> Record:
    """A record of a bar for each decision, or of as many as there are said to be."""
    record = _records(QUIET, RULES, [Range(1, 10)], np.zeros(QUIET.n, dtype=np.int64))
    return replace(record, trades=trades, exposure=exposure, decisions=decisions, bars=bars or decisions)


# -- hold and flat ----------------------------------------------------------------------------------------------


def test_buy_and_hold_equals_the_hand_computation() -> None:
    opening = [100.0, 100.0, 101.0, 102.0, 103.0, 104.0, 103.0, 105.0]
    close = [100.0, 100.5, 101.5, 102.5, 103.5, 103.0, 104.0, 106.0]
    tape = make_tape(opening, close, session_lengths=[4, 4])
    found = run_baselines(tape.tensors(), RULES, [Range(1, 7)]).hold
    # bought at the open of bar 2: 95% of what the fee leaves; sold at the close of bar 6
    cash = 100_000.0
    notional = 0.95 * cash / (1 + 0.95 * 0.001)
    left = cash - 0.001 * notional
    shares = 0.95 * left / 101.0
    marks = [0.05 * left + shares * price for price in close[2:7]]
    fees = 0.001 * (notional + shares * 104.0)
    marks[-1] -= 0.001 * shares * 104.0
    # what was held over each bar at the close before it, the first of 100.5 having been followed by a fill at 101
    held = np.array(
        [shares * close[bar - 1] / equity for bar, equity in zip(range(2, 7), [cash, *marks], strict=False)]
    )
    assert found.session.tolist() == [0, 1]
    assert found.session_returns == pytest.approx([marks[1] / cash - 1, marks[4] / marks[1] - 1], rel=1e-12)
    assert (1 + found.mean_return) ** 5 == pytest.approx(marks[4] / cash, rel=1e-12)
    assert (found.trades, found.decisions, found.bars) == (2, 4, 5)
    assert found.fees_usd == pytest.approx(fees, rel=1e-12)
    assert found.turnover_usd == pytest.approx(fees / 0.001, rel=1e-12)
    assert found.exposure == pytest.approx(held.mean(), rel=1e-12)
    assert found.opening_exposure == pytest.approx(shares * 100.5 / cash, rel=1e-12)
    assert found.session_exposure == pytest.approx([held[:2].mean(), held[2:].mean()], rel=1e-12)
    assert (found.trips, found.winning_trips) == (1, 1)


def test_flat_earns_exactly_nothing_whatever_trading_costs() -> None:
    tape = random_tape(3)
    rules = RULES.replace(decision_interval=5, half_spread_bps=10.0, impact=1.0)
    found = run_baselines(tape.tensors(), rules, [Range(2, 60), Range(70, 150)]).flat
    assert not found.session_returns.any()
    assert (found.trades, found.fees_usd, found.turnover_usd, found.exposure) == (0, 0.0, 0.0, 0.0)


def test_risk_masks_do_not_bind_the_baselines() -> None:
    tape = make_tape(np.full(60, 100.0), np.full(60, 100.0), volatility=np.full(60, 1.0))
    rules = RULES.replace(masks="risk")
    assert _records(tape, rules, [Range(1, 50)], np.full(60, BUY)).trades == 0
    assert run_baselines(tape.tensors(), rules, [Range(1, 50)]).hold.trades == 2


def test_the_drawdown_stop_ends_the_block_of_buy_and_hold() -> None:
    falling = np.geomspace(100.0, 50.0, 60)
    tape = make_tape(falling, falling)
    found = run_baselines(tape.tensors(), RULES.replace(max_drawdown=0.2), [Range(1, 50)]).hold
    assert found.drawdown_stops == 1
    assert found.session_returns[0] > np.log(0.75)


def test_without_agent_and_regimes_there_is_neither_random_nor_oracle() -> None:
    found = run_baselines(QUIET.tensors(), RULES, [Range(1, 50)])
    assert found.random == ()
    assert found.oracle is None


# -- oracle -----------------------------------------------------------------------------------------------------


def test_the_oracle_beats_all_on_a_planted_market() -> None:
    market = synthetic_market(12_000, seed=5, edge=2e-4, regime_bars=300)
    tape = build_tape(market.bars)
    rules = TradingRules(fee_rate=0.0005)
    found = run_baselines(
        tape.tensors(),
        rules,
        [Range(4000, 8000), Range(8000, 12_000)],
        agent=[_agent(20, 0.5, 500)],
        regime=market.regime,
        draws=8,
    )
    assert found.oracle is not None
    best = max(record.mean_return for record in (found.flat, found.hold, found.sma, *found.random))
    assert found.oracle.mean_return > best + 2e-5


def test_oracle_labels_may_reach_past_the_tape_but_not_end_before_it() -> None:
    regime = np.tile(np.repeat([1, 0], 10), 30).astype(np.int8)
    tensors, blocks = QUIET.cut(400).tensors(), [Range(1, 400)]
    long, exact = (run_baselines(tensors, RULES, blocks, regime=each).oracle for each in (regime, regime[:400]))
    assert long is not None
    assert exact is not None
    # bars 10 .. 19 are bear, so from the close of 9 on it is sold, and bought again from that of 19 on
    assert long.trades == exact.trades == 40
    with pytest.raises(ValueError, match="regime has 399 labels, needed one for each of 400 bars"):
        run_baselines(tensors, RULES, blocks, regime=regime[:399])


# -- crossover --------------------------------------------------------------------------------------------------


def test_crossover_by_hand() -> None:
    close = np.array([10.0, 12.0, 11.0, 13.0, 9.0, 9.0, 12.0])
    # means of 2: -, 11, 11.5, 12, 11, 9, 10.5; means of 3: -, -, 11, 12, 11, 10.33, 10
    assert sma_crossover(close, 2, 3).tolist() == [SELL, SELL, BUY, SELL, SELL, SELL, BUY]


@given(seed=st.integers(0, 1000), at=st.integers(1, 199), fast=st.integers(1, 20), more=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_crossover_does_not_see_the_future(seed: int, at: int, fast: int, more: int) -> None:
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0, 0.01, 200)))
    changed = np.concatenate([close[:at], close[at:] * rng.uniform(0.1, 10.0, 200 - at)])
    before, after = (sma_crossover(each, fast, fast + more) for each in (close, changed))
    assert before[:at].tolist() == after[:at].tolist()
    assert before[:at].tolist() == sma_crossover(close[:at], fast, fast + more).tolist()
    assert set(before[: fast + more - 1]) <= {SELL}


def test_crossover_of_a_constant_or_short_price_is_flat() -> None:
    assert set(sma_crossover(np.full(300, 0.1), 7, 100)) == {SELL}
    assert sma_crossover(np.arange(1.0, 6.0), 2, 6).tolist() == [SELL] * 5
    assert sma_crossover(np.arange(1.0, 6.0), 2, 5).tolist() == [SELL] * 4 + [BUY]


@pytest.mark.parametrize(("fast", "slow"), [(0, 5), (5, 5), (6, 5)])
def test_crossover_refuses_lengths(fast: int, slow: int) -> None:
    with pytest.raises(ValueError, match=f"fast is {fast} bars and slow is {slow}, allowed 1 <= fast < slow"):
        sma_crossover(np.ones(10), fast, slow)


# -- tables -----------------------------------------------------------------------------------------------------


def test_a_table_has_one_column_for_all_or_one_for_each() -> None:
    bar = torch.tensor([[0, 1], [2, 2]])
    mask = torch.ones(2, 2, 3, dtype=torch.bool)
    mask[1, 1, SELL] = False
    shared = table_policy(np.array([HOLD, BUY, SELL]))(bar, torch.zeros(2, 2, 6), mask)
    assert shared.argmax(-1).tolist() == [[HOLD, BUY], [SELL, HOLD]]  # what is masked is a Hold
    own = table_policy(np.array([[HOLD, BUY], [BUY, SELL], [BUY, BUY]]))(bar, torch.zeros(2, 2, 6), mask)
    assert own.argmax(-1).tolist() == [[HOLD, SELL], [BUY, BUY]]
    assert (own[~mask] < -1e8).all()


@pytest.mark.parametrize(
    ("actions", "error", "message"),
    [
        (np.zeros(3), TypeError, "int64"),
        (np.zeros((1, 1, 1), dtype=np.int64), ValueError, "rank 3"),
        (np.array([0, 3]), ValueError, r"0 \(Hold\), 1 \(Buy\) or 2 \(Sell\)"),
        (np.zeros(0, dtype=np.int64), ValueError, "one at least"),
    ],
)
def test_a_table_refuses_what_are_no_actions(actions: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        table_policy(actions)


# -- random -----------------------------------------------------------------------------------------------------


def _made(agent: Record, blocks: list[Range], rules: TradingRules = RULES, **options: Any) -> tuple[Record, ...]:
    return run_baselines(QUIET.tensors(), rules, blocks, agent=[agent], **options).random


@pytest.mark.parametrize(("trades", "exposure"), [(40, 0.3), (200, 0.5), (10, 0.6), (20, 0.9), (6, 0.02)], ids=str)
def test_random_traders_match_trades_and_exposure(trades: int, exposure: float) -> None:
    blocks = [Range(1, 503), Range(503, 1005)]
    agent = _agent(trades, exposure, 1000)
    draws = _made(agent, blocks, RULES.replace(fee_rate=0.0), draws=96)
    for found, wanted in (
        ([record.trades for record in draws], trades),
        ([record.exposure for record in draws], exposure),
    ):
        error = np.std(found, ddof=1) / np.sqrt(len(found))
        assert error > 0
        assert abs(np.mean(found) - wanted) < 4 * error


def test_random_traders_match_where_decisions_are_far_apart() -> None:
    """Exposure is of bars, of which those behind the last decision are some."""
    rules = RULES.replace(fee_rate=0.0, decision_interval=7)
    draws = _made(_agent(40, 0.3, 140, bars=1001), [Range(1, 503), Range(503, 1005)], rules, draws=96)
    exposures = [record.exposure for record in draws]
    assert abs(np.mean(exposures) - 0.3) < 4 * np.std(exposures, ddof=1) / np.sqrt(96)
    assert np.mean([record.trades for record in draws]) == pytest.approx(40, rel=0.1)


def test_random_traders_match_where_sessions_end_flat() -> None:
    rules = RULES.replace(fee_rate=0.0, flat_by_close=True, close_minutes=1)
    draws = _made(_agent(60, 0.4, 1000), [Range(1, 1003)], rules, draws=96)
    assert np.mean([record.trades for record in draws]) == pytest.approx(60, rel=0.05)
    assert np.mean([record.exposure for record in draws]) == pytest.approx(0.4, rel=0.05)


def test_small_steps_are_matched_in_turnover() -> None:
    rules = RULES.replace(fee_rate=0.0, position_step=0.19)
    draws = _made(_agent(250, 0.4, 1000), [Range(1, 1003)], rules, draws=64)
    assert np.mean([record.trades for record in draws]) == pytest.approx(50, rel=0.1)
    assert np.mean([record.exposure for record in draws]) == pytest.approx(0.4, rel=0.1)


def test_an_agent_that_is_always_long_or_never_trades_leaves_nothing_to_chance() -> None:
    blocks = [Range(1, 103), Range(200, 302)]
    known = run_baselines(QUIET.tensors(), RULES, blocks)
    for agent in (known.hold, replace(known.hold, exposure=0.99)):
        for record in _made(agent, blocks, draws=3):
            np.testing.assert_array_equal(record.session_returns, known.hold.session_returns)
    for record in _made(known.flat, blocks, draws=3):
        assert record.trades == 0


def test_chances_by_hand() -> None:
    rules = TradingRules(max_position=0.5)

    def chances(trades: int, exposure: float, stretches: int = 10) -> Switching:
        return switching([_agent(trades, exposure, 110)], rules, decisions=110, stretches=stretches)

    # long for 0.1 / 0.5 of the bars; 2 * 0.2 * 10 trades are of the stretches, 16 are left for 100 later decisions
    assert chances(20, 0.1) == pytest.approx((0.2, 8 / 100 / 0.8, 8 / 100 / 0.2))
    # longer than the stretches explain, but no switch left: long for a whole stretch or not at all
    assert chances(4, 0.1) == pytest.approx((0.2, 0.0, 0.0))
    # above the limit: always long but for what the trades sell
    assert chances(22, 0.6) == pytest.approx((1 / 1.01, 1.0, 0.01))
    assert chances(20, 0.6) == (1.0, 1.0, 0.0)
    # more trades than decisions allow: (110 - 4) / 2 ways in and out, with a fifth of 100 decisions long
    assert chances(110, 0.1) == pytest.approx((0.6625 / 1.6625, 0.53 / 0.8, 1.0))
    # trades without any exposure, and stretches of one decision
    assert chances(10, 0.0) == pytest.approx((0.05 / 1.05, 0.05, 1.0))
    assert chances(22, 0.0, stretches=110) == pytest.approx((0.1, 0.0, 0.0))


def test_members_are_pooled_by_their_decisions_and_bars() -> None:
    rules = TradingRules()
    wanted = switching([_agent(40, 0.3, 400)], rules, decisions=400, stretches=2)
    assert switching([_agent(30, 0.2, 300), _agent(10, 0.6, 100)], rules, decisions=400, stretches=2) == wanted
    # exposure is of bars: 0.3 is what 600 of them at 0.2 and 200 at 0.6 have, however few decisions they hold
    parts = [_agent(30, 0.2, 100, bars=600), _agent(10, 0.6, 300, bars=200)]
    assert switching(parts, rules, decisions=400, stretches=2) == pytest.approx(wanted)


def test_draws_are_the_same_in_batches_and_change_with_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    tape, rules = random_tape(4), RULES.replace(decision_interval=3)
    options: dict[str, Any] = {"agent": [_agent(20, 0.4, 100)], "draws": 5}
    blocks = [Range(2, 60), Range(70, 150)]
    whole = run_baselines(tape.tensors(), rules, blocks, **options).random
    other = run_baselines(tape.tensors(), rules, blocks, **options, seed=1).random
    monkeypatch.setattr(baselines, "_EQUITY_BYTES", 2 * 2 * 8 * 80 * 2)
    parts = run_baselines(tape.tensors(), rules, blocks, **options).random
    values = [[record.session_returns.tolist() for record in each] for each in (whole, parts, other)]
    assert values[0] == values[1]
    assert len({tuple(each) for each in values[0]}) == 5
    assert not any(each in values[2] for each in values[0])


def test_a_random_trader_reads_its_account_and_nothing_of_the_market() -> None:
    decide = random_policy(Switching(1.0, 0.0, 1.0), np.array([4]), 10, range(2), seed=0)
    bar = torch.tensor([[4, 5], [4, 5]])
    portfolio = torch.zeros(2, 2, 6)
    portfolio[1, :, 0] = 0.3
    chosen = decide(bar, portfolio, torch.ones(2, 2, 3, dtype=torch.bool)).argmax(-1)
    assert chosen.tolist() == [[BUY, HOLD], [SELL, SELL]]


# -- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "options", "message"),
    [
        ([], {}, "there is none, needed one or more of at least 3 bars"),
        ([Range(1, 50), Range(60, 62)], {}, "has 2 bars, needed one or more of at least 3"),
        ([Range(1, 50)], {"draws": 0}, "draws is 0, allowed 1 or more"),
    ],
)
def test_bad_input_is_refused(blocks: list[Range], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_baselines(QUIET.tensors(), RULES, blocks, **options)


def test_stretches_must_fit_the_decisions() -> None:
    with pytest.raises(ValueError, match=r"stretches is 11, allowed 1 .. 10 \(decisions\)"):
        switching([_agent(1, 0.1, 10)], RULES, decisions=10, stretches=11)
