"""Live decisions: a trained policy fed one finished bar at a time.

It sees what it saw in validation: the same features, windows, portfolio figures and masks, so that replaying a
validation block bar by bar gives the decisions of the batch evaluation (``tests/deploy/test_parity.py``).

    policy = TradingPolicy.load("models/NAME")
    policy.warm_up(history)                       # market.bars.Bars up to the last finished minute
    while trading:
        if policy.decision_due:
            decision = policy.decide(Portfolio(cash, shares))
        policy.update(next_finished_bar())
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sentio_rllib.deploy.account import Account, AccountView, Portfolio, price_scale, single_rows
from sentio_rllib.deploy.bundle import Bundle, load_bundle
from sentio_rllib.deploy.cache import EncoderCache
from sentio_rllib.deploy.decision import ACTIONS, Decision
from sentio_rllib.deploy.export import DecisionModel
from sentio_rllib.deploy.feed import VALUES, Bar, check_bar, place
from sentio_rllib.deploy.state import check_state, read_state, write_state
from sentio_rllib.errors import BarsError, DecisionError
from sentio_rllib.market.checks import iso_minute
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.sessions import assign_sessions, load_calendar
from sentio_rllib.market.streaming import StreamingFeatures
from sentio_rllib.trading.masks import BUY, HOLD, SELL, action_mask, buy_window, executable_actions
from sentio_rllib.trading.simulator import ROUNDING

__all__ = ["ACTIONS", "Bar", "Decision", "DecisionError", "Portfolio", "TradingPolicy"]

_STATE = "state/v1"
_SPARE_ROWS = 1024
"""Rows of the window's buffer beyond the window, so that it is moved to the front once in so many bars."""


class TradingPolicy:
    """The members of a bundle as one policy that is fed bars and asked for decisions.

    Decisions are due every ``decision_interval`` bars, counted from the *start*: the last bar of
    :meth:`warm_up`, or the first bar at which the policy is ready. Missing bars change nothing of that, as in
    validation: phase, account window and drawdown stop go on, and what was held before a hole is held over it. Money
    paid in or out looks like a gain or a loss: :meth:`restart` after it. A split or a dividend of what is traded is
    told by :meth:`adjust`.

    Look-ahead: pass finished bars only; a bar whose minute still runs shows prices that training never had.

    Parameters
    ----------
    bundle
        What :func:`~sentio_rllib.deploy.bundle.load_bundle` returns; its weights are copied.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.rules = bundle, bundle.rules
        load_calendar(bundle.calendar)
        self._model = DecisionModel(bundle.network)
        self._account = Account(bundle.rules)
        spec = bundle.network.spec
        self._field = spec.receptive_field
        goes_on = spec.encoder == "transformer" and spec.patch == self.rules.decision_interval
        self._cache = EncoderCache(self._model) if goes_on else None
        self._forget()

    @classmethod
    def load(cls, folder: str | Path) -> TradingPolicy:
        """Return the policy of a bundle's folder, verified first.

        Raises
        ------
        CheckpointError
            If something is missing, altered, or made for another version.
        """
        return cls(load_bundle(Path(folder)))

    def _forget(self) -> None:
        """Go back to before the first bar; the account keeps what is held."""
        spec, bundle = self.bundle.network.spec, self.bundle
        self._features = StreamingFeatures(
            spec.features, session_minutes=bundle.session_minutes, reference_volatility=bundle.reference_volatility
        )
        self.bars_needed = self.bundle.bars_needed
        self._rows = np.zeros((self._field + _SPARE_ROWS, spec.market_features), dtype=np.float32)
        self._stop = 0
        self._recent: deque[tuple[int, tuple[float, ...]]] = deque(maxlen=self.bars_needed)
        self._session = 0
        self._minute, self._minutes_left = 0, 0
        self._since_start: int | None = None
        self._forget_encoded()

    def _forget_encoded(self) -> None:
        if self._cache is not None:
            self._cache.forget()

    @property
    def bars_seen(self) -> int:
        """Bars since the feed began; what :meth:`warm_up` did not need is not counted."""
        return self._features.bars_seen

    @property
    def is_ready(self) -> bool:
        """Whether all that a decision reads lies within the bars seen."""
        return self.bars_seen >= self.bars_needed

    @property
    def decision_due(self) -> bool:
        """Whether the last bar is one of the start's every ``decision_interval`` bars."""
        return self._since_start is not None and self._since_start % self.rules.decision_interval == 0

    @property
    def last_bar(self) -> np.datetime64 | None:
        """Start of the last bar, datetime64[ns] in UTC; None before the first."""
        return np.datetime64(self._recent[-1][0], "ns") if self._recent else None

    @property
    def minutes_left(self) -> int:
        """Minutes from the end of the last bar to its session's close; 0 outside the calendar's hours.

        Where the rules say ``flat_by_close``, sell whatever is held at that close, and :meth:`report` it before the
        next bar. Go by the clock: at 0 the close is there, yet a last minute in which nothing was traded brings no
        bar and no 0. Validation sells at the last bar that there is, so its price may differ there.
        With ``hours="all"`` validation's last bar is the last one outside the calendar's hours, of which this
        counts nothing: sell at the end of the day that the feed has.
        """
        return self._minutes_left

    @property
    def stop_reached(self) -> bool:
        """Whether the drawdown stop is reached: close the whole position at the next open.

        It is told after each bar by what the account held when last reported, so :meth:`report` each fill. Whoever
        tells of fills by the next decision alone learns of a stop only there.
        """
        return self._account.stop_reached

    def warm_up(self, bars: Bars) -> None:
        """Forget all bars and begin with a history; its last bar is the start.

        Only the last :attr:`bars_needed` of them are read. A policy that merely missed some minutes is brought up
        to date with :meth:`update` instead, which keeps its phase.

        Raises
        ------
        BarsError
            They are no :class:`~sentio_rllib.market.bars.Bars`, are of another calendar, or hold bars outside its hours
            that training left out.
        """
        if not isinstance(bars, Bars):
            raise BarsError(
                f"history: a {type(bars).__name__} is none; pass Bars, the first of the two that load_bars returns"
            )
        calendar, hours = self.bundle.calendar, self.bundle.hours
        if bars.sessions.calendar != calendar:
            raise BarsError(
                f"history: its sessions are those of {bars.sessions.calendar}, this policy was trained on {calendar}: "
                f"load the bars with calendar={calendar!r}"
            )
        if hours == "regular" and not bars.sessions.regular.all():
            raise BarsError(
                f"history: {int((~bars.sessions.regular).sum()):,} bars lie outside the sessions of {calendar}, which "
                "are all that this policy was trained on: load the bars with hours='regular'"
            )
        first = max(bars.n - self.bars_needed, 0)
        self._replay(bars.timestamp[first:], np.stack([getattr(bars, name)[first:] for name in VALUES], 1))
        if self.is_ready:
            self._begin()

    def update(self, bar: Bar) -> None:
        """Take the next finished bar.

        Raises
        ------
        BarsError
            It is late, a duplicate, out of order, outside the hours, or holds what no market has; the policy is
            as before.
        """
        stamp, values = check_bar(bar)
        previous = self._recent[-1][0] if self._recent else None
        at = place(stamp, previous, self.bundle.calendar, self.bundle.hours)
        self._session += at.new_session
        self._take(stamp, values, minute=at.minute, length=at.length, regular=at.regular)
        if not self.is_ready:
            return
        if self._since_start is None:
            self._begin()
        else:
            self._since_start += 1
            self._account.mark(values[3], new_session=at.new_session)
            if self.decision_due and self._cache is not None and self._cache.contexts is not None:
                with torch.inference_mode():
                    self._cache.advance(self._window())  # whether or not a decision is asked for

    def _replay(self, stamps: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Begin with bars known to be good, int64[T] and float64[T, 5]."""
        self._forget()
        sessions, regular = assign_sessions(stamps, self.bundle.calendar)
        for index, row in enumerate(values.tolist()):
            self._session = int(sessions.session[index])
            place_of = {"minute": int(sessions.minute[index]), "length": int(sessions.length[index])}
            self._take(int(stamps[index]), tuple(row), **place_of, regular=bool(regular[index]))

    def _take(self, stamp: int, values: tuple[float, ...], *, minute: int, length: int, regular: bool) -> None:
        """Compute the features of a bar and remember both."""
        opening, high, low, close, volume = values
        features = self._features.push(
            open_price=opening,
            high=high,
            low=low,
            close=close,
            volume=volume,
            session=self._session,
            minute=minute,
            length=length,
            regular=regular,
        )
        if self._stop == len(self._rows):
            kept = self._field - 1
            self._rows[:kept] = self._rows[self._stop - kept :]
            self._stop = kept
        self._rows[self._stop] = features
        self._stop += 1
        self._recent.append((stamp, values))
        self._minute, self._minutes_left = minute, length - 1 - minute

    def _window(self) -> torch.Tensor:
        """The features that a decision reads, ``[bars, F]``."""
        rows = self._rows[self._stop - self._field : self._stop]
        return torch.from_numpy(rows).to(self._model.dtype)

    def _contexts(self) -> torch.Tensor:
        """What a decision at the last bar sees of the market."""
        if self._cache is None or not self.decision_due:
            return self._model.contexts(self._window().unsqueeze(0))
        known = self._cache.contexts
        return self._cache.fill(self._window()) if known is None else known

    def _begin(self) -> None:
        self._since_start = 0
        self._forget_encoded()
        self._account.begin(self._recent[-1][1][3])

    def restart(self) -> None:
        """Begin anew at the last bar: phase, account window and drawdown stop; the history stays.

        Raises
        ------
        DecisionError
            If the policy is not ready.
        """
        self._require_ready()
        self._begin()

    def adjust(self, *, split: float = 1.0, dividend: float = 0.0) -> None:
        """Take a split or a dividend into account, after the last bar at old prices and before the first at new ones.

        Past bars are brought to the new prices, so that no feature takes the step for a return, and the account to
        what it then holds, so that neither its drawdown nor its stop does. Reports from then on are in new shares.

        Parameters
        ----------
        split
            New shares for one old one, > 0: 2 where each becomes two.
        dividend
            Dollars a share, before the split, >= 0 and below the last close; expected as cash from the next report on.

        Raises
        ------
        DecisionError
            A figure is out of its range, or no bar was seen yet.
        """
        if not self._recent:
            raise DecisionError("adjust: no bar was seen yet, so there is nothing to adjust; warm_up comes first")
        scale = price_scale(self._recent[-1][1][3], split, dividend)
        stamps = np.array([stamp for stamp, _ in self._recent], dtype=np.int64)
        bars = np.array([values for _, values in self._recent]) * np.array([scale] * 4 + [split])
        since_start = self._since_start
        self._replay(stamps, bars)
        self._since_start = since_start
        if since_start is not None:
            self._account.adjust(split, dividend)

    def report(self, portfolio: Portfolio) -> None:
        """Tell what the account holds after the last bar, where something was filled between two decisions.

        Report every fill at the bar in which it happened, and each before the next: two fills told as one are
        read as one. Only where a decision's order, filled at the next open, is the sole fill before the next due
        decision, that one's portfolio tells it as well; :attr:`stop_reached` then goes by the position before
        the order until it does. An order that found nobody is told by a report of what is held all the same. A fill
        that is no due decision's order is dated at the bar of its report; a second report at one bar is a further
        fill at its close.

        Raises
        ------
        DecisionError
            If the policy is not ready, or the account is worth nothing.
        """
        self._require_ready()
        self._account.report(portfolio)

    def decide(self, portfolio: Portfolio, *, off_phase: bool = False) -> Decision:
        """Decide on the last bar.

        Parameters
        ----------
        portfolio
            What the account holds after the last bar, which is reported by it. Asking again with the same changes
            nothing; another one at the same bar is a fill, so ask with what is held, not with what might be.
        off_phase
            Decide although no decision is due, for instance after the bar that was due had been missed. The
            policy was trained and validated at its own pace: between due bars it trades more often than that.

        Raises
        ------
        DecisionError
            If the policy is not ready (says how many bars are needed and seen), none is due, or the account is
            none or worth nothing.
        """
        self._require_ready()
        if not isinstance(portfolio, Portfolio):
            raise DecisionError(f"portfolio: {portfolio!r} is none; pass a Portfolio(cash, shares)")
        if not (self.decision_due or off_phase):
            interval = self.rules.decision_interval
            left = interval - (self._since_start or 0) % interval
            raise DecisionError(
                f"no decision is due after bar {iso_minute(self._recent[-1][0])}: one is every {interval} bars, the "
                f"next in {left}; look at decision_due, or pass off_phase=True"
            )
        self._account.report(portfolio)
        decision = self._judge(self._account.view())
        if self.decision_due:
            self._account.ordered = {BUY: 1, SELL: -1}.get(decision.action, 0) if decision.executable else 0
        return decision

    def _require_ready(self) -> None:
        if not self.is_ready:
            raise DecisionError(
                f"not ready: {self.bars_needed:,} bars are needed and {self.bars_seen:,} were seen; pass history to "
                "warm_up, or go on with update"
            )

    @torch.inference_mode()
    def _judge(self, view: AccountView) -> Decision:
        rules, stopped = self.rules, self._account.stop_reached
        window = buy_window(rules, *single_rows(self._features.volatility, self._minute, self._minutes_left))
        can_buy, can_sell = executable_actions(rules, view.fraction, view.shares, view.local_drawdown, window)
        mask = action_mask(rules.masks, can_buy, can_sell)
        if stopped:
            mask = action_mask("state", torch.zeros_like(can_buy), can_sell)
        portfolio = view.portfolio.to(self._model.dtype)
        output = self._model.decide(self._contexts(), portfolio, mask)
        action = int(output.logits.argmax())
        if stopped:
            action = SELL if bool(can_sell) else HOLD
        executable = action == HOLD or bool(can_buy if action == BUY else can_sell)
        fraction = float(view.fraction)
        return Decision(
            action=action,
            name=ACTIONS[action],
            executable=executable,
            target_fraction=0.0 if stopped else self._target(fraction, action if executable else HOLD),
            stopped=stopped,
            probabilities=_figures(output.probabilities),
            mask=mask[0].numpy().copy(),
            value=float(output.value),
            quantiles=None if output.quantiles is None else _figures(output.quantiles),
            regime_weights=None if output.regime_weights is None else _figures(output.regime_weights),
            timestamp=np.datetime64(self._recent[-1][0], "ns"),
        )

    def _target(self, fraction: float, action: int) -> float:
        rules = self.rules
        if action == BUY:
            return min(fraction + rules.position_step, rules.max_position)
        left = fraction - rules.position_step if action == SELL else fraction
        return left if left > ROUNDING else 0.0

    def _made_for(self) -> dict[str, Any]:
        """What a state depends on, beside the bars; the weights are no part of it."""
        names = ("decision_interval", "episode_length", "fee_rate", "max_drawdown")
        return {
            "format": _STATE,
            "calendar": self.bundle.calendar,
            "hours": self.bundle.hours,
            "session_minutes": self.bundle.session_minutes,
            "bars_needed": self.bars_needed,
            **{name: getattr(self.rules, name) for name in names},
        }

    def get_state(self) -> dict[str, Any]:
        """Return all that later decisions depend on, the bundle aside: numbers, words and arrays, copied.

        It holds the last :attr:`bars_needed` bars, the phase and the account.
        """
        stamps = np.array([stamp for stamp, _ in self._recent], dtype=np.int64)
        values = np.array([values for _, values in self._recent], dtype=np.float64).reshape(-1, len(VALUES))
        state = self._made_for() | {"stamps": stamps, "bars": values}
        state["since_start"] = -1 if self._since_start is None else self._since_start
        return state | {f"account.{name}": value for name, value in self._account.get_state().items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, as :meth:`get_state` returned it, as if the policy had never stopped.

        What the encoder had read is read again, which gives the same up to the rounding of its arithmetic.
        Bars since then follow through :meth:`update`. Another bundle may go on from it if rules and shape agree.

        Raises
        ------
        CheckpointError
            It was made for something else (says what differs), lacks a part or was altered; the policy is as
            before.
        """
        check_state(state, self.get_state(), self._made_for(), self.bars_needed)
        other = TradingPolicy(self.bundle)
        if len(state["stamps"]):
            other._replay(np.asarray(state["stamps"], np.int64), np.asarray(state["bars"], np.float64))
        since_start = int(state["since_start"])
        other._since_start = None if since_start < 0 else since_start
        other._account.set_state({name: state[f"account.{name}"] for name in self._account.get_state()})
        self.__dict__.update(other.__dict__)  # whole or, where something above was refused, not at all

    def save_state(self, path: str | Path) -> Path:
        """Write the state as ``.npz`` (numbers, words and arrays, no pickle), whole or not at all."""
        return write_state(Path(path), self.get_state())

    def load_state(self, path: str | Path) -> None:
        """Go on from a file of :meth:`save_state`.

        Raises
        ------
        CheckpointError
            The file is missing, damaged, or made for something else; the policy is as before.
        """
        self.set_state(read_state(Path(path)))


def _figures(row: torch.Tensor) -> NDArray[np.float64]:
    """One row of the model's output as float64."""
    return np.asarray(row[0].numpy(), dtype=np.float64)
