"""Metrics: values by hand, agreement with empyrical-reloaded, and the edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import empyrical
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sentio_rllib.errors import NonFiniteError
from sentio_rllib.statistics import metrics

return_arrays = arrays(np.float64, st.integers(2, 60), elements=st.floats(-0.2, 0.2).map(lambda r: round(r, 6)))


def floats(*values: float) -> metrics.Floats:
    return np.array(values, dtype=np.float64)


def test_session_returns_by_hand() -> None:
    session = np.array([3, 3, 4, 7, 7, 7], dtype=np.int32)
    returns = floats(0.1, 0.2, -0.1, 0.01, 0.02, 0.03)
    # 1.1 * 1.2 and 1.01 * 1.02 * 1.03
    np.testing.assert_allclose(metrics.session_returns(returns, session), [0.32, -0.1, 0.061106], atol=1e-15)
    batch = np.stack([returns, -2.0 * returns])[None]
    # 0.8 * 0.6 and 0.98 * 0.96 * 0.94
    expected = [[[0.32, -0.1, 0.061106], [-0.52, 0.2, -0.115648]]]
    np.testing.assert_allclose(metrics.session_returns(batch, session), expected, atol=1e-15)


@given(seed=st.integers(0, 10_000), bars=st.integers(1, 60))
def test_session_returns_are_those_of_an_account(seed: int, bars: int) -> None:
    """Cash and shares that are traded at every close: sessions tell how its equity went from mark to mark."""
    rng = np.random.default_rng(seed)
    price = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.05, bars + 1)))
    session = np.sort(rng.integers(0, 9, bars))
    cash, shares, marks = 700.0, 3.0, [700.0 + 3.0 * price[0]]
    for close in price[1:]:
        marks.append(cash + shares * close)
        bought = rng.uniform(-shares, cash / close)
        cash, shares = cash - bought * close, shares + bought
    equity = np.array(marks)
    found = metrics.session_returns(equity[1:] / equity[:-1] - 1.0, session)
    last = [int(np.flatnonzero(session == each)[-1]) + 1 for each in np.unique(session)]
    wanted = equity[last] / equity[[0, *last[:-1]]] - 1.0
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=1e-12)
    assert metrics.equity_curve(found, marks[0])[-1] == pytest.approx(marks[-1], rel=1e-12)


def test_session_returns_edges() -> None:
    one = metrics.session_returns(floats(0.1, 0.2), np.zeros(2, dtype=np.int32))
    np.testing.assert_allclose(one, [0.32])
    assert metrics.session_returns(np.empty((2, 0)), np.empty(0, dtype=np.int32)).shape == (2, 0)
    with pytest.raises(ValueError, match="descends"):
        metrics.session_returns(floats(0.1, 0.2), np.array([1, 0]))
    with pytest.raises(ValueError, match="shape"):
        metrics.session_returns(floats(0.1, 0.2), np.array([1]))
    with pytest.raises(TypeError, match="integer"):
        metrics.session_returns(floats(0.1, 0.2), floats(0.0, 1.0))  # type: ignore[arg-type]


@given(return_arrays)
def test_ratios_agree_with_empyrical(returns: metrics.Floats) -> None:
    if np.ptp(returns) > 0:
        expected = empyrical.sharpe_ratio(returns, annualization=252)
        assert metrics.sharpe(returns, 252) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    if returns.min() < 0:
        expected = empyrical.sortino_ratio(returns, annualization=252)
        assert metrics.sortino(returns, 252) == pytest.approx(expected, rel=1e-9, abs=1e-9)
        expected = empyrical.calmar_ratio(returns, annualization=252)
        assert metrics.calmar(returns, 252) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    equity = metrics.equity_curve(returns, 100_000.0)
    assert metrics.max_drawdown(equity) == pytest.approx(-empyrical.max_drawdown(returns), abs=1e-12)
    assert metrics.total_return(equity) == pytest.approx(empyrical.cum_returns_final(returns), abs=1e-12)


def test_cvar_agrees_with_empyrical() -> None:
    returns = np.random.default_rng(0).standard_t(4, 300) * 0.01
    for size in (1, 20, 100, 300):
        expected = empyrical.conditional_value_at_risk(returns[:size], 0.05)
        assert metrics.cvar(returns[:size]) == pytest.approx(expected)


def test_sharpe_by_hand() -> None:
    assert metrics.sharpe(floats(0.01, 0.03), 252) == pytest.approx(0.02 / math.sqrt(2e-4) * math.sqrt(252))
    assert metrics.sharpe(floats(0.01, 0.03), 365) == pytest.approx(0.02 / math.sqrt(2e-4) * math.sqrt(365))


@pytest.mark.parametrize("returns", [floats(), floats(0.02), np.zeros(9), np.full(7, 0.1), np.full(7, -0.1)])
def test_sharpe_is_zero_without_deviation(returns: metrics.Floats) -> None:
    assert metrics.sharpe(returns, 252) == 0.0


def test_sortino_and_calmar_edges() -> None:
    for ratio in (metrics.sortino, metrics.calmar):
        assert ratio(np.zeros(9), 252) == 0.0
        assert ratio(floats(), 252) == 0.0
        assert ratio(floats(0.01, 0.02), 252) == math.inf
    assert metrics.sortino(floats(-0.02), 252) == 0.0
    assert metrics.sortino(floats(0.03, -0.01), 252) == pytest.approx(0.01 / math.sqrt(5e-5) * math.sqrt(252))
    assert metrics.calmar(floats(0.1, -1.0, 0.5), 252) == -1.0
    assert metrics.calmar(floats(0.5, -0.5), 2) == pytest.approx(-0.25 / 0.5)


def test_drawdown_by_hand() -> None:
    equity = floats(100, 90, 95, 100, 120, 90, 80, 110, 119)
    assert metrics.max_drawdown(equity) == pytest.approx(40 / 120)
    assert metrics.longest_drawdown(equity) == 4
    assert metrics.longest_drawdown(equity[:5]) == 2
    assert metrics.total_return(equity) == pytest.approx(0.19)


@pytest.mark.parametrize("equity", [floats(5.0), np.full(4, 5.0), floats(1.0, 2.0, 2.0, 3.0)])
def test_no_drawdown(equity: metrics.Floats) -> None:
    assert metrics.max_drawdown(equity) == 0.0
    assert metrics.longest_drawdown(equity) == 0


def test_total_loss() -> None:
    equity = floats(2.0, 0.0, 0.0)
    assert (metrics.max_drawdown(equity), metrics.longest_drawdown(equity)) == (1.0, 2)
    assert metrics.total_return(equity) == -1.0


@pytest.mark.parametrize("equity", [floats(), floats(0.0, 1.0), floats(1.0, -0.1)])
def test_refused_equity(equity: metrics.Floats) -> None:
    for measure in (metrics.max_drawdown, metrics.longest_drawdown, metrics.total_return):
        with pytest.raises(ValueError, match="equity"):
            measure(equity)


def test_cvar_by_hand() -> None:
    returns = floats(0.03, -0.05, 0.01, -0.01, 0.02)
    assert metrics.cvar(returns, 0.4) == pytest.approx(-0.03)
    assert metrics.cvar(returns, 0.05) == -0.05
    assert metrics.cvar(returns, 1.0) == pytest.approx(0.0, abs=1e-15)
    assert metrics.cvar(floats()) == 0.0
    for tail in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="tail"):
            metrics.cvar(returns, tail)


def test_projection_reference() -> None:
    """The target pace, ORACLES: 0.39% a day, 8.5% in 21 days, 8.9% in 22."""
    daily = np.full(3, 0.0039)
    assert round(100 * metrics.projected_return(daily, 21), 1) == 8.5
    assert round(100 * metrics.projected_return(daily, 22), 1) == 8.9
    # 1e-5 a bar that is left in is a little more: (1 + 1e-5) ** 390 = 1.0039076
    bars = np.full(3 * 390, 1e-5)
    compounded = metrics.session_returns(bars, np.repeat(np.arange(3), 390))
    assert compounded == pytest.approx([0.0039076] * 3, abs=5e-8)
    assert metrics.projected_return(compounded, 21) == pytest.approx(1.00001 ** (390 * 21) - 1)


def test_gains_and_losses_that_alternate_around_zero_lose() -> None:
    """3.5% up and 3.5% down leave 0.9988 of the money every two sessions, whatever their mean says."""
    returns = np.tile([0.035, -0.035], 40)
    assert returns.mean() == pytest.approx(0.0, abs=1e-17)
    month = metrics.projected_return(returns, 21)
    assert -0.014 < month < -0.0125
    assert month == pytest.approx((0.965 * 1.035) ** 10.5 - 1.0, rel=1e-12)


@given(return_arrays)
def test_a_projection_over_the_sessions_themselves_is_what_came_of_them(returns: metrics.Floats) -> None:
    money = 100.0
    for each in returns:
        money += money * each
    assert metrics.projected_return(returns, returns.size) == pytest.approx(money / 100.0 - 1.0, abs=1e-12)
    assert metrics.projected_return(returns) == pytest.approx(metrics.projected_return(returns[::-1].copy()), abs=1e-12)


def test_projection_edges() -> None:
    assert metrics.projected_return(floats()) == 0.0
    assert metrics.projected_return(np.zeros(5)) == 0.0
    assert metrics.projected_return(floats(0.01)) == pytest.approx(1.01**21 - 1)
    assert metrics.projected_return(floats(-1.0)) == -1.0
    assert metrics.projected_return(floats(-1.5)) == -1.0
    assert metrics.projected_return(floats(0.5, -1.0, 3.0)) == -1.0  # nothing is left to win back with


def test_round_trips_by_hand() -> None:
    """Bought at 1's open and sold at 3's open; in and out on 5; bought at 6's open and sold at 7's close."""
    equity = floats(100, 100, 99, 108, 110, 110, 121, 120, 60, 60, 66)
    over = floats(0, 0.9, 0.5, 0, 0, 0.9, 0.9, 0.9, 0, 0.9)
    after = np.array([0, 1, 1, 0, 0, 0, 1, 0, 0, 1], dtype=np.bool_)
    trips = metrics.round_trips(equity, over, after)
    # from the mark before the first bar to the one after the last; that of bar 9 is still open and not counted
    np.testing.assert_allclose(trips, [110 / 100 - 1, 121 / 110 - 1, 60 / 121 - 1])


@pytest.mark.parametrize(
    ("over", "after", "expected"),
    [
        ((0, 0), (0, 0), []),
        ((0, 1), (0, 1), []),
        ((1, 1), (1, 1), []),
        ((1, 1), (1, 0), [0.2]),  # sold at the last close
        ((1, 0), (1, 0), [0.2]),  # sold at the last open, with what that brought in the last mark
        ((1, 0), (0, 0), [0.1]),
        ((0, 1), (0, 0), [1.2 / 1.1 - 1]),
        ((1, 1), (0, 0), [0.1, 1.2 / 1.1 - 1]),  # two trips, one on each bar
        ((1, 1), (0, 1), [0.1]),
    ],
)
def test_round_trip_edges(over: tuple[float, ...], after: tuple[int, ...], expected: list[float]) -> None:
    found = metrics.round_trips(floats(1.0, 1.1, 1.2), floats(*over), np.array(after, dtype=np.bool_))
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(("over", "after"), [(0, 0), (3, 2), (2, 3), (3, 3)])
def test_round_trips_need_what_was_held_over_each_bar(over: int, after: int) -> None:
    with pytest.raises(ValueError, match="shape"):
        metrics.round_trips(floats(1.0, 1.1, 1.2), np.zeros(over), np.zeros(after, dtype=np.bool_))


@given(seed=st.integers(0, 10_000), bars=st.integers(1, 40))
def test_round_trips_are_what_an_account_of_cash_and_shares_made(seed: int, bars: int) -> None:
    """All in or all out at each open and each close, at a fee; a trip's gain is told by the cash around it."""
    rng = np.random.default_rng(seed)
    price = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, 2 * bars)))
    cash, shares, staked, trips = 1000.0, 0.0, 0.0, list[float]()
    equity, over, after = [cash], list[float](), list[bool]()
    for moment, each in enumerate(price):
        at_open = moment % 2 == 0
        if at_open and shares == 0.0 and rng.random() < 0.5:
            staked, cash, shares = cash, 0.0, cash / (1.01 * each)
        elif shares > 0.0 and rng.random() < 0.5:
            cash, shares = 0.99 * shares * each, 0.0
            trips.append(cash / staked - 1.0)
        if at_open:
            over.append(shares)
        else:
            equity.append(cash + shares * each)
            after.append(shares > 0.0)
    found = metrics.round_trips(np.array(equity), np.array(over), np.array(after))
    np.testing.assert_allclose(found, trips, rtol=0.0, atol=1e-12)


def test_cv_score_by_hand() -> None:
    scores = np.array([[1.0, 3.0, 50.0], [2.0, 1.0, -9.0]])  # medians 3 and 1
    assert metrics.cv_score(scores) == pytest.approx(2.0 - 0.5 * math.sqrt(2.0))
    assert metrics.cv_score(scores, 0.0) == 2.0
    assert metrics.cv_score(np.array([[1.0, 2.0]])) == 1.5  # one fold: no deviation
    assert metrics.cv_score(np.full((4, 2), 0.1)) == 0.1


@pytest.mark.parametrize("penalty", [-0.1, math.inf, math.nan])
def test_refused_penalty(penalty: float) -> None:
    with pytest.raises(ValueError, match="fold_penalty"):
        metrics.cv_score(np.zeros((2, 2)), penalty)


def test_empty_scores_are_refused() -> None:
    for shape in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least one fold"):
            metrics.cv_score(np.empty(shape))


ONE_PATH: dict[str, Callable[[Any], Any]] = {
    "sharpe": lambda values: metrics.sharpe(values, 252),
    "sortino": lambda values: metrics.sortino(values, 252),
    "calmar": lambda values: metrics.calmar(values, 252),
    "total_return": metrics.total_return,
    "max_drawdown": metrics.max_drawdown,
    "longest_drawdown": metrics.longest_drawdown,
    "cvar": metrics.cvar,
    "projected_return": metrics.projected_return,
    "round_trips": lambda values: metrics.round_trips(values, np.ones(2), np.array([True, False])),
    "round_trips over": lambda values: metrics.round_trips(np.ones(4), values, np.array([True, True, False])),
    "equity_curve": metrics.equity_curve,
}


@pytest.mark.parametrize("name", ONE_PATH)
def test_rank_dtype_and_finiteness_are_checked(name: str) -> None:
    measure = ONE_PATH[name]
    measure(floats(1.0, 2.0, 1.5))
    for wrong in ([1.0, 2.0], np.array([1, 2]), np.array([1.0, 2.0], dtype=np.float32)):
        with pytest.raises(TypeError, match="float64"):
            measure(wrong)
    for wrong in (np.ones((2, 2)), np.array(1.0)):
        with pytest.raises(ValueError, match="rank"):
            measure(wrong)
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(NonFiniteError, match="1 of 3 values"):
            measure(floats(1.0, bad, 2.0))


def test_scores_that_are_not_finite_fail_the_trial() -> None:
    with pytest.raises(NonFiniteError, match="fold_scores: 1 of 2"):
        metrics.cv_score(np.array([[1.0], [math.inf]]))
    with pytest.raises(ValueError, match="rank 1, needed 2"):
        metrics.cv_score(floats(1.0, 2.0))
    with pytest.raises(NonFiniteError, match="bar_returns"):
        metrics.session_returns(floats(math.nan), np.zeros(1, dtype=np.int64))


@pytest.mark.parametrize("ratio", [metrics.sharpe, metrics.sortino, metrics.calmar])
def test_refused_sessions_per_year(ratio: Callable[[metrics.Floats, int], float]) -> None:
    with pytest.raises(ValueError, match="sessions_per_year is 0"):
        ratio(floats(0.1, 0.2), 0)
