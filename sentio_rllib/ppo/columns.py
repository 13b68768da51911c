"""What rollouts are made of, and what they yield."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch


@dataclass
class Rollout:
    """What one rollout yields: columns of ``T * environments`` rows, and figures per member.

    Attributes
    ----------
    columns
        ``bar`` int64 [rows, M]; ``portfolio`` [rows, M, 6]; ``action_mask`` bool [rows, M, 3];
        ``actions`` int64 [rows, M]; ``value_targets`` [rows, M]; ``log_prob`` and ``advantages`` of the
        action that was taken [rows, M], or counterfactual of all [rows, M, 3].
    figures
        ``[M]`` each: ``reward`` (mean, 1 is the target pace), ``log_return`` (per decision), ``trades`` (per
        decision), ``invalid`` and ``entropy`` (means), ``drawdown_stops`` and ``episodes`` that ended (counts); with a
        quantile critic ``value_cvar`` (mean of the predicted 5% conditional value at risk of the discounted reward);
        with a gated head those of :func:`~sentio_rllib.policy.heads.gate_figures`.
    """

    columns: dict[str, torch.Tensor]
    figures: dict[str, torch.Tensor]


class Finals(NamedTuple):
    """What ended episodes saw last: int64[c] cells of ``[T, kept, environments, M]``, bars, portfolios ``[c, 6]``."""

    cells: torch.Tensor
    bars: torch.Tensor
    portfolios: torch.Tensor
