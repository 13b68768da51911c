"""A causal banded transformer over the tape: each bar is read once, not once per decision.

The market does not answer back, so what a decision sees depends on its bar alone. A token is a *patch*: the
bars of one decision interval that end at a decision. Decisions that follow each other on the tape share their
tokens: they are laid out on one *line*, each run of them behind the patches it may look back on, and attention
banded to `band` tokens runs over the line. L layers read ``L * (band - 1) + 1`` patches; what a line holds
before a run is exactly that, so a decision's embedding is that of its isolated receptive field, whatever
shares the line with it.

A line of 1,024 decisions holds 1,320 tokens (band 16, one layer) where its runs are of 256 decisions
(`ppo.sequence_length`), and 1,500 where they are of 64. Norms have no weights: each is followed by a linear map that
can hold them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from sentio_rllib.policy.layers import StackedDropout, StackedLinear
from sentio_rllib.seeding import Member

GATE_BIAS = 2.0  # Parisotto et al. 2020, section 3.2: a gate that starts near the identity
_FEEDFORWARD = 2  # width of the feed-forward layer over that of the model


class Line(NamedTuple):
    """Tokens of all members on one line each, and where the decisions stand on it.

    Attributes
    ----------
    patches
        Float ``[M, tokens, patch * features]``.
    positions
        int64 ``[M, rows]``, ascending: the token of each decision.
    """

    patches: torch.Tensor
    positions: torch.Tensor


def pack(bars: torch.Tensor, interval: int, context: int, multiple: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay decisions out on a line per member, each run of them behind its `context` patches.

    Parameters
    ----------
    bars
        int64 ``[rows, M]``, bars of the decisions; rows that follow each other on the tape share tokens.
    interval
        Bars of a patch, and between two decisions.
    context
        Patches before its own that a decision reads.
    multiple
        Lines are filled up to a multiple of so many tokens.

    Returns
    -------
    tuple
        int64 ``[M, tokens]``, last bar of each token's patch, and int64 ``[M, rows]``, the decisions' tokens.
        Lines shorter than the longest end in copies of their last token.
    """
    by_member = bars.T.contiguous()
    ahead = by_member.diff()
    patches_on = torch.div(ahead, interval, rounding_mode="floor")
    follows = (ahead >= 0) & (patches_on * interval == ahead) & (patches_on <= context)
    advance = torch.where(follows, patches_on, context + 1)
    positions = F.pad(advance, (1, 0), value=context).cumsum(1)
    tokens = -(-(int(positions[:, -1].max()) + 1) // multiple) * multiple
    place = torch.arange(tokens, device=bars.device).expand(len(positions), tokens).contiguous()
    row = torch.searchsorted(positions, place).clamp_(max=positions.shape[1] - 1)
    behind = (positions.gather(1, row) - place).clamp_(min=0)
    return by_member.gather(1, row) - behind * interval, positions


class BandedAttention(nn.Module):
    """Causal multi-head attention to the last `band` tokens, with a learned weight for each distance.

    Queries go in blocks of `band`; each block attends to itself and the block before, which hold every
    token in reach. Cost is linear in the length of the line.
    """

    def __init__(self, members: Sequence[Member], d_model: int, heads: int, band: int, *, name: str) -> None:
        super().__init__()
        self.heads, self.band, self.scale = heads, band, 1.0 / math.sqrt(d_model // heads)
        self.inputs = StackedLinear(members, d_model, 3 * d_model, gain=1.0, name=f"{name}.qkv")
        self.outputs = StackedLinear(members, d_model, d_model, gain=1.0, name=f"{name}.out")
        self.distance = nn.Parameter(torch.zeros(len(members), heads, band))
        query, key = torch.arange(band, 2 * band).unsqueeze(1), torch.arange(2 * band)
        reach = query - key
        self.register_buffer("reach", reach.clamp(0, band - 1), persistent=False)
        self.register_buffer("outside", (reach < 0) | (reach >= band), persistent=False)
        self.reach: torch.Tensor
        self.outside: torch.Tensor

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """Map float ``[M, tokens, d]`` to the same, or to ``[M, rows, d]`` where `positions` chooses tokens."""
        members, length, width = tokens.shape
        blocks = -(-length // self.band)
        packed = self.inputs(tokens)
        if length % self.band:
            packed = F.pad(packed, (0, 0, 0, blocks * self.band - length))
        query, key, value = (each.view(members, self.heads, blocks, self.band, -1) for each in self.by_head(packed))
        scores = torch.matmul(query * self.scale, _with_previous(key).transpose(-1, -2))
        bias = self.distance[:, :, self.reach].masked_fill(self.outside, float("-inf"))
        weights = torch.softmax(scores + bias.unsqueeze(2), -1)
        mixed = torch.matmul(weights.to(value.dtype), _with_previous(value))
        flat = mixed.permute(0, 2, 3, 1, 4).reshape(members, blocks * self.band, width)
        mapped: torch.Tensor = self.outputs(flat[:, :length] if positions is None else at_positions(flat, positions))
        return mapped

    def by_head(self, packed: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return queries, keys and values, views ``[M, heads, tokens, d / heads]`` of ``[M, tokens, 3 * d]``."""
        split = packed.view(*packed.shape[:2], 3, self.heads, -1)
        return split.permute(2, 0, 3, 1, 4).unbind()


def _with_previous(blocks: torch.Tensor) -> torch.Tensor:
    """Return each block behind the one before it, ``[..., blocks, 2 * band, d]``; the first behind zeros."""
    previous = F.pad(blocks[..., :-1, :, :], (0, 0, 0, 0, 1, 0))
    return torch.cat([previous, blocks], -2)


def at_positions(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the chosen tokens ``[M, rows, d]`` of ``[M, tokens, d]``."""
    return tokens.gather(1, positions.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


class GatedResidual(nn.Module):
    """A GRU-like gate in place of a residual sum, biased to the identity.

    Notes
    -----
    Parisotto et al. 2020 (GTrXL), equations 5 to 8.
    """

    def __init__(self, members: Sequence[Member], d_model: int, *, name: str) -> None:
        super().__init__()
        self.of_update = StackedLinear(members, d_model, 3 * d_model, gain=1.0, name=f"{name}.update")
        self.of_stream = StackedLinear(members, d_model, 2 * d_model, gain=1.0, name=f"{name}.stream")
        self.of_reset = StackedLinear(members, d_model, d_model, gain=1.0, name=f"{name}.reset")

    def forward(self, stream: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
        """Join float ``[M, tokens, d]`` of the residual stream and of a layer's output."""
        reset, keep, candidate = self.of_update(update).chunk(3, -1)
        reset_stream, keep_stream = self.of_stream(stream).chunk(2, -1)
        reset = torch.sigmoid(reset + reset_stream)
        gate = torch.sigmoid(keep + keep_stream - GATE_BIAS)
        proposed = torch.tanh(candidate + self.of_reset(reset * stream))
        return (1.0 - gate) * stream + gate * proposed


class _Sum(nn.Module):
    def forward(self, stream: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
        return stream + update


class TransformerLayer(nn.Module):
    """Pre-LN attention and feed-forward; norms carry no weights, since a linear map follows each."""

    def __init__(
        self,
        members: Sequence[Member],
        d_model: int,
        heads: int,
        band: int,
        *,
        dropout: float,
        gated: bool,
        name: str,
    ) -> None:
        super().__init__()
        self.attention = BandedAttention(members, d_model, heads, band, name=f"{name}.attention")
        wide = _FEEDFORWARD * d_model
        self.widen = StackedLinear(members, d_model, wide, gain=math.sqrt(2.0), name=f"{name}.widen")
        self.narrow = StackedLinear(members, wide, d_model, gain=1.0, name=f"{name}.narrow")
        self.joins = nn.ModuleList(
            GatedResidual(members, d_model, name=f"{name}.join.{index}") if gated else _Sum() for index in range(2)
        )
        self.dropouts = nn.ModuleList(
            StackedDropout(members, dropout, name=f"{name}.{index}") if dropout > 0.0 else nn.Identity()
            for index in range(2)
        )

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """Map float ``[M, tokens, d]`` to the same, or to ``[M, rows, d]`` where `positions` chooses tokens."""
        attended = self.attention(norm(tokens), positions)
        return self.after_attention(tokens if positions is None else at_positions(tokens, positions), attended)

    def after_attention(self, stream: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """Join `stream` and what attention made of it, and go through the feed-forward layer, ``[M, rows, d]`` each."""
        stream = self.joins[0](stream, self.dropouts[0](attended))
        update = self.narrow(F.gelu(self.widen(norm(stream))))
        joined: torch.Tensor = self.joins[1](stream, self.dropouts[1](update))
        return joined


def norm(tokens: torch.Tensor) -> torch.Tensor:
    """Return tokens ``[..., d]`` with mean 0 and variance 1 each."""
    return F.layer_norm(tokens, tokens.shape[-1:])


class TapeTransformer(nn.Module):
    """M encoders of one shape, from lines of patches to the embeddings of their decisions.

    Parameters
    ----------
    members
        (seed, fold) of each of the M encoders.
    features
        Width of a patch: its bars times their features.
    d_model, heads, layers, band
        Width, attention heads (divide it), layers, and tokens that each layer attends to.
    dropout
        Share of each layer's output dropped in training.
    gated
        Join residuals by :class:`GatedResidual` instead of a sum.
    neck
        Numbers between -1 and 1 that are handed on, all 0 at first, so that networks begin as those without an
        encoder; 0: all of the last layer's, normalised.
    name
        Names the streams of initial weights.
    """

    def __init__(
        self,
        members: Sequence[Member],
        features: int,
        *,
        d_model: int,
        heads: int,
        layers: int,
        band: int,
        dropout: float,
        gated: bool,
        neck: int,
        name: str,
    ) -> None:
        super().__init__()
        self.project = StackedLinear(members, features, d_model, gain=1.0, name=f"{name}.patch")
        self.layers = nn.ModuleList(
            TransformerLayer(members, d_model, heads, band, dropout=dropout, gated=gated, name=f"{name}.{index}")
            for index in range(layers)
        )
        self.neck = StackedLinear(members, d_model, neck, gain=0.0, name=f"{name}.neck") if neck else None
        self.out_features = neck or d_model

    def forward(self, line: Line) -> torch.Tensor:
        """Return the decisions' embeddings, float ``[M, rows, d]``."""
        tokens = self.project(line.patches)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens, line.positions if index == last else None)
        return self.embedding(tokens)

    def embedding(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return what is handed on of the last layer's tokens, float ``[M, rows, d]``."""
        return norm(tokens) if self.neck is None else torch.tanh(self.neck(norm(tokens)))
