"""What needs no training: options and their mistakes, output names, what validation shows, and progress."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sentio_rllib.config.contradictions import cautions
from sentio_rllib.errors import ConfigError, TrainError
from sentio_rllib.statistics.inputs import Floats
from sentio_rllib.train.__main__ import main, plan_of
from sentio_rllib.train.arguments import UNLIMITED, Options, budget, configure, start_values
from sentio_rllib.train.display import progress_line
from sentio_rllib.train.finding import end_of, examine_run, projected
from sentio_rllib.train.output import Output, make_folder, output_of
from sentio_rllib.train.result import Course, told_reason
from sentio_rllib.validation.series import Series
from tests.train.tiny import Kept, arguments


def _configured(*overrides: str, kind: str | None = None, **values: str) -> Any:
    named = {f"--{key.replace('_', '-')}": value for key, value in values.items()}
    options = Options(type=kind, values=named, overrides=overrides)
    return configure(start_values(options), options)


def test_the_defaults_are_those_of_the_table() -> None:
    plan = plan_of(Options())
    config = plan.config
    assert config.variant == "enhanced-maskable"
    assert config.ppo.learning_rate == 3e-4
    assert config.trading.episode_length == 1000
    assert (config.data.path, config.search.minutes, plan.episodes) == (None, None, None)
    assert budget(config, plan.episodes) == UNLIMITED
    assert re.fullmatch(r"enhanced-maskable_\d{8}_\d{6}(_\d+)?", plan.output.base.name)
    assert (config.policy.hidden, config.policy.hold_bias, config.policy.d_model) == ((64, 64), 0.0, 32)
    assert cautions(config) == []


@pytest.mark.parametrize("kind", ["standard", "maskable"])
def test_other_variants_have_no_keys_of_the_transformer(kind: str) -> None:
    config = _configured(kind=kind)
    assert config.variant == kind
    assert cautions(config) == []


def test_options_set_their_keys_and_set_comes_last() -> None:
    config = _configured(episode_length="600", learning_rate="1e-3", seed="7", minutes="2.5")
    assert (config.trading.episode_length, config.ppo.learning_rate) == (600, 1e-3)
    assert (config.seed, config.search.minutes) == (7, 2.5)
    assert _configured("ppo.learning_rate=2e-3", learning_rate="1e-3").ppo.learning_rate == 2e-3


def test_a_path_of_data_is_not_read_as_yaml() -> None:
    options = Options(data="[a]: b.csv")
    assert configure(start_values(options), options).data.path == "[a]: b.csv"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--minutes", "-1"], ["--minutes", "-1", "above 0"]),
        (["--minutes", "soon"], ["--minutes", "'soon'"]),
        (["--minutes", ""], ["--minutes", "''", "no value"]),
        (["--minutes", "null"], ["--minutes", "'null'", "no value"]),
        (["--seed", "~"], ["--seed", "'~'", "no value"]),
        (["--learning-rate", "0"], ["--learning-rate", "above 0"]),
        (["--episode-length", "1.5"], ["--episode-length", "whole number"]),
        (["--seed", "-3"], ["--seed", "from 0"]),
        (["--episodes", "0"], ["--episodes", "'0'", "from 1"]),
        (["--episodes", "1e3"], ["--episodes", "'1e3'"]),
        (["--type", "enhanced"], ["--type", "'enhanced'", "enhanced-maskable"]),
        (["--output", "model.pth"], ["--output", "without extension"]),
        (["--output", "model.safetensors"], ["--output", "without extension"]),
        (["--output", "model.zip"], ["--output", "without extension"]),
        (["--output", "models/"], ["--output", "without extension"]),
        (["--output", "a b"], ["--output", "letters"]),
        (["--data", "none.feather"], ["none.feather", "exist"]),
        (["--set", "ppo.gama=0.9"], ["ppo.gama", "ppo.gamma"]),
        (["--set", "variant=standard"], ["variant", "--type"]),
        (["--set", "search.trials=3"], ["search.trials", "sentio_rllib.sweep"]),
        (["--set", "search.space.ppo.clip={uniform: [0.1, 0.2]}"], ["search.space", "sentio_rllib.sweep"]),
        (["--set", "ppo.schedule=linear"], ["ppo.schedule", "--episodes", "search.env_steps"]),
        (["--set", "ppo.schedule=cosine", "--minutes", "3"], ["ppo.schedule", "--episodes"]),
        (["--resume"], ["--resume", "--output"]),
        (["--resume", "--output", "nothing"], ["nothing", "no run to resume"]),
    ],
)
def test_a_mistake_is_told_in_one_line(
    given: list[str],
    told: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert all(part in line for part in told), line
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--epochs", "3"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: unrecognized arguments: --epochs 3; see --help\n"


def test_several_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        _configured("ppo.clip=-1", "validation.folds=two", seed="x")
    assert [line.partition(":")[0] for line in caught.value.lines] == ["--seed", "validation.folds", "ppo.clip"]


def test_the_budget_of_episodes_lets_the_last_of_them_end() -> None:
    config = _configured("ppo.schedule=linear", episode_length="600")
    assert budget(config, 100) == (100 + 32) * 40  # 600 bars are 40 decisions; 32 environments
    assert budget(_configured("search.env_steps=200000", "ppo.schedule=cosine"), None) == 200_000
    assert budget(_configured("search.env_steps=200000"), 1) == 33 * 66


def test_default_names_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20260102_030405")
    outputs = [output_of(None, "standard") for _ in range(3)]  # all before any has begun
    names = [make_folder(output, named=False).base.name for output in outputs]
    assert names == ["standard_20260102_030405", "standard_20260102_030405_2", "standard_20260102_030405_3"]


def test_a_folder_in_which_no_run_had_begun_is_free(tmp_path: Path) -> None:
    output = Output(tmp_path / "a")
    output.folder.mkdir()
    for name in ("limits.json", "fingerprint.json", ".config.yaml.tmp"):  # all that comes before the configuration
        (output.folder / name).touch()
        assert not output.used()
        assert make_folder(output, named=True) == output
    for name in ("config.yaml", "notes.txt"):
        (output.folder / name).touch()
        with pytest.raises(TrainError, match="exists already"):
            make_folder(output, named=True)
        (output.folder / name).unlink()


@pytest.mark.parametrize("ending", [".pth", "_metadata.json", "_checkpoint"])
def test_an_output_that_exists_is_refused(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / f"a{ending}").touch()
    assert main(["--output", str(tmp_path / "a")]) == 2
    assert "exists already; pass --resume" in capsys.readouterr().err


def _found(timing: Floats, trades: float = 20.0, evaluations: int = 9, trips: float = 10.0) -> Any:
    series = Series(np.arange(timing.size), timing, timing, timing)
    return examine_run(series, trades, trips, evaluations, sessions_per_year=252, needed=0.95)


def test_timing_that_the_best_of_so_many_evaluations_reaches_by_luck_is_not_shown() -> None:
    returns = np.tile([0.01, -0.008], 50)  # mean 0.001, deviation 0.00905 (ddof 1): 1.75 a year
    found = _found(returns)
    assert found.timing_sharpe == pytest.approx(1.7542, abs=1e-3)
    # nine evaluations that go on from one another are three looks:
    # sqrt(1/100) * [(1 - g) Phi^-1(1 - 1/3) + g Phi^-1(1 - 1/(3 e))], times sqrt(252)
    assert found.luck == pytest.approx(0.1 * (0.4228 * 0.4307 + 0.5772 * 1.1620) * 252**0.5, abs=2e-3)
    assert not found.shown
    assert "no timing" in found.why()
    assert "by luck the best of 9 evaluations that traded" in found.why()
    strong = _found(np.tile([0.01, -0.002], 50))
    assert strong.shown
    assert "shows timing" in strong.why()
    assert "undeflated" in strong.summary()["note"]
    few = _found(np.tile([0.01, -0.002], 50), trips=9.0)
    assert not few.shown
    assert few.why() == "validation shows no timing: 9 round trips were closed, needed 10 or more"


def test_no_trade_and_no_variance_show_nothing() -> None:
    for found, told in ((_found(np.zeros(50), trades=0.0), "no trade"), (_found(np.zeros(50)), "buy-and-hold")):
        assert not found.shown
        assert told in found.why()


@pytest.mark.parametrize(
    ("figures", "late", "stop_reason", "ended"),
    [
        ((0, 0, 0.20), True, "converged", "collapsed"),  # no trade at all, however undecided
        ((0, 9, 0.04), True, "converged", "collapsed"),  # it tries by chance alone
        ((0, 9, 0.20), True, "converged", "converged"),  # it still tries
        ((2, 0, 0.04), True, "converged", "converged"),
        ((0, 0, 0.04), True, None, "collapsed"),
        ((0, 0, 0.04), False, None, None),
        ((0, 0, 0.20), True, None, None),
        ((0, 9, 0.04), True, None, None),
    ],
)
def test_a_collapse_is_told_from_convergence(
    figures: tuple[int, int, float], late: bool, stop_reason: str | None, ended: str | None
) -> None:
    last = dict(zip(("validation_trades", "sampled_trades", "entropy"), figures, strict=True))
    assert end_of(last, stop_reason, late=late) == ended


@pytest.mark.parametrize(
    ("reason", "told"), [("minutes", "120.0 minutes are over, the limit is 120"), ("running", "not ended yet")]
)
def test_why_a_run_ended_also_says_that_its_policy_does_not_trade(reason: str, told: str) -> None:
    settings = SimpleNamespace(rows_per_iteration=128, env_steps=8192)
    subject: Any = SimpleNamespace(config=_configured(minutes="120"), settings=settings, episodes=None)
    last = {"validation_trades": 0, "sampled_trades": 0, "entropy": 0.2, "env_steps": 4096}
    mute = "; at the last evaluation, 4,096 env steps, the policy makes no trade at all"
    for trades, more in (({}, mute), ({"validation_trades": 1}, ""), ({"sampled_trades": 1}, "")):
        assert told_reason(reason, subject, Course(seconds=7203.0, curve=[last | trades])) == told + more


def test_the_projection_is_computed() -> None:
    pace = np.full(10, 0.0039)  # 1e-5 a bar over 390 bars
    assert projected(pace) == "Projected: 8.5% monthly (21 days) | 8.9% monthly (22 days)"
    assert projected(-pace) == "Projected: -7.9% monthly (21 days) | -8.2% monthly (22 days)"


FIGURES: dict[str, Any] = {
    "seconds": 62.0,
    "episodes": 1234,
    "env_steps": 81920,
    "reward": -0.25,
    "trades_per_episode": 3.5,
    "policy_loss": -0.0123,
    "value_loss": 0.4567,
    "entropy": 0.789,
    "learning_rate": 3e-4,
    "env_steps_per_s": 4321.0,
}


def test_a_line_of_progress_names_all_figures() -> None:
    assert progress_line(FIGURES | {"drawdown": 0.034, "projected": "Projected: 1%"}) == (
        "1:02  episodes 1,234  steps 81,920  reward -0.25  trades/episode 3.50  drawdown 3.4%  policy loss -1.2e-02  "
        "value loss 0.457  entropy 0.789  learning rate 0.0003  steps/s 4,321  Projected: 1%"
    )


def test_progress_is_a_table_on_a_terminal_and_lines_elsewhere() -> None:
    screens = []
    for terminal in (True, False):
        progress = Kept(terminal=terminal)
        with progress:
            progress.iteration(FIGURES)
            progress.evaluation({"drawdown": 0.034, "projected": "Projected: 1%"})
        screens.append(progress.screen.getvalue())
    title, _, headings, _, figures, _ = screens[0].splitlines()[-7:-1]  # what stays, and the cursor's line
    assert "1:02  Projected: 1%" in title
    assert "trades/episode" in headings
    assert "81,920" in figures
    assert screens[1].splitlines()[-1] == progress_line(FIGURES | {"drawdown": 0.034, "projected": "Projected: 1%"})


def test_cautions_are_of_keys_that_were_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.csv"
    assert main(arguments(missing, tmp_path / "a", ppo__plateau_patience="3")) == 2
    told = capsys.readouterr().out.splitlines()
    assert told == ["caution: ppo.plateau_patience: 3 has no effect without ppo.schedule=plateau (default 2)"]
