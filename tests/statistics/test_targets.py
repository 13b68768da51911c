"""Targets: what they come to a month, and what counts as reached."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sentio_rllib.statistics.targets import Targets, compare_targets, measure

TARGETS = Targets(1e-5, 390, sharpe=3.0, max_drawdown=0.08, win_rate=0.65)


def measured(returns: np.ndarray, **changes: Any) -> dict[str, Any]:
    metrics = {
        "monthly_return_21": 0.1,
        "sharpe": 4.0,
        "max_drawdown": 0.05,
        "win_rate": 0.75,
        "trips": 20.0,
        "trades": 40.0,
    }
    return measure(returns, metrics | changes, sessions_per_year=252, level=0.95, resamples=200, seed=1)


def test_the_classic_pace_by_the_month() -> None:
    told = compare_targets(TARGETS, None, None)
    assert TARGETS.session_return == pytest.approx(0.0039)
    assert told["monthly_return"]["target"] == pytest.approx(0.085, abs=5e-4)
    assert told["monthly_return"]["text"] == "8.5% in 21 sessions, 8.9% in 22 (1e-05 a bar)"
    assert [each["reached"] for each in told.values()] == [None] * 4


def test_what_is_reached_is_the_holdouts_word() -> None:
    returns = np.random.default_rng(1).normal(0.004, 0.01, 60)
    good, bad = measured(returns), measured(returns, sharpe=2.9, max_drawdown=0.09, win_rate=0.6, monthly_return_21=0.0)
    assert [each["reached"] for each in compare_targets(TARGETS, bad, good).values()] == [True] * 4
    assert [each["reached"] for each in compare_targets(TARGETS, good, bad).values()] == [False] * 4


def test_intervals_hold_their_estimates() -> None:
    found = measured(np.random.default_rng(2).normal(0.004, 0.01, 120), sharpe=6.0, monthly_return_21=0.08)
    for name in ("monthly_return", "sharpe", "win_rate"):
        assert found[name]["low"] < found[name]["estimate"] < found[name]["high"]
    assert found["max_drawdown"]["at_closes"] == 0.05
    assert 0 < found["max_drawdown"]["low"] <= found["max_drawdown"]["high"] < 1


def test_a_months_interval_is_of_what_sessions_compound_to() -> None:
    """Sessions of 3.5% around zero lose 1.3% a month; the interval of their mean would lie around nothing."""
    returns = np.tile([0.035, -0.035], 60)
    found = measured(returns, monthly_return_21=-0.013)["monthly_return"]
    assert found["low"] < (1.035 * 0.965) ** 10.5 - 1 < found["high"]
    middle = (found["low"] + found["high"]) / 2
    assert middle == pytest.approx(-0.0128, abs=0.003)


def test_a_drawdown_inside_a_session_counts() -> None:
    held = measured(np.full(60, 0.001) + np.random.default_rng(3).normal(0, 1e-5, 60), max_drawdown=0.10)
    assert held["max_drawdown"]["estimate"] < 0.08
    assert compare_targets(TARGETS, None, held)["max_drawdown"]["reached"] is False


def test_no_round_trip_measures_no_win_rate() -> None:
    found = measured(np.random.default_rng(4).normal(0, 0.01, 60), win_rate=None, trips=0.0)
    assert found["win_rate"] == {"estimate": None, "low": None, "high": None}
    assert compare_targets(TARGETS, None, found)["win_rate"]["reached"] is None


def test_who_never_trades_has_reached_no_drawdown() -> None:
    found = measured(np.zeros(60), sharpe=0.0, max_drawdown=0.0, win_rate=None, trips=0.0, trades=0.0)
    told = compare_targets(TARGETS, None, found)
    assert told["max_drawdown"]["reached"] is None
    assert told["win_rate"]["reached"] is None
    assert told["sharpe"]["reached"] is False


def test_too_few_sessions_have_no_interval() -> None:
    found = measured(np.array([0.1, 0.2]))
    assert found["sharpe"] == {"estimate": 4.0, "low": None, "high": None}
