"""Which trials end before their budget: schedulers on `rung_score` in env steps.

A trial that stops getting better ends itself (:class:`sentio_rllib.ppo.convergence.Convergence`). What a
scheduler stops carries no `stop_reason`, which is how the searcher tells the two apart; hence a scheduler's
`max_t` lies above the budget, so that a trial that reaches it ends by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.ppo.convergence import Convergence
from sentio_rllib.search.searcher import LABEL

__all__ = ["Convergence", "build_scheduler"]

_MEDIAN_OF = 3


class _FailedTrialsAside:
    """A failed trial's score stands for nothing, so it must not move the rungs of the others."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Decide on a result; a failed trial ends."""
        if result.get("stop_reason") == "nonfinite":
            return str(TrialScheduler.STOP)
        decision: str = super().on_trial_result(tune_controller, trial, result)  # type: ignore[misc]
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        """Take in the last result, unless the trial failed."""
        if result.get("stop_reason") != "nonfinite":
            super().on_trial_complete(tune_controller, trial, result)  # type: ignore[misc]


class Asha(_FailedTrialsAside, AsyncHyperBandScheduler):  # type: ignore[misc]  # Ray ships no types
    """Asynchronous successive halving (Li et al. 2018)."""


class Median(_FailedTrialsAside, MedianStoppingRule):  # type: ignore[misc]  # Ray ships no types
    """The median stopping rule (Golovin et al. 2017)."""


@dataclass(frozen=True)
class _EarlierTrial:
    """What a scheduler reads of a trial that an earlier start of the sweep ran."""

    trial_id: str


def build_scheduler(config: SweepConfig, history: Sequence[FrozenTrial] = ()) -> TrialScheduler:
    """Return the scheduler that `search.scheduler` names.

    Parameters
    ----------
    config
        Of the sweep.
    history
        Trials of earlier starts of the sweep; their rungs count as if the sweep had never been broken.
    """
    scheduler = _new_scheduler(config)
    for told in history:
        trial = _EarlierTrial(told.user_attrs.get(LABEL, f"number {told.number}"))
        for env_steps, rung_score in sorted(told.intermediate_values.items()):
            if isinstance(scheduler, Asha):
                scheduler._brackets[0].on_result(trial, env_steps, rung_score)
            elif isinstance(scheduler, Median):
                scheduler._results[trial].append({"env_steps": env_steps, "rung_score": rung_score})
    return scheduler


def _new_scheduler(config: SweepConfig) -> TrialScheduler:
    search = config.search
    common = {
        "time_attr": "env_steps",
        "metric": "rung_score",
        "mode": "max",
        "grace_period": search.grace_steps,
    }
    if search.scheduler == "asha":
        batch = int(config.largest("ppo.environments") * config.largest("ppo.rollout_steps"))
        budget = int(config.largest("search.env_steps"))
        last = budget + search.evaluate_every + batch  # no trial reports later than this
        return Asha(max_t=2 * last, reduction_factor=search.reduction_factor, **common)
    if search.scheduler == "median":
        # infinite time slice: no trial pauses to let others catch up, which would cost a checkpoint
        return Median(min_samples_required=_MEDIAN_OF, min_time_slice=math.inf, **common)
    return FIFOScheduler()
