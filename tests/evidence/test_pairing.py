"""How arms compare: paired differences with intervals, and what is missing or unequal."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from sentio_rllib.config.space import ARM
from sentio_rllib.evidence.pairing import Difference, cell_scores, compare_arms, paired_difference
from sentio_rllib.search.selection import Outcome


def scored(name: str, scores: list[list[float]], slot: int = 0, state: str = "completed", steps: int = 256) -> Outcome:
    """A trial of an arm with scores [folds, seeds]; seeds 7 and 9."""
    members = [[seed, fold] for fold in range(len(scores)) for seed in (9, 7)[: len(scores[0])]]
    best = {
        "cv_score": float(np.mean(scores)),
        "members": members,
        "fold_scores": scores,
        "env_steps": 128,
        "validation_trades": 12.0,
    }
    curve = [{"env_steps": steps, "env_steps_per_s": 100.0}]
    return Outcome(slot, f"trial_{slot:04d}", state, f"budget at {steps} env steps", {ARM: name}, curve, best)


def cells(values: list[float]) -> dict[tuple[int, int], float]:
    return {(index // 2, index % 2): value for index, value in enumerate(values)}


def test_scores_are_paired_by_fold_and_seed() -> None:
    assert cell_scores(scored("a", [[1.0, 2.0], [3.0, 4.0]])) == {(0, 7): 1.0, (0, 9): 2.0, (1, 7): 3.0, (1, 9): 4.0}
    assert cell_scores(scored("a", [[1.0]], state="failed")) == {}
    assert cell_scores(scored("a", [[1.0]], state="unfinished")) == {}


def test_a_difference_of_two_pairs_has_students_interval() -> None:
    found = paired_difference(cells([1.0, 3.0]), cells([0.0, 0.0]))
    margin = 12.706204736 * np.sqrt(2.0) / np.sqrt(2.0)
    assert (found.pairs, found.missing, found.mean) == (2, 0, 2.0)
    assert (found.low, found.high) == (pytest.approx(2 - margin), pytest.approx(2 + margin))
    assert found.verdict == "no difference shown"


def test_a_difference_of_many_pairs_is_resampled_and_repeats() -> None:
    generator = np.random.default_rng(0)
    base, change = generator.normal(size=40), generator.normal(1.0, 0.5, size=40)
    found = paired_difference(cells(list(base + change)), cells(list(base)))
    assert found == paired_difference(cells(list(base + change)), cells(list(base)))
    assert found.mean == pytest.approx(change.mean())
    margin = 2.0227 * change.std(ddof=1) / np.sqrt(40)  # Student's t with 39 degrees of freedom
    assert found.low == pytest.approx(change.mean() - margin, abs=0.15 * margin)
    assert found.high == pytest.approx(change.mean() + margin, abs=0.15 * margin)
    assert found.verdict == "higher"
    assert paired_difference(cells(list(base)), cells(list(base + change))).verdict == "lower"


def test_intervals_of_eight_pairs_cover_what_they_say() -> None:
    draws = np.random.default_rng(1).normal(size=(300, 8))
    found = [paired_difference(cells(list(row)), cells([0.0] * 8)) for row in draws]
    covered = np.mean([each.verdict == "no difference shown" for each in found])
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize("pairs", [2, 5, 6, 8])
def test_identical_and_constant_differences_have_no_width(pairs: int) -> None:
    values = list(np.linspace(-1.0, 2.0, pairs))
    assert paired_difference(cells(values), cells(values)) == Difference(pairs, 0, 0.0, 0.0, 0.0)
    shifted = paired_difference(cells([0.5] * pairs), cells([0.0] * pairs))
    assert (shifted.mean, shifted.low, shifted.high, shifted.verdict) == (0.5, 0.5, 0.5, "higher")


def test_cells_without_a_partner_are_left_out_and_counted() -> None:
    found = paired_difference({(0, 1): 1.0, (1, 1): 2.0, (2, 1): 9.0}, {(0, 1): 0.0, (1, 1): 1.0, (3, 1): 9.0})
    assert (found.pairs, found.missing, found.mean) == (2, 2, 1.0)
    single = paired_difference({(0, 1): 1.0}, {(0, 1): 0.0})
    assert (single, single.verdict) == (Difference(1, 0), "not enough pairs")
    assert paired_difference({}, {(0, 1): 0.0}) == Difference(0, 1)
    with pytest.raises(ValueError, match="finite"):
        paired_difference({(0, 1): np.nan}, {(0, 1): 0.0})


def test_the_comparison_tells_what_is_missing_and_unequal() -> None:
    arms: dict[str, dict[str, Any]] = {"[b] base": {}, "up": {"ppo.gamma": 0.9}, "failed": {}, "late": {}, "short": {}}
    base = scored("[b] base", [[1.0, 2.0], [3.0, 4.0]])
    up = scored("up", [[1.5, 2.5], [3.5, 4.5]], 1)
    failed = scored("failed", [[1.0, 2.0], [3.0, 4.0]], 2, state="failed")
    short = scored("short", [[1.0, 2.0], [3.0, 4.0]], 4, state="pruned", steps=128)
    found = compare_arms(arms, [up, failed, base, short])
    assert found is not None
    assert (found["baseline"], found["equal_steps"]) == ("[b] base", False)
    results = {result["name"]: result for result in found["results"]}
    assert list(results) == list(arms)
    assert results["[b] base"]["difference"] is None
    assert (results["[b] base"]["score"], results["[b] base"]["trades"]) == (2.5, 12.0)
    assert results["up"]["changes"] == {"ppo.gamma": 0.9}
    assert results["up"]["difference"] == {
        "pairs": 4, "missing": 0, "mean": 0.5, "low": 0.5, "high": 0.5, "verdict": "higher",
    }  # fmt: skip
    assert (results["failed"]["state"], results["failed"]["score"]) == ("failed", None)
    assert results["failed"]["difference"]["verdict"] == "not enough pairs"
    assert results["failed"]["difference"]["missing"] == 4
    assert (results["late"]["state"], results["late"]["trial_id"]) == ("not started", None)
    assert results["short"]["difference"]["verdict"] == "no difference shown"
    json.dumps(found, allow_nan=False)
    assert compare_arms({}, [base]) is None
    assert compare_arms(arms, [up])["results"][1]["difference"]["verdict"] == "not enough pairs"  # type: ignore[index]
