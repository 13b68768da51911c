"""The tape, shifted and padded so that everything a simulator step looks up is one gather by bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from sentio_rllib.trading.masks import buy_window
from sentio_rllib.trading.rules import TradingRules

if TYPE_CHECKING:
    from sentio_rllib.market.tape import TapeTensors


class Lookups(NamedTuple):
    """What a decision at bar t reads, at index t. Padding repeats the last bar, so no index runs off the end.

    Attributes
    ----------
    close, close_1, open_1, open_2
        float64[T + ...], close of t and t+1, open of t+1 and t+2.
    closes_ahead
        float64[T + ..., I], closes of t+1 .. t+I, a view.
    volatility, dollar_volume
        float64[T + ...], trailing values known at the close of t; dollar volume at least 1.
    fillable
        bool[T + ...] or None, whether an order is filled at the open of t+1; None: everywhere.
    buy_window
        bool[T] or None, see :func:`sentio_rllib.trading.masks.buy_window`.
    session_end
        int64[T], the smallest k in 0 .. I-1 for which bar t+1+k is the last of its session; I where none is.
    session_column
        int64[T], n * j with j = 0 where no session ends in t .. t+I-1, else 1 + k for the last bar t+k that
        ends one: where the equity at the start of the session of t+I stands in the flattened
        ``[session_equity, equity, path]`` of the simulator.
    """

    close: torch.Tensor
    close_1: torch.Tensor
    open_1: torch.Tensor
    open_2: torch.Tensor
    closes_ahead: torch.Tensor
    volatility: torch.Tensor
    dollar_volume: torch.Tensor
    fillable: torch.Tensor | None
    buy_window: torch.Tensor | None
    session_end: torch.Tensor
    session_column: torch.Tensor


def build_lookups(tape: TapeTensors, rules: TradingRules, n: int) -> Lookups:
    """Prepare a tape for a simulator of n rows.

    Parameters
    ----------
    tape
        T bars.
    rules
        Give the decision interval I and what restricts a Buy.
    n
        Rows of the simulator.
    """
    bars, interval = len(tape.close), rules.decision_interval
    index = torch.arange(bars, device=tape.close.device)

    def padded(values: torch.Tensor) -> torch.Tensor:
        return torch.cat((values, values[-1:].expand(interval + 2))).double()

    close, opening = padded(tape.close), padded(tape.open)
    next_last = torch.where(tape.session_last, index, bars + interval).flip(0).cummin(0).values.flip(0)
    next_last = torch.cat((next_last[1:], next_last[-1:]))
    last_before = torch.where(tape.session_last, index, -1).cummax(0).values
    last_before = last_before[(index + interval - 1).clamp(max=bars - 1)]
    return Lookups(
        close=close,
        close_1=close[1:],
        open_1=opening[1:],
        open_2=opening[2:],
        closes_ahead=close[1:].unfold(0, interval, 1),
        volatility=padded(tape.volatility),
        dollar_volume=padded(tape.dollar_volume).clamp_(min=1.0),
        fillable=None if tape.always_fillable or rules.fill_without_volume else padded(tape.fillable)[1:] > 0.0,
        buy_window=buy_window(rules, tape.volatility, tape.minute, tape.minutes_left),
        session_end=(next_last - index - 1).clamp(0, interval),
        session_column=(last_before - index + 1).clamp(min=0) * n,
    )
