"""A policy replayed bar by bar against a broker in plain Python, as somebody would run it live."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from sentio_rllib.deploy.bundle import Bundle
from sentio_rllib.deploy.live import Bar, Decision, Portfolio, TradingPolicy
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.sessions import MINUTE_NS, assign_sessions
from sentio_rllib.market.synthetic import synthetic_market
from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.actor_critic import ActorCritic
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.splits import Range
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


def bars_at(stamps: np.ndarray, calendar: str, seed: int = 1) -> Bars:
    """A random walk at these minutes, int64[T] in ns UTC."""
    generator = np.random.default_rng(seed)
    close = 300.0 * np.exp(np.cumsum(generator.normal(0.0, 5e-4, stamps.size)))
    opening = close * np.exp(generator.normal(0.0, 1e-4, stamps.size))
    prices = {"open": opening, "close": close}
    prices |= {"high": 1.0002 * np.maximum(opening, close), "low": 0.9998 * np.minimum(opening, close)}
    volume = generator.uniform(1e3, 1e4, stamps.size)
    return Bars(symbol="S", timestamp=stamps, sessions=assign_sessions(stamps, calendar)[0], volume=volume, **prices)


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

    def open_bar(self, action: int, *, close_out: bool) -> bool:
        """Fill an order, or sell everything, at the next bar's open, and walk to its close; return if it traded."""
        books = self.books
        bar, before = books.bar + 1, books.turnover
        if close_out:
            books.sell_all(float(books.tape.open[bar]), bar, stopped=True)
        elif books.can(action) and action:
            books.order(action, bar)
        books.bar = bar
        self._mark()
        return books.turnover > before

    def sell_at_close(self) -> bool:
        """Sell everything at the close of the last bar; return if it traded."""
        before = self.books.turnover
        self.books.sell_all(float(self.books.tape.close[self.books.bar]), self.books.bar)
        self._mark()
        return self.books.turnover > before

    def _mark(self) -> None:
        books = self.books
        books.equity = books.cash + books.shares * float(books.tape.close[books.bar])
        books.marks[books.bar] = books.equity


@dataclass
class Replay:
    """What came of a replay: one entry per bar after the first, one per decision."""

    equity: list[float] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    ties: int = 0


TIE = 1e-5


def replay_block(
    policy: TradingPolicy, bars: Bars, tape: Tape, block: Range, batch_actions: np.ndarray, *, tell_fills: bool
) -> Replay:
    """Replay a block whose first bar the policy has just taken, to its last bar, at whose close all is sold.

    Where the two best logits are within :data:`TIE`, the replay follows the batch, and counts.
    `tell_fills`: report after each fill, as is needed with forced exits; otherwise decisions alone tell.
    """
    broker, found = Broker(tape, policy.rules, block.start), Replay()
    for wanted in batch_actions:
        assert policy.decision_due
        decision = policy.decide(broker.portfolio)
        action = decision.action
        best = np.sort(np.log(np.maximum(decision.probabilities, 1e-300)))
        if not decision.stopped and action != wanted and best[-1] - best[-2] <= TIE:
            action, found.ties = int(wanted), found.ties + 1
        found.decisions.append(decision)
        found.taken.append(0 if decision.stopped else action)
        for step in range(policy.rules.decision_interval):
            _go_on(policy, broker, bars, found, found.taken[-1] if step == 0 else 0, tell_fills=tell_fills)
    while broker.books.bar < block.stop - 1:
        _go_on(policy, broker, bars, found, 0, tell_fills=tell_fills)
    broker.sell_at_close()
    found.equity[-1] = broker.books.equity
    return found


def _go_on(policy: TradingPolicy, broker: Broker, bars: Bars, found: Replay, action: int, *, tell_fills: bool) -> None:
    """Walk over the next bar by the rules that the policy's documentation gives."""
    traded = broker.open_bar(action, close_out=policy.stop_reached)
    policy.update(bar_at(bars, broker.books.bar))
    if tell_fills and traded:
        policy.report(broker.portfolio)
    if policy.rules.flat_by_close and _closes(policy, bars, broker.books.bar) and broker.sell_at_close():
        policy.report(broker.portfolio)
    found.equity.append(broker.books.equity)


def _closes(policy: TradingPolicy, bars: Bars, index: int) -> bool:
    """Whether the clock reaches the session's close before another bar comes: no bar tells that its minute is the
    last one, unless `minutes_left` is 0. Of bars outside the hours, the day is known to end in New York's night.
    """
    stamps = bars.timestamp[index : index + 2]
    if stamps.size < 2:
        return policy.minutes_left == 0
    if policy.bundle.hours == "all":
        today, tomorrow = (
            pd.DatetimeIndex(stamps.view("datetime64[ns]")).tz_localize("UTC").tz_convert("America/New_York")
        )
        return bool(today.date() != tomorrow.date())
    return bool(stamps[1] - stamps[0] > policy.minutes_left * MINUTE_NS)
