"""The page as a whole: what stands where, that nothing is loaded, and that every state of a sweep has one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from sentio_rllib.report.blocks import Table
from sentio_rllib.report.page import write_report
from sentio_rllib.report.search_section import leaderboard_section
from sentio_rllib.report.sweep_files import read_sweep
from tests.report.folders import STOPPED, change_summary, write_old, write_sweep, write_unscored

SECTIONS = [
    "verdict",
    "equity",
    "metrics",
    "learning",
    "leaderboard",
    "parameters",
    "folds",
    "deflation",
    "stress",
    "provenance",
]
_VOID = {"meta", "link", "br", "hr", "img", "input"}

STATES: dict[str, Callable[[Path], Path]] = {
    "full": lambda folder: write_sweep(folder, trials=8, reopened=True),
    "sealed, arms": lambda folder: write_sweep(folder, trials=3, arms=True, opened=False, synthetic=False),
    "one trial, one fold": lambda folder: write_sweep(folder, trials=1, folds=1, verdict="supported"),
    "interrupted": lambda folder: write_sweep(folder, trials=2, folds=2, state="interrupted"),
    "unscored": write_unscored,
    "no trial at all": lambda folder: write_unscored(folder, trials=0, state="budget too short"),
    "old": write_old,
}


class _Structure(HTMLParser):
    """Notes identifiers and what links and sources point to, and that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"href", "src", "xlink:href", "srcset", "data", "action"}:
                self.targets.append(value or "")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module", params=list(STATES))
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a sweep in each state."""
    return write_report(STATES[request.param](tmp_path_factory.mktemp("sweeps") / "sweep")).read_text()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a sweep with everything in it."""
    folder = write_sweep(tmp_path_factory.mktemp("sweeps") / "full", reopened=True, arms=True)
    return write_report(folder).read_text()


def section(page: str, name: str) -> str:
    """Return the text of a section: tags taken out, references resolved, minus signs and dashes as hyphens."""
    found = re.search(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    assert found is not None
    text = unescape(re.sub(r"<[^>]*>", " ", found.group(1)))
    return " ".join(text.replace("\u2212", "-").replace("\u2013", "-").split())


def head_of(page: str) -> dict[str, str]:
    """Return what the head of the page says, dashes as hyphens."""
    head = page.partition("<header>")[2].partition("</header>")[0].replace("\u2013", "-")
    return {key: unescape(told) for key, told in re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", head)}


def badge(page: str) -> str:
    """Return the words of the verdict's badge."""
    (told,) = re.findall(r'<p class="badge \w+">(.*?)</p>', page)
    return unescape(told)


class TestEveryState:
    def test_sections_stand_in_order(self, page: str) -> None:
        assert re.findall(r'<section id="(\w+)">', page) == SECTIONS

    def test_nothing_is_loaded(self, page: str) -> None:
        structure = _Structure()
        structure.feed(page)
        assert not structure.tags & {"script", "iframe", "object", "embed", "img", "image", "base", "form"}
        assert [target for target in structure.targets if not target.startswith(("#", "data:,"))] == []
        assert [found for found in re.findall(r"url\((.)", page) if found != "#"] == []
        assert "://" not in page
        assert "@import" not in page
        assert not re.search(r"\son\w+=", page)

    def test_is_well_formed_and_links_lead_somewhere(self, page: str) -> None:
        structure = _Structure()
        structure.feed(page)
        assert structure.open == []
        assert len(structure.ids) == len(set(structure.ids))
        inner = {target[1:] for target in structure.targets if target.startswith("#")}
        assert inner >= set(SECTIONS)
        assert inner <= set(structure.ids)

    def test_luck_is_told_once_where_the_champion_is_judged(self, page: str) -> None:
        judged = "monthly return, projected" in section(page, "verdict")
        assert page.count("Undeflated") == judged
        assert ("Undeflated; beside it: the best of 96 tries" in section(page, "verdict")) == judged
        assert ("0.618 of its returns, 0.447 of its timing" in section(page, "verdict")) == judged

    def test_nothing_that_does_not_exist_is_shown_as_a_number(self, page: str) -> None:
        told = re.sub(r"loss is nan", "", " ".join(section(page, name) for name in SECTIONS))
        assert not re.search(r"\b(nan|inf|NaT|None)\b", told)


class TestContent:
    def test_verdict(self, full: str) -> None:
        text = section(full, "verdict")
        assert "not supported" in text
        assert "deflated Sharpe ratio 0.447 < 0.95, that of the timing" in text
        assert "SPA against buy & hold: p 0.187 > 0.05" in text
        assert "monthly return, projected > 10.0% 1.4% (0.6% to 2.2%) 0.7% (no interval) not reached" in text
        assert "> 3.00 1.43 (0.57 to 2.29) 0.77 (no interval) not reached" in text
        assert "deflated (DSR) 0.618 probability that it is more than luck" in text
        assert "expected maximum by luck 1.27 annual Sharpe ratio, of all tries" in text
        assert "maximum drawdown < 8.0% 5.7% (2.3% to 9.2%) 4.1% (no interval) reached" in text
        assert "at the closes of bars 7.1% - what the target is judged by" in text
        assert "win rate of round trips > 65.0% 54.1% (21.6% to 86.6%) - not judged" in text
        assert "Openings of these bars, over all sweeps in the ledger: 2." in text
        assert "Reopened: the holdout of made-up had been opened before" in text
        assert "Earlier trials that were trained or scored on some of its sessions: 7." in text
        assert "In brackets 90% intervals." in text

    def test_the_badge_says_what_the_verdict_is_about(self, full: str, tmp_path: Path) -> None:
        assert badge(full) == "not supported at 95%, fee 0.1% a side, synthetic market with a planted edge"
        folder = write_sweep(tmp_path / "s", trials=2, folds=1, verdict="supported", synthetic=False)
        page = write_report(folder).read_text()
        assert badge(page) == "supported at 95%, fee 0.1% a side, TQQQ"
        assert '<p class="badge good">' in page
        evidence = json.loads((folder / "summary.json").read_text())["evidence"]
        del evidence["claim"]  # as of an earlier version
        change_summary(folder, evidence=evidence)
        assert badge(write_report(folder).read_text()) == "supported"

    def test_the_head_says_what_was_traded_at_which_costs_when(self, tmp_path: Path) -> None:
        page = write_report(write_sweep(tmp_path / "s", trials=2, folds=1, synthetic=False)).read_text()
        assert head_of(page) == {
            "state": "completed",
            "variant": "enhanced-maskable",
            "market": "TQQQ",
            "costs": "fee 0.1% a side, half spread 1.5 bp",
            "calendar": "XNYS, hours regular",
            "period": "2021-03-01 to 2022-09-23, 156,000 bars",
            "trials": "2 of 2 asked for: 1 completed, 1 pruned",
        }

    def test_what_the_holdout_adds_is_told(self, full: str) -> None:
        assert (
            "What it adds: without an edge 25% of markets pass it, with the timing Sharpe ratio of 0.63 that "
            "cross-validation shows beyond luck 62%; passing raises the odds of an edge 2.5-fold."
        ) in section(full, "verdict")

    def test_a_holdout_adds_nothing_where_cross_validation_shows_no_edge(self, tmp_path: Path) -> None:
        folder = write_sweep(tmp_path / "s", trials=2, folds=1)
        held = json.loads((folder / "summary.json").read_text())["holdout"]
        held["weight"] |= dict.fromkeys(("edge", "by_edge", "factor"))
        change_summary(folder, holdout=held)
        text = section(write_report(folder).read_text(), "verdict")
        assert "Openings of these bars" in text
        assert "What it adds" not in text

    def test_other_markets_that_moved_alike_are_told(self, full: str, tmp_path: Path) -> None:
        assert (
            "Other markets in the ledger moved alike on these dates, so what was seen there tells of this one: QQQ "
            "(sweep nasdaq-1, correlation 0.99, 212 dates); SPY (sweep spy-4, correlation 0.91, 188 dates)."
        ) in section(full, "verdict")
        folder = write_sweep(tmp_path / "s", trials=2, folds=1)
        evidence = json.loads((folder / "summary.json").read_text())["evidence"]
        evidence["ledger"]["alike"] = []
        change_summary(folder, evidence=evidence)
        assert "moved alike" not in write_report(folder).read_text()

    def test_metrics_beside_the_baselines(self, full: str) -> None:
        text = section(full, "metrics")
        columns = "champion flat buy and hold SMA random, mean"
        assert f"{columns} oracle Sharpe ratio, annual 1.43 0.00 0.62 0.18 -0.81 (-2.04 to 0.37) 6.31" in text
        assert f"{columns} Sharpe ratio, annual 0.77 0.00 0.62 0.18 -0.81 (-2.04 to 0.37)" in text
        assert "deflated (DSR) 0.618 - - - - -" in text
        assert "expected maximum by luck 1.27" in text
        assert "Sharpe ratio of timing, annual 1.08" in text
        assert "deflated (DSR) 0.447" in text
        for row in (
            "Sharpe ratio with interest on idle cash 1.64 0.00 0.83",
            "Sortino ratio, annual 2.00 - 0.87",
            "Calmar ratio, annual - 0.00 -",
            "total return 23.4% 0.0%",
            "mean return per bar 1.70e-6 0 1.70e-6",
            "monthly return, 21 sessions 1.4%",
            "monthly return, 22 sessions 1.5%",
            "maximum drawdown 11.7%",
            "longest drawdown, bars 31,415",
            "CVaR of a session, 5% -2.13%",
            "win rate of round trips 54.1% -",
            "round trips 210",
            "trades 421",
            "trades a day 1.32",
            "turnover a day, times equity 1.21",
            "drawdown stops 3 0",
            "exposure, mean share of equity 43.4%",
            "Buys masked for volatility 27.4% - -",
            "Buys masked by the clock 5.2% - -",
            "Buys masked in a drawdown 1.3% - -",
            "held over cuts, times 6 0 6",
            "return over cuts -3.17% 0.00% -3.17%",
            "fees $8,413 $0",
            "sessions 320",
            "bars 124,800",
        ):
            assert row in text
        assert "Random: the mean of 100 draws" in text
        assert "selected by the least training within one standard error" in text

    def test_leaderboard_says_why_each_ended(self, full: str) -> None:
        text = section(full, "leaderboard")
        assert "Trials, 12 of 12, best first" in text
        assert STOPPED in text
        assert "CUDA <out of memory> & gone" in text
        assert text.index("trial_0003") < text.index("trial_0000") < text.index("trial_0004")  # best first, failed last

    def test_leaderboard_is_cut(self, tmp_path: Path) -> None:
        table, *_ = leaderboard_section(read_sweep(write_sweep(tmp_path / "s", trials=23, folds=1))).blocks
        assert isinstance(table, Table)
        assert table.caption.startswith("Trials, 20 of 23, best first")
        assert len({row[1] for row in table.rows}) == 20

    def test_arms_with_paired_differences(self, full: str) -> None:
        text = section(full, "leaderboard")
        assert "differences to full" in text
        assert "no <gate> & co 0.595 180 393,216 -0.217 -0.561 to 0.119 8 no difference shown" in text
        assert "1 fold x seed have no partner policy.head categorical" in text
        assert "no scores: not started policy.encoder mlp" in text
        assert "have not trained equally long" in text

    def test_learning_curves_mark_where_trials_ended(self, full: str) -> None:
        text = section(full, "learning")
        for words in ("fold 0", "fold 3", "champion", "stopped early", "cut off", "env steps"):
            assert words in text
        assert f"1 pruned 147,456 {STOPPED}" in text
        assert "fold 4" not in text

    def test_deflation_panel(self, full: str) -> None:
        text = section(full, "deflation")
        for told in (
            "champion 1.43 expected maximum by luck 1.27",
            "Nominal N 96, effective N 17.3; 320 sessions, 1.27 years",
            "3.86 years at least (MinBTL)",
            "Sharpe ratio, annual 1.43 1.08",
            "spread of all trials' Sharpe ratios, annual 0.83 0.57",
            "could be supported with these bars, trials and ledger: 2.61",
            "expected maximum by luck, annual 1.27 1.16",
            "deflated Sharpe ratio (DSR), effective N 0.618 0.447",
            "deflated Sharpe ratio (DSR), nominal N 0.402 0.301",
            "probabilistic Sharpe ratio (PSR) 0.912 0.874",
            "minimum track record (MinTRL) 2.37 years -",
            "SPA p-value against flat 0.041 < 0.001",
            "SPA p-value against buy and hold 0.187 -",
            "better than flat (StepM) trial_0003 none",
            "better than buy and hold (StepM) none -",
            "all trials 31.4% -0.27 41.2% 12",
            "trials of equal budget - - - -",
            "all trials, by timing 43.6% -0.38 52.3% 12",
            "on overlapping bars: sweeps 3, configurations 36, eligible evaluations 96, networks 144",
            "trials stopped early 11.",
            "dsr timing 0.447 0.950 no deflated Sharpe ratio of the timing >= 0.95",
            "pbo 0.314 0.500 yes probability of backtest overfitting < 0.5",
            "min btl years - 1.270 not known years needed <= years available",
        ):
            assert told in text

    def test_stress_and_provenance(self, full: str) -> None:
        text = section(full, "stress")
        assert "slippage x4 -8.80e-7 -0.71 -10.4%" in text
        assert "breaks even at a fee of 0.142% a side" in text
        text = section(full, "provenance")
        for told in (
            "f1a9c0ffee",
            "156,000",
            "2021-03-01T14:30:00+00:00",
            "0.1.0",
            "features/v1:ab12",
            "symbol: A<B & C",
        ):
            assert told in text
        assert "full/config.yaml --name made-up-again" in text

    def test_text_of_others_is_escaped(self, full: str) -> None:
        for raw in ("<b>no", "<gate>", "<out of", "A<B", "buy & hold"):
            assert raw not in full
        for escaped in ("&lt;b&gt;no&lt;/b&gt; $more$", "no &lt;gate&gt; &amp; co", "A&lt;B &amp; C"):
            assert escaped in full

    def test_a_trial_with_a_name_that_is_markup(self, tmp_path: Path) -> None:
        folder = write_sweep(tmp_path / "s", trials=2, folds=1)
        for file in ("leaderboard", "curves", "returns"):
            frame = pd.read_parquet(folder / f"{file}.parquet")
            frame["trial_id"] = frame["trial_id"].replace("trial_0001", "</svg><script>alert(1)</script>$x_")
            frame.to_parquet(folder / f"{file}.parquet")
        page = write_report(folder).read_text()
        assert "<script" not in page
        assert "</svg>&lt;" not in page
        assert "&lt;/svg&gt;&lt;script&gt;" in section_source(page, "learning")  # the number beside its mark
        assert "</svg><script>alert(1)</script>$x_" in section(page, "leaderboard")


def section_source(page: str, name: str) -> str:
    """Return the markup of a section."""
    return page.partition(f'<section id="{name}">')[2].partition("</section>")[0]


class TestStates:
    def test_no_trial_was_scored(self, tmp_path: Path) -> None:
        page = write_report(write_unscored(tmp_path / "s")).read_text()
        text = section(page, "verdict")
        assert "no verdict What trials failed of says nothing of the market." in text
        assert "not supported" not in text
        assert "Not measured: there is no champion." in text
        assert "Nothing is told of a holdout: no champion" in text
        assert "Nothing to deflate: there is no champion. Ledger data/ledger.sqlite, on" in section(page, "deflation")
        assert "not finite at 0 env steps: loss is nan" in section(page, "leaderboard")
        assert "<svg" not in section_source(page, "equity")

    def test_evidence_is_null(self, tmp_path: Path) -> None:
        folder = write_unscored(tmp_path / "s")
        change_summary(folder, evidence=None)
        assert "no verdict: there is no champion" in section(write_report(folder).read_text(), "verdict")

    def test_no_trading(self, tmp_path: Path) -> None:
        folder = write_unscored(tmp_path / "s", state="no trading")
        assert "No champion: no scored trial" in section(write_report(folder).read_text(), "verdict")

    def test_interrupted(self, tmp_path: Path) -> None:
        folder = write_unscored(tmp_path / "s", state="interrupted")
        assert "The sweep was interrupted" in section(write_report(folder).read_text(), "verdict")

    def test_sealed_holdout(self, tmp_path: Path) -> None:
        page = write_report(write_sweep(tmp_path / "s", trials=2, folds=1, opened=False)).read_text()
        assert "Sealed: pass --open-holdout to open it." in section(page, "verdict")
        assert "in the ledger: 0." in section(page, "verdict")
        assert "Reopened" not in section(page, "verdict")
        assert "No equity to show: the holdout is sealed." in section(page, "equity")
        assert "Not measured: pass --open-holdout to open it." in section(page, "metrics")

    def test_old_sweep_says_what_is_missing(self, tmp_path: Path) -> None:
        page = write_report(write_old(tmp_path / "s")).read_text()
        assert "no verdict: the sweep is older than that" in section(page, "verdict")
        for file in ("curves.parquet", "equity.parquet", "folds.json"):
            assert f"{file} is missing." in section(page, "provenance")
        told = head_of(page)
        assert (told["market"], told["costs"], told["calendar"]) == ("-", "-", "-, hours -")
        assert "trial_0000" in section(page, "leaderboard")

    def test_statistics_that_do_not_exist(self, tmp_path: Path) -> None:
        folder = write_sweep(tmp_path / "s", trials=2, folds=1, verdict="not enough data")
        evidence = json.loads((folder / "summary.json").read_text())["evidence"]
        empty = dict.fromkeys(evidence["raw"])
        hollow = {"effective_trials": None, "raw": empty, "timing": empty, "overfitting": None, "checks": []}
        change_summary(folder, evidence=evidence | hollow)
        page = write_report(folder).read_text()
        assert "not enough data" in section(page, "verdict")
        assert "deflated (DSR) - probability" in section(page, "verdict")
        assert "expected maximum by luck - annual" in section(page, "verdict")
        assert "effective N -" in section(page, "deflation")
        assert "The verdict rests on no checks." in section(page, "deflation")

    def test_scores_that_are_not_finite(self, tmp_path: Path) -> None:
        folder = write_sweep(tmp_path / "s", trials=3, folds=2)
        curves = pd.read_parquet(folder / "curves.parquet").assign(fold_score=float("nan"))
        curves.to_parquet(folder / "curves.parquet")
        board = pd.read_parquet(folder / "leaderboard.parquet").assign(cv_score=float("-inf"))
        board.to_parquet(folder / "leaderboard.parquet")
        page = write_report(folder).read_text()
        assert "No learning curves" in section(page, "learning")
        assert "No trial has both a learning rate and a score." in section(page, "parameters")

    def test_learning_rate_was_not_searched(self, tmp_path: Path) -> None:
        folder = write_sweep(tmp_path / "s", trials=2, folds=1)
        board = pd.read_parquet(folder / "leaderboard.parquet").drop(columns="ppo.learning_rate")
        board.to_parquet(folder / "leaderboard.parquet")
        assert "ppo.learning_rate was not searched." in section(write_report(folder).read_text(), "parameters")
