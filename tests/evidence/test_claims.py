"""What a whole sweep claims: the sealed holdout, its one opening, the champion of fresh seeds, the ledger."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sentio_rllib.config.loading import load_config
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import LeakError, SweepError
from sentio_rllib.evidence.claims import judge
from sentio_rllib.evidence.context import Context
from sentio_rllib.evidence.examiner import Examiner
from sentio_rllib.evidence.holdout import evaluate_ensemble, open_holdout
from sentio_rllib.evidence.ledger import Ledger
from sentio_rllib.evidence.refit import REFIT, refit, refit_seeds, refit_settings
from sentio_rllib.evidence.selecting import select
from sentio_rllib.evidence.session_marks import session_marks
from sentio_rllib.evidence.tally import open_tally
from sentio_rllib.market.tape import build_tape
from sentio_rllib.policy.checkpoint import load_model
from sentio_rllib.search import prepare as preparing
from sentio_rllib.search.durable import write_text
from sentio_rllib.search.interruption import Interruption
from sentio_rllib.search.prepare import members_of, prepare
from sentio_rllib.search.trials import read_outcomes
from sentio_rllib.search.tuning import SearchCourse, Searched
from sentio_rllib.statistics.metrics import sharpe
from sentio_rllib.sweep.folder import CONFIG
from sentio_rllib.sweep.outcome import write_outcome
from sentio_rllib.sweep.run import run_sweep
from tests.tiny_sweep import copied, market_frame, tiny_config

# one evaluation and a network that trades from the start
QUICK: dict[str, Any] = {
    "search__trials": 2,
    "search__env_steps": 128,
    "search__space": {"ppo.learning_rate": {"loguniform": [1e-4, 1e-2]}},
    "search__scheduler": "none",
    "validation__holdout": 0.5,  # 21 sessions
}


def summary_of(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return held


@pytest.fixture(scope="module")
def long_bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bars with sessions enough for every statistic."""
    path = tmp_path_factory.mktemp("bars") / "LONG_1m.feather"
    frame = market_frame(16_500)
    frame.to_feather(path)
    return path


@pytest.fixture(scope="module")
def judged(long_bars: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """The folder of a sweep that opened its holdout."""
    storage = tmp_path_factory.mktemp("judged")
    run_sweep(tiny_config(long_bars, storage, **QUICK, validation__folds=2, evidence__probes=True))
    return storage / "tiny"


def config_of(folder: Path) -> SweepConfig:
    return load_config(folder / CONFIG)


def test_everything_is_told(judged: Path) -> None:
    summary = summary_of(judged)
    evidence = summary["evidence"]
    assert evidence["verdict"] in {"supported", "not supported"}
    assert evidence["missing"] == []
    names = ("n_trials", "effective_trials", "psr", "dsr", "pbo", "spa_p", "min_btl_years")
    assert all(evidence[name] is not None for name in names)
    assert summary["holdout"]["opened"]
    assert summary["holdout"]["openings"] == 1
    assert set(summary["holdout"]["baselines"]) == set(summary["cv"]["baselines"]) == {"flat", "hold", "sma", "random"}
    assert set(summary["targets"]) == {"monthly_return", "sharpe", "max_drawdown", "win_rate"}
    assert (judged / "report.html").stat().st_size > 10_000


def test_the_figures_are_those_of_the_files(judged: Path) -> None:
    summary, returns = summary_of(judged), pd.read_parquet(judged / "returns.parquet")
    best = summary["best"]["trial_id"]
    grown = returns.assign(growth=1.0 + returns["net_return"])[returns["trial_id"] == best]
    mine = grown.groupby("session")["growth"].prod() - 1.0  # one seed, folds side by side
    assert summary["cv"]["metrics"]["sharpe"] == pytest.approx(sharpe(mine.to_numpy(), 252))
    assert summary["evidence"]["raw"]["sharpe"] == pytest.approx(sharpe(mine.to_numpy(), 252))
    equity = pd.read_parquet(judged / "equity.parquet")
    cv = equity[equity["part"] == "cv"]
    np.testing.assert_allclose(cv["champion"], mine.to_numpy())
    held = equity[equity["part"] == "holdout"]
    assert summary["holdout"]["metrics"]["sharpe"] == pytest.approx(sharpe(held["champion"].to_numpy(), 252))
    assert set(cv["session"]).isdisjoint(held["session"])
    curves = pd.read_parquet(judged / "curves.parquet")
    at_best = curves[(curves["trial_id"] == best) & (curves["env_steps"] == summary["best"]["env_steps"])]
    assert at_best.sort_values("fold")["fold_score"].tolist() == [
        np.median(each) for each in summary["best"]["fold_scores"]
    ]


def test_the_champion_has_fresh_seeds_and_never_saw_the_holdout(judged: Path) -> None:
    config = config_of(judged)
    prepared = prepare(config)
    tuning = {seed for seed, _ in members_of(config, prepared.splits)}
    seeds = refit_seeds(config, prepared)
    assert len(set(seeds)) == config.evidence.refit_seeds
    assert tuning.isdisjoint(seeds)
    weights, metadata = load_model(judged / REFIT)
    assert [seed for seed, _ in metadata["members"]] == seeds
    assert metadata["env_steps"] == summary_of(judged)["best"]["env_steps"]
    settings = refit_settings(config, prepared, metadata["params"])
    before = prepared.splits.footprint.before
    (block, *_) = prepared.splits.holdout_blocks
    assert max(each.stop for each in settings.folds[0].train) <= block.start - before
    assert prepared.tape.n <= block.start - before
    # what the summary tells of the holdout is what these weights earn there
    tape = build_tape(prepared.bars, reference_volatility=config.features.reference_volatility)
    record = evaluate_ensemble(weights, settings, tape, prepared)
    told = summary_of(judged)["holdout"]["metrics"]
    assert told["trades"] == record.trades
    assert told["sharpe"] == pytest.approx(sharpe(record.session_returns, 252))


def test_another_sweep_on_the_same_bars_does_not_get_in(judged: Path, long_bars: Path, ray_cluster: None) -> None:
    storage = judged.parent
    shut = run_sweep(tiny_config(long_bars, storage, name="second", **QUICK))
    assert not shut["holdout"]["opened"]
    assert "--reopen-holdout" in shut["holdout"]["why"]
    assert shut["evidence"]["verdict"] == "not supported"
    assert any("--reopen-holdout" in reason for reason in shut["evidence"]["reasons"])
    assert shut["targets"]["sharpe"]["holdout"] is None
    again = run_sweep(tiny_config(long_bars, storage, name="second", **QUICK), resume=True, reopen_holdout=True)
    assert again["holdout"]["opened"]
    assert again["holdout"]["reopened"]
    assert again["holdout"]["openings"] == 2
    assert again["evidence"]["verdict"] == "not supported"
    assert any("opened 2 times" in reason for reason in again["evidence"]["reasons"])
    # every trial of both sweeps counts
    assert again["evidence"]["ledger"]["configurations"] == 4
    assert again["evidence"]["ledger"]["sweeps"] == 2
    assert again["evidence"]["n_trials"] > summary_of(judged)["evidence"]["n_trials"]


def test_going_on_with_the_same_champion_is_no_second_opening(judged: Path, ray_cluster: None) -> None:
    before = summary_of(judged)
    after = run_sweep(config_of(judged), resume=True)
    assert after["holdout"]["openings"] == before["holdout"]["openings"] == 1
    assert after["holdout"]["metrics"] == before["holdout"]["metrics"]
    assert after["evidence"]["raw"]["sharpe"] == before["evidence"]["raw"]["sharpe"]


def concluded(sweep: Context) -> dict[str, Any]:
    """What a sweep comes to after its search."""
    course = SearchCourse(seconds=1.0, steps_before=0, remaining=0, interrupted=False)
    searched = Searched(read_outcomes(sweep.folder, sweep.config), course)
    selected = select(sweep, searched)
    opened = open_holdout(sweep, selected, refit(sweep, selected), reopen=False)
    return write_outcome(sweep, searched, selected, judge(sweep, selected, opened))


def test_a_champion_that_is_given_up_ends_no_sweep(judged: Path, tmp_path: Path, ray_cluster: None) -> None:
    config = copied(judged, tmp_path)
    folder = tmp_path / "tiny"
    shutil.rmtree(folder / REFIT)
    ledger = Ledger(str(tmp_path / "own.sqlite"))
    prepared = prepare(config)
    interruption = Interruption()
    sweep = Context(folder, config, prepared, open_tally(ledger, "own", "tiny", 2, prepared), interruption)
    interruption.seen = True
    summary = concluded(sweep)
    assert summary["state"] == "interrupted"
    assert not summary["holdout"]["opened"]
    assert not ledger.openings_on(sweep.tally.holdout)
    interruption.seen = False
    after = concluded(sweep)
    assert after["state"] == "completed"
    # trained anew, it is the same champion
    assert after["holdout"]["metrics"] == summary_of(judged)["holdout"]["metrics"]


def test_the_ledger_holds_what_the_sweep_tells(judged: Path) -> None:
    config = config_of(judged)
    prepared = prepare(config)
    ledger = Ledger(config.evidence.ledger)
    hashes = session_marks(prepared.bars)
    uid = json.loads((judged / "fingerprint.json").read_text())["sweep"]
    trials = [trial for trial in ledger.trials_on(hashes[:1] + hashes[5:6]) if trial.uid == uid]
    assert [trial.trial_id for trial in trials] == ["trial_0000", "trial_0001"]
    examiner = Examiner(config, prepared)
    for trial, outcome in zip(trials, read_outcomes(judged, config), strict=True):
        assert trial.state == outcome.state
        assert trial.members == 2
        assert trial.evaluations == sum(each["validation_trades"] > 0 for each in outcome.curve)
        assert trial.sharpe == pytest.approx(sharpe(examiner.series(outcome).raw, 1))


def test_too_few_sessions_are_not_enough_data(finished: Path) -> None:
    summary = summary_of(finished)
    assert summary["evidence"]["verdict"] == "not enough data"
    assert any("needed 20 or more" in reason for reason in summary["evidence"]["reasons"])
    assert summary["evidence"]["spa_p"] is None


def test_stress_is_told_where_it_is_asked_for(judged: Path) -> None:
    assert summary_of(judged)["stress"] is None
    config = config_of(judged)
    best = next(
        each for each in read_outcomes(judged, config) if each.trial_id == summary_of(judged)["best"]["trial_id"]
    )
    stress = Examiner(config, prepare(config)).stress(best)
    first = stress["rows"][0]
    assert first["sharpe"] == pytest.approx(summary_of(judged)["cv"]["metrics"]["sharpe"])
    names = [row["name"] for row in stress["rows"]]
    assert [name for name in names if name.startswith("delay")] == ["delay 1 bar", "delay 2 bars", "delay 3 bars"]


def test_a_ledger_that_cannot_be_written_stops_the_sweep_before_it_starts(
    bars_file: Path, tmp_path: Path, ray_cluster: None
) -> None:
    (tmp_path / "file").write_text("no folder")
    config = tiny_config(bars_file, tmp_path, evidence__ledger=str(tmp_path / "file" / "ledger.sqlite"))
    with pytest.raises(SweepError, match=r"evidence\.ledger"):
        run_sweep(config)
    assert not (tmp_path / "tiny").exists()


def test_a_ledger_that_does_not_know_the_sweep_cannot_go_on_with_it(
    judged: Path, tmp_path: Path, ray_cluster: None
) -> None:
    config = copied(judged, tmp_path)
    (tmp_path / "empty").mkdir()
    elsewhere = config.evidence.model_copy(update={"ledger": str(tmp_path / "empty" / "ledger.sqlite")})
    with pytest.raises(SweepError, match=r"evidence\.ledger"):
        run_sweep(config.model_copy(update={"evidence": elsewhere}), resume=True)
    write_text(tmp_path / "tiny" / CONFIG, config.model_copy(update={"evidence": elsewhere}).to_yaml())
    with pytest.raises(SweepError, match="does not know the sweep"):
        run_sweep(config_of(tmp_path / "tiny"), resume=True)


def test_a_leak_stops_the_sweep_before_it_starts(
    bars_file: Path, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaking(*_: object, **__: object) -> None:
        raise LeakError("leak probe 'x': found")

    monkeypatch.setattr(preparing, "check_leaks", leaking)
    with pytest.raises(LeakError):
        run_sweep(tiny_config(bars_file, tmp_path, evidence__probes=True))
    assert not (tmp_path / "tiny").exists()


def test_a_copy_of_a_sweep_is_the_same_sweep(judged: Path, tmp_path: Path, ray_cluster: None) -> None:
    config = copied(judged, tmp_path)
    counted = run_sweep(config, resume=True)["evidence"]["ledger"]
    assert counted["configurations"] in {2, 4}  # of two sweeps where the other test has run; never counted twice
    trials = Ledger(config.evidence.ledger).trials_on(session_marks(prepare(config).bars))
    assert len({(trial.uid, trial.trial_id) for trial in trials}) == len(trials) == counted["configurations"]
