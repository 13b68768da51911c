"""Replaying blocks bar by bar through the live policy gives the batch evaluation, decision by decision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from sentio_rllib.deploy.live import TradingPolicy
from sentio_rllib.deploy.trades import walk_blocks
from sentio_rllib.market.sessions import MINUTE_NS, assign_sessions
from sentio_rllib.market.tape import build_tape
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.splits import Range
from tests.deploy.replay import SMALL, bars_at, bundle_of, busy_network, replay_block, small_bars


@dataclass(frozen=True)
class Case:
    variant: str
    rules: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    tell_fills: bool = False
    events: frozenset[str] = frozenset()
    seeds: tuple[int, int] = (3, 0)  # of the bars and of the network


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
    "maskable, sold by the stop above its level": Case(
        "maskable",
        {"masks": "state", "max_drawdown": 0.02, "position_step": 0.5, "fee_rate": 0.0},
        tell_fills=True,
        events=frozenset({"drawdown stop"}),
        seeds=(10, 10),
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
    bars = small_bars(seed=case.seeds[0])
    network = busy_network(spec, seed=case.seeds[1])
    tape = build_tape(bars)
    start = tape.warmup + spec.receptive_field + 37
    block = Range(start, tape.n)
    batch = walk_blocks(network, tape, rules, [block])
    actions = batch.actions[0]
    assert set(actions) == {0, 1, 2}
    before_the_stop = np.trim_zeros(actions, "b")
    assert np.count_nonzero(np.diff(before_the_stop)) > len(before_the_stop) / 10
    assert case.events <= set(batch.trades["reason"])

    policy = TradingPolicy(bundle_of(network, rules))
    policy.warm_up(bars.slice(0, start + 1))
    replay = replay_block(policy, bars, tape, block, actions, tell_fills=case.tell_fills)
    assert replay.ties == 0  # none among these; the rule is there for other weights
    assert replay.taken == actions.tolist()
    np.testing.assert_allclose(replay.equity, batch.equity["equity_usd"].to_numpy()[1:], rtol=1e-9)


def minutes_of(first: str, last: str) -> np.ndarray:
    """Minutes of the sessions of New York from one date to another, int64[T] in ns UTC."""
    stamps = np.arange(np.datetime64(first), np.datetime64(last) + 1, dtype="datetime64[m]")
    stamps = stamps.astype("datetime64[ns]").astype(np.int64)
    return stamps[assign_sessions(stamps)[1]]


def with_holes(stamps: np.ndarray) -> np.ndarray:
    """One minute in twenty is missing, and the last one of every other session."""
    sessions = assign_sessions(stamps)[0]
    there = np.random.default_rng(0).random(stamps.size) > 0.05
    return stamps[there & ~(sessions.last & (sessions.session % 2 == 0))]


def with_the_hours_around(first: str, days: int) -> np.ndarray:
    """04:00 to 20:00 in New York, all of it under one offset."""
    opened = np.datetime64(first, "m").astype("datetime64[ns]").astype(np.int64)
    minutes = np.arange(960, dtype=np.int64) * MINUTE_NS
    return np.concatenate([opened + day * 1440 * MINUTE_NS + minutes for day in range(days)])


ALL_DAY = np.arange(5_000, dtype=np.int64) * MINUTE_NS + int(np.datetime64("2023-03-06", "ns").astype(np.int64))
MARKETS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "half day": (minutes_of("2023-11-20", "2023-11-30"), {}),
    "summer time begins": (minutes_of("2023-03-07", "2023-03-17"), {}),
    "missing minutes": (with_holes(minutes_of("2023-03-06", "2023-03-17")), {}),
    "24/7": (ALL_DAY, {"calendar": "24/7", "session_minutes": 1440}),
    "hours all": (with_the_hours_around("2023-03-13T08:00", 5), {"hours": "all"}),
}


@pytest.mark.parametrize("name", MARKETS)
def test_blocks_of_calendars_with_corners(name: str) -> None:
    stamps, market = MARKETS[name]
    rules = TradingRules(
        masks="state", flat_by_close=True, close_minutes=0, position_step=0.5, fee_rate=0.0003, episode_length=200
    )
    spec = PolicySpec(variant="enhanced-maskable", **SMALL)
    network = busy_network(spec)
    bars = bars_at(stamps, market.get("calendar", "XNYS"))
    tape = build_tape(bars)
    assert tape.cuts.size == 0
    block = Range(tape.warmup + spec.receptive_field + 3, tape.n)
    batch = walk_blocks(network, tape, rules, [block])
    assert "session close" in set(batch.trades["reason"])

    policy = TradingPolicy(bundle_of(network, rules, **market))
    policy.warm_up(bars.slice(0, block.start + 1))
    replay = replay_block(policy, bars, tape, block, batch.actions[0], tell_fills=True)
    assert replay.taken == batch.actions[0].tolist()
    np.testing.assert_allclose(replay.equity, batch.equity["equity_usd"].to_numpy()[1:], rtol=1e-9)


@pytest.mark.parametrize("stop", [0.2, 0.004])
def test_what_is_held_before_a_cut_is_held_over_it(stop: float) -> None:
    rules = TradingRules(masks="risk", episode_length=300, max_drawdown=stop)
    spec = PolicySpec(variant="enhanced-maskable", **SMALL)
    network = busy_network(spec, seed=4)
    cut = 1_203
    bars = small_bars(without=(cut, cut + 75))
    tape = build_tape(bars)
    assert tape.cuts.tolist() == [cut]
    block = Range(tape.warmup + spec.receptive_field + 5, tape.n)
    batch = walk_blocks(network, tape, rules, [block])
    if stop == 0.2:
        assert batch.record.cuts_held == 1  # the case is one

    policy = TradingPolicy(bundle_of(network, rules))
    policy.warm_up(bars.slice(0, block.start + 1))
    replay = replay_block(policy, bars, tape, block, batch.actions[0], tell_fills=True)
    assert replay.taken == batch.actions[0].tolist()
    np.testing.assert_allclose(replay.equity, batch.equity["equity_usd"].to_numpy()[1:], rtol=1e-9)
