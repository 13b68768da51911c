"""Deflation of a panel of trials: against the formulas, on noise, and where the sessions do not suffice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sentio_rllib.statistics.deflation import Looks, Panel, deflate, headline
from sentio_rllib.statistics.significance import (
    deflated_sharpe_ratio,
    minimum_backtest_length,
    minimum_track_record_length,
    sharpe_moments,
)


def panel(returns: np.ndarray, timing: np.ndarray | None = None, hold: np.ndarray | None = None) -> Panel:
    sessions, count = returns.shape
    names = tuple(f"trial_{index:04d}" for index in range(count))
    held = np.random.default_rng(99).normal(0, 0.01, sessions) if hold is None else hold
    return Panel(names, returns, returns if timing is None else timing, held, (100,) * (count - 1) + (200,))


def search(held: Panel, evaluations: int) -> Looks:
    raw = held.raw.mean(0) / np.maximum(held.raw.std(0, ddof=1), 1e-12)
    return Looks(evaluations, 0, raw, raw)


def deflated(held: Panel, tried: Looks, chosen: str = "trial_0000", resamples: int = 100) -> dict[str, Any]:
    return deflate(held, chosen, tried, sessions_per_year=252, confidence=0.95, resamples=resamples, seed=1)


def noise(sessions: int, count: int, seed: int, edge: float = 0.0) -> np.ndarray:
    returns = np.random.default_rng(seed).normal(0.0, 0.01, (sessions, count))
    returns[:, 0] += edge
    return returns


def test_it_is_the_formula_with_the_ledgers_trials() -> None:
    returns = noise(250, 6, 1, edge=0.002)
    held = panel(returns)
    tried = Looks(30, 10, np.array([-0.3, 0.1, 0.4, 0.2]), np.array([0.0, 0.1, -0.1]))
    found = deflated(held, tried)
    moments = sharpe_moments(np.ascontiguousarray(returns[:, 0]))
    assert found["n_trials"] == 40
    for part, spread in (("raw", tried.raw), ("timing", tried.timing)):
        variance = max(float(spread.var(ddof=1)), 1 / 250)
        arguments = (moments.sharpe, 250, moments.skew, moments.kurtosis)
        shared = {"variance": variance}
        assert found[part]["dsr_nominal"] == deflated_sharpe_ratio(*arguments, trials=40.0, **shared)
        assert found[part]["dsr"] == deflated_sharpe_ratio(*arguments, trials=found["effective_trials"], **shared)
        assert found[part]["sharpe"] == pytest.approx(moments.sharpe * math.sqrt(252))
    years = minimum_track_record_length(moments.sharpe, 0.0, moments.skew, moments.kurtosis) / 252
    assert found["raw"]["min_trl_years"] == pytest.approx(years)
    assert found["min_btl_years"] == minimum_backtest_length(found["effective_trials"])
    assert found["years"] == 250 / 252


def test_copies_of_one_trial_count_as_one_and_independent_ones_as_many() -> None:
    one = noise(300, 1, 2)
    copies = np.repeat(one, 8, axis=1)
    held = panel(copies)
    assert deflated(held, search(held, 80))["effective_trials"] == pytest.approx(10.0)  # 80 looks at one thing in eight
    held = panel(noise(300, 8, 2))
    assert deflated(held, search(held, 80))["effective_trials"] > 70.0


def test_trials_that_are_long_together_and_timed_apart_count_as_many() -> None:
    market = np.random.default_rng(1).normal(0.0, 0.02, (300, 1))
    timing = noise(300, 8, 2) / 10
    held = panel(market + timing, timing)
    assert deflated(held, search(held, 80))["effective_trials"] > 70.0


def test_trials_that_never_trade_deflate_nothing_away() -> None:
    trading = noise(300, 2, 3)
    idle = np.concatenate([trading, np.zeros((300, 6))], axis=1)
    few, many = panel(trading), panel(idle)
    counts = [deflated(held, search(held, 20))["effective_trials"] for held in (few, many)]
    assert counts[0] == counts[1] == pytest.approx(20.0)


def test_the_trials_of_other_sweeps_count_in_full() -> None:
    held = panel(np.repeat(noise(300, 1, 2), 8, axis=1))
    tried = search(held, 80)
    found = deflated(held, Looks(80, 400, tried.raw, tried.timing))
    assert found["n_trials"] == 480
    assert found["effective_trials"] == pytest.approx(410.0)


def test_the_spread_of_trials_that_are_alike_is_not_all_the_luck_there_is() -> None:
    shared = np.random.default_rng(5).normal(0.0, 0.01, (250, 1))
    alike = shared + np.random.default_rng(6).normal(0.0, 0.001, (250, 10))
    held = panel(alike)
    assert search(held, 10).raw.var(ddof=1) < 1 / 250
    found = deflated(held, search(held, 10))
    luck = found["raw"]["expected_maximum_sharpe"] / math.sqrt(252)
    nothing = deflated(held, Looks(10, 0, np.zeros(2), np.zeros(2)))
    assert luck == nothing["raw"]["expected_maximum_sharpe"] / math.sqrt(252)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_best_of_noise_is_rarely_significant(correlation: float) -> None:
    supported = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shared = rng.normal(0.0, 0.01, (120, 1))
        own = rng.normal(0.0, 0.01, (120, 10))
        held = panel(math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own)
        best = held.trials[int(np.argmax(search(held, 10).raw))]
        supported += deflated(held, search(held, 10), best, resamples=1)["raw"]["dsr"] >= 0.95
    assert supported <= 6  # of 60, where 5% are allowed: 7 or more have a probability below 3.5%


def test_an_edge_is_found_by_every_statistic() -> None:
    held = panel(noise(250, 5, 3, edge=0.004))
    found = deflated(held, search(held, 5), resamples=500)
    assert found["raw"]["psr"] > 0.99
    assert found["raw"]["dsr"] > 0.9
    assert found["raw"]["spa_p"] < 0.01
    assert found["raw"]["stepm"] == ["trial_0000"]
    assert found["raw"]["stepm_hold"] == ["trial_0000"]
    assert found["overfitting"]["all"]["pbo"] < 0.1
    assert found["overfitting"]["all"]["loss_probability"] < 0.05
    assert found["missing"] == []


def test_pbo_among_equal_budgets_counts_the_longest_trained() -> None:
    returns = noise(120, 5, 4)
    held = Panel(("a", "b", "c", "d", "e"), returns, returns, returns[:, 0], (9, 9, 3, 9, 1))
    found = deflated(held, search(held, 5), "a")["overfitting"]
    assert (found["all"]["trials"], found["equal_budgets"]["trials"]) == (5, 3)
    held = Panel(("a", "b"), returns[:, :2], returns[:, :2], returns[:, 0], (9, 3))
    assert deflated(held, search(held, 2), "a")["overfitting"]["equal_budgets"] is None


def test_too_few_sessions_are_told_with_the_number_needed() -> None:
    held = panel(noise(10, 3, 5))
    found = deflated(held, search(held, 3))
    assert found["raw"]["spa_p"] is None
    assert found["overfitting"]["all"] is None
    assert any("10 periods, needed 20 or more" in line for line in found["missing"])
    found = deflated(panel(noise(3, 3, 5)), search(held, 3))
    assert found["effective_trials"] is None
    assert found["raw"]["dsr"] is None
    assert any("3 periods, needed 4 or more" in line for line in found["missing"])


def test_no_timing_at_all_is_no_lack_of_data() -> None:
    returns = noise(60, 3, 6, edge=0.01)
    timing = returns.copy()
    timing[:, 0] = 0.0
    found = deflated(panel(returns, timing), Looks(3, 0, np.zeros(3), np.zeros(3)))
    assert found["missing"] == []
    assert found["timing"]["dsr"] is None
    assert found["raw"]["dsr"] > 0.95
    assert headline(found)["dsr"] is None


def test_a_single_trial_has_nothing_to_overfit() -> None:
    held = panel(noise(100, 1, 7, edge=0.005))
    found = deflated(held, Looks(1, 0, np.array([0.4]), np.array([0.4])))
    assert set(found["overfitting"].values()) == {None}
    assert found["effective_trials"] == 1.0
    assert found["raw"]["dsr"] == found["raw"]["psr"]


def test_the_headline_is_of_the_weaker() -> None:
    returns = noise(100, 3, 8, edge=0.003)
    weaker = returns.copy()
    weaker[:, 0] -= 0.003
    found = deflated(panel(returns, weaker), Looks(3, 0, np.zeros(3), np.zeros(3)))
    told = headline(found)
    assert told["dsr"] == found["timing"]["dsr"] < found["raw"]["dsr"]
    assert told["spa_p"] == found["timing"]["spa_p"] > found["raw"]["spa_p"]
    assert told["pbo"] == found["overfitting"]["all"]["pbo"]
