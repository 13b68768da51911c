"""The three PPO variants as one table, and the stacked actor-critic that is built from a row of it.

Reads ``[rows, M, ...]`` and returns ``[rows, M, ...]``: rows first, as minibatches are sliced, members second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn

from sentio_rllib.market.features import MARKET_FEATURES, PORTFOLIO_FEATURES
from sentio_rllib.policy.heads import CategoricalHead, RegimeGatedHead, mask_logits
from sentio_rllib.policy.layers import StackedDropout, StackedLinear, StackedMLP
from sentio_rllib.seeding import Member

VariantName = Literal["standard", "maskable", "enhanced-maskable"]

N_MARKET = len(MARKET_FEATURES)
N_PORTFOLIO = len(PORTFOLIO_FEATURES)
REGIME_FEATURES = ("volatility_level", "volatility_ratio", "return_390", "return_30")
"""What the gate reads: volatility (level and ratio) and trend."""


@dataclass(frozen=True)
class Variant:
    """What sets a variant apart: the masks it trades under and the head it decides with."""

    masks: Literal["none", "state", "risk"]
    gated: bool


VARIANTS: dict[str, Variant] = {
    "standard": Variant(masks="none", gated=False),
    "maskable": Variant(masks="state", gated=False),
    "enhanced-maskable": Variant(masks="risk", gated=True),
}


@dataclass(frozen=True)
class PolicySpec:
    """Shape of the networks of one trial; see the `policy` section of a configuration for the ranges."""

    variant: VariantName = "maskable"
    hidden: tuple[int, ...] = (256, 256, 128)
    activation: str = "tanh"
    dropout: float = 0.0
    shared: bool = False
    hold_bias: float = 0.0
    experts: int = 2
    gate: bool = True


class PolicyOutput(NamedTuple):
    """`logits` float ``[rows, M, 3]``, masked; `gate` ``[rows, M, R]`` or None."""

    logits: torch.Tensor
    gate: torch.Tensor | None


class ActorCritic(nn.Module):
    """A stack of M actor-critics, one per (seed, fold).

    Parameters
    ----------
    spec
        Shape, the same for all members.
    members
        (seed, fold) of each member; M is its length.
    """

    def __init__(self, spec: PolicySpec, members: Sequence[Member]) -> None:
        super().__init__()
        self.spec = spec
        self.members = list(members)
        width = N_MARKET + N_PORTFOLIO
        self.policy_trunk = self._trunk("policy", width)
        self.value_trunk = None if spec.shared else self._trunk("value", width)
        features = self.policy_trunk.out_features
        self.policy_head: CategoricalHead | RegimeGatedHead
        if VARIANTS[spec.variant].gated:
            self.policy_head = RegimeGatedHead(
                self.members,
                features,
                hold_bias=spec.hold_bias,
                regime_features=len(REGIME_FEATURES),
                experts=spec.experts,
                gate=spec.gate,
            )
        else:
            self.policy_head = CategoricalHead(self.members, features, hold_bias=spec.hold_bias)
        self.value_head = StackedLinear(self.members, features, 1, gain=1.0, name="value.head")
        names = [feature.name for feature in MARKET_FEATURES]
        self.regime_columns = [names.index(name) for name in REGIME_FEATURES]

    def _trunk(self, name: str, width: int) -> StackedMLP:
        spec = self.spec
        return StackedMLP(
            self.members,
            width,
            spec.hidden,
            activation=spec.activation,
            dropout=spec.dropout,
            name=name,
        )

    def policy(self, market: torch.Tensor, portfolio: torch.Tensor, action_mask: torch.Tensor) -> PolicyOutput:
        """Return the masked action logits, without evaluating the critic.

        Parameters
        ----------
        market
            Float ``[rows, M, 14]``, the market features at the decision.
        portfolio
            Float ``[rows, M, 6]``.
        action_mask
            Bool ``[rows, M, 3]``.
        """
        inputs = torch.cat([market, portfolio], -1).transpose(0, 1)
        return self._policy_head(self.policy_trunk(inputs), inputs, action_mask)

    def value(self, market: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        """Return the value ``[rows, M]``, in units of normalised reward; arguments as in :meth:`policy`."""
        inputs = torch.cat([market, portfolio], -1).transpose(0, 1)
        trunk = self.policy_trunk if self.value_trunk is None else self.value_trunk
        return self._value_head(trunk(inputs))

    def both(
        self, market: torch.Tensor, portfolio: torch.Tensor, action_mask: torch.Tensor
    ) -> tuple[PolicyOutput, torch.Tensor]:
        """Return what :meth:`policy` and :meth:`value` do, evaluating a shared trunk once."""
        inputs = torch.cat([market, portfolio], -1).transpose(0, 1)
        embedding = self.policy_trunk(inputs)
        output = self._policy_head(embedding, inputs, action_mask)
        value_embedding = embedding if self.value_trunk is None else self.value_trunk(inputs)
        return output, self._value_head(value_embedding)

    def begin_iteration(self, iteration: int) -> None:
        """Start the dropout streams of training iteration `iteration`."""
        for layer in self._dropouts():
            layer.begin_iteration(iteration)

    def _dropouts(self) -> Iterator[StackedDropout]:
        return (layer for layer in self.modules() if isinstance(layer, StackedDropout))

    def _policy_head(self, embedding: torch.Tensor, inputs: torch.Tensor, action_mask: torch.Tensor) -> PolicyOutput:
        regime = inputs[..., self.regime_columns] if isinstance(self.policy_head, RegimeGatedHead) else inputs
        logits, gate = self.policy_head(embedding, regime)
        logits = _full_precision(logits).transpose(0, 1)
        return PolicyOutput(
            mask_logits(logits, action_mask),
            None if gate is None else _full_precision(gate).transpose(0, 1),
        )

    def _value_head(self, embedding: torch.Tensor) -> torch.Tensor:
        return _full_precision(self.value_head(embedding)).squeeze(-1).transpose(0, 1)


def _full_precision(values: torch.Tensor) -> torch.Tensor:
    """Return `values` in float32 where autocast made them bfloat16; float64 stays."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
