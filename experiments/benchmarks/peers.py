"""The peer: sb3-contrib's MaskablePPO on the same simulator, with the same settings and episode starts.

It is given its best: one environment that steps all accounts together, rather than one per account.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import markets
import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.heads import mask_logits
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.ppo.starts import StartSampler
from sentio_rllib.seeding import stream
from sentio_rllib.trading.environment import action_space, observation_space
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.trading.simulator import Simulator
from sentio_rllib.validation.evaluation import Decide
from sentio_rllib.validation.splits import Range


class StableBaselinesVecEnv(VecEnv):
    """n accounts stepped together; an account that is done starts its next episode within the step.

    Episodes start and end as in Sentio's own rollouts: uniformly in the training segments, the first ones cut
    at random lengths so that ends do not coincide.

    Parameters
    ----------
    tape
        Holds every segment.
    rules
        Of the market.
    segments
        Training segments of the member.
    n
        Number of accounts.
    seed
        Keys the starts.
    """

    def __init__(self, tape: Tape, rules: TradingRules, segments: Sequence[Range], n: int, seed: int) -> None:
        self.render_mode = None
        super().__init__(n, observation_space("standard"), action_space())
        self.features = np.asarray(tape.features, dtype=np.float32)
        self.simulator = Simulator(tape.tensors(), rules, n, horizon=None)
        self.starts = StartSampler([segments], rules.episode_length, rules.decision_interval)
        self.generator = stream("peer", seed)
        self.stop = torch.zeros(n, dtype=torch.int64)
        self.actions = torch.zeros(n, dtype=torch.int64)

    def _uniform(self) -> torch.Tensor:
        return torch.rand(self.num_envs, 1, generator=self.generator, dtype=torch.float64)

    def _observations(self) -> NDArray[np.float32]:
        seen = self.simulator.observe()
        return np.concatenate((self.features[seen.bar.numpy()], seen.portfolio.numpy()), 1)

    def reset(self) -> NDArray[np.float32]:
        """Start every account anew."""
        starts = self.starts.starts(self._uniform())
        decisions = 1 + (self._uniform() * self.starts.decisions).long()
        self.stop = self.starts.stops(starts, decisions).flatten()
        self.simulator.reset(torch.ones(self.num_envs, dtype=torch.bool), starts.flatten(), self.stop)
        return self._observations()

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Take the actions that the next :meth:`step_wait` executes."""
        self.actions = torch.from_numpy(np.asarray(actions, dtype=np.int64))

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Make one decision per account; what a finished episode last saw is in its ``terminal_observation``."""
        result = self.simulator.step(self.actions)
        done = result.terminated | result.truncated
        observations = self._observations()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if bool(done.any()):
            for row in done.nonzero().flatten().tolist():
                truncated = not bool(result.terminated[row])
                infos[row] = {"terminal_observation": observations[row], "TimeLimit.truncated": truncated}
            starts = self.starts.starts(self._uniform()).flatten()
            self.stop = torch.where(done, self.starts.stops(starts), self.stop)
            self.simulator.reset(done, starts, self.stop)
            observations = self._observations()
        return observations, result.reward.numpy(), done.numpy(), infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Return bool[n, 3], the masks of the present observations."""
        mask: NDArray[np.bool_] = self.simulator.observe().mask.numpy()
        return mask

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of this class that returns a row per account."""
        rows = getattr(self, method_name)(*method_args, **method_kwargs)
        return [rows[index] for index in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute once per account."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute, which all accounts share."""
        del indices
        setattr(self, attr_name, value)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return False for every account."""
        del wrapper_class
        return [False for _ in self._get_indices(indices)]

    def close(self) -> None:
        """Nothing is held open."""


def maskable_ppo(found: markets.Market, settings: TrialSettings) -> MaskablePPO:
    """Return the peer of the one member of `settings`: same networks, initialisation, optimiser and rewards.

    Rewards are divided by the running deviation of discounted returns, by SB3's own VecNormalize.
    """
    ((seed, fold),) = settings.members
    ppo = settings.ppo
    env = StableBaselinesVecEnv(found.tape, settings.rules, settings.folds[fold].train, ppo.environments, seed)
    return MaskablePPO(
        "MlpPolicy",
        VecNormalize(env, norm_obs=False, norm_reward=True, clip_reward=np.inf, gamma=ppo.gamma),
        learning_rate=ppo.learning_rate,
        n_steps=ppo.rollout_steps,
        batch_size=ppo.minibatch_rows,
        n_epochs=ppo.epochs,
        gamma=ppo.gamma,
        gae_lambda=ppo.lambda_,
        clip_range=ppo.clip,
        ent_coef=ppo.entropy_weight,
        vf_coef=ppo.value_weight,
        max_grad_norm=ppo.max_grad_norm,
        policy_kwargs={
            "net_arch": {"pi": list(settings.policy.hidden), "vf": list(settings.policy.hidden)},
            "activation_fn": torch.nn.Tanh,
        },
        seed=seed,
        device="cpu",
    )


def peer_policy(model: MaskablePPO, tape: Tape) -> Decide:
    """Return the peer as a policy that :class:`BlockEvaluator` can walk its blocks with."""
    features = tape.tensors().features.float()
    policy = model.policy

    def decide(bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        observation = torch.cat([features[bar], portfolio], -1)
        logits: torch.Tensor = policy.action_net(policy.mlp_extractor.forward_actor(observation))
        return mask_logits(logits, mask)

    return decide
