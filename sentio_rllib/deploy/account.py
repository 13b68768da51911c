"""The account of a live policy: from cash and shares as they are told to what the simulator would know.

A policy reads six figures of its account. The simulator has them because it makes the fills itself; here they
follow from what the account holds at one report and the next, and from the closes in between.

Between two reports one order filled at the open of the next bar, so all marks of the interval follow. Any other fill (a
drawdown stop, the end of a session) is reported at its own bar, before the next one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sentio_rllib.errors import DecisionError
from sentio_rllib.trading.portfolio import portfolio_features
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.trading.simulator import TRADE_HALF_LIFE_BARS

_NUMBERS = ("bar", "reported", "last_fill", "session_bar", "opened", "stopped", "ordered")
_AMOUNTS = ("close", "cash", "shares", "entry", "settled", "peak", "session_equity", "session_close", "trades")
_ARRAYS = ("closes", "marks")
_DECAY = 0.5 ** (1.0 / TRADE_HALF_LIFE_BARS)


@dataclass(frozen=True)
class Portfolio:
    """What an account holds after the last finished bar. Long or flat, without borrowed money.

    Attributes
    ----------
    cash
        Dollars, fees paid.
    shares
        Shares held, >= 0; fractions are allowed.
    entry_price
        Average price paid for the shares held, without fees; None: it follows from how cash and shares changed.

    Raises
    ------
    DecisionError
        A number is not finite, or shares or price are out of range.
    """

    cash: float
    shares: float
    entry_price: float | None = None

    def __post_init__(self) -> None:
        lines = [
            f"portfolio.{name}: {value!r} is no number; pass dollars, shares and the price paid as plain numbers"
            for name, value in vars(self).items()
            if (not isinstance(value, Real) or isinstance(value, bool)) and (name, value) != ("entry_price", None)
        ]
        if lines:
            raise DecisionError(*lines)
        if not math.isfinite(self.cash):
            lines.append(f"portfolio.cash: {self.cash} is no finite number; pass the dollars in the account")
        if not (math.isfinite(self.shares) and self.shares >= 0.0):
            lines.append(f"portfolio.shares: {self.shares} is not in [0, inf); positions are long or flat")
        if self.entry_price is not None and not (math.isfinite(self.entry_price) and self.entry_price > 0.0):
            lines.append(f"portfolio.entry_price: {self.entry_price} is not in (0, inf); leave it out if unknown")
        if lines:
            raise DecisionError(*lines)


@dataclass(frozen=True)
class AccountView:
    """What a decision reads of the account: tensors of one row, as the simulator's.

    `portfolio` float32[1, 6]; `fraction`, `shares`, `local_drawdown` float64[1].
    """

    portfolio: torch.Tensor
    fraction: torch.Tensor
    shares: torch.Tensor
    local_drawdown: torch.Tensor


class Account:
    """Follows one account over bars and reports, by the formulas of :class:`~sentio_rllib.trading.simulator.Simulator`.

    A change of the shares is dated at one bar: the bars before it are marked with what was held, it and those
    after it with what is held now. Where :attr:`ordered` says that the last report came with an order, a change in
    its direction was filled at the open of the bar after that report, so two reports may lie a whole decision
    interval apart where the order was the only fill. Any other change (a sale at a session's close, by a drawdown
    stop, by hand) is dated at the bar of the report that tells it, and a second report at one bar tells a further
    fill there. So the six figures are the simulator's where every fill but that of an order is reported at its
    bar, and an order's before any other.

    Money that comes or goes otherwise counts as a gain or a loss, and a large withdrawal as a drawdown stop: begin
    anew after it.

    Parameters
    ----------
    rules
        Give the window of the features, the fee rate and the drawdown stop.

    Attributes
    ----------
    ordered
        1: an order to buy was given with the last report, -1: one to sell, 0: none.
    """

    def __init__(self, rules: TradingRules) -> None:
        self.rules = rules
        interval = rules.decision_interval
        self.window = math.ceil(rules.episode_length / interval) * interval
        self.closes: NDArray[np.float64] = np.zeros(self.window)  # rings of the last bars, by bar number
        self.marks: NDArray[np.float64] = np.zeros(self.window)
        self.cash = self.shares = self.entry = 0.0
        self.begin(0.0)

    def begin(self, close: float) -> None:
        """Start anew at a bar that closes at `close`: the next report is what the account starts with.

        What is held and what was paid for it are facts and stay known.
        """
        self.bar = self.reported = 0
        self.last_fill = -self.rules.episode_length
        self.session_bar = -1  # last bar of a session that ended since the last report
        self.ordered = 0
        self.opened = self.stopped = False  # stopped and peak: as of the marks before the last report's
        self.close = self.session_close = self.closes[0] = close
        self.settled = self.peak = self.session_equity = self.trades = 0.0

    def mark(self, close: float, *, new_session: bool) -> None:
        """Take the next bar, which closes at `close`; `new_session`: it is the first of its session."""
        if new_session:
            self.session_bar, self.session_close = self.bar, self.close
        self.bar += 1
        self.close = close
        self.closes[self.bar % self.window] = close

    def adjust(self, split: float, dividend: float) -> None:
        """Bring shares, cash and closes to what they are after a `dividend` a share and a `split`, equity unchanged."""
        self.entry *= price_scale(self.close, split, dividend)
        self.cash += dividend * self.shares
        for name in ("close", "session_close"):
            setattr(self, name, (getattr(self, name) - dividend) / split)
        self.closes = (self.closes - dividend) / split
        self.shares *= split

    def report(self, portfolio: Portfolio) -> None:
        """Take what the account holds after the last bar.

        Raises
        ------
        DecisionError
            If it is worth nothing; the state is as before.
        """
        equity = portfolio.cash + portfolio.shares * self.close
        if not (math.isfinite(equity) and equity > 0.0):
            raise DecisionError(
                f"portfolio: {portfolio.cash:g} dollars and {portfolio.shares:g} shares at {self.close:g} are worth "
                f"{equity:g}; an account is worth more than 0"
            )
        self.entry = self._entry_after(portfolio)
        if self.opened:
            self._settle(portfolio)
        else:
            self._open(equity)
        self.cash, self.shares, self.reported = portfolio.cash, portfolio.shares, self.bar

    def _entry_after(self, portfolio: Portfolio) -> float:
        """Average price of what is held, fees aside; 0 where nothing is."""
        if portfolio.shares == 0.0:
            return 0.0
        if portfolio.entry_price is not None:
            return portfolio.entry_price
        bought = portfolio.shares - self.shares
        if bought <= 0.0:
            return self.entry
        notional = (self.cash - portfolio.cash) / (1.0 + self.rules.fee_rate)
        if not self.opened or notional <= 0.0:  # shares that were there before or came from elsewhere
            notional = bought * self.close
        return (notional + self.entry * self.shares) / portfolio.shares

    def _open(self, equity: float) -> None:
        self.opened = True
        self.settled = self.peak = self.session_equity = equity
        self.marks.fill(equity)  # bars before the start count as what the account starts with
        self.session_bar = -1

    def _settle(self, portfolio: Portfolio) -> None:
        """Mark the bars since the last report, and date what was filled."""
        passed, change = self.bar - self.reported, portfolio.shares - self.shares
        matched = passed > 0 and change * self.ordered > 0.0
        filled = self.reported + 1 if matched else self.bar
        self.trades *= _DECAY**passed
        if change != 0.0:
            self.last_fill = filled
            self.trades += _DECAY ** (self.bar - filled)
        if passed > 0 or change != 0.0:
            self.ordered = 0
        if self.session_bar >= filled:
            self.session_equity = portfolio.cash + portfolio.shares * self.session_close
        elif self.session_bar > self.reported:
            self.session_equity = self.cash + self.shares * self.session_close
        elif self.session_bar == self.reported:
            self.session_equity = self.settled
        self.session_bar = -1
        bars = self._bars() if passed > 0 else np.array([self.bar])
        closes = self.closes[bars % self.window]
        path = np.where(bars < filled, self.cash + self.shares * closes, portfolio.cash + portfolio.shares * closes)
        if passed > 0:  # the last report's mark stands now; a second one at its bar would have replaced it
            passed_by = np.append(self.settled, path[:-1])
            self.stopped = self.stopped or self._breaches(passed_by)
            self.peak = max(self.peak, float(passed_by.max()))
        self.marks[bars % self.window] = path
        self.settled = float(path[-1])

    def _bars(self) -> NDArray[np.int64]:
        """Numbers of the bars since the last report, as far back as the rings go."""
        return np.arange(max(self.reported, self.bar - self.window) + 1, self.bar + 1, dtype=np.int64)

    def _breaches(self, path: NDArray[np.float64]) -> bool:
        peaks = np.maximum(np.maximum.accumulate(path), self.peak)
        return bool(np.any(path <= peaks * (1.0 - self.rules.max_drawdown)))

    @property
    def stop_reached(self) -> bool:
        """Whether equity fell ``max_drawdown`` below its peak since the start, as far as the account is known."""
        if self.stopped or not self.opened:
            return self.stopped
        since = self.cash + self.shares * self.closes[self._bars() % self.window]
        return self._breaches(np.append(self.settled, since))

    def view(self) -> AccountView:
        """Return what a decision reads; :meth:`report` comes before, at the same bar."""
        equity = self.cash + self.shares * self.close
        fraction, entry_ratio, bars_since_fill, local_drawdown, session_ratio, trades, shares = single_rows(
            self.shares * self.close / equity,
            self.close / self.entry if self.shares > 0.0 else 1.0,
            self.bar - self.last_fill,
            1.0 - equity / float(self.marks.max()),
            equity / self.session_equity,
            self.trades,
            self.shares,
        )
        portfolio = portfolio_features(
            fraction=fraction,
            entry_ratio=entry_ratio,
            bars_since_fill=bars_since_fill,
            local_drawdown=local_drawdown,
            session_ratio=session_ratio,
            trades=trades,
            window=self.rules.episode_length,
            max_drawdown=self.rules.max_drawdown,
        )
        return AccountView(portfolio, fraction, shares, local_drawdown)

    def get_state(self) -> dict[str, Any]:
        """Return everything that later reports depend on: numbers, and copies of arrays."""
        state: dict[str, Any] = {name: int(getattr(self, name)) for name in _NUMBERS}
        state |= {name: float(getattr(self, name)) for name in _AMOUNTS}
        return state | {name: getattr(self, name).copy() for name in _ARRAYS}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, as :meth:`get_state` returned it."""
        for name in _NUMBERS:
            setattr(self, name, int(state[name]))
        self.opened, self.stopped = bool(self.opened), bool(self.stopped)
        for name in _AMOUNTS:
            setattr(self, name, float(state[name]))
        for name in _ARRAYS:
            setattr(self, name, np.array(state[name], dtype=np.float64))


def price_scale(close: float, split: float, dividend: float) -> float:
    """Return what past prices are to be multiplied by after a `dividend` a share and a `split`, the last at `close`.

    Raises
    ------
    DecisionError
        A figure is out of its range.
    """
    if not (math.isfinite(split) and split > 0.0):
        raise DecisionError(f"adjust: split is {split!r}, allowed above 0: new shares for one old one")
    if not 0.0 <= dividend < close:
        raise DecisionError(f"adjust: dividend is {dividend!r}, allowed 0 to below the last close, {close:g} dollars")
    return (1.0 - dividend / close) / split


def single_rows(*values: float) -> tuple[torch.Tensor, ...]:
    """Return float64[1] of each value, views of one tensor: making each by itself takes longer than its use."""
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1).unbind()
