"""Intervals of figures: none where there are none, right where they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sentio_rllib.statistics.intervals import return_interval, win_rate_interval


def test_intervals_need_sessions_that_vary() -> None:
    nothing = {"estimate": None, "low": None, "high": None}
    assert return_interval(np.zeros(50), "sharpe", level=0.95, resamples=100, seed=1) == nothing
    assert return_interval(np.array([0.1, 0.2]), "sharpe", level=0.95, resamples=100, seed=1) == nothing
    returns = np.random.default_rng(3).normal(0.01, 0.01, 200)
    found = return_interval(returns, "mean_return", level=0.95, resamples=500, seed=1)
    assert found["estimate"] == pytest.approx(returns.mean())
    error = 1.96 * returns.std() / math.sqrt(200)
    assert found["high"] - found["low"] == pytest.approx(2 * error, rel=0.25)  # type: ignore[operator]


def test_win_rates_have_exact_bounds() -> None:
    found = win_rate_interval(0, 10, 0.95)
    assert found == {"estimate": 0.0, "low": 0.0, "high": pytest.approx(1 - 0.025 ** (1 / 10))}
    assert win_rate_interval(10, 10, 0.95)["low"] == pytest.approx(0.025 ** (1 / 10))
    assert win_rate_interval(0, 0, 0.95)["estimate"] is None


def test_a_session_that_loses_all_is_a_drawdown_of_all() -> None:
    returns = np.tile([0.1, -1.0, 0.1], 10)
    assert return_interval(returns, "max_drawdown", level=0.9, resamples=100, seed=1)["low"] == 1.0
    assert return_interval(returns, "monthly_return", level=0.9, resamples=100, seed=1)["high"] == -1.0


def test_a_month_of_gains_and_losses_around_zero_is_a_loss() -> None:
    returns = np.tile([0.035, -0.035], 40)
    found = return_interval(returns, "monthly_return", level=0.95, resamples=300, seed=1)
    assert found["estimate"] == pytest.approx((1.035 * 0.965) ** 10.5 - 1)
    assert return_interval(returns, "mean_return", level=0.95, resamples=300, seed=1)["estimate"] == pytest.approx(0.0)
