"""What records tell is what an account of cash and shares had: compounded, over bars, and trip by trip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from sentio_rllib.market.tape import Tape
from sentio_rllib.statistics.metrics import projected_return, sharpe
from sentio_rllib.trading.masks import BUY, HOLD
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.baselines import NO_STOP, table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator, Record
from sentio_rllib.validation.schemes import Range
from sentio_rllib.validation.series import by_session, combine
from tests.trading.tapes import make_tape, random_tape
from tests.validation.records import record

FREE = TradingRules(fee_rate=0.0, max_drawdown=NO_STOP, decision_interval=30, episode_length=390)


def _walk(tape: Tape, rules: TradingRules, folds: Sequence[Sequence[Range]], actions: np.ndarray) -> Sequence[Record]:
    members = [(0, fold) for fold in range(len(folds))]
    return BlockEvaluator(tape.tensors(), rules, folds, members).evaluate(table_policy(actions)).greedy


# -- compounding ------------------------------------------------------------------------------------------------


def _bouncing(sessions: int = 60, bars: int = 390) -> Tape:
    """A path that falls by 5.8% in all; each bar opens 25 bp off it on the one side and closes so on the other."""
    steps = np.random.default_rng(0).normal(0.0, 0.02, sessions)
    steps += np.log(0.942) / sessions - steps.mean()
    path = 100.0 * np.exp(np.cumsum(np.repeat(steps / bars, bars)))
    side = np.where(np.arange(sessions * bars) % 2 == 0, 0.0025, -0.0025)
    return make_tape(path * (1 - side), path * (1 + side), session_lengths=[bars] * sessions)


@pytest.mark.parametrize("position", [0.5, 1.0])
def test_a_price_that_bounces_while_it_falls_is_a_loss(position: float) -> None:
    tape, block = _bouncing(), Range(1, 60 * 390)
    rules = FREE.replace(max_position=position)
    once = np.full(tape.n, HOLD)
    once[1] = BUY
    [held] = _walk(tape, rules, [[block]], once)
    # bought once at the open of bar 2 and sold at the last close
    shares = position / tape.open[2]
    equity = np.concatenate([[1.0], (1 - position) + shares * tape.close[2 : block.stop]])
    total = equity[-1] - 1
    assert total < -0.05 * position
    assert np.prod(1 + held.session_returns) - 1 == pytest.approx(total, abs=1e-12)
    assert sharpe(held.session_returns, 252) < 0.0
    assert projected_return(held.session_returns, 21) < 0.0
    assert held.mean_return < 0.0
    # the bars' returns add up to a profit, that of who would hold the same share at every bar
    sums = np.zeros(60)
    np.add.at(sums, tape.session[2 : block.stop], equity[1:] / equity[:-1] - 1)
    assert sharpe(sums, 252) > 1.0
    assert (1 + sums.mean()) ** 21 - 1 > 0.01


@pytest.mark.parametrize("seed", range(5))
def test_session_returns_compound_to_what_the_account_came_to(seed: int) -> None:
    """Whatever is traded, at costs and by several blocks: turnover aside, only marks decide."""
    tape = random_tape(seed, bars=160)
    actions = np.random.default_rng(seed).integers(0, 3, tape.n)
    rules = TradingRules(decision_interval=5, episode_length=60, max_drawdown=0.5, half_spread_bps=5.0)
    blocks = [Range(2, 70), Range(75, 150)]
    [both] = _walk(tape, rules, [blocks], actions)
    alone = _walk(tape, rules, [[block] for block in blocks], actions)
    money = 1.0
    for each in alone:
        money *= (1 + each.mean_return) ** each.bars
    assert np.prod(1 + both.session_returns) == pytest.approx(money, abs=1e-12)
    assert (1 + both.mean_return) ** both.bars == pytest.approx(money, abs=1e-12)
    assert both.trips == sum(each.trips for each in alone)
    assert both.exposure * both.bars == pytest.approx(sum(each.exposure * each.bars for each in alone), rel=1e-12)
    assert both.opening_exposure == alone[0].opening_exposure


# -- a session that folds divide --------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [45, 100, 123])
def test_parts_of_a_session_multiply_to_what_it_is_undivided(cut: int) -> None:
    """Sold at the end of one fold and bought back at the same price in the next, for nothing: as if it were kept."""
    tape = random_tape(11, bars=160, scale=0.02)
    opening, close = tape.open.copy(), tape.close.copy()
    close[cut - 1 : cut + 1] = opening[cut : cut + 2] = close[cut]
    lengths = [40, 40, 40, 40]
    tape = make_tape(opening, close, session_lengths=lengths)
    rules = FREE.replace(decision_interval=1, episode_length=60, max_position=1.0)
    first, second = Range(1, cut), Range(cut, 159)
    parts = _walk(tape, rules, [[first], [second]], np.full(tape.n, BUY))
    [whole] = _walk(tape, rules, [[Range(1, 159)]], np.full(tape.n, BUY))
    joined = combine(parts, dict(enumerate(parts)), [(0, 0), (0, 1)])
    assert parts[0].session[-1] == parts[1].session[0]  # the session is divided
    assert joined.session.tolist() == whole.session.tolist()
    np.testing.assert_allclose(joined.raw, whole.session_returns, rtol=0.0, atol=1e-12)
    divided = parts[0].session_returns[-1], parts[1].session_returns[0]
    assert min(map(abs, divided)) > 1e-3  # sums would be told apart
    assert not joined.timing.any()


def test_parts_multiply_after_seeds_are_averaged() -> None:
    records = [record([0.10, 0.30], [0, 1]), record([0.20, 0.10], [0, 1]), record([0.5], [1]), record([-0.1], [1])]
    session, returns, _, _ = by_session(records, [(7, 0), (8, 0), (7, 1), (8, 1)])
    # a dollar divided between the seeds: 1.15, and 1.2 * 1.2 on the session that both folds have a part of
    assert session.tolist() == [0, 1]
    assert returns.tolist() == pytest.approx([0.15, 0.44])


def test_a_loss_of_one_part_cannot_be_more_than_all() -> None:
    _, returns, _, _ = by_session([record([-0.6], [0]), record([-0.6], [0])], [(0, 0), (0, 1)])
    assert returns.tolist() == pytest.approx([0.4 * 0.4 - 1])  # sums would have lost 120%


# -- what is held between two decisions -------------------------------------------------------------------------

INSIDE = TradingRules(
    fee_rate=0.01, max_position=1.0, decision_interval=5, episode_length=20, flat_by_close=True, close_minutes=0,
    max_drawdown=0.2,
)  # fmt: skip


def _one_buy(at: int, changes: dict[int, tuple[float, float]]) -> Record:
    """Two sessions of 12 bars at 100 but for these opens and closes; a Buy at one decision, 1, 6, 11 or 16.

    What is held at a decision has to be nothing: it is opened and closed within one interval.
    """
    opening, close, actions = np.full(24, 100.0), np.full(24, 100.0), np.full(24, HOLD)
    for bar, (start, end) in changes.items():
        opening[bar], close[bar] = start, end
    actions[at] = BUY
    seen: list[float] = []
    decide = table_policy(actions)

    def spied(bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append(float(portfolio[..., 0].abs().max()))
        return decide(bar, portfolio, mask)

    tape = make_tape(opening, close, session_lengths=[12, 12])
    [found] = BlockEvaluator(tape.tensors(), INSIDE, [[Range(1, 24)]], [(0, 0)]).evaluate(spied).greedy
    assert seen == [0.0] * 4
    return found


@pytest.mark.parametrize(("last", "wins"), [(110.0, 1), (101.5, 0), (90.0, 0)])
def test_bought_in_a_sessions_last_interval_and_sold_at_its_close(last: float, wins: int) -> None:
    """Decided at bar 6, filled at 7's open of 100, held over 7 .. 11, sold at 11's close, with 1% on both ways."""
    path = {7: (100.0, 101.0), 8: (101.0, 102.0), 9: (102.0, 104.0), 10: (104.0, 103.0), 11: (103.0, last)}
    found = _one_buy(6, path)
    net = last * 0.99 / (100.0 * 1.01) - 1
    assert found.session_returns.tolist() == pytest.approx([net, 0.0], abs=1e-12)
    assert (found.trips, found.winning_trips) == (1, wins)
    assert found.turnover_usd == pytest.approx(100_000 / 1.01 * (1 + last / 100), rel=1e-12)
    # of session 0 it has bars 2 .. 11: 7's share is 1 / 1.01 of what there was, then there is nothing but shares
    assert found.session_exposure.tolist() == pytest.approx([(1 / 1.01 + 4) / 10, 0.0], abs=1e-12)
    assert found.exposure == pytest.approx((1 / 1.01 + 4) / 22, abs=1e-12)
    assert found.opening_exposure == 0.0


def test_stopped_within_the_interval_that_bought() -> None:
    """Decided at bar 1, filled at 2's open; 3's close is 30% below, so that 4's open sells."""
    found = _one_buy(1, {2: (100.0, 100.0), 3: (100.0, 70.0), 4: (71.0, 100.0)})
    net = 71.0 * 0.99 / (100.0 * 1.01) - 1
    assert found.session_returns.tolist() == pytest.approx([net, 0.0], abs=1e-12)
    assert (found.trips, found.winning_trips, found.drawdown_stops) == (1, 0, 1)
    assert found.session_exposure.tolist() == pytest.approx([(1 / 1.01 + 1) / 10, 0.0], abs=1e-12)
    assert found.opening_exposure == pytest.approx(1 / 1.01, abs=1e-12)


def test_a_trip_of_one_bar_counts() -> None:
    """Bought at the open of a session's last bar and sold at its close."""
    tape = make_tape([100.0] * 13, [100.0] * 6 + [103.0] + [100.0] * 6, session_lengths=[7, 6])
    actions = np.full(13, HOLD)
    actions[5] = BUY
    rules = INSIDE.replace(decision_interval=1)
    [found] = _walk(tape, rules, [[Range(1, 12)]], actions)
    assert (found.trips, found.winning_trips) == (1, 1)
    assert found.session_returns.tolist() == pytest.approx([103.0 * 0.99 / 101.0 - 1, 0.0], abs=1e-12)
    assert found.session_exposure.tolist() == pytest.approx([1 / 1.01 / 5, 0.0], abs=1e-12)


def test_who_holds_nothing_has_no_exposure() -> None:
    tape = random_tape(2)
    [idle] = _walk(tape, INSIDE, [[Range(2, 60), Range(70, 150)]], np.full(tape.n, HOLD))
    assert not idle.session_exposure.any()
    assert (idle.exposure, idle.opening_exposure, idle.trips, idle.mean_return) == (0.0, 0.0, 0, 0.0)
