"""How the champion did out of sample: equity, metrics beside the baselines, and higher costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from sentio_rllib.report.blocks import Block, Chart, Heading, Note, ReportSection, Table
from sentio_rllib.report.figures import equity_figure
from sentio_rllib.report.formats import NONE, count, dollars, finite, general, number, per_bar, percent
from sentio_rllib.report.sweep_files import Sweep, dig

_PARTS = {"cv": "Cross-validation", "holdout": "Holdout"}
_BASELINES = {"flat": "flat", "hold": "buy and hold", "sma": "SMA", "random": "random, mean", "oracle": "oracle"}
_METRICS: tuple[tuple[str, str, Callable[[object], str]], ...] = (
    ("Sharpe ratio, annual", "sharpe", number),
    ("Sharpe ratio of timing, annual", "timing_sharpe", number),
    ("Sharpe ratio with interest on idle cash", "sharpe_with_cash", number),
    ("Sortino ratio, annual", "sortino", number),
    ("Calmar ratio, annual", "calmar", number),
    ("total return", "total_return", percent),
    ("mean return per bar", "mean_return", per_bar),
    ("monthly return, 21 sessions", "monthly_return_21", percent),
    ("monthly return, 22 sessions", "monthly_return_22", percent),
    ("maximum drawdown", "max_drawdown", percent),
    ("longest drawdown, bars", "longest_drawdown_bars", count),
    ("CVaR of a session, 5%", "cvar", lambda value: percent(value, 2)),
    ("win rate of round trips", "win_rate", percent),
    ("round trips", "trips", count),
    ("trades", "trades", count),
    ("drawdown stops", "drawdown_stops", count),
    ("trades a day", "trades_per_day", number),
    ("turnover a day, times equity", "turnover_per_day", number),
    ("exposure, mean share of equity", "exposure", percent),
    ("Buys masked for volatility", "masked_volatility", percent),
    ("Buys masked by the clock", "masked_clock", percent),
    ("Buys masked in a drawdown", "masked_drawdown", percent),
    ("held over cuts, times", "cuts_held", count),
    ("return over cuts", "cuts_return", lambda value: percent(value, 2)),
    ("fees", "fees_usd", dollars),
    ("sessions", "sessions", count),
    ("bars", "bars", count),
)


def equity_section(sweep: Sweep) -> ReportSection:
    """Return equity against buy-and-hold, in cross-validation and, where it was opened, in the holdout."""
    blocks: list[Block] = []
    for part, label in _PARTS.items():
        sessions = _sessions(sweep.equity, part)
        if sessions.empty:
            blocks += [Heading(label), Note(f"No equity to show: {_why_none(sweep, part)}.", "missing")]
            continue
        drawing = equity_figure(f"equity-{part}", f"{label}: equity and drawdown against buy and hold", sessions)
        days = [f"{each:%Y-%m-%d}" for each in sessions["session"].iloc[[0, -1]]]
        ends = {name: percent(float(np.prod(1 + sessions[name].to_numpy(float))) - 1) for name in ("champion", "hold")}
        caption = (
            f"{days[0]} to {days[1]}, {count(len(sessions))} sessions: champion {ends['champion']}, buy and hold "
            f"{ends['hold']}, after costs, on the same bars. Below: the fall from the highest equity before."
        )
        blocks += [Heading(label), Chart(drawing, caption)]
    return ReportSection("equity", "Out-of-sample equity", blocks)


def _why_none(sweep: Sweep, part: str) -> str:
    if sweep.equity is None:
        return "equity.parquet is missing or damaged"
    if part == "holdout" and not sweep.get("holdout", "opened"):
        return "the holdout is sealed"
    return "nothing was scored there"


def _sessions(equity: pd.DataFrame | None, part: str) -> pd.DataFrame:
    if equity is None:
        return pd.DataFrame()
    rows = equity[equity["part"] == part].copy()
    rows["session"] = pd.to_datetime(rows["session"], errors="coerce")
    return rows.dropna(subset=["session", "champion", "hold"]).sort_values("session", kind="stable")


def metrics_section(sweep: Sweep) -> ReportSection:
    """Return the champion's metrics beside those of the baselines."""
    blocks: list[Block] = []
    params = sweep.get("best", "params")
    if sweep.champion is not None:
        values = ", ".join(f"{key} {general(value)}" for key, value in (params or {}).items())
        steps = count(sweep.get("best", "env_steps"))
        chosen = {"best": "the highest score", "one_standard_error": "the least training within one standard error"}
        how = chosen.get(str(sweep.get("best", "selection")))
        selected = "" if how is None else f", selected by {how}"
        blocks.append(Note(f"Champion: {sweep.champion} at {steps} env steps{selected}. {values}"))
    for part, label in _PARTS.items():
        blocks += [Heading(label), *_metrics(sweep, part)]
    return ReportSection("metrics", "Champion and baselines", blocks)


def _metrics(sweep: Sweep, part: str) -> list[Block]:
    champion, baselines = sweep.get(part, "metrics"), sweep.get(part, "baselines")
    if not isinstance(champion, dict):
        why = sweep.get("holdout", "why") if part == "holdout" else None
        return [Note(f"Not measured: {why}." if why else "Not measured.", "missing")]
    held = {key: baselines[key] for key in _BASELINES if isinstance(dig(baselines, key), dict)}
    columns = [champion, *held.values()]
    rows = []
    for label, key, form in _METRICS:
        cells = [form(column.get(key)) for column in columns]
        if key == "sharpe" and "random" in held:
            cells[1 + list(held).index("random")] += _range(held["random"])
        rows.append((label, *cells))
        rows += _deflated_rows(sweep, key, part, len(held))
    head = ("", "champion", *(_BASELINES[key] for key in held))
    draws = f" Random: the mean of {count(held['random'].get('draws'))} draws." if "random" in held else ""
    return [Table(head, rows, f"{_PARTS[part]}, on the same bars and costs.{draws}")]


def _range(random: dict[str, Any]) -> str:
    low, high = finite(random.get("sharpe_low")), finite(random.get("sharpe_high"))
    return "" if low is None or high is None else f" ({number(low)} to {number(high)})"


def _deflated_rows(sweep: Sweep, key: str, part: str, others: int) -> list[tuple[str, ...]]:
    """Return the rows that follow a Sharpe ratio; baselines are not searched, so nothing is deflated there."""
    kind = {"sharpe": "raw", "timing_sharpe": "timing"}.get(key)
    if kind is None:
        return []
    held, none = sweep.get("evidence", kind), (NONE,) * others
    of = " of cross-validation" if part == "holdout" else ""
    return [
        (f"\u2003deflated (DSR){of}", number(dig(held, "dsr"), 3), *none),
        (f"\u2003expected maximum by luck{of}", number(dig(held, "expected_maximum_sharpe")), *none),
    ]


def stress_section(sweep: Sweep) -> ReportSection:
    """Return the champion under higher costs and delays."""
    stress = sweep.get("stress")
    if not isinstance(stress, dict) or not stress.get("rows"):
        return ReportSection(
            "stress", "Cost stress", [Note("Not measured: no champion, or evidence.stress is off.", "missing")]
        )
    rows = [
        (
            str(row.get("name", NONE)),
            per_bar(row.get("mean_return")),
            number(row.get("sharpe")),
            percent(row.get("total_return")),
        )
        for row in stress["rows"]
    ]
    part = _PARTS.get(str(stress.get("measured_on")), NONE).lower()
    head = ("costs", "mean return per bar", "Sharpe ratio, annual", "total return")
    fee = stress.get("breakeven_fee")
    even = (
        "no break-even fee" if finite(fee) is None else f"the champion breaks even at a fee of {percent(fee, 3)} a side"
    )
    told = Note(f"Break-even: {'; '.join(filter(None, (even, str(stress.get('note') or ''))))}.")
    return ReportSection("stress", "Cost stress", [Table(head, rows, f"Measured on: {part}"), told])
