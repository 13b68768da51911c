"""Folders of sweeps in every state, with made-up figures: what a sweep writes, without one having run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from tests.report import values
from tests.report.values import HOLDOUT_SESSIONS, SESSIONS

SPACE = {
    "ppo.learning_rate": FloatDistribution(1e-4, 3e-3, log=True),
    "ppo.entropy_weight": FloatDistribution(0.0, 0.03),
    "policy.head": CategoricalDistribution(("categorical", "gated")),
}
STOPPED = "stopped by asha at 147,456 env steps: rung_score 0.213 < 0.4 & <b>no</b> $more$"
_STATES = ("completed", "pruned", "completed", "completed", "failed", "completed", "unfinished", "completed")


@dataclass(frozen=True)
class Trial:
    """A made-up trial."""

    label: str
    state: str
    ended: str
    score: float
    params: dict[str, Any]


def write_sweep(
    folder: Path,
    *,
    name: str = "made-up",
    trials: int = 12,
    folds: int = 4,
    state: str = "completed",
    verdict: str = "not supported",
    opened: bool = True,
    reopened: bool = False,
    arms: bool = False,
    synthetic: bool = True,
) -> Path:
    """Write the folder of a sweep whose champion was scored, and return it."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True)
    made = _trials(trials, rng)
    champion = made[0]
    summary = _summary(made, champion, name=name, folds=folds, state=state, arms=arms)
    summary["data"]["market"] = values.market(synthetic=synthetic)
    summary["evidence"] = values.evidence(verdict, [trial.label for trial in made], synthetic=synthetic)
    summary["cv"] = {"metrics": values.metrics(1.43), "baselines": values.baselines(synthetic=synthetic)}
    summary["holdout"] = values.holdout(opened=opened, reopened=reopened)
    summary["targets"] = values.targets(opened=opened)
    summary["stress"] = values.stress()
    (folder / "summary.json").write_text(json.dumps(summary, allow_nan=False))
    _write_tables(folder, made, folds, rng)
    equity = _equity(rng, "cv", SESSIONS, "2021-03-01")
    if opened:
        equity = pd.concat([equity, _equity(rng, "holdout", HOLDOUT_SESSIONS, "2022-06-01")])
    equity.to_parquet(folder / "equity.parquet")
    _write_texts(folder, name, folds)
    write_study(folder, name, made)
    return folder


def write_unscored(folder: Path, *, state: str = "failed", trials: int = 2) -> Path:
    """Write the folder of a sweep without any score: no champion, no evidence."""
    folder.mkdir(parents=True)
    made = [
        Trial(f"trial_{place:04d}", "failed", "not finite at 0 env steps: loss is nan", np.nan, {})
        for place in range(trials)
    ]
    summary = _summary(made, None, name="unscored", folds=2, state=state, arms=False)
    summary |= dict.fromkeys(("cv", "holdout", "targets", "stress"))
    summary["evidence"] = {
        "verdict": "no verdict",
        "reasons": ["no trial was scored"],
        "checks": [],
        "n_trials": 1,
        "ledger": values.LEDGER,
    }
    (folder / "summary.json").write_text(json.dumps(summary, allow_nan=False))
    rows = [
        {
            "trial_id": each.label,
            "state": each.state,
            "ended": each.ended,
            "cv_score": np.nan,
            "env_steps": 0,
            "fold": -1,
            "seed": -1,
        }
        for each in made
    ]
    pd.DataFrame(rows).to_parquet(folder / "leaderboard.parquet")
    for file, columns in (
        ("returns", ["trial_id", "fold", "seed", "session", "net_return"]),
        ("curves", ["trial_id", "env_steps", "cv_score", "rung_score", "entropy", "fold", "fold_score"]),
        ("equity", ["part", "session", "champion", "hold"]),
    ):
        pd.DataFrame(columns=columns).to_parquet(folder / f"{file}.parquet")
    _write_texts(folder, "unscored", 2)
    write_study(folder, "unscored", made)
    return folder


def write_old(folder: Path) -> Path:
    """Write the folder of a sweep from before evidence was kept: summary, leaderboard, returns and study only."""
    write_sweep(folder, name="old", trials=3)
    for file in ("curves.parquet", "equity.parquet", "folds.json"):
        (folder / file).unlink()
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("evidence", "cv", "holdout", "targets", "stress"):
        del summary[key]
    for key in ("market", "calendar", "hours", "costs"):
        del summary["data"][key]
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def change_summary(folder: Path, **changes: Any) -> None:
    """Replace keys of a folder's summary."""
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _trials(count: int, rng: np.random.Generator) -> list[Trial]:
    made = []
    for place in range(count):
        state = _STATES[place % len(_STATES)]
        ended = {
            "completed": "budget at 393,216 env steps",
            "pruned": STOPPED,
            "failed": "failed at 49,152 env steps: CUDA <out of memory> & gone",
            "unfinished": "cut off at 98,304 env steps; goes on with --resume",
        }[state]
        params = {
            "ppo.learning_rate": float(10 ** rng.uniform(-4, -2.6)),
            "ppo.entropy_weight": float(rng.uniform(0, 0.03)),
            "policy.head": ("categorical", "gated")[place % 2],
        }
        quality = 0.9 - 1.5 * (np.log10(params["ppo.learning_rate"]) + 3.1) ** 2
        score = np.nan if state == "failed" else float(quality + rng.normal(0, 0.3))
        made.append(Trial(f"trial_{place:04d}", state, ended, score, params))
    return sorted(made, key=lambda trial: (np.isnan(trial.score), -np.nan_to_num(trial.score)))


def _summary(
    made: Sequence[Trial], champion: Trial | None, *, name: str, folds: int, state: str, arms: bool
) -> dict[str, Any]:
    states = ("completed", "pruned", "failed", "unfinished")
    counts = {each: sum(trial.state == each for trial in made) for each in states}
    best = None
    if champion is not None:
        best = {
            "trial_id": champion.label,
            "params": champion.params,
            "cv_score": champion.score,
            "fold_scores": [[champion.score]] * folds,
            "env_steps": 344064,
            "validation_trades": 212.0,
            "gate": None,
            "selection": "one_standard_error",
        }
    return {
        "name": name,
        "state": state,
        "variant": "enhanced-maskable",
        "data": {
            "fingerprint": "f1a9c0ffee",
            "bars": 156_000,
            "first": "2021-03-01T14:30:00+00:00",
            "last": "2022-09-23T19:59:00+00:00",
            "market": "TQQQ",
            "calendar": "XNYS",
            "hours": "regular",
            "costs": "fee 0.1% a side, half spread 1.5 bp",
        },
        "trials": {"asked": len(made), "total": len(made), **counts},
        "best": best,
        "arms": values.arms() if arms else None,
        "throughput": {"env_steps": 1, "seconds": 1.0},
    }


def _write_tables(folder: Path, made: Sequence[Trial], folds: int, rng: np.random.Generator) -> None:
    board, returns, curves = [], [], []
    days = [f"{day:%Y-%m-%d}" for day in pd.bdate_range("2021-03-01", periods=SESSIONS)]
    reached = {"completed": 8, "pruned": 3, "failed": 1, "unfinished": 2}
    for trial in made:
        shared = {
            "trial_id": trial.label,
            "state": trial.state,
            "ended": trial.ended,
            "cv_score": trial.score,
            "rung_score": trial.score - 0.1,
            "env_steps": reached[trial.state] * 49_152,
            **trial.params,
        }
        scored = not np.isnan(trial.score)
        for fold in range(folds if scored else 1):
            measured = {"fold": fold, "seed": 11, "fold_score": trial.score, "trades": 200.0, "exposure": 0.434}
            board.append(shared | measured)
        for step in range(1, reached[trial.state] + 1):
            for fold in range(folds):
                score = -1e6 if not scored else trial.score * (1 - 0.8**step) * 1.2 + rng.normal(0, 0.15) + 0.15 * fold
                curves.append(
                    {
                        "trial_id": trial.label,
                        "env_steps": step * 49_152,
                        "cv_score": trial.score,
                        "rung_score": trial.score,
                        "entropy": 0.9,
                        "fold": fold,
                        "fold_score": score,
                    }
                )
        if scored:
            noise = rng.standard_normal(SESSIONS)
            draws = 0.011 * ((noise - noise.mean()) / noise.std(ddof=1) + trial.score / np.sqrt(252))
            returns += [
                {
                    "trial_id": trial.label,
                    "fold": place * folds // SESSIONS,
                    "seed": 11,
                    "session": day,
                    "net_return": value,
                }
                for place, (day, value) in enumerate(zip(days, draws, strict=True))
            ]
    pd.DataFrame(board).to_parquet(folder / "leaderboard.parquet")
    pd.DataFrame(returns, columns=["trial_id", "fold", "seed", "session", "net_return"]).to_parquet(
        folder / "returns.parquet"
    )
    pd.DataFrame(curves).to_parquet(folder / "curves.parquet")


def _equity(rng: np.random.Generator, part: str, sessions: int, first: str) -> pd.DataFrame:
    hold = rng.normal(0.0004, 0.016, sessions)
    champion = 0.4 * hold + rng.normal(0.0004, 0.006, sessions)
    days = [f"{day:%Y-%m-%d}" for day in pd.bdate_range(first, periods=sessions)]
    return pd.DataFrame({"part": part, "session": days, "champion": champion, "hold": hold})


def _write_texts(folder: Path, name: str, folds: int) -> None:
    (folder / "config.yaml").write_text(
        f"name: {name}\nseed: 1\ndata:\n  symbol: A<B & C\nevidence:\n  confidence: 0.9\n"
    )
    fingerprint = {"data": "f1a9c0ffee", "code": "0.1.0", "features": "features/v1:ab12", "config": "c0ffee"}
    (folder / "fingerprint.json").write_text(json.dumps(fingerprint))
    ends = pd.date_range("2021-03-01 14:30", "2022-05-20 19:59", periods=folds + 1, tz="UTC")
    gap = pd.Timedelta(days=2)
    rows: list[dict[str, Any]] = []

    def add(fold: int | str, part: str, first: pd.Timestamp, last: pd.Timestamp) -> None:
        if last > first:
            bars = int((last - first) / pd.Timedelta(minutes=5))
            rows.append(
                {"fold": fold, "part": part, "first": first.isoformat(), "last": last.isoformat(), "bars": bars}
            )

    for fold in range(folds):
        add(fold, "train", ends[0], ends[fold] - gap)
        add(fold, "validation", ends[fold], ends[fold + 1])
        add(fold, "train", ends[fold + 1] + gap, ends[-1])
    add("-", "holdout", pd.Timestamp("2022-06-01 13:30", tz="UTC"), pd.Timestamp("2022-09-23 19:59", tz="UTC"))
    (folder / "folds.json").write_text(json.dumps(rows))


def write_study(folder: Path, name: str, made: Sequence[Trial]) -> None:
    """Write the study of trials, replacing one that is there."""
    path = folder / "study.db"
    path.unlink(missing_ok=True)
    storage = RDBStorage(f"sqlite:///{path}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    study.add_trials([_frozen(trial) for trial in made])
    storage.remove_session()
    storage.engine.dispose()


def _frozen(trial: Trial) -> FrozenTrial:
    states = {"completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    state = states.get(trial.state, TrialState.FAIL)
    distributions = {key: SPACE[key] for key in trial.params}
    value = trial.score if state is TrialState.COMPLETE else None
    return create_trial(state=state, params=trial.params, distributions=distributions, value=value)
