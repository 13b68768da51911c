"""The batched trading simulator: n independent accounts on one tape, stepped together.

One step is one decision: made at the close of bar t, filled at the open of bar t+1, marked at the closes
t+1 .. t+I with I = `decision_interval`; the next decision falls on the close of bar t+I. Money is float64,
what the policy sees float32. Nothing needs a gradient, nothing waits for a GPU: no value is read back to
Python. Inside a step, bars run along the first dimension, ``[I, n]``, so that rows broadcast without views.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

import torch
from torch.nn.functional import threshold

from sentio_rllib.errors import ConfigError
from sentio_rllib.trading.lookups import build_lookups
from sentio_rllib.trading.masks import action_mask, executable_actions
from sentio_rllib.trading.portfolio import portfolio_features
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.trading.steps import Fill, Holdings, Observation, StepResult, Walk

if TYPE_CHECKING:
    from sentio_rllib.market.tape import TapeTensors

__all__ = ["Observation", "Simulator", "StepResult", "TradingRules"]

TRADE_HALF_LIFE_BARS: Final = 390
MAX_SLIPPAGE: Final = 0.5
"""Slippage never exceeds this share of the price, so that a sale always brings something."""
ROUNDING: Final = 1e-9
"""A Sell that would leave a smaller share of equity than this closes the position."""
_ACCOUNT = (
    *("bar", "cash", "shares", "equity", "peak", "entry", "last_fill", "trades", "session_equity"),
    "last_decision",
)
_STATE = (*_ACCOUNT, "interval_peaks")


class Simulator:
    """n independent accounts on one tape.

    Look-ahead: the tape must hold trailing values only; whatever stands at bar t may be used from t's close
    on. A decision at t reads bars up to t + I + 1 (the open at which a stop at t+I is executed).

    Parameters
    ----------
    tape
        Tensors of T bars, on the device where all state will live.
    rules
        Costs, limits, masks and pace.
    n
        Number of rows.
    horizon
        Bars after which an episode is truncated; ``"episode"`` means ``rules.episode_length``, ``None`` no
        limit. The window of the portfolio features is ``rules.episode_length`` in any case.

    Raises
    ------
    ConfigError
        If `n` or `horizon` is not positive, or the tape holds no whole decision.
    """

    def __init__(
        self,
        tape: TapeTensors,
        rules: TradingRules,
        n: int,
        horizon: int | Literal["episode"] | None = "episode",
    ) -> None:
        bars, interval = len(tape.close), rules.decision_interval
        self.rules, self.n, self.interval = rules, n, interval
        self.horizon = rules.episode_length if horizon == "episode" else horizon
        if n < 1 or (self.horizon is not None and self.horizon < interval):
            raise ConfigError(f"n={n}, horizon={horizon}: at least 1 row and {interval} bars are needed")
        if bars < interval + 2:
            raise ConfigError(f"a tape of {bars} bars holds no decision; at least {interval + 2} are needed")
        self.device = tape.close.device
        self._scale = 1.0 / (rules.target_return_per_bar * interval)
        self._keep_after_fee = 1.0 - rules.fee_rate
        self._decay = 0.5 ** (1.0 / TRADE_HALF_LIFE_BARS)
        self._last_bar = bars - 1
        self._tape = build_lookups(tape, rules, n)
        self.cash_growth = (1.0 + rules.cash_return(tape.sessions_per_year)) ** (1.0 / tape.session_bars)
        self._prepare_tables()
        self._start_flat()

    def _prepare_tables(self) -> None:
        """Small constant tensors."""
        interval, device = self.interval, self.device
        limit = self.rules.max_position
        self._direction = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64, device=device)
        self._ceiling = torch.tensor([1.0, limit, 1.0], dtype=torch.float64, device=device)
        self._zero = torch.zeros((), dtype=torch.float64, device=device)
        self._one = torch.ones((), dtype=torch.float64, device=device)
        # int32: taking minima of int64 is ten times slower
        self._never = torch.tensor(interval, dtype=torch.int32, device=device)
        self._steps = torch.arange(interval, dtype=torch.int32, device=device).unsqueeze(1)
        self._steps_after_stop = self._steps.clone()
        self._steps_after_stop[-1] = interval  # a stop at the last close is executed within this step
        self._rows = torch.arange(self.n, device=device)
        self._interest = None if self.cash_growth == 1.0 else self.cash_growth ** (self._steps + 1).double()

    def _start_flat(self) -> None:
        """Build the state of n flat accounts; the bar is set by reset."""
        cash = torch.full((self.n,), self.rules.initial_cash, dtype=torch.float64, device=self.device)
        bar = torch.zeros(self.n, dtype=torch.int64, device=self.device)
        self.bar, self.last_fill, self.last_decision = bar, bar - self.rules.episode_length, bar
        self.cash = self.equity = self.peak = self.session_equity = self.entry = cash
        self.shares = self.trades = torch.zeros_like(cash)
        slots = math.ceil(self.rules.episode_length / self.interval)
        self.interval_peaks = cash.repeat(slots, 1)  # ring: the highest mark of each of the last intervals
        self._slot = 0
        self._seen: Observation | None = None
        never = torch.full((self.n,), self.interval, dtype=torch.int32, device=self.device)
        self._way = (torch.zeros_like(cash), never, never)  # shares, mark of the stop, bar of the sale at a close

    @property
    def last_peaks(self) -> torch.Tensor:
        """Highest marks of the last interval, float64[n]: the newest row of `interval_peaks`."""
        return self.interval_peaks[self._slot - 1]

    def reset(self, rows: torch.Tensor, start: torch.Tensor, stop: torch.Tensor) -> None:
        """Start the chosen rows flat, at a decision.

        Parameters
        ----------
        rows
            bool[n], True where an episode starts; other rows go on.
        start
            int64[n], bar of the first decision; read where `rows`. At least 1 and past the tape's warm-up,
            at most ``stop - interval - 2``.
        stop
            int64[n], exclusive end of the bars that the episode may touch.
        """
        cash = self.rules.initial_cash
        final = stop - (self.interval + 2)
        if self.horizon is not None:
            final = torch.minimum(final, start + (self.horizon - self.interval))
        self.last_decision = torch.where(rows, final, self.last_decision)
        self.bar = torch.where(rows, start, self.bar)
        self.last_fill = torch.where(rows, start - self.rules.episode_length, self.last_fill)
        self.cash = self.cash.masked_fill(rows, cash)
        self.equity = self.equity.masked_fill(rows, cash)
        self.peak = self.peak.masked_fill(rows, cash)
        self.session_equity = self.session_equity.masked_fill(rows, cash)
        self.shares = self.shares.masked_fill(rows, 0.0)
        self.trades = self.trades.masked_fill(rows, 0.0)
        self.interval_peaks.masked_fill_(rows, cash)
        self._seen = None

    def observe(self) -> Observation:
        """Return what each row sees at the close of its bar.

        The local peak is the highest equity marked over the last ``episode_length`` bars, rounded up to whole
        decision intervals; bars before the episode count as its initial cash.
        """
        if self._seen is not None:
            return self._seen
        bar, rules = self.bar, self.rules
        close = self._tape.close.index_select(0, bar)
        fraction = self.shares * close / self.equity
        drawdown = 1.0 - self.equity / self.interval_peaks.amax(0)
        window = None if self._tape.buy_window is None else self._tape.buy_window.index_select(0, bar)
        can_buy, can_sell = executable_actions(rules, fraction, self.shares, drawdown, window)
        self._lowest, self._highest = can_sell.double().neg_(), can_buy.double()
        portfolio = portfolio_features(
            fraction=fraction,
            entry_ratio=torch.where(can_sell, close / self.entry, self._one),
            bars_since_fill=bar - self.last_fill,
            local_drawdown=drawdown,
            session_ratio=self.equity / self.session_equity,
            trades=self.trades,
            window=rules.episode_length,
            max_drawdown=rules.max_drawdown,
        )
        self._seen = Observation(bar, portfolio, action_mask(rules.masks, can_buy, can_sell))
        return self._seen

    def step(self, action: torch.Tensor) -> StepResult:
        """Execute one decision in every row and walk to the next one.

        Rows that come back done are to be reset before the next step. One that is not goes on: a terminated
        row stays flat as long as its action is Hold, and is reported as terminated again; a truncated row
        leaves its range, and at the tape's end idles on the last bar with results of no meaning.

        Parameters
        ----------
        action
            int64[n]: 0 Hold, 1 Buy, 2 Sell. What cannot be executed is a Hold and counted as invalid.
        """
        self.observe()
        wanted = self._direction.index_select(0, action)
        side = torch.clamp(wanted, self._lowest, self._highest)
        order = side if self._tape.fillable is None else side * self._tape.fillable.index_select(0, self.bar)
        fill = self._fill(order, self._ceiling.index_select(0, action))
        close_at = self._tape.session_end.index_select(0, self.bar) if self.rules.flat_by_close else None
        walk = self._walk(fill.cash, fill.shares, close_at, self._interest)
        before = self.equity
        self._remember(fill, walk, close_at)
        ended = self.bar > self.last_decision
        turnover = fill.notional + walk.sold
        flags = {"terminated": walk.terminated, "truncated": ended, "invalid": side != wanted}
        return self._result(before, walk.path, turnover, **flags)

    def _result(
        self, equity_before: torch.Tensor, path: torch.Tensor, turnover: torch.Tensor, **flags: torch.Tensor
    ) -> StepResult:
        log_return = (path[-1] / equity_before).log_()
        return StepResult(
            reward=(log_return * self._scale).float(),
            log_return=log_return,
            equity_path=path.t(),
            traded=turnover > 0,
            fee=turnover * self.rules.fee_rate,
            turnover=turnover,
            **flags,
        )

    def _slippage(self, notional: torch.Tensor, bar: torch.Tensor) -> torch.Tensor | float:
        """Share of the price that a fill of `notional` dollars costs, from trailing values known at `bar`."""
        half_spread = self.rules.half_spread_bps * 1e-4
        if self.rules.impact == 0.0:
            return half_spread
        share = notional / self._tape.dollar_volume.index_select(0, bar)
        moved = self._tape.volatility.index_select(0, bar) * share.sqrt_()
        return moved.mul_(self.rules.impact).add_(half_spread).clamp_(max=MAX_SLIPPAGE)

    def _target(
        self, price: torch.Tensor, side: torch.Tensor, ceiling: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Position in dollars, equity, target fraction, dollars to trade before fees, at `price`."""
        value = self.shares * price
        equity = self.cash + value
        fraction = torch.add(value / equity, side, alpha=self.rules.position_step)
        fraction = threshold(torch.minimum(fraction, ceiling), ROUNDING, 0.0, inplace=True)
        gap = (fraction * equity).sub_(value).mul_(side).clamp_(min=0.0)
        return value, equity, fraction, gap

    def _fill(self, side: torch.Tensor, ceiling: torch.Tensor) -> Fill:
        """Fill the orders (`side` +1 buy, -1 sell, 0 none) at the open of t+1.

        Shares are set at the fill price from equity marked there, with the fee inside: after it the position
        is exactly the target fraction of what is left. Slippage is computed for the order's size at the open,
        before slippage; `max_participation` limits that size.
        """
        rules = self.rules
        opening = self._tape.open_1.index_select(0, self.bar)
        limit = None
        if rules.max_participation is not None:
            limit = rules.max_participation * self._tape.dollar_volume.index_select(0, self.bar)
        size = opening  # not read without impact
        if rules.impact > 0.0:
            size = self._target(opening, side, ceiling)[3]
            size = size if limit is None else torch.minimum(size, limit)
        price = opening
        if rules.impact > 0.0 or rules.half_spread_bps > 0.0:
            price = opening * (1.0 + side * self._slippage(size, self.bar))
        value, equity, fraction, gap = self._target(price, side, ceiling)
        notional = gap.div_((side * fraction).mul_(rules.fee_rate).add_(1.0))
        if limit is not None:
            limit = limit * (price / opening)
            reached = (value + side * limit) / (equity - rules.fee_rate * limit)
            fraction = torch.where(notional > limit, reached.clamp_(max=1.0), fraction)
            notional = torch.minimum(notional, limit)
        filled = notional > 0
        equity = torch.sub(equity, notional, alpha=rules.fee_rate)
        position = fraction * equity
        cash = torch.where(filled, equity - position, self.cash)
        return Fill(cash, torch.where(filled, position / price, self.shares), notional, filled)

    def _walk(
        self,
        cash: torch.Tensor,
        shares: torch.Tensor,
        close_at: torch.Tensor | None,
        interest: torch.Tensor | None = None,
    ) -> Walk:
        """Mark the closes t+1 .. t+I in order and execute what is forced.

        `close_at` int64[n]: the position is liquidated at the close of bar t+1+close_at (I: not here).
        At a mark `max_drawdown` below the peak it is liquidated at the open of the bar after. `interest` float64[I, n]
        or [I, 1]: what a dollar at t has become at each mark; None: nothing is paid. Proceeds on the way count as the
        cash at t that becomes them.
        """
        bar, tape, at_close = self.bar, self._tape, None
        path = torch.addcmul(
            self._grown(cash, interest), shares, tape.closes_ahead.index_select(0, bar).t().contiguous()
        )
        if close_at is not None:
            at_close = self._sale(shares, tape.close_1, bar + close_at, bar + close_at)
            cash_closed = torch.add(cash, self._at_start(at_close, close_at), alpha=self._keep_after_fee)
            path = torch.where(self._steps >= close_at, self._grown(cash_closed, interest), path)
        safe = self._out_of_reach(path)
        stop_at = self._never if safe else self._first_breach(path)
        self._way = (shares, stop_at, self._never if close_at is None else close_at)
        held, held_cash = shares, cash
        if close_at is not None and at_close is not None:
            stopped_before, closes_later = stop_at < close_at, close_at >= self.interval
            held = torch.where(stopped_before, shares, self._zero)
            held_cash = torch.where(stopped_before, cash, cash_closed)
            at_close = torch.where(stopped_before | closes_later, self._zero, at_close)
            cash = torch.where(closes_later, cash, cash_closed)
            shares = torch.where(closes_later, shares, self._zero)
        if safe:
            nothing = torch.zeros_like(cash) if at_close is None else at_close
            cash = cash if interest is None else cash * interest[-1]
            return Walk(path, cash, shares, torch.zeros_like(bar, dtype=torch.bool), nothing, at_close)
        terminated = stop_at < self.interval
        stop_bar = bar + stop_at
        sold = self._sale(held, tape.open_2, stop_bar, stop_bar + 1).mul_(terminated)
        cash_stopped = torch.add(held_cash, self._at_start(sold, stop_at), alpha=self._keep_after_fee)
        cash = torch.where(terminated, cash_stopped, cash)
        return Walk(
            path=torch.where(self._steps_after_stop > stop_at, self._grown(cash_stopped, interest), path),
            cash=cash if interest is None else cash * interest[-1],
            shares=shares.masked_fill(terminated, 0.0),
            terminated=terminated,
            sold=sold if at_close is None else sold + at_close,
            sold_at_close=at_close,
        )

    def _out_of_reach(self, path: torch.Tensor) -> bool:
        """Whether nobody comes near a drawdown stop, which spares a CPU looking for it; a GPU is not waited for."""
        if self.device.type != "cpu":
            return False
        highest = torch.maximum(path.amax(0), self.peak)
        return bool((path.amin(0) > highest.mul_(1.0 - self.rules.max_drawdown)).all())

    def _first_breach(self, path: torch.Tensor) -> torch.Tensor:
        """Bar of the first mark, counted from 0, that lies `max_drawdown` below the peak before it; I: none."""
        peaks = torch.maximum(path.cummax(0).values, self.peak)
        breach = path <= peaks.mul_(1.0 - self.rules.max_drawdown)
        return torch.where(breach, self._steps, self._never).amin(0)

    def _at_start(self, proceeds: torch.Tensor, mark: torch.Tensor) -> torch.Tensor:
        """Dollars at t that with interest become `proceeds` at a mark, counted from 0."""
        return proceeds if self.cash_growth == 1.0 else proceeds * self.cash_growth ** -(mark + 1).double()

    @staticmethod
    def _grown(cash: torch.Tensor, interest: torch.Tensor | None) -> torch.Tensor:
        return cash if interest is None else cash * interest

    def _sale(
        self, shares: torch.Tensor, prices: torch.Tensor, index: torch.Tensor, known_at: torch.Tensor
    ) -> torch.Tensor:
        """Dollars that a forced sale brings before its fee, with slippage from what `known_at` tells."""
        value = shares * prices.index_select(0, index)
        if self.rules.impact == 0.0 and self.rules.half_spread_bps == 0.0:
            return value
        return value * (1.0 - self._slippage(value, known_at))

    def _remember(self, fill: Fill, walk: Walk, close_at: torch.Tensor | None) -> None:
        """Move the state of every row to its next decision.

        The sale of a drawdown stop ends the episode, so it is not entered into the last fill and the trades.
        """
        bar, path = self.bar, walk.path
        paid = torch.addcmul(fill.notional, self.entry, self.shares)
        bought = fill.shares > self.shares
        self.entry = torch.where(bought, paid / fill.shares, self.entry)  # average price of what is held
        ledger = torch.cat((self.session_equity, self.equity, path.flatten()))
        column = self._tape.session_column.index_select(0, bar)
        self.session_equity = ledger.index_select(0, column.add_(self._rows))
        self.bar = (bar + self.interval).clamp_(max=self._last_bar)
        self.last_fill = torch.where(fill.filled, bar + 1, self.last_fill)
        trades = torch.add(fill.filled, self.trades, alpha=self._decay)
        self.trades = trades.mul_(self._decay ** (self.interval - 1))
        if close_at is not None and walk.sold_at_close is not None:
            sold = walk.sold_at_close > 0
            self.last_fill = torch.where(sold, bar + close_at + 1, self.last_fill)
            self.trades += sold * torch.pow(self._decay, self.interval - 1 - close_at)
        self.cash, self.shares, self.equity = walk.cash, walk.shares, path[-1]
        highest = path.amax(0)
        self.peak = torch.maximum(self.peak, highest)
        self.interval_peaks[self._slot].copy_(highest)
        self._slot = (self._slot + 1) % len(self.interval_peaks)
        self._seen = None

    def liquidate(self, rows: torch.Tensor, bar: torch.Tensor) -> StepResult:
        """Hold the chosen rows to the close of `bar` and liquidate them there, as at the end of a block.

        Forced exits on the way (drawdown stop, end of a session) happen as in a step. The rows' episodes are
        over: they must be reset before their next step. Other rows are untouched and report zeros.

        Parameters
        ----------
        rows
            bool[n].
        bar
            int64[n], last bar, ``self.bar <= bar <= self.bar + interval``; read where `rows`.

        Returns
        -------
        StepResult
            Of the walk to `bar`. Of its path, the first ``bar - self.bar`` entries are the closes on the way;
            the last of them and all after it hold the equity after the liquidation.
        """
        close_at = torch.where(rows, bar - self.bar - 1, -1)
        interest = None
        if self._interest is not None:
            interest = self.cash_growth ** torch.minimum(self._steps, close_at).add(1).double()
        if self.rules.flat_by_close:
            close_at = torch.minimum(close_at, self._tape.session_end.index_select(0, self.bar))
        walk = self._walk(self.cash, self.shares, close_at, interest)
        path = torch.where(rows, walk.path, self.equity)
        sold = walk.sold * rows
        before = self.equity
        self.cash = torch.where(rows, walk.cash, self.cash)
        self.shares = self.shares.masked_fill(rows, 0.0)
        self.equity, self.peak = path[-1], torch.maximum(self.peak, path.amax(0))
        self.bar = torch.where(rows, bar, self.bar)
        self._seen = None
        flags = {"terminated": walk.terminated & rows, "truncated": rows.clone()}
        return self._result(before, path, sold, **flags, invalid=torch.zeros_like(rows))

    def holdings(self) -> Holdings:
        """Return what was held on the bars of the last step or liquidation; of a liquidation, up to its last bar."""
        shares, stop_at, close_at = self._way
        over = (self._steps <= torch.minimum(stop_at, close_at)) & (shares > 0.0)
        # a stop at the last mark is executed within the same step
        after = over & (self._steps < close_at) & (self._steps_after_stop <= stop_at)
        return Holdings(torch.where(over, shares, self._zero).t(), after.t())

    def take(self, other: Simulator, rows: torch.Tensor) -> None:
        """Become copies of the accounts `rows` (int64[n]) of another simulator with the same tape and rules.

        Not of `interval_peaks`, which are long: only :meth:`observe` reads them.
        """
        for name in _ACCOUNT:
            setattr(self, name, getattr(other, name).index_select(0, rows))
        self._slot, self._seen = other._slot, None
        if other._seen is not None:
            self._lowest, self._highest = (each.index_select(0, rows) for each in (other._lowest, other._highest))
            self._seen = Observation(*(each.index_select(0, rows) for each in other._seen))

    def get_state(self) -> dict[str, torch.Tensor]:
        """Return copies of everything that the next steps depend on, the tape and the rules aside."""
        state = {name: getattr(self, name).clone() for name in _STATE}
        return {**state, "slot": torch.tensor(self._slot)}

    def set_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from `state`, as :meth:`get_state` returned it."""
        for name in _STATE:
            setattr(self, name, state[name].to(self.device, copy=True))
        self._slot = int(state["slot"])
        self._seen = None
