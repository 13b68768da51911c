"""How fast a configuration trains on this machine, and budgets with which arms train for the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from sentio_rllib.ppo.algorithm import build_algorithm
from sentio_rllib.sweep.config import SweepConfig
from sentio_rllib.sweep.prepare import Prepared, trial_settings


@dataclass(frozen=True)
class Pace:
    """How long the parts of a trial take.

    Attributes
    ----------
    rate
        Training env steps per second.
    evaluation
        Seconds of an evaluation.
    """

    rate: float
    evaluation: float

    def seconds(self, config: SweepConfig) -> float:
        """Return how long a full trial of `config` takes."""
        search = config.search
        return search.env_steps / self.rate + -(-search.env_steps // search.evaluate_every) * self.evaluation


def measure(prepared: Prepared, config: SweepConfig, params: Mapping[str, Any], *, iterations: int = 1) -> Pace:
    """Train with `params` for some iterations, after one that warms up, and evaluate once.

    Parameters
    ----------
    prepared, config, params
        Bars and folds, the sweep, and the parameters of a trial of it.
    iterations
        Timed iterations; the fastest counts, since whatever else runs on the machine only slows one down.
    """
    settings = trial_settings(config, prepared.splits, params)
    with local_ray():
        algorithm = build_algorithm(settings, prepared.tape)
        try:
            algorithm.training_step()
            fastest = min(_seconds_of(algorithm.training_step) for _ in range(iterations))
            evaluation = _seconds_of(algorithm.score)
        finally:
            algorithm.stop()
    return Pace(settings.rows_per_iteration / fastest, evaluation)


def _seconds_of(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@contextmanager
def local_ray() -> Iterator[None]:
    """Have a Ray of this process alone where there is none; an algorithm is not built without."""
    if ray.is_initialized():
        yield
        return
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def budgets_of_equal_time(config: SweepConfig, rates: Mapping[str, float]) -> dict[str, int]:
    """Return the env steps that each arm trains, so that all train as long as the baseline does.

    Parameters
    ----------
    config
        With arms, of which the first is the baseline; it trains for `search.env_steps`.
    rates
        Env steps per second of each arm, > 0.

    Returns
    -------
    dict
        Whole evaluations of at least one, as trials end at evaluations only: half a one more or less than the
        baseline's time.
    """
    arms = config.arms()
    baseline = next(iter(arms))
    between = {name: _between_evaluations(arm) for name, arm in arms.items()}
    seconds = -(-config.search.env_steps // between[baseline]) * between[baseline] / rates[baseline]
    return {name: max(1, round(seconds * rates[name] / each)) * each for name, each in between.items()}


def _between_evaluations(config: SweepConfig) -> int:
    """Return the env steps from one evaluation to the next: whole iterations, `search.evaluate_every` or more."""
    rows = config.ppo.environments * config.ppo.rollout_steps
    return -(-config.search.evaluate_every // rows) * rows
