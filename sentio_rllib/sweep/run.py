"""Runs a sweep: one Tune experiment per start, the study in a database, the outcome written at the end."""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's newer output ignores a progress reporter
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # ours tells an interruption from an end
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory

from sentio_rllib import __version__
from sentio_rllib.errors import SweepError
from sentio_rllib.market.features import FEATURE_VERSION, feature_hash
from sentio_rllib.ppo.algorithm import SentioPPO
from sentio_rllib.ppo.env_runner import TapeHandle
from sentio_rllib.sweep.config import SweepConfig, load_config
from sentio_rllib.sweep.outcome import write_json, write_outcome
from sentio_rllib.sweep.prepare import Prepared, prepare, trial_settings
from sentio_rllib.sweep.progress import SweepReporter
from sentio_rllib.sweep.searcher import HonestSearcher, build_searcher, counted_trials
from sentio_rllib.sweep.stopping import build_scheduler
from sentio_rllib.sweep.trials import TRIALS, checkpoint_of, next_run, read_outcomes, study_url

CONFIG = "config.yaml"
FINGERPRINT = "fingerprint.json"
EXTENDABLE = ("search.trials", "search.minutes", "search.max_concurrent", "resources.cpu", "resources.gpu")
"""Keys that may differ when a sweep is resumed."""


def sweep_folder(config: SweepConfig) -> Path:
    """Return the folder of a sweep."""
    return Path(config.storage_path) / config.name


def claim_folder(config: SweepConfig, *, resume: bool) -> Path:
    """Return the sweep's folder, made or checked to be the one to resume.

    Raises
    ------
    SweepError
        If the name is used and `resume` is off, there is nothing to resume, or keys have changed.
    """
    folder = sweep_folder(config)
    used = (folder / CONFIG).is_file()
    if used and not resume:
        raise SweepError(f"{folder}: the name is used; pass --resume to go on with it, or another --name")
    if resume and not used:
        raise SweepError(f"{folder}: there is no sweep to resume; start it without --resume")
    if used:
        before = load_config(folder / CONFIG)
        changed = [key for key in config.changed_keys(before) if key not in EXTENDABLE]
        if changed:
            raise SweepError(
                *(
                    f"{key}: was {before.value(key)!r} when the sweep was started, is {config.value(key)!r}; put it "
                    "back or choose another --name"
                    for key in changed
                )
            )
    return folder


def fingerprint(prepared: Prepared) -> dict[str, Any]:
    """Return what must be the same for a sweep to be resumed, the configuration aside."""
    return {
        "data": prepared.bars.fingerprint,
        "code": __version__,
        "features": f"{FEATURE_VERSION}:{feature_hash()}",
    }


def check_fingerprint(folder: Path, now: dict[str, Any]) -> None:
    """Refuse to resume on other bars, code or features than the sweep was started with."""
    path = folder / FINGERPRINT
    before = json.loads(path.read_text()) if path.is_file() else {}
    changed = [key for key in now if key in before and before[key] != now[key]]
    if changed:
        raise SweepError(
            *(
                f"{key}: changed since the sweep was started ({str(before[key])[:24]} then, {str(now[key])[:24]} "
                "now); put it back or choose another --name"
                for key in changed
            )
        )


@contextmanager
def cluster(address: str | None) -> Iterator[str]:
    """Start a local Ray, or join one, and leave none behind; yields the dashboard's URL."""
    context = ray.init(
        address=address,
        **({"dashboard_host": "127.0.0.1", "include_dashboard": True} if address is None else {}),
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        yield str(context.dashboard_url or "")
    finally:
        ray.shutdown()


def run_sweep(config: SweepConfig, *, resume: bool = False, address: str | None = None) -> dict[str, Any]:
    """Run a sweep to its end and return its summary.

    Parameters
    ----------
    config
        What to run.
    resume
        Go on with a sweep that was cut off, or extend a finished one.
    address
        Of a running Ray cluster; None starts a local one.

    Raises
    ------
    SentioError
        If the data, the folds or the name do not allow it; nothing was started then.
    """
    folder = claim_folder(config, resume=resume)
    prepared = prepare(config)
    now = fingerprint(prepared)
    if resume:
        check_fingerprint(folder, now)
    for note in prepared.notes:
        print(note)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FINGERPRINT, now)
    (folder / CONFIG).write_text(config.to_yaml())
    searcher = build_searcher(config, study_url(folder), _Checkpoints(folder))
    orphans = searcher.reconcile() if resume else []
    if orphans:
        print(f"{len(orphans)} trials were cut off; they go on from their last checkpoints")
    started = time.perf_counter()
    with cluster(address) as dashboard:
        if dashboard:
            print(f"dashboard: http://{dashboard} (token: ray get-auth-token)")
        interrupted = _tune(config, folder, prepared, searcher)
    searcher.reconcile("interrupted" if interrupted else "time budget")
    return write_outcome(
        folder,
        config,
        prepared,
        read_outcomes(folder, config),
        seconds=time.perf_counter() - started,
        interrupted=interrupted,
    )


class _Checkpoints:
    """From a label to its last intact checkpoint, as the searcher asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, label: str) -> str | None:
        path, note = checkpoint_of(self.folder, label)
        if note:
            print(f"{label}: {note}; goes on from {path or 'the start'}")
        return None if path is None else str(path.resolve())


def _tune(config: SweepConfig, folder: Path, prepared: Prepared, searcher: HonestSearcher) -> bool:
    """Run Tune until trials, time or the user end it; True where it was the user."""
    search = config.search
    todo = searcher.remaining()
    if todo == 0:
        return False
    trainable = tune.with_parameters(
        SentioPPO,
        tape=TapeHandle(ray.put(prepared.tape)),
        settings_for=functools.partial(trial_settings, config, prepared.splits),
    )
    resources = PlacementGroupFactory([{"CPU": config.resources.cpu, "GPU": config.resources.gpu}])
    reporter = SweepReporter(todo, search.env_steps, search.minutes)
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=build_scheduler(config, counted_trials(searcher.study)),
            num_samples=todo,
            max_concurrent_trials=search.max_concurrent,
            time_budget_s=None if search.minutes is None else search.minutes * 60,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=next_run(folder),
            storage_path=str((folder / TRIALS).resolve()),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=2),
            failure_config=tune.FailureConfig(max_failures=1),
            progress_reporter=reporter,
            verbose=1,
        ),
    )
    interruption = _Interruption()
    with interruption:
        tuner.fit()
    return interruption.seen


def _trial_name(trial: Any) -> str:
    return str(trial.config["label"])


class _Interruption:
    """Hands the first Ctrl-C or termination signal to Tune as a request to end; a second one kills."""

    def __init__(self) -> None:
        self.seen = False
        self._original: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._original[number] = signal.signal(number, self._ask)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._original.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        self.seen = True
        print("ending: trials are stopped, what was reached is written", flush=True)
        self.__exit__()
        os.kill(os.getpid(), signal.SIGUSR1)  # the signal by which Tune ends a run in good order
