"""Live policies with a history, and how what they tell is compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from sentio_rllib.deploy.account import Portfolio
from sentio_rllib.deploy.live import Decision, TradingPolicy
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.trading.rules import TradingRules
from tests.deploy.replay import SMALL, bundle_of, busy_network

RULES = TradingRules(masks="risk", episode_length=100)
SPEC = PolicySpec(variant="enhanced-maskable", **SMALL)
NEEDED = 390 + SPEC.receptive_field
FLAT = Portfolio(100_000.0, 0.0)


def fresh(rules: TradingRules = RULES, **changes: Any) -> TradingPolicy:
    return TradingPolicy(bundle_of(busy_network(SPEC), rules, **changes))


def warm(bars: Bars, last: int = NEEDED + 100) -> TradingPolicy:
    """A policy whose history ends with bar `last`."""
    policy = fresh()
    policy.warm_up(bars.slice(0, last + 1))
    return policy


def told(decision: Decision) -> list[Any]:
    """Everything in a decision, comparable to the last bit."""
    parts = (decision.probabilities, decision.mask, decision.quantiles, decision.regime_weights)
    return [
        decision.action,
        decision.value,
        decision.target_fraction,
        decision.timestamp,
        *(part.tolist() for part in parts if part is not None),
    ]


def same(state: dict[str, Any], other: dict[str, Any]) -> bool:
    return state.keys() == other.keys() and all(np.array_equal(state[key], other[key]) for key in state)
