"""Deflation of a panel of trials: against the formulas, on noise, and where the sessions do not suffice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sentio_rllib.statistics.deflation import Looks, Panel, count_looks, deflate, headline
from sentio_rllib.statistics.significance import (
    deflated_sharpe_ratio,
    least_supported_sharpe_ratio,
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
    return Looks(len(held.trading()), evaluations, 0, 0, raw, raw)


def deflated(held: Panel, tried: Looks, chosen: str = "trial_0000", resamples: int = 100) -> dict[str, Any]:
    return deflate(held, chosen, tried, sessions_per_year=252, confidence=0.95, resamples=resamples, seed=1)


def noise(sessions: int, count: int, seed: int, edge: float = 0.0) -> np.ndarray:
    returns = np.random.default_rng(seed).normal(0.0, 0.01, (sessions, count))
    returns[:, 0] += edge
    return returns


def test_it_is_the_formula_with_the_variance_without_an_edge() -> None:
    returns = noise(250, 6, 1, edge=0.002)
    held = panel(returns)
    tried = Looks(6, 30, 1, 10, np.array([-0.3, 0.1, 0.4, 0.2]), np.array([0.0, 0.1, -0.1]))
    found = deflated(held, tried)
    moments = sharpe_moments(np.ascontiguousarray(returns[:, 0]))
    rho = max(0.0, moments.autocorrelation)
    variance = (1 + rho) / (1 - rho) / 250
    law = {"autocorrelation": rho, "under": "null"}
    assert found["n_trials"] == 40
    for part, spread in (("raw", tried.raw), ("timing", tried.timing)):
        arguments = (moments.sharpe, 250, moments.skew, moments.kurtosis)
        shared = {"variance": variance} | law
        assert found[part]["dsr_nominal"] == pytest.approx(deflated_sharpe_ratio(*arguments, trials=40.0, **shared))
        effective = found["effective_trials"]
        assert found[part]["dsr"] == pytest.approx(deflated_sharpe_ratio(*arguments, trials=effective, **shared))
        assert found[part]["sharpe"] == pytest.approx(moments.sharpe * math.sqrt(252))
        assert found[part]["spread"] == pytest.approx(spread.std(ddof=1) * math.sqrt(252))
    years = minimum_track_record_length(moments.sharpe, 0.0, moments.skew, moments.kurtosis, **law) / 252
    assert found["raw"]["min_trl_years"] == pytest.approx(years)
    assert found["min_btl_years"] == minimum_backtest_length(found["effective_trials"])
    least = least_supported_sharpe_ratio(found["effective_trials"], 250, confidence=0.95) * math.sqrt(252)
    assert found["least_sharpe"] == pytest.approx(least)
    assert found["years"] == 250 / 252


def test_how_many_looks_there_were() -> None:
    assert count_looks(1.0, 1.0, 0) == 1.0
    assert count_looks(0.0, 0.0, 0) == 1.0
    assert count_looks(6.0, 9.0, 0) == pytest.approx(18.0)  # evaluations go on from one another: their square root
    assert count_looks(6.0, 9.0, 4) == pytest.approx(22.0)  # another sweep is one choice of its user


def test_copies_of_one_trial_count_as_one_and_independent_ones_as_many() -> None:
    one = noise(300, 1, 2)
    copies = np.repeat(one, 8, axis=1)
    held = panel(copies)
    assert deflated(held, search(held, 72))["effective_trials"] == pytest.approx(3.0)  # 9 evaluations of one
    held = panel(noise(300, 8, 2))
    assert deflated(held, search(held, 72))["effective_trials"] > 21.0


def test_trials_that_are_long_together_and_timed_apart_count_as_many() -> None:
    market = np.random.default_rng(1).normal(0.0, 0.02, (300, 1))
    timing = noise(300, 8, 2) / 10
    held = panel(market + timing, timing)
    assert deflated(held, search(held, 72))["effective_trials"] > 21.0


def test_four_idle_trials_and_a_ruinous_one_change_no_luck() -> None:
    """In the run that was shipped, four idle trials made luck reach 4.64 a year, where 1.21 is right."""
    trading = noise(250, 8, 3, edge=0.002)
    alone = panel(trading)
    idle = panel(np.concatenate([trading, np.zeros((250, 4))], axis=1))
    few, many = (deflated(held, search(held, 64), resamples=200) for held in (alone, idle))
    assert many["effective_trials"] == few["effective_trials"]
    for part in ("raw", "timing"):
        for key in ("dsr", "expected_maximum_sharpe", "spa_p", "stepm"):
            assert many[part][key] == few[part][key]
    assert all(many["overfitting"][key] == few["overfitting"][key] for key in ("all", "timing"))

    ruin = noise(250, 1, 9) - 0.0126  # an annual Sharpe ratio of -20
    held = panel(np.concatenate([trading, ruin], axis=1))
    found = deflated(held, search(held, 72), resamples=200)
    luck, before = (each["raw"]["expected_maximum_sharpe"] for each in (found, few))
    assert before < luck < 1.05 * before
    assert found["raw"]["spread"] > 4 * few["raw"]["spread"]  # told, and used for nothing


def test_another_sweep_counts_as_one_look_whatever_its_trials_reached() -> None:
    held = panel(noise(300, 8, 2))
    tried = search(held, 80)
    alone = deflated(held, tried)
    wild = np.append(tried.raw, np.linspace(-2.0, 2.0, 12))
    found = deflated(held, Looks(8, 80, 1, 400, wild, wild))
    assert found["n_trials"] == 480
    assert found["effective_trials"] == pytest.approx(alone["effective_trials"] + 1.0)


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
    found = deflated(panel(returns, timing), Looks(3, 3, 0, 0, np.zeros(3), np.zeros(3)))
    assert found["missing"] == []
    assert found["timing"]["dsr"] is None
    assert found["raw"]["dsr"] > 0.95
    assert headline(found)["dsr"] is None


def test_a_single_trial_has_nothing_to_overfit() -> None:
    held = panel(noise(100, 1, 7, edge=0.005))
    found = deflated(held, Looks(1, 1, 0, 0, np.array([0.4]), np.array([0.4])))
    assert set(found["overfitting"].values()) == {None}
    assert found["effective_trials"] == 1.0
    assert found["raw"]["dsr"] == found["raw"]["psr"]


def test_the_headline_is_of_the_weaker() -> None:
    returns = noise(100, 3, 8, edge=0.003)
    weaker = returns.copy()
    weaker[:, 0] -= 0.003
    found = deflated(panel(returns, weaker), Looks(3, 3, 0, 0, np.zeros(3), np.zeros(3)))
    told = headline(found)
    assert told["dsr"] == found["timing"]["dsr"] < found["raw"]["dsr"]
    assert told["spa_p"] == found["timing"]["spa_p"] > found["raw"]["spa_p"]
    assert told["pbo"] == found["overfitting"]["all"]["pbo"]
