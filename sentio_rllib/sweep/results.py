"""What the terminal shows at the end of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from sentio_rllib.sweep.selection import STATES

ROWS = 20


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """Print the trials with why each ended, the best one, throughput, and what to do next."""
    console = Console(width=None if Console().is_terminal else 160)
    console.print(_trials_table(pd.read_parquet(folder / "leaderboard.parquet")))
    trials, rates = summary["trials"], summary["throughput"]
    counts = ", ".join(f"{trials[state]} {state}" for state in STATES)
    console.print(f"state: {summary['state']}; {trials['total']} of {trials['asked']} trials: {counts}")
    console.print(
        f"throughput: {rates['env_steps_per_s']:,.0f} env steps/s in all "
        f"({rates['member_steps_per_s']:,.0f} member steps/s) over {rates['seconds']:,.0f} s"
    )
    if summary["state"] == "time budget":
        console.print("search.minutes ended it: --resume goes on, with more of search.minutes if you like")
    if summary["state"] == "budget too short":
        console.print("no trial passed the grace period: raise search.minutes or lower search.grace_steps")
    best = summary["best"]
    if best is None:
        console.print("no champion: no scored trial's median member trades. That is the result; see the leaderboard")
        return
    folds = ", ".join("/".join(f"{score:.2f}" for score in seeds) for seeds in best["fold_scores"])
    console.print(
        f"best: {best['trial_id']}, cv_score {best['cv_score']:.4f} at {best['env_steps']:,} env steps; folds {folds}"
    )
    console.print("a score over many trials is too good by selection; the holdout has not been opened")
    console.print(f"pull it: python -m sentio_rllib.pull {folder} --output models/{summary['name']} --verify")


def _trials_table(rows: pd.DataFrame) -> Table:
    table = Table(title="trials, best first")
    if rows.empty:
        return table
    params = [column for column in rows.columns if "." in column]
    shared = ["cv_score", "rung_score", "env_steps", "ended", *params]
    trials = rows.groupby("trial_id", sort=False).agg(
        {**dict.fromkeys(shared, "first"), **({"trades": "median"} if "trades" in rows else {})}
    )
    for column in ("trial", "cv_score", "rung", "trades", "env steps"):
        table.add_column(column, no_wrap=True)
    table.add_column("ended")
    table.add_column("parameters")
    for label, row in trials.head(ROWS).iterrows():
        table.add_row(
            str(label),
            f"{row['cv_score']:.3f}",
            f"{row['rung_score']:.3f}",
            f"{row.get('trades', float('nan')):.0f}",
            f"{row['env_steps']:,}",
            str(row["ended"]),
            ", ".join(f"{param.rpartition('.')[2]} {_shown(row[param])}" for param in params),
        )
    return table


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
