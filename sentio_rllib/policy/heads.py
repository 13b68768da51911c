"""Heads: from an embedding to the logits of three actions, and to a value.

Logits of masked actions are set to :data:`MASKED_LOGIT`, so that their probability is exactly zero
and their part of the entropy is zero rather than undefined.

Experts are mixed as distributions, not logits (0.813 against 0.785 on the planted market, no difference shown): a
mixture of distributions stays one when experts disagree. What a gate chooses by is its own affair: in a market made
for it, where the right action is signal times regime, eight gates in ten came to pick a buying or a selling expert,
having computed the product in the embedding, and one picked by regime; a single categorical head did as well. So
`gate_information` says how much the choice depends on what the gate reads, not that experts are regimes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from sentio_rllib.policy.layers import StackedLinear
from sentio_rllib.policy.variants import Mixture
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

    def forward(
        self, embedding: torch.Tensor, regime: torch.Tensor, action_mask: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        """Return masked logits ``[M, rows, 3]`` of `embedding` ``[M, rows, features]``; `regime` is not read."""
        del regime
        return mask_logits(full_precision(self.linear(embedding)), action_mask), None


class RegimeGatedHead(nn.Module):
    """R expert heads mixed by a gate that reads the regime (mixture of experts, Jacobs et al. 1991).

    The gate reads the regime features (volatility level and ratio, trend) beside the embedding.

    Parameters
    ----------
    members, in_features, hold_bias
        As in :class:`CategoricalHead`.
    regime_features
        Number of regime features.
    experts
        R, at least 2.
    mixture
        Whether the experts' ``distributions`` are averaged with the gate's weights, or their ``logits``.
    """

    def __init__(
        self,
        members: Sequence[Member],
        in_features: int,
        *,
        hold_bias: float,
        regime_features: int,
        experts: int,
        mixture: Mixture,
    ) -> None:
        super().__init__()
        self.experts, self.mixture = experts, mixture
        outputs = experts * N_ACTIONS
        linear = StackedLinear(members, in_features, outputs, gain=_POLICY_GAIN, name="policy.experts")
        self.linear = _with_hold_bias(linear, hold_bias)
        self.gate = StackedLinear(members, in_features + regime_features, experts, gain=1.0, name="policy.gate")

    def forward(
        self, embedding: torch.Tensor, regime: torch.Tensor, action_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return masked logits ``[M, rows, 3]`` and gate weights ``[M, rows, R]``.

        Parameters
        ----------
        embedding
            Float ``[M, rows, features]``.
        regime
            Float ``[M, rows, regime_features]``.
        action_mask
            Bool ``[M, rows, 3]``.
        """
        logits = full_precision(self.linear(embedding))
        logits = logits.view(*logits.shape[:-1], self.experts, N_ACTIONS)
        log_weights = torch.log_softmax(full_precision(self.gate(torch.cat([embedding, regime], -1))), -1)
        weights = log_weights.exp()
        if self.mixture == "logits":
            return mask_logits((weights.unsqueeze(-1) * logits).sum(-2), action_mask), weights
        log_probs = torch.log_softmax(mask_logits(logits, action_mask.unsqueeze(-2)), -1)
        mixed = torch.logsumexp(log_weights.unsqueeze(-1) + log_probs, -2)
        return mask_logits(mixed, action_mask), weights


def full_precision(values: torch.Tensor) -> torch.Tensor:
    """Return `values` in float32 where autocast made them bfloat16; float64 stays."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


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


COLLAPSED_USAGE = 0.95
"""A gate that gives one expert more than this share of its weight has collapsed."""


def gate_figures(weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what a gate does with its experts.

    Parameters
    ----------
    weights
        Gate weights ``[rows, M, R]``, each row summing to 1.

    Returns
    -------
    dict
        ``gate_usage`` ``[M, R]``: mean weight of each expert. ``gate_entropy`` ``[M]``: mean entropy of a
        decision's weights, in nats. ``gate_information`` ``[M]``: entropy of the usage less that mean, in nats;
        how much the choice of experts depends on what the gate reads, 0 where it ignores it. It reads the
        embedding too, so experts may stand for actions as well as for regimes.
    """
    usage = weights.mean(0)
    entropy = torch.special.entr(weights).sum(-1).mean(0)
    return {
        "gate_usage": usage,
        "gate_entropy": entropy,
        "gate_information": torch.special.entr(usage).sum(-1) - entropy,
    }


def gate_collapsed(usage: torch.Tensor) -> torch.Tensor:
    """Return bool ``[M]``, whether one expert has more than :data:`COLLAPSED_USAGE` of `usage` ``[M, R]``."""
    return usage.amax(-1) > COLLAPSED_USAGE


def quantile_levels(quantiles: int) -> torch.Tensor:
    """Return the levels ``(i + 1/2) / N`` of N quantiles, float64 (Dabney et al. 2018, lemma 2)."""
    return (torch.arange(quantiles, dtype=torch.float64) + 0.5) / quantiles


def conditional_value_at_risk(quantiles: torch.Tensor, level: float = 0.05) -> torch.Tensor:
    """Return the mean of the worst `level` of a predicted distribution, ``[...]`` of quantiles ``[..., N]``.

    Each quantile stands for an equal share 1/N of the probability; the last one reached counts in part.
    """
    count = quantiles.shape[-1]
    reached = math.ceil(level * count)
    before = torch.arange(reached, dtype=quantiles.dtype, device=quantiles.device) / count
    share = (level - before).clamp(max=1.0 / count) / level
    return (quantiles.topk(reached, largest=False).values * share).sum(-1)


def value_at_risk(quantiles: torch.Tensor, level: float = 0.05) -> torch.Tensor:
    """Return the quantile ``[...]`` in which `level` of a predicted distribution ``[..., N]`` falls."""
    return quantiles.kthvalue(math.ceil(level * quantiles.shape[-1])).values
