"""The parts of the report one by one: numbers as text, files read, gaps, Sharpe ratios, importance, drawings."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup
from matplotlib.figure import Figure

from sentio_rllib.errors import SweepError
from sentio_rllib.report import formats
from sentio_rllib.report.deflation_section import annual_sharpes
from sentio_rllib.report.drawing import draw
from sentio_rllib.report.figures import learning_figure, luck_figure, short_name
from sentio_rllib.report.folds_section import gaps
from sentio_rllib.report.importance import parameter_importance
from sentio_rllib.report.sweep_files import DatedRange, read_sweep
from tests.report.folders import Trial, change_summary, write_study, write_sweep, write_unscored


class TestFormats:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (formats.number(1234.567), "1,234.57"),
            (formats.number(-0.5, 1), "\u22120.5"),
            (formats.number(-0.001), "0.00"),
            (formats.number(np.float32(0.25)), "0.25"),
            (formats.count(31_415.0), "31,415"),
            (formats.percent(0.0855), "8.6%"),
            (formats.percent(-0.0213, 2), "\u22122.13%"),
            (formats.dollars(8_412.7), "$8,413"),
            (formats.dollars(-12.0), "\u2212$12"),
            (formats.per_bar(1e-5), "1.00e-5"),
            (formats.per_bar(-2.5e-12), "\u22122.50e-12"),
            (formats.per_bar(0.0), "0"),
            (formats.p_value(0.0004), "< 0.001"),
            (formats.p_value(0.0412), "0.041"),
            (formats.general(0.00045), "0.00045"),
            (formats.general(64), "64"),
            (formats.general(1e20), "1e+20"),
            (formats.general("gated"), "gated"),
            (formats.general(True), "True"),
        ],
    )
    def test_rounds_and_marks(self, text: str, expected: str) -> None:
        assert text == expected

    @pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "1.0", True, []])
    @pytest.mark.parametrize(
        "form", [formats.number, formats.count, formats.percent, formats.dollars, formats.per_bar, formats.p_value]
    )
    def test_what_is_no_number_is_a_dash(self, form: object, value: object) -> None:
        assert callable(form)
        assert form(value) == formats.NONE

    @pytest.mark.parametrize(
        ("held", "expected"),
        [
            ({"estimate": 0.1, "low": -0.05, "high": 0.2}, "10.0% (\u22125.0% to 20.0%)"),
            ({"estimate": 0.1, "low": None, "high": 0.2}, "10.0% (no interval)"),
            ({"estimate": None, "low": 0.1, "high": 0.2}, formats.NONE),
            (None, formats.NONE),
        ],
    )
    def test_interval(self, held: object, expected: str) -> None:
        assert formats.interval(held, formats.percent) == expected


class TestReading:
    def test_whole_folder(self, tmp_path: Path) -> None:
        sweep = read_sweep(write_sweep(tmp_path / "s", trials=5, folds=2))
        assert sweep.missing == ()
        assert sweep.searched == ["ppo.learning_rate", "ppo.entropy_weight", "policy.head"]
        assert sweep.champion == sweep.trials.index[0]
        assert len(sweep.trials) == 5

    def test_one_row_a_trial(self, tmp_path: Path) -> None:
        folder = write_sweep(tmp_path / "s", trials=1, folds=1)
        shared = {"trial_id": "trial_0000", "state": "completed", "ended": "budget", "cv_score": 0.5}
        rows = [
            {**shared, "trades": trades, "exposure": exposure} for trades, exposure in ((1, 0.2), (9, 0.4), (3, 0.9))
        ]
        pd.DataFrame(rows).to_parquet(folder / "leaderboard.parquet")
        trial = read_sweep(folder).trials.loc["trial_0000"]
        assert trial["trades"] == 3
        assert trial["exposure"] == pytest.approx(0.5)

    def test_failed_score_is_none(self, tmp_path: Path) -> None:
        folder = write_sweep(tmp_path / "s", trials=1, folds=1)
        rows = {"trial_id": ["a", "b", "c"], "state": "failed", "ended": "", "cv_score": [-1e6, math.inf, 0.3]}
        pd.DataFrame(rows).to_parquet(folder / "leaderboard.parquet")
        assert read_sweep(folder).trials["cv_score"].isna().tolist() == [True, True, False]

    def test_no_trial_at_all(self, tmp_path: Path) -> None:
        folder = write_unscored(tmp_path / "s", trials=0)
        sweep = read_sweep(folder)
        assert sweep.trials.empty
        assert sweep.missing == ()

    @pytest.mark.parametrize(
        ("file", "content", "told"),
        [
            ("curves.parquet", b"PAR1 cut short", "curves.parquet cannot be read"),
            ("folds.json", b'[{"fold": 0}]', "folds.json cannot be read"),
            ("folds.json", b"[", "folds.json cannot be read"),
            ("folds.json", b"7", "folds.json cannot be read"),
            ("fingerprint.json", b"{", "fingerprint.json cannot be read"),
            ("config.yaml", b"\xff\xfe\x00", "config.yaml cannot be read"),
        ],
    )
    def test_damaged_file_is_told(self, tmp_path: Path, file: str, content: bytes, told: str) -> None:
        folder = write_sweep(tmp_path / "s", trials=1, folds=1)
        (folder / file).write_bytes(content)
        (line,) = read_sweep(folder).missing
        assert line.startswith(told)
        assert "\n" not in line

    def test_table_without_a_column_is_told(self, tmp_path: Path) -> None:
        folder = write_sweep(tmp_path / "s", trials=1, folds=1)
        pd.DataFrame({"part": ["cv"], "session": ["2021-03-01"]}).to_parquet(folder / "equity.parquet")
        sweep = read_sweep(folder)
        assert sweep.equity is None
        assert sweep.missing == ("equity.parquet has no column champion, hold",)

    def test_refuses_what_is_no_sweep(self, tmp_path: Path) -> None:
        with pytest.raises(SweepError, match="no such folder"):
            read_sweep(tmp_path / "none")
        with pytest.raises(SweepError, match="no sweep is here"):
            read_sweep(tmp_path)
        (tmp_path / "config.yaml").write_text("name: x\n")
        with pytest.raises(SweepError, match=r"has no summary\.json yet; let it end, or go on with it by --resume"):
            read_sweep(tmp_path)
        for content in ("{", "[]"):
            (tmp_path / "summary.json").write_text(content)
            with pytest.raises(SweepError, match="with --resume"):
                read_sweep(tmp_path)


def _range(fold: str, part: str, first: int, last: int) -> DatedRange:
    return DatedRange(fold, part, datetime(2024, 1, first, tzinfo=UTC), datetime(2024, 1, last, tzinfo=UTC))


def test_gaps_lie_between_parts_and_before_the_holdout() -> None:
    ranges = [
        _range("0", "train", 1, 5),
        _range("0", "validation", 7, 10),
        _range("0", "train", 12, 14),
        _range("0", "train", 16, 20),  # two training ranges in a row: a cut of the tape, nothing purged
        _range("1", "validation", 1, 5),
        _range("1", "train", 5, 20),  # adjacent: no gap
        _range("-", "holdout", 22, 30),
    ]
    assert gaps(ranges) == [
        _range("0", "gap", 5, 7),
        _range("0", "gap", 10, 12),
        _range("-", "gap", 20, 22),
    ]


class TestAnnualSharpes:
    def test_they_are_those_of_the_evidence(self, tmp_path: Path) -> None:
        folder = write_sweep(tmp_path / "s", trials=2, folds=1)
        evidence = json.loads((folder / "summary.json").read_text())["evidence"]
        evidence["raw"]["of_trials"] = {"a": 1.25, "b": -0.5}
        change_summary(folder, evidence=evidence)
        (folder / "returns.parquet").unlink()  # nothing is computed anew, by another formula
        found = annual_sharpes(read_sweep(folder))
        assert found.to_dict() == {"a": 1.25, "b": -0.5}

    def test_none_where_the_evidence_has_none(self, tmp_path: Path) -> None:
        folder = write_sweep(tmp_path / "s", trials=2, folds=1)
        evidence = json.loads((folder / "summary.json").read_text())["evidence"]
        del evidence["raw"]["of_trials"]
        change_summary(folder, evidence=evidence)
        assert annual_sharpes(read_sweep(folder)).empty

    def test_none_without_evidence(self, tmp_path: Path) -> None:
        assert annual_sharpes(read_sweep(write_unscored(tmp_path / "s"))).empty


class TestImportance:
    def test_planted_parameter_comes_first(self, tmp_path: Path) -> None:
        rates = np.linspace(1e-4, 3e-3, 12)
        entropies = [0.001, 0.02, 0.011, 0.007, 0.029, 0.015, 0.003, 0.025, 0.009, 0.018, 0.005, 0.022]
        trials = [
            Trial(f"trial_{place:04d}", "completed", "", float(rate * 1e3), _params(rate, entropy))
            for place, (rate, entropy) in enumerate(zip(rates, entropies, strict=True))
        ]
        write_study(tmp_path, "planted", trials)
        before = (tmp_path / "study.db").read_bytes()
        found = parameter_importance(tmp_path / "study.db", "planted")
        assert found.trials == 12
        assert set(found.shares) == {"ppo.learning_rate", "ppo.entropy_weight"}  # the head is the same in all
        assert sum(found.shares.values()) == pytest.approx(1)
        assert found.shares["ppo.learning_rate"] > 0.8
        assert parameter_importance(tmp_path / "study.db", "planted") == found
        assert (tmp_path / "study.db").read_bytes() == before

    @pytest.mark.parametrize(
        ("scores", "states", "why"),
        [
            ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], ["completed"] * 5 + ["pruned"], "completed trials 5, needed 6 or more"),
            ([1.0] * 6, ["completed"] * 6, "all completed trials have the same score"),
        ],
    )
    def test_says_why_there_is_none(self, tmp_path: Path, scores: list[float], states: list[str], why: str) -> None:
        trials = [
            Trial("", state, "", score, _params(1e-4 * (place + 1), 0.01))
            for place, (score, state) in enumerate(zip(scores, states, strict=True))
        ]
        write_study(tmp_path, "s", trials)
        assert parameter_importance(tmp_path / "study.db", "s").why_none == why

    def test_equal_parameters(self, tmp_path: Path) -> None:
        trials = [Trial("", "completed", "", float(score), _params(1e-3, 0.01)) for score in range(6)]
        write_study(tmp_path, "s", trials)
        why = parameter_importance(tmp_path / "study.db", "s").why_none
        assert why == "no parameter differs between the completed trials"

    def test_study_that_cannot_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "100% a?b#c" / "study.db"
        path.parent.mkdir()
        assert parameter_importance(path, "s").why_none == "study.db is missing"
        path.write_bytes(b"not a database, long enough to be looked at" * 40)
        assert parameter_importance(path, "s").why_none.startswith("study.db cannot be read: ")
        write_study(tmp_path, "other", [])
        (tmp_path / "study.db").replace(path)
        assert parameter_importance(path, "s").why_none.startswith("study.db cannot be read: ")
        assert parameter_importance(path, "other").why_none == "completed trials 0, needed 6 or more"


def _params(rate: float, entropy: float) -> dict[str, object]:
    return {"ppo.learning_rate": float(rate), "ppo.entropy_weight": entropy, "policy.head": "gated"}


class TestDrawing:
    def test_inline_svg(self) -> None:
        def paint(figure: Figure) -> None:
            figure.subplots().plot([0, 1], [0, 1], "o-", label="$x$ <&>")
            figure.legend()

        drawn = draw("some", r"a <title> & \1", 2.0, paint)
        assert isinstance(drawn, Markup)
        assert drawn.startswith('<svg class="chart" role="img" aria-labelledby="some-title" viewBox="0 0 ')
        assert r'<title id="some-title">a &lt;title&gt; &amp; \1</title>' in drawn
        assert "$x$ &lt;&amp;&gt;" in drawn
        assert 'id="some-figure_1"' in drawn
        assert "var(--rule)" in drawn
        assert "#0" not in drawn  # no placeholder of a colour is left
        assert "<style" not in drawn
        assert "font-family: inherit" in drawn
        assert draw("some", r"a <title> & \1", 2.0, paint) == drawn

    def test_luck_names_both_marks(self) -> None:
        drawn = luck_figure([-0.5, 0.1, 0.1, 0.9], 0.9, 1.6)
        assert "champion 0.90" in drawn
        assert "expected maximum by luck 1.60" in drawn
        assert "champion" not in luck_figure([0.0], None, None)

    def test_learning_curve_of_a_trial_that_the_leaderboard_lacks(self) -> None:
        curves = pd.DataFrame({"trial_id": ["trial_0007"], "env_steps": [10], "fold": [0], "fold_score": [0.1]})
        trials = pd.DataFrame({"state": []}, index=pd.Index([], name="trial_id"))
        assert ">7<" in learning_figure(curves, trials, None)

    @pytest.mark.parametrize(
        ("trial", "short"), [("trial_0012", "12"), ("trial_0000", "0"), ("other", "other"), ("12", "12")]
    )
    def test_short_name(self, trial: str, short: str) -> None:
        assert short_name(trial) == short
