"""What a backtest tells and writes: what the bars are to the bundle, and its figures beside the baselines'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sentio_rllib.backtest.sealed import open_sealed
from sentio_rllib.backtest.walking import (
    another_market,
    check_output,
    overlap,
    read_data,
    run_backtest,
    verdict_of,
    write_backtest,
)
from sentio_rllib.deploy.bundle import load_bundle
from sentio_rllib.statistics.resampling import MIN_BOOTSTRAP_PERIODS

_SHOWN = {
    "total_return": ("return", "{:+.2%}"),
    "sharpe": ("Sharpe", "{:+.2f}"),
    "max_drawdown": ("drawdown", "{:.2%}"),
    "exposure": ("exposure", "{:.1%}"),
    "trades": ("trades", "{:,.0f}"),
    "win_rate": ("wins", "{:.1%}"),
    "fees_usd": ("fees $", "{:,.0f}"),
}


def backtest(
    folder: Path,
    data: Path,
    overrides: Sequence[str],
    output: Path | None,
    *,
    seed: int,
    open_holdout: bool = False,
    ledger: Path | None = None,
) -> None:
    """Walk the bars of a file with a bundle, and tell and write what came of it.

    Parameters
    ----------
    folder
        Of the bundle.
    data, overrides
        File of bars, and ``data.KEY=VALUE`` that say how to read it.
    output
        Folder to write to; None writes nothing.
    seed
        Of the random traders.
    open_holdout, ledger
        Whether sessions may be walked that the bundle's sweep holds out, and where that is recorded.

    Raises
    ------
    SentioError
        If the bundle, the file or `output` cannot be used, or sessions are sealed.
    """
    console = Console(soft_wrap=True)
    if output is not None:
        check_output(output)
    bundle = load_bundle(folder)
    bars, found = read_data(bundle, data, overrides)
    opened = open_sealed(folder, bundle, bars, bundle.bars_needed - 1, allowed=open_holdout, ledger=ledger)
    notes = [*found, verdict_of(bundle), *([opened] if opened else [])]
    cautions = (another_market(bundle.metadata, bars), overlap(bundle.metadata, bars, bundle.bars_needed - 1))
    notes += [f"caution: {each}" for each in cautions if each]
    for line in notes:
        console.print(escape(line), highlight=False)
    result = run_backtest(bundle, bars, seed=seed)
    console.print(table_of(result.figures))
    sessions = result.figures["policy"]["sessions"]
    if sessions < MIN_BOOTSTRAP_PERIODS:
        notes.append(f"caution: {sessions} sessions; annual figures of fewer than {MIN_BOOTSTRAP_PERIODS} say little")
        console.print(notes[-1], highlight=False)
    if output is not None:
        write_backtest(output, bundle, bars, result, notes)
        console.print(escape(f"wrote metrics.json, trades.parquet and equity.parquet to {output}"))


def table_of(figures: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return figures of policy and baselines side by side, for the terminal."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for title, _ in _SHOWN.values():
        table.add_column(title, justify="right")
    for name, values in figures.items():
        shown = ["-" if values[key] is None else form.format(values[key]) for key, (_, form) in _SHOWN.items()]
        table.add_row(name, *shown)
    return table
