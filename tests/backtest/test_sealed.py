"""The holdout is read past no ledger: a runner-up is refused there, or its look is recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from sentio_rllib.backtest.__main__ import main as backtest
from sentio_rllib.config.loading import load_config
from sentio_rllib.deploy.bundle import load_bundle
from sentio_rllib.evidence.ledger import Ledger
from sentio_rllib.evidence.session_marks import SessionMark, session_marks
from sentio_rllib.market.bars import load_bars
from sentio_rllib.pull.__main__ import main as pull


@pytest.fixture(scope="module")
def runner_up(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a trial that is not the champion."""
    best = json.loads((finished / "summary.json").read_text())["best"]["trial_id"]
    other = next(f"trial_{number:04d}" for number in range(4) if f"trial_{number:04d}" != best)
    folder = tmp_path_factory.mktemp("models") / "other"
    assert pull([str(finished), "--trial", other, "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def ledger(finished: Path, tmp_path: Path) -> Path:
    """A copy of the sweep's ledger."""
    return shutil.copy(load_config(finished / "config.yaml").evidence.ledger, tmp_path / "ledger.sqlite")


def held_of(bundle: Path) -> list[SessionMark]:
    return [SessionMark(*each) for each in load_bundle(bundle).metadata["bars_used"]["held_out"]["sessions"]]


def test_a_runner_up_is_refused_on_the_holdout_and_the_ledger_knows_of_each_look(
    runner_up: Path, bars_file: Path, ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = held_of(runner_up)
    assert len(Ledger(ledger).openings_on(held)) == 1  # the sweep's own, for its champion
    command = [str(runner_up), "--data", str(bars_file), "--ledger", str(ledger)]
    assert backtest(command) == 2
    told = capsys.readouterr().err
    assert "are held out by a sweep" in told
    assert "--open-holdout" in told
    assert len(Ledger(ledger).openings_on(held)) == 1

    for _ in range(2):  # the same networks on the same sessions are the same look
        assert backtest([*command, "--open-holdout"]) == 0
        assert "opening 2 of these sessions was recorded" in capsys.readouterr().out.replace("\n", " ")
        assert len(Ledger(ledger).openings_on(held)) == 2


@pytest.mark.parametrize("minutes", [1, 30])
def test_sessions_cut_before_their_end_are_sealed_all_the_same(
    runner_up: Path, bars_file: Path, ledger: Path, tmp_path: Path, minutes: int
) -> None:
    frame = pd.read_feather(bars_file)
    clock = frame["timestamp"].dt.tz_convert("America/New_York")
    early = frame[clock.dt.hour * 60 + clock.dt.minute < 16 * 60 - minutes]
    renamed = tmp_path / "OTHER_1m.feather"
    early.reset_index(drop=True).to_feather(renamed)
    command = [str(runner_up), "--data", str(renamed), "--set", "data.max_missing=1.0", "--ledger", str(ledger)]
    assert backtest(command) == 2  # a new name makes no other market of it
    shutil.copy(renamed, tmp_path / "PLANTED_1m.feather")
    command[2] = str(tmp_path / "PLANTED_1m.feather")
    assert backtest(command) == 2
    assert len(Ledger(ledger).openings_on(held_of(runner_up))) == 1


def test_a_ledger_that_does_not_know_the_sweep_records_nothing(
    runner_up: Path, bars_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(runner_up), "--data", str(bars_file), "--open-holdout", "--ledger", str(tmp_path / "gone.sqlite")]
    assert backtest(command) == 2
    assert "there is no ledger that knows the sweep" in capsys.readouterr().err
    assert not (tmp_path / "gone.sqlite").exists()
    Ledger(tmp_path / "gone.sqlite")
    assert backtest(command) == 2


def test_what_another_sweep_holds_out_is_sealed_for_this_bundle_too(
    finished: Path, bars_file: Path, ledger: Path, tmp_path: Path
) -> None:
    assert pull([str(finished), "--output", str(tmp_path / "champion")]) == 0
    bars, _ = load_bars(bars_file)
    later = session_marks(bars)[-8:]
    Ledger(ledger).register_sweep("other", "other", "1.0", [], later, symbol="PLANTED")
    command = [str(tmp_path / "champion"), "--data", str(bars_file), "--ledger", str(ledger)]
    assert backtest(command) == 2
    assert backtest([*command, "--open-holdout"]) == 0
    assert len(Ledger(ledger).openings_on(later)) == 2


def test_a_bundle_names_the_sessions_that_it_knows(runner_up: Path) -> None:
    used = load_bundle(runner_up).metadata["bars_used"]
    assert set(used) == {"trained", "validated", "held_out"}
    assert all(used[part]["ranges"] and used[part]["sessions"] for part in used)
    trained, held = ({each[0] for each in used[part]["sessions"]} for part in ("trained", "held_out"))
    assert trained.isdisjoint(held)


def test_the_champion_may_see_again_what_its_sweep_opened_for_it(
    finished: Path, bars_file: Path, ledger: Path, tmp_path: Path
) -> None:
    assert pull([str(finished), "--output", str(tmp_path / "champion")]) == 0
    before = len(Ledger(ledger).openings_on(held_of(tmp_path / "champion")))
    assert backtest([str(tmp_path / "champion"), "--data", str(bars_file), "--ledger", str(ledger)]) == 0
    assert len(Ledger(ledger).openings_on(held_of(tmp_path / "champion"))) == before
