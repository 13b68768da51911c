"""What a simulator sees and what a step brings, all rows at once."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Observation(NamedTuple):
    """What is known at a decision: ``bar`` int64[n], ``portfolio`` float32[n, 6], ``mask`` bool[n, 3]."""

    bar: torch.Tensor
    portfolio: torch.Tensor
    mask: torch.Tensor


class StepResult(NamedTuple):
    """What one step brought.

    Attributes
    ----------
    reward
        float32[n], `log_return` / (``target_return_per_bar * decision_interval``): 1.0 is the target pace.
    log_return
        float64[n], log of equity after over equity before.
    terminated
        bool[n], the drawdown stop was hit; the row is flat.
    truncated
        bool[n], the row's range or its horizon leaves no room for another decision; may coincide with
        `terminated`, which then wins: there is nothing to bootstrap.
    equity_path
        float64[n, I], equity marked at the closes t+1 .. t+I, after what was filled at that close. Where the
        stop was hit at the last of them, the last entry is the cash after the liquidation at the open of
        t+I+1, so that the path always ends at the equity that `log_return` speaks of.
    traded
        bool[n], there was a fill, forced ones included.
    invalid
        bool[n], the action could not be executed and became a Hold.
    fee
        float64[n], dollars: ``fee_rate * turnover``.
    turnover
        float64[n], dollars traded at fill prices, both ways.
    """

    reward: torch.Tensor
    log_return: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    equity_path: torch.Tensor
    traded: torch.Tensor
    invalid: torch.Tensor
    fee: torch.Tensor
    turnover: torch.Tensor


class Fill(NamedTuple):
    """The order at the open of t+1: account afterwards, dollars traded, whether there was a fill."""

    cash: torch.Tensor
    shares: torch.Tensor
    notional: torch.Tensor
    filled: torch.Tensor


class Walk(NamedTuple):
    """The bars t+1 .. t+I: marks, account afterwards, dollars sold by force and, of these, at a close."""

    path: torch.Tensor
    cash: torch.Tensor
    shares: torch.Tensor
    terminated: torch.Tensor
    sold: torch.Tensor
    sold_at_close: torch.Tensor | None


class Holdings(NamedTuple):
    """What was held on the bars t+1 .. t+I of the last walk.

    `over` float64[n, I]: shares held over each bar, after what was filled at its open; `after` bool[n, I]: whether any
    are left after what was filled at its close. What is sold at a stop's open is not held over that bar.
    """

    over: torch.Tensor
    after: torch.Tensor
