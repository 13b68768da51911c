"""Holes in the bars: what is held over a cut loses and gains with it, as money would, and it is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sentio_rllib.market.tape import Tape
from sentio_rllib.trading.masks import BUY, HOLD, SELL
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.baselines import run_baselines, table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator, Record
from sentio_rllib.validation.splits import Footprint, Range, Splits, make_splits
from tests.trading.tapes import make_tape

BARS, CUT, SECOND = 40, 20, 30
GAP, STEP = 0.9, 0.998
FIRST_FILL = 3
"""Bar at whose open the first order of BLOCK is filled."""
BLOCK = Range(2, BARS)
RULES = TradingRules(fee_rate=0.001, max_position=1.0, decision_interval=5, episode_length=40, max_drawdown=0.9)


def holed(*, second: float = 1.0, cuts: tuple[int, ...] = (CUT,)) -> Tape:
    """A price that falls by 0.2% a bar and by 10% over the cut, whose first bar does not move by itself."""
    close, opening = [100.0], [100.0]
    for bar in range(1, BARS):
        opening.append(close[-1] * {CUT: GAP, SECOND: second}.get(bar, 1.0))
        close.append(opening[-1] * (1.0 if bar in (CUT, SECOND) else STEP))
    return make_tape(opening, close, session_lengths=[10] * 4, cuts=list(cuts))


def walked(tape: Tape, orders: dict[int, int], block: Range = BLOCK, **changes: Any) -> Record:
    """The record of one account that gives `orders` at the closes of these bars and holds at others."""
    actions = np.full(tape.n, HOLD, dtype=np.int64)
    for bar, action in orders.items():
        actions[bar] = action
    evaluator = BlockEvaluator(tape.tensors(), RULES.replace(**changes), [[block]], [(0, 0)])
    return evaluator.evaluate(table_policy(actions)).greedy[0]


def growth(record: Record) -> float:
    return float(np.prod(1.0 + record.session_returns))


def test_what_is_held_over_a_hole_loses_what_the_price_lost() -> None:
    tape = holed()
    record = walked(tape, dict.fromkeys(range(BARS), BUY))
    # all money is in the market: shares * price after the fee of the Buy is all there is
    shares = 100_000.0 / 1.001 / tape.open[FIRST_FILL]
    change = tape.close[-1] - tape.open[FIRST_FILL]
    fees = 0.001 * shares * (tape.open[FIRST_FILL] + tape.close[-1])
    lost = shares * change - fees
    assert 100_000.0 * (growth(record) - 1.0) == pytest.approx(lost, rel=1e-12)
    assert record.fees_usd == pytest.approx(fees, rel=1e-12)
    # 35 bars of -0.2% come to -6.8%, and the hole to another -10% of what was left
    moving = BARS - FIRST_FILL - 2
    assert 0.06 < 1.0 - STEP**moving < 0.07
    assert change / tape.open[FIRST_FILL] == pytest.approx(GAP * STEP**moving - 1.0, rel=1e-12)
    assert growth(record) < 0.85
    assert (record.cuts_held, record.cuts_return) == (1, pytest.approx(GAP - 1.0, rel=1e-12))
    assert record.max_drawdown == pytest.approx(1.0 - growth(record), rel=1e-12)


def test_buy_and_hold_falls_into_the_hole_too() -> None:
    tape = holed()
    found = run_baselines(tape.tensors(), RULES, [BLOCK])
    assert growth(found.hold) == pytest.approx(growth(walked(tape, {2: BUY})), rel=1e-12)
    assert (found.hold.cuts_held, found.flat.cuts_held) == (1, 0)
    assert found.hold.cuts_return == pytest.approx(GAP - 1.0, rel=1e-12)
    assert found.flat.cuts_return == 0.0


def test_a_position_of_half_the_money_loses_half_the_gap() -> None:
    tape = holed()
    record = walked(tape, {2: BUY}, max_position=0.5)
    notional = 50_000.0 / (1.0 + 0.5 * 0.001)
    shares, cash = notional / tape.open[FIRST_FILL], 100_000.0 - 1.001 * notional
    before, behind = (cash + shares * tape.close[bar] for bar in (CUT - 1, CUT))
    assert record.cuts_return == pytest.approx(behind / before - 1.0, rel=1e-12)
    assert -0.05 < record.cuts_return < -0.049


def test_two_holes_compound() -> None:
    record = walked(holed(second=0.95, cuts=(CUT, SECOND)), {2: BUY})
    assert (record.cuts_held, record.cuts_return) == (2, pytest.approx(GAP * 0.95 - 1.0, rel=1e-12))


@pytest.mark.parametrize(
    ("orders", "changes"),
    [
        ({}, {}),
        ({2: BUY, 7: SELL}, {}),
        ({CUT - 3: BUY, CUT - 2: SELL}, {"decision_interval": 1}),
        # the order before the hole is filled behind it, at the price that is there
        ({CUT - 1: BUY}, {"decision_interval": 1}),
        # what is sold at a session's last close is not held over the hole that follows
        ({2: BUY}, {"flat_by_close": True, "close_minutes": 0}),
    ],
    ids=["idle", "sold", "sold at the last open", "bought behind", "flat by close"],
)
def test_a_flat_account_does_not_feel_the_hole(orders: dict[int, int], changes: dict[str, Any]) -> None:
    record = walked(holed(), orders, **changes)
    assert (record.cuts_held, record.cuts_return) == (0, 0.0)
    assert growth(record) > 0.9


def test_who_sells_behind_the_hole_has_paid_for_it() -> None:
    tape = holed()
    # decided at the last close before the hole, filled at the first price behind it
    record = walked(tape, {2: BUY, CUT - 1: SELL}, decision_interval=1)
    assert (record.cuts_held, record.cuts_return) == (1, pytest.approx(GAP * 0.999 - 1.0, rel=1e-12))
    assert growth(record) == pytest.approx(0.999 / 1.001 * tape.open[CUT] / tape.open[FIRST_FILL], rel=1e-12)


def test_a_block_that_begins_behind_the_hole_is_not_over_it() -> None:
    record = walked(holed(), {CUT: BUY}, Range(CUT, BARS))
    assert (record.cuts_held, record.cuts_return) == (0, 0.0)


def one_gap(splits_of: int, cut: int) -> tuple[Tape, Splits]:
    """A price that moves over the cut alone, and the splits of its bars."""
    close = np.where(np.arange(splits_of) < cut, 100.0, 100.0 * GAP)
    tape = make_tape(close, close, session_lengths=[50] * (splits_of // 50), cuts=[cut])
    footprint = Footprint(lookback=20, receptive_field=4, decision_interval=5)
    shared: dict[str, Any] = {"embargo": 30, "episode_length": 60, "min_validation_bars": 40}
    return tape, make_splits(splits_of, cuts=[cut], footprint=footprint, folds=3, **shared)


def test_validation_blocks_cross_a_hole_and_training_segments_do_not() -> None:
    cut = 500
    tape, splits = one_gap(1000, cut)
    crossing = [fold.index for fold in splits.folds if any(block.start < cut < block.stop for block in fold.validation)]
    assert crossing == [1]
    trained = [each for fold in splits.folds for each in fold.train] + list(splits.refit)
    assert not any(each.start < cut < each.stop for each in trained)
    assert any(each.stop == cut for each in trained)
    assert any(each.start == cut for each in trained)
    rules = RULES.replace(fee_rate=0.0)
    blocks = [fold.validation for fold in splits.folds]
    evaluator = BlockEvaluator(tape.tensors(), rules, blocks, [(0, fold.index) for fold in splits.folds])
    records = evaluator.evaluate(table_policy(np.full(tape.n, BUY, dtype=np.int64))).greedy
    assert [growth(each) for each in records] == pytest.approx([1.0, GAP, 1.0], rel=1e-12)
    assert [each.cuts_held for each in records] == [0, 1, 0]


def test_a_holdout_with_a_hole_is_one_block() -> None:
    cut = 900
    tape, splits = one_gap(1000, cut)
    (block,) = splits.holdout_blocks
    assert (block.start, block.stop) == (800, 1000)
    record = walked(tape, {800: BUY}, block, fee_rate=0.0)
    assert (growth(record), record.cuts_held) == (pytest.approx(GAP, rel=1e-12), 1)
