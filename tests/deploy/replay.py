"""A policy replayed bar by bar against a broker in plain Python, as somebody would run it live."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from sentio_rllib.deploy.bundle import Bundle
from sentio_rllib.deploy.live import Bar, Decision, Portfolio, TradingPolicy
from sentio_rllib.market.bars import Bars
from sentio_rllib.market.sessions import assign_sessions
from sentio_rllib.market.synthetic import synthetic_market
from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.variants import ActorCritic, PolicySpec
from sentio_rllib.trading.rules import TradingRules
from tests.trading.scalar_simulator import ScalarSimulator

SMALL = {"hidden": (8,), "d_model": 8, "heads": 2, "layers": 2, "band": 3, "quantiles": 5}


def small_bars(n: int = 3_000, *, without: tuple[int, int] | None = None, seed: int = 3) -> Bars:
    """A planted market of few sessions; bars ``without[0] .. without[1] - 1`` are missing."""
    bars = synthetic_market(n, seed=seed, edge=2e-4, regime_bars=200).bars
    if without is None:
        return bars
    keep = np.ones(n, dtype=bool)
    keep[slice(*without)] = False
    stamps = np.ascontiguousarray(bars.timestamp[keep])
    columns = {name: getattr(bars, name)[keep] for name in ("open", "high", "low", "close", "volume")}
    return Bars(symbol=bars.symbol, timestamp=stamps, sessions=assign_sessions(stamps)[0], **columns)


def busy_network(spec: PolicySpec, members: int = 2, seed: int = 0) -> ActorCritic:
    """Networks at random whose actions change from one decision to the next."""
    network = ActorCritic(spec, [(seed + member, 0) for member in range(members)])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        linear = network.policy_head.linear
        linear.weight.copy_(2.0 * torch.randn(linear.weight.shape, generator=generator))
    return network.eval()


def bundle_of(network: ActorCritic, rules: TradingRules, **changes: object) -> Bundle:
    """A bundle in memory, without files."""
    values = {
        "name": "replayed",
        "network": network,
        "rules": rules,
        "reference_volatility": rules.reference_volatility,
        "calendar": "XNYS",
        "hours": "regular",
        "session_minutes": 390,
        "metadata": {},
    }
    return Bundle(**(values | changes))


def bar_at(bars: Bars, index: int) -> Bar:
    """One bar of many."""
    prices = (float(getattr(bars, name)[index]) for name in ("open", "high", "low", "close", "volume"))
    return Bar(int(bars.timestamp[index]), *prices)


class Broker:
    """Fills orders as the scalar simulator does, one bar at a time; knows nothing of stops."""

    def __init__(self, tape: Tape, rules: TradingRules, start: int) -> None:
        self.books = ScalarSimulator(tape, rules, start, tape.n, None)

    @property
    def portfolio(self) -> Portfolio:
        return Portfolio(self.books.cash, self.books.shares)

    def next_bar(self, action: int, *, close_out: bool) -> bool:
        """Fill an order, or sell everything, at the next bar's open, and walk to its close; return if it traded."""
        books = self.books
        bar, before = books.bar + 1, books.turnover
        if close_out:
            books.sell_all(float(books.tape.open[bar]), bar, stopped=True)
        elif books.can(action) and action:
            books.order(action, bar)
        if books.rules.flat_by_close and books.tape.session_last[bar]:
            books.sell_all(float(books.tape.close[bar]), bar)
        books.equity = books.cash + books.shares * float(books.tape.close[bar])
        books.marks[bar] = books.equity
        books.bar = bar
        return books.turnover > before


@dataclass
class Replay:
    """What came of a replay: one entry per bar after the first, one per decision."""

    equity: list[float] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    ties: int = 0


TIE = 1e-5


def replay_block(
    policy: TradingPolicy, bars: Bars, tape: Tape, start: int, batch_actions: np.ndarray, *, tell_fills: bool
) -> Replay:
    """Replay a block whose first bar the policy has just taken, to the bar that its last decision leads to.

    Where the two best logits are within :data:`TIE`, the replay follows the batch, and counts.
    `tell_fills`: report after each fill, as is needed with forced exits; otherwise decisions alone tell.
    """
    rules = policy.rules
    broker, found = Broker(tape, rules, start), Replay()
    for number, wanted in enumerate(batch_actions):
        assert policy.decision_due
        decision = policy.decide(broker.portfolio)
        action = decision.action
        best = np.sort(np.log(np.maximum(decision.probabilities, 1e-300)))
        if not decision.stopped and action != wanted and best[-1] - best[-2] <= TIE:
            action, found.ties = int(wanted), found.ties + 1
        found.decisions.append(decision)
        found.taken.append(0 if decision.stopped else action)
        for step in range(rules.decision_interval):
            traded = broker.next_bar(found.taken[-1] if step == 0 else 0, close_out=policy.stop_reached)
            policy.update(bar_at(bars, start + number * rules.decision_interval + step + 1))
            if tell_fills and traded:
                policy.report(broker.portfolio)
            found.equity.append(broker.books.equity)
    return found
