"""Schedulers and convergence: who is stopped, at which env steps, and that a failed trial moves nobody."""

from __future__ import annotations

import math
from typing import Any

import pytest
from optuna.trial import create_trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from sentio_rllib.config.loading import build_config
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.search.stopping import Convergence, build_scheduler

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


class FakeTrial:
    """What a scheduler reads of a Tune trial."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def configured(scheduler: str, **search: Any) -> SweepConfig:
    limits = {"env_steps": 9000, "evaluate_every": 500, "grace_steps": 1000}
    ppo = {"rollout_steps": 32}
    return build_config({"ppo": ppo, "search": {"scheduler": scheduler, **limits, **search}})


def result(step: int, score: float, reason: str | None = None) -> dict[str, Any]:
    return {"env_steps": step, "rung_score": score, "cv_score": 0.0, "stop_reason": reason}


def run(scheduler: Any, trial_id: str, scores: list[float], every: int = 500, reason: str = "budget") -> int:
    """Report scores, with the last one `reason`; return the step at which the scheduler stopped it, or 0."""
    trial = FakeTrial(trial_id)
    scheduler.on_trial_add(None, trial)
    for index, score in enumerate(scores, start=1):
        last = index == len(scores)
        report = result(index * every, score, reason if last else None)
        if last or scheduler.on_trial_result(None, trial, report) == STOP:
            scheduler.on_trial_complete(None, trial, report)
            return 0 if last else index * every
    raise AssertionError("no scores")


def test_asha_stops_the_weak_at_their_first_rung_after_the_grace_period() -> None:
    scheduler = build_scheduler(configured("asha"))
    assert isinstance(scheduler, AsyncHyperBandScheduler)
    assert run(scheduler, "good", [1.0] * 18) == 0
    assert run(scheduler, "bad", [-1.0] * 18) == 1000
    assert run(scheduler, "better", [2.0] * 18) == 0


def test_asha_compares_at_equal_env_steps() -> None:
    scheduler = build_scheduler(configured("asha"))
    assert run(scheduler, "climbs", [float(step) for step in range(18)]) == 0
    assert run(scheduler, "fades", [5.0] * 3 + [0.0] * 15) == 3000


def test_no_scheduler_stops_a_trial_at_its_budget() -> None:
    """Its last result comes late by up to an evaluation and a batch, and still bears its own reason."""
    for name in ("asha", "median", "none"):
        scheduler = build_scheduler(configured(name))
        trial = FakeTrial("long")
        scheduler.on_trial_add(None, trial)
        steps = range(500, 9000 + 500 + 32 * 32 + 1, 500)
        assert {scheduler.on_trial_result(None, trial, result(step, 1.0)) for step in steps} == {CONTINUE}


@pytest.mark.parametrize("name", ["asha", "median"])
def test_a_failed_trial_does_not_move_the_others(name: str) -> None:
    def stops(*, with_failures: bool) -> list[int]:
        scheduler = build_scheduler(configured(name, reduction_factor=2))
        stopped = []
        for index, score in enumerate([0.5, 0.6, 0.7, 0.1, 0.9, 0.2]):
            if with_failures:
                run(scheduler, f"failed{index}", [-1e6], every=1000, reason="nonfinite")
            stopped.append(run(scheduler, f"t{index}", [score] * 18))
        return stopped

    assert stops(with_failures=True) == stops(with_failures=False)
    assert any(stops(with_failures=False))


def test_a_failed_trial_ends_at_once() -> None:
    scheduler = build_scheduler(configured("asha"))
    trial = FakeTrial("failed")
    scheduler.on_trial_add(None, trial)
    assert scheduler.on_trial_result(None, trial, result(500, -1e6, "nonfinite")) == STOP


def test_the_median_rule_needs_company_and_never_pauses() -> None:
    scheduler = build_scheduler(configured("median"))
    assert isinstance(scheduler, MedianStoppingRule)
    for index in range(3):
        assert run(scheduler, f"good{index}", [1.0] * 18) == 0
    assert run(scheduler, "bad", [0.0] * 18) == 1000
    assert run(scheduler, "good", [1.0] * 18) == 0


def test_no_scheduler_is_first_in_first_out() -> None:
    assert type(build_scheduler(configured("none"))) is FIFOScheduler


@pytest.mark.parametrize("name", ["asha", "median"])
def test_earlier_trials_count_as_if_the_sweep_had_never_been_broken(name: str) -> None:
    config = configured(name)
    unbroken = build_scheduler(config)
    curves = [[0.5] * 18, [0.6] * 18, [0.7] * 18]
    for index, curve in enumerate(curves):
        run(unbroken, f"t{index}", curve)
    history = [
        create_trial(
            value=1.0,
            user_attrs={"label": f"trial_{index:04d}"},
            intermediate_values={500 * step: score for step, score in enumerate(curve, start=1)},
        )
        for index, curve in enumerate(curves)
    ]
    resumed = build_scheduler(config, history)
    for index, score in enumerate([0.55, 0.1, 0.65, 0.9]):
        assert run(resumed, f"n{index}", [score] * 18) == run(unbroken, f"n{index}", [score] * 18)


def test_max_t_covers_the_largest_batch_of_the_search_space() -> None:
    config = configured("asha", space={"ppo.rollout_steps": {"choice": [32, 4096]}})
    assert build_scheduler(config)._max_t > 9000 + 500 + 32 * 4096


def test_convergence_waits_for_patience_after_the_grace_period() -> None:
    convergence = Convergence(grace_steps=1000, patience=2, min_delta=0.1)
    verdicts = [
        convergence.update(step, score)
        for step, score in [(500, 0.0), (900, 0.0), (1000, 0.05), (1500, 0.2), (2000, 0.25), (2500, 0.3)]
    ]
    assert verdicts == [False, False, False, False, False, True]


def test_convergence_is_off_without_patience_and_not_fooled_by_nan() -> None:
    never = Convergence(grace_steps=0, patience=0, min_delta=0.0)
    assert not any(never.update(step, 0.0) for step in range(50))
    once = Convergence(grace_steps=0, patience=2, min_delta=0.0)
    assert [once.update(step, math.nan) for step in (1, 2)] == [False, True]


def test_convergence_goes_on_from_its_state() -> None:
    first, second = (Convergence(grace_steps=0, patience=2, min_delta=0.0) for _ in range(2))
    first.update(1, 1.0)
    first.update(2, 0.5)
    second.set_state(first.get_state())
    assert second.update(3, 1.0)
