"""The placebo: its markets, its counts by hand, the command on sweeps of seconds, and how it goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sentio_rllib.config.loading import build_config
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.market.bars import load_bars
from sentio_rllib.placebo import runs
from sentio_rllib.placebo.__main__ import main
from sentio_rllib.placebo.markets import Market, plan_markets
from sentio_rllib.placebo.rates import market_figures, rate, report
from sentio_rllib.placebo.rates_table import print_report, shown
from sentio_rllib.search.durable import write_json, write_text
from sentio_rllib.sweep.folder import CONFIG
from tests.tiny_sweep import EVALUATE_EVERY, tiny_values, write_config

Summary = dict[str, Any]


def values(bars: Path | None, folder: Path, **changes: Any) -> dict[str, Any]:
    """A sweep of seconds on the file, or on the embedded market, with one trial."""
    short = {"search__trials": 1, "search__env_steps": EVALUATE_EVERY, "evidence__refit_seeds": 1}
    found = tiny_values(bars or Path(), folder / "experiments", **short, **changes)
    found["data"] = {"synthetic": {"bars": 6_000, "edge": 1e-4}} | ({} if bars is None else {"path": str(bars)})
    found["evidence"] |= {"ledger": str(folder / "user.sqlite"), "stress": False, "probes": False, "resamples": 100}
    return found


def plan(config: SweepConfig, **changes: Any) -> list[Market]:
    arguments: dict[str, Any] = {"counts": {"bootstrap": 2, "random-walk": 1, "planted": 2}, "mean_block": 30}
    return plan_markets(config, **arguments | changes)


def summary(verdict: str | None, *, cv: float | None = 2.0, state: str = "completed", **failed: bool) -> Summary:
    """What a sweep would leave; `failed` names checks with whether they held."""
    checks = [{"name": name, "held": held} for name, held in failed.items()]
    told = {} if verdict is None else {"verdict": verdict, "reasons": ["as it is"], "checks": checks, "dsr": 0.5}
    cross = None if cv is None else {"metrics": {"sharpe": cv}}
    return {
        "state": state, "evidence": told, "cv": cross, "holdout": {"metrics": {"sharpe": 1.5}},
        "throughput": {"seconds": 10.0},
    }  # fmt: skip


class TestPlan:
    def test_each_market_has_a_seed_a_folder_and_a_ledger_of_its_own(self, bars_file: Path, tmp_path: Path) -> None:
        config = build_config(values(bars_file, tmp_path))
        markets = plan(config)
        names = ["bootstrap_000", "random-walk_000", "planted_000", "bootstrap_001", "planted_001"]
        assert [market.name for market in markets] == names, "kinds in turn"
        placebo = tmp_path / "experiments" / "tiny"
        assert {market.config.folder for market in markets} == {placebo / name for name in names}
        assert len({market.seed for market in markets}) == len(names)
        ledgers = {market.config.evidence.ledger for market in markets}
        assert ledgers == {str(placebo / "ledgers" / f"{name}.sqlite") for name in names}
        seeds = {market.seed for market in plan(config.model_copy(update={"seed": 2}))}
        assert not seeds & {market.seed for market in markets}, "another configuration's seed, other markets"

    def test_nothing_else_than_the_market_changes(self, bars_file: Path, tmp_path: Path) -> None:
        config = build_config(values(bars_file, tmp_path))
        own = {"name", "seed", "storage_path", "evidence.ledger"}
        embedded = own | {"data.path", "data.synthetic.seed", "data.synthetic.edge"}
        resampled = own | {"data.path", "data.symbol", "data.max_missing"}
        for market in plan(config):
            changed = set(market.config.changed_keys(config))
            assert changed <= (resampled if market.kind == "bootstrap" else embedded), market.name

    @pytest.mark.parametrize(("asked", "planted"), [(None, 1e-4), (3e-5, 3e-5)])
    def test_the_edge_is_planted_in_planted_markets_only(
        self, bars_file: Path, tmp_path: Path, asked: float | None, planted: float
    ) -> None:
        markets = {
            market.name: market.config.data for market in plan(build_config(values(bars_file, tmp_path)), edge=asked)
        }
        for name in ("random-walk_000", "planted_000", "planted_001"):
            assert markets[name].path is None
            assert markets[name].synthetic.bars == 6_000
        assert markets["random-walk_000"].synthetic.edge == 0
        assert markets["planted_000"].synthetic.edge == markets["planted_001"].synthetic.edge == planted
        assert markets["planted_000"].synthetic.seed != markets["planted_001"].synthetic.seed


class TestFigures:
    @pytest.mark.parametrize(
        ("count", "of", "low", "high"),
        [
            (0, 20, 0.0, 1 - 0.025 ** (1 / 20)),  # P(0 of 20) = 2.5% at the upper end
            (20, 20, 0.025 ** (1 / 20), 1.0),
            (1, 20, 0.00127, 0.24873),
            (16, 20, 0.56339, 0.94267),  # tables of Clopper and Pearson
        ],
    )
    def test_intervals(self, count: int, of: int, low: float, high: float) -> None:
        found = rate(count, of)
        assert (found["count"], found["of"], found["estimate"]) == (count, of, count / of)
        assert found["low"] == pytest.approx(low, abs=1e-5)
        assert found["high"] == pytest.approx(high, abs=1e-5)
        assert shown(found).startswith(f"{count} of {of}, {count / of:.0%} [")

    def test_no_market_has_no_rate(self) -> None:
        assert rate(0, 0) == {"count": 0, "of": 0, "estimate": None, "low": None, "high": None}
        assert shown(rate(0, 0)) == "no market"

    def test_counts_rates_and_the_naive_reading_by_hand(self, tmp_path: Path) -> None:
        markets = plan(build_config(values(None, tmp_path)), counts={"bootstrap": 3, "random-walk": 2, "planted": 3})
        summaries = {
            "bootstrap_000": summary("supported", cv=4.0, dsr_raw=True),
            "bootstrap_001": summary("not enough data", cv=1.0, dsr_raw=False),
            "bootstrap_002": summary("not supported", cv=9.0, state="failed"),
            "random-walk_000": summary("not supported", cv=1.5, dsr_raw=False, pbo=False),
            "random-walk_001": summary("not supported", cv=None, state="no trading"),
            "planted_000": summary("supported", cv=6.0, pbo=True),
            "planted_001": summary("supported", cv=5.0),
            "planted_002": summary("not supported", cv=1.0, holdout_raw=False),
        }
        found = report([market_figures(market, summaries[market.name]) for market in markets])
        kinds = found["kinds"]
        assert list(kinds) == ["bootstrap", "random-walk", "planted"]
        counts = ("markets", "supported", "not_supported", "not_enough_data", "no_verdict")
        assert [kinds["bootstrap"][key] for key in counts] == [3, 1, 0, 1, 1]
        assert [kinds["random-walk"][key] for key in counts] == [2, 0, 2, 0, 0]
        assert [kinds["planted"][key] for key in counts] == [3, 2, 1, 0, 0]
        assert kinds["bootstrap"]["checks_failed"] == {"dsr_raw": 1}
        assert kinds["random-walk"]["checks_failed"] == {"dsr_raw": 1, "pbo": 1}
        assert kinds["planted"]["cv_sharpe"] == pytest.approx(4.0)
        assert kinds["random-walk"]["cv_sharpe"] == 1.5, "of those that have one"
        assert kinds["planted"]["seconds"] == 30.0
        assert found["false_positives"] == rate(1, 4), "the failed sweep tells nothing, the short one is no claim"
        assert found["power"] == rate(2, 3)
        assert found["naive"] == {"1": rate(2, 4), "3": rate(1, 4)}
        assert [market["name"] for market in found["markets"]] == [market.name for market in markets]

    def test_the_report_is_printed_with_every_rate(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        markets = plan(build_config(values(None, tmp_path)), counts={"planted": 1})
        found = report([market_figures(market, summary("supported")) for market in markets])
        print_report({"edge": 1e-4, "mean_block": 30, **found})
        printed = capsys.readouterr().out
        assert re.search(r"planted +│ +1 +│ +1 +│ +0 +│ +0 +│ +0 +│ 1 of 1, 100% \[3%, 100%\]", printed)
        assert "false-positive rate (bootstrap and random-walk): no market" in printed
        assert "power (planted): 1 of 1, 100% [3%, 100%]" in printed


BAD = {
    "no such kind": (["--markets", "1", "--kinds", "planted,martingale"], ["--kinds 'martingale'", "random-walk"]),
    "no kind": (["--markets", "1", "--kinds", ","], ["--kinds ',': allowed are bootstrap"]),
    "no market": (["--markets", "0"], ["--markets 0: allowed whole numbers >= 1"]),
    "no edge": (["--markets", "1", "--edge", "0"], ["--edge 0: allowed above 0 to 0.001"]),
    "an edge that is none": (["--markets", "1", "--edge", "nan"], ["--edge nan"]),
    "too much edge": (["--markets", "1", "--edge", "0.01"], ["--edge 0.01: allowed"]),
    "no block": (["--markets", "1", "--block", "0"], ["--block 0: allowed whole numbers of bars >= 1"]),
    "nothing to resume": (["--markets", "1", "--resume"], ["no placebo run to resume"]),
    "a wrong key": (["--markets", "1", "--set", "ppo.clip=-1"], ["ppo.clip: "]),
    "a name that is a path": (["--markets", "1", "--name", "../evil"], ["name: '../evil'"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_line_and_nothing_is_written(
    name: str, bars_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, parts = BAD[name]
    config = write_config(values(bars_file, tmp_path), tmp_path / "tiny.yaml")
    assert main([str(config), *arguments]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1, told
    assert all(part in told[0] for part in ["error: ", *parts]), told
    assert not (tmp_path / "experiments").exists()


class Sweeps:
    """Stands in for the runs of sweeps; the sweep `interrupted` is cut off, that of `error` raises."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, bool]] = []
        self.interrupted = ""
        self.error: tuple[str, BaseException] | None = None

    def __call__(self, config: SweepConfig, *, resume: bool) -> Summary:
        self.ran.append((config.name, resume))
        if self.error is not None and self.error[0] == config.name:
            raise self.error[1]
        folder = config.folder
        folder.mkdir(exist_ok=True)
        write_text(folder / CONFIG, config.to_yaml())
        cut_off = config.name == self.interrupted
        told = summary("not supported", state="interrupted" if cut_off else "completed")
        write_json(folder / "summary.json", told)
        return told


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> Sweeps:
    @contextmanager
    def no_ray(address: str | None) -> Iterator[str]:
        yield ""

    made = Sweeps()
    monkeypatch.setattr(runs, "run_sweep", made)
    monkeypatch.setattr(runs, "cluster", no_ray)
    return made


@pytest.fixture
def command(bars_file: Path, tmp_path: Path) -> Callable[..., int]:
    config = write_config(values(bars_file, tmp_path), tmp_path / "tiny.yaml")
    return lambda *arguments: main([str(config), *arguments])


NAMES = ["bootstrap_000", "random-walk_000", "planted_000"]


def test_an_interrupted_run_goes_on_where_it_was(
    sweeps: Sweeps, command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps.interrupted = "random-walk_000"
    assert command("--markets", "1") == 1
    assert sweeps.ran == [("bootstrap_000", False), ("random-walk_000", False)]
    written = tmp_path / "experiments" / "tiny" / "placebo.json"
    told = json.loads(written.read_text())
    assert (told["state"], [market["name"] for market in told["markets"]]) == ("interrupted", ["bootstrap_000"])
    assert "--resume" in capsys.readouterr().err

    sweeps.ran, sweeps.interrupted = [], ""
    assert command("--markets", "1") == 2, "the name is used"
    assert "--resume" in capsys.readouterr().err
    assert command("--markets", "1", "--resume") == 0
    assert sweeps.ran == [("random-walk_000", True), ("planted_000", False)]
    told = json.loads(written.read_text())
    assert (told["state"], [market["name"] for market in told["markets"]]) == ("completed", NAMES)

    sweeps.ran = []
    assert command("--markets", "1", "--resume") == 0
    assert sweeps.ran == [], "all is done"
    assert command("--markets", "2", "--kinds", "planted", "--resume") == 0
    assert sweeps.ran == [("planted_001", False)], "more markets are added"
    assert command("--markets", "1", "--resume", "--edge", "2e-5") == 2
    assert "data.synthetic.edge: was 0.0001" in capsys.readouterr().err
    assert command("--markets", "1", "--resume", "--block", "60") == 2
    assert "block60" in capsys.readouterr().err


def test_an_interruption_between_two_sweeps_ends_without_a_traceback(
    sweeps: Sweeps, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps.error = ("random-walk_000", KeyboardInterrupt())
    assert command("--markets", "1") == 1
    assert capsys.readouterr().err == "ended; go on with --resume\n"
    sweeps.error = None
    assert command("--markets", "1", "--resume") == 0
    assert sweeps.ran[-2:] == [("random-walk_000", False), ("planted_000", False)]


def test_the_bars_of_bootstrapped_markets_load_with_their_configuration(
    sweeps: Sweeps, bars_file: Path, command: Callable[..., int], tmp_path: Path
) -> None:
    assert command("--markets", "2", "--kinds", "bootstrap", "--block", "10") == 0
    original, report_of_original = load_bars(bars_file)
    markets = plan(build_config(values(bars_file, tmp_path)), counts={"bootstrap": 2}, mean_block=10)
    prints = {original.fingerprint}
    for market in markets:
        data = market.config.data
        assert data.path is not None
        bars, told = load_bars(data.path, **data.model_dump(exclude={"path", "bars", "synthetic"}))
        assert bars.n == original.n
        assert told.missing_minutes == report_of_original.missing_minutes
        prints.add(bars.fingerprint)
    assert len(prints) == 3


def test_the_command_on_sweeps_of_seconds(
    ray_cluster: None, bars_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(write_config(values(bars_file, tmp_path), tmp_path / "tiny.yaml")), "--markets", "1"]
    command += ["--kinds", "bootstrap,planted"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "false-positive rate (bootstrap and random-walk): 0 of 1" in printed
    folder, names = tmp_path / "experiments" / "tiny", [NAMES[0], NAMES[2]]
    told = json.loads((folder / "placebo.json").read_text())
    assert (told["name"], told["state"], told["edge"], told["mean_block"]) == ("tiny", "completed", 1e-4, 30)
    assert [market["name"] for market in told["markets"]] == names
    assert {path.name for path in (folder / "ledgers").glob("*.sqlite")} == {f"{name}.sqlite" for name in names}
    assert not (tmp_path / "user.sqlite").exists(), "a placebo is not counted among the user's trials"

    before = {name: (folder / name / "summary.json").stat().st_mtime_ns for name in names}
    (folder / "planted_000" / "summary.json").unlink()
    assert main([*command, "--resume"]) == 0
    after = {name: (folder / name / "summary.json").stat().st_mtime_ns for name in names}
    assert [name for name in names if before[name] != after[name]] == ["planted_000"]
    again = json.loads((folder / "placebo.json").read_text())
    for one, other in zip(told["markets"], again["markets"], strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
