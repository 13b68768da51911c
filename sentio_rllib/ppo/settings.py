"""Plain, typed settings of one trial, as the training core takes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.ppo.counterfactual import TargetPolicy
from sentio_rllib.seeding import Member
from sentio_rllib.trading.simulator import TradingRules
from sentio_rllib.validation.splits import Fold

Schedule = Literal["constant", "linear", "cosine", "plateau"]
Advantages = Literal["sampled", "counterfactual"]
Score = Literal["raw", "timing"]
Precision = Literal["auto", "float32", "bfloat16", "float64"]


@dataclass(frozen=True)
class PPOSettings:
    """Hyperparameters of PPO; ranges and meaning are those of the `ppo` and `risk` sections of a configuration."""

    advantages: Advantages = "counterfactual"
    target_policy: TargetPolicy = "greedy"
    learning_rate: float = 3e-3
    schedule: Schedule = "linear"
    plateau_patience: int = 2
    gamma: float = 0.99
    lambda_: float = 0.95
    clip: float = 0.2
    value_weight: float = 0.5
    entropy_weight: float = 0.3
    load_balance: float = 0.01
    max_grad_norm: float = 0.5
    environments: int = 32
    rollout_steps: int = 128
    minibatch_rows: int = 256
    epochs: int = 2
    path_group: int = 1
    sequence_length: int = 64
    huber: float = 0.1
    cvar_weight: float = 0.0
    drawdown_weight: float = 0.0
    precision: Precision = "auto"


@dataclass(frozen=True)
class TrialSettings:
    """Everything one trial needs besides the tape.

    Parameters
    ----------
    rules
        The market's rules, masks of the variant included.
    policy, ppo
        Networks and optimisation.
    folds
        Purged folds; member m trains on the segments of ``folds[members[m][1]]`` and is scored on its blocks.
    members
        (seed, fold index) of each member.
    trial_seed
        Keys the permutation of rows, which all members share.
    env_steps
        Budget in decisions of one member.
    evaluate_every
        Decisions of one member between two evaluations.
    fold_penalty
        Weight of the spread over folds in the score.
    score
        What fold scores are the Sharpe ratio of: net returns beyond cash, or what timing earned.
    phases
        Phases of the decision grid that a score is the mean of.
    grace_steps, patience, min_delta
        Convergence: see the `search` section of a configuration; `patience` 0 turns it off.
    """

    rules: TradingRules
    policy: PolicySpec
    ppo: PPOSettings
    folds: tuple[Fold, ...]
    members: tuple[Member, ...]
    trial_seed: int = 0
    env_steps: int = 500_000
    evaluate_every: int = 65_536
    fold_penalty: float = 0.5
    score: Score = "raw"
    phases: int = 1
    grace_steps: int = 131_072
    patience: int = 0
    min_delta: float = 0.0
    threads: int = 1
    gpu: float = 0.0
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def chunk(self) -> int:
        """Consecutive decisions of an environment that stay together in a minibatch."""
        return self.ppo.sequence_length if self.policy.encoder == "transformer" else 1

    @property
    def decisions_per_episode(self) -> int:
        """Decisions of a training episode that nothing cuts short."""
        return max(1, self.rules.episode_length // self.rules.decision_interval)

    @property
    def rows_per_iteration(self) -> int:
        """Decisions of one member in one training iteration."""
        return self.ppo.environments * self.ppo.rollout_steps
