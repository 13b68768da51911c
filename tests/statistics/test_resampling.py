"""Tests and intervals by resampling: against arch, on planted edges and on noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from arch.bootstrap import SPA, StepM

from sentio_rllib.errors import NonFiniteError
from sentio_rllib.statistics import metrics, overfitting, resampling, significance
from sentio_rllib.statistics.inputs import NotEnoughDataError, NoVarianceError
from tests.statistics.noise import NORMAL, noise


def with_t(values: metrics.Floats, t: float) -> metrics.Floats:
    """The same noise with a mean of exactly `t` standard errors."""
    centred = values - values.mean()
    return centred + t * centred.std(ddof=1) / math.sqrt(centred.size)


def planted(periods: int = 1000) -> metrics.Floats:
    """Twenty trials with t of -1.5 to 1.5, and one of a twentieth of their deviation with t = 5.9."""
    columns = [with_t(0.02 * noise(seed, periods), t) for seed, t in enumerate(np.linspace(-1.5, 1.5, 20))]
    columns.insert(7, with_t(0.001 * noise(99, periods), 5.9))
    return np.stack(columns, axis=1)


def test_volatile_trials_do_not_hide_a_planted_edge() -> None:
    returns, flat = planted(), np.zeros(1000)
    raw = SPA(flat, -returns, seed=0, studentize=True)
    raw.compute()
    assert raw.pvalues["consistent"] > 0.3
    assert resampling.superior_predictive_ability(returns, flat, seed=0) < 0.005
    assert resampling.stepwise_superior(returns, flat, seed=0) == (7,)


def test_noise_is_not_superior() -> None:
    pvalues = [
        resampling.superior_predictive_ability(noise(s, 200, 10), np.zeros(200), reps=200, seed=s) for s in range(20)
    ]
    assert np.mean(np.array(pvalues) < 0.1) <= 0.25
    assert 0.3 < np.mean(pvalues) < 0.8
    worse = noise(0, 200, 3) - 1.0
    assert resampling.superior_predictive_ability(worse, np.zeros(200), seed=0) > 0.3
    assert resampling.stepwise_superior(worse, np.zeros(200), seed=0) == ()


def test_superiority_agrees_with_arch_on_equal_scales() -> None:
    returns, benchmark = noise(5, 300, 4), noise(6, 300)
    returns += benchmark[:, None]
    returns[:, 1] += 0.15
    returns[:, 2] += 0.12
    scaled = (returns - benchmark[:, None]) / (returns - benchmark[:, None]).std(axis=0, ddof=1)
    options: dict[str, Any] = {"block_size": 5, "reps": 300, "seed": 9}
    test, steps = SPA(np.zeros(300), -scaled, **options), StepM(np.zeros(300), -scaled, size=0.1, **options)
    test.compute()
    steps.compute()
    own = resampling.superior_predictive_ability(returns, benchmark, reps=300, block=5, seed=9)
    assert own == test.pvalues["consistent"]
    found = resampling.stepwise_superior(returns, benchmark, size=0.1, reps=300, block=5, seed=9)
    assert list(found) == steps.superior_models
    assert found


def test_superiority_is_seeded_and_blind_to_scale() -> None:
    returns, flat = noise(7, 250, 5) + 0.1, np.zeros(250)
    first = resampling.superior_predictive_ability(returns, flat, seed=1)
    assert first == resampling.superior_predictive_ability(returns * [1, 10, 0.1, 5, 3.0], flat, seed=1)


def test_every_trial_may_be_superior() -> None:
    # one is found in the first step and the rest later, whereupon arch alone is left without a column
    columns = np.stack([with_t(noise(s, 400), t) for s, t in ((1, 9.0), (2, 8.0), (3, 2.3), (4, 2.1))], axis=1)
    assert resampling.stepwise_superior(columns, np.zeros(400), size=0.2, block=1, seed=0) == (0, 1, 2, 3)


def test_trials_that_equal_the_benchmark_are_not_superior() -> None:
    benchmark = noise(8, 100)
    same = np.repeat(benchmark[:, None], 3, axis=1)
    assert resampling.stepwise_superior(same, benchmark, reps=50, seed=0) == ()
    # nor those that equal it but for rounding
    assert resampling.stepwise_superior(same * (1.0 + 1e-15), benchmark, reps=50, seed=0) == ()
    one = np.concatenate((same, with_t(noise(9, 100), 8.0)[:, None] + benchmark[:, None]), axis=1)
    assert resampling.superior_predictive_ability(one, benchmark, reps=50, seed=0) == 0.0
    assert resampling.stepwise_superior(one, benchmark, reps=50, seed=0) == (3,)
    with pytest.raises(NoVarianceError, match="column 1 less the benchmark is constant"):
        resampling.superior_predictive_ability(same + np.array([0.0, 0.5, 0.0]), benchmark, seed=0)


def test_superiority_refuses_bad_input() -> None:
    with pytest.raises(NotEnoughDataError, match="19 periods, needed 20"):
        resampling.superior_predictive_ability(noise(0, 19, 2), np.zeros(19), seed=0)
    with pytest.raises(NotEnoughDataError, match="0 trials, needed 1"):
        resampling.stepwise_superior(np.empty((30, 0)), np.zeros(30), seed=0)
    with pytest.raises(ValueError, match="benchmark has 29 periods, returns 30"):
        resampling.superior_predictive_ability(noise(0, 30, 2), np.zeros(29), seed=0)
    with pytest.raises(ValueError, match=r"size is 1\.5"):
        resampling.stepwise_superior(noise(0, 30, 2), np.zeros(30), size=1.5, seed=0)
    with pytest.raises(ValueError, match="reps is 0"):
        resampling.superior_predictive_ability(noise(0, 30, 2), np.zeros(30), reps=0, seed=0)
    with pytest.raises(ValueError, match=r"block is 31, allowed 1 \.\. 30"):
        resampling.superior_predictive_ability(noise(0, 30, 2), np.zeros(30), block=31, seed=0)


def test_intervals_cover_and_repeat() -> None:
    hits = 0
    for seed in range(60):
        returns = 0.1 + noise(seed, 250)
        interval = resampling.stationary_bootstrap_interval(returns, "mean_return", 0.9, reps=200, seed=seed)
        assert interval.low < interval.estimate == returns.mean() < interval.high
        hits += interval.low <= 0.1 <= interval.high
    assert 46 <= hits <= 60
    assert interval == resampling.stationary_bootstrap_interval(returns, "mean_return", 0.9, reps=200, seed=seed)


def test_intervals_of_each_statistic() -> None:
    returns = 0.001 + 0.01 * noise(0, 300)
    sharpe = resampling.stationary_bootstrap_interval(returns, "sharpe", seed=1)
    assert sharpe.estimate == pytest.approx(metrics.sharpe(returns, 1))
    # near the normal interval, as the returns are
    error = significance.sharpe_standard_error(sharpe.estimate, 300, **NORMAL)
    assert sharpe.high - sharpe.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    month = resampling.stationary_bootstrap_interval(returns, "monthly_return", seed=1)
    growth = 1.0
    for each in returns:
        growth *= 1.0 + each
    assert month.estimate == pytest.approx(growth ** (21 / 300) - 1.0, rel=1e-9)
    assert month.high - month.low == pytest.approx(2 * 1.96 * 21 * 0.01 / math.sqrt(300), rel=0.15)
    drawdown = resampling.stationary_bootstrap_interval(returns, "max_drawdown", seed=1)
    assert drawdown.estimate == metrics.max_drawdown(metrics.equity_curve(returns))
    assert 0.0 < drawdown.low < drawdown.high < 1.0
    own = resampling.stationary_bootstrap_interval(returns, lambda r: float(r.mean()), block=7, seed=1)
    named = resampling.stationary_bootstrap_interval(returns, "mean_return", block=7, seed=1)
    assert own == named
    assert own.block == 7


def test_dependent_returns_get_longer_blocks_and_wider_intervals() -> None:
    shocks = noise(2, 600)
    returns = np.convolve(shocks, np.full(10, 0.1))[:600]
    found = resampling.stationary_bootstrap_interval(returns, "mean_return", seed=0)
    single = resampling.stationary_bootstrap_interval(returns, "mean_return", block=1, seed=0)
    assert found.block > 5
    assert found.high - found.low > 1.5 * (single.high - single.low)


def test_intervals_of_returns_that_hardly_trade() -> None:
    returns = np.zeros(60)
    returns[:2] = 0.01, -0.01
    found = resampling.stationary_bootstrap_interval(returns, "sharpe", reps=200, seed=0)
    assert found.low <= found.estimate == 0.0 <= found.high


def test_intervals_refuse_bad_input() -> None:
    interval = resampling.stationary_bootstrap_interval
    with pytest.raises(NotEnoughDataError, match="bootstrap interval: 1 periods, needed 20"):
        interval(np.array([0.1]), "sharpe", seed=0)
    with pytest.raises(NoVarianceError, match=r"all 30 are 0\.1"):
        interval(np.full(30, 0.1), "sharpe", seed=0)
    with pytest.raises(ValueError, match="allowed sharpe, mean_return, monthly_return, max_drawdown or a"):
        interval(noise(0, 30), "sortino", seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"level is 95, allowed above 0 and below 1"):
        interval(noise(0, 30), "sharpe", 95, seed=0)
    with pytest.raises(NonFiniteError, match="for a resample"):
        interval(noise(0, 30), lambda returns: math.nan, reps=5, seed=0)


@pytest.mark.parametrize(
    "call",
    [
        lambda returns: significance.sharpe_moments(returns[:, 0]),
        lambda returns: overfitting.probability_of_backtest_overfitting(returns, 4),
        overfitting.effective_trials,
        lambda returns: resampling.superior_predictive_ability(returns, np.zeros(30), seed=0),
        lambda returns: resampling.stepwise_superior(np.zeros((30, 2)), returns[:, 0], seed=0),
        lambda returns: resampling.stationary_bootstrap_interval(returns[:, 0], "sharpe", seed=0),
    ],
)
def test_arrays_are_checked(call: Any) -> None:
    returns = noise(0, 30, 2)
    call(returns)
    for bad in (math.nan, math.inf):
        broken = returns.copy()
        broken[3, 0] = bad
        with pytest.raises(NonFiniteError, match=r"1 of (30|60) values are NaN or infinite"):
            call(broken)
    with pytest.raises(TypeError, match="must be a float64 array"):
        call(returns.astype(np.float32))
    with pytest.raises(ValueError, match=r"has rank (3|2), needed"):
        call(returns[:, :, None])
