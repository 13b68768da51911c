"""Where trials lie on disk and in the study, and how they are read back as outcomes.

Each start of a sweep runs its trials in a folder of its own, ``trials/run_000``, ``trials/run_001``, ...; a trial
keeps its label over all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from optuna.trial import FrozenTrial, TrialState

from sentio_rllib.config.space import decode_params
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.search.durable import EVALUATIONS, FAULTS, read_rows
from sentio_rllib.search.searcher import LABEL, REASON, HonestSearcher, open_study
from sentio_rllib.search.selection import Outcome, last_checkpoint, read_best, read_curve

TRIALS = "trials"
STUDY = "study.db"

_STATES = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def study_url(folder: Path) -> str:
    """Return the URL of a sweep's study."""
    return f"sqlite:///{(folder / STUDY).resolve()}"


FIRST_RUN = "run_000"


def next_run(folder: Path) -> str:
    """Return the name of the next run's folder below ``trials/``."""
    return f"run_{len(list((folder / TRIALS).glob('run_*'))):03d}"


def trial_folders(folder: Path, label: str) -> list[Path]:
    """Return the folders of a trial, the newest run first."""
    return sorted((folder / TRIALS).glob(f"run_*/{label}"), reverse=True)


def checkpoint_of(folder: Path, label: str) -> tuple[Path | None, str]:
    """Return a trial's newest intact checkpoint over all runs, and what was wrong with newer ones."""
    notes = []
    for path in trial_folders(folder, label):
        checkpoint, note = last_checkpoint(path)
        if note:
            notes.append(note)
        if checkpoint is not None:
            return checkpoint, "; ".join(notes)
    return None, "; ".join(notes)


def curve_of(folder: Path, label: str) -> list[dict[str, Any]]:
    """Return the evaluations of a trial over all runs; where two have the same step the newer run's counts."""
    rows: dict[int, dict[str, Any]] = {}
    for path in reversed(trial_folders(folder, label)):
        rows |= {int(result["env_steps"]): result for result in read_curve(path)}
    return [rows[step] for step in sorted(rows)]


def last_row(folder: Path, label: str) -> dict[str, Any] | None:
    """Return what a trial reported last, over all runs; None where it never did."""
    rows = (read_rows(path / EVALUATIONS) for path in trial_folders(folder, label))
    return next((reported[-1] for reported in rows if reported), None)


def settle(folder: Path, searcher: HonestSearcher) -> None:
    """Tell the study of trials that had ended when the driver was cut off before it told.

    A last result counts as an end once its checkpoint is there; before that the trial goes on from the one before.
    """
    for trial in searcher.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        label = trial.user_attrs.get(LABEL, "")
        last = last_row(folder, label) if label else None
        if last is not None and last["done"] and ("failure" in last or _saved_at(folder, label, last["env_steps"])):
            searcher.on_trial_complete(last["trial_id"], last)


def _saved_at(folder: Path, label: str, env_steps: int) -> bool:
    checkpoint, _ = checkpoint_of(folder, label)
    if checkpoint is None:
        return False
    state = torch.load(checkpoint / "training_state.pt", weights_only=True, map_location="cpu")
    return int(state["env_steps"]) == env_steps


def read_outcomes(folder: Path, config: SweepConfig) -> list[Outcome]:
    """Return every trial of a sweep, in the order of their labels."""
    study = open_study(study_url(folder), config.name)
    attempts: dict[str, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        if LABEL in trial.user_attrs:
            attempts[trial.user_attrs[LABEL]] = trial  # later attempts replace earlier ones
    return [_outcome(folder, config, label, attempts[label]) for label in sorted(attempts)]


def _outcome(folder: Path, config: SweepConfig, label: str, trial: FrozenTrial) -> Outcome:
    curve = curve_of(folder, label)
    checkpoint, note = checkpoint_of(folder, label)
    stored = trial.system_attrs.get("fixed_params", {}) | trial.params
    state = _STATES.get(trial.state, "unfinished")
    faults = [fault for path in reversed(trial_folders(folder, label)) for fault in read_rows(path / FAULTS)]
    last = last_row(folder, label)
    ended = _ended(config, state, trial.user_attrs.get(REASON, ""), last, faults)
    restarts = [f"restarted after {fault['error']}" for fault in faults if fault["restarted"]]
    return Outcome(
        slot=int(label.rpartition("_")[2]),
        trial_id=label,
        state=state,
        ended="; ".join(filter(None, (ended, *restarts, note))),
        params=decode_params(config.parameters(), stored),
        curve=curve,
        best=read_best(checkpoint),
        checkpoint=checkpoint,
        fault=_fault(last, faults) if state == "failed" else "",
    )


def _fault(last: dict[str, Any] | None, faults: list[dict[str, Any]]) -> str:
    """Say what made a trial fail, without when it did."""
    if last is not None and "failure" in last:
        return str(last["failure"])
    return str(faults[-1]["error"]) if faults else ""


def _ended(
    config: SweepConfig, state: str, reason: str, last: dict[str, Any] | None, faults: list[dict[str, Any]]
) -> str:
    """Say in words why a trial ended."""
    where = "before its first evaluation" if last is None else f"at {int(last['env_steps']):,} env steps"
    if state == "pruned" and last is not None:
        return f"stopped by {config.search.scheduler} {where}: rung_score {last['rung_score']:.3f}"
    if state == "unfinished":
        return f"cut off {where}; goes on with --resume"
    if reason == "nonfinite" and last is not None:
        return f"not finite {where}: {last.get('failure', '')}"
    if reason == "error" and faults:
        return f"failed {where}: {faults[-1]['error']}"
    return f"{reason} {where}"
