"""How the search went: learning curves, leaderboard, arms, parameters."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sentio_rllib.report.blocks import Block, Chart, Details, Heading, Note, ReportSection, Table
from sentio_rllib.report.figures import (
    importance_figure,
    learning_figure,
    scatter_figure,
    short_name,
)
from sentio_rllib.report.formats import NONE, count, finite, general, number, percent
from sentio_rllib.report.importance import parameter_importance
from sentio_rllib.report.sweep_files import STUDY, Sweep, scores

ROWS = 20
"""Trials of the leaderboard that are shown."""

_RATE = "ppo.learning_rate"


def learning_section(sweep: Sweep) -> ReportSection:
    """Return the learning curves by fold, and where and why each trial ended."""
    blocks: list[Block] = []
    curves = _curves(sweep)
    if curves.empty:
        blocks.append(Note("No learning curves: no evaluation has a score, or curves.parquet is missing.", "missing"))
    else:
        drawing = learning_figure(curves, sweep.trials, sweep.champion)
        caption = (
            "Median over seeds. A mark is a trial's last evaluation; a number names a trial that was not completed, "
            "the table says why."
        )
        blocks.append(Chart(drawing, caption))
    if len(sweep.trials):
        steps = sweep.trials.get("env_steps", pd.Series(dtype=float))
        rows = [
            (short_name(str(trial)), str(row["state"]), count(steps.get(trial)), str(row["ended"]))
            for trial, row in sweep.trials.sort_index().iterrows()
        ]
        ends = Table(("trial", "state", "env steps", "why it ended"), rows, words=frozenset({1, 3}))
        blocks.append(Details(f"Where and why trials ended ({len(rows)})", blocks=[ends], opened=len(rows) <= ROWS))
    return ReportSection("learning", "Learning curves", blocks)


def _curves(sweep: Sweep) -> pd.DataFrame:
    if sweep.curves is None:
        return pd.DataFrame()
    rows = sweep.curves.copy()
    rows["fold_score"] = scores(rows["fold_score"])
    return rows.dropna(subset=["fold_score", "env_steps", "fold"])


def leaderboard_section(sweep: Sweep) -> ReportSection:
    """Return the best trials with why each ended, and how arms compare where there are any."""
    trials = sweep.trials
    if trials.empty:
        return ReportSection("leaderboard", "Leaderboard", [Note("No trial is in the leaderboard.", "missing")])
    shown = trials.head(ROWS)
    rows = [_trial_row(place, str(trial), row, sweep) for place, (trial, row) in enumerate(shown.iterrows(), start=1)]
    champion = next((index for index, trial in enumerate(shown.index) if trial == sweep.champion), None)
    worded = {8 + index for index, key in enumerate(sweep.searched) if not _numeric(trials[key])}
    names = [key.rpartition(".")[2].replace("_", " ") for key in sweep.searched]
    head = ("#", "trial", "cv_score", "rung", "train", "trades", "exposure", "env steps", *names, "why it ended")
    caption = f"Trials, {len(rows)} of {len(trials)}, best first; the champion is set apart"
    table = Table(head, rows, caption, words=frozenset({1, len(head) - 1} | worded), marked=champion)
    return ReportSection("leaderboard", "Leaderboard", [table, *_gap(sweep), *_arms(sweep)])


def _gap(sweep: Sweep) -> list[Block]:
    """Say how much better the champion does on its own training bars, with a caution where that is no chance."""
    trained, scored = (finite(sweep.get("best", key)) for key in ("train_score", "cv_score"))
    chance = finite(sweep.get("best", "gap_by_chance"))
    if trained is None or scored is None or chance is None:
        return []
    told = f"On its own training bars the champion scores {number(trained)}, in validation {number(scored)}."
    if trained - scored <= chance:
        return [Note(told)]
    apart = f"By chance they differ by {number(chance)}: in part it knows its bars by heart."
    return [Note(f"{told} {apart}", "caution")]


def _numeric(column: pd.Series[Any]) -> bool:
    return bool(pd.to_numeric(column.dropna(), errors="coerce").notna().all())


def _trial_row(place: int, trial: str, row: pd.Series[Any], sweep: Sweep) -> tuple[str, ...]:
    return (
        str(place),
        trial,
        number(row["cv_score"], 3),
        number(row.get("rung_score"), 3),
        number(row.get("train_score"), 3),
        count(row.get("trades")),
        percent(row.get("exposure")),
        count(row.get("env_steps")),
        *(general(row[key]) for key in sweep.searched),
        str(row["ended"]),
    )


def _arms(sweep: Sweep) -> list[Block]:
    arms = sweep.get("arms")
    if not isinstance(arms, dict) or not arms.get("results"):
        return []
    rows = [_arm_row(result) for result in arms["results"]]
    head = (
        "arm",
        "Sharpe ratio, annual",
        "trades",
        "env steps",
        "difference",
        "95% interval",
        "pairs",
        "shown",
        "changes",
    )
    caption = f"Paired over fold and seed; differences to {arms.get('baseline', NONE)}"
    blocks: list[Block] = [Heading("Arms"), Table(head, rows, caption, words=frozenset({7, 8}))]
    if not arms.get("equal_steps", True):
        blocks.append(
            Note("The arms have not trained equally long, so their difference is not theirs alone.", "caution")
        )
    return blocks


def _arm_row(result: dict[str, Any]) -> tuple[str, ...]:
    difference = result.get("difference") or {}
    shown = difference.get("verdict", "baseline")
    if result.get("score") is None:
        shown = f"no scores: {result.get('ended', NONE)}"
    elif difference.get("missing"):
        shown += f"; {difference['missing']} fold x seed have no partner"
    low, high = finite(difference.get("low")), finite(difference.get("high"))
    return (
        str(result.get("name", NONE)),
        number(result.get("score"), 3),
        count(result.get("trades")),
        count(result.get("env_steps")),
        number(difference.get("mean"), 3),
        NONE if low is None or high is None else f"{number(low, 3)} to {number(high, 3)}",
        count(difference.get("pairs")),
        str(shown),
        ", ".join(f"{key} {general(value)}" for key, value in (result.get("changes") or {}).items()) or "none",
    )


def parameters_section(sweep: Sweep) -> ReportSection:
    """Return learning rate against score, and the importance of the searched parameters."""
    return ReportSection("parameters", "Parameters", [*_rate(sweep), *_importance(sweep)])


def _rate(sweep: Sweep) -> list[Block]:
    if _RATE not in sweep.searched:
        return [Note(f"{_RATE} was not searched.")]
    rates = pd.to_numeric(sweep.trials[_RATE], errors="coerce")
    trials = sweep.trials.assign(**{_RATE: rates})
    trials = trials[(rates > 0) & trials["cv_score"].notna()]
    if trials.empty:
        return [Note("No trial has both a learning rate and a score.", "missing")]
    caption = "Best score of each trial; the champion is ringed. Stopped trials were scored on less training."
    return [
        Heading("Learning rate against score"),
        Chart(scatter_figure(_RATE, trials, sweep.champion), caption),
    ]


def _importance(sweep: Sweep) -> list[Block]:
    found = parameter_importance(sweep.folder / STUDY, str(sweep.get("name") or sweep.folder.name))
    if found.why_none:
        return [Heading("Parameter importance"), Note(f"Not estimated: {found.why_none}.", "missing")]
    caption = (
        f"fANOVA over {found.trials} completed trials: the share of the score's variance in a forest fitted to them. "
        "It is a hint, not a test."
    )
    return [Heading("Parameter importance"), Chart(importance_figure(found.shares), caption)]
