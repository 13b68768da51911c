"""Writes the files of a sweep: leaderboard, session returns, summary and champion."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sentio_rllib.policy.checkpoint import save_model
from sentio_rllib.report.page import write_report
from sentio_rllib.sweep.champion import champion_model
from sentio_rllib.sweep.claims import examine
from sentio_rllib.sweep.config import SweepConfig
from sentio_rllib.sweep.context import Context
from sentio_rllib.sweep.files import write_json, write_text
from sentio_rllib.sweep.pairing import compare_arms
from sentio_rllib.sweep.prepare import Prepared
from sentio_rllib.sweep.selection import (
    STATES,
    Outcome,
    Selection,
    best_outcome,
    collapsed_gates,
    curves,
    leaderboard,
    session_returns,
)
from sentio_rllib.sweep.space import asked_trials
from sentio_rllib.validation.schemes import Range

CHAMPION = "champion"
SUMMARY = "summary.json"
FINAL = ("completed", "time budget")
"""States of a sweep whose search is over and has a champion."""


@dataclass(frozen=True)
class Course:
    """How this run of a sweep went.

    Attributes
    ----------
    seconds
        Wall time of the search.
    steps_before
        Env steps that earlier runs of the sweep have made.
    remaining
        Trials that were asked for and have not ended.
    interrupted
        Whether the user ended it.
    """

    seconds: float
    steps_before: int
    remaining: int
    interrupted: bool


def write_outcome(
    sweep: Context, outcomes: Sequence[Outcome], course: Course, *, reopen: bool, go_on: Callable[[], bool]
) -> dict[str, Any]:
    """Write everything a sweep leaves behind and return the summary.

    Parameters
    ----------
    sweep
        What was asked for and what trials ran on.
    outcomes
        One per trial.
    course
        How the search went.
    reopen
        Whether a holdout that was opened before may be opened again.
    go_on
        False gives up what the champion still takes.
    """
    folder, config, prepared = sweep.folder, sweep.config, sweep.prepared
    best = best_outcome(outcomes, config.evidence.selection)
    leaderboard(outcomes).to_parquet(folder / "leaderboard.parquet")
    labels = [str(label) for label in prepared.tape.session_labels]
    session_returns(outcomes, labels).to_parquet(folder / "returns.parquet")
    curves(outcomes).to_parquet(folder / "curves.parquet")
    write_text(folder / "folds.json", json.dumps(_folds(prepared), indent=1) + "\n")
    if best is not None:
        save_model(folder / CHAMPION, *champion_model(best, config, prepared))
    state = _state(config, outcomes, best, course)
    found = examine(sweep, outcomes, best, final=state in FINAL, reopen=reopen, go_on=go_on)
    found.equity.to_parquet(folder / "equity.parquet")
    summary = {
        "name": config.name,
        "state": "interrupted" if found.given_up else state,
        "variant": config.variant,
        "data": {
            "fingerprint": prepared.bars.fingerprint,
            "bars": prepared.bars.n,
            "first": prepared.bars.first,
            "last": prepared.bars.last,
        },
        "trials": _counts(config, outcomes),
        "best": _best(best, config.evidence.selection),
        "arms": compare_arms(config.search.arms, outcomes),
        **found.summary,
        "throughput": _throughput(outcomes, len(prepared.splits.folds) * config.validation.seeds, course),
    }
    write_json(folder / SUMMARY, summary)
    write_report(folder)
    return summary


def _folds(prepared: Prepared) -> list[dict[str, str | int]]:
    """One row for each range of bars: its fold, its part, its first and last bar."""
    splits, stamps = prepared.splits, prepared.bars.timestamp.astype("datetime64[ns]").astype("datetime64[m]")
    parts: list[tuple[int | str, str, Sequence[Range]]] = []
    for fold in splits.folds:
        parts += [(fold.index, "train", fold.train), (fold.index, "validation", fold.validation)]
    parts.append(("-", "holdout", splits.holdout_blocks))
    return [
        {
            "fold": fold,
            "part": part,
            "first": f"{stamps[each.start]}Z",
            "last": f"{stamps[each.stop - 1]}Z",
            "bars": len(each),
        }
        for fold, part, ranges in parts
        for each in ranges
    ]


def _state(config: SweepConfig, outcomes: Sequence[Outcome], best: Outcome | None, course: Course) -> str:
    if course.interrupted:
        return "interrupted"
    if outcomes and all(outcome.state == "failed" for outcome in outcomes):
        return "failed"
    if not any(outcome.env_steps >= config.search.grace_steps for outcome in outcomes):
        return "budget too short"
    if best is None:
        return "no trading"
    return "completed" if course.remaining == 0 else "time budget"


def _counts(config: SweepConfig, outcomes: Sequence[Outcome]) -> dict[str, int]:
    states = Counter(outcome.state for outcome in outcomes)
    counts = {state: states[state] for state in STATES}
    return {"asked": asked_trials(config), "total": len(outcomes), **counts}


def _best(best: Outcome | None, selection: Selection) -> dict[str, Any] | None:
    if best is None:
        return None
    return {
        "trial_id": best.trial_id,
        "selection": selection,
        "params": best.params,
        "cv_score": best.cv_score,
        "fold_scores": best.best["fold_scores"],
        "env_steps": best.best["env_steps"],
        "validation_trades": best.best["validation_trades"],
        "gate": _gate(best.best),
    }


def _gate(best: dict[str, Any]) -> dict[str, Any] | None:
    """Figures of the members' gates, or None without one."""
    if "gate_usage" not in best:
        return None
    names = ("usage", "entropy", "information")
    return {"collapsed": collapsed_gates(best), **{name: best[f"gate_{name}"] for name in names}}


def _throughput(outcomes: Sequence[Outcome], members: int, course: Course) -> dict[str, Any]:
    """Return env steps of the whole sweep, and rates: in all over this run's time, by trial while it trained."""
    steps = sum(outcome.env_steps for outcome in outcomes)
    rate = (steps - course.steps_before) / course.seconds
    return {
        "env_steps": steps,
        "member_steps": steps * members,
        "seconds": course.seconds,
        "env_steps_per_s": rate,
        "member_steps_per_s": rate * members,
        "env_steps_per_s_by_trial": {
            outcome.trial_id: outcome.env_steps_per_s for outcome in outcomes if outcome.curve
        },
    }
