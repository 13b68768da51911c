"""The variants as RLlib modules.

One class serves two callers. RLlib as it comes passes an environment's observations ``[rows, ...]`` to a
stack of one member; a window of bars is a line of its own. Sentio's own learner passes columns
``[rows, M, ...]`` with the lines of all decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from sentio_rllib.policy.actor_critic import ActorCritic
from sentio_rllib.policy.encoders import Line
from sentio_rllib.policy.variants import PolicySpec
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
        columns = self._columns(batch[Columns.OBS])
        context = self.stack.policy_context(columns.market, columns.line)
        output = self.stack.policy(context, columns.portfolio, columns.action_mask)
        return {Columns.ACTION_DIST_INPUTS: output.logits if columns.stacked else output.logits.squeeze(1)}

    def _forward_train(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        columns = self._columns(batch[Columns.OBS])
        output, quantiles = self.stack.both(columns.market, columns.line, columns.portfolio, columns.action_mask)
        if not columns.stacked:
            return {Columns.ACTION_DIST_INPUTS: output.logits.squeeze(1), Columns.EMBEDDINGS: quantiles.mean(-1)}
        return {Columns.ACTION_DIST_INPUTS: output.logits, VALUES: quantiles, GATE: output.gate}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Return values ``[rows]`` (``[rows, M]`` for columns) in units of reward."""
        columns = self._columns(batch[Columns.OBS])
        values: torch.Tensor | None = embeddings
        if values is None:
            values = self.stack.value(self.stack.value_context(columns.market, columns.line), columns.portfolio)
        return values if columns.stacked else values.squeeze(1)

    def _columns(self, observation: torch.Tensor | dict[str, torch.Tensor]) -> _Columns:
        """Return observations with a member dimension, and whether they came with one."""
        if isinstance(observation, dict) and "market" in observation:
            market, portfolio, mask = (observation[key] for key in ("market", "portfolio", "action_mask"))
            if portfolio.ndim == 3:
                line = Line(observation["patches"], observation["positions"]) if "patches" in observation else None
                return _Columns(market, line, portfolio, mask.bool(), stacked=True)
            line = self._window_line(market)
            market = market[:, -1]  # the newest bar of the window
        else:
            line = None
            if isinstance(observation, dict):
                mask, flat = observation["action_mask"], observation["observations"]
            else:
                mask, flat = observation.new_ones(len(observation), 3), observation
            market, portfolio = flat.tensor_split([self.stack.spec.market_features], 1)
        return _Columns(market.unsqueeze(1), line, portfolio.unsqueeze(1), mask.bool().unsqueeze(1), stacked=False)

    def _window_line(self, windows: torch.Tensor) -> Line | None:
        """Return windows ``[rows, bars, F]`` behind one another on one line; None without a transformer."""
        spec = self.stack.spec
        if spec.encoder == "mlp":
            return None
        rows, patches = len(windows), spec.receptive_patches
        line = windows.reshape(1, rows * patches, -1)
        ends = torch.arange(patches - 1, rows * patches, patches, device=windows.device)
        return Line(line, ends.unsqueeze(0))


class _Columns(NamedTuple):
    market: torch.Tensor
    line: Line | None
    portfolio: torch.Tensor
    action_mask: torch.Tensor
    stacked: bool


def rl_module_spec(
    spec: PolicySpec, members: Sequence[Member] = ((0, 0),), dtype: torch.dtype = torch.float32
) -> RLModuleSpec:
    """Return the RLModuleSpec of a variant.

    Parameters
    ----------
    spec
        Shape and variant. With a transformer the environment shows ``receptive_field=spec.receptive_field`` bars.
    members
        One (seed, fold) pair for use with RLlib as it comes; M pairs under :class:`SentioPPO`.
    dtype
        Of the weights.
    """
    return RLModuleSpec(
        module_class=SentioRLModule,
        observation_space=observation_space(spec.variant, spec.receptive_field, spec.features),
        action_space=action_space(),
        model_config={"spec": spec, "members": [tuple(member) for member in members], "dtype": dtype},
    )
