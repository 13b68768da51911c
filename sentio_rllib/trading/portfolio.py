"""The six portfolio features: one formula for training, validation and live decisions."""

from __future__ import annotations

import torch

DRAWDOWN = 3
"""Column of the local drawdown."""


def portfolio_features(
    *,
    fraction: torch.Tensor,
    entry_ratio: torch.Tensor,
    bars_since_fill: torch.Tensor,
    local_drawdown: torch.Tensor,
    session_ratio: torch.Tensor,
    trades: torch.Tensor,
    window: int,
    max_drawdown: float,
) -> torch.Tensor:
    """Return the six portfolio features, in the order of ``PORTFOLIO_FEATURES``, each within [-1, 1].

    All are local: they mean the same in a training episode, a validation block of any length, and live.

    Parameters
    ----------
    fraction
        float64[n], share of equity in the market.
    entry_ratio
        float64[n], close over the average entry price; 1 when flat.
    bars_since_fill
        [n], bars since the bar of the last fill; `window` or more when there was none.
    local_drawdown
        float64[n], loss from the peak equity of the last `window` bars, as a share of it.
    session_ratio
        float64[n], equity over the equity at the last close of the previous session.
    trades
        float64[n], count of fills that halves every 390 bars.
    window
        `episode_length` of training, in bars.
    max_drawdown
        The drawdown stop, as a share of the peak.

    Returns
    -------
    torch.Tensor
        float32[n, 6]: fraction; tanh(10 * log return since entry); bars since the last fill / `window`;
        drawdown / `max_drawdown`; tanh(10 * log return of the session); trades / (trades + 10).
    """
    features = (
        fraction,
        entry_ratio.log().mul_(10.0).tanh_(),
        (bars_since_fill.double() / window).clamp_(0.0, 1.0),
        (local_drawdown / max_drawdown).clamp_(0.0, 1.0),
        session_ratio.log().mul_(10.0).tanh_(),
        trades / (trades + 10.0),
    )
    return torch.stack(features, 1).float()
