"""What the terminal shows at the end of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_comparison(found: Mapping[str, Any], evidence: Mapping[str, Any]) -> None:
    """Print the arms with their compute, every pair of them, and the verdict.

    Parameters
    ----------
    found
        What ``comparison.json`` holds.
    evidence
        Of the sweep's summary, for the deflated form of the Sharpe ratios.
    """
    console = Console(width=None if Console().is_terminal else 160)
    console.print(_arms_table(found))
    console.print(_pairs_table(found))
    console.print(
        "score: mean over fold x seed of the annual Sharpe ratio out of sample at the last evaluation; at the best "
        "evaluation it is too good by selection. Differences are of the same fold and seed, the second arm less the "
        f"first. Shown: the {found['corrected_level']:.2%} interval leaves out 0 ({found['correction']}, together "
        f"{found['level']:.0%}). Seeds of a fold share its market, so intervals are rather too narrow"
    )
    deflated = _number(evidence.get("dsr"), ".3f") or "unknown"
    console.print(
        f"scores are raw and compare arms only; deflated Sharpe ratio of the best trial: {deflated}, "
        f"{evidence['verdict']} (report.html)"
    )
    ratios = {key: value for key, value in found["compute"].items() if value is not None}
    if ratios:
        steps, seconds = ratios["env_steps"], ratios["train_seconds"]
        console.print(
            f"equal {found['equal']}: of the arms with scores, the most env steps are {steps:.2f} times the fewest, "
            f"the longest training time {seconds:.2f} times the shortest"
        )
    for note in found["notes"]:
        console.print(note, markup=False)
    console.print(found["verdict"]["line"], markup=False)


def _arms_table(found: Mapping[str, Any]) -> Table:
    table = Table(title=f"arms, at equal {found['equal']}")
    columns = ("arm", "score", "at best", "trades", "env steps", "training s", "env steps/s", "evaluations", "ended")
    for column in columns:
        table.add_column(column)
    for arm in found["arms"]:
        table.add_row(
            escape(arm["name"]),
            _number(arm["score"], ".3f"),
            _number(arm["score_at_best"], ".3f"),
            _number(arm["trades"], ".0f"),
            f"{arm['env_steps']:,}",
            f"{arm['train_seconds']:,.0f}",
            _number(arm["env_steps_per_s"], ",.0f"),
            str(arm["evaluations"]),
            escape(arm["ended"]),
        )
    return table


def _pairs_table(found: Mapping[str, Any]) -> Table:
    table = Table(title="every arm against every other")
    corrected = f"{found['corrected_level']:.2%} interval"
    for column in ("second less first", "difference", "95% interval", corrected, "pairs", "shown"):
        table.add_column(column)
    for pair in found["pairs"]:
        unpaired = f"; {pair['missing']} fold x seed have no partner" if pair["missing"] else ""
        table.add_row(
            escape(f"{pair['second']} less {pair['first']}"),
            _number(pair["mean"], "+.3f"),
            _interval(pair["low"], pair["high"]),
            _interval(pair["corrected_low"], pair["corrected_high"]),
            str(pair["pairs"]),
            escape(pair["verdict"] + unpaired),
        )
    return table


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:+.3f} .. {high:+.3f}"
