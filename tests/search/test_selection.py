"""What came of the trials: who may win, how they are ranked, and what a leaderboard says of regimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentio_rllib.errors import CheckpointError
from sentio_rllib.policy.checkpoint import MANIFEST, save_model, write_manifest
from sentio_rllib.search.selection import (
    Outcome,
    best_outcome,
    collapsed_gates,
    curves,
    last_checkpoint,
    leaderboard,
    read_best,
    record_of,
    session_returns,
)
from sentio_rllib.sweep.results import gate_line
from sentio_rllib.validation.evaluation import Record

REGIMES = {
    "regime_bars": [300.0, 100.0],
    "regime_return": [0.02, -0.005],
    "regime_trades": [4.0, 1.0],
    "regime_drawdown": [0.25, 0.75],
}


def record(**more: Any) -> dict[str, Any]:
    figures = {"trades": 5, "exposure": 0.4, "mean_return": 1e-5, "turnover_usd": 10.0, "fees_usd": 0.1}
    own = {"session": [0, 2], "session_returns": [0.01, 0.005], "session_exposure": [0.5, 0.3], "opening_exposure": 0.2}
    return {**figures, "drawdown_stops": 0, "bars": 400, **own, **more}


def outcome(slot: int, score: float | None, *, state: str = "completed", trades: float = 3.0, **more: Any) -> Outcome:
    """A trial of two folds and one seed; without a score it was never evaluated."""
    name, params = f"trial_{slot:05d}", {"ppo.learning_rate": 10.0**-slot}
    if score is None:
        return Outcome(slot, name, state, "cut off", params)
    best = {
        "cv_score": score,
        "rung_score": score - 1.0,
        "env_steps": 256,
        "validation_trades": trades,
        "members": [[7, 1], [7, 0]],
        "fold_scores": [[score - 0.5], [score + 0.5]],
        "records": [record(**more), record(**more)],
    }
    curve = [{"env_steps": step, "env_steps_per_s": 100.0 + step} for step in (128, 256)]
    return Outcome(slot, name, state, "budget", params, curve, best)


def test_the_highest_eligible_score_wins_and_the_earlier_of_equals() -> None:
    failed, idle = outcome(0, 9.0, state="failed"), outcome(1, 8.0, trades=0.0)
    cut_off, first, second = outcome(2, None, state="unfinished"), outcome(3, 1.0), outcome(4, 1.0, state="pruned")
    assert [each.eligible for each in (failed, idle, cut_off, first, second)] == [False, False, False, True, True]
    assert best_outcome([failed, second, idle, cut_off, first]) is first
    assert best_outcome([failed, idle, cut_off]) is None
    assert best_outcome([]) is None


def test_one_standard_error_takes_the_least_trained_of_those_within_it() -> None:
    # fold scores lie half a point around the score: a standard error of sqrt(0.5) / sqrt(2) = 0.5
    best, near, less, far = outcome(0, 2.0), outcome(1, 1.6), outcome(2, 1.5), outcome(3, 1.4)
    best.best["env_steps"], near.best["env_steps"], less.best["env_steps"], far.best["env_steps"] = 512, 512, 256, 128
    trials = [best, near, less, far]
    assert best_outcome(trials) is best
    assert best_outcome(trials, "one_standard_error") is less
    less.best["env_steps"] = 512
    assert best_outcome(trials, "one_standard_error") is best  # equally trained: the higher score
    assert best_outcome([outcome(0, 1.0, trades=0.0)], "one_standard_error") is None


def test_one_fold_has_no_standard_error() -> None:
    best, near = outcome(0, 2.0), outcome(1, 1.99)
    for each, steps in ((best, 512), (near, 128)):
        each.best["fold_scores"], each.best["env_steps"] = [[each.cv_score]], steps
    assert best_outcome([best, near], "one_standard_error") is best


def test_curves_have_a_row_for_each_evaluation_and_fold() -> None:
    trial = outcome(0, 2.0)
    shared = {"cv_score": 1.0, "rung_score": 0.5, "entropy": 0.9}
    for index, result in enumerate(trial.curve):
        result.update(shared | {"fold_0_score": float(index), "fold_1_score": 10.0 + index})
    frame = curves([trial, outcome(1, None)])
    assert frame["env_steps"].tolist() == [128, 128, 256, 256]
    assert frame["fold"].tolist() == [0, 1, 0, 1]
    assert frame["fold_score"].tolist() == [0.0, 10.0, 1.0, 11.0]
    assert curves([]).columns.tolist() == frame.columns.tolist()


def test_a_record_survives_its_json() -> None:
    kept = Record(
        session_returns=np.array([0.1, -0.2]),
        session=np.array([3, 5]),
        session_exposure=np.array([0.25, 0.75]),
        session_bars=np.array([4.0, 6.0]),
        bars=10,
        decisions=2,
        trades=1,
        drawdown_stops=0,
        exposure=0.5,
        opening_exposure=0.125,
        mean_return=0.01,
        turnover_usd=1e5,
        fees_usd=100.0,
        trips=1,
        winning_trips=1,
        max_drawdown=0.3,
        longest_drawdown=7,
    )
    plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in vars(kept).items()}
    again = record_of(json.loads(json.dumps(plain)))
    for name, value in vars(kept).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert again.session.dtype == np.int64
    assert again.session_exposure.dtype == np.float64
    assert again.regime_bars.dtype == np.float64


def test_a_trial_without_an_evaluation_has_no_figures() -> None:
    empty, scored = outcome(0, None), outcome(1, 2.0)
    assert np.isnan([empty.cv_score, empty.env_steps_per_s]).all()
    assert empty.env_steps == 0
    assert (scored.cv_score, scored.env_steps, scored.env_steps_per_s) == (2.0, 256, 292.0)


def test_the_leaderboard_puts_who_may_win_first_then_by_score_fold_and_seed() -> None:
    trials = [outcome(0, 9.0, trades=0.0), outcome(1, None, state="unfinished"), outcome(2, 1.0), outcome(3, 2.0)]
    frame = leaderboard(trials)
    order = ["trial_00003"] * 2 + ["trial_00002"] * 2 + ["trial_00000"] * 2 + ["trial_00001"]
    assert frame["trial_id"].tolist() == order
    assert frame["fold"].tolist() == [0, 1, 0, 1, 0, 1, -1]
    assert frame["fold_score"].tolist()[:4] == [1.5, 2.5, 0.5, 1.5]
    assert frame["eligible"].tolist() == [True] * 4 + [False] * 3
    assert frame["ppo.learning_rate"].tolist()[0] == pytest.approx(1e-3)
    assert leaderboard([]).empty


def test_the_leaderboard_tells_the_regimes_of_records_that_know_them() -> None:
    frame = leaderboard([outcome(0, 2.0, **REGIMES), outcome(1, 1.0), outcome(2, None)]).set_index("trial_id")
    wanted = {
        "regime_0_bars_share": 0.75,
        "regime_0_return": 0.02,
        "regime_0_trades": 4.0,
        "regime_0_drawdown_share": 0.25,
        "regime_1_bars_share": 0.25,
        "regime_1_return": -0.005,
        "regime_1_trades": 1.0,
        "regime_1_drawdown_share": 0.75,
    }
    assert [name for name in frame if name.startswith("regime_")] == list(wanted)
    for name, value in wanted.items():
        assert frame.loc["trial_00000", name].tolist() == [value, value]
        assert frame.loc[["trial_00001", "trial_00002"], name].isna().all()


def test_a_leaderboard_of_records_without_regimes_has_no_such_columns() -> None:
    without = leaderboard([outcome(0, 2.0), outcome(1, 1.0, **{name: [] for name in REGIMES})])
    assert not [name for name in without if name.startswith("regime_")]


def test_the_leaderboard_tells_which_buys_were_masked() -> None:
    counts = {"could_buy": 40, "masked_volatility": 10, "masked_clock": 4, "masked_drawdown": 0}
    frame = leaderboard([outcome(0, 2.0, **counts), outcome(1, 1.0, could_buy=0), outcome(2, 0.5)])
    masked = frame[["masked_volatility", "masked_clock", "masked_drawdown"]]
    assert masked[:2].to_numpy().tolist() == [[0.25, 0.1, 0.0]] * 2
    assert masked[2:].isna().all(axis=None)  # of trials without risk masks, and of earlier versions
    assert "masked_clock" not in leaderboard([outcome(0, 2.0)]).columns


def test_session_returns_in_long_form() -> None:
    frame = session_returns([outcome(0, 2.0), outcome(1, None)], ["mon", "tue", "wed"])
    assert frame["session"].tolist() == ["mon", "wed"] * 2
    assert frame["fold"].tolist() == [1, 1, 0, 0]
    assert frame["net_return"].tolist() == [0.01, 0.005] * 2
    nothing = session_returns([], [])
    assert nothing.empty
    assert nothing.columns.tolist() == frame.columns.tolist()


def checkpoint(folder: Path, score: float) -> Path:
    """A checkpoint as far as selection reads it: a verified folder with the best model below it."""
    save_model(folder / "best", {"weight": torch.zeros(2)}, {"cv_score": score})
    write_manifest(folder)
    return folder


def test_the_newest_intact_checkpoint_counts_and_newer_broken_ones_are_named(tmp_path: Path) -> None:
    older, newer = (checkpoint(tmp_path / f"checkpoint_{index:06d}", float(index)) for index in range(2))
    assert last_checkpoint(tmp_path) == (newer, "")
    assert read_best(newer) == {"cv_score": 1.0}
    (newer / "best" / "metadata.json").write_text("{}")
    path, note = last_checkpoint(tmp_path)
    assert path == older
    assert "checkpoint_000001" in note
    assert "SHA-256 differs" in note
    with pytest.raises(CheckpointError, match=r"metadata\.json is not what was written"):
        read_best(newer)
    (older / MANIFEST).write_text("{ torn")
    path, note = last_checkpoint(tmp_path)
    assert path is None
    assert "cannot be read" in note
    (older / MANIFEST).unlink()
    assert f"{MANIFEST} is missing" in last_checkpoint(tmp_path)[1]


def test_no_checkpoint_and_none_that_was_scored_have_no_best(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) == (None, "")
    assert read_best(None) == {}
    assert read_best(tmp_path) == {}


def test_a_collapsed_gate_is_named_and_a_working_one_measured() -> None:
    best = {
        "gate_usage": [[0.97, 0.03], [0.5, 0.5]],
        "gate_entropy": [0.1, 0.2],
        "gate_information": [0.02, 0.49],
    }
    assert collapsed_gates(best) == 1
    assert collapsed_gates({}) == 0
    gate = {"usage": best["gate_usage"], "information": best["gate_information"]}
    assert "collapsed in 1 of 2 members" in gate_line(gate | {"collapsed": 1})
    assert "carries 0.26 of at most 0.69 nats" in gate_line(gate | {"collapsed": 0})
