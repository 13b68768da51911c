"""Faults in mid-sweep: what fails is named, ends nothing else, and goes on from what was kept."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import torch
from optuna.trial import TrialState
from ray.air.execution._internal import event_manager
from ray.exceptions import OutOfMemoryError, RayActorError

from sentio_rllib.errors import tell
from sentio_rllib.policy.checkpoint import verify_manifest
from sentio_rllib.ppo.algorithm import SentioPPO
from sentio_rllib.search import journal, tuning
from sentio_rllib.search.durable import append_row
from sentio_rllib.sweep.results import print_summary
from sentio_rllib.sweep.run import run_sweep
from tests.sweep_checks import assert_complete, board_of, study_of
from tests.tiny_sweep import EVALUATE_EVERY, tiny_config

pytestmark = pytest.mark.usefixtures("ray_cluster")


class Restless(SentioPPO):
    """Breaks in the ways that its folder and its learning rate say."""

    folder: Path

    def step(self) -> dict[str, Any]:
        rate = self.config.params["ppo.learning_rate"]
        (self.folder / f"{rate:g}").open("a").write(f"{self.env_steps}\n")
        if rate == 2e-4 and self.env_steps == 2 * EVALUATE_EVERY and not (self.folder / "killed").exists():
            (self.folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if rate == 5e-4 and self.env_steps == EVALUATE_EVERY and not (self.folder / "took all memory").exists():
            (self.folder / "took all memory").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if rate == 3e-4 and self.env_steps == EVALUATE_EVERY:
            raise RuntimeError("the disk\nis on fire")
        if rate == 4e-4 and self.env_steps == EVALUATE_EVERY:
            with torch.no_grad():
                next(self.network().parameters())[0].fill_(np.nan)
        return super().step()


def memory_monitor(noted: Path) -> SimpleNamespace:
    """Ray, whose driver is told of a worker that took all memory what Ray's memory monitor makes of its death."""

    def get(future: Any) -> Any:
        try:
            return ray.get(future)
        except RayActorError as error:
            marker = noted / "took all memory"
            if not marker.exists() or marker.read_text():
                raise
            marker.write_text("told")
            raise OutOfMemoryError(
                "Task was killed due to the node running low on memory.\nMemory used: all"
            ) from error

    return SimpleNamespace(get=get, wait=ray.wait, ObjectRef=ray.ObjectRef)


@pytest.fixture(scope="module")
def restless(bars_file: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[Path, Path]:
    """A sweep of five: one sound, one killed once, one that always raises, one that is not finite, and one that is
    killed once for the memory it takes.
    """
    storage, noted = tmp_path_factory.mktemp("restless"), tmp_path_factory.mktemp("noted")

    class Trial(Restless):  # sent to the trials by value
        folder = noted

    patch = pytest.MonkeyPatch()
    patch.setattr(tuning, "SentioPPO", Trial)
    patch.setattr(event_manager, "ray", memory_monitor(noted))
    rates = {"ppo.learning_rate": {"choice": [1e-4, 2e-4, 3e-4, 4e-4, 5e-4]}}
    changes: dict[str, Any] = {"sampler": "grid", "scheduler": "none", "space": rates, "max_concurrent": 2}
    changes["trials"] = 5
    named = {f"search__{key}": value for key, value in changes.items()}
    run_sweep(tiny_config(bars_file, storage, ppo__learning_rate=1e-4, **named))
    patch.undo()
    return storage / "tiny", noted


def test_a_failed_trial_is_recorded_with_its_reason_and_the_others_go_on(restless: tuple[Path, Path]) -> None:
    folder, noted = restless
    board = board_of(folder).drop_duplicates("trial_id").set_index("ppo.learning_rate")
    completed = dict.fromkeys((1e-4, 2e-4, 5e-4), "completed")
    assert board["state"].to_dict() == completed | {3e-4: "failed", 4e-4: "failed"}
    assert board.loc[1e-4, "ended"] == "budget at 512 env steps"
    always = "RuntimeError: the disk"
    assert board.loc[3e-4, "ended"] == f"failed at 128 env steps: {always}; restarted after {always}"
    assert board.loc[4e-4, "ended"].startswith("not finite at 128 env steps: the loss of a member is not finite")
    assert not board.loc[[3e-4, 4e-4], "eligible"].any()
    assert (noted / "0.0003").read_text().split() == ["0", "128", "128"], "a failure is tried again once"
    assert (noted / "0.0004").read_text().split() == ["0", "128"], "a trial that is not finite is not tried again"
    states = {trial.params["ppo.learning_rate"]: trial for trial in study_of(folder)}
    assert {rate: trial.state for rate, trial in states.items()} == {
        **dict.fromkeys(completed, TrialState.COMPLETE), 3e-4: TrialState.FAIL, 4e-4: TrialState.FAIL,
    }  # fmt: skip
    assert states[4e-4].user_attrs["reason"] == "nonfinite"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["trials"] == {"asked": 5, "total": 5, "completed": 3, "pruned": 0, "failed": 2, "unfinished": 0}
    assert summary["best"]["params"]["ppo.learning_rate"] in completed
    reasons = {failure["reason"]: failure["trials"] for failure in summary["failures"]}
    assert len(reasons) == 2
    assert reasons["RuntimeError: the disk"] == 1
    assert summary["state"] == "completed"  # two failed, and what the others found stands


def test_where_every_trial_fails_there_is_no_verdict(
    bars_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on nodes that do not share the folder: all train, and none can leave a checkpoint."""

    class Homeless(SentioPPO):
        def save_checkpoint(self, checkpoint_dir: str) -> None:
            raise FileNotFoundError(2, "No such file or directory", "/elsewhere")

    monkeypatch.setattr(tuning, "SentioPPO", Homeless)
    config = tiny_config(bars_file, tmp_path, search__trials=2, search__scheduler="none")

    summary = run_sweep(config)
    print_summary(summary, config.folder)

    assert summary["state"] == "failed"
    [failure] = summary["failures"]
    assert failure["trials"] == 2
    assert "No such file or directory: '/elsewhere'" in failure["reason"]
    assert summary["best"] is None
    assert summary["evidence"]["verdict"] == "no verdict"
    told = " ".join(capsys.readouterr().out.split())
    assert "failed (2 trials, the first is trial_0000): FileNotFoundError" in told
    assert "no verdict: what trials failed of says nothing of the market" in told
    assert "That is the result" not in told
    page = (config.folder / "report.html").read_text()
    assert "2 failed: FileNotFoundError" in page
    assert "not supported" not in page.partition('id="verdict"')[2].partition("</section>")[0]


def test_a_trial_whose_process_is_killed_goes_on_from_its_checkpoint(restless: tuple[Path, Path]) -> None:
    folder, noted = restless
    assert (noted / "killed").exists()
    steps = [int(line) for line in (noted / "0.0002").read_text().split()]
    assert steps == [0, 128, 256, 256, 384], "the counter never goes back behind the checkpoint"
    board = board_of(folder).drop_duplicates("trial_id").set_index("ppo.learning_rate")
    assert board.loc[2e-4, "ended"].startswith("budget at 512 env steps; restarted after ActorDiedError: ")
    assert board.loc[2e-4, "evaluations"] == 4


def test_a_trial_killed_for_its_memory_goes_on_from_its_checkpoint_and_ends_nothing_else(
    restless: tuple[Path, Path],
) -> None:
    folder, noted = restless
    assert (noted / "took all memory").read_text() == "told"
    assert [int(line) for line in (noted / "0.0005").read_text().split()] == [0, 128, 128, 256, 384]
    board = board_of(folder).drop_duplicates("trial_id").set_index("ppo.learning_rate")
    reason = "WorkerOutOfMemoryError: Task was killed due to the node running low on memory."
    assert board.loc[5e-4, "ended"] == f"budget at 512 env steps; restarted after {reason}"


def test_what_is_not_finite_is_never_kept(restless: tuple[Path, Path]) -> None:
    folder, _ = restless
    for path in folder.glob("trials/run_000/trial_*/checkpoint_*"):
        verify_manifest(path)
        state = torch.load(path / "training_state.pt", weights_only=True)
        assert all(bool(torch.isfinite(value).all()) for value in state["weights"].values()), path


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Tune leaves its result files open
def test_a_full_disk_ends_a_sweep_with_its_reason_and_resume_completes_it(
    bars_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(bars_file, tmp_path, search__trials=1)
    written: list[Path] = []

    def append(path: Path, row: dict[str, Any]) -> None:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        append_row(path, row)
        written.append(path)

    monkeypatch.setattr(journal, "append_row", append)
    with pytest.raises(OSError, match="No space left") as caught:
        run_sweep(config)
    capsys.readouterr()
    assert tell(caught.value) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {caught.value.filename}: no space is left on the disk; make room")
    del caught
    gc.collect()
    monkeypatch.undo()
    run_sweep(config, resume=True)
    assert_complete(tmp_path / "tiny", 1)
    assert board_of(tmp_path / "tiny")["evaluations"].max() == 4
