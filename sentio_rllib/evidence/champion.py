"""The best trial's members with everything needed to score them again, and that scoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sentio_rllib import __version__
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import CheckpointError
from sentio_rllib.evidence.bars_used import bars_used
from sentio_rllib.market.feature_set import FEATURE_SETS, set_of_digest
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.policy.checkpoint import load_model
from sentio_rllib.policy.deciding import with_weights
from sentio_rllib.ppo.scoring import Scorer
from sentio_rllib.search.prepare import Prepared, prepare, trial_settings
from sentio_rllib.search.selection import Outcome

CHAMPION = "champion"
"""Folder of the selected trial's members."""

Model = tuple[dict[str, torch.Tensor], dict[str, Any]]
"""Weights and metadata, as :func:`sentio_rllib.policy.checkpoint.save_model` takes them."""


def champion_model(outcome: Outcome, config: SweepConfig, prepared: Prepared) -> Model:
    """Return the members of `outcome` at their best evaluation, with everything needed to score them again."""
    if outcome.checkpoint is None:
        raise CheckpointError(f"{outcome.trial_id} has no intact checkpoint; run the sweep again")
    weights, best = load_model(outcome.checkpoint / "best")
    settings = trial_settings(config, prepared.splits, outcome.params)
    return (
        weights,
        {
            "sentio_version": __version__,
            "trial_id": outcome.trial_id,
            "params": outcome.params,
            "config": config.model_dump(mode="json"),
            "variant": settings.policy.variant,
            "members": best["members"],
            "folds": [_fold(fold) for fold in settings.folds],
            "cv_score": best["cv_score"],
            "rung_score": best["rung_score"],
            "fold_scores": best["fold_scores"],
            "env_steps": best["env_steps"],
            "features": prepared.tape.feature_set.description(),
            "data_fingerprint": prepared.bars.fingerprint,
            "data": _data(prepared.bars),
            "market": _market(config, prepared.bars),
            "bars_used": {
                "mean": bars_used(prepared.bars, prepared.splits, settings.folds),
                "refit": bars_used(prepared.bars, prepared.splits),
            },
        },
    )


def _data(bars: Bars) -> dict[str, Any]:
    return {"symbol": bars.symbol, "bars": bars.n, "first": bars.first, "last": bars.last}


def _market(config: SweepConfig, bars: Bars) -> dict[str, Any]:
    """What a live feed has to know of the bars."""
    longest = int(bars.sessions.length.max())
    return {"calendar": config.data.calendar, "hours": config.data.hours, "session_minutes": longest}


def _fold(fold: Any) -> dict[str, Any]:
    ranges = {part: [[r.start, r.stop] for r in getattr(fold, part)] for part in ("train", "validation")}
    return {"index": fold.index, **ranges}


def score_again(folder: Path) -> tuple[float, float]:
    """Score the members of a champion folder on the folds of its sweep once more.

    Returns
    -------
    tuple
        The score that was written and the score now.

    Raises
    ------
    CheckpointError
        If the folder is incomplete or altered, was made with other features, or the bars are not those that
        the sweep had.
    """
    weights, metadata = load_model(folder)
    return float(metadata["cv_score"]), score_members(folder, weights, metadata)


def score_members(folder: Path, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> float:
    """Return the score of members, each on the blocks of its fold; that of one member is its fold's.

    Parameters
    ----------
    folder
        Where they come from, for messages.
    weights, metadata
        As of :func:`champion_model`; `metadata` may name some of the trial's members only.

    Raises
    ------
    CheckpointError
        As :func:`score_again`.
    """
    told = metadata["features"]
    features = set_of_digest(told["hash"])
    if features is None:
        known = ", ".join(f"{each.version} ({each.digest[:12]})" for each in FEATURE_SETS.values())
        raise CheckpointError(
            f"{folder}: made with features {told['version']} ({told['hash'][:12]}), this version has {known}; "
            f"install sentio_rllib {metadata['sentio_version']}"
        )
    config = SweepConfig.model_validate(metadata["config"])
    config = config.model_copy(update={"features": config.features.model_copy(update={"set_": features.name})})
    prepared = prepare(config)
    if prepared.bars.fingerprint != metadata["data_fingerprint"]:
        raise CheckpointError(
            f"{config.data.path or 'the embedded market'}: these are not the bars of the sweep (fingerprint "
            f"{prepared.bars.fingerprint[:12]}, then {metadata['data_fingerprint'][:12]}); "
            "put the file back that data.path named"
        )
    members = tuple((int(seed), int(fold)) for seed, fold in metadata["members"])
    settings = trial_settings(config, prepared.splits, metadata["params"])
    if settings.score == "timing" and set(members) != set(settings.members):
        raise CheckpointError(
            f"{folder}: timing is scored with the networks of all folds, and these are {len(members)} of "
            f"{len(settings.members)}; pull without --verify, or with --combine mean"
        )
    settings = replace(settings, members=members)
    network = with_weights(settings.policy, settings.members, weights)
    tape = prepared.tape
    scorer = Scorer(tape.tensors(), settings, tape.sessions_per_year, network.dtype)
    return scorer.score(network).cv_score
