"""The table of figures: by hand, against empyrical, and where there is nothing to measure."""

from __future__ import annotations

from typing import Any

import empyrical
import numpy as np
import pytest

from sentio_rllib.validation.performance import describe, mean_of
from tests.validation.records import record


def figures(returns: list[float], *records: Any, count: int = 1) -> dict[str, Any]:
    values = np.asarray(returns, dtype=np.float64)
    told = records or (record(returns),)
    return describe(values, values, told, sessions_per_year=252, initial_cash=1e5, count=count)


def test_ratios_are_empyricals() -> None:
    returns = np.random.default_rng(1).normal(0.001, 0.01, 300)
    found = figures(returns.tolist())
    assert found["sharpe"] == pytest.approx(empyrical.sharpe_ratio(returns, period="daily"))
    assert found["sortino"] == pytest.approx(empyrical.sortino_ratio(returns, period="daily"))
    assert found["total_return"] == pytest.approx(empyrical.cum_returns_final(returns))
    assert found["calmar"] == pytest.approx(empyrical.calmar_ratio(returns, period="daily"))
    assert found["cvar"] == pytest.approx(empyrical.conditional_value_at_risk(returns, cutoff=0.05), rel=0.1)


def test_counts_and_sums_by_hand() -> None:
    first = record([0.01, 0.02], bars=200, decisions=20, exposure=0.2, trips=3, winning_trips=3)
    second = record([0.03, -0.01], bars=100, decisions=60, exposure=0.65, trips=1, winning_trips=0)
    found = figures([0.02, 0.005, 0.0, 0.0], first, second)
    # the money: 1.02 * 1.005 over 300 bars and 4 sessions
    growth = 1.0251
    assert (found["bars"], found["sessions"], found["trips"], found["trades"]) == (300, 4, 4.0, 8.0)
    assert found["total_return"] == pytest.approx(growth - 1)
    assert (1 + found["mean_return"]) ** 300 == pytest.approx(growth, rel=1e-12)
    # of bars, not of decisions: (200 * 0.2 + 100 * 0.65) / 300
    assert found["exposure"] == pytest.approx(0.35)
    assert found["win_rate"] == pytest.approx(0.75)
    assert found["trades_per_day"] == 2.0
    assert found["turnover_per_day"] == pytest.approx(8e4 / 1e5 / 4)
    assert found["fees_usd"] == 80.0
    assert found["monthly_return_21"] == pytest.approx(growth ** (21 / 4) - 1)
    assert found["monthly_return_22"] == pytest.approx(growth ** (22 / 4) - 1)


def test_several_seeds_of_the_same_bars_count_once() -> None:
    one, two = figures([0.01, 0.02], record([0.01, 0.02])), figures([0.01, 0.02], *[record([0.01, 0.02])] * 2, count=2)
    assert one == pytest.approx(two)


def test_what_cuts_brought_is_compounded_and_counts_once_for_several_seeds() -> None:
    first, second = record([0.0, 0.0], cuts_held=1, cuts_return=-0.1), record([0.0, 0.0], cuts_held=2, cuts_return=0.05)
    found = figures([0.0] * 4, first, second)
    assert (found["cuts_held"], found["cuts_return"]) == (3.0, pytest.approx(0.9 * 1.05 - 1.0))
    found = figures([0.0, 0.0], first, first, count=2)
    assert (found["cuts_held"], found["cuts_return"]) == (1.0, pytest.approx(-0.1))


def test_drawdowns_are_the_worst_of_all_records() -> None:
    shallow, deep = record([0.0, 0.0], max_drawdown=0.01, longest_drawdown=90), record([0.0, 0.0], max_drawdown=0.3)
    found = figures([0.0, 0.0], shallow, deep)
    assert (found["max_drawdown"], found["longest_drawdown_bars"]) == (0.3, 90)


def test_no_trades_leave_zeros_and_no_win_rate() -> None:
    idle = record([0.0, 0.0, 0.0], trades=0, trips=0, winning_trips=0, exposure=0.0, turnover_usd=0.0, fees_usd=0.0)
    found = figures([0.0, 0.0, 0.0], idle)
    assert found["win_rate"] is None
    assert [found[key] for key in ("sharpe", "sortino", "calmar", "total_return", "cvar", "exposure")] == [0.0] * 6


def test_ratios_to_nothing_are_none() -> None:
    found = figures([0.01, 0.02, 0.03])
    assert found["sortino"] is None
    assert found["calmar"] is None


def test_constant_returns_have_no_sharpe_ratio() -> None:
    assert figures([0.01, 0.01, 0.01])["sharpe"] == 0.0


def test_one_session() -> None:
    found = figures([-0.01])
    assert (found["sharpe"], found["sessions"]) == (0.0, 1)
    assert found["total_return"] == pytest.approx(-0.01)


def test_gains_and_losses_around_zero_are_told_as_the_loss_that_they_are() -> None:
    found = figures([0.035, -0.035] * 10)
    assert found["total_return"] == pytest.approx((1.035 * 0.965) ** 10 - 1)
    assert -0.014 < found["monthly_return_21"] < -0.0125
    assert found["mean_return"] < 0.0
    assert found["calmar"] < 0.0


def test_the_month_the_total_and_the_bar_tell_one_story() -> None:
    returns = np.random.default_rng(2).normal(0.002, 0.03, 42)
    found = figures(returns.tolist())
    assert (1 + found["monthly_return_21"]) ** 2 == pytest.approx(1 + found["total_return"], rel=1e-12)
    assert (1 + found["mean_return"]) ** 4200 == pytest.approx(1 + found["total_return"], rel=1e-9)


def test_a_session_that_loses_nearly_all_has_figures() -> None:
    found = figures([0.1, -0.999999, 0.1])
    assert found["total_return"] == pytest.approx(-1 + 1.21e-6, abs=1e-9)
    assert found["monthly_return_21"] == pytest.approx(-1.0)


def test_means_are_none_where_one_is() -> None:
    assert mean_of([{"a": 1.0, "b": None}, {"a": 3.0, "b": 2.0}]) == {"a": 2.0, "b": None}
