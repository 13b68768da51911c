"""What sweeps are checked by."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from sentio_rllib.config.loading import load_config
from sentio_rllib.search.searcher import open_study
from sentio_rllib.search.trials import study_url
from sentio_rllib.sweep.folder import CONFIG

TIMES = ["env_steps_per_s"]
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def board_of(folder: Path) -> pd.DataFrame:
    """The leaderboard of a sweep."""
    return pd.read_parquet(folder / "leaderboard.parquet")


def timeless(folder: Path) -> pd.DataFrame:
    """The leaderboard without the columns that hold clock times."""
    return board_of(folder).drop(columns=TIMES)


def study_of(folder: Path) -> list[FrozenTrial]:
    """The trials of a sweep's study."""
    study = open_study(study_url(folder), load_config(folder / CONFIG).name)
    trials = study.get_trials()
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    return trials


def labels(count: int) -> list[str]:
    """The names of the first trials."""
    return [f"trial_{slot:04d}" for slot in range(count)]


def assert_complete(folder: Path, trials: int) -> None:
    """Exactly the trials asked for, each finished one counted once, no duplicate trial x fold x seed."""
    board = board_of(folder)
    assert sorted(set(board["trial_id"])) == labels(trials)
    assert not board.duplicated(["trial_id", "fold", "seed"]).any()
    assert len(board) == trials * 2
    told = study_of(folder)
    finished = [trial.user_attrs["label"] for trial in told if trial.state in FINISHED]
    assert sorted(finished) == labels(trials)
    assert all(
        trial.state is TrialState.FAIL and trial.user_attrs["orphan"] for trial in told if trial.state not in FINISHED
    )
    counts = json.loads((folder / "summary.json").read_text())["trials"]
    assert counts["total"] == counts["completed"] + counts["pruned"] == trials
