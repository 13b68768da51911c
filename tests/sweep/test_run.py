"""Whole sweeps: the files they leave, what the study is told, and that a broken sweep ends as an unbroken one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from optuna.trial import FrozenTrial, TrialState

from sentio_rllib.config.loading import load_config
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import SplitError, SweepError
from sentio_rllib.policy.checkpoint import load_model
from sentio_rllib.search.prepare import prepare
from sentio_rllib.sweep.folder import CONFIG, FINGERPRINT, hold
from sentio_rllib.sweep.run import run_sweep
from tests.sweep_checks import assert_complete, board_of, labels, study_of, timeless
from tests.tiny_sweep import EVALUATE_EVERY, SPACE, copied, market_frame, tiny_config

pytestmark = pytest.mark.usefixtures("ray_cluster")


def by_label(trials: list[FrozenTrial]) -> dict[str, FrozenTrial]:
    return {trial.user_attrs["label"]: trial for trial in trials}


def test_the_files_of_a_sweep(finished: Path) -> None:
    names = {
        "config.yaml", "fingerprint.json", "study.db", "trials", "leaderboard.parquet", "returns.parquet",
        "summary.json", "champion", "refit", "curves.parquet", "equity.parquet", "folds.json", "report.html",
    }  # fmt: skip
    assert {path.name for path in finished.iterdir()} == names
    config = load_config(finished / CONFIG)
    assert config.search.trials == 4
    printed = json.loads((finished / FINGERPRINT).read_text())
    assert printed.keys() == {"data", "code", "features", "config", "sweep"}
    assert printed["config"] == config.fingerprint()

    summary = json.loads((finished / "summary.json").read_text())
    assert summary.keys() >= {"name", "state", "variant", "data", "trials", "best", "throughput"}
    assert (summary["name"], summary["state"], summary["variant"]) == ("tiny", "completed", "maskable")
    frame = market_frame()
    assert summary["data"] == {
        "market": "PLANTED",
        "calendar": "XNYS",
        "hours": "regular",
        "costs": "fee 0.1% a side",
        "fingerprint": printed["data"],
        "bars": len(frame),
        "first": frame["timestamp"].iloc[0].strftime("%Y-%m-%dT%H:%MZ"),
        "last": frame["timestamp"].iloc[-1].strftime("%Y-%m-%dT%H:%MZ"),
    }
    board = board_of(finished)
    states = board.drop_duplicates("trial_id")["state"].value_counts().to_dict()
    assert states.keys() == {"completed", "pruned"}
    assert summary["trials"] == {"asked": 4, "total": 4, "failed": 0, "unfinished": 0, **states}
    steps = board.drop_duplicates("trial_id")["env_steps"].sum()
    assert summary["throughput"]["env_steps"] == steps
    assert summary["throughput"]["member_steps"] == 2 * steps
    assert summary["throughput"]["env_steps_per_s"] > 0
    assert sorted(summary["throughput"]["env_steps_per_s_by_trial"]) == labels(4)


def test_the_leaderboard_has_a_row_for_each_trial_fold_and_seed_and_says_why_each_ended(finished: Path) -> None:
    board = board_of(finished)
    assert_complete(finished, 4)
    assert board["cv_score"].is_monotonic_decreasing
    assert set(board["fold"]) == {0, 1}
    assert len(set(board["seed"])) == 1
    for label, rows in board.groupby("trial_id"):
        scores = rows.sort_values("fold")["fold_score"].to_numpy()
        assert rows["cv_score"].to_numpy() == pytest.approx(scores.mean() - 0.5 * scores.std(ddof=1)), label
        low, high = SPACE["ppo.learning_rate"]["loguniform"]
        assert rows["ppo.learning_rate"].between(low, high).all()
        ended = rows["ended"].iloc[0]
        last = int(rows["env_steps"].iloc[0])
        assert rows["evaluations"].iloc[0] == last // EVALUATE_EVERY
        if rows["state"].iloc[0] == "completed":
            assert ended == f"budget at {last:,} env steps"
            assert last == 4 * EVALUATE_EVERY
        else:
            assert ended.startswith(f"stopped by asha at {last} env steps: rung_score -")
            assert last < 4 * EVALUATE_EVERY
    first = board[board["trial_id"] == "trial_0000"]
    assert set(first["ppo.learning_rate"]) == {3e-3}, "the default configuration is trial 0"


def test_the_session_returns_are_those_that_the_folds_were_scored_by(finished: Path) -> None:
    returns = pd.read_parquet(finished / "returns.parquet")
    for row in board_of(finished).itertuples():
        own = returns[(returns["trial_id"] == row.trial_id) & (returns["fold"] == row.fold)]
        assert set(own["seed"]) == {row.seed}
        assert own["session"].is_unique
        values = own["net_return"].to_numpy()
        sharpe = values.mean() / values.std(ddof=1) * np.sqrt(252)
        assert row.fold_score == pytest.approx(sharpe, rel=1e-9)
    folds = [set(part["session"]) for _, part in returns.groupby("fold")]
    assert len(folds[0] & folds[1]) <= 1, "blocks share at most the session in which one ends"
    last = pd.Timestamp(market_frame()["timestamp"].iloc[-1]).date()
    held_out = pd.to_datetime(returns["session"]).dt.date.max()
    assert held_out < last, "no session of the holdout was scored"


def test_the_study_is_told_how_each_trial_really_ended(finished: Path) -> None:
    board = board_of(finished).drop_duplicates("trial_id").set_index("trial_id")
    for label, trial in by_label(study_of(finished)).items():
        assert len(trial.intermediate_values) == board.loc[label, "evaluations"]
        assert list(trial.intermediate_values) == [
            EVALUATE_EVERY * (index + 1) for index in range(len(trial.intermediate_values))
        ]
        if board.loc[label, "state"] == "completed":
            assert trial.state is TrialState.COMPLETE
            assert trial.user_attrs["reason"] == "budget"
            assert trial.value is not None
        else:
            assert trial.state is TrialState.PRUNED
            assert trial.value == pytest.approx(list(trial.intermediate_values.values())[-1])


def test_the_champion_is_the_best_trial_at_its_best_evaluation(finished: Path) -> None:
    best = json.loads((finished / "summary.json").read_text())["best"]
    top = board_of(finished).iloc[0]
    weights, metadata = load_model(finished / "champion")
    assert top["eligible"]
    assert top["trial_id"] == best["trial_id"] == metadata["trial_id"]
    assert top["cv_score"] == best["cv_score"] == metadata["cv_score"]
    assert best["params"] == metadata["params"] == {"ppo.learning_rate": top["ppo.learning_rate"]}
    assert top["env_steps_of_best"] == best["env_steps"] == metadata["env_steps"]
    assert len(metadata["folds"]) == len(best["fold_scores"]) == 2
    assert all(len(value) == 2 for value in weights.values()), "one network for each fold"
    assert {path.name for path in (finished / "champion").iterdir()} == {
        "manifest.json", "metadata.json", "model.safetensors",
    }  # fmt: skip


def test_the_same_seed_gives_the_same_leaderboard_also_where_trials_are_added_later(
    finished: Path, bars_file: Path, tmp_path: Path
) -> None:
    first = run_sweep(tiny_config(bars_file, tmp_path, search__trials=2))
    assert first["trials"] == {"asked": 2, "total": 2, "completed": 2, "pruned": 0, "failed": 0, "unfinished": 0}
    assert_complete(tmp_path / "tiny", 2)
    extended = run_sweep(tiny_config(bars_file, tmp_path), resume=True)
    assert_complete(tmp_path / "tiny", 4)
    pd.testing.assert_frame_equal(timeless(tmp_path / "tiny"), timeless(finished))
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "tiny/returns.parquet"), pd.read_parquet(finished / "returns.parquet")
    )
    assert load_model(tmp_path / "tiny/champion")[1]["cv_score"] == load_model(finished / "champion")[1]["cv_score"]
    assert extended["trials"]["asked"] == 4
    made = sum(board_of(tmp_path / "tiny").drop_duplicates("trial_id")["env_steps"].iloc[:4])
    rates = extended["throughput"]
    assert rates["env_steps"] == made
    assert rates["env_steps_per_s"] * rates["seconds"] == pytest.approx(made - first["throughput"]["env_steps"])


def untell(folder: Path, label: str) -> None:
    """Make the study believe that a trial still runs, as where the driver is killed before it tells the end."""
    number = by_label(study_of(folder))[label].number
    with sqlite3.connect(folder / "study.db") as database:
        database.execute("UPDATE trials SET state = 'RUNNING', datetime_complete = NULL WHERE number = ?", [number])
        database.execute(
            "DELETE FROM trial_values WHERE trial_id = (SELECT trial_id FROM trials WHERE number = ?)", [number]
        )
        database.execute(
            "DELETE FROM trial_user_attributes WHERE key = 'reason' AND trial_id = "
            "(SELECT trial_id FROM trials WHERE number = ?)",
            [number],
        )  # fmt: skip
    database.close()


@pytest.mark.parametrize("state", ["completed", "pruned"])
def test_a_trial_that_had_ended_when_the_driver_was_killed_is_told_as_it_ended(
    finished: Path, tmp_path: Path, state: str
) -> None:
    config = copied(finished, tmp_path)
    board = board_of(finished)
    untell(tmp_path / "tiny", board[board["state"] == state]["trial_id"].iloc[0])
    run_sweep(config, resume=True)
    assert_complete(tmp_path / "tiny", 4)
    assert len(study_of(tmp_path / "tiny")) == 4, "no trial ran again"
    pd.testing.assert_frame_equal(timeless(tmp_path / "tiny"), timeless(finished))


def test_a_trial_that_was_killed_before_its_last_checkpoint_repeats_its_last_evaluation(
    finished: Path, tmp_path: Path
) -> None:
    config = copied(finished, tmp_path)
    label = board_of(finished).query("state == 'completed'")["trial_id"].iloc[0]
    untell(tmp_path / "tiny", label)
    last = sorted((tmp_path / "tiny/trials/run_000" / label).glob("checkpoint_*"))[-1]
    (last / "manifest.json").unlink()  # the copy was under way
    run_sweep(config, resume=True)
    assert_complete(tmp_path / "tiny", 4)
    pd.testing.assert_frame_equal(timeless(tmp_path / "tiny"), timeless(finished))
    repeated = (tmp_path / "tiny/trials/run_001" / label / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["env_steps"] for line in repeated] == [4 * EVALUATE_EVERY]
    assert [trial.state for trial in study_of(tmp_path / "tiny")].count(TrialState.FAIL) == 1


def test_a_broken_last_checkpoint_falls_back_to_the_one_before_and_the_leaderboard_says_so(
    finished: Path, tmp_path: Path
) -> None:
    config = copied(finished, tmp_path)
    label = board_of(finished).query("state == 'completed'")["trial_id"].iloc[0]
    last = sorted((tmp_path / "tiny/trials/run_000" / label).glob("checkpoint_*"))[-1]
    victim = last / "best" / "model.safetensors"
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(bytes(content))
    summary = run_sweep(config, resume=True)
    ended = board_of(tmp_path / "tiny").set_index("trial_id").loc[label, "ended"].iloc[0]
    assert ended.startswith("budget at 512 env steps; ")
    assert f"{last}: best/model.safetensors is not what was written (SHA-256 differs)" in ended
    assert summary["trials"]["completed"] + summary["trials"]["pruned"] == 4


def test_the_time_budget_ends_a_sweep_that_resume_completes(bars_file: Path, tmp_path: Path) -> None:
    short = tiny_config(bars_file, tmp_path, search__minutes=1e-4, search__trials=2)
    summary = run_sweep(short)
    assert summary["state"] == "budget too short"
    assert summary["best"] is None
    assert summary["trials"]["unfinished"] == summary["trials"]["total"] >= 1
    assert not (tmp_path / "tiny/champion").exists()
    ended = board_of(tmp_path / "tiny")["ended"]
    assert set(ended) == {"cut off before its first evaluation; goes on with --resume"}
    summary = run_sweep(tiny_config(bars_file, tmp_path, search__trials=2), resume=True)
    assert summary["state"] == "completed"
    assert_complete(tmp_path / "tiny", 2)


def errors(action: Callable[[], object]) -> list[str]:
    with pytest.raises(SweepError) as caught:
        action()
    return list(caught.value.lines)


def test_a_used_name_is_refused_and_nothing_is_resumed_where_nothing_is(
    finished: Path, bars_file: Path, tmp_path: Path
) -> None:
    used = load_config(finished / CONFIG)
    [line] = errors(lambda: run_sweep(used))
    assert line == f"{finished}: the name is used; pass --resume to go on with it, or another --name"
    [line] = errors(lambda: run_sweep(tiny_config(bars_file, tmp_path), resume=True))
    assert line == f"{tmp_path / 'tiny'}: there is no sweep to resume; start it without --resume"
    assert list(tmp_path.iterdir()) == []


def test_changed_keys_are_named_at_resume(finished: Path, bars_file: Path) -> None:
    storage = finished.parent
    changed = tiny_config(bars_file, storage, ppo__gamma=0.9, trading__fee_rate=0.0, search__trials=9)
    lines = errors(lambda: run_sweep(changed, resume=True))
    assert [line.partition(":")[0] for line in lines] == ["trading.fee_rate", "ppo.gamma"]
    assert lines[1] == "ppo.gamma: was 0.99 when the sweep was started, is 0.9; put it back or choose another --name"


def on_own_bars(finished: Path, folder: Path) -> tuple[SweepConfig, Path]:
    bars = folder / "OWN_1m.feather"
    market_frame().to_feather(bars)
    return copied(finished, folder, bars), bars


def test_changed_data_is_refused_at_resume(finished: Path, tmp_path: Path) -> None:
    config, bars = on_own_bars(finished, tmp_path)
    frame = market_frame().copy()
    frame.loc[frame.index[-1], "volume"] += 1  # one bar of the holdout
    frame.to_feather(bars)
    [line] = errors(lambda: run_sweep(config, resume=True))
    assert line.startswith("data: changed since the sweep was started (")


@pytest.mark.parametrize("harm", ["missing", "torn"])
def test_a_sweep_whose_fingerprint_is_lost_is_not_resumed(finished: Path, tmp_path: Path, harm: str) -> None:
    config = copied(finished, tmp_path)
    path = tmp_path / "tiny" / FINGERPRINT
    if harm == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text()[:40])
    [line] = errors(lambda: run_sweep(config, resume=True))
    assert line.startswith(f"{path}: cannot be read (")


def test_a_sweep_that_runs_is_not_resumed_beside_itself(finished: Path, tmp_path: Path) -> None:
    config = copied(finished, tmp_path)
    with hold(tmp_path / "tiny"):
        [line] = errors(lambda: run_sweep(config, resume=True))
    assert line == f"{tmp_path / 'tiny'}: the sweep is running; wait for its end, or end it with Ctrl-C"
    run_sweep(config, resume=True)


def test_resources_that_the_cluster_lacks_are_refused(bars_file: Path, tmp_path: Path) -> None:
    config = tiny_config(bars_file, tmp_path, resources={"cpu": 99.0, "gpu": 0.5})
    lines = errors(lambda: run_sweep(config))
    assert lines == [
        "resources.cpu: a trial asks for 99, the cluster has 2; lower it",
        "resources.gpu: a trial asks for 0.5, the cluster has 0; lower it",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_transformer_that_reads_more_than_a_fold_trains_on_is_refused_once_the_bars_are_known(
    bars_file: Path, tmp_path: Path
) -> None:
    sizes = {"policy__band": 60, "policy__layers": 2, "ppo__sequence_length": 32}
    config = tiny_config(bars_file, tmp_path, variant="enhanced-maskable", **sizes)
    with pytest.raises(SplitError) as caught:
        run_sweep(config)
    [line] = caught.value.lines
    assert line.startswith("policy.band: a decision reads 1785 bars (2 layers, band 60, interval 15), ")
    most = int(line.rpartition(" ")[2])
    assert "the shortest training segment has" in line
    assert 2 < most < 60
    assert list(tmp_path.iterdir()) == []
    changed = config.policy.model_copy(update={"band": most})
    assert len(prepare(config.model_copy(update={"policy": changed})).splits.folds) == 2
