"""Writes the files of a sweep: leaderboard, session returns, summary and champion."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentio_rllib.sweep.champion import write_champion
from sentio_rllib.sweep.config import SweepConfig
from sentio_rllib.sweep.prepare import Prepared
from sentio_rllib.sweep.selection import Outcome, best_outcome, leaderboard, session_returns

CHAMPION = "champion"
SUMMARY = "summary.json"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace `path` by `content` in one step, flushed to disk; a reader sees the old or the new file."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_outcome(
    folder: Path,
    config: SweepConfig,
    prepared: Prepared,
    outcomes: Sequence[Outcome],
    *,
    seconds: float,
    interrupted: bool,
) -> dict[str, Any]:
    """Write everything a sweep leaves behind and return the summary.

    Parameters
    ----------
    folder
        Of the sweep.
    config, prepared
        What was asked for and what trials ran on.
    outcomes
        One per trial.
    seconds
        Wall time of this run of the sweep.
    interrupted
        Whether the user ended it.
    """
    best = best_outcome(outcomes)
    leaderboard(outcomes).to_parquet(folder / "leaderboard.parquet")
    labels = [str(label) for label in prepared.tape.session_labels]
    session_returns(outcomes, labels).to_parquet(folder / "returns.parquet")
    if best is not None:
        write_champion(folder / CHAMPION, best, config, prepared)
    summary = {
        "name": config.name,
        "state": _state(config, outcomes, best, interrupted=interrupted),
        "variant": config.variant,
        "data": {
            "fingerprint": prepared.bars.fingerprint,
            "bars": prepared.bars.n,
            "first": prepared.bars.first,
            "last": prepared.bars.last,
        },
        "trials": _counts(config, outcomes),
        "best": _best(best),
        "throughput": _throughput(outcomes, len(prepared.splits.folds) * config.validation.seeds, seconds),
    }
    write_json(folder / SUMMARY, summary)
    return summary


def _state(config: SweepConfig, outcomes: Sequence[Outcome], best: Outcome | None, *, interrupted: bool) -> str:
    if interrupted:
        return "interrupted"
    if not any(_steps(outcome) >= config.search.grace_steps for outcome in outcomes):
        return "budget too short"
    return "no trading" if best is None else "completed"


def _steps(outcome: Outcome) -> int:
    return int(outcome.curve[-1]["env_steps"]) if outcome.curve else 0


def _counts(config: SweepConfig, outcomes: Sequence[Outcome]) -> dict[str, int]:
    states = Counter(outcome.state for outcome in outcomes)
    counts = {state: states[state] for state in ("completed", "pruned", "failed", "unfinished")}
    return {"asked": config.search.trials, "total": len(outcomes), **counts}


def _best(best: Outcome | None) -> dict[str, Any] | None:
    if best is None:
        return None
    return {
        "trial_id": best.trial_id,
        "params": best.params,
        "cv_score": best.cv_score,
        "fold_scores": best.best["fold_scores"],
        "env_steps": best.best["env_steps"],
        "validation_trades": best.best["validation_trades"],
    }


def _throughput(outcomes: Sequence[Outcome], members: int, seconds: float) -> dict[str, Any]:
    rates = {
        outcome.trial_id: sum(result["env_steps_per_s"] for result in outcome.curve) / len(outcome.curve)
        for outcome in outcomes
        if outcome.curve and all("env_steps_per_s" in result for result in outcome.curve)
    }
    steps = sum(_steps(outcome) for outcome in outcomes)
    return {
        "env_steps": steps,
        "member_steps": steps * members,
        "seconds": seconds,
        "env_steps_per_s": steps / seconds,
        "member_steps_per_s": steps * members / seconds,
        "env_steps_per_s_by_trial": rates,
    }
