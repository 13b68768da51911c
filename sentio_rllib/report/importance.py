"""Which searched parameters the score depends on: fANOVA over the completed trials of a study."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.exceptions import OptunaError
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

MIN_TRIALS = 6
"""Completed trials below which shares of variance say nothing."""


@dataclass(frozen=True)
class Importance:
    """Shares of the score's variance by parameter, which sum to 1, or why there are none."""

    trials: int
    shares: dict[str, float] = field(default_factory=dict)
    why_none: str = ""


def parameter_importance(study: Path, name: str, *, seed: int = 0) -> Importance:
    """Return the importance of the parameters of a study, which is opened for reading only.

    Parameters
    ----------
    study
        The SQLite file.
    name
        Of the study.
    seed
        Of the random forest.

    Notes
    -----
    Functional ANOVA (Hutter, Hoos & Leyton-Brown 2014) of a forest fitted to the completed trials. Stopped trials
    have no comparable score and are left out, so shares describe the region in which trials were not stopped.
    """
    if not study.is_file():
        return Importance(0, why_none=f"{study.name} is missing")
    uri = f"{study.resolve().as_uri()}?mode=ro"

    def connect() -> sqlite3.Connection:  # a URL of SQLAlchemy's would misread a path with ? or % in it
        return sqlite3.connect(uri, uri=True, check_same_thread=False)

    try:
        storage = RDBStorage("sqlite://", engine_kwargs={"creator": connect}, skip_table_creation=True)
    except (OptunaError, SQLAlchemyError, RuntimeError) as error:
        return Importance(0, why_none=f"{study.name} cannot be read: {_line(error)}")
    try:
        return _importance(optuna.load_study(study_name=name, storage=storage), seed)
    except (OptunaError, SQLAlchemyError, KeyError) as error:
        return Importance(0, why_none=f"{study.name} cannot be read: {_line(error)}")
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _importance(study: optuna.Study, seed: int) -> Importance:
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    count = len(completed)
    if count < MIN_TRIALS:
        return Importance(count, why_none=f"completed trials {count}, needed {MIN_TRIALS} or more")
    shared = set.intersection(*(set(trial.params) for trial in completed))
    varied = sorted(key for key in shared if len({str(trial.params[key]) for trial in completed}) > 1)
    if not varied:
        return Importance(count, why_none="no parameter differs between the completed trials")
    if len({trial.value for trial in completed}) == 1:
        return Importance(count, why_none="all completed trials have the same score")
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed), params=varied)
    return Importance(count, {key: float(share) for key, share in shares.items()})


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
