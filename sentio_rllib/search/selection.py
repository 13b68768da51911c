"""What came of the trials: the leaderboard, the best trial, and why each one ended.

A trial's place in the sweep is its `slot` (0, 1, ...); a slot whose attempt was cut off by a kill, an
interruption or the time budget may have several attempts, of which the last one counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from sentio_rllib.errors import CheckpointError
from sentio_rllib.policy.checkpoint import load_model, verify_manifest
from sentio_rllib.policy.heads import gate_collapsed
from sentio_rllib.search.durable import EVALUATIONS, read_rows
from sentio_rllib.validation.evaluation import Record

STATES = ("completed", "pruned", "failed", "unfinished")


@dataclass(frozen=True)
class Outcome:
    """One trial, as it ended.

    Attributes
    ----------
    slot
        Place in the sweep.
    trial_id
        Its name and the name of its folder.
    state
        ``completed``, ``pruned``, ``failed`` or ``unfinished`` (cut off; goes on with ``--resume``).
    ended
        Why, in words.
    params
        Searched parameters by dotted key.
    curve
        Results of its evaluations in order: ``env_steps``, ``cv_score``, ``rung_score``, ...
    best
        Metadata of its best evaluation; empty where there is none.
    checkpoint
        Folder of its last intact checkpoint.
    fault
        What made it fail; empty where it did not.
    """

    slot: int
    trial_id: str
    state: str
    ended: str
    params: dict[str, Any]
    curve: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    fault: str = ""

    @property
    def cv_score(self) -> float:
        """Best greedy score; NaN where there is none."""
        return float(self.best["cv_score"]) if self.best else float("nan")

    @property
    def env_steps(self) -> int:
        """Env steps up to its last evaluation."""
        return int(self.curve[-1]["env_steps"]) if self.curve else 0

    @property
    def env_steps_per_s(self) -> float:
        """Mean rate of training over its evaluations; NaN where there is none."""
        rates = [float(result["env_steps_per_s"]) for result in self.curve]
        return float(np.mean(rates)) if rates else float("nan")

    @property
    def eligible(self) -> bool:
        """Whether it may be champion: it was scored, did not fail, and its median member trades."""
        return bool(self.best) and self.state != "failed" and self.best["validation_trades"] > 0


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """Return the results a trial reported, one per evaluation; of a repeated one the last counts."""
    rows = {int(row["env_steps"]): row for row in read_rows(folder / EVALUATIONS) if "failure" not in row}
    return [rows[step] for step in sorted(rows)]


def last_checkpoint(folder: Path) -> tuple[Path | None, str]:
    """Return the newest checkpoint of a trial that is intact, and what was wrong with newer ones.

    Returns
    -------
    tuple
        The folder (None if there is none) and a note, empty where the newest is intact.
    """
    notes = []
    for path in sorted(folder.glob("checkpoint_*"), reverse=True):
        try:
            verify_manifest(path)
        except CheckpointError as error:
            notes.append(str(error))
            continue
        return path, "; ".join(notes)
    return None, "; ".join(notes)


def read_best(checkpoint: Path | None) -> dict[str, Any]:
    """Return the metadata of the best evaluation kept in a checkpoint; empty where there is none."""
    if checkpoint is None or not (checkpoint / "best").is_dir():
        return {}
    _, metadata = load_model(checkpoint / "best")
    return metadata


Selection = Literal["best", "one_standard_error"]


def record_of(values: Mapping[str, Any]) -> Record:
    """Return the record of a member as a checkpoint's metadata keeps it."""
    arrays = {key: np.asarray(value, dtype=np.float64) for key, value in values.items() if isinstance(value, list)}
    return Record(**{**values, **arrays, "session": np.asarray(values["session"], dtype=np.int64)})


def best_outcome(outcomes: Sequence[Outcome], selection: Selection = "best") -> Outcome | None:
    """Return the trial that becomes champion, or None where none is eligible.

    ``best`` is the highest score (the earlier trial of equals). ``one_standard_error`` (Breiman et al.,
    Classification and Regression Trees, 1984) takes, of the trials whose score lies within one standard error of it,
    the one trained least, since training longer is what fits noise; the error is that of the mean over folds of
    the best trial's scores.
    """
    eligible = [outcome for outcome in outcomes if outcome.eligible]
    best = max(eligible, key=lambda outcome: (outcome.cv_score, -outcome.slot), default=None)
    if best is None or selection == "best":
        return best
    by_fold = np.median(np.asarray(best.best["fold_scores"], dtype=np.float64), axis=1)
    error = float(by_fold.std(ddof=1)) / np.sqrt(by_fold.size) if by_fold.size > 1 else 0.0
    within = [outcome for outcome in eligible if outcome.cv_score >= best.cv_score - error]
    return min(within, key=lambda outcome: (int(outcome.best["env_steps"]), -outcome.cv_score, outcome.slot))


def failures(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return why trials failed, the most frequent first: ``reason``, ``trials`` (how many) and ``first`` (its name)."""
    by_reason: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.state == "failed":
            by_reason.setdefault(outcome.fault or outcome.ended, []).append(outcome.trial_id)
    grouped = sorted(by_reason.items(), key=lambda pair: -len(pair[1]))
    return [{"reason": reason, "trials": len(names), "first": names[0]} for reason, names in grouped]


def leaderboard(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return one row per trial x fold x seed, best trial first.

    A trial that was never scored has one row without fold and seed. ``train_score`` is the score on stretches of the
    training bars: far above ``cv_score``, the trial has learned its own bars by heart. Where records know the regimes,
    columns ``regime_{k}_bars_share``, ``_return`` (sum of log returns), ``_trades`` and ``_drawdown_share`` say what
    fell into regime k, 0 being the calmest; they are missing values elsewhere. With risk masks,
    ``masked_volatility``, ``masked_clock`` and ``masked_drawdown`` are the shares of possible Buys that they forbid
    for each cause. Of a gated head, ``gate_entropy``, ``gate_information`` (nats) and ``gate_largest_usage`` are
    those of the training bars before the best evaluation (:func:`sentio_rllib.policy.heads.gate_figures`);
    ``value_cvar`` is the mean of the quantile critic's 5% conditional value at risk, in units of the discounted
    reward.
    """
    rows = []
    for outcome in outcomes:
        shared = {
            "trial_id": outcome.trial_id,
            "state": outcome.state,
            "ended": outcome.ended,
            "cv_score": outcome.cv_score,
            "rung_score": float(outcome.best.get("rung_score", np.nan)),
            "train_score": float(outcome.best.get("train_score", np.nan)),
            "env_steps": outcome.env_steps,
            "env_steps_of_best": int(outcome.best.get("env_steps", 0)),
            "evaluations": len(outcome.curve),
            "env_steps_per_s": outcome.env_steps_per_s,
            **outcome.params,
        }
        members = outcome.best.get("members", [])
        if not members:
            rows.append({**shared, "fold": -1, "seed": -1})
        folds = sorted({fold for _, fold in members})
        seeds = sorted({seed for seed, _ in members})
        for index, ((seed, fold), record) in enumerate(zip(members, outcome.best.get("records", []), strict=True)):
            score = outcome.best["fold_scores"][folds.index(fold)][seeds.index(seed)]
            measured = _figures(record) | _by_regime(record) | _of_network(outcome.best, index)
            rows.append({**shared, "fold": fold, "seed": seed, "fold_score": score, **measured})
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame["eligible"] = frame["trial_id"].map({each.trial_id: each.eligible for each in outcomes})
    return frame.sort_values(
        ["eligible", "cv_score", "trial_id", "fold", "seed"],
        ascending=[False, False, True, True, True],
        na_position="last",
        ignore_index=True,
    )


def session_returns(outcomes: Sequence[Outcome], labels: Sequence[Any]) -> pd.DataFrame:
    """Return the out-of-sample session returns of every trial at its best evaluation, in long form.

    Parameters
    ----------
    outcomes
        Of the trials.
    labels
        Date of every session of the tape.
    """
    parts = []
    for outcome in outcomes:
        members = outcome.best.get("members", [])
        for (seed, fold), record in zip(members, outcome.best.get("records", []), strict=True):
            parts.append(
                pd.DataFrame(
                    {
                        "trial_id": outcome.trial_id,
                        "fold": fold,
                        "seed": seed,
                        "session": [labels[index] for index in record["session"]],
                        "net_return": record["session_returns"],
                    }
                )
            )
    columns = ["trial_id", "fold", "seed", "session", "net_return"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def curves(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return the learning curves in long form: one row per trial, evaluation and fold (median over its seeds)."""
    columns = ["trial_id", "env_steps", "cv_score", "rung_score", "train_score", "entropy", "fold", "fold_score"]
    rows = [
        [outcome.trial_id, *(result.get(key) for key in columns[1:6]), fold, result[f"fold_{fold}_score"]]
        for outcome in outcomes
        for result in outcome.curve
        for fold in range(sum(key.startswith("fold_") for key in result))
    ]
    return pd.DataFrame(rows, columns=columns)


def _figures(record: dict[str, Any]) -> dict[str, Any]:
    keys = ("trades", "exposure", "mean_return", "turnover_usd", "fees_usd", "drawdown_stops", "bars")
    could, causes = record.get("could_buy", 0), ("masked_volatility", "masked_clock", "masked_drawdown")
    masked = {cause: record[cause] / could for cause in causes} if could else {}
    return {key: record[key] for key in keys} | masked


def _by_regime(record: dict[str, Any]) -> dict[str, float]:
    """Columns of a record's regimes; none where it was written without them."""
    bars = record.get("regime_bars", [])
    columns: dict[str, float] = {}
    for regime, count in enumerate(bars):
        columns[f"regime_{regime}_bars_share"] = count / sum(bars)
        columns[f"regime_{regime}_return"] = record["regime_return"][regime]
        columns[f"regime_{regime}_trades"] = record["regime_trades"][regime]
        columns[f"regime_{regime}_drawdown_share"] = record["regime_drawdown"][regime]
    return columns


def _of_network(best: dict[str, Any], member: int) -> dict[str, float]:
    """Figures of a member's gate and critic; empty where it has none."""
    found: dict[str, float] = {
        key: best[key][member] for key in ("gate_entropy", "gate_information", "value_cvar") if key in best
    }
    if "gate_usage" in best:
        found["gate_largest_usage"] = max(best["gate_usage"][member])
    return found


def collapsed_gates(best: dict[str, Any]) -> int:
    """Return how many members of a best evaluation have a gate that uses one expert only."""
    return int(gate_collapsed(torch.tensor(best["gate_usage"])).sum()) if "gate_usage" in best else 0
