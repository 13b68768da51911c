"""Copies what a sweep found out as a bundle, and scores it again.

The bundle's policy is the mean of its members' distributions. Which members: ``refit``, the champion's networks that
were trained anew on everything but the holdout; ``mean``, those of all folds at the trial's best evaluation;
``best``, the one of them with the best score on its fold.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from sentio_rllib.config.loading import load_config, resolve
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.deploy.bundle import load_bundle, write_bundle
from sentio_rllib.errors import CheckpointError, NonFiniteError
from sentio_rllib.evidence.bars_used import HELD_OUT, bars_used
from sentio_rllib.evidence.champion import CHAMPION, Model, champion_model, score_members
from sentio_rllib.evidence.holdout import evaluate_ensemble
from sentio_rllib.evidence.refit import REFIT, final_settings, refit_settings, train_champion
from sentio_rllib.policy.checkpoint import load_model
from sentio_rllib.pull.combine import FINAL, Combine
from sentio_rllib.search.cluster import local_ray
from sentio_rllib.search.prepare import policy_spec, prepare, tape_of
from sentio_rllib.search.trials import read_outcomes
from sentio_rllib.seeding import Member
from sentio_rllib.statistics.metrics import sharpe
from sentio_rllib.sweep.folder import CONFIG, FINGERPRINT, check_fingerprint
from sentio_rllib.sweep.outcome import SUMMARY

SAME_CHAMPION = ("trial_id", "params", "env_steps")
"""What a champion, its refitted networks and a summary that tells of it have in common."""


@dataclass(frozen=True)
class _Chosen:
    """Members to bundle: their weights, who they are, and what is told of how they were chosen."""

    weights: dict[str, torch.Tensor]
    members: list[Member]
    told: dict[str, Any]


def pull(
    experiment: Path,
    output: Path,
    trial: str | None = None,
    combine: Combine | None = None,
    *,
    final: bool = False,
) -> dict[str, Any]:
    """Write the champion of a sweep, or another trial, as a bundle to `output`.

    Parameters
    ----------
    experiment
        Folder of the sweep.
    output
        Folder to make; must not exist. Its name is the model's.
    trial
        Trial to take instead of the champion, for example ``trial_0003``.
    combine
        Which members; None: ``refit`` for a champion that was refitted, else ``mean``.
    final
        Train the champion's configuration once more, on all bars, which takes as long as the sweep's last step.

    Returns the bundle's metadata.

    Raises
    ------
    CheckpointError
        If there is no such sweep or trial, `output` exists, or what is copied is incomplete or altered.
    SweepError
        If a trial is asked for and the bars are not those of the sweep.
    """
    if not (experiment / CONFIG).is_file():
        raise CheckpointError(f"{experiment}: no sweep is here ({CONFIG} is missing); pass experiments/NAME")
    if output.exists():
        raise CheckpointError(f"{output}: exists already; choose another --output or remove it")
    if trial is not None and combine == "refit":
        raise CheckpointError("--combine refit: the champion alone is refitted; take it without --trial, or pass mean")
    weights, about = _champion(experiment) if trial is None else _members_of(experiment, trial)
    if "market" not in about or "bars_used" not in about:
        raise CheckpointError(f"{experiment / CHAMPION}: an earlier version wrote it; write it anew with --resume")
    if final:
        chosen, how = _final(experiment, about), FINAL
    else:
        chosen, how = _chosen_of(experiment, weights, about, trial, combine)
    resolved = resolve(_config_of(experiment, about), about["params"])
    try:
        write_bundle(
            output,
            output.name,
            chosen.weights,
            policy_spec(resolved),
            chosen.members,
            resolved.trading_rules(),
            market=about["market"],
            metadata=_metadata(experiment, about, how) | chosen.told,
        )
    except OSError as error:
        raise CheckpointError(f"{output}: cannot be written ({error}); choose another --output") from error
    return load_bundle(output).metadata


def _chosen_of(
    experiment: Path,
    weights: dict[str, torch.Tensor],
    about: dict[str, Any],
    trial: str | None,
    combine: Combine | None,
) -> tuple[_Chosen, str]:
    if combine is None:
        combine = "refit" if trial is None and (experiment / REFIT).is_dir() else "mean"
    return _choose(experiment, weights, about, combine), combine


def _final(experiment: Path, about: dict[str, Any]) -> _Chosen:
    """Train the champion's configuration on all bars; its holdout has to be opened, or it would be lost unseen.

    Raises
    ------
    CheckpointError
        The sweep has no verdict on this very champion yet, or its training was not finite.
    """
    summary = _summary_of(experiment, about)
    if not summary["same"] or not (summary["holdout"] or {}).get("opened"):
        raise CheckpointError(
            f"{experiment}: the holdout has not been opened for its champion, and --final trains on it: finish the "
            "sweep with --resume, or pull without --final"
        )
    config = _config_of(experiment, about)
    prepared = prepare(config)
    check_fingerprint(experiment, prepared)
    outcome = next(each for each in read_outcomes(experiment, config) if each.trial_id == about["trial_id"])
    settings = final_settings(config, prepared, about["params"])
    tape = tape_of(config, prepared.bars)
    try:
        with local_ray():
            whole = replace(prepared, tape=tape)
            weights = train_champion(experiment / FINAL, outcome, settings, whole, go_on=lambda: True)
    except NonFiniteError as error:
        raise CheckpointError(f"--final: the training was not finite: {error}") from error
    assert weights is not None
    used = bars_used(prepared.bars, prepared.splits, settings.folds)
    used[HELD_OUT] = {"ranges": [], "sessions": []}
    return _Chosen(weights, [(int(seed), int(fold)) for seed, fold in settings.members], {"bars_used": used})


def _champion(experiment: Path) -> Model:
    source = experiment / CHAMPION
    if not source.is_dir():
        raise CheckpointError(
            f"{experiment}: the sweep has no champion (no trial trades, or it was not finished); "
            "see leaderboard.parquet, finish it with --resume, or pass --trial"
        )
    return load_model(source)


def _config_of(folder: Path, about: dict[str, Any]) -> SweepConfig:
    """Return the configuration that a model was made with; one of another version need not be one of this."""
    try:
        return SweepConfig.model_validate(about["config"])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(
            f"{folder}: its configuration is not one of this version ({key}: {first['msg']}); install sentio_rllib "
            f"{about.get('sentio_version', '(the version that made it)')}, or run the sweep again"
        ) from error


def _members_of(experiment: Path, trial: str) -> Model:
    config = load_config(experiment / CONFIG)
    outcomes = {outcome.trial_id: outcome for outcome in read_outcomes(experiment, config)}
    if trial not in outcomes:
        raise CheckpointError(f"--trial {trial}: no such trial; choose one of {', '.join(sorted(outcomes))}")
    if not outcomes[trial].best:
        raise CheckpointError(f"--trial {trial}: it has no intact checkpoint; it ended: {outcomes[trial].ended}")
    prepared = prepare(config)
    check_fingerprint(experiment, prepared)
    weights, about = champion_model(outcomes[trial], config, prepared)
    return weights, json.loads(json.dumps(about))  # lists for tuples, as in a champion's file


def _choose(experiment: Path, weights: dict[str, torch.Tensor], about: dict[str, Any], combine: Combine) -> _Chosen:
    members = [(int(seed), int(fold)) for seed, fold in about["members"]]
    if combine == "refit":
        return _refitted(experiment, about)
    if combine == "mean":
        return _Chosen(weights, members, {})
    folds, seeds = (sorted(set(each)) for each in zip(*((fold, seed) for seed, fold in members), strict=True))
    scores = [about["fold_scores"][folds.index(fold)][seeds.index(seed)] for seed, fold in members]
    best = int(np.argmax(scores))
    one = {name: value[best : best + 1] for name, value in weights.items()}
    return _Chosen(one, [members[best]], {"fold_score": scores[best]})


def _refitted(experiment: Path, about: dict[str, Any]) -> _Chosen:
    folder = experiment / REFIT
    way_out = "finish the sweep with --resume, or pass --combine mean"
    if not folder.is_dir():
        raise CheckpointError(f"{experiment}: the champion was not refitted, which takes a holdout; {way_out}")
    try:
        weights, told = load_model(folder)
    except CheckpointError as error:
        raise CheckpointError(*error.lines, f"{folder}: cannot be taken; {way_out}") from error
    if any(told[key] != about[key] for key in SAME_CHAMPION):
        raise CheckpointError(
            f"{folder}: is of {told['trial_id']} at {told['env_steps']:,} env steps, the champion is "
            f"{about['trial_id']} at {about['env_steps']:,}; {way_out}"
        )
    return _Chosen(weights, [(int(seed), int(fold)) for seed, fold in told["members"]], {})


def _metadata(experiment: Path, about: dict[str, Any], combine: str) -> dict[str, Any]:
    """Where the members come from, and what the sweep's summary knows of their trial."""
    path = about["config"]["data"]["path"]
    source = "the embedded synthetic market" if path is None else Path(path).name
    data = about["data"] | {"source": source, "fingerprint": about["data_fingerprint"]}
    used = about["bars_used"]
    copied = ("trial_id", "params", "config", "env_steps", "cv_score", "rung_score", "fold_scores")
    return {
        "sweep": about["config"]["name"],
        "combine": combine,
        "sweep_id": (_read_json(experiment / FINGERPRINT) or {}).get("sweep"),
        "ledger": str(Path(about["config"]["evidence"]["ledger"]).absolute()),
        "bars_used": used["refit" if combine == "refit" else "mean"],
        "data": data,
        "folds": _read_json(experiment / "folds.json") or [],
        **{key: about[key] for key in copied},
        **_evidence(_summary_of(experiment, about), about, combine),
    }


def _summary_of(experiment: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Return the sweep's summary with ``same``: whether it is about the very trial and steps of `about`."""
    summary = _read_json(experiment / SUMMARY) or {}
    best = summary.get("best") or {}
    return summary | {"same": all(best.get(key) == about[key] for key in SAME_CHAMPION)}


def _evidence(summary: dict[str, Any], about: dict[str, Any], combine: str) -> dict[str, Any]:
    if not summary["same"]:
        best = (summary.get("best") or {}).get("trial_id")
        other = f"the sweep selected {best}" if best else "the sweep has not come to its end"
        note = f"{about['trial_id']} at {about['env_steps']:,} env steps is no champion; {other}"
        return {"evidence": None, "cv": None, "holdout": None, "evidence_note": note}
    holdout, note = summary["holdout"], _NOTES[combine]
    if combine not in ("refit", FINAL) and holdout is not None and holdout["opened"]:
        holdout = {"opened": False, "why": "opened for the refitted networks, which are not these"}
    return {"evidence": summary["evidence"], "cv": summary["cv"], "holdout": holdout, "evidence_note": note}


_NOTES = {
    "refit": "Figures of validation are those of the folds' networks, each on bars that it was not trained on; these "
    "networks were scored on the holdout alone",
    FINAL: "These networks were trained on all bars, the holdout included, after the verdict, so that nothing is left "
    "to score them on: all figures and the verdict are those of the champion whose training they repeat",
    "mean": "Figures of validation are those of each network on the blocks of its own fold. Their mean was scored "
    "nowhere: most of them were trained on the blocks of any other",
    "best": "Figures of validation are those of all networks of the trial, of which this is the one that looked best",
}
"""What the figures are about, by how members were combined."""


def _read_json(path: Path) -> Any:
    """Return what a file holds, None where there is none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); write it anew with --resume") from error


def verify(experiment: Path, output: Path) -> tuple[str, float, float] | None:
    """Score the members of a bundle again where its sweep scored them.

    Those of folds are scored on their folds. Refitted ones are evaluated on the holdout again, if it was opened for
    this very champion; that shows nothing that was not seen then, so it is no opening.

    Returns
    -------
    tuple or None
        What the figure is, the one that was written, and the one now; None where nothing was scored out of sample.

    Raises
    ------
    SentioError
        If the bars are not those of the sweep.
    """
    bundle = load_bundle(output)
    metadata, weights = bundle.metadata, dict(bundle.network.state_dict())
    if metadata["combine"] == FINAL:
        return None
    if metadata["combine"] != "refit":
        what = "fold_score" if metadata["combine"] == "best" else "cv_score"
        known = {"sentio_version": metadata["versions"]["sentio_rllib"]}
        known["data_fingerprint"] = metadata["data"]["fingerprint"]
        return what, float(metadata[what]), score_members(output, weights, metadata | known)
    holdout = metadata["holdout"]
    if not holdout or not holdout["opened"]:
        return None
    config = _config_of(output, metadata)
    prepared = prepare(config)
    check_fingerprint(experiment, prepared)
    settings = refit_settings(config, prepared, metadata["params"])
    tape = tape_of(config, prepared.bars)
    record = evaluate_ensemble(weights, settings, tape, prepared)
    now = sharpe(record.excess_returns, tape.sessions_per_year)
    return "Sharpe ratio in the holdout", float(holdout["metrics"]["sharpe"]), now
