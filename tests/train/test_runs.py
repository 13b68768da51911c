"""Whole runs: limits, repetition, schedules, resume, interruption, and what is written."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from sentio_rllib.errors import LeakError, NonFiniteError, TrainError
from sentio_rllib.evidence.ledger import Ledger
from sentio_rllib.evidence.session_marks import session_marks
from sentio_rllib.market.bars import load_bars
from sentio_rllib.market.feature_set import MULTISCALE
from sentio_rllib.policy.deciding import with_weights
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.train.__main__ import _options, main, plan_of
from sentio_rllib.train.output import Output
from sentio_rllib.train.training import train
from tests.tiny_sweep import environment, market_frame
from tests.train.tiny import (
    EPISODES_A_ROLLOUT,
    EVALUATE_EVERY,
    Kept,
    arguments,
    metadata,
    run,
    trained,
    weights,
)

pytestmark = pytest.mark.usefixtures("ray_cluster")

ROLLOUT = EVALUATE_EVERY // 2


def kept(bars: Path, output: Path, *more: str, progress: Kept | None = None, **changes: str) -> Kept:
    """Run in this process and return what was shown."""
    progress = progress or Kept()
    train(plan_of(_options(arguments(bars, output, *more, **changes))), progress)
    return progress


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("kind", ["standard", "maskable", "enhanced-maskable"])
def test_a_run_writes_networks_that_load_without_a_pickle(kind: str, bars_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "models" / "first.v1"
    held = run(bars_file, output, "--episodes", "200", kind=kind)
    assert held["variant"] == kind
    assert held["rules"]["episode_length"] == 30
    assert held["config"]["trading"]["episode_length"] == 30
    assert held["ended"]["reason"] == "episodes"
    assert held["features"]["hash"] == MULTISCALE.digest
    assert (len(held["features"]["market"]), len(held["features"]["portfolio"])) == (20, 6)
    assert held["data"]["fingerprint"] == load_bars(bars_file)[0].fingerprint
    assert [row["part"] for row in held["splits"]] == ["train", "validation", "holdout"]
    assert held["sha256"] == {"first.v1.pth": hashlib.sha256(Output(output).weights.read_bytes()).hexdigest()}
    network = with_weights(PolicySpec(**held["policy"]), [tuple(each) for each in held["members"]], weights(output))
    assert len(network.members) == 1
    best = max(held["curve"], key=lambda each: each["cv_score"])
    assert held["best"]["env_steps"] == best["env_steps"]
    assert held["best"]["projected"] == best["projected"]


def test_networks_load_without_ray(bars_file: Path, tmp_path: Path) -> None:
    run(bars_file, tmp_path / "a", "--episodes", "1")
    program = (
        "import sys, json, torch\n"
        "sys.modules['ray'] = None\n"
        "from sentio_rllib.policy.deciding import with_weights\n"
        "from sentio_rllib.policy.variants import PolicySpec\n"
        "held = json.load(open('a_metadata.json'))\n"
        "with_weights(PolicySpec(**held['policy']), held['members'], torch.load('a.pth', weights_only=True))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment()
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(("limit", "rollouts"), [(1, 1), (64, 1), (65, 2), (192, 3)])
def test_the_rollout_in_which_the_last_episode_ends_is_the_last(
    limit: int, rollouts: int, bars_file: Path, tmp_path: Path
) -> None:
    shown = kept(bars_file, tmp_path / "a", "--episodes", str(limit), "--minutes", "1000")
    assert [each["episodes"] for each in shown.iterations] == [EPISODES_A_ROLLOUT * (n + 1) for n in range(rollouts)]
    held = metadata(tmp_path / "a")
    assert held["ended"]["reason"] == "episodes"
    assert held["training"]["episodes"] == EPISODES_A_ROLLOUT * rollouts
    assert held["curve"][-1]["env_steps"] == ROLLOUT * rollouts, "what was reached last is evaluated"


def test_minutes_end_a_run_with_its_iteration(bars_file: Path, tmp_path: Path) -> None:
    held = run(bars_file, tmp_path / "a", "--minutes", "1e-6", "--episodes", "1000000")
    assert held["ended"]["reason"] == "minutes"
    assert held["training"]["evaluated_at"] == ROLLOUT


def test_a_budget_of_env_steps_ends_a_run(bars_file: Path, tmp_path: Path) -> None:
    held = run(bars_file, tmp_path / "a", search__env_steps=str(2 * EVALUATE_EVERY))
    assert (held["ended"]["reason"], held["training"]["evaluated_at"]) == ("budget", 2 * EVALUATE_EVERY)


def test_without_a_limit_a_run_ends_when_it_has_converged(bars_file: Path, tmp_path: Path) -> None:
    changes = {"search__patience": "2", "search__min_delta": "1e6"}  # no evaluation after the first is better
    shown = kept(bars_file, tmp_path / "a", **changes)
    assert metadata(tmp_path / "a")["ended"]["reason"] == "converged"
    assert shown.iterations[-1]["env_steps"] == 3 * EVALUATE_EVERY
    told = "\n".join(shown.lines)
    assert "converged: neither cv_score nor sampled_score has risen" in told
    assert "nothing to learn here: validation shows no timing" in told
    assert re.search(r"Sharpe .* undeflated", told, re.DOTALL)
    assert "python -m sentio_rllib.sweep configs/maskable.yaml --set data.path=" in told
    with pytest.raises(TrainError, match=r"has converged.*search\.patience=4"):
        train(plan_of(_options(["--resume", "--output", str(tmp_path / "a")])), Kept())


def test_a_policy_that_never_trades_is_called_collapsed(bars_file: Path, tmp_path: Path) -> None:
    shown = kept(bars_file, tmp_path / "a", policy__hold_bias="10", search__patience="50")
    held = metadata(tmp_path / "a")
    assert held["ended"]["reason"] == "collapsed"
    assert held["curve"][-1]["entropy"] < 0.05
    assert shown.iterations[-1]["env_steps"] == EVALUATE_EVERY
    assert any("collapsed to no trading" in line for line in shown.lines)
    assert any(
        "nothing to learn here: validation shows no timing: the best policy makes no trade" in line
        for line in shown.lines
    )
    assert held["best"]["projected"] == "Projected: 0.0% monthly (21 days) | 0.0% monthly (22 days)"


def test_the_same_seed_gives_the_same_networks(bars_file: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert run(bars_file, tmp_path / name, "--episodes", "256", "--seed", seed)["seed"] == int(seed)
    assert same(trained(tmp_path / "a"), trained(tmp_path / "b"))
    assert not same(trained(tmp_path / "a"), trained(tmp_path / "c"))


def _rates(shown: Kept) -> list[float]:
    return [each["learning_rate"] for each in shown.iterations]


def test_the_learning_rate_follows_its_option_and_schedule(bars_file: Path, tmp_path: Path) -> None:
    more = ("--episodes", "256", "--learning-rate", "0.002")
    assert _rates(kept(bars_file, tmp_path / "a", *more)) == [0.002] * 4
    budget = (256 + 4) * 2
    falling = [0.002 * (1 - ROLLOUT * n / budget) for n in range(4)]
    assert _rates(kept(bars_file, tmp_path / "b", *more, ppo__schedule="linear")) == pytest.approx(falling)


PLATEAU = {"ppo__schedule": "plateau", "ppo__plateau_patience": "1", "search__min_delta": "1e6"}


def test_a_plateau_halves_the_rate_also_across_a_resume(bars_file: Path, tmp_path: Path) -> None:
    rates = _rates(kept(bars_file, tmp_path / "a", "--episodes", str(7 * EPISODES_A_ROLLOUT), **PLATEAU))
    # evaluations after 2, 4 and 6 rollouts: the first is the best so far, the others are none
    assert rates == pytest.approx([3e-4] * 4 + [1.5e-4] * 2 + [0.75e-4])
    goes_on = ["--resume", "--output", str(tmp_path / "a"), "--episodes", str(9 * EPISODES_A_ROLLOUT)]
    progress = Kept()
    train(plan_of(_options(goes_on)), progress)
    # the end after 7 was an evaluation too, and without a rise
    assert _rates(progress) == pytest.approx([0.375e-4] * 2)


def test_a_resumed_run_is_the_run_that_was_never_broken(bars_file: Path, tmp_path: Path) -> None:
    run(bars_file, tmp_path / "whole", "--episodes", str(6 * EPISODES_A_ROLLOUT), "--seed", "3")
    run(bars_file, tmp_path / "part", "--episodes", str(2 * EPISODES_A_ROLLOUT), "--seed", "3")
    assert main(["--resume", "--output", str(tmp_path / "part"), "--episodes", str(6 * EPISODES_A_ROLLOUT)]) == 0
    assert same(trained(tmp_path / "whole"), trained(tmp_path / "part"))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "part"))
    whole, part = metadata(tmp_path / "whole"), metadata(tmp_path / "part")
    assert [each["rung_score"] for each in whole["curve"]] == [each["rung_score"] for each in part["curve"]]
    assert part["training"]["episodes"] == 6 * EPISODES_A_ROLLOUT


def test_what_cannot_be_resumed_is_refused(bars_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, bars = tmp_path / "a", tmp_path / "BARS.feather"
    shutil.copy(bars_file, bars)
    run(bars, output, "--episodes", "1")
    goes_on = ["--resume", "--output", str(output)]
    capsys.readouterr()
    assert main(goes_on) == 2
    assert "64 episodes have ended, the limit is 1" in capsys.readouterr().err
    assert main([*goes_on, "--episodes", "500", "--seed", "9"]) == 2
    assert capsys.readouterr().err == (
        "error: seed: was 0 when the run was started, is 9; put it back or start a new run with another --output\n"
    )
    market_frame().iloc[:-1].to_feather(bars)
    assert main([*goes_on, "--episodes", "500"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: data: changed since the run was started")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(bars_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "a"
    run(bars_file, output, "--episodes", str(4 * EPISODES_A_ROLLOUT))
    before, newest = sorted(Output(output).folder.glob("checkpoint_*"))
    assert [path.name for path in (before, newest)] == ["checkpoint_000000000256", "checkpoint_000000000512"]
    content = bytearray((newest / "training_state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "training_state.pt").write_bytes(content)
    progress = Kept()
    resumed = _options(["--resume", "--output", str(output), "--episodes", str(6 * EPISODES_A_ROLLOUT)])
    train(plan_of(resumed), progress)
    assert any("training_state.pt is not what was written" in line for line in progress.lines)
    assert [each["env_steps"] for each in progress.iterations] == [384, 512, 640, 768]


class Signalled(Kept):
    """Sends this process a signal while iteration number `at` is shown."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def iteration(self, figures: Mapping[str, Any]) -> None:
        """Show it."""
        super().iteration(figures)
        if figures and len(self.iterations) == self.at:
            signal.raise_signal(signal.SIGTERM)


class Broken(Kept):
    """Fails as training does where a loss is not finite, while the third iteration is shown."""

    def iteration(self, figures: Mapping[str, Any]) -> None:
        """Show it."""
        super().iteration(figures)
        if figures and len(self.iterations) == 3:
            raise NonFiniteError("the loss of a member is not finite: [nan]")


def test_what_was_best_before_a_loss_that_is_not_finite_stays(bars_file: Path, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="the loss of a member"):
        kept(bars_file, tmp_path / "a", progress=Broken())
    held = metadata(tmp_path / "a")
    assert held["ended"]["reason"] == "nonfinite"
    assert "not finite; the networks are those of the best evaluation" in held["ended"]["told"]
    assert held["best"]["env_steps"] == EVALUATE_EVERY
    assert held["sha256"] == {"a.pth": hashlib.sha256(Output(tmp_path / "a").weights.read_bytes()).hexdigest()}
    (trial,) = Ledger(tmp_path / "ledger.sqlite").trials_on(session_marks(load_bars(bars_file)[0]))
    assert trial.state == "failed"


def test_a_run_that_ended_before_it_had_begun_can_be_started_again(
    bars_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> str:
        raise TrainError("no space is left")

    with monkeypatch.context() as patched:
        patched.setattr("sentio_rllib.train.training.record", killed)
        assert main(arguments(bars_file, tmp_path / "a", "--episodes", "1")) == 2
    assert [path.name for path in Output(tmp_path / "a").folder.iterdir()] == ["limits.json"]
    assert run(bars_file, tmp_path / "a", "--episodes", "1")["ended"]["reason"] == "episodes"


class Resumed(Kept):
    """Keeps the networks that stand where the run goes on, their hash, and the one in their metadata."""

    def __init__(self, output: Path) -> None:
        super().__init__()
        self.output, self.hashes, self.networks = output, set[str](), dict[str, torch.Tensor]()

    def told(self, line: str) -> None:
        """Keep it."""
        super().told(line)
        if line.startswith("goes on at"):
            written = hashlib.sha256(Output(self.output).weights.read_bytes()).hexdigest()
            self.hashes = {written, metadata(self.output)["sha256"]["a.pth"]}
            self.networks = weights(self.output)


def test_networks_and_metadata_that_a_kill_parted_are_written_anew(bars_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "a"
    run(bars_file, output, "--episodes", "1")
    before = weights(output)
    torch.save({}, Output(output).weights)
    progress = Resumed(output)
    train(plan_of(_options(["--resume", "--output", str(output), "--episodes", "65"])), progress)
    assert len(progress.hashes) == 1
    assert same(progress.networks, before)


@pytest.mark.parametrize(("at", "best"), [(1, 128), (3, 256)])
def test_a_signal_saves_and_the_run_goes_on_later(at: int, best: int, bars_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "a"
    shown = kept(bars_file, output, progress=Signalled(at))
    assert shown.iterations[-1]["env_steps"] == ROLLOUT * at
    held = metadata(output)
    assert held["ended"] == {"reason": "interrupted", "told": "interrupted; goes on with --resume"}
    assert held["best"]["env_steps"] == best, "where nothing was evaluated yet, it is now"
    limit = str(6 * EPISODES_A_ROLLOUT)
    assert main(["--resume", "--output", str(output), "--episodes", limit]) == 0
    run(bars_file, tmp_path / "whole", "--episodes", limit)
    assert same(trained(output), trained(tmp_path / "whole"))


def test_a_run_is_one_trial_in_the_ledger_and_opens_no_holdout(bars_file: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(bars_file, tmp_path / name, "--episodes", str(4 * EPISODES_A_ROLLOUT), policy__hold_bias="0")
    ledger, sessions = Ledger(tmp_path / "ledger.sqlite"), session_marks(load_bars(bars_file)[0])
    trials = ledger.trials_on(sessions)
    assert [(trial.sweep, trial.trial_id, trial.state, trial.members) for trial in trials] == [
        ("a", "run", "completed", 1),
        ("b", "run", "completed", 1),
    ]
    assert trials[0].config == trials[1].config, "the same configuration"
    traded = sum(each["validation_trades"] > 0 for each in metadata(tmp_path / "a")["curve"])
    assert trials[0].evaluations == traded
    assert ledger.openings_on(sessions) == ()
    assert ledger.trials_on(sessions[-1:]) == [], "the holdout was not seen"


def test_the_embedded_market_is_said_to_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = arguments(tmp_path, tmp_path / "a", "--episodes", "1", data__synthetic__bars="6000")
    at = given.index("--data")
    del given[at : at + 2]
    at = given.index("--output")
    del given[at : at + 2]
    assert main(given) == 0
    assert "no --data: this trains on the embedded market" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.pth")
    assert re.fullmatch(r"maskable_\d{8}_\d{6}\.pth", path.name)


def test_a_leak_ends_a_run_before_it_trains(
    bars_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leaking(*_: Any, **__: Any) -> None:
        raise LeakError("a probe found a leak")

    monkeypatch.setattr("sentio_rllib.search.prepare.check_leaks", leaking)
    assert main(arguments(bars_file, tmp_path / "a", evidence__probes="true")) == 2
    assert capsys.readouterr().err == "error: a probe found a leak\n"
    assert list(tmp_path.glob("a*")) == []


def _start(bars: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sentio_rllib.train", *arguments(bars, output, *more)]
    with output.with_suffix(".log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment(), start_new_session=True)


def _wait(process: subprocess.Popen[str], reached: Callable[[], bool], log: Path, seconds: float = 180.0) -> None:
    limit = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.05)


def _newest_step(output: Path) -> int:
    whole = Output(output).folder.glob("checkpoint_*/manifest.json")
    return max((int(path.parent.name.rpartition("_")[2]) for path in whole), default=0)


def test_a_killed_run_goes_on_and_ctrl_c_ends_it_well(bars_file: Path, tmp_path: Path) -> None:
    output, log = tmp_path / "a", tmp_path / "a.log"
    first = _start(bars_file, output)
    try:
        _wait(first, lambda: _newest_step(output) >= 4 * EVALUATE_EVERY, log)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    reached = _newest_step(output)
    assert metadata(output)["ended"]["reason"] == "running"
    second = _start(bars_file, output, "--resume")
    try:
        _wait(second, lambda: _newest_step(output) > reached, log)
        os.killpg(second.pid, signal.SIGINT)  # a terminal sends it to the whole group
        assert second.wait(120) == 0, log.read_text()
    finally:
        if second.poll() is None:
            os.killpg(second.pid, signal.SIGKILL)
    said = log.read_text()
    assert "Traceback" not in said
    assert "ending: this iteration is finished" in said
    steps = int(re.search(r"goes on at ([\d,]+) steps", said)[1].replace(",", ""))  # type: ignore[index]
    assert steps == reached, "from the last whole checkpoint"
    held = metadata(output)
    assert held["ended"]["reason"] == "interrupted"
    assert _newest_step(output) > reached
    assert [each["env_steps"] for each in held["curve"]] == sorted({each["env_steps"] for each in held["curve"]})


@pytest.mark.slow
def test_three_runs_side_by_side(bars_file: Path, tmp_path: Path) -> None:
    outputs = {name: tmp_path / name for name in ("a", "b", "c")}
    processes = {name: _start(bars_file, output, "--episodes", "256") for name, output in outputs.items()}
    for name, process in processes.items():
        assert process.wait(300) == 0, outputs[name].with_suffix(".log").read_text()
    assert same(trained(outputs["a"]), trained(outputs["b"]))
    assert same(trained(outputs["a"]), trained(outputs["c"]))
    assert len(Ledger(tmp_path / "ledger.sqlite").trials_on(session_marks(load_bars(bars_file)[0]))) == 3


def _on_embedded(tmp_path: Path, edge: str) -> dict[str, Any]:
    output = tmp_path / "a"
    values = {"data.synthetic.bars": "120000", "data.synthetic.edge": edge, "evidence.ledger": f"{tmp_path}/l.sqlite"}
    sets = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    assert main(["--output", str(output), *sets]) == 0
    return metadata(output)


@pytest.mark.slow
def test_on_the_planted_market_it_converges_and_trades(tmp_path: Path) -> None:
    held = _on_embedded(tmp_path, "2e-5")
    assert held["ended"]["reason"] == "converged"
    assert held["finding"]["shown"]
    assert held["validation"]["trades"] > 0
    assert held["validation"]["monthly_return_21"] > 0


@pytest.mark.slow
def test_on_a_market_without_an_edge_it_stops_and_finds_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = _on_embedded(tmp_path, "0")
    assert held["ended"]["reason"] in {"converged", "collapsed"}
    assert not held["finding"]["shown"]
    assert "nothing to learn here: validation shows no timing" in capsys.readouterr().out
