"""Block evaluation against the bar-by-bar scalar simulator, and the scores made of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentio_rllib.market.tape import Tape
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.evaluation import BlockEvaluator, Decide, Record, fold_score, score_members
from sentio_rllib.validation.splits import Range
from tests.trading.scalar_simulator import ScalarSimulator
from tests.trading.tapes import random_tape

INTERVAL = 5


def _table_policy(actions: np.ndarray) -> Decide:
    """Take ``actions[bar]``, or Hold where it is masked, whatever the noise says."""
    logits = torch.nn.functional.one_hot(torch.tensor(actions), 3).float() * 1e6
    logits[:, 0] += 1e5

    def decide(bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        del portfolio
        return logits[bar].masked_fill(~mask, -1e9)

    return decide


def _expected(tape: Tape, rules: TradingRules, block: Range, actions: np.ndarray) -> tuple[list[float], int, float]:
    """Walk one block by the scalar simulator: per-bar equity from its first bar on, trades, fees."""
    one = ScalarSimulator(tape, rules, block.start, block.stop, None)
    path, trades, fees, stopped = [rules.initial_cash], 0, 0.0, False
    while one.bar + INTERVAL + 1 <= block.stop - 1:
        result = one.step(0 if stopped else int(actions[one.bar]))
        path += result.path
        trades += result.traded
        fees += result.fee
        stopped = stopped or result.terminated
    before = one.fee = one.turnover = 0.0
    tail, _ = one.walk(0, block.stop - 1, liquidate=True)
    return path + tail, trades + (one.turnover > before), fees + one.fee


@given(seed=st.integers(0, 10_000), masks=st.sampled_from(["none", "state", "risk"]), tight=st.booleans())
@settings(max_examples=40, deadline=None)
def test_records_equal_the_scalar_walk_for_blocks_of_unequal_length(seed: int, masks: str, tight: bool) -> None:
    rng = np.random.default_rng(seed)
    tape = random_tape(seed, bars=170)
    rules = TradingRules(
        masks=masks,  # type: ignore[arg-type]  # one of the names
        decision_interval=INTERVAL,
        episode_length=60,
        max_drawdown=0.05 if tight else 0.5,
    )
    edges = np.sort(rng.choice(np.arange(2, 169), 4, replace=False))
    blocks = [Range(int(a), int(b)) for a, b in ((edges[0], edges[1]), (edges[2], edges[3])) if b - a >= INTERVAL + 3]
    other = [Range(5, 160)]
    if not blocks:
        return
    actions = rng.integers(0, 3, tape.n)
    evaluator = BlockEvaluator(tape.tensors(), rules, [blocks, other], [(0, 0), (0, 1)])
    found = evaluator.evaluate(_table_policy(actions))
    for records in (found.greedy, found.sampled):
        for record, ranges in zip(records, (blocks, other), strict=True):
            _compare(record, [(block, *_expected(tape, rules, block, actions)) for block in ranges], tape)


def _compare(record: Record, walks: list[tuple[Range, list[float], int, float]], tape: Tape) -> None:
    by_session: dict[int, float] = {}
    for block, path, _, _ in walks:
        equity = np.array(path)
        assert len(equity) == len(block)
        for bar, value in zip(range(block.start + 1, block.stop), equity[1:] / equity[:-1] - 1, strict=True):
            session = int(tape.session[bar])
            by_session[session] = by_session.get(session, 0.0) + value
    assert record.session.tolist() == sorted(by_session)
    np.testing.assert_allclose(record.session_returns, [by_session[key] for key in sorted(by_session)], atol=1e-10)
    assert record.trades == sum(trades for _, _, trades, _ in walks)
    assert record.fees_usd == pytest.approx(sum(fees for _, _, _, fees in walks), rel=1e-9, abs=1e-9)
    assert record.bars == sum(len(block) - 1 for block, _, _, _ in walks)


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


def _record(returns: list[float], trades: int) -> Record:
    values = np.array(returns)
    return Record(values, np.arange(len(values)), len(values), 1, trades, 0, 0.5, float(values.mean()), 0.0, 0.0)


def test_scores_by_hand() -> None:
    up, down = [0.01, 0.03, 0.02], [-0.01, -0.03, -0.02]
    sharpe = 0.02 / 0.01 * 252**0.5
    assert fold_score(_record(up, 3), 252) == pytest.approx(sharpe)
    assert fold_score(_record(up, 0), 252) == 0.0
    members = [(7, 0), (8, 0), (9, 0), (7, 1), (8, 1), (9, 1)]
    records = [_record(each, 3) for each in (up, up, down, down, down, up)]
    score, by_fold = score_members(records, members, 252, 0.5)
    assert by_fold.tolist() == pytest.approx(np.array([[1, 1, -1], [-1, -1, 1]]).ravel().reshape(2, 3) * sharpe)
    assert score == pytest.approx(0.0 - 0.5 * np.std([sharpe, -sharpe], ddof=1))
