"""The figures of a sweep: equity, learning curves, scores, importance, folds, luck."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from sentio_rllib.report.drawing import COLOURS, draw, number_label, quiet
from sentio_rllib.report.formats import number
from sentio_rllib.report.sweep_files import DatedRange

ENDS = {
    "completed": ("o", "blue", "completed"),
    "pruned": ("X", "orange", "stopped early"),
    "failed": ("^", "purple", "failed"),
    "unfinished": ("D", "grey", "cut off"),
}
"""State of a trial: its marker, its colour, and what it is called."""

_LABELLED = 24
"""Trials up to which each mark is numbered; more would cover each other."""
_ACROSS = 3
_DAY, _EPOCH = timedelta(days=1), datetime(1970, 1, 1, tzinfo=UTC)
_LOG_SPAN = 300
"""Quotient of the largest and smallest value from which ticks at powers of ten suffice."""


def short_name(trial: str) -> str:
    """Return the number of a trial, or its whole name where that holds none."""
    digits = trial.removeprefix("trial_")
    return str(int(digits)) if digits.isdecimal() and digits != trial else trial


def equity_figure(name: str, title: str, sessions: pd.DataFrame) -> Markup:
    """Draw equity of champion and buy-and-hold with their drawdown below.

    Parameters
    ----------
    name, title
        See :func:`~sentio_rllib.report.drawing.draw`.
    sessions
        ``session`` as dates in order, and simple returns ``champion`` and ``hold``, at least one row.
    """

    def paint(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
        dates = sessions["session"].to_numpy()
        for column, label, colour in (("hold", "buy and hold", "orange"), ("champion", "champion", "blue")):
            equity = np.cumprod(1 + sessions[column].to_numpy(float))
            peak = np.maximum(np.maximum.accumulate(equity), 1.0)
            dashes = "--" if column == "hold" else "-"
            marker = "o" if len(equity) == 1 else ""
            above.plot(dates, equity, dashes, color=COLOURS[colour], label=label, marker=marker)
            below.plot(dates, equity / peak - 1, dashes, color=COLOURS[colour], linewidth=1, marker=marker)
            if column == "champion":
                below.fill_between(dates, equity / peak - 1, 0, color=COLOURS[colour], alpha=0.2, linewidth=0)
        above.axhline(1, color=COLOURS["muted"], linewidth=0.8)
        above.set_ylabel("growth of 1")
        above.legend(loc="upper left", ncols=2)
        below.set_ylabel("drawdown")
        below.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        below.yaxis.set_major_locator(MaxNLocator(4))

    return draw(name, title, 4.2, paint)


def learning_figure(curves: pd.DataFrame, trials: pd.DataFrame, champion: str | None) -> Markup:
    """Draw the score of every trial by fold over training, marking where each ended.

    Parameters
    ----------
    curves
        ``trial_id, env_steps, fold, fold_score``, with finite scores.
    trials
        ``state`` by trial.
    champion
        Its line is set apart.
    """
    folds = sorted(curves["fold"].unique())
    across = 2 if len(folds) in (2, 4) else min(_ACROSS, len(folds))
    down = math.ceil(len(folds) / across)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
        for panel, fold in zip(panels, folds, strict=False):
            _learning_panel(panel, curves[curves["fold"] == fold], trials, champion)
            panel.set_title(f"fold {fold}")
        for panel in panels[len(folds) :]:
            panel.set_visible(False)
        for panel in panels[: len(folds)][-across:]:
            panel.tick_params(labelbottom=True)
        figure.supxlabel("env steps", fontsize=9, color=COLOURS["muted"])
        figure.supylabel("annual Sharpe ratio of the fold", fontsize=9, color=COLOURS["muted"])
        seen = set(trials.loc[trials.index.isin(curves["trial_id"]), "state"])
        _legend_of_ends(figure, seen, line=champion is not None)

    return draw("learning", "Learning curves of all trials by fold", 2.3 * down + 0.8, paint)


def _learning_panel(panel: Axes, rows: pd.DataFrame, trials: pd.DataFrame, champion: str | None) -> None:
    panel.axhline(0, color=COLOURS["muted"], linewidth=0.8)
    groups = list(rows.groupby("trial_id", sort=True))
    for trial, points in sorted(groups, key=lambda pair: pair[0] == champion):  # the champion's line on top
        ordered = points.sort_values("env_steps")
        best = trial == champion
        colour = COLOURS["ink"] if best else COLOURS["grey"]
        panel.plot(
            ordered["env_steps"], ordered["fold_score"], color=colour, linewidth=1.8 if best else 0.9, zorder=3 + best
        )
        state = str(trials["state"].get(trial, "unfinished"))
        marker, tone, _ = ENDS.get(state, ENDS["unfinished"])
        end = ordered.iloc[-1]
        panel.plot([end["env_steps"]], [end["fold_score"]], marker, color=COLOURS[tone], markersize=5, zorder=5)
        if len(trials) <= _LABELLED and state != "completed":  # those end at one place, where numbers would overlap
            _label(panel, short_name(str(trial)), end["env_steps"], end["fold_score"])
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.xaxis.set_major_formatter(FuncFormatter(_thousands))


def _thousands(value: float, _: object = None) -> str:
    return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k" if abs(value) >= 1e3 else f"{value:g}"


def _label(axes: Axes, text: str, x: float, y: float) -> None:
    axes.annotate(
        text, (x, y), (6, 5), textcoords="offset points", fontsize=7, color=COLOURS["muted"], annotation_clip=True
    )


def _legend_of_ends(figure: Figure, states: set[str], *, line: bool) -> None:
    marks = [
        Line2D([], [], marker=marker, color=COLOURS[tone], linestyle="", markersize=5, label=label)
        for state, (marker, tone, label) in ENDS.items()
        if state in states
    ]
    if line:
        marks.insert(0, Line2D([], [], color=COLOURS["ink"], linewidth=1.8, label="champion"))
    figure.legend(handles=marks, loc="outside upper left", ncols=5)


def scatter_figure(key: str, trials: pd.DataFrame, champion: str | None) -> Markup:
    """Draw the score of trials over a positive parameter on a logarithmic axis.

    Parameters
    ----------
    key
        Of the parameter, a column of `trials`.
    trials
        ``state, cv_score`` and `key` by trial, finite scores and values > 0.
    champion
        Is ringed.
    """

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        for trial, row in trials.iterrows():
            marker, tone, _ = ENDS.get(str(row["state"]), ENDS["unfinished"])
            axes.plot([row[key]], [row["cv_score"]], marker, color=COLOURS[tone], markersize=6, zorder=3)
            if trial == champion:
                axes.plot([row[key]], [row["cv_score"]], "o", color=COLOURS["ink"], markersize=12, fillstyle="none")
            if len(trials) <= _LABELLED:
                _label(axes, short_name(str(trial)), row[key], row["cv_score"])
        low, high = float(trials[key].min()), float(trials[key].max())
        axes.set_xlim(low / 1.3, high * 1.3)
        narrow = high / low < _LOG_SPAN
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(number_label))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"{key.rpartition('.')[2].replace('_', ' ')}, logarithmic")
        axes.set_ylabel("cv_score, annual Sharpe ratio")
        _legend_of_ends(figure, set(trials["state"]), line=False)

    return draw("rate", f"Score of trials against {key}", 3.4, paint)


def importance_figure(shares: Mapping[str, float]) -> Markup:
    """Draw the share of the score's variance that each parameter explains, `shares` summing to 1."""
    names = sorted(shares, key=lambda key: (shares[key], key))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        values = [shares[name] for name in names]
        axes.barh(names, values, color=COLOURS["blue"], height=0.6)
        for row, value in enumerate(values):
            axes.annotate(f"{value:.0%}", (value, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlim(0, max(values) * 1.12 or 1)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"], left=False)
        axes.set_xlabel("share of the score's variance")

    return draw("importance", "Importance of the searched parameters", 0.34 * len(names) + 0.8, paint)


def folds_figure(ranges: Sequence[DatedRange]) -> Markup:
    """Draw the folds on a time line, at least one range; what is narrower than the eye is drawn wider."""
    rows = list(dict.fromkeys(each.fold for each in ranges))
    span = (max(each.last for each in ranges) - min(each.first for each in ranges)) / _DAY
    looks: dict[str, dict[str, Any]] = {
        "train": {"facecolor": COLOURS["blue"], "edgecolor": "none", "alpha": 0.45},
        "validation": {"facecolor": COLOURS["orange"], "edgecolor": "none"},
        "holdout": {"facecolor": "none", "edgecolor": COLOURS["purple"], "hatch": "////"},
        "gap": {"facecolor": COLOURS["ink"], "edgecolor": "none"},
    }

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.xaxis_date()
        for part, look in looks.items():
            held = [each for each in ranges if each.part == part]
            for each in held:
                length = (each.last - each.first) / _DAY
                width = max(length, span * 0.003)
                start = (each.first - _EPOCH) / _DAY - (width - length) / 2
                bottom = rows.index(each.fold) - 0.34
                axes.broken_barh([(start, width)], (bottom, 0.68), zorder=3 + (part == "gap"), **look)
            if held:
                axes.broken_barh([], (0, 1), label="purged" if part == "gap" else part, **look)
        axes.set_yticks(range(len(rows)), [f"fold {row}" if row.isdecimal() else "holdout" for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"], left=False)
        figure.legend(loc="outside upper left", ncols=4)

    return draw("folds", "Training, purged and validation ranges of the folds in time", 0.36 * len(rows) + 0.9, paint)


def luck_figure(sharpes: Sequence[float], champion: float | None, expected_maximum: float | None) -> Markup:
    """Draw the Sharpe ratios of all trials, stacked, against the best that luck alone is expected to give.

    Parameters
    ----------
    sharpes
        Annual, of every trial with returns; finite, at least one.
    champion, expected_maximum
        Annual; None where there is none.
    """
    marks = [value for value in (champion, expected_maximum) if value is not None]
    low, high = min([0.0, *sharpes, *marks]), max([0.0, *sharpes, *marks])
    width = (high - low or 1.0) / 70
    stacks: dict[int, int] = {}
    heights = []
    for value in sorted(sharpes):
        place = round((value - low) / width)
        stacks[place] = stacks.get(place, 0) + 1
        heights.append(stacks[place])
    tallest = max(heights)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        size = min(6.0, 90 / tallest)
        axes.plot(sorted(sharpes), heights, "o", color=COLOURS["grey"], markersize=size, label="trials")
        if champion is not None:
            axes.axvline(champion, color=COLOURS["blue"], linewidth=1.8, label=f"champion {number(champion)}")
        if expected_maximum is not None:
            label = f"expected maximum by luck {number(expected_maximum)}"
            axes.axvline(expected_maximum, color=COLOURS["orange"], linewidth=1.8, linestyle="--", label=label)
        axes.set_ylim(0, max(tallest, 4) + 1)
        axes.set_yticks([])
        axes.set_xlabel("annual Sharpe ratio of the out-of-sample returns; one dot a trial")
        quiet(axes)
        figure.legend(loc="outside upper left", ncols=3)

    return draw("luck", "Sharpe ratios of all trials against the maximum expected by luck", 2.6, paint)
