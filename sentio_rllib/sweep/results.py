"""What the terminal shows at the end of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sentio_rllib.policy.heads import COLLAPSED_USAGE
from sentio_rllib.search.prepare import MANY_MASKED
from sentio_rllib.search.selection import STATES

ROWS = 20


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """Print the trials with why each ended, the best one, throughput, and what to do next."""
    console = Console(width=None if Console().is_terminal else 160)
    console.print(_trials_table(pd.read_parquet(folder / "leaderboard.parquet")))
    if summary.get("arms"):
        _print_arms(console, summary["arms"])
    trials, rates = summary["trials"], summary["throughput"]
    counts = ", ".join(f"{trials[state]} {state}" for state in STATES)
    console.print(f"state: {summary['state']}; {trials['total']} of {trials['asked']} trials: {counts}")
    console.print(
        f"throughput: {rates['env_steps_per_s']:,.0f} env steps/s in all "
        f"({rates['member_steps_per_s']:,.0f} member steps/s) over {rates['seconds']:,.0f} s"
    )
    if summary["state"] == "time budget":
        console.print(
            "search.minutes ended it: --resume goes on, with more of search.minutes if you like; the holdout has been "
            "opened, so another champion then needs --reopen-holdout and supports nothing"
        )
    if summary["state"] == "budget too short":
        console.print("no trial passed the grace period: raise search.minutes or lower search.grace_steps")
    for failure in summary["failures"]:
        console.print(failure_line(failure), markup=False)
    best = summary["best"]
    if best is None and summary["evidence"]["verdict"] == "no verdict":
        why = list(summary["evidence"]["reasons"])
        why += ["mend the cause, then start anew under another --name"] if summary["state"] == "failed" else []
        console.print(f"no verdict: {'; '.join(why)}; report: {folder / 'report.html'}")
        return
    if best is None:
        console.print("no champion: no scored trial's median member trades. That is the result; see the leaderboard")
        console.print(f"verdict: {summary['evidence']['verdict']}; report: {folder / 'report.html'}")
        return
    folds = ", ".join("/".join(f"{score:.2f}" for score in seeds) for seeds in best["fold_scores"])
    console.print(
        f"best: {best['trial_id']}, cv_score {best['cv_score']:.4f} at {best['env_steps']:,} env steps; folds {folds}"
    )
    if best["gate"] is not None:
        console.print(gate_line(best["gate"]))
    _print_evidence(console, summary)
    console.print(f"report: {folder / 'report.html'}")
    console.print(f"pull it: python -m sentio_rllib.pull {folder} --output models/{summary['name']} --verify")


def failure_line(failure: Mapping[str, Any]) -> str:
    """Return one cause of failed trials, with how many had it."""
    count = failure["trials"]
    which = failure["first"] if count == 1 else f"{count} trials, the first is {failure['first']}"
    return f"failed ({which}): {failure['reason']}"


def _print_evidence(console: Console, summary: dict[str, Any]) -> None:
    """Print the verdict with its reasons, no Sharpe ratio without its deflated form, and the targets."""
    evidence = summary["evidence"]
    table = Table(title=f"targets ({evidence['sessions']} sessions in cross-validation)")
    for column in ("target", "cross-validation", "holdout", "reached"):
        table.add_column(column)
    for name, held in summary["targets"].items():
        form = ".2f" if name == "sharpe" else ".1%"
        reached = {None: "not measured", True: "yes", False: "no"}[held["reached"]]
        table.add_row(held["text"], _interval(held["cv"], form), _interval(held["holdout"], form), reached)
    console.print(table)
    for part, what in (("raw", "net returns"), ("timing", "timing")):
        figures = evidence[part]
        console.print(
            f"Sharpe {_told(figures['sharpe'], '.2f')} ({what}); by luck the best of {evidence['n_trials']} looks, "
            f"{_told(evidence['effective_trials'], '.1f')} of them independent, reaches "
            f"{_told(figures['expected_maximum_sharpe'], '.2f')}; deflated {_told(figures['dsr'], '.3f')}"
        )
    for line in masked_buys(summary["cv"]["metrics"]):
        console.print(line, markup=False)
    for line in overfitting(summary["best"]):
        console.print(line, markup=False)
    least = evidence["least_sharpe"]
    if least is not None:
        console.print(f"the least Sharpe ratio that could be supported with these bars, trials and ledger: {least:.2f}")
    console.print(f"verdict: {evidence['claim']}", style="bold")
    for reason in evidence["reasons"]:
        console.print(f"  {reason}", markup=False)


def masked_buys(metrics: Mapping[str, Any]) -> list[str]:
    """Return a caution for each cause for which the risk masks forbade many of the champion's Buys."""
    causes = {"volatility": "volatility", "clock": "the clock", "drawdown": "a drawdown"}
    shares = {words: metrics.get(f"masked_{cause}") or 0.0 for cause, words in causes.items()}
    return [
        f"caution: risk masks forbade {share:.0%} of the champion's possible Buys for {words}; see trading.risk_* and "
        "features.reference_volatility"
        for words, share in shares.items()
        if share > MANY_MASKED
    ]


def overfitting(best: Mapping[str, Any]) -> list[str]:
    """Return a caution where the champion does much better on its training bars than on those it is scored on."""
    trained, scored, chance = best.get("train_score"), best["cv_score"], best.get("gap_by_chance")
    if trained is None or chance is None or trained - scored <= chance:
        return []
    told = (
        f"caution: on its own training bars the champion's score is {trained:.2f}, in validation {scored:.2f}; by "
        f"chance they differ by {chance:.2f}: in part it knows its bars by heart. Fewer search.env_steps, a smaller "
        "network, policy.encoder=mlp or more bars narrow that gap"
    )
    return [told]


def _interval(held: dict[str, Any] | None, form: str) -> str:
    if held is None or held["estimate"] is None:
        return "not measured" if held is None else "none"
    bounds = "" if held["low"] is None else f" ({held['low']:{form}} .. {held['high']:{form}})"
    return f"{held['estimate']:{form}}{bounds}"


def _told(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def gate_line(gate: dict[str, Any]) -> str:
    """Say what the gates of the best trial do with their experts."""
    members, experts = len(gate["usage"]), len(gate["usage"][0])
    if gate["collapsed"]:
        return (
            f"gate: collapsed in {gate['collapsed']} of {members} members, where one expert has over "
            f"{COLLAPSED_USAGE:.0%} of the weight; raise policy.load_balance, or use policy.head=categorical"
        )
    told, most = sum(gate["information"]) / members, math.log(experts)
    return f"gate: not collapsed; the choice of {experts} experts carries {told:.2f} of at most {most:.2f} nats"


def _trials_table(rows: pd.DataFrame) -> Table:
    table = Table(title="trials, best first")
    if rows.empty:
        return table
    params = [column for column in rows.columns if "." in column]
    shared = ["cv_score", "rung_score", "train_score", "env_steps", "ended", *params]
    trials = rows.groupby("trial_id", sort=False).agg(
        {**dict.fromkeys(shared, "first"), **({"trades": "median"} if "trades" in rows else {})}
    )
    for column in ("trial", "cv_score", "rung", "train", "trades", "env steps"):
        table.add_column(column, no_wrap=True)
    table.add_column("ended")
    table.add_column("parameters")
    for label, row in trials.head(ROWS).iterrows():
        table.add_row(
            str(label),
            f"{row['cv_score']:.3f}",
            f"{row['rung_score']:.3f}",
            f"{row['train_score']:.3f}",
            f"{row.get('trades', float('nan')):.0f}",
            f"{row['env_steps']:,}",
            str(row["ended"]),
            ", ".join(f"{param.rpartition('.')[2]} {_shown(row[param])}" for param in params),
        )
    return table


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else escape(str(value))


def _print_arms(console: Console, arms: dict[str, Any]) -> None:
    """Print how the arms compare, and what to know when reading it."""
    baseline = escape(arms["baseline"])
    table = Table(title=f"arms, each at its best evaluation, and paired differences to {baseline}")
    for column in ("arm", "Sharpe", "trades", "env steps", "env steps/s", "difference", "95% interval", "pairs"):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=column != "arm")
    table.add_column("shown")
    for result in arms["results"]:
        table.add_row(*_arm_row(result))
    console.print(table)
    console.print(
        "Sharpe: mean over fold x seed of each fold's ratio. Difference: of the same fold and seed, with its 95% "
        "interval; no difference is shown where it holds 0"
    )
    if not arms["equal_steps"]:
        console.print("the arms have not trained equally long, so their difference is not theirs alone: see env steps")
    if arms["results"][0]["score"] is None:
        console.print(f"{baseline} has no scores, so nothing can be compared to it")


def _arm_row(result: dict[str, Any]) -> list[str]:
    difference = result["difference"] or {}
    shown = difference.get("verdict", "baseline")
    if result["score"] is None:
        shown = f"no scores: {result['ended']}"
    elif difference.get("missing"):
        shown += f"; {difference['missing']} fold x seed have no partner"
    return [
        escape(result["name"]),
        _number(result["score"], ".3f"),
        _number(result["trades"], ".0f"),
        f"{result['env_steps']:,}",
        _number(result["env_steps_per_s"], ",.0f"),
        _number(difference.get("mean"), "+.3f"),
        "" if difference.get("low") is None else f"{difference['low']:+.3f} .. {difference['high']:+.3f}",
        _number(difference.get("pairs"), "d"),
        escape(shown),
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
