"""Stacked layers: M independent networks of one shape, evaluated together.

Every parameter has a leading member dimension M and a linear layer is one ``baddbmm``. Members share
nothing: the gradient of one does not depend on another, and each is initialised from its own stream.
Activations inside a stack are laid out ``[M, rows, features]``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from sentio_rllib.seeding import Member, stream

Stack = TypeVar("Stack", bound=nn.Module)

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}


class StackedLinear(nn.Module):
    """M linear maps side by side, orthogonally initialised member by member.

    Parameters
    ----------
    members
        (seed, fold) of each of the M networks; a member's initial weights depend on these and `name` only.
    in_features, out_features
        Widths, the same for all members.
    gain
        Factor of the orthogonal initialisation (Saxe et al. 2014).
    name
        Names the layer's stream of initial weights; unique within a network.
    """

    def __init__(
        self, members: Sequence[Member], in_features: int, out_features: int, *, gain: float, name: str
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(len(members), in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(len(members), 1, out_features))
        with torch.no_grad():
            for index, (seed, fold) in enumerate(members):
                matrix = torch.empty(out_features, in_features)
                nn.init.orthogonal_(matrix, gain, generator=stream("init", seed, fold, name))
                self.weight[index].copy_(matrix.T)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map float ``[M, rows, in]`` to ``[M, rows, out]``."""
        return torch.baddbmm(self.bias, inputs, self.weight)


class StackedDropout(nn.Module):
    """Dropout whose masks stay the same over an iteration, so that rollouts and updates know one policy.

    Masks that are drawn anew in each pass would let the ratio of new to old probabilities differ from 1 before anything
    was learned (Hausknecht and Wagener, Consistent dropout for policy gradient reinforcement learning, 2022). There is
    one for each environment, from one stream per member, so that stacking changes no member's masks; where rows are
    not told apart by environments, as the tokens of a line, all have the first.
    """

    def __init__(self, members: Sequence[Member], probability: float, *, name: str) -> None:
        super().__init__()
        self.members = list(members)
        self.probability = probability
        self.name = name
        self.begin_iteration(0)

    def begin_iteration(self, iteration: int, environments: int = 1) -> None:
        """Draw the masks of training iteration `iteration`, the same in every process."""
        self.iteration, self.environments = iteration, environments
        self.rows: torch.Tensor | None = None
        self._masks: torch.Tensor | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Zero a share of float ``[M, rows, features]`` in training mode and scale up the rest."""
        if not self.training:
            return inputs
        if self._masks is None:
            self._masks = self._drawn(inputs.shape[-1]).to(inputs)
        if self.rows is None:
            return inputs * self._masks[:, :1]
        return inputs * self._masks.index_select(1, self.rows)

    def _drawn(self, features: int) -> torch.Tensor:
        """Masks ``[M, environments, features]``: 0, or what scales the rest up."""
        generators = [stream("dropout", seed, fold, self.name, self.iteration) for seed, fold in self.members]
        draws = torch.stack([torch.rand(self.environments, features, generator=each) for each in generators])
        return (draws >= self.probability) / (1.0 - self.probability)


class StackedMLP(nn.Module):
    """M multilayer perceptrons of one shape.

    Parameters
    ----------
    members, in_features, name
        As in :class:`StackedLinear`.
    hidden
        Widths of the hidden layers; the last is the width of the embedding.
    activation
        A key of :data:`ACTIVATIONS`.
    dropout
        Share of activations zeroed after each hidden layer in training; 0 turns it off.
    """

    def __init__(
        self,
        members: Sequence[Member],
        in_features: int,
        hidden: Sequence[int],
        *,
        activation: str,
        dropout: float,
        name: str,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = in_features
        for depth, size in enumerate(hidden):
            layers += [
                StackedLinear(members, width, size, gain=math.sqrt(2.0), name=f"{name}.{depth}"),
                ACTIVATIONS[activation](),
            ]
            if dropout > 0.0:
                layers.append(StackedDropout(members, dropout, name=f"{name}.{depth}"))
            width = size
        self.layers = nn.Sequential(*layers)
        self.out_features = width

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map float ``[M, rows, in]`` to the embedding ``[M, rows, hidden[-1]]``."""
        embedding: torch.Tensor = self.layers(inputs)
        return embedding


def side_by_side(first: Stack, second: Stack) -> Stack:
    """Return one stack of the members of two of the same shape, a copy to be evaluated and not to be trained.

    Parameters
    ----------
    first, second
        Modules whose parameters all have a leading member dimension, M and N; the result has M + N.
    """
    both = copy.deepcopy(first)
    for name, parameter in both.named_parameters():
        parameter.data = torch.cat([parameter.data, second.get_parameter(name).data])
    return both
