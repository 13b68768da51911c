"""SentioPPO: RLlib's PPO over a stack of members, sampled in columns and scored by purged cross-validation.

It is the Tune trainable itself. One result is one evaluation: ``evaluate_every`` env steps of training, then
every member on its validation blocks. A trial that ends by itself says why in ``stop_reason``.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TIMERS,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from sentio_rllib.errors import CheckpointError, NonFiniteError
from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.actor_critic import ActorCritic
from sentio_rllib.policy.checkpoint import load_model, save_model, verify_manifest, write_manifest
from sentio_rllib.policy.heads import gate_collapsed
from sentio_rllib.policy.rl_module import rl_module_spec
from sentio_rllib.ppo.columns import Rollout
from sentio_rllib.ppo.convergence import Convergence, Plateau
from sentio_rllib.ppo.env_runner import SentioEnvRunner, TapeHandle
from sentio_rllib.ppo.learner import PLATEAU_FACTOR, SentioLearner
from sentio_rllib.ppo.precision import compute_dtype, resolve_precision
from sentio_rllib.ppo.scoring import Scorer, Scores
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.seeding import stream_seed
from sentio_rllib.trading.environment import action_space, observation_space
from sentio_rllib.validation.evaluation import Record

FAILED_SCORE = -1e6
"""What a failed trial tells a scheduler: finite, and below every score that can be reached."""


class SentioPPOConfig(PPOConfig):  # type: ignore[misc]  # RLlib ships no types
    """RLlib's configuration object, with the settings of a trial and the tape it trades on."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SentioPPO)
        self.settings: TrialSettings | None = None
        self.tape: TapeHandle | None = None
        self.params: dict[str, Any] = {}
        self.label = ""
        self.continue_from: str | None = None
        self.environment(disable_env_checking=True)
        self.env_runners(env_runner_cls=SentioEnvRunner, num_env_runners=0, create_local_env_runner=True)
        self.learners(num_learners=0)
        self.callbacks_on_algorithm_init = None
        self.log_level = "ERROR"

    def trading(self, settings: TrialSettings, tape: TapeHandle) -> SentioPPOConfig:
        """Set what is trained and on which bars."""
        self.settings, self.tape = settings, tape
        ppo = settings.ppo
        precision = resolve_precision(ppo.precision, torch.device("cpu"), settings.policy.hidden)
        self.rl_module(rl_module_spec=rl_module_spec(settings.policy, settings.members, compute_dtype(precision)))
        spec = settings.policy
        space = observation_space(spec.variant, spec.receptive_field, spec.features)
        self.environment(observation_space=space, action_space=action_space())
        self.training(
            lr=ppo.learning_rate,
            gamma=ppo.gamma,
            lambda_=ppo.lambda_,
            clip_param=ppo.clip,
            use_kl_loss=False,
            entropy_coeff=ppo.entropy_weight,
            train_batch_size_per_learner=settings.rows_per_iteration,
            minibatch_size=min(ppo.minibatch_rows, settings.rows_per_iteration),
            num_epochs=ppo.epochs,
        )
        self.learners(
            learner_class=SentioLearner,
            num_gpus_per_learner=settings.gpu if torch.cuda.is_available() else 0,
        )
        self.reporting(min_sample_timesteps_per_iteration=settings.evaluate_every, min_time_s_per_iteration=0)
        # a thread that watches the machine would be waited for at the end of every algorithm
        self.debugging(seed=stream_seed("trial", settings.trial_seed) % 2**31, log_sys_usage=False)
        return self


class SentioPPO(PPO):  # type: ignore[misc]  # RLlib ships no types
    """PPO (Schulman et al. 2017) over a stack of members.

    Build it from a :class:`SentioPPOConfig` with ``trading(settings, tape)``, or hand it to Tune through
    :func:`ray.tune.with_parameters` with ``tape`` (a :class:`TapeHandle`) and ``settings_for``, a callable from
    a trial's parameters to its :class:`TrialSettings`; then its configuration is ``{"params": {...}}``, and
    may name a checkpoint to go on from in ``continue_from``.
    """

    @classmethod
    def get_default_config(cls) -> SentioPPOConfig:
        """Return the configuration that a trial's is built from."""
        return SentioPPOConfig(algo_class=cls)

    def setup(
        self,
        config: SentioPPOConfig,
        tape: TapeHandle | None = None,
        settings_for: Callable[[Mapping[str, Any]], TrialSettings] | None = None,
    ) -> None:
        """Build networks, runner, learner and evaluator; Tune calls this once per trial."""
        if settings_for is not None and tape is not None:
            config = config.copy(copy_frozen=False).trading(settings_for(config.params), tape)
            config.validate()
            config.freeze()
            self.config = config
        settings = config.settings
        assert settings is not None
        assert config.tape is not None
        self.settings = settings
        torch.set_num_threads(settings.threads)
        self._reseed()
        super().setup(config)
        # RLlib asks for deterministic algorithms; filling all new memory besides is a debugging aid that takes a
        # seventh of the time of small networks
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # torch's stubs lack it
        learner = self.learner_group._learner
        if self.config.num_env_runners == 0 and learner is not None:
            self.env_runner.sampler.network = learner.stack  # one process: nothing to synchronise
        runner, tape = self.env_runner, config.tape
        self.scorer: Scorer | None = None
        if all(fold.validation for fold in settings.folds):  # a champion is trained on all there is and not validated
            tensors, year = tape.tensors(runner.device), tape.get().sessions_per_year
            self.scorer = Scorer(tensors, settings, year, runner.sampler.dtype)
        self.train_iterations = 0
        self.env_steps = 0
        self.convergence = Convergence(settings.grace_steps, settings.patience, settings.min_delta)
        self.plateau = Plateau(settings.grace_steps, settings.ppo.plateau_patience, settings.min_delta)
        self.best: dict[str, Any] | None = None
        self.best_weights: dict[str, torch.Tensor] = {}
        self.scores: Scores | None = None
        if config.continue_from is not None:
            self.load_checkpoint(config.continue_from)

    def _reseed(self) -> None:
        seed = stream_seed("process", self.settings.trial_seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  # libraries below draw from the global generator
        torch.manual_seed(seed)

    def training_step(self) -> None:
        """Sample one rollout per runner, update on it, hand the new weights back."""
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            rollouts = self._sample()
        columns = {key: torch.cat([rollout.columns[key] for rollout in rollouts]) for key in rollouts[0].columns}
        decisions = len(columns["bar"])
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self.learner_group.update(
                batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, env_steps=decisions),
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps, PLATEAU_FACTOR: self.plateau.factor},
                iteration=self.train_iterations,
                minibatch_size=self.config.minibatch_size,
                num_epochs=self.config.num_epochs,
            )
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
        if self.config.num_env_runners > 0 or self.learner_group.is_remote:
            self.env_runner_group.sync_weights(from_worker_or_learner_group=self.learner_group)
        self.env_steps += decisions
        self.train_iterations += 1
        self.rollout_figures = {
            key: torch.stack([rollout.figures[key] for rollout in rollouts]).double().mean(0)
            for key in rollouts[0].figures
        }

    def _sample(self) -> list[Rollout]:
        if self.config.num_env_runners == 0:
            rollouts = [self.env_runner.sample(iteration=self.train_iterations)]
            metrics = [self.env_runner.get_metrics()]
        else:
            runners, first = self.config.num_env_runners, self.train_iterations
            pairs = self.env_runner_group.foreach_env_runner(
                lambda runner: (
                    runner.sample(iteration=first * runners + runner.worker_index - 1),
                    runner.get_metrics(),
                ),
                local_env_runner=False,
            )
            rollouts, metrics = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        self.metrics.aggregate(metrics, key=ENV_RUNNER_RESULTS)
        return rollouts

    def step(self) -> dict[str, Any]:
        """Train for ``evaluate_every`` env steps, evaluate, and report flat figures beside RLlib's own."""
        started, before = time.perf_counter(), self.env_steps
        try:
            results: dict[str, Any] = super().step()
            trained = time.perf_counter()
            figures = self.assess()
        except NonFiniteError as error:
            return self._failed(str(error))
        figures["env_steps_per_s"] = (self.env_steps - before) / (trained - started)
        figures["train_seconds"] = trained - started
        figures["evaluate_seconds"] = time.perf_counter() - trained
        results |= figures
        return results

    def assess(self) -> dict[str, Any]:
        """Evaluate the members as they stand, and return flat figures with why the trial ends by itself, if it does.

        Raises
        ------
        NonFiniteError
            If a score is NaN or infinite.
        """
        figures = self._evaluate()
        if self.settings.ppo.schedule == "plateau":
            self.plateau.update(self.env_steps, figures["cv_score"], figures["sampled_score"])
        reason = self._stop_reason(figures["cv_score"], figures["sampled_score"])
        return figures if reason is None else figures | {"done": True, "stop_reason": reason}

    def _evaluate(self) -> dict[str, Any]:
        """Score all members and keep the weights where the greedy score is the best so far."""
        self.scores = scores = self.score()
        trades = float(np.median([record.trades for record in scores.evaluation.greedy]))
        if self.best is None or scores.cv_score > self.best["cv_score"]:
            self._keep_best(scores, trades)
        figures = {key: float(value.mean()) for key, value in self.rollout_figures.items()}
        return {
            "cv_score": scores.cv_score,
            "rung_score": scores.rung_score,
            "sampled_score": scores.sampled_score,
            "train_score": scores.train_score,
            "best_cv_score": self.best["cv_score"] if self.best else scores.cv_score,
            "env_steps": self.env_steps,
            "member_steps": self.env_steps * len(self.settings.members),
            "validation_trades": trades,
            **{f"fold_{fold}_score": float(np.median(each)) for fold, each in enumerate(scores.fold_scores)},
            "reward_mean": figures["reward"],
            "entropy": figures["entropy"],
            **self._updates(),
            "trades_per_decision": figures["trades"],
            **{key: figures[key] for key in ("value_cvar", "gate_entropy", "gate_information") if key in figures},
            **self._collapsed_gates(),
            "stop_reason": None,
        }

    def _updates(self) -> dict[str, float]:
        """How far the last update moved the policy; nothing before the first, nor of a learner elsewhere."""
        learner = self.learner_group._learner
        told = {} if learner is None else learner.last_update
        return {key: told[key] for key in ("approximate_kl", "clip_fraction") if key in told}

    def _collapsed_gates(self) -> dict[str, int]:
        usage = self.rollout_figures.get("gate_usage")
        return {} if usage is None else {"gates_collapsed": int(gate_collapsed(usage).sum())}

    def _keep_best(self, scores: Scores, trades: float) -> None:
        self.best_weights = {key: value.detach().clone() for key, value in self.network().state_dict().items()}
        self.best = {
            "cv_score": scores.cv_score,
            "rung_score": scores.rung_score,
            "train_score": scores.train_score,
            "fold_scores": scores.fold_scores.tolist(),
            "env_steps": self.env_steps,
            "halvings": list(self.plateau.halvings),
            "validation_trades": trades,
            "members": [list(member) for member in self.settings.members],
            "records": [_record_json(record) for record in scores.evaluation.greedy],
            "params": dict(self.config.params),
            **{
                key: value.tolist()
                for key, value in self.rollout_figures.items()
                if key.startswith("gate") or key == "value_cvar"
            },
        }

    def score(self) -> Scores:
        """Score all members as they stand on their validation blocks; needs folds that have some."""
        assert self.scorer is not None
        return self.scorer.score(self.network())

    def network(self) -> ActorCritic:
        """Return the stack of members as it stands."""
        learner = self.learner_group._learner
        stack: ActorCritic = learner.stack if learner is not None else self.env_runner.module.stack
        return stack

    def _stop_reason(self, *scores: float) -> str | None:
        if self.env_steps >= self.settings.env_steps:
            return "budget"
        return "converged" if self.convergence.update(self.env_steps, *scores) else None

    def _failed(self, message: str) -> dict[str, Any]:
        return {
            "cv_score": FAILED_SCORE,
            "rung_score": FAILED_SCORE,
            "best_cv_score": FAILED_SCORE,
            "env_steps": self.env_steps,
            "done": True,
            "stop_reason": "nonfinite",
            "failure": message,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the state of training and the best members so far, with their SHA-256."""
        folder = Path(checkpoint_dir)
        learner = self.learner_group._learner
        if learner is None:
            raise CheckpointError("checkpoints of remote learners are not available; use num_learners=0")
        state = {
            "weights": learner.stack.state_dict(),
            "optimizers": [each.state_dict() for each in learner._named_optimizers.values()],
            "runner": self.env_runner.sampler.get_state(),
            "env_steps": self.env_steps,
            "train_iterations": self.train_iterations,
            "convergence": self.convergence.get_state(),
            "plateau": self.plateau.get_state(),
        }
        torch.save(state, folder / "training_state.pt")
        if self.best is not None:
            save_model(folder / "best", self.best_weights, self.best)
        write_manifest(folder)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        CheckpointError
            If a file is missing or altered.
        """
        folder = Path(checkpoint_dir)
        verify_manifest(folder)
        state = torch.load(folder / "training_state.pt", weights_only=True)
        learner = self.learner_group._learner
        learner.stack.load_state_dict(state["weights"])
        for optimizer, saved in zip(learner._named_optimizers.values(), state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.env_runner.sampler.set_state(state["runner"])
        self.env_steps, self.train_iterations = state["env_steps"], state["train_iterations"]
        self.convergence.set_state(state["convergence"])
        self.plateau.set_state(state["plateau"])
        self.best, self.best_weights = None, {}
        if (folder / "best").is_dir():
            self.best_weights, self.best = load_model(folder / "best")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become a fresh trial in the same process: new networks, runner, counters, metrics and seeds."""
        self.cleanup()
        config = self.get_default_config().update_from_dict(new_config)
        self.metrics = MetricsLogger(root=True, stats_cls_lookup=config.stats_cls_lookup)
        self._counters.clear()
        config.validate()
        config.freeze()
        self.config = config
        self.setup(config)
        return True


def build_algorithm(settings: TrialSettings, tape: Tape) -> SentioPPO:
    """Return an algorithm in this process, apart from Tune; needs an initialised Ray. Stop it when it is done.

    Ray's notices about its own API are kept from the terminal.
    """
    loggers = [logging.getLogger(name) for name in ("ray.rllib", "ray.tune", "ray._common.deprecation")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        algorithm: SentioPPO = SentioPPOConfig().trading(settings, TapeHandle(tape)).build_algo()
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    return algorithm


def _record_json(record: Record) -> dict[str, Any]:
    values = vars(record)
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in values.items()}
