"""How fast a configuration trains on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.ppo.algorithm import build_algorithm
from sentio_rllib.search.cluster import local_ray
from sentio_rllib.search.prepare import Prepared, trial_settings


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
