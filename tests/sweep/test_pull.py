"""Pulling members out of a finished sweep, and scoring them again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sentio_rllib.ppo.checkpoint import load_model
from sentio_rllib.pull import main
from tests.sweep.checks import board_of
from tests.sweep.tiny import copied, market_frame


def test_the_champion_is_scored_again_to_the_same_number(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(finished), "--output", str(tmp_path / "m"), "--verify"]) == 0
    _, metadata = load_model(tmp_path / "m")
    best = board_of(finished).iloc[0]
    assert metadata["trial_id"] == best["trial_id"]
    assert metadata["cv_score"] == pytest.approx(best["cv_score"], abs=1e-12)
    score = f"{metadata['cv_score']:.9f}"
    assert f"cv_score in the sweep {score}, scored again {score}" in capsys.readouterr().out


def test_any_scored_trial_can_be_pulled(finished: Path, tmp_path: Path) -> None:
    last = board_of(finished)["trial_id"].iloc[-1]
    assert main([str(finished), "--output", str(tmp_path / "m"), "--trial", last, "--verify"]) == 0
    assert load_model(tmp_path / "m")[1]["trial_id"] == last


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--output", "OUT"], "no sweep is here"),
        (["SWEEP", "--output", "SWEEP"], "exists already"),
        (["SWEEP", "--output", "OUT", "--trial", "trial_0099"], "choose one of trial_0000"),
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
