"""The champion: the selected configuration trained anew on everything but the holdout, with seeds of its own.

It repeats what the trial's validation had decided, since it has none of its own: it trains for the steps of the trial's
best evaluation, and with the schedule `plateau` it halves the learning rate at the trial's steps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import CheckpointError, NonFiniteError
from sentio_rllib.evidence.context import Context
from sentio_rllib.evidence.selecting import Selected
from sentio_rllib.policy.checkpoint import load_model, save_model
from sentio_rllib.ppo.algorithm import build_algorithm
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.search.prepare import Prepared, members_of, trial_settings
from sentio_rllib.search.selection import Outcome
from sentio_rllib.seeding import stream_seed
from sentio_rllib.validation.schemes import Fold, Range, cut_ranges

Weights = dict[str, torch.Tensor]

REFIT = "refit"
"""Folder of the champion's networks."""


@dataclass(frozen=True)
class Refitted:
    """What came of the champion's training.

    Attributes
    ----------
    trial
        The selected one, of which it is the configuration.
    settings
        Of the training.
    weights
        Of the members; None where there are none.
    why
        There are none; empty where there are.
    given_up
        Whether the user ended it.
    """

    trial: Outcome
    settings: TrialSettings
    weights: Weights | None
    why: str = ""
    given_up: bool = False


def refit(sweep: Context, selected: Selected) -> Refitted | None:
    """Train the champion on everything but the holdout, with fresh seeds, for the one opening.

    None where the holdout stays shut: there is no champion or no holdout, the search is not over, or arms are compared.
    """
    config, prepared = sweep.config, sweep.prepared
    if selected.best is None or selected.shut or not prepared.splits.holdout_blocks:
        return None
    trial = selected.best.trial
    settings = refit_settings(config, prepared, trial.params)
    try:
        weights = train_champion(sweep.folder / REFIT, trial, settings, prepared, go_on=sweep.go_on)
    except NonFiniteError as error:
        return Refitted(trial, settings, None, f"the champion's training was not finite: {error}")
    if weights is None:
        why = "the champion's training was interrupted; --resume goes on"
        return Refitted(trial, settings, None, why, given_up=True)
    return Refitted(trial, settings, weights)


def refit_settings(config: SweepConfig, prepared: Prepared, params: Mapping[str, Any]) -> TrialSettings:
    """Return the settings of the champion's training: one segment set, nothing to validate on, fresh seeds."""
    fold = Fold(0, prepared.splits.refit, ())
    members = tuple((seed, fold.index) for seed in refit_seeds(config, prepared))
    return replace(trial_settings(config, prepared.splits, params), folds=(fold,), members=members)


def final_settings(config: SweepConfig, prepared: Prepared, params: Mapping[str, Any]) -> TrialSettings:
    """Return the settings of a training like the champion's, but on all bars, the holdout included."""
    settings = refit_settings(config, prepared, params)
    least = settings.rules.episode_length + settings.rules.decision_interval + 2
    whole = Range(prepared.splits.footprint.before, prepared.bars.n)
    segments = cut_ranges([whole], [int(cut) for cut in prepared.bars.sessions.cuts], least)
    return replace(settings, folds=(Fold(0, segments, ()),))


def refit_seeds(config: SweepConfig, prepared: Prepared) -> list[int]:
    """Return `evidence.refit_seeds` seeds of which none is a tuning seed."""
    tuning = {seed for seed, _ in members_of(config, prepared.splits)}
    seeds: list[int] = []
    index = 0
    while len(seeds) < config.evidence.refit_seeds:
        seed = stream_seed("champion", config.seed, index) % 2**31
        index += 1
        if seed not in tuning and seed not in seeds:
            seeds.append(seed)
    return seeds


def champion_key(outcome: Outcome, settings: TrialSettings) -> str:
    """Return what a champion is told apart by: the same key is trained to the same weights."""
    told = [outcome.params, int(outcome.best["env_steps"]), [list(member) for member in settings.members]]
    halvings = _halvings(outcome)
    if halvings:
        told.append(halvings)
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _halvings(outcome: Outcome) -> list[int]:
    """Env steps at which the schedule plateau halved the trial's rate before its best evaluation."""
    return [int(step) for step in outcome.best.get("halvings", ())]  # trials of earlier versions had no such schedule


def train_champion(
    folder: Path, outcome: Outcome, settings: TrialSettings, prepared: Prepared, *, go_on: Callable[[], bool]
) -> Weights | None:
    """Train the champion for the env steps of the trial's best evaluation and keep it below `folder`.

    The learning rate is the one that the trial had at each of them. With the schedule plateau, which takes evaluations
    that a refit has not, it is halved where the trial's was.

    Parameters
    ----------
    folder
        To write; a champion with the same key that lies there whole already is taken as it is.
    outcome
        The selected trial.
    settings
        Of :func:`refit_settings`.
    prepared
        Its tape ends before the holdout's footprints.
    go_on
        Asked before each iteration; False gives the training up.

    Returns
    -------
    dict or None
        The weights of the members, None where it was given up.

    Raises
    ------
    NonFiniteError
        If a loss or gradient is NaN or infinite.
    """
    key, steps = champion_key(outcome, settings), int(outcome.best["env_steps"])
    try:
        weights, metadata = load_model(folder)
        if metadata["key"] == key:
            return weights
    except CheckpointError:
        pass  # none there yet, or one that was not finished
    halvings = _halvings(outcome)
    algorithm = build_algorithm(settings, prepared.tape)
    try:
        while algorithm.env_steps < steps:
            if not go_on():
                return None
            algorithm.plateau.halvings = [step for step in halvings if step <= algorithm.env_steps]
            algorithm.training_step()
        weights = {name: value.detach().cpu().clone() for name, value in algorithm.network().state_dict().items()}
    finally:
        algorithm.stop()
    members = [list(member) for member in settings.members]
    metadata = {"key": key, "trial_id": outcome.trial_id, "params": outcome.params, "env_steps": steps}
    save_model(folder, weights, metadata | {"members": members, "halvings": halvings})
    return weights
