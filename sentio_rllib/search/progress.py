"""Live progress of a sweep, as Tune's reporter prints it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ray.tune import ProgressReporter

from sentio_rllib.ppo.algorithm import FAILED_SCORE

SECONDS = 10.0


class SweepReporter(ProgressReporter):  # type: ignore[misc]  # Ray ships no types
    """Prints one line every ten seconds: trials by state, best score, throughput, time to go.

    Parameters
    ----------
    trials
        Trials that this run is to start.
    env_steps
        Budget of a trial.
    minutes
        Time budget, None for none.
    """

    def __init__(self, trials: int, env_steps: int, minutes: float | None) -> None:
        self.trials, self.env_steps, self.minutes = trials, env_steps, minutes
        self.started = time.monotonic()
        self.printed = 0.0

    def should_report(self, trials: Sequence[Any], done: bool = False) -> bool:
        """Whether ten seconds have gone by, or all is done."""
        del trials
        return done or time.monotonic() - self.printed >= SECONDS

    def report(self, trials: Sequence[Any], done: bool, *sys_info: str) -> None:
        """Print the line."""
        del sys_info
        self.printed = time.monotonic()
        print(progress_line(trials, self, seconds=self.printed - self.started, done=done), flush=True)


def progress_line(trials: Sequence[Any], of: SweepReporter, *, seconds: float, done: bool) -> str:
    """Return the line for these Tune trials after `seconds` of the run."""
    states = Counter(trial.status.lower() for trial in trials)
    results = [trial.last_result or {} for trial in trials]
    best = max((result.get("best_cv_score", FAILED_SCORE) for result in results), default=FAILED_SCORE)
    reached = [int(result.get("env_steps", 0)) for result in results]
    steps = sum(reached)
    over = [trial.status in {"TERMINATED", "ERROR"} for trial in trials]
    missing = of.env_steps * (of.trials - sum(over)) - sum(
        step for step, ended in zip(reached, over, strict=True) if not ended
    )
    rate = steps / seconds if seconds > 0 else 0.0
    shown = "  ".join(f"{count} {state}" for state, count in sorted(states.items())) or "starting"
    score = "no score yet" if best == FAILED_SCORE else f"best cv_score {best:.3f}"
    left = "done" if done else f"at most {_time_left(of, missing, rate, seconds)} to go"
    return f"{clock(seconds)}  {shown} of {of.trials}  {score}  {rate:,.0f} env steps/s  {left}"


def _time_left(of: SweepReporter, missing: int, rate: float, seconds: float) -> str:
    """Return the time until trials that have not ended have made their `missing` steps, or the time is up."""
    needed = missing / rate if rate > 0 else float("inf")
    if of.minutes is not None:
        needed = min(needed, of.minutes * 60 - seconds)
    return "?" if needed == float("inf") else clock(max(0.0, needed))


def clock(seconds: float) -> str:
    """Return a time as m:ss, from an hour on as h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
