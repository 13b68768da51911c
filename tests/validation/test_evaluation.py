"""Block evaluation against the bar-by-bar scalar simulator, and the scores made of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentio_rllib.market.tape import Tape
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.baselines import table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator, Record, fold_score, score_members
from sentio_rllib.validation.splits import Range
from tests.trading.scalar_simulator import ScalarSimulator
from tests.trading.tapes import random_tape
from tests.validation.records import record as made

INTERVAL = 5
REGIMES = 3


class Walk(NamedTuple):
    """A block, its equity bar by bar from its first one on, the bar of every trade, the fees, net gains of trips.

    `held` are the shares over each bar from the second one on.
    """

    block: Range
    equity: np.ndarray
    trades: list[int]
    fees: float
    trips: list[float]
    held: np.ndarray


def _expected(tape: Tape, rules: TradingRules, block: Range, actions: np.ndarray) -> Walk:
    """Walk one block by the scalar simulator."""
    one = ScalarSimulator(tape, rules, block.start, block.stop, None)
    path, trades, fees, stopped, held = [rules.initial_cash], list[int](), 0.0, False, list[float]()
    while one.bar + INTERVAL + 1 <= block.stop - 1:
        bar = one.bar
        result = one.step(0 if stopped else int(actions[bar]))
        path += result.path
        trades += [bar] * result.traded
        fees += result.fee
        stopped = stopped or result.terminated
        held += one.over
    before = one.fee = one.turnover = 0.0
    tail, _ = one.walk(0, block.stop - 1, liquidate=True)
    trades += [block.stop - 2] * (one.turnover > before)
    return Walk(block, np.array(path + tail), trades, fees + one.fee, one.trips, np.array(held + one.over))


@given(
    seed=st.integers(0, 10_000),
    masks=st.sampled_from(["none", "state", "risk"]),
    tight=st.booleans(),
    overnight=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_records_equal_the_scalar_walk_for_blocks_of_unequal_length(
    seed: int, masks: str, tight: bool, overnight: bool
) -> None:
    rng = np.random.default_rng(seed)
    tape = random_tape(seed, bars=170)
    rules = TradingRules(
        masks=masks,  # type: ignore[arg-type]  # one of the names
        decision_interval=INTERVAL,
        episode_length=60,
        max_drawdown=0.05 if tight else 0.5,
        flat_by_close=not overnight,
        close_minutes=1,
    )
    edges = np.sort(rng.choice(np.arange(2, 169), 4, replace=False))
    blocks = [Range(int(a), int(b)) for a, b in ((edges[0], edges[1]), (edges[2], edges[3])) if b - a >= INTERVAL + 3]
    other = [Range(5, 160)]
    if not blocks:
        return
    actions = rng.integers(0, 3, tape.n)
    labels = rng.integers(0, REGIMES, (2, tape.n), dtype=np.int8)
    labels[0, :REGIMES] = range(REGIMES)
    evaluator = BlockEvaluator(tape.tensors(), rules, [blocks, other], [(0, 0), (0, 1)], regimes=list(labels))
    found = evaluator.evaluate(table_policy(actions))
    for records in (found.greedy, found.sampled):
        for record, ranges, own in zip(records, (blocks, other), labels, strict=True):
            _compare(record, [_expected(tape, rules, block, actions) for block in ranges], tape, own)


def _compare(record: Record, walks: list[Walk], tape: Tape, labels: np.ndarray) -> None:
    growth: dict[int, float] = {}
    shares: dict[int, list[float]] = {}  # of equity
    by_regime = np.zeros((3, REGIMES))  # bars, logarithms of growth, trades
    for block, equity, trades, _, _, held in walks:
        assert len(equity) == len(block) == len(held) + 1
        for bar, (before, mark, over) in enumerate(zip(equity[:-1], equity[1:], held, strict=True), block.start + 1):
            session = int(tape.session[bar])
            growth[session] = growth.get(session, 1.0) * mark / before
            shares.setdefault(session, []).append(over * tape.close[bar - 1] / before)
            by_regime[:2, labels[bar - 1]] += (1, np.log(mark / before))
        for bar in trades:
            by_regime[2, labels[bar]] += 1
    assert record.session.tolist() == sorted(growth)
    np.testing.assert_allclose(record.session_returns, [growth[key] - 1 for key in sorted(growth)], atol=1e-10)
    np.testing.assert_allclose(record.session_exposure, [np.mean(shares[key]) for key in sorted(growth)], atol=1e-10)
    every = [each for key in sorted(growth) for each in shares[key]]
    assert record.exposure == pytest.approx(np.mean(every), abs=1e-12)
    assert record.opening_exposure == pytest.approx(every[0], abs=1e-12)
    whole = np.prod([walk.equity[-1] / walk.equity[0] for walk in walks])
    assert (1 + record.mean_return) ** record.bars == pytest.approx(whole, rel=1e-9)
    assert record.regime_return.sum() == pytest.approx(np.log(whole), abs=1e-10)
    assert record.trades == sum(len(walk.trades) for walk in walks)
    assert record.fees_usd == pytest.approx(sum(walk.fees for walk in walks), rel=1e-9, abs=1e-9)
    assert record.bars == sum(len(walk.block) - 1 for walk in walks)
    found = [record.regime_bars, record.regime_return, record.regime_trades]
    np.testing.assert_allclose(found, by_regime, atol=1e-10)
    path = np.concatenate([[0.0], np.cumsum(np.concatenate([np.diff(np.log(walk.equity)) for walk in walks]))])
    trips = [trip for walk in walks for trip in walk.trips]
    assert (record.trips, record.winning_trips) == (len(trips), sum(trip > 0 for trip in trips))
    below = np.exp(path) / np.maximum.accumulate(np.exp(path))
    assert record.max_drawdown == pytest.approx(1 - below.min(), abs=1e-12)
    runs = "".join("u" if value < 1 else " " for value in below).split()
    assert abs(record.longest_drawdown - max(map(len, runs), default=0)) <= 1  # a peak met again to a rounding
    fallen = (np.maximum.accumulate(path) - path).max() > 0
    assert record.regime_drawdown.sum() == pytest.approx(float(fallen))  # shares of it, none where it never fell


def test_labels_change_nothing_but_what_they_tell() -> None:
    tape = random_tape(4, bars=160)
    rules = TradingRules(decision_interval=INTERVAL, episode_length=60)
    policy = table_policy(np.random.default_rng(4).integers(0, 3, tape.n))
    blocks, members = [[Range(2, 70), Range(80, 150)]], [(0, 0)]
    without = BlockEvaluator(tape.tensors(), rules, blocks, members).evaluate(policy).greedy[0]
    regimes = [(np.arange(tape.n) % 2).astype(np.int8)]
    labelled = BlockEvaluator(tape.tensors(), rules, blocks, members, regimes=regimes).evaluate(policy).greedy[0]
    for name, value in vars(without).items():
        if name.startswith("regime_"):
            assert value.shape == (0,)
            assert getattr(labelled, name).shape == (2,)
        else:
            np.testing.assert_array_equal(getattr(labelled, name), value)


def test_the_noise_of_the_sampled_pass_never_changes_and_is_a_members_own() -> None:
    tape = random_tape(3, bars=160)
    rules = TradingRules(decision_interval=INTERVAL, episode_length=60, max_drawdown=0.9)

    def undecided(bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        del bar
        return torch.zeros_like(portfolio[..., :3]).masked_fill(~mask, -1e9)

    blocks = [[Range(2, 80)], [Range(2, 80)], [Range(60, 160)]]
    members = [(1, 0), (2, 0), (1, 1)]
    together = BlockEvaluator(tape.tensors(), rules, blocks, members).evaluate(undecided)
    for index in range(3):
        alone = BlockEvaluator(tape.tensors(), rules, [blocks[index]], [members[index]]).evaluate(undecided)
        assert alone.sampled[0].session_returns.tolist() == together.sampled[index].session_returns.tolist()
    assert together.sampled[0].session_returns.tolist() != together.sampled[1].session_returns.tolist()
    assert all(record.trades == 0 for record in together.greedy)  # equal logits: the first action, Hold


def test_scores_by_hand() -> None:
    up, down = [0.01, 0.03, 0.02], [-0.01, -0.03, -0.02]
    sharpe = 0.02 / 0.01 * 252**0.5
    assert fold_score(made(up, trades=3), 252) == pytest.approx(sharpe)
    assert fold_score(made(up, trades=0), 252) == 0.0
    members = [(7, 0), (8, 0), (9, 0), (7, 1), (8, 1), (9, 1)]
    records = [made(each, trades=3) for each in (up, up, down, down, down, up)]
    score, by_fold = score_members([fold_score(each, 252) for each in records], members, 0.5)
    assert by_fold.tolist() == pytest.approx(np.array([[1, 1, -1], [-1, -1, 1]]).ravel().reshape(2, 3) * sharpe)
    assert score == pytest.approx(0.0 - 0.5 * np.std([sharpe, -sharpe], ddof=1))
