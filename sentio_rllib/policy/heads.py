"""Heads: from an embedding to the logits of three actions, and to a value.

Logits of masked actions are set to :data:`MASKED_LOGIT`, so that their probability is exactly zero
and their part of the entropy is zero rather than undefined.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sentio_rllib.policy.layers import StackedLinear
from sentio_rllib.seeding import Member

N_ACTIONS = 3
MASKED_LOGIT = -1e9
_POLICY_GAIN = 0.01  # near-uniform first policy (Andrychowicz et al. 2021, section 3.2)


def mask_logits(logits: torch.Tensor, action_mask: torch.Tensor) -> torch.Tensor:
    """Return float32 or float64 `logits` with the actions that `action_mask` forbids made impossible.

    Parameters
    ----------
    logits
        Float ``[..., 3]``.
    action_mask
        Bool ``[..., 3]``, True where the action is allowed; at least one per row.
    """
    return logits.masked_fill(~action_mask, MASKED_LOGIT)


def _with_hold_bias(linear: StackedLinear, hold_bias: float) -> StackedLinear:
    with torch.no_grad():
        linear.bias[..., 0::N_ACTIONS] = hold_bias
    return linear


class CategoricalHead(nn.Module):
    """One linear map from the embedding to the action logits."""

    def __init__(self, members: Sequence[Member], in_features: int, *, hold_bias: float) -> None:
        super().__init__()
        linear = StackedLinear(members, in_features, N_ACTIONS, gain=_POLICY_GAIN, name="policy.head")
        self.linear = _with_hold_bias(linear, hold_bias)

    def forward(self, embedding: torch.Tensor, regime: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return logits ``[M, rows, 3]`` of `embedding` ``[M, rows, features]``; `regime` is not read."""
        del regime
        return self.linear(embedding), None


class RegimeGatedHead(nn.Module):
    """R expert heads whose logits are mixed by a gate (mixture of experts, Jacobs et al. 1991).

    The gate reads the regime features (volatility level and ratio, trend) beside the embedding.
    With `gate` off the experts are averaged.

    Parameters
    ----------
    members, in_features, hold_bias
        As in :class:`CategoricalHead`.
    regime_features
        Number of regime features.
    experts
        R, at least 2.
    gate
        Whether the mixture is learned.
    """

    def __init__(
        self,
        members: Sequence[Member],
        in_features: int,
        *,
        hold_bias: float,
        regime_features: int,
        experts: int,
        gate: bool,
    ) -> None:
        super().__init__()
        self.experts = experts
        outputs = experts * N_ACTIONS
        linear = StackedLinear(members, in_features, outputs, gain=_POLICY_GAIN, name="policy.experts")
        self.linear = _with_hold_bias(linear, hold_bias)
        self.gate = (
            StackedLinear(members, in_features + regime_features, experts, gain=1.0, name="policy.gate")
            if gate
            else None
        )

    def forward(self, embedding: torch.Tensor, regime: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits ``[M, rows, 3]`` and gate weights ``[M, rows, R]`` (None with the gate off).

        Parameters
        ----------
        embedding
            Float ``[M, rows, features]``.
        regime
            Float ``[M, rows, regime_features]``.
        """
        logits = self.linear(embedding).unflatten(-1, (self.experts, N_ACTIONS))
        if self.gate is None:
            return logits.mean(-2), None
        weights = torch.softmax(self.gate(torch.cat([embedding, regime], -1)).to(logits.dtype), -1)
        return (weights.unsqueeze(-1) * logits).sum(-2), weights


def load_balance_loss(weights: torch.Tensor) -> torch.Tensor:
    """Return ``[M]``: R times the sum of squared mean gate weights, minus 1; zero where experts share alike.

    Parameters
    ----------
    weights
        Gate weights ``[rows, M, R]``, each row summing to 1.

    Notes
    -----
    The squared form of the importance loss of Shazeer et al. 2017, equation 6.
    """
    usage = weights.mean(0)
    return weights.shape[-1] * usage.square().sum(-1) - 1.0
