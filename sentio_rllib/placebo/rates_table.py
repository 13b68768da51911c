"""What the terminal shows at the end of a placebo run."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from sentio_rllib.placebo.rates import VERDICTS, Figures


def print_report(found: Figures) -> None:
    """Print the verdicts by kind of market, the false-positive rate, the power, and the naive reading."""
    console = Console(width=None if Console().is_terminal else 160)
    table = Table(title=f"placebo: planted edge {found['edge']:g} a bar, bootstrap of {found['mean_block']} bars")
    table.add_column("market", no_wrap=True)
    for column in ("markets", *VERDICTS, "supported, 95% interval", "cv Sharpe", "DSR", "holdout Sharpe", "s"):
        table.add_column(column, justify="right")
    for kind, figures in found["kinds"].items():
        verdicts = [str(figures[verdict.replace(" ", "_")]) for verdict in VERDICTS]
        table.add_row(
            kind,
            str(figures["markets"]),
            *verdicts,
            shown(figures["rate"]),
            *(_number(figures[key]) for key in ("cv_sharpe", "dsr", "holdout_sharpe")),
            f"{figures['seconds']:,.0f}",
        )
    console.print(table)
    for kind, figures in found["kinds"].items():
        failed = ", ".join(f"{name} {count}" for name, count in figures["checks_failed"].items())
        console.print(f"{kind}: checks that failed: {failed or 'none'}")
    console.print(f"false-positive rate (bootstrap and random-walk): {shown(found['false_positives'])}")
    console.print(f"power (planted): {shown(found['power'])}")
    for bound, naive in found["naive"].items():
        console.print(f"null markets whose best trial has an undeflated Sharpe ratio above {bound}: {shown(naive)}")


def shown(rate: Figures) -> str:
    """Return a rate of :func:`~sentio_rllib.placebo.rates.rate` as text."""
    if rate["of"] == 0:
        return "no market"
    interval = f"[{rate['low']:.0%}, {rate['high']:.0%}]"
    return f"{rate['count']} of {rate['of']}, {rate['estimate']:.0%} {interval}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
