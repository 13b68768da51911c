"""``--dry-run``: the resolved configuration, the folds, and how long it would take; no trial is started."""

from __future__ import annotations

import os

from rich.console import Console
from rich.table import Table

from sentio_rllib.config.space import ARM
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.evidence.tally import least_supported
from sentio_rllib.search.pace import Pace, measure
from sentio_rllib.search.prepare import Prepared, members_of, prepare


def dry_run(config: SweepConfig) -> None:
    """Print everything that a sweep would do, with an estimate from one measured iteration."""
    console = Console(width=120)
    prepared = prepare(config)
    print(config.to_yaml())  # as it is: wrapped lines would not load again
    for note in prepared.notes:
        console.print(note, markup=False)
    console.print(_folds(prepared))
    search, trials = config.search, config.asked_trials()
    members = len(members_of(config, prepared.splits))
    console.print(
        f"{trials} trials x {members} members ({len(prepared.splits.folds)} folds x "
        f"{config.validation.seeds} seeds), at most {search.env_steps:,} env steps each"
    )
    console.print(least_supported(config, prepared), markup=False)
    measured = _measured_trials(config, prepared, trials)
    for name, each in measured.items():
        told = f"measured: {each.rate:,.0f} env steps/s ({each.rate * members:,.0f} member steps/s), "
        arm = f"arm {name}: " if search.arms else ""
        console.print(f"{arm}{told}{each.evaluation:.1f} s an evaluation", markup=False)
    arms = config.arms()
    full = sum(each.seconds(arms.get(name, config)) for name, each in measured.items()) / len(measured)
    holds = max(1, int((os.cpu_count() or 1) / config.resources.cpu))
    concurrent = min(search.max_concurrent or holds, trials)
    in_all = full * trials / concurrent
    limit = "" if search.minutes is None else f"; search.minutes ends it after {search.minutes:g}"
    console.print(
        f"estimate: {full / 60:.1f} minutes a full trial, {in_all / 60:.1f} minutes in all with {concurrent} at a time "
        f"if none is stopped early{limit}"
    )


def _measured_trials(config: SweepConfig, prepared: Prepared, trials: int) -> dict[str, Pace]:
    """Return what was measured for each arm that is tried; without arms for the default configuration alone."""
    if not config.search.arms:
        return {"": measure(prepared, config, config.default_params())}
    return {name: measure(prepared, config, {ARM: name}) for name in list(config.search.arms)[:trials]}


def _folds(prepared: Prepared) -> Table:
    table = Table(title="folds")
    rows = prepared.splits.describe(prepared.bars.timestamp)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    return table
