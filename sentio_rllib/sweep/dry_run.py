"""``--dry-run``: the resolved configuration, the folds, and how long it would take; no trial is started."""

from __future__ import annotations

import os
import time

import ray
from rich.console import Console
from rich.table import Table

from sentio_rllib.ppo.algorithm import SentioPPOConfig
from sentio_rllib.ppo.env_runner import TapeHandle
from sentio_rllib.sweep.config import SweepConfig
from sentio_rllib.sweep.prepare import Prepared, prepare, trial_settings
from sentio_rllib.sweep.space import default_params, grid_size


def dry_run(config: SweepConfig) -> None:
    """Print everything that a sweep would do, with an estimate from one measured iteration."""
    console = Console(width=120)
    prepared = prepare(config)
    print(config.to_yaml())  # as it is: wrapped lines would not load again
    for note in prepared.notes:
        console.print(note, markup=False)
    console.print(_folds(prepared))
    search = config.search
    trials = search.trials
    if search.sampler == "grid":
        trials = min(trials, grid_size(config.parameters()))
    settings = trial_settings(config, prepared.splits, default_params(config))
    console.print(
        f"{trials} trials x {len(settings.members)} members ({len(prepared.splits.folds)} folds x "
        f"{config.validation.seeds} seeds), at most {search.env_steps:,} env steps each"
    )
    train, evaluate = _measure(prepared, config)
    rate = settings.rows_per_iteration / train
    evaluations = -(-search.env_steps // search.evaluate_every)
    full = search.env_steps / rate + evaluations * evaluate
    holds = max(1, int((os.cpu_count() or 1) / config.resources.cpu))
    concurrent = min(search.max_concurrent or holds, trials)
    in_all = full * trials / concurrent
    limit = "" if search.minutes is None else f"; search.minutes ends it after {search.minutes:g}"
    console.print(
        f"measured: {rate:,.0f} env steps/s ({rate * len(settings.members):,.0f} member steps/s), "
        f"{evaluate:.1f} s an evaluation"
    )
    console.print(
        f"estimate: {full / 60:.1f} minutes a full trial, {in_all / 60:.1f} minutes in all with {concurrent} at a time "
        f"if none is stopped early{limit}"
    )


def _folds(prepared: Prepared) -> Table:
    table = Table(title="folds")
    rows = prepared.splits.describe(prepared.bars.timestamp)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    return table


def _measure(prepared: Prepared, config: SweepConfig) -> tuple[float, float]:
    """Return the seconds of one training iteration and of one evaluation of the default configuration."""
    settings = trial_settings(config, prepared.splits, default_params(config))
    own = not ray.is_initialized()
    if own:
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        algorithm = SentioPPOConfig().trading(settings, TapeHandle(prepared.tape)).build_algo()
        algorithm.training_step()  # warms up
        started = time.perf_counter()
        algorithm.training_step()
        trained = time.perf_counter()
        algorithm.scorer.score(algorithm._stack())
        evaluated = time.perf_counter()
        algorithm.stop()
    finally:
        if own:
            ray.shutdown()
    return trained - started, evaluated - trained
