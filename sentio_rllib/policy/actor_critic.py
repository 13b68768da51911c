"""The stacked actor-critic, built from a row of the table of variants.

Reads ``[rows, M, ...]`` and returns ``[rows, M, ...]``: rows first, as minibatches are sliced, members second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from sentio_rllib.market.feature_set import CLASSIC, PORTFOLIO_FEATURES, REGIME_FEATURES
from sentio_rllib.policy.encoders import Line, TapeTransformer, pack
from sentio_rllib.policy.heads import CategoricalHead, RegimeGatedHead, full_precision
from sentio_rllib.policy.layers import StackedDropout, StackedLinear, StackedMLP
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.seeding import Member

N_PORTFOLIO = len(PORTFOLIO_FEATURES)


class PolicyOutput(NamedTuple):
    """`logits` float ``[rows, M, 3]``, masked; `gate` ``[rows, M, R]`` or None."""

    logits: torch.Tensor
    gate: torch.Tensor | None


class ActorCritic(nn.Module):
    """A stack of M actor-critics, one per (seed, fold).

    What a decision sees of the market is its *context*, float ``[rows, M, C]``: the features of its bar and,
    behind a transformer, the embedding of the tape up to it (:meth:`policy_context`, :meth:`value_context`).
    The portfolio joins after the encoder.

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
        self.policy_encoder = self._encoder("policy")
        self.value_encoder = None if spec.shared else self._encoder("value")
        width = spec.market_features + N_PORTFOLIO
        if self.policy_encoder is not None:
            width += self.policy_encoder.out_features
        self.policy_trunk = self._trunk("policy", width)
        self.value_trunk = None if spec.shared else self._trunk("value", width)
        features = self.policy_trunk.out_features
        self.policy_head: CategoricalHead | RegimeGatedHead
        if spec.head == "gated":
            self.policy_head = RegimeGatedHead(
                self.members,
                features,
                hold_bias=spec.hold_bias,
                regime_features=len(REGIME_FEATURES),
                experts=spec.experts,
                mixture=spec.mixture,
            )
        else:
            self.policy_head = CategoricalHead(self.members, features, hold_bias=spec.hold_bias)
        values = spec.quantiles if spec.critic == "quantile" else 1
        self.value_head = StackedLinear(self.members, features, values, gain=1.0, name="value.head")
        self.regime_columns = [CLASSIC.names.index(name) for name in REGIME_FEATURES]

    def _encoder(self, name: str) -> TapeTransformer | None:
        spec = self.spec
        if spec.encoder == "mlp":
            return None
        return TapeTransformer(
            self.members,
            spec.patch * spec.market_features,
            d_model=spec.d_model,
            heads=spec.heads,
            layers=spec.layers,
            band=spec.band,
            dropout=spec.dropout,
            gated=spec.gated_residual,
            neck=spec.neck,
            name=f"{name}.encoder",
        )

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

    def policy_context(self, market: torch.Tensor, line: Line | None) -> torch.Tensor:
        """Return what the policy sees of the market, ``[rows, M, C]``.

        Parameters
        ----------
        market
            Float ``[rows, M, F]``, the market features at the decision.
        line
            The decisions on their lines; None without a transformer.
        """
        return _context(self.policy_encoder, market, line)

    def value_context(self, market: torch.Tensor, line: Line | None) -> torch.Tensor:
        """Return what the critic sees of the market, ``[rows, M, C]``; arguments as in :meth:`policy_context`."""
        return _context(self.policy_encoder if self.spec.shared else self.value_encoder, market, line)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(self.parameters()).dtype

    def policy(self, context: torch.Tensor, portfolio: torch.Tensor, action_mask: torch.Tensor) -> PolicyOutput:
        """Return the masked action logits, without evaluating the critic.

        Parameters
        ----------
        context
            Float ``[rows, M, C]``, of :meth:`policy_context`.
        portfolio
            Float ``[rows, M, 6]``.
        action_mask
            Bool ``[rows, M, 3]``.
        """
        inputs = torch.cat([context, portfolio], -1).transpose(0, 1)
        return self._policy_head(self.policy_trunk(inputs), inputs, action_mask)

    def quantiles(self, context: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        """Return the critic's quantiles of the return, ``[rows, M, N]``; N is 1 for a scalar critic.

        Parameters
        ----------
        context
            Float ``[rows, M, C]``, of :meth:`value_context`.
        portfolio
            Float ``[rows, M, 6]``.
        """
        inputs = torch.cat([context, portfolio], -1).transpose(0, 1)
        trunk = self.policy_trunk if self.value_trunk is None else self.value_trunk
        return self._value_head(trunk(inputs))

    def value(self, context: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        """Return the mean of :meth:`quantiles`, ``[rows, M]``, in units of normalised reward."""
        return self.quantiles(context, portfolio).mean(-1)

    def both(
        self, market: torch.Tensor, line: Line | None, portfolio: torch.Tensor, action_mask: torch.Tensor
    ) -> tuple[PolicyOutput, torch.Tensor]:
        """Return what :meth:`policy` and :meth:`quantiles` do, evaluating what they share once."""
        context = self.policy_context(market, line)
        inputs = torch.cat([context, portfolio], -1).transpose(0, 1)
        embedding = self.policy_trunk(inputs)
        output = self._policy_head(embedding, inputs, action_mask)
        if self.value_trunk is None:
            return output, self._value_head(embedding)
        return output, self.quantiles(self.value_context(market, line), portfolio)

    def begin_iteration(self, iteration: int, environments: int = 1) -> None:
        """Draw the dropout masks of training iteration `iteration`, one for each environment."""
        for layer in self._dropouts():
            layer.begin_iteration(iteration, environments)

    def of_environments(self, environments: torch.Tensor) -> None:
        """Say which environment each row of the next passes is of, int64[rows]; only dropout asks."""
        for trunk in filter(None, (self.policy_trunk, self.value_trunk)):
            for layer in self._dropouts(trunk):
                layer.rows = environments

    def _dropouts(self, part: nn.Module | None = None) -> Iterator[StackedDropout]:
        within = self if part is None else part
        return (layer for layer in within.modules() if isinstance(layer, StackedDropout))

    def _policy_head(self, embedding: torch.Tensor, inputs: torch.Tensor, action_mask: torch.Tensor) -> PolicyOutput:
        regime = inputs[..., self.regime_columns] if isinstance(self.policy_head, RegimeGatedHead) else inputs
        logits, gate = self.policy_head(embedding, regime, action_mask.transpose(0, 1))
        return PolicyOutput(logits.transpose(0, 1), None if gate is None else gate.transpose(0, 1))

    def _value_head(self, embedding: torch.Tensor) -> torch.Tensor:
        return full_precision(self.value_head(embedding)).transpose(0, 1)


def _context(encoder: TapeTransformer | None, market: torch.Tensor, line: Line | None) -> torch.Tensor:
    if encoder is None:
        return market
    assert line is not None
    return torch.cat([market, full_precision(encoder(line)).transpose(0, 1)], -1)


class TapeReader:
    """Reads the tape for networks of one shape: the features of a bar, and the lines of a transformer.

    Parameters
    ----------
    features
        Float ``[T, F]``, the tape's, in the networks' dtype.
    spec
        Shape of the networks.
    """

    TOKENS = 32_768
    """Most tokens of a member that are encoded at a time, so that activations stay in the caches."""

    def __init__(self, features: torch.Tensor, spec: PolicySpec) -> None:
        self.features = features.contiguous()
        self.patch, self.context, self.band = spec.patch, spec.receptive_patches - 1, spec.band
        self.encodes = spec.encoder == "transformer"
        self.rows = max(1, self.TOKENS // max(1, self.context + 1))
        width = features.shape[1]
        windows = (len(features) - self.patch + 1, self.patch * width)
        self.windows = self.features.as_strided(windows, (width, 1)) if self.encodes else self.features

    def market(self, bars: torch.Tensor) -> torch.Tensor:
        """Return the features ``[..., F]`` at `bars` (int64)."""
        return self.features.index_select(0, bars.flatten()).view(*bars.shape, -1)

    def line(self, bars: torch.Tensor) -> Line | None:
        """Return the decisions at `bars` (int64 ``[rows, M]``) on their lines; None without a transformer."""
        if not self.encodes:
            return None
        ends, positions = pack(bars, self.patch, self.context, self.band)
        patches = self.windows.index_select(0, (ends - (self.patch - 1)).flatten())
        return Line(patches.view(*ends.shape, -1), positions)

    @torch.no_grad()
    def contexts(
        self, context_of: Callable[[torch.Tensor, Line | None], torch.Tensor], bars: torch.Tensor
    ) -> torch.Tensor:
        """Return the contexts of decisions that are known in advance, each patch encoded once.

        Parameters
        ----------
        context_of
            :meth:`ActorCritic.policy_context` or :meth:`ActorCritic.value_context`.
        bars
            int64 ``[rows, M]``; decisions that follow each other on the tape stand in neighbouring rows.

        Returns
        -------
        torch.Tensor
            Float ``[rows, M, C]``.
        """
        return torch.cat([context_of(self.market(rows), self.line(rows)) for rows in torch.split(bars, self.rows)])
