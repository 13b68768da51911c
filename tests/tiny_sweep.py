"""Sweeps that take seconds: a small file of bars, small networks, and the real command in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from sentio_rllib.config.loading import build_config, load_config
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.market.synthetic import synthetic_market
from sentio_rllib.search.durable import write_text
from sentio_rllib.sweep.folder import CONFIG

BARS = 6_000
SPACE = {"ppo.learning_rate": {"loguniform": [1e-4, 1e-2]}}
EVALUATE_EVERY = 128
VALUES: dict[str, Any] = {
    "name": "tiny",
    "seed": 1,
    "trading": {"episode_length": 300},
    "validation": {"folds": 2, "phases": 1},
    "policy": {"hidden": [8]},
    "ppo": {"environments": 4, "rollout_steps": 32, "minibatch_rows": 64, "epochs": 1, "precision": "float32"},
    "search": {
        "space": SPACE,
        "trials": 4,
        "env_steps": 4 * EVALUATE_EVERY,
        "evaluate_every": EVALUATE_EVERY,
        "grace_steps": EVALUATE_EVERY,
        "reduction_factor": 2,
        "max_concurrent": 1,
    },
}

COMPARED: dict[str, Any] = {"sampler": "grid", "scheduler": "none", "patience": 0}
"""Of `search`, for arms."""
PARTS: dict[str, Any] = {
    "enhanced": {},
    "no transformer": {"policy.encoder": "mlp"},
    "maskable": {"variant": "maskable"},
}
"""Three arms of the enhanced variant."""


def tiny_values(bars: Path, storage: Path, **changes: Any) -> dict[str, Any]:
    """The values of a sweep on the file `bars`; changes are named with double underscores, as search__trials=2."""
    own = {"ledger": str(storage / "ledger.sqlite"), "refit_seeds": 2, "resamples": 100}
    own |= {"stress": False, "probes": False}
    sections: dict[str, Any] = VALUES | {"data": {"path": str(bars)}, "storage_path": str(storage), "evidence": own}
    values = {key: dict(held) if isinstance(held, Mapping) else held for key, held in sections.items()}
    for key, value in changes.items():
        section, _, leaf = key.partition("__")
        if leaf:
            values.setdefault(section, {})[leaf] = value
        else:
            values[section] = value
    return values


def tiny_config(bars: Path, storage: Path, **changes: Any) -> SweepConfig:
    """The configuration of :func:`tiny_values`."""
    return build_config(tiny_values(bars, storage, **changes))


def write_config(values: Mapping[str, Any], path: Path) -> Path:
    """Write values as the YAML file that the command reads."""
    with path.open("w") as file:
        YAML().dump(dict(values), file)
    return path


@lru_cache(maxsize=2)
def market_frame(n: int = BARS) -> pd.DataFrame:
    """A planted market of `n` bars as a frame."""
    bars = synthetic_market(n, seed=3, edge=1e-4).bars
    columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    return pd.DataFrame({"timestamp": pd.to_datetime(bars.timestamp, utc=True), **columns})


def copied(folder: Path, storage: Path, bars: Path | None = None) -> SweepConfig:
    """Copy a sweep below `storage`, on other bars where given, and return its configuration."""
    shutil.copytree(folder, storage / folder.name)
    config = load_config(folder / CONFIG)
    data = config.data if bars is None else config.data.model_copy(update={"path": str(bars)})
    config = config.model_copy(update={"storage_path": str(storage), "data": data})
    write_text(storage / folder.name / CONFIG, config.to_yaml())
    return config


def sweep_command(*arguments: str | Path) -> list[str]:
    """The command line of a sweep."""
    return [sys.executable, "-m", "sentio_rllib.sweep", *map(str, arguments)]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a command: one thread, and no Ray but its own unless `extra` names one."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return kept | {"OMP_NUM_THREADS": "1"} | extra


def run_command(*arguments: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a sweep's command to its end."""
    return subprocess.run(
        sweep_command(*arguments), capture_output=True, text=True, check=False, timeout=300, env=environment(**extra)
    )
