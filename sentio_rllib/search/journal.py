"""What trials report, written at once.

Tune keeps its own result files in a staging folder that it copies every ten seconds or later; what was
reported since the last copy is lost when the driver is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.exceptions import RayTaskError
from ray.tune import Callback
from ray.tune.result import SHOULD_CHECKPOINT

from sentio_rllib.search.durable import EVALUATIONS, FAULTS, append_row
from sentio_rllib.search.trials import curve_of

Count = Callable[[str, Mapping[str, Any], Sequence[Mapping[str, Any]]], None]
"""Told of a trial as it runs: its name, its parameters, and the evaluations that it has reported."""


class Journal(Callback):  # type: ignore[misc]  # Ray ships no types
    """Appends each evaluation and each fault of a trial to files in its folder, and has sound evaluations kept.

    A checkpoint follows every evaluation but that of a trial that is not finite. Each is counted at once, so
    that a sweep that is killed and forgotten has been counted.

    Parameters
    ----------
    folder
        Of this run of the sweep; trials have folders of their names below it.
    count
        Told of each evaluation.
    """

    def __init__(self, folder: Path, count: Count) -> None:
        self.folder, self.count = folder, count

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Write the flat figures of an evaluation, and ask for its checkpoint."""
        del iteration, trials
        result[SHOULD_CHECKPOINT] = "failure" not in result
        flat = {key: value for key, value in result.items() if value is None or isinstance(value, (str, int, float))}
        append_row(self.folder / str(trial) / EVALUATIONS, flat)
        self.count(str(trial), trial.config["params"], curve_of(self.folder.parents[1], str(trial)))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Write why a trial is restarted from its last checkpoint."""
        del iteration, trials
        append_row(self.folder / str(trial) / FAULTS, {"error": _reason(trial), "restarted": True})

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Write why a trial failed for good."""
        del iteration, trials
        append_row(self.folder / str(trial) / FAULTS, {"error": _reason(trial), "restarted": False})


def _reason(trial: Any) -> str:
    """Return the last error of a Tune trial in one line."""
    if trial.pickled_error_file is None:
        return Path(trial.error_file).read_text().strip().rpartition("\n")[2]
    error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    if isinstance(error, RayTaskError):
        error = error.cause
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
