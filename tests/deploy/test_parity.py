"""Replaying blocks bar by bar through the live policy gives the batch evaluation, decision by decision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from sentio_rllib.deploy.live import TradingPolicy
from sentio_rllib.deploy.trades import walk_blocks
from sentio_rllib.market.tape import build_tape
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.splits import Range
from tests.deploy.replay import SMALL, bar_at, bundle_of, busy_network, replay_block, small_bars


@dataclass(frozen=True)
class Case:
    variant: str
    rules: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    tell_fills: bool = False
    events: frozenset[str] = frozenset()


COSTS = {"fee_rate": 0.002, "half_spread_bps": 3.0, "impact": 2.0, "max_participation": 0.05}
CASES = {
    "standard": Case("standard", {"masks": "none", "max_drawdown": 0.9}),
    "standard, flat by close": Case(
        "standard", {"masks": "none", "flat_by_close": True}, tell_fills=True, events=frozenset({"session close"})
    ),
    "maskable, costs and half steps": Case("maskable", {"masks": "state", "position_step": 0.5, **COSTS}),
    "maskable, odd pace": Case(
        "maskable", {"masks": "state", "decision_interval": 7, "episode_length": 100, "fee_rate": 0.0003}
    ),
    "maskable, drawdown stop": Case(
        "maskable",
        {"masks": "state", "max_drawdown": 0.02, "position_step": 0.5, "fee_rate": 0.0},
        tell_fills=True,
        events=frozenset({"drawdown stop"}),
    ),
    "enhanced": Case("enhanced-maskable", {"masks": "risk"}),
    "enhanced, all at once": Case(
        "enhanced-maskable",
        {
            "masks": "risk",
            "flat_by_close": True,
            "position_step": 0.3,
            "risk_volatility": 1.1,
            "risk_drawdown": 0.2,
            "max_drawdown": 0.1,
            "episode_length": 200,
            **COSTS,
        },
        spec={"shared": True, "gated_residual": True, "mixture": "logits"},
        tell_fills=True,
        events=frozenset({"session close"}),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_block_bar_by_bar(name: str) -> None:
    case = CASES[name]
    rules = TradingRules(**case.rules)
    spec = PolicySpec(variant=case.variant, patch=rules.decision_interval, **(SMALL | case.spec))
    network = busy_network(spec)
    bars = small_bars()
    tape = build_tape(bars)
    start = tape.warmup + spec.receptive_field + 37
    batch = walk_blocks(network, tape, rules, [Range(start, tape.n)])
    actions = batch.actions[0]
    assert set(actions) == {0, 1, 2}
    assert np.count_nonzero(np.diff(actions)) > len(actions) / 10
    assert case.events <= set(batch.trades["reason"])

    policy = TradingPolicy(bundle_of(network, rules))
    policy.warm_up(bars.slice(0, start + 1))
    replay = replay_block(policy, bars, tape, start, actions, tell_fills=case.tell_fills)
    assert replay.ties == 0  # none among these; the rule is there for other weights
    assert replay.taken == actions.tolist()
    equity = batch.equity["equity_usd"].to_numpy()[1 : len(replay.equity) + 1]
    np.testing.assert_allclose(replay.equity, equity, rtol=1e-9)


def test_a_cut_begins_a_new_block() -> None:
    rules = TradingRules(masks="risk", episode_length=300)
    spec = PolicySpec(variant="enhanced-maskable", **SMALL)
    network = busy_network(spec, seed=4)
    cut = 1_203
    bars = small_bars(without=(cut, cut + 75))
    tape = build_tape(bars)
    assert tape.cuts.tolist() == [cut]
    start = tape.warmup + spec.receptive_field + 5
    blocks = [Range(start, cut), Range(cut, tape.n)]
    batch = walk_blocks(network, tape, rules, blocks)

    policy = TradingPolicy(bundle_of(network, rules))
    policy.warm_up(bars.slice(0, start + 1))
    for number, (block, actions) in enumerate(zip(blocks, batch.actions, strict=True)):
        replay = replay_block(policy, bars, tape, block.start, actions, tell_fills=False)
        assert replay.taken == actions.tolist()
        equity = batch.equity.query(f"block == {number}")["equity_usd"].to_numpy()
        np.testing.assert_allclose(replay.equity, equity[1 : len(replay.equity) + 1], rtol=1e-9)
        reached = block.start + len(replay.equity)
        for index in range(reached + 1, min(block.stop + 1, tape.n)):  # to the cut's bar, where a decision is due
            policy.update(bar_at(bars, index))
