"""Which actions are valid: what the account can do, and what the risk layers allow.

Hold is always valid. The same functions serve the simulator and live decisions, so the mask shown is the mask
used everywhere. With ``masks="none"`` every action is shown as valid, yet what the account cannot do is still
executed as a Hold.
"""

from __future__ import annotations

import torch

from sentio_rllib.trading.rules import MaskKind, TradingRules

HOLD, BUY, SELL = 0, 1, 2


def buy_window(
    rules: TradingRules, volatility: torch.Tensor, minute: torch.Tensor, minutes_left: torch.Tensor
) -> torch.Tensor | None:
    """Return the bars at whose close the clock and the market allow a Buy.

    Parameters
    ----------
    rules
        Costs, limits and masks.
    volatility
        float64[T], trailing one-bar volatility, known at the bar's close.
    minute, minutes_left
        int32[T], minutes since the session's open and until its close.

    Returns
    -------
    torch.Tensor or None
        bool[T]; ``None`` where no rule depends on the bar.
    """
    allowed = None
    if rules.masks == "risk":
        by_volatility, by_clock = risk_causes(rules, volatility, minute, minutes_left)
        allowed = ~(by_volatility | by_clock)
    if rules.flat_by_close:
        in_time = minutes_left >= rules.close_minutes
        allowed = in_time if allowed is None else allowed & in_time
    return allowed


def risk_causes(
    rules: TradingRules, volatility: torch.Tensor, minute: torch.Tensor, minutes_left: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where the risk masks forbid a Buy by volatility and where by the clock, bool[T] each.

    Parameters as in :func:`buy_window`.
    """
    by_volatility = volatility > rules.risk_volatility * rules.reference_volatility
    by_clock = (minute < rules.risk_first_minutes) | (minutes_left < rules.risk_last_minutes)
    return by_volatility, by_clock


def executable_actions(
    rules: TradingRules,
    fraction: torch.Tensor,
    shares: torch.Tensor,
    local_drawdown: torch.Tensor,
    window: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return whether a Buy and whether a Sell can be executed.

    A Buy needs room for at least ``min_trade`` below ``max_position``. A Sell needs a position: since
    ``position_step >= min_trade``, it takes off at least ``min_trade`` or closes what is left.

    Parameters
    ----------
    rules
        Costs, limits and masks.
    fraction
        float64[n], share of equity in the market, marked at the close.
    shares
        float64[n], shares held.
    local_drawdown
        float64[n], loss from the peak of the last `episode_length` bars, as a share of it; read by ``risk``.
    window
        bool[n], :func:`buy_window` at each row's bar, or ``None``.

    Returns
    -------
    tuple of torch.Tensor
        ``can_buy`` and ``can_sell``, bool[n].
    """
    can_buy = fraction <= rules.max_position - rules.min_trade
    if window is not None:
        can_buy &= window
    if rules.masks == "risk":
        can_buy &= local_drawdown < rules.risk_drawdown * rules.max_drawdown
    return can_buy, shares > 0


def action_mask(kind: MaskKind, can_buy: torch.Tensor, can_sell: torch.Tensor) -> torch.Tensor:
    """Return the mask that the policy sees, bool[n, 3] in the order Hold, Buy, Sell.

    Parameters
    ----------
    kind
        ``none`` shows every action as valid; ``state`` and ``risk`` show what is executed.
    can_buy, can_sell
        bool[n], see :func:`executable_actions`.
    """
    if kind == "none":
        return torch.ones(*can_buy.shape, 3, dtype=torch.bool, device=can_buy.device)
    return torch.stack((torch.ones_like(can_buy), can_buy, can_sell), -1)
