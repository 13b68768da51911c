"""Reads the files that a sweep leaves; what is missing or damaged is told, not guessed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import ArrowException
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sentio_rllib.errors import SweepError
from sentio_rllib.report.formats import finite

SUMMARY, CONFIG, FINGERPRINT, STUDY = "summary.json", "config.yaml", "fingerprint.json", "study.db"

_NO_SCORE = -1e6
"""What trials report in place of a score where one is not finite."""

_COLUMNS = {
    "leaderboard.parquet": ("trial_id", "state", "ended", "cv_score"),
    "returns.parquet": ("trial_id", "session", "net_return"),
    "curves.parquet": ("trial_id", "env_steps", "fold", "fold_score"),
    "equity.parquet": ("part", "session", "champion", "hold"),
}


@dataclass(frozen=True)
class DatedRange:
    """Bars of one part of a fold: ``train``, ``validation``, ``holdout``, or the ``gap`` between two of them."""

    fold: str
    part: str
    first: datetime
    last: datetime
    bars: int | None = None


@dataclass(frozen=True)
class Sweep:
    """What the folder of a sweep holds.

    Attributes
    ----------
    folder
        Of the sweep, as it was passed.
    summary
        Of `summary.json`.
    leaderboard, returns, curves, equity
        The tables; None where a file is missing or damaged.
    folds
        The ranges of bars; None as above.
    fingerprint
        Of data, code and features; empty as above.
    config
        The resolved configuration as text; None as above.
    missing
        A line for each file that is missing or damaged.
    """

    folder: Path
    summary: dict[str, Any]
    leaderboard: pd.DataFrame | None
    returns: pd.DataFrame | None
    curves: pd.DataFrame | None
    equity: pd.DataFrame | None
    folds: tuple[DatedRange, ...] | None
    fingerprint: dict[str, Any]
    config: str | None
    missing: tuple[str, ...]

    def get(self, *keys: str) -> Any:
        """Return a value of the summary, None where any key on the way is missing or null."""
        return dig(self.summary, *keys)

    @property
    def champion(self) -> str | None:
        """Name of the best trial, None where there is none."""
        found = self.get("best", "trial_id")
        return None if found is None else str(found)

    @property
    def deflation(self) -> dict[str, Any]:
        """The evidence; empty where no trial was scored."""
        return self.get("evidence") or {}

    @cached_property
    def confidence(self) -> float | None:
        """Level of the intervals, None where the configuration does not tell."""
        try:
            held = YAML(typ="safe", pure=True).load(self.config or "")
        except YAMLError:
            return None
        return finite(dig(held, "evidence", "confidence"))

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trial in the leaderboard's order, indexed by its name.

        Trades are the median over fold x seed, exposure is their mean, everything else is the trial's own.
        """
        if self.leaderboard is None or self.leaderboard.empty:
            return pd.DataFrame(columns=list(_COLUMNS["leaderboard.parquet"][1:]))
        rows = self.leaderboard.copy()
        for column in {"cv_score", "rung_score"} & set(rows.columns):
            rows[column] = scores(rows[column])
        rows["trial_id"] = rows["trial_id"].astype(str)
        groups = rows.groupby("trial_id", sort=False)
        trials = groups.first(skipna=False)
        for column, measure in (("trades", "median"), ("exposure", "mean")):
            if column in rows:
                trials[column] = groups[column].agg(measure)
        return trials

    @property
    def searched(self) -> list[str]:
        """Columns of the leaderboard that are searched parameters: their keys have dots."""
        return [column for column in self.trials.columns if "." in column]


def dig(held: Any, *keys: str) -> Any:
    """Return a value of nested mappings, None where any key on the way is missing or null."""
    for key in keys:
        if not isinstance(held, dict):
            return None
        held = held.get(key)
    return held


def scores(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return scores as floats, NaN where a trial had none or reported a failed one."""
    found = pd.to_numeric(column, errors="coerce").astype(float)
    return found.where(np.isfinite(found) & (found > _NO_SCORE))


def read_sweep(folder: Path) -> Sweep:
    """Read the folder of a sweep.

    Raises
    ------
    SweepError
        There is no such folder, no sweep in it, or none that came to its summary.
    """
    summary = _summary(folder)
    missing: list[str] = []
    tables = {name.partition(".")[0]: _table(folder / name, columns, missing) for name, columns in _COLUMNS.items()}
    return Sweep(
        folder=folder,
        summary=summary,
        folds=_folds(folder / "folds.json", missing),
        fingerprint=_mapping(folder / FINGERPRINT, missing),
        config=_text(folder / CONFIG, missing),
        missing=tuple(missing),
        **tables,
    )


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY
    if not folder.is_dir():
        raise SweepError(f"{folder}: no such folder; pass a sweep's, as experiments/NAME")
    if not path.is_file():
        if (folder / CONFIG).is_file():
            raise SweepError(f"{folder}: the sweep has no {SUMMARY} yet; let it end, or go on with it by --resume")
        raise SweepError(f"{folder}: no sweep is here ({SUMMARY} is missing); pass experiments/NAME")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SweepError(f"{path}: cannot be read ({_line(error)}); end the sweep again with --resume") from error
    if not isinstance(held, dict):
        raise SweepError(f"{path}: holds no mapping; end the sweep again with --resume")
    return held


def _table(path: Path, columns: Sequence[str], missing: list[str]) -> pd.DataFrame | None:
    if not path.is_file():
        missing.append(f"{path.name} is missing")
        return None
    try:
        found = pd.read_parquet(path)
    except (OSError, ValueError, ArrowException) as error:
        missing.append(f"{path.name} cannot be read: {_line(error)}")
        return None
    absent = [column for column in columns if column not in found.columns]
    if absent and len(found.columns):  # a sweep without any trial leaves a table without columns
        missing.append(f"{path.name} has no column {', '.join(absent)}")
        return None
    return found.reindex(columns=list(columns)) if absent else found


def _folds(path: Path, missing: list[str]) -> tuple[DatedRange, ...] | None:
    text = _text(path, missing)
    if text is None:
        return None
    try:
        return tuple(_range(row) for row in json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        missing.append(f"{path.name} cannot be read: {_line(error)}")
        return None


def _range(row: dict[str, Any]) -> DatedRange:
    return DatedRange(str(row["fold"]), str(row["part"]), _stamp(row["first"]), _stamp(row["last"]), row.get("bars"))


def _stamp(text: str) -> datetime:
    stamp = datetime.fromisoformat(text)
    return stamp.replace(tzinfo=UTC) if stamp.tzinfo is None else stamp.astimezone(UTC)


def _mapping(path: Path, missing: list[str]) -> dict[str, Any]:
    text = _text(path, missing)
    try:
        held = {} if text is None else json.loads(text)
    except ValueError as error:
        missing.append(f"{path.name} cannot be read: {_line(error)}")
        return {}
    return held if isinstance(held, dict) else {}


def _text(path: Path, missing: list[str]) -> str | None:
    if not path.is_file():
        missing.append(f"{path.name} is missing")
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        missing.append(f"{path.name} cannot be read: {_line(error)}")
        return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
