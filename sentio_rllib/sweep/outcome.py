"""Writes the files of a sweep: leaderboard, session returns, summary and report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.evidence.claims import Findings, costs_of, market_of
from sentio_rllib.evidence.context import Context
from sentio_rllib.evidence.pairing import compare_arms
from sentio_rllib.evidence.selecting import Selected
from sentio_rllib.market.tape import Tape
from sentio_rllib.report.page import write_report
from sentio_rllib.search.durable import write_json, write_text
from sentio_rllib.search.prepare import Prepared
from sentio_rllib.search.selection import (
    STATES,
    Outcome,
    Selection,
    collapsed_gates,
    curves,
    failures,
    leaderboard,
    session_returns,
)
from sentio_rllib.search.tuning import SearchCourse, Searched
from sentio_rllib.statistics.significance import gap_by_chance
from sentio_rllib.validation.schemes import Range

SUMMARY = "summary.json"


def write_trials(sweep: Context, outcomes: Sequence[Outcome]) -> None:
    """Write what the trials left: leaderboard, session returns, learning curves, and the ranges of all folds."""
    folder, prepared = sweep.folder, sweep.prepared
    leaderboard(outcomes).to_parquet(folder / "leaderboard.parquet")
    labels = [str(label) for label in prepared.tape.session_labels]
    session_returns(outcomes, labels).to_parquet(folder / "returns.parquet")
    curves(outcomes).to_parquet(folder / "curves.parquet")
    write_text(folder / "folds.json", json.dumps(_folds(prepared), indent=1) + "\n")


def write_outcome(sweep: Context, searched: Searched, selected: Selected, found: Findings) -> dict[str, Any]:
    """Write equity, summary and report, and return the summary."""
    folder, config, prepared, outcomes = sweep.folder, sweep.config, sweep.prepared, searched.outcomes
    found.equity.to_parquet(folder / "equity.parquet")
    summary = {
        "name": config.name,
        "state": found.state,
        "variant": config.variant,
        "data": {
            "fingerprint": prepared.bars.fingerprint,
            "bars": prepared.bars.n,
            "first": prepared.bars.first,
            "last": prepared.bars.last,
            "market": market_of(config, prepared.bars.symbol),
            "calendar": config.data.calendar,
            "hours": config.data.hours,
            "costs": costs_of(config),
        },
        "trials": _counts(config, outcomes),
        "failures": failures(outcomes),
        "best": _best(None if selected.best is None else selected.best.trial, config.evidence.selection, prepared.tape),
        "arms": compare_arms(config.search.arms, outcomes),
        **found.summary,
        "throughput": _throughput(outcomes, len(prepared.splits.folds) * config.validation.seeds, searched.course),
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


def _counts(config: SweepConfig, outcomes: Sequence[Outcome]) -> dict[str, int]:
    states = Counter(outcome.state for outcome in outcomes)
    counts = {state: states[state] for state in STATES}
    return {"asked": config.asked_trials(), "total": len(outcomes), **counts}


def _best(best: Outcome | None, selection: Selection, tape: Tape) -> dict[str, Any] | None:
    if best is None:
        return None
    sessions = np.unique(np.concatenate([record["session"] for record in best.best["records"]])).size
    return {
        "trial_id": best.trial_id,
        "selection": selection,
        "params": best.params,
        "cv_score": best.cv_score,
        "train_score": best.best.get("train_score"),
        "gap_by_chance": gap_by_chance(sessions / tape.sessions_per_year),
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


def _throughput(outcomes: Sequence[Outcome], members: int, course: SearchCourse) -> dict[str, Any]:
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
