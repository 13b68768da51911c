"""The variants as RLlib modules.

One class serves two callers. RLlib as it comes passes an environment's observations ``[rows, ...]`` to a
stack of one member. Sentio's own learner passes columns ``[rows, M, ...]``, told apart by the key ``bar``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from sentio_rllib.policy.variants import N_MARKET, VARIANTS, ActorCritic, PolicySpec
from sentio_rllib.seeding import Member
from sentio_rllib.trading.environment import action_space, observation_space

VALUES = "values"
GATE = "gate"


class SentioRLModule(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc]  # RLlib ships no types
    """A stacked actor-critic behind RLlib's module interface.

    ``model_config`` holds ``spec`` (:class:`PolicySpec`), ``members`` ((seed, fold) pairs) and ``dtype``.
    """

    framework = "torch"

    def setup(self) -> None:
        """Build the networks; RLlib calls this once."""
        self.stack = ActorCritic(self.model_config["spec"], self.model_config["members"])
        self.stack.to(self.model_config.get("dtype", torch.float32))

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        market, portfolio, mask, stacked = _inputs(batch[Columns.OBS])
        output = self.stack.policy(market, portfolio, mask)
        return {Columns.ACTION_DIST_INPUTS: output.logits if stacked else output.logits.squeeze(1)}

    def _forward_train(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        market, portfolio, mask, stacked = _inputs(batch[Columns.OBS])
        output, values = self.stack.both(market, portfolio, mask)
        if not stacked:
            return {Columns.ACTION_DIST_INPUTS: output.logits.squeeze(1), Columns.EMBEDDINGS: values}
        return {Columns.ACTION_DIST_INPUTS: output.logits, VALUES: values, GATE: output.gate}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Return values ``[rows]`` (``[rows, M]`` for columns) in units of reward."""
        market, portfolio, _, stacked = _inputs(batch[Columns.OBS])
        values = embeddings if embeddings is not None else self.stack.value(market, portfolio)
        return values if stacked else values.squeeze(1)


def _inputs(
    observation: torch.Tensor | dict[str, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]:
    """Return market, portfolio, mask with a member dimension, and whether they came with one."""
    if isinstance(observation, dict) and "market" in observation:
        market, portfolio, mask = (observation[key] for key in ("market", "portfolio", "action_mask"))
        if portfolio.ndim == 3:
            return market, portfolio, mask.bool(), True
        market = market[:, -1]  # the newest bar of the window
    else:
        if isinstance(observation, dict):
            mask, flat = observation["action_mask"], observation["observations"]
        else:
            mask, flat = observation.new_ones(len(observation), 3), observation
        market, portfolio = flat[:, :N_MARKET], flat[:, N_MARKET:]
    return market.unsqueeze(1), portfolio.unsqueeze(1), mask.bool().unsqueeze(1), False


def rl_module_spec(
    spec: PolicySpec, members: Sequence[Member] = ((0, 0),), dtype: torch.dtype = torch.float32
) -> RLModuleSpec:
    """Return the RLModuleSpec of a variant.

    Parameters
    ----------
    spec
        Shape and variant; ``spec.variant`` names a row of :data:`~sentio_rllib.policy.variants.VARIANTS`.
    members
        One (seed, fold) pair for use with RLlib as it comes; M pairs under :class:`SentioPPO`.
    dtype
        Of the weights.
    """
    if spec.variant not in VARIANTS:
        raise ValueError(f"unknown variant {spec.variant!r}; choose one of {', '.join(VARIANTS)}")
    return RLModuleSpec(
        module_class=SentioRLModule,
        observation_space=observation_space(spec.variant),
        action_space=action_space(),
        model_config={"spec": spec, "members": [tuple(member) for member in members], "dtype": dtype},
    )
