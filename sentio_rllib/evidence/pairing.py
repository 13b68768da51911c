"""What arms differ by: scores of the same fold and seed, paired, with an interval for the mean difference.

An arm's scores are the fold scores of its best evaluation, the one that would be its champion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from sentio_rllib.config.space import ARM
from sentio_rllib.search.selection import Outcome

Cell = tuple[int, int]
"""(fold, seed)."""

COMPARED = ("completed", "pruned")
"""States of trials that have ended and may be compared."""

_RESAMPLES = 9_999


@dataclass(frozen=True)
class Difference:
    """Mean paired difference of scores to a baseline's.

    Attributes
    ----------
    pairs
        Cells that both have.
    missing
        Cells that only one of the two has.
    mean, low, high
        Mean difference and its interval; None with fewer than two pairs.
    """

    pairs: int
    missing: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> str:
        """What the interval shows, in words."""
        if self.low is None or self.high is None:
            return "not enough pairs"
        if self.low <= 0 <= self.high:
            return "no difference shown"
        return "higher" if self.low > 0 else "lower"


def paired_difference(
    scores: Mapping[Cell, float], baseline: Mapping[Cell, float], *, level: float = 0.95, seed: int = 0
) -> Difference:
    """Return the mean difference of `scores` to `baseline` over the cells that both have.

    Parameters
    ----------
    scores, baseline
        Finite score of each cell.
    level
        Coverage of the interval, 0 .. 1.
    seed
        Of the resampling.

    Raises
    ------
    ValueError
        A score is not finite.

    Notes
    -----
    The interval is the expanded percentile bootstrap over cells (Hesterberg 2015, "What teachers should know
    about the bootstrap"), whose level is set so that normal differences get Student's t interval. Measured with 8
    normal differences it covers 94.5%, plain percentiles and BCa cover 88%. All resampled means of n pairs
    together cover ``1 - 2 * 0.5**n``; where that is less than `level` (at 95% with fewer than 6 pairs) it is
    Student's t interval. Seeds of one fold share its market, so cells are not independent, and the interval is
    rather too narrow than too wide.
    """
    cells = sorted(scores.keys() & baseline.keys())
    missing = len(scores.keys() ^ baseline.keys())
    differences = np.array([scores[cell] - baseline[cell] for cell in cells], dtype=np.float64)
    if not np.isfinite(differences).all():
        raise ValueError("scores must be finite")
    if len(cells) < 2:
        return Difference(len(cells), missing)
    low, high = _interval(differences, level, seed)
    return Difference(len(cells), missing, float(differences.mean()), low, high)


def _interval(
    differences: np.ndarray[tuple[int], np.dtype[np.float64]], level: float, seed: int
) -> tuple[float, float]:
    count = len(differences)
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        return mean, mean
    quantile = float(stats.t.ppf((1 + level) / 2, count - 1))
    if 1 - 2 * 0.5**count < level:
        margin = quantile * float(differences.std(ddof=1)) / math.sqrt(count)
        return mean - margin, mean + margin
    expanded = 1 - 2 * float(stats.norm.sf(quantile * math.sqrt(count / (count - 1))))
    found = stats.bootstrap(
        (differences,),
        np.mean,
        method="percentile",
        confidence_level=expanded,
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def cell_scores(outcome: Outcome) -> dict[Cell, float]:
    """Return the fold score of each (fold, seed) at a trial's best evaluation; empty where it has not ended well."""
    if outcome.state not in COMPARED or not outcome.best:
        return {}
    return by_cell(outcome.best["members"], outcome.best["fold_scores"])


def by_cell(members: Sequence[Sequence[int]], fold_scores: Any) -> dict[Cell, float]:
    """Return the score of each (fold, seed), of members (seed, fold) and scores [folds, seeds] in ascending order."""
    folds, seeds = (sorted({member[axis] for member in members}) for axis in (1, 0))
    return {(fold, seed): float(fold_scores[folds.index(fold)][seeds.index(seed)]) for seed, fold in members}


def compare_arms(arms: Mapping[str, Mapping[str, Any]], outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """Return how the arms of a sweep compare, or None where it has none.

    Parameters
    ----------
    arms
        Name to the keys that the arm sets; the first is the baseline.
    outcomes
        Of the trials; an arm without one has not been started.

    Returns
    -------
    dict
        ``baseline``, ``equal_steps`` (whether all arms with scores trained equally long) and ``results``, for each
        arm ``name, changes, trial_id, state, ended, score`` (mean over fold x seed), ``cv_score, trades`` (median
        over fold x seed), ``env_steps, env_steps_of_best, env_steps_per_s`` and ``difference`` to the baseline
        (``pairs, missing, mean, low, high, verdict``; None for the baseline itself). What there is not is None.
    """
    if not arms:
        return None
    by_arm = {outcome.params.get(ARM): outcome for outcome in outcomes}
    baseline = next(iter(arms))
    scores = {name: cell_scores(by_arm[name]) if name in by_arm else {} for name in arms}
    results = []
    for name, changes in arms.items():
        figures = _figures(by_arm.get(name), scores[name])
        difference = None if name == baseline else paired_difference(scores[name], scores[baseline])
        told = None if difference is None else asdict(difference) | {"verdict": difference.verdict}
        results.append({"name": name, "changes": dict(changes), **figures, "difference": told})
    steps = {by_arm[name].env_steps for name in arms if scores[name]}
    return {"baseline": baseline, "equal_steps": len(steps) <= 1, "results": results}


def _figures(outcome: Outcome | None, scores: Mapping[Cell, float]) -> dict[str, Any]:
    if outcome is None:
        outcome = Outcome(slot=-1, trial_id="", state="not started", ended="not started", params={})
    return {
        "trial_id": outcome.trial_id or None,
        "state": outcome.state,
        "ended": outcome.ended,
        "score": float(np.mean(list(scores.values()))) if scores else None,
        "cv_score": outcome.cv_score if scores else None,
        "trades": float(outcome.best["validation_trades"]) if scores else None,
        "env_steps": outcome.env_steps,
        "env_steps_of_best": int(outcome.best["env_steps"]) if scores else None,
        "env_steps_per_s": outcome.env_steps_per_s if outcome.curve else None,
    }
