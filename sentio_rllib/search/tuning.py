"""Runs what is left of a sweep's trials: one Tune experiment per start, the study in a database."""

from __future__ import annotations

import functools
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import TuneError
from ray.tune.execution.placement_groups import PlacementGroupFactory

from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import SentioError, SweepError, is_full
from sentio_rllib.ppo.algorithm import SentioPPO
from sentio_rllib.ppo.env_runner import TapeHandle
from sentio_rllib.search.interruption import Interruption
from sentio_rllib.search.journal import Count, Journal
from sentio_rllib.search.memory import memory_faults_end_one_trial
from sentio_rllib.search.prepare import Prepared, trial_settings
from sentio_rllib.search.progress import SweepReporter
from sentio_rllib.search.searcher import HonestSearcher, build_searcher, counted_trials
from sentio_rllib.search.selection import Outcome
from sentio_rllib.search.stopping import build_scheduler
from sentio_rllib.search.trials import TRIALS, checkpoint_of, next_run, read_outcomes, settle, study_url


@dataclass(frozen=True)
class SearchCourse:
    """How this run of a search went.

    Attributes
    ----------
    seconds
        Wall time since the command began.
    steps_before
        Env steps that earlier runs of the sweep have made.
    remaining
        Trials that were asked for and have not ended.
    interrupted
        Whether the user ended it.
    """

    seconds: float
    steps_before: int
    remaining: int
    interrupted: bool


@dataclass(frozen=True)
class Searched:
    """What came of a search.

    Attributes
    ----------
    outcomes
        One per trial, in the order of their labels.
    course
        How this run of it went.
    """

    outcomes: list[Outcome]
    course: SearchCourse


def search(
    folder: Path, config: SweepConfig, prepared: Prepared, *, count: Count, interruption: Interruption, started: float
) -> Searched:
    """Run what is left of the trials and read back what came of all.

    Parameters
    ----------
    folder, config, prepared
        Of the sweep.
    count
        Told of each trial's evaluations as they are reported.
    interruption
        Whether the user has asked for an end.
    started
        When the command began, by ``time.perf_counter``.

    Raises
    ------
    SweepError
        If the study or the ledger cannot be written.
    """
    searcher = build_searcher(config, study_url(folder), _Checkpoints(folder))
    settle(folder, searcher)
    orphans = searcher.reconcile()
    if orphans:
        print(f"{len(orphans)} trials were cut off; they go on from their last checkpoints")
    steps_before = sum(outcome.env_steps for outcome in read_outcomes(folder, config))
    if searcher.remaining() > 0:
        _tune(_tuner(folder, config, prepared, searcher, count=count, interruption=interruption))
    settle(folder, searcher)
    searcher.reconcile("interrupted" if interruption.seen else "time budget")
    remaining = searcher.remaining()
    seconds = time.perf_counter() - started
    course = SearchCourse(seconds, steps_before, remaining, interruption.seen and remaining > 0)
    return Searched(read_outcomes(folder, config), course)


class _Checkpoints:
    """From a label to its last intact checkpoint, as the searcher asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, label: str) -> str | None:
        path, note = checkpoint_of(self.folder, label)
        if note:
            print(f"{label}: {note}; goes on from {path or 'the start'}")
        return None if path is None else str(path.resolve())


def _tuner(
    folder: Path,
    config: SweepConfig,
    prepared: Prepared,
    searcher: HonestSearcher,
    *,
    count: Count,
    interruption: Interruption,
) -> tune.Tuner:
    """Return the Tune experiment of this start."""
    limits, todo, run = config.search, searcher.remaining(), next_run(folder)
    trainable = tune.with_parameters(
        SentioPPO,
        tape=TapeHandle(ray.put(prepared.tape)),
        settings_for=functools.partial(trial_settings, config, prepared.splits),
    )
    resources = PlacementGroupFactory([{"CPU": config.resources.cpu, "GPU": config.resources.gpu}])
    return tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=build_scheduler(config, counted_trials(searcher.study)),
            num_samples=todo,
            max_concurrent_trials=limits.max_concurrent,
            time_budget_s=None if limits.minutes is None else limits.minutes * 60,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=run,
            storage_path=str((folder / TRIALS).resolve()),
            stop=interruption,
            callbacks=[Journal((folder / TRIALS / run).resolve(), count)],
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=2, checkpoint_at_end=False
            ),  # the journal asks for each
            failure_config=tune.FailureConfig(max_failures=1),
            progress_reporter=SweepReporter(todo, limits.env_steps, limits.minutes),
            verbose=1,
        ),
    )


def _tune(tuner: tune.Tuner) -> None:
    """Run Tune until trials, time or the user end it."""
    try:
        with memory_faults_end_one_trial():
            tuner.fit()
    except TuneError as error:  # what a callback raises comes wrapped, as it does from a full disk
        raise _reason_of(error) from error


def _reason_of(error: BaseException) -> BaseException:
    """Return what made Tune fail, where that is the user's to mend; else the error itself."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SentioError) or is_full(cause):
            return cause
        if isinstance(cause, sqlite3.OperationalError):  # the ledger's come as a SentioError
            return SweepError(f"the study cannot be written ({cause}); mend that, then go on with --resume")
        cause = cause.__cause__ or cause.__context__
    return error


def _trial_name(trial: Any) -> str:
    return str(trial.config["label"])
