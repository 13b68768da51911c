"""Runs a sweep: one Tune experiment per start, the study in a database, the outcome written at the end."""

from __future__ import annotations

import functools
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's newer output ignores a progress reporter
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # ours tells an interruption from an end
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import tune
from ray.tune import TuneError
from ray.tune.execution.placement_groups import PlacementGroupFactory

from sentio_rllib.errors import SentioError, SweepError, is_full
from sentio_rllib.ppo.algorithm import SentioPPO
from sentio_rllib.ppo.env_runner import TapeHandle
from sentio_rllib.sweep.account import open_account
from sentio_rllib.sweep.claim import check_fingerprint, claim_folder, hold, record
from sentio_rllib.sweep.config import SweepConfig
from sentio_rllib.sweep.context import Context
from sentio_rllib.sweep.journal import Journal
from sentio_rllib.sweep.ledger import Ledger
from sentio_rllib.sweep.memory import memory_faults_end_one_trial
from sentio_rllib.sweep.outcome import Course, write_outcome
from sentio_rllib.sweep.prepare import members_of, prepare, probe, trial_settings
from sentio_rllib.sweep.progress import SweepReporter
from sentio_rllib.sweep.searcher import HonestSearcher, build_searcher, counted_trials
from sentio_rllib.sweep.selection import Outcome
from sentio_rllib.sweep.stopping import build_scheduler
from sentio_rllib.sweep.trials import FIRST_RUN, TRIALS, checkpoint_of, next_run, read_outcomes, settle, study_url

_PROBE_SECONDS = 5.0


@contextmanager
def cluster(address: str | None) -> Iterator[str]:
    """Join a Ray, or start a local one and leave none behind; yields the dashboard's URL.

    A Ray that this process has initialised already is used, and left running.

    Raises
    ------
    SweepError
        If no Ray answers at `address`.
    """
    if ray.is_initialized():
        yield ""
        return
    address = address or os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = {"dashboard_host": "127.0.0.1", "include_dashboard": True}
    try:
        _probe(address)
        context = ray.init(
            address=address, log_to_driver=False, logging_level="ERROR", **(local if address is None else {})
        )
    except ConnectionError as error:
        raise SweepError(f"--address {address}: no Ray answers there; start one with ray start --head") from error
    try:
        yield str(context.dashboard_url or "")
    finally:
        ray.shutdown()


def _probe(address: str | None) -> None:
    """Raise ConnectionError where nothing listens at host:port; Ray itself tries for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PROBE_SECONDS).close()
    except OSError as error:
        raise ConnectionError(str(error)) from error


def check_resources(config: SweepConfig) -> None:
    """Refuse a trial that the cluster can never place; Tune would wait for ever.

    Raises
    ------
    SweepError
        One line for each resource, with what a trial asks for and what the cluster holds.
    """
    held = ray.cluster_resources()
    asked = {"cpu": config.resources.cpu, "gpu": config.resources.gpu}
    lines = [
        f"resources.{key}: a trial asks for {amount:g}, the cluster has {held.get(key.upper(), 0):g}; lower it"
        for key, amount in asked.items()
        if amount > held.get(key.upper(), 0)
    ]
    if lines:
        raise SweepError(*lines)


def run_sweep(
    config: SweepConfig, *, resume: bool = False, address: str | None = None, reopen_holdout: bool = False
) -> dict[str, Any]:
    """Run a sweep to its end and return its summary.

    Parameters
    ----------
    config
        What to run.
    resume
        Go on with a sweep that was cut off, or extend a finished one.
    address
        Of a running Ray cluster; None uses the one of `RAY_ADDRESS` or of this process, or starts a local one.
    reopen_holdout
        Open the holdout although some of its sessions were opened before; it then supports nothing any more.

    Raises
    ------
    SentioError
        If the data, the folds, the name, the ledger, a leak or the cluster do not allow it; nothing was started then.
    """
    started = time.perf_counter()
    folder = claim_folder(config, resume=resume)
    with ExitStack() as stack:
        if resume:
            stack.enter_context(hold(folder))
        prepared = prepare(config)
        if resume:
            check_fingerprint(folder, prepared)
        for note in prepared.notes:
            print(note)
        if config.evidence.probes:
            probe(config, prepared)
        interruption = stack.enter_context(Interruption())
        dashboard = stack.enter_context(cluster(address))
        interruption.listen()  # ray.init() takes the termination signal for itself
        check_resources(config)
        ledger = Ledger(config.evidence.ledger)
        if not resume:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(folder))
        uid = record(folder, config, prepared)
        if resume and not ledger.knows(uid) and next_run(folder) != FIRST_RUN:
            raise SweepError(
                f"{ledger.path}: does not know the sweep of {folder}, so what was tried and opened is lost to it; put "
                "the ledger back that the sweep was started with, or start a new sweep"
            )
        account = open_account(ledger, uid, config.name, len(members_of(config, prepared.splits)), prepared)
        if dashboard:
            print(f"dashboard: http://{dashboard} (token: ray get-auth-token)")
        sweep = Context(folder, config, prepared, account)
        outcomes, course = _search(sweep, interruption, started)
        return write_outcome(sweep, outcomes, course, reopen=reopen_holdout, go_on=lambda: not interruption.seen)


def _search(sweep: Context, interruption: Interruption, started: float) -> tuple[list[Outcome], Course]:
    """Run what is left of the trials and read back what came of all."""
    config, folder = sweep.config, sweep.folder
    searcher = build_searcher(config, study_url(folder), _Checkpoints(folder))
    settle(folder, searcher)
    orphans = searcher.reconcile()
    if orphans:
        print(f"{len(orphans)} trials were cut off; they go on from their last checkpoints")
    steps_before = sum(outcome.env_steps for outcome in read_outcomes(folder, config))
    if searcher.remaining() > 0:
        _tune(sweep, searcher, interruption)
    settle(folder, searcher)
    searcher.reconcile("interrupted" if interruption.seen else "time budget")
    remaining = searcher.remaining()
    course = Course(time.perf_counter() - started, steps_before, remaining, interruption.seen and remaining > 0)
    return read_outcomes(folder, config), course


class _Checkpoints:
    """From a label to its last intact checkpoint, as the searcher asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, label: str) -> str | None:
        path, note = checkpoint_of(self.folder, label)
        if note:
            print(f"{label}: {note}; goes on from {path or 'the start'}")
        return None if path is None else str(path.resolve())


def _tune(sweep: Context, searcher: HonestSearcher, interruption: Interruption) -> None:
    """Run Tune until trials, time or the user end it."""
    folder, config, prepared = sweep.folder, sweep.config, sweep.prepared
    search = config.search
    todo, run = searcher.remaining(), next_run(folder)
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
            name=run,
            storage_path=str((folder / TRIALS).resolve()),
            stop=interruption,
            callbacks=[Journal((folder / TRIALS / run).resolve(), sweep.account)],
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=2, checkpoint_at_end=False
            ),  # the journal asks for each
            failure_config=tune.FailureConfig(max_failures=1),
            progress_reporter=reporter,
            verbose=1,
        ),
    )
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


class Interruption(tune.Stopper):  # type: ignore[misc]  # Ray ships no types
    """Takes the first Ctrl-C or termination signal as a request to end; a second one kills.

    Parameters
    ----------
    told
        What is printed at the first.
    """

    def __init__(self, told: str = "ending: trials are stopped, what was reached is written") -> None:
        self.seen = False
        self.told = told
        self._original: dict[int, Any] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial ends by itself for this reason; all do."""
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        """Whether the user wants an end."""
        return self.seen

    def listen(self) -> None:
        """Take over the signals, where they have not been asked to end already; only the main thread can."""
        if self.seen or threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.signal(number, self._ask)
            self._original.setdefault(number, handler)

    def __enter__(self) -> Interruption:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._original.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        self.seen = True
        print(self.told, flush=True)
        self.__exit__()

    def __getstate__(self) -> dict[str, Any]:
        """Handlers stay with this process."""
        return {"seen": self.seen, "told": self.told, "_original": {}}
