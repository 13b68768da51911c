"""The oracle: one account in plain Python, walking bar by bar, written from the definitions alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sentio_rllib.market.tape import Tape
from sentio_rllib.trading.rules import TradingRules


@dataclass
class ScalarStep:
    """What one decision brought."""

    log_return: float
    terminated: bool
    truncated: bool
    path: list[float]
    traded: bool
    invalid: bool
    fee: float
    turnover: float


@dataclass
class ScalarSimulator:
    """One episode of one account; `stop` is the exclusive end of the bars it may touch.

    `over` and `after` tell of each bar of the last walk how many shares were held over it and whether any were left
    when it was over; `trips` are the net gains of all trips so far, each from the mark before its first purchase.
    """

    tape: Tape
    rules: TradingRules
    start: int
    stop: int
    horizon: int | None
    marks: dict[int, float] = field(default_factory=dict)
    fills: list[int] = field(default_factory=list)
    over: list[float] = field(default_factory=list)
    after: list[bool] = field(default_factory=list)
    trips: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bar = self.start
        self.cash = self.peak = self.equity = self.rules.initial_cash
        self.shares = self.cost = 0.0
        self.fee = self.turnover = 0.0
        tape = self.tape
        bars = max(1, round(tape.n / len(tape.session_labels)))
        self.growth = (1 + self.rules.cash_rate) ** (1 / (bars * tape.sessions_per_year))
        self.staked = 0.0  # equity at the last mark before the trip that is open
        self.marks[self.start] = self.cash

    def slippage(self, notional: float, known_at: int) -> float:
        volume = max(float(self.tape.dollar_volume[known_at]), 1.0)
        impact = self.rules.impact * float(self.tape.volatility[known_at]) * math.sqrt(notional / volume)
        return min(0.5, self.rules.half_spread_bps / 10_000 + impact) if self.rules.impact else (
            self.rules.half_spread_bps / 10_000
        )  # fmt: skip

    def fills_at(self, bar: int) -> bool:
        """Whether an order is filled at the open of `bar`: a bar without volume has nobody to trade with."""
        return self.rules.fill_without_volume or bool(self.tape.fillable[bar])

    def pay(self, dollars: float) -> None:
        self.turnover += dollars
        self.fee += self.rules.fee_rate * dollars
        self.cash -= self.rules.fee_rate * dollars

    def order(self, action: int, bar: int) -> None:
        """Fill a Buy or a Sell at the open of `bar`."""
        rules, opening = self.rules, float(self.tape.open[bar])
        cap = math.inf
        if rules.max_participation is not None:
            cap = rules.max_participation * max(float(self.tape.dollar_volume[bar - 1]), 1.0)
        equity = self.cash + self.shares * opening
        held = self.shares * opening / equity
        if action == 1:
            size = max(0.0, min(rules.max_position, held + rules.position_step) - held) * equity
        else:
            size = (held - max(0.0, held - rules.position_step)) * equity
        slip = self.slippage(min(size, cap), bar - 1)
        price = opening * (1 + slip if action == 1 else 1 - slip)
        equity = self.cash + self.shares * price
        held = self.shares * price / equity
        if action == 1:
            target = min(rules.max_position, held + rules.position_step)
            quantity = (target * equity - self.shares * price) / (price * (1 + target * rules.fee_rate))
        else:
            target = max(0.0, held - rules.position_step)
            target = 0.0 if target <= 1e-9 else target  # a remainder of rounding is sold as well
            quantity = (self.shares * price - target * equity) / (price * (1 - target * rules.fee_rate))
            quantity = self.shares if target == 0.0 else quantity
        quantity = min(quantity, cap / opening)
        if quantity <= 0.0:
            return
        self.pay(quantity * price)
        if action == 1:
            self.cost += quantity * price
            self.cash -= quantity * price
            self.shares += quantity
        else:
            self.cost *= 1 - quantity / self.shares
            self.cash += quantity * price
            self.shares -= quantity
        self.fills.append(bar)

    def sell_all(self, price: float, bar: int, *, stopped: bool = False) -> None:
        if self.shares == 0.0:
            return
        price *= 1 - self.slippage(self.shares * price, bar - 1)
        self.cash += self.shares * price
        self.pay(self.shares * price)
        self.shares = self.cost = 0.0
        if not stopped:
            self.fills.append(bar)

    def walk(self, action: int, last_bar: int, *, liquidate: bool) -> tuple[list[float], bool]:
        """Go bar by bar to the close of `last_bar`; return the marks and whether the stop was hit."""
        path, hit, pending, mark = [], False, False, self.equity
        self.over, self.after = [], []
        for bar in range(self.bar + 1, last_bar + 1):
            held_before = self.shares > 0.0
            if bar == self.bar + 1 and action and self.fills_at(bar):
                self.order(action, bar)
            if pending:
                self.sell_all(float(self.tape.open[bar]), bar, stopped=True)
                pending = False
            self.cash *= self.growth  # what is not invested over this bar
            self.over.append(self.shares)
            if self.shares > 0.0 and not held_before:
                self.staked = mark
            close = float(self.tape.close[bar])
            if (self.rules.flat_by_close and self.tape.session_last[bar]) or (liquidate and bar == last_bar):
                self.sell_all(close, bar)
            equity = self.cash + self.shares * close
            self.peak = max(self.peak, equity)
            if equity <= self.peak * (1 - self.rules.max_drawdown) and not hit:
                hit = pending = True
            path.append(equity)
            self.after.append(self.shares > 0.0)
            if (held_before or self.over[-1] > 0.0) and self.shares == 0.0:
                self.trips.append(equity / self.staked - 1)
            mark = equity
        if pending:
            sold = self.shares > 0.0
            self.sell_all(float(self.tape.open[last_bar + 1]), last_bar + 1, stopped=True)
            path[-1], self.after[-1] = self.cash, False
            self.trips += [self.cash / self.staked - 1] * sold
            self.peak = max(self.peak, self.cash)
        return path, hit

    def can(self, action: int) -> bool:
        """Whether Buy or Sell is executable at the close of the present bar."""
        rules, tape, bar = self.rules, self.tape, self.bar
        if action == 0:
            return True
        if action == 2:
            return self.shares > 0
        room = rules.max_position - self.shares * float(tape.close[bar]) / self.equity
        if room < rules.min_trade:
            return False
        if rules.flat_by_close and tape.minutes_left[bar] < rules.close_minutes:
            return False
        return not (
            rules.masks == "risk"
            and (
                tape.volatility[bar] > rules.risk_volatility * rules.reference_volatility
                or tape.minute[bar] < rules.risk_first_minutes
                or tape.minutes_left[bar] < rules.risk_last_minutes
                or 1 - self.equity / self.local_peak() >= rules.risk_drawdown * rules.max_drawdown
            )
        )

    def mask(self) -> list[bool]:
        return [True, True, True] if self.rules.masks == "none" else [self.can(action) for action in range(3)]

    def step(self, action: int) -> ScalarStep:
        interval = self.rules.decision_interval
        invalid = not self.can(action)
        before, self.fee, self.turnover = self.equity, 0.0, 0.0
        path, hit = self.walk(0 if invalid else action, self.bar + interval, liquidate=False)
        self.marks.update({self.bar + 1 + k: equity for k, equity in enumerate(path)})
        self.bar += interval
        self.equity = path[-1]
        late = self.horizon is not None and self.bar - self.start + interval > self.horizon
        late = late or self.bar + interval + 1 > self.stop - 1
        log_return = math.log(self.equity / before)
        traded = self.turnover > 0
        return ScalarStep(log_return, hit, late, path, traded, invalid, self.fee, self.turnover)

    def local_peak(self) -> float:
        interval = self.rules.decision_interval
        window = math.ceil(self.rules.episode_length / interval) * interval
        return max(
            self.marks.get(bar, self.rules.initial_cash) if bar > self.start else self.rules.initial_cash
            for bar in range(self.bar - window + 1, self.bar + 1)
        )

    def session_equity(self) -> float:
        tape = self.tape
        for bar in range(self.bar - 1, self.start - 1, -1):
            if tape.session[bar] != tape.session[bar + 1]:
                return self.marks[bar]
        return self.rules.initial_cash

    def portfolio(self) -> list[float]:
        """The six features from their definitions."""
        rules, close = self.rules, float(self.tape.close[self.bar])
        entry = 0.0 if self.shares == 0 else math.log(close * self.shares / self.cost)
        age = min(1.0, (self.bar - self.fills[-1]) / rules.episode_length) if self.fills else 1.0
        trades = sum(0.5 ** ((self.bar - bar) / 390) for bar in self.fills)
        return [
            self.shares * close / self.equity,
            math.tanh(10 * entry),
            age,
            min(1.0, (1 - self.equity / self.local_peak()) / rules.max_drawdown),
            math.tanh(10 * math.log(self.equity / self.session_equity())),
            trades / (trades + 10),
        ]
