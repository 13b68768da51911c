"""The champion's configuration trained once more, on all bars, after its verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sentio_rllib.deploy.bundle import Bundle, load_bundle
from sentio_rllib.evidence.session_marks import session_marks
from sentio_rllib.market.bars import load_bars
from sentio_rllib.policy.checkpoint import load_model
from sentio_rllib.pull.__main__ import main
from tests.tiny_sweep import BARS, copied


@pytest.fixture(scope="module")
def swept(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished sweep, which --final writes into."""
    storage = tmp_path_factory.mktemp("final")
    copied(finished, storage)
    return storage / finished.name


@pytest.fixture(scope="module")
def bundle(swept: Path) -> Bundle:
    output = swept.parent / "whole"
    assert main([str(swept), "--final", "--output", str(output)]) == 0
    return load_bundle(output)


def test_it_is_trained_on_all_sessions_and_nothing_is_held_out(bundle: Bundle, swept: Path, bars_file: Path) -> None:
    used, sealed = bundle.metadata["bars_used"], load_model(swept / "champion")[1]["bars_used"]["refit"]
    held_out = sealed["held_out"]["sessions"]
    assert held_out
    assert used["held_out"] == {"ranges": [], "sessions": []}
    assert [each for each in held_out if each in sealed["trained"]["sessions"]] == []
    assert [each for each in held_out if each not in used["trained"]["sessions"]] == []
    # from the first bar whose features are whole to the last one of the file
    bars, _ = load_bars(bars_file)
    assert used["trained"]["sessions"] == [list(mark) for mark in session_marks(bars)[1:]]
    stamps = bars.timestamp[[390, BARS - 1]].astype("datetime64[ns]").astype("datetime64[m]")
    assert used["trained"]["ranges"] == [[f"{stamp}Z" for stamp in stamps]]


def test_its_verdict_is_the_champions_and_it_says_so(bundle: Bundle, swept: Path) -> None:
    told, summary = bundle.metadata, json.loads((swept / "summary.json").read_text())
    assert told["combine"] == "final"
    assert (told["trial_id"], told["params"]) == (summary["best"]["trial_id"], summary["best"]["params"])
    assert {key: told[key] for key in ("evidence", "cv", "holdout")} == {
        key: summary[key] for key in ("evidence", "cv", "holdout")
    }
    assert told["holdout"]["opened"]
    assert "trained on all bars, the holdout included, after the verdict" in told["evidence_note"]
    assert "all figures and the verdict are those of the champion" in told["evidence_note"]


def test_its_networks_are_others_than_the_champions_of_the_same_seeds(bundle: Bundle, swept: Path) -> None:
    refitted, about = load_model(swept / "refit")
    final, _ = load_model(swept / "final")
    held = bundle.network.state_dict()
    assert bundle.network.members == [tuple(member) for member in about["members"]]
    assert all(torch.equal(held[name], final[name]) for name in held)
    assert not all(torch.equal(held[name], refitted[name]) for name in held)


def test_there_is_nothing_to_verify(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(swept), "--final", "--output", str(tmp_path / "m"), "--verify"]) == 0
    out = capsys.readouterr().out
    assert "(final, 2 networks)" in out
    assert "nothing to verify: " in out
    assert "scored again" not in out


@pytest.mark.parametrize("combine", ["mean", "best", "refit"])
def test_it_is_no_choice_among_networks(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], combine: str
) -> None:
    assert main([str(swept), "--final", "--combine", combine, "--output", str(tmp_path / "m")]) == 2
    assert "leave --combine out" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("shut", [{"opened": False, "why": "opened before by another sweep"}, None])
def test_a_holdout_that_was_not_opened_is_not_trained_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shut: dict[str, object] | None
) -> None:
    copied(finished, tmp_path / "experiments")
    swept = tmp_path / "experiments" / finished.name
    summary = json.loads((swept / "summary.json").read_text())
    (swept / "summary.json").write_text(json.dumps(summary | {"holdout": shut}))
    assert main([str(swept), "--final", "--output", str(tmp_path / "m")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the holdout has not been opened for its champion, and --final trains on it" in line
    assert not (tmp_path / "m").exists()
    assert not (swept / "final").exists()


def test_a_sweep_without_its_summary_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied(finished, tmp_path / "experiments")
    swept = tmp_path / "experiments" / finished.name
    (swept / "summary.json").unlink()
    assert main([str(swept), "--final", "--output", str(tmp_path / "m")]) == 2
    assert "the holdout has not been opened for its champion" in capsys.readouterr().err
