"""Pulling bundles out of a finished sweep, and scoring their members again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sentio_rllib.config.loading import load_config, resolve
from sentio_rllib.deploy.bundle import Bundle, load_bundle
from sentio_rllib.errors import CheckpointError
from sentio_rllib.evidence.champion import score_again, score_members
from sentio_rllib.policy.checkpoint import load_model, save_model
from sentio_rllib.pull.__main__ import main
from tests.sweep_checks import board_of
from tests.tiny_sweep import copied, market_frame


def summary_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return content


def same_weights(bundle: Bundle, source: Path, members: slice = slice(None)) -> bool:
    weights, _ = load_model(source)
    held = bundle.network.state_dict()
    return held.keys() == weights.keys() and all(torch.equal(held[name], weights[name][members]) for name in held)


def test_the_champion_is_pulled_refitted_and_verified_on_the_holdout(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(finished), "--output", str(tmp_path / "m"), "--verify"]) == 0
    bundle, summary = load_bundle(tmp_path / "m"), summary_of(finished)
    out = capsys.readouterr().out
    assert bundle.name == "m"
    assert f"pulled {summary['best']['trial_id']} to {tmp_path / 'm'} (refit, 2 networks)" in out
    assert f"verdict of the sweep: {summary['evidence']['claim']}; {bundle.metadata['evidence_note']}" in out
    figure = f"{summary['holdout']['metrics']['sharpe']:.9f}"
    assert f"Sharpe ratio in the holdout in the sweep {figure}, scored again {figure}" in out
    assert same_weights(bundle, finished / "refit")
    told = bundle.metadata
    assert told["combine"] == "refit"
    assert (told["trial_id"], told["env_steps"]) == (summary["best"]["trial_id"], summary["best"]["env_steps"])
    assert {key: told[key] for key in ("evidence", "cv", "holdout")} == {
        key: summary[key] for key in ("evidence", "cv", "holdout")
    }
    assert told["folds"] == json.loads((finished / "folds.json").read_text())
    kept = {key: summary["data"][key] for key in ("bars", "first", "last", "fingerprint")}
    assert told["data"] == kept | {"symbol": "PLANTED", "source": "PLANTED_1m.feather"}
    config = resolve(load_config(finished / "config.yaml"), told["params"])
    assert bundle.rules == config.trading_rules()
    assert (bundle.calendar, bundle.hours, bundle.session_minutes) == ("XNYS", "regular", 390)
    assert told["config"] == load_config(finished / "config.yaml").model_dump(mode="json")


def test_the_verification_fails_where_the_holdout_gave_another_figure(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "tiny")
    summary = summary_of(finished)
    summary["holdout"]["metrics"]["sharpe"] += 1e-3
    (tmp_path / "tiny" / "summary.json").write_text(json.dumps(summary))
    assert main([str(tmp_path / "tiny"), "--output", str(tmp_path / "m"), "--verify"]) == 1
    assert "the scores differ by more than 1e-06" in capsys.readouterr().err


def test_the_mean_of_the_champions_members_is_scored_again_to_the_same_number(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(finished), "--champion", "--combine", "mean", "--output", str(tmp_path / "m"), "--verify"]) == 0
    bundle, best = load_bundle(tmp_path / "m"), board_of(finished).iloc[0]
    assert bundle.metadata["trial_id"] == best["trial_id"]
    assert bundle.metadata["cv_score"] == pytest.approx(best["cv_score"], abs=1e-12)
    assert same_weights(bundle, finished / "champion")
    score = f"{bundle.metadata['cv_score']:.9f}"
    assert f"cv_score in the sweep {score}, scored again {score}" in capsys.readouterr().out
    assert score_again(finished / "champion") == pytest.approx([bundle.metadata["cv_score"]] * 2, abs=1e-9)
    # what the refitted networks did in the holdout is not what these did
    assert bundle.metadata["holdout"] == {
        "opened": False,
        "why": "opened for the refitted networks, which are not these",
    }
    assert bundle.metadata["evidence"] == summary_of(finished)["evidence"]


def test_the_best_member_is_that_of_the_best_fold(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(finished), "--combine", "best", "--output", str(tmp_path / "m"), "--verify"]) == 0
    bundle, (_, champion) = load_bundle(tmp_path / "m"), load_model(finished / "champion")
    scores = [row[0] for row in champion["fold_scores"]]  # one seed, one member a fold
    assert scores[0] != scores[1]
    index = scores.index(max(scores))
    assert bundle.network.members == [tuple(champion["members"][index])]
    assert same_weights(bundle, finished / "champion", slice(index, index + 1))
    score = f"{max(scores):.9f}"
    assert f"fold_score in the sweep {score}, scored again {score}" in capsys.readouterr().out


def test_any_scored_trial_can_be_pulled_without_the_champions_verdict(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = board_of(finished)["trial_id"].iloc[-1]
    assert main([str(finished), "--output", str(tmp_path / "m"), "--trial", last, "--verify"]) == 0
    told = load_bundle(tmp_path / "m").metadata
    assert (told["trial_id"], told["combine"]) == (last, "mean")
    assert told["evidence"] is told["cv"] is told["holdout"] is None
    best = summary_of(finished)["best"]["trial_id"]
    assert f"is no champion; the sweep selected {best}" in told["evidence_note"]
    assert f"no verdict: {told['evidence_note']}" in capsys.readouterr().out
    assert "No verdict was reached about this model" in (tmp_path / "m" / "MODEL_CARD.md").read_text()


def test_a_champion_without_a_holdout_is_the_mean_of_its_members(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "tiny")
    shutil.rmtree(tmp_path / "tiny" / "refit")
    assert main([str(tmp_path / "tiny"), "--output", str(tmp_path / "m")]) == 0
    assert "(mean, 2 networks)" in capsys.readouterr().out
    assert main([str(tmp_path / "tiny"), "--output", str(tmp_path / "n"), "--combine", "refit"]) == 2
    assert "the champion was not refitted" in capsys.readouterr().err


def test_a_holdout_that_stayed_shut_verifies_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "tiny")
    shut = summary_of(finished) | {"holdout": {"opened": False, "why": "opened before by another sweep"}}
    (tmp_path / "tiny" / "summary.json").write_text(json.dumps(shut))
    assert main([str(tmp_path / "tiny"), "--output", str(tmp_path / "m"), "--verify"]) == 0
    assert "nothing to verify: these networks were scored on no bars that they had not seen" in capsys.readouterr().out
    assert "Holdout: opened before by another sweep." in (tmp_path / "m" / "MODEL_CARD.md").read_text()


def test_what_is_left_of_an_earlier_champion_is_not_taken_for_this_one(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, told = load_model(finished / "refit")
    shutil.copytree(finished, tmp_path / "tiny")
    save_model(tmp_path / "tiny" / "refit", weights, told | {"env_steps": 9_999})
    assert main([str(tmp_path / "tiny"), "--output", str(tmp_path / "m")]) == 2
    assert f"is of {told['trial_id']} at 9,999 env steps" in capsys.readouterr().err
    (tmp_path / "tiny" / "refit" / "manifest.json").unlink()
    assert main([str(tmp_path / "tiny"), "--output", str(tmp_path / "m")]) == 2
    assert "manifest.json is missing" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_the_champion_of_another_version_is_told_in_one_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "tiny")
    weights, told = load_model(finished / "champion")
    told["config"]["ppo"]["momentum"] = 0.9
    save_model(tmp_path / "tiny" / "champion", weights, told | {"sentio_version": "9.9"})
    assert main([str(tmp_path / "tiny"), "--output", str(tmp_path / "m")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "its configuration is not one of this version (ppo.momentum: " in line
    assert "install sentio_rllib 9.9" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--output", "OUT"], "no sweep is here"),
        (["SWEEP", "--output", "SWEEP"], "exists already"),
        (["SWEEP", "--output", "OUT", "--trial", "trial_0099"], "choose one of trial_0000"),
        (["SWEEP", "--output", "OUT", "--trial", "trial_0000", "--combine", "refit"], "the champion alone is refitted"),
    ],
)
def test_mistakes_are_told_in_one_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    places = {"SWEEP": str(finished), "OUT": str(tmp_path / "m")}
    assert main([places.get(each, each) for each in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_a_champion_that_was_tampered_with_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "tiny")
    weights = tmp_path / "tiny" / "champion" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert main([str(tmp_path / "tiny"), "--output", str(tmp_path / "m")]) == 2
    assert "SHA-256 differs" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_other_bars_are_not_scored(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = market_frame().copy()
    frame.loc[100, "volume"] += 1.0
    frame.to_feather(tmp_path / "other.feather")
    copied(finished, tmp_path / "experiments", tmp_path / "other.feather")
    experiment = tmp_path / "experiments" / finished.name
    last = board_of(finished)["trial_id"].iloc[-1]
    assert main([str(experiment), "--output", str(tmp_path / "m"), "--trial", last, "--verify"]) == 2
    assert "data: changed since the sweep was started" in capsys.readouterr().err


def test_one_network_is_not_scored_by_timing_which_needs_those_of_all_folds(finished: Path, tmp_path: Path) -> None:
    assert main([str(finished), "--combine", "best", "--output", str(tmp_path / "m")]) == 0
    bundle, (_, champion) = load_bundle(tmp_path / "m"), load_model(finished / "champion")
    config = champion["config"] | {"search": champion["config"]["search"] | {"score": "timing"}}
    told = champion | {"config": config, "members": bundle.metadata["members"]}
    told |= {"sentio_version": "0.1.0", "features": bundle.metadata["features"]}
    told["data_fingerprint"] = bundle.metadata["data"]["fingerprint"]

    with pytest.raises(CheckpointError, match="timing is scored with the networks of all folds, and these are 1 of 2"):
        score_members(tmp_path / "m", dict(bundle.network.state_dict()), told)
