"""A decision as a function of plain tensors, for live code, and the same as an ONNX file.

`DecisionModel` takes the window of features that a decision reads, the portfolio and the mask, and gives the mean of
its members' distributions. The isolated window gives what the encoded tape gives, so nothing of a line survives into
deployment. One row costs calls rather than arithmetic, so policies and critics go as one stack.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from sentio_rllib.policy.actor_critic import N_PORTFOLIO, ActorCritic
from sentio_rllib.policy.encoders import Line
from sentio_rllib.policy.heads import N_ACTIONS, full_precision
from sentio_rllib.policy.layers import Stack, side_by_side

INPUTS = ("market", "portfolio", "action_mask")
OPSET = 20


class DecisionOutput(NamedTuple):
    """What the members together say of a decision, each figure the mean over members.

    Attributes
    ----------
    probabilities
        Float ``[batch, 3]`` in the order Hold, Buy, Sell; 0 where masked.
    value
        Float ``[batch]``, in units of normalised reward.
    quantiles
        Float ``[batch, Q]``, of the return, in the same units; None for a critic without quantiles.
    regime_weights
        Float ``[batch, R]``, of the experts; None for a head without a gate.
    logits
        Float ``[batch, 3]``, log of `probabilities`, finite where those are 0.
    """

    probabilities: torch.Tensor
    value: torch.Tensor
    quantiles: torch.Tensor | None
    regime_weights: torch.Tensor | None
    logits: torch.Tensor


class DecisionModel(nn.Module):
    """The members of `network` as one policy that reads a window of bars for each decision.

    Policy and critic have the same shape up to their heads, so they are evaluated as one stack of K networks: the M
    policies and then the M critics, or M alone where the two share.

    Parameters
    ----------
    network
        M networks, whose weights are copied. Their mean decides as
        :func:`sentio_rllib.policy.deciding.ensemble_policy` does.
    """

    def __init__(self, network: ActorCritic) -> None:
        super().__init__()
        self.spec, self.dtype, self.members = network.spec, network.dtype, len(network.members)
        self.bars, self.patches = self.spec.receptive_field, self.spec.receptive_patches
        # windows share a line, whose length is then a multiple of the band whatever the batch; what stands
        # before a window's own patches lies outside of its receptive field
        self.tokens = self.spec.layers * self.spec.band if self.patches else 0
        own = network.policy_encoder
        self.encoder = None if own is None else _with_critic(own, network.value_encoder)
        self.trunk = _with_critic(network.policy_trunk, network.value_trunk)
        self.stacked = self.members if network.value_trunk is None else 2 * self.members
        self.policy_head, self.value_head = copy.deepcopy((network.policy_head, network.value_head))
        self.register_buffer("regime_columns", torch.tensor(network.regime_columns), persistent=False)
        self.regime_columns: torch.Tensor
        self.requires_grad_(False).eval()

    def forward(self, market: torch.Tensor, portfolio: torch.Tensor, action_mask: torch.Tensor) -> DecisionOutput:
        """Decide.

        Parameters
        ----------
        market
            Float ``[batch, bars, F]``, the market features of the `bars` bars that end with the decision's.
        portfolio
            Float ``[batch, 6]``.
        action_mask
            Bool ``[batch, 3]``, True where the action is allowed; Hold always is.

        Raises
        ------
        ValueError
            If the market is of another shape.
        """
        return self.decide(self.contexts(market), portfolio, action_mask)

    def contexts(self, market: torch.Tensor) -> torch.Tensor:
        """Return what a decision sees of `market`, as in :meth:`forward`; known before the portfolio is.

        Float ``[K, batch, C]``: the features of the decision's bar and, with a transformer, its embedding.
        """
        features = self.spec.market_features
        if tuple(market.shape[1:]) != (self.bars, features):
            raise ValueError(f"market: shape {tuple(market.shape)}; pass [batch, {self.bars}, {features}]")
        embedding = None if self.encoder is None else self.encoder(self._line(market))
        return self.joined(market[:, -1], embedding)

    def joined(self, now: torch.Tensor, embedding: torch.Tensor | None) -> torch.Tensor:
        """Return the contexts of bars with features `now` ``[batch, F]`` and embeddings ``[K, batch, d]``."""
        now = now.expand(self.stacked, -1, -1)
        return now if embedding is None else torch.cat([now, full_precision(embedding)], -1)

    def decide(self, contexts: torch.Tensor, portfolio: torch.Tensor, action_mask: torch.Tensor) -> DecisionOutput:
        """Decide on `contexts` of :meth:`contexts`; the rest as in :meth:`forward`."""
        members = self.members
        inputs = torch.cat([contexts, portfolio.expand(self.stacked, -1, -1)], -1)
        embedding = self.trunk(inputs)
        regime = inputs[:members].index_select(-1, self.regime_columns)
        logits, gate = self.policy_head(embedding[:members], regime, action_mask.expand(members, -1, -1))
        quantiles = full_precision(self.value_head(embedding[-members:])).mean(0)
        probabilities = torch.softmax(logits, -1).mean(0)
        return DecisionOutput(
            probabilities,
            quantiles.mean(-1),
            quantiles if self.spec.critic == "quantile" else None,
            None if gate is None else gate.mean(0),
            torch.log(probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny)),
        )

    def _line(self, market: torch.Tensor) -> Line:
        """Lay the windows out one behind the other, the same for each network."""
        batch = market.shape[0]
        windows = market.reshape(batch, self.patches, -1)
        padded = F.pad(windows, (0, 0, self.tokens - self.patches, 0))
        patches = padded.reshape(1, batch * self.tokens, -1).expand(self.stacked, -1, -1)
        positions = torch.arange(batch, device=market.device) * self.tokens + (self.tokens - 1)
        return Line(patches, positions.unsqueeze(0).expand(self.stacked, -1))


def _with_critic(policy: Stack, critic: Stack | None) -> Stack:
    """Return a policy's part as a copy, with the critic's part behind it where that has its own."""
    return copy.deepcopy(policy) if critic is None else side_by_side(policy, critic)


class _Present(nn.Module):
    """A :class:`DecisionModel` without the outputs that it does not have, and without the logits."""

    def __init__(self, model: DecisionModel) -> None:
        super().__init__()
        self.model = model
        spec = model.spec
        has = {"quantiles": spec.critic == "quantile", "regime_weights": spec.head == "gated"}
        self.names = [name for name in DecisionOutput._fields[:-1] if has.get(name, True)]
        self.eval()

    def forward(self, market: torch.Tensor, portfolio: torch.Tensor, action_mask: torch.Tensor) -> Any:
        output = self.model(market, portfolio, action_mask)
        return tuple(getattr(output, name) for name in self.names)


def export_onnx(model: DecisionModel, path: Path) -> None:
    """Write `model` as an ONNX file; the same weights make the same bytes.

    Inputs are ``market`` float32 ``[batch, bars, F]``, ``portfolio`` float32 ``[batch, 6]`` and ``action_mask`` bool
    ``[batch, 3]``, outputs ``probabilities``, ``value`` and, where the networks have them, ``quantiles`` and
    ``regime_weights``, as in :class:`DecisionOutput`; `batch` is 1 or more.

    Parameters
    ----------
    model
        With float32 weights.
    path
        Of the file.
    """
    import onnx  # noqa: PLC0415  # heavy, and live decisions need none of it

    flat = _Present(model)
    example = (
        torch.zeros(2, model.bars, model.spec.market_features),
        torch.zeros(2, N_PORTFOLIO),
        torch.ones(2, N_ACTIONS, dtype=torch.bool),
    )
    batch = torch.export.Dim("batch", min=1)
    with _quiet():
        program = torch.onnx.export(
            flat,
            example,
            input_names=INPUTS,
            output_names=flat.names,
            opset_version=OPSET,
            dynamic_shapes=tuple({0: batch} for _ in INPUTS),
            verbose=False,
        )
    assert program is not None  # torch returns None from its older exporter only
    graph = program.model_proto
    _strip(graph)
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString(deterministic=True))


def _strip(message: Any) -> None:
    """Clear what tells of the machine that exported, source lines and traces, from a message and all within."""
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in [value] if hasattr(value, "DESCRIPTOR") else value:
                _strip(each)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own affairs from the terminal; its errors are raised."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it tells that torchvision is not installed
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)  # torch calls its own
            warnings.filterwarnings("ignore", message=".*axis name: batch", category=UserWarning)  # one for all inputs
            yield
    finally:
        logger.setLevel(level)
