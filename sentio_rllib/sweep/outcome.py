"""Writes the files of a sweep: leaderboard, session returns, summary and champion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentio_rllib.ppo.checkpoint import save_model
from sentio_rllib.sweep.champion import champion_model
from sentio_rllib.sweep.config import SweepConfig
from sentio_rllib.sweep.files import write_json
from sentio_rllib.sweep.pairing import compare_arms
from sentio_rllib.sweep.prepare import Prepared
from sentio_rllib.sweep.selection import STATES, Outcome, best_outcome, collapsed_gates, leaderboard, session_returns
from sentio_rllib.sweep.space import asked_trials

CHAMPION = "champion"
SUMMARY = "summary.json"


def write_outcome(
    folder: Path,
    config: SweepConfig,
    prepared: Prepared,
    outcomes: Sequence[Outcome],
    *,
    seconds: float,
    steps_before: int,
    remaining: int,
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
    steps_before
        Env steps that earlier runs of the sweep have made.
    remaining
        Trials that were asked for and have not ended.
    interrupted
        Whether the user ended it.
    """
    best = best_outcome(outcomes)
    leaderboard(outcomes).to_parquet(folder / "leaderboard.parquet")
    labels = [str(label) for label in prepared.tape.session_labels]
    session_returns(outcomes, labels).to_parquet(folder / "returns.parquet")
    if best is not None:
        save_model(folder / CHAMPION, *champion_model(best, config, prepared))
    summary = {
        "name": config.name,
        "state": _state(config, outcomes, best, remaining=remaining, interrupted=interrupted),
        "variant": config.variant,
        "data": {
            "fingerprint": prepared.bars.fingerprint,
            "bars": prepared.bars.n,
            "first": prepared.bars.first,
            "last": prepared.bars.last,
        },
        "trials": _counts(config, outcomes),
        "best": _best(best),
        "arms": compare_arms(config.search.arms, outcomes),
        "throughput": _throughput(
            outcomes, len(prepared.splits.folds) * config.validation.seeds, seconds=seconds, steps_before=steps_before
        ),
    }
    write_json(folder / SUMMARY, summary)
    return summary


def _state(
    config: SweepConfig, outcomes: Sequence[Outcome], best: Outcome | None, *, remaining: int, interrupted: bool
) -> str:
    if interrupted:
        return "interrupted"
    if outcomes and all(outcome.state == "failed" for outcome in outcomes):
        return "failed"
    if not any(outcome.env_steps >= config.search.grace_steps for outcome in outcomes):
        return "budget too short"
    if best is None:
        return "no trading"
    return "completed" if remaining == 0 else "time budget"


def _counts(config: SweepConfig, outcomes: Sequence[Outcome]) -> dict[str, int]:
    states = Counter(outcome.state for outcome in outcomes)
    counts = {state: states[state] for state in STATES}
    return {"asked": asked_trials(config), "total": len(outcomes), **counts}


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
        "gate": _gate(best.best),
    }


def _gate(best: dict[str, Any]) -> dict[str, Any] | None:
    """Figures of the members' gates, or None without one."""
    if "gate_usage" not in best:
        return None
    names = ("usage", "entropy", "information")
    return {"collapsed": collapsed_gates(best), **{name: best[f"gate_{name}"] for name in names}}


def _throughput(outcomes: Sequence[Outcome], members: int, *, seconds: float, steps_before: int) -> dict[str, Any]:
    """Return env steps of the whole sweep, and rates: in all over this run's time, by trial while it trained."""
    steps = sum(outcome.env_steps for outcome in outcomes)
    rate = (steps - steps_before) / seconds
    return {
        "env_steps": steps,
        "member_steps": steps * members,
        "seconds": seconds,
        "env_steps_per_s": rate,
        "member_steps_per_s": rate * members,
        "env_steps_per_s_by_trial": {
            outcome.trial_id: outcome.env_steps_per_s for outcome in outcomes if outcome.curve
        },
    }
