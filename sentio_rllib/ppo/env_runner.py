"""The RLlib env runner that samples columns, and the handle by which a process reaches the tape."""

from __future__ import annotations

from typing import Any

import ray
import torch
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED, NUM_ENV_STEPS_SAMPLED_LIFETIME

from sentio_rllib.market.tape import Tape, TapeTensors
from sentio_rllib.policy.rl_module import SentioRLModule, rl_module_spec
from sentio_rllib.ppo.columns import Rollout
from sentio_rllib.ppo.precision import compute_dtype, resolve_precision
from sentio_rllib.ppo.rollout import RolloutSampler
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.trading.environment import action_space, observation_space

_TENSORS: dict[tuple[str, str], TapeTensors] = {}
"""Tensors of the tapes this process has opened, by fingerprint and device; zero-copy views on a CPU."""


class TapeHandle:
    """Reaches one tape from any process: an object-store reference, or the tape itself within one process.

    Copies and pickles carry the reference only.
    """

    def __init__(self, source: Tape | ray.ObjectRef) -> None:
        self.source = source

    def get(self) -> Tape:
        """Return the tape; its arrays are read-only views into the object store where they came from it."""
        tape: Tape = self.source if isinstance(self.source, Tape) else ray.get(self.source)
        return tape

    def tensors(self, device: torch.device) -> TapeTensors:
        """Return the tape's tensors on `device`, built once per process."""
        tape = self.get()
        key = (tape.fingerprint, str(device))
        if key not in _TENSORS:
            _TENSORS.clear()
            _TENSORS[key] = tape.tensors(str(device))
        return _TENSORS[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> TapeHandle:
        """A configuration is copied often; the tape never is."""
        return self


class SentioEnvRunner(EnvRunner, Checkpointable):  # type: ignore[misc]  # RLlib ships no types
    """Samples columns from the batched simulator with a copy of the learner's networks."""

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        settings: TrialSettings = self.config.settings
        on_gpu = settings.gpu > 0 and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_gpu else "cpu")
        self.tape = self.config.tape.tensors(self.device)
        self.iteration = 0
        self.make_module()
        self.sampler = RolloutSampler(self.tape, settings, self.module.stack)

    def make_env(self) -> None:
        """The simulator is built by the sampler; there is no gymnasium environment to make."""

    def make_module(self) -> None:
        """Build this runner's copy of the networks."""
        settings: TrialSettings = self.config.settings
        precision = resolve_precision(settings.ppo.precision, self.device, settings.policy.hidden)
        spec = rl_module_spec(settings.policy, settings.members, compute_dtype(precision))
        self.module: SentioRLModule = spec.build()
        self.module.to(self.device)

    def sample(self, *, iteration: int | None = None, **_: Any) -> Rollout:
        """Return one rollout; `iteration` keys its draws."""
        self.iteration = self.iteration if iteration is None else iteration
        rollout = self.sampler.sample(self.iteration)
        self.iteration += 1
        steps = self.config.settings.rows_per_iteration
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED, steps, reduce="sum")
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED_LIFETIME, steps, reduce="lifetime_sum", with_throughput=True)
        return rollout

    def get_metrics(self) -> Any:
        """Return what was logged since the last call."""
        return self.metrics.reduce()

    def get_spaces(self) -> dict[str, Any]:
        """Return the observation and action spaces of the variant."""
        spec = self.config.settings.policy
        spaces = (observation_space(spec.variant, spec.receptive_field, spec.features), action_space())
        return {INPUT_ENV_SPACES: spaces, DEFAULT_MODULE_ID: spaces}

    def assert_healthy(self) -> None:
        """Raise if the runner was not built to the end."""
        assert self.sampler is not None

    def get_state(self, components: Any = None, *, not_components: Any = None, **_: Any) -> dict[str, Any]:
        """Return weights (unless excluded) and the sampler's state."""
        state: dict[str, Any] = {"sampler": self.sampler.get_state(), "iteration": self.iteration}
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            state[COMPONENT_RL_MODULE] = {DEFAULT_MODULE_ID: self.module.get_state()}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over weights and, where given, the sampler's state."""
        if COMPONENT_RL_MODULE in state:
            modules = state[COMPONENT_RL_MODULE]
            modules = ray.get(modules) if isinstance(modules, ray.ObjectRef) else modules
            self.module.set_state(modules[DEFAULT_MODULE_ID])
        if "sampler" in state:
            self.sampler.set_state(state["sampler"])
            self.iteration = int(state["iteration"])

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what rebuilds this runner."""
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """The networks are stored by the learner."""
        return []

    def stop(self) -> None:
        """Nothing is held open."""
