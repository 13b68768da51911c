"""Sweeps of arms: they train, compare, go on and are measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sentio_rllib.config.loading import load_config
from sentio_rllib.config.space import ARM
from sentio_rllib.errors import SweepError
from sentio_rllib.evidence.champion import CHAMPION
from sentio_rllib.policy.checkpoint import load_model
from sentio_rllib.sweep.dry_run import dry_run
from sentio_rllib.sweep.folder import CONFIG
from sentio_rllib.sweep.results import print_summary
from sentio_rllib.sweep.run import run_sweep
from tests.sweep_checks import board_of, labels, study_of
from tests.tiny_sweep import COMPARED, EVALUATE_EVERY, PARTS, tiny_config, tiny_values, write_config

ENHANCED: dict[str, Any] = {
    "variant": "enhanced-maskable",
    "policy": {"hidden": [8], "d_model": 8, "heads": 2, "layers": 1, "band": 4, "quantiles": 5},
    "ppo__sequence_length": 16,
    **{f"search__{key}": value for key, value in COMPARED.items()},
    "search__space": {},
    "search__env_steps": 2 * EVALUATE_EVERY,
    "search__arms": PARTS,
    "validation__seeds": 2,
}


def without_trials(values: dict[str, Any]) -> dict[str, Any]:
    del values["search"]["trials"]
    return values


@pytest.fixture(scope="module")
def compared(bars_file: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """A sweep of three arms, the third of which was added by a resume."""
    storage = tmp_path_factory.mktemp("compared")
    first = run_sweep(tiny_config(bars_file, storage, **ENHANCED, search__trials=2))
    assert [result["state"] for result in first["arms"]["results"]] == ["completed", "completed", "not started"]
    values = without_trials(tiny_values(bars_file, storage, **ENHANCED))
    run_sweep(load_config(write_config(values, storage / "tiny.yaml")), resume=True)
    return storage / "tiny"


def test_a_sweep_of_arms_trains_and_compares_them(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((compared / "summary.json").read_text())
    assert (summary["state"], summary["trials"]["asked"], summary["trials"]["completed"]) == ("completed", 3, 3)
    arms = summary["arms"]
    assert (arms["baseline"], arms["equal_steps"]) == ("enhanced", True)
    board = board_of(compared)
    assert board.groupby("trial_id")[ARM].unique().map(list).to_dict() == dict(
        zip(labels(3), ([name] for name in PARTS), strict=True)
    )
    base = board[board[ARM] == "enhanced"].set_index(["fold", "seed"])["fold_score"]
    for result in arms["results"]:
        rows = board[board[ARM] == result["name"]].set_index(["fold", "seed"])
        assert len(rows) == 4
        assert result["score"] == pytest.approx(rows["fold_score"].mean())
        assert result["env_steps"] == 2 * EVALUATE_EVERY
        assert result["changes"] == PARTS[result["name"]]
        if result["difference"] is not None:
            assert (result["difference"]["pairs"], result["difference"]["missing"]) == (4, 0)
            assert result["difference"]["mean"] == pytest.approx((rows["fold_score"] - base).mean())
    print_summary(summary, compared)
    said = capsys.readouterr().out
    assert "arms, each at its best evaluation, and paired differences to enhanced" in said
    assert all(name in said for name in PARTS)


def test_the_trials_of_arms_have_their_networks(compared: Path) -> None:
    config = load_config(compared / CONFIG)
    assert list(config.search.arms) == list(PARTS)
    assert [trial.params for trial in study_of(compared)] == [{ARM: name} for name in PARTS]
    weights: dict[str, set[str]] = {}
    for label, name in zip(labels(3), PARTS, strict=True):
        last = sorted(compared.glob(f"trials/run_*/{label}/checkpoint_*"))[-1]
        if (last / "best").is_dir():
            found, metadata = load_model(last / "best")
            assert metadata["params"] == {ARM: name}
            weights[name] = {key.partition(".")[0] for key in found}
    assert "policy_encoder" in weights["enhanced"]
    assert "policy_encoder" not in weights["no transformer"] | weights["maskable"]
    assert (compared / CHAMPION).exists() == (json.loads((compared / "summary.json").read_text())["best"] is not None)


def test_a_sweep_is_not_resumed_with_other_arms(compared: Path, bars_file: Path) -> None:
    others = {**PARTS, "maskable": {"trading.masks": "state"}}
    with pytest.raises(SweepError, match=r"search\.arms: was .* put it back or choose another --name"):
        run_sweep(tiny_config(bars_file, compared.parent, **{**ENHANCED, "search__arms": others}), resume=True)


def test_a_dry_run_measures_each_arm(bars_file: Path, tmp_path: Path, ray_cluster: None, capsys: Any) -> None:
    values = without_trials(tiny_values(bars_file, tmp_path, **ENHANCED))
    dry_run(load_config(write_config(values, tmp_path / "tiny.yaml")))
    said = capsys.readouterr().out
    assert "3 trials x 4 members (2 folds x 2 seeds), at most 256 env steps each" in said
    assert all(f"arm {name}: measured: " in said for name in PARTS)
