"""The champion's training takes the steps that the selected trial took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sentio_rllib.evidence.refit import champion_key, refit_settings, train_champion
from sentio_rllib.policy.checkpoint import load_model
from sentio_rllib.ppo.algorithm import SentioPPO, build_algorithm
from sentio_rllib.ppo.learner import SentioLearner
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.search.prepare import Prepared, prepare, trial_settings
from sentio_rllib.search.selection import Outcome
from tests.tiny_sweep import EVALUATE_EVERY, tiny_config

pytestmark = pytest.mark.usefixtures("ray_cluster")

PLATEAU: dict[str, Any] = {"ppo__schedule": "plateau", "ppo__plateau_patience": 1, "search__min_delta": 1e6}
"""Every evaluation after the first halves."""


def _prepared(bars: Path, tmp_path: Path, **changes: Any) -> tuple[Prepared, TrialSettings, TrialSettings]:
    """What to train on, the settings of the trial, and those of the champion."""
    config = tiny_config(bars, tmp_path, **changes)
    prepared = prepare(config)
    return prepared, trial_settings(config, prepared.splits, {}), refit_settings(config, prepared, {})


def _trial(prepared: Prepared, settings: TrialSettings) -> SentioPPO:
    """Train a trial to its fifth evaluation, of which the fourth is the best."""
    algorithm = build_algorithm(settings, prepared.tape)
    measure, told = algorithm.score, iter([0.0, 1.0, 2.0, 3.0, 2.0])
    algorithm.score = lambda: measure()._replace(cv_score=next(told))
    for _ in range(5):
        algorithm.training_step()
        algorithm.assess()
    algorithm.stop()
    return algorithm


def _outcome(best: dict[str, Any]) -> Outcome:
    return Outcome(0, "trial_0000", "completed", "", {}, [], best)


def test_a_plateau_is_halved_where_the_trial_was(
    bars_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, settings, of_champion = _prepared(bars_file, tmp_path, **PLATEAU)
    assert settings.rows_per_iteration == EVALUATE_EVERY
    trial = _trial(prepared, settings)
    assert trial.plateau.halvings == [EVALUATE_EVERY * n for n in (2, 3, 4, 5)]
    assert trial.best is not None
    # the rate after the best evaluation is no longer that of its networks
    assert (trial.best["env_steps"], trial.best["halvings"]) == (
        4 * EVALUATE_EVERY,
        [EVALUATE_EVERY * n for n in (2, 3)],
    )
    # trained by the trial's own settings, the champion is the trial
    again = train_champion(tmp_path / "again", _outcome(trial.best), settings, prepared, go_on=lambda: True)
    assert again is not None
    assert all(torch.equal(value, trial.best_weights[name]) for name, value in again.items())

    unhalved = _outcome(trial.best | {"halvings": []})
    other = train_champion(tmp_path / "other", unhalved, settings, prepared, go_on=lambda: True)
    assert other is not None
    assert not all(torch.equal(value, trial.best_weights[name]) for name, value in other.items())

    rates: list[float] = []
    before = SentioLearner.before_gradient_based_update

    def kept(learner: SentioLearner, *, timesteps: dict[str, Any]) -> None:
        before(learner, timesteps=timesteps)
        rates.append(learner.learning_rate)

    monkeypatch.setattr(SentioLearner, "before_gradient_based_update", kept)
    train_champion(tmp_path / "refit", _outcome(trial.best), of_champion, prepared, go_on=lambda: True)
    rate = settings.ppo.learning_rate
    assert rates == [rate, rate, rate / 2, rate / 4]
    assert load_model(tmp_path / "refit")[1]["halvings"] == trial.best["halvings"]


def test_other_schedules_keep_no_halvings(bars_file: Path, tmp_path: Path) -> None:
    changes = PLATEAU | {"ppo__schedule": "constant"}
    del changes["ppo__plateau_patience"]
    prepared, settings, _ = _prepared(bars_file, tmp_path, **changes)
    trial = _trial(prepared, settings)
    assert trial.best is not None
    assert trial.best["halvings"] == []


def test_halvings_make_another_champion(bars_file: Path, tmp_path: Path) -> None:
    _, settings, _ = _prepared(bars_file, tmp_path)
    keys = [
        champion_key(_outcome({"env_steps": 512} | held), settings)
        for held in ({}, {"halvings": []}, {"halvings": [256]}, {"halvings": [384]}, {"halvings": [256, 384]})
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
