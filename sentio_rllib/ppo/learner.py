"""The RLlib learner of a stack: keyed minibatches, the stacked loss, and gradients clipped per member."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from sentio_rllib.errors import NonFiniteError
from sentio_rllib.policy.actor_critic import TapeReader
from sentio_rllib.policy.rl_module import GATE, VALUES
from sentio_rllib.ppo.losses import PPOLoss, clip_gradients_per_member
from sentio_rllib.ppo.precision import autocast, resolve_precision
from sentio_rllib.ppo.settings import PPOSettings, TrialSettings
from sentio_rllib.ppo.updating import LOSS_COLUMNS, minibatch_loss, minibatch_rows

PLATEAU_FACTOR = "plateau_factor"
"""Beside the env steps among the ``timesteps`` of an update: :attr:`~sentio_rllib.ppo.convergence.Plateau.factor`."""


def learning_rate_at(settings: PPOSettings, progress: float, plateau_factor: float = 1.0) -> float:
    """Return the learning rate after a share `progress` (0 .. 1) of the budget.

    ``constant``; ``linear`` to zero; ``cosine`` half a period to zero (Loshchilov & Hutter 2017); ``plateau``
    times `plateau_factor`, which the others do not look at.
    """
    progress = min(max(progress, 0.0), 1.0)
    if settings.schedule == "linear":
        return settings.learning_rate * (1.0 - progress)
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
    return settings.learning_rate * (plateau_factor if settings.schedule == "plateau" else 1.0)


class SentioLearner(PPOTorchLearner):  # type: ignore[misc]  # RLlib ships no types
    """Updates all members of a stack at once; each learns what it would learn alone."""

    def build(self) -> None:
        """Build networks and optimiser, and open the tape that features are gathered from."""
        super().build()
        settings: TrialSettings = self.config.settings
        self.settings = settings
        self.precision = resolve_precision(settings.ppo.precision, self._device, settings.policy.hidden)
        self.stack = self.module[DEFAULT_MODULE_ID].unwrapped().stack
        dtype = next(self.stack.parameters()).dtype
        self.reader = TapeReader(self.config.tape.tensors(self._device).features.to(dtype), settings.policy)
        self._losses: list[PPOLoss] = []
        self.last_update: dict[str, float] = {}

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Adam (Kingma & Ba 2015) with epsilon 1e-5; elementwise, so members do not meet in it."""
        parameters = self.get_parameters(self._module[module_id])
        optimizer = torch.optim.Adam(parameters, lr=config.lr, eps=1e-5, fused=True)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=config.lr
        )

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Set the learning rate that the schedule gives at this many env steps, or after this many plateaus."""
        super().before_gradient_based_update(timesteps=timesteps)
        progress = timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0) / self.settings.env_steps
        self.learning_rate = learning_rate_at(self.settings.ppo, progress, timesteps.get(PLATEAU_FACTOR, 1.0))
        for optimizer in self._named_optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate
        self._losses = []

    def _create_iterator_if_necessary(
        self, *, training_data: Any, iteration: int = 0, **_: Any
    ) -> Iterator[MultiAgentBatch]:
        """Yield minibatches, see :func:`~sentio_rllib.ppo.updating.minibatch_rows`."""
        columns = training_data.batch.policy_batches[DEFAULT_MODULE_ID]
        columns = {key: value.to(self._device) for key, value in columns.items()}
        self.stack.begin_iteration(iteration, self.settings.ppo.environments)
        self.stack.train()
        for rows in minibatch_rows(self.settings, len(columns["bar"]), iteration, self._device):
            yield self._minibatch(columns, rows)

    def _minibatch(self, columns: dict[str, torch.Tensor], rows: torch.Tensor) -> MultiAgentBatch:
        taken = {key: column.index_select(0, rows) for key, column in columns.items()}
        if self.settings.policy.dropout > 0.0:
            self.stack.of_environments(rows % self.settings.ppo.environments)
        batch: dict[str, Any] = {key: taken[key] for key in LOSS_COLUMNS}
        batch[Columns.OBS] = {
            "market": self.reader.market(taken["bar"]),
            "portfolio": taken["portfolio"],
            "action_mask": taken["action_mask"],
        }
        line = self.reader.line(taken["bar"])
        if line is not None:
            batch[Columns.OBS] |= line._asdict()
        return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, env_steps=len(rows))

    def _update(self, batch: dict[str, Any], **_: Any) -> tuple[Any, Any, Any]:
        """One gradient step; passes run in the trial's precision."""
        with autocast(self.precision, self._device):
            fwd_out = self.module.forward_train(batch)
        losses = self.compute_losses(fwd_out=fwd_out, batch=batch)
        self.apply_gradients(self.postprocess_gradients(self.compute_gradients(losses)))
        return fwd_out, losses, {}

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """Return the sum of the members' losses.

        Raises
        ------
        NonFiniteError
            If a member's loss is NaN or infinite.
        """
        del module_id, config  # one module, configured by its settings
        logits, quantiles, gate = fwd_out[Columns.ACTION_DIST_INPUTS], fwd_out[VALUES], fwd_out[GATE]
        loss = minibatch_loss(self.settings, logits, quantiles, gate, batch)
        total = loss.total.detach()
        if not bool(torch.isfinite(total).all()):
            raise NonFiniteError(f"the loss of a member is not finite: {total.tolist()}")
        self._losses.append(PPOLoss(*(term.detach() for term in loss)))
        return loss.total.sum()

    def postprocess_gradients(self, gradients_dict: dict[Any, torch.Tensor]) -> dict[Any, torch.Tensor]:
        """Clip the gradient of each member to ``max_grad_norm``."""
        clip_gradients_per_member(gradients_dict.values(), self.settings.ppo.max_grad_norm)
        return gradients_dict

    def apply_gradients(self, gradients_dict: dict[Any, torch.Tensor]) -> None:
        """Step the optimiser; gradients are known to be finite here, and are the parameters' own."""
        del gradients_dict
        for optimizer in self._named_optimizers.values():
            optimizer.step()

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Log the update's mean losses and the learning rate."""
        del timesteps
        for name in PPOLoss._fields:
            mean = torch.stack([getattr(loss, name) for loss in self._losses]).mean().item()
            self.last_update[name] = mean
            key = f"{name}_loss" if name in {"policy", "value", "total"} else name
            self.metrics.log_value((DEFAULT_MODULE_ID, key), mean, window=1)
        self.metrics.log_value((DEFAULT_MODULE_ID, "learning_rate"), self.learning_rate, window=1)
