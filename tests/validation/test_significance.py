"""Significance: published values, agreement with purgedcv and arch, properties, and the edges.

Reference values, per period unless said: Bailey and Lopez de Prado 2012 and 2014; Lopez de Prado, Lipton and
Zoonekynd 2025.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import purgedcv
import pytest
from arch.bootstrap import SPA, StepM
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from sentio_rllib.errors import NonFiniteError, SentioError
from sentio_rllib.validation import metrics, significance
from sentio_rllib.validation.significance import NotEnoughData, NoVarianceError

HEDGE_FUND = {"skew": -2.448, "kurtosis": 10.164}
"""Monthly returns with mean 0.036 and deviation 0.079, T = 24, the example of the papers."""
NORMAL = {"skew": 0.0, "kurtosis": 3.0}
MONTHLY = 0.036 / 0.079


def noise(seed: int, *shape: int) -> metrics.Floats:
    return np.random.default_rng(seed).standard_normal(shape)


def with_t(values: metrics.Floats, t: float) -> metrics.Floats:
    """The same noise with a mean of exactly `t` standard errors."""
    centred = values - values.mean()
    return centred + t * centred.std(ddof=1) / math.sqrt(centred.size)


# published values


def test_probabilistic_sharpe_ratio_of_2012() -> None:
    psr = significance.probabilistic_sharpe_ratio
    assert psr(0.458, 0.0, 24, **HEDGE_FUND) == pytest.approx(0.9134, abs=5e-5)
    assert psr(0.458, 0.0, 24, **NORMAL) == pytest.approx(0.9817, abs=5e-5)


def test_probabilistic_sharpe_ratio_under_the_null() -> None:
    psr = significance.probabilistic_sharpe_ratio
    assert psr(MONTHLY, 0.0, 24, **HEDGE_FUND, under="null") == pytest.approx(0.987, abs=5e-4)
    assert psr(MONTHLY, 0.1, 24, **HEDGE_FUND, under="null") == pytest.approx(0.939, abs=5e-4)


def test_standard_error_length_power_and_false_discovery_rate_of_2025() -> None:
    assert significance.sharpe_standard_error(MONTHLY, 24, **HEDGE_FUND) == pytest.approx(0.329, abs=5e-4)
    length = significance.minimum_track_record_length(MONTHLY, 0.0, **HEDGE_FUND, under="null")
    assert length == pytest.approx(13.029, abs=5e-4)
    assert significance.type_two_error(0.0, 0.5, 24, **HEDGE_FUND) == pytest.approx(0.315, abs=5e-4)
    assert significance.false_discovery_rate(0.05, 0.05, 0.315) == pytest.approx(0.581, abs=5e-4)


def test_deflated_sharpe_ratio_of_2014() -> None:
    sharpe, variance = 2.5 / math.sqrt(250), 0.5 / 250
    dsr = significance.deflated_sharpe_ratio
    assert significance.expected_maximum_sharpe_ratio(100, variance) == pytest.approx(0.1132, abs=5e-5)
    assert dsr(sharpe, 1250, -3.0, 10.0, trials=100, variance=variance) == pytest.approx(0.9004, abs=5e-5)
    assert dsr(sharpe, 1250, -3.0, 10.0, trials=46, variance=variance) == pytest.approx(0.9505, abs=5e-5)
    assert dsr(sharpe, 1250, **NORMAL, trials=88, variance=variance) == pytest.approx(0.9505, abs=5e-5)


@pytest.mark.parametrize(("per_year", "years"), [(250, 2.731), (252, 2.731), (52, 2.829), (12, 3.240)])
def test_minimum_track_record_length_in_years(per_year: int, years: float) -> None:
    sharpe, benchmark = 2.0 / math.sqrt(per_year), 1.0 / math.sqrt(per_year)
    periods = significance.minimum_track_record_length(sharpe, benchmark, **NORMAL, confidence=0.95)
    assert periods / per_year == pytest.approx(years, abs=5e-4)


@pytest.mark.parametrize(("trials", "expected"), [(1, 0.0), (10, 1.5746), (100, 2.5306)])
def test_expected_maximum_of_normals(trials: int, expected: float) -> None:
    assert significance.expected_maximum_sharpe_ratio(trials, 1.0) == pytest.approx(expected, abs=5e-5)
    assert significance.expected_maximum_sharpe_ratio(trials, 0.04) == pytest.approx(0.2 * expected, abs=5e-5)


@pytest.mark.parametrize(("trials", "years", "digits"), [(1, 0.0, 9), (7, 1.92, 2), (10, 2.48, 2), (45, 4.998, 3)])
def test_minimum_backtest_length(trials: int, years: float, digits: int) -> None:
    assert round(significance.minimum_backtest_length(trials, 1.0), digits) == years
    assert significance.minimum_backtest_length(trials, 2.0) == pytest.approx(years / 4, abs=2e-3)


def test_moments_by_hand() -> None:
    # mean 1, deviations -1 -1 -1 3: second, third and fourth central moments 3, 6, 21
    moments = significance.sharpe_moments(np.array([0.0, 0.0, 0.0, 4.0]))
    assert moments == pytest.approx((1 / 2, 6 / 3**1.5, 21 / 9))
    assert moments.sharpe == pytest.approx(metrics.sharpe(np.array([0.0, 0.0, 0.0, 4.0]), 1))


# agreement with purgedcv, which takes ddof 0 and moments corrected for bias


@pytest.mark.parametrize("seed", range(5))
def test_sharpe_ratios_agree_with_purgedcv(seed: int) -> None:
    returns = 0.002 + 0.01 * np.random.default_rng(seed).standard_t(5, 300)
    own = significance.sharpe_moments(returns)
    sharpe = own.sharpe * math.sqrt(300 / 299)
    skew, kurtosis = float(stats.skew(returns, bias=False)), float(stats.kurtosis(returns, bias=False, fisher=False))
    # their sample's skew and kurtosis differ from ours by the correction alone
    assert own.skew == pytest.approx(skew, rel=0.01)
    assert own.kurtosis == pytest.approx(kurtosis, rel=0.05)
    psr = significance.probabilistic_sharpe_ratio(sharpe, 0.05, 300, skew, kurtosis)
    assert psr == pytest.approx(purgedcv.probabilistic_sharpe_ratio(returns, 0.05), rel=1e-9)
    dsr = significance.deflated_sharpe_ratio(sharpe, 300, skew, kurtosis, trials=37, variance=0.002)
    assert dsr == pytest.approx(purgedcv.deflated_sharpe_ratio(returns, 37, 0.002), rel=1e-9)
    length = significance.minimum_track_record_length(sharpe, sharpe - 0.1, skew, kurtosis)
    assert math.ceil(length) == purgedcv.min_track_record_length(sharpe, sharpe - 0.1, 0.05, skew, kurtosis)


@pytest.mark.parametrize("trials", [1, 2, 9, 400])
def test_minimum_backtest_length_agrees_with_purgedcv(trials: int) -> None:
    expected = purgedcv.minimum_backtest_length(trials, 1.5)
    assert significance.minimum_backtest_length(trials, 1.5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("periods", "trials", "blocks"), [(480, 20, 8), (101, 6, 6), (40, 9, 4), (60, 7, 2)])
def test_overfitting_agrees_with_purgedcv(periods: int, trials: int, blocks: int) -> None:
    returns = 1.0 + 100.0 * noise(periods, periods, trials)
    returns[:, 1] = 0.0  # a trial that never traded
    own = significance.probability_of_backtest_overfitting(returns, blocks)
    other = purgedcv.probability_of_backtest_overfitting(returns.T, blocks)
    # theirs enumerates the half out of sample
    np.testing.assert_allclose(own.logits, other.logits[::-1], atol=1e-9)
    assert own.slope == pytest.approx(other.slope, rel=1e-6)
    # theirs does not count the very median
    assert own.pbo == pytest.approx(other.pbo + 0.5 * np.mean(np.abs(other.logits) < 1e-9))
    assert own.loss_probability == np.mean(other.is_oos_performance[:, 1] < 0.0)


# overfitting


def test_overfitting_of_noise_is_a_half_on_average_only() -> None:
    pbo = [significance.probability_of_backtest_overfitting(noise(seed, 480, 20), 8).pbo for seed in range(100)]
    assert np.mean(pbo) == pytest.approx(0.48, abs=0.05)
    assert np.std(pbo) == pytest.approx(0.21, abs=0.04)


def test_overfitting_with_one_good_trial_is_small() -> None:
    for seed in range(5):
        returns = noise(seed, 480, 20)
        returns[:, 3] += 0.3
        found = significance.probability_of_backtest_overfitting(returns)
        assert found.pbo < 0.02
        assert found.loss_probability < 0.02
        assert found.logits.shape == (math.comb(16, 8),)


def test_overfitting_by_hand() -> None:
    # Sharpe ratios of the two halves: (1.5, 0.5), (0.5, 1.5) up to a factor: the best of either half loses
    rise, fall = np.array([1.0, 2.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 2.0])
    found = significance.probability_of_backtest_overfitting(np.stack([rise, fall], axis=1), 2)
    assert found.pbo == 1.0
    np.testing.assert_allclose(found.logits, [-math.log(2)] * 2)
    assert found.slope == 0.0


def test_ties_do_not_depend_on_the_order_of_trials() -> None:
    returns = np.repeat(noise(0, 120, 3), 4, axis=1)
    same = significance.probability_of_backtest_overfitting(returns[:, :4], 6)
    assert same.pbo == 0.5
    assert not same.logits.any()
    flat = np.concatenate((np.zeros((120, 3)), -np.abs(noise(1, 120, 3))), axis=1)
    for order in (slice(None), slice(None, None, -1)):
        assert significance.probability_of_backtest_overfitting(flat[:, order], 6).pbo == 0.0
    left = significance.probability_of_backtest_overfitting(returns, 6)
    right = significance.probability_of_backtest_overfitting(np.ascontiguousarray(returns[:, ::-1]), 6)
    np.testing.assert_allclose(left.logits, right.logits)


def test_overfitting_refuses_what_cannot_be_halved() -> None:
    returns = noise(0, 12, 3)
    for blocks in (0, 3, 22):
        with pytest.raises(ValueError, match=f"blocks is {blocks}, allowed even"):
            significance.probability_of_backtest_overfitting(returns, blocks)
    with pytest.raises(NotEnoughData, match="12 periods, needed 14") as error:
        significance.probability_of_backtest_overfitting(returns, 14)
    assert (error.value.needed, error.value.available) == (14, 12)
    with pytest.raises(NotEnoughData, match="3 periods, needed 4"):
        significance.probability_of_backtest_overfitting(returns[:3], 2)
    with pytest.raises(NotEnoughData, match="1 trials, needed 2"):
        significance.probability_of_backtest_overfitting(returns[:, :1], 4)
    with pytest.raises(NoVarianceError, match="none of the 3"):
        significance.probability_of_backtest_overfitting(np.full((12, 3), 0.1), 4)


# effective trials


def test_effective_trials_of_copies_and_of_independent_trials() -> None:
    base = noise(1, 500, 30)
    assert significance.effective_trials(base[:, :1]) == 1.0
    assert significance.effective_trials(np.repeat(base[:, :1], 9, axis=1)) == 1.0
    assert significance.effective_trials(base) == pytest.approx(30.0, abs=1.0)
    sizes = [1, 12, 3, 5]
    copies = np.repeat(base[:, :4], sizes, axis=1) * np.linspace(0.5, 2.0, 21)
    assert significance.effective_trials(copies) == pytest.approx(4.0)
    assert significance.effective_trials(copies + 0.05 * noise(2, 500, 21)) == pytest.approx(4.0)
    assert significance.effective_trials(copies[:, ::-1].copy()) == pytest.approx(4.0)


def test_effective_trials_fall_with_correlation_and_count_flat_ones_once() -> None:
    common, own = noise(3, 500, 1), noise(4, 500, 20)
    counts = [
        significance.effective_trials(math.sqrt(rho) * common + math.sqrt(1 - rho) * own)
        for rho in (0.0, 0.3, 0.6, 0.9, 1.0)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1.0
    assert counts[2] > 5.0
    flat = np.concatenate((own, np.zeros((500, 4)), np.full((500, 2), 0.1)), axis=1)
    assert significance.effective_trials(flat) == significance.effective_trials(own) + 1.0
    assert significance.effective_trials(np.zeros((500, 3))) == 1.0
    mirrored = np.concatenate((common, -common), axis=1)
    assert significance.effective_trials(mirrored) == 2.0


def test_effective_trials_need_periods_and_a_trial() -> None:
    with pytest.raises(NotEnoughData, match="3 periods, needed 4"):
        significance.effective_trials(noise(0, 3, 5))
    with pytest.raises(NotEnoughData, match="0 trials, needed 1"):
        significance.effective_trials(np.empty((9, 0)))


# tests against a benchmark


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
    assert significance.superior_predictive_ability(returns, flat, seed=0) < 0.005
    assert significance.stepwise_superior(returns, flat, seed=0) == (7,)


def test_noise_is_not_superior() -> None:
    pvalues = [
        significance.superior_predictive_ability(noise(s, 200, 10), np.zeros(200), reps=200, seed=s) for s in range(20)
    ]
    assert np.mean(np.array(pvalues) < 0.1) <= 0.25
    assert 0.3 < np.mean(pvalues) < 0.8
    worse = noise(0, 200, 3) - 1.0
    assert significance.superior_predictive_ability(worse, np.zeros(200), seed=0) > 0.3
    assert significance.stepwise_superior(worse, np.zeros(200), seed=0) == ()


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
    own = significance.superior_predictive_ability(returns, benchmark, reps=300, block=5, seed=9)
    assert own == test.pvalues["consistent"]
    found = significance.stepwise_superior(returns, benchmark, size=0.1, reps=300, block=5, seed=9)
    assert list(found) == steps.superior_models
    assert found


def test_superiority_is_seeded_and_blind_to_scale() -> None:
    returns, flat = noise(7, 250, 5) + 0.1, np.zeros(250)
    first = significance.superior_predictive_ability(returns, flat, seed=1)
    assert first == significance.superior_predictive_ability(returns * [1, 10, 0.1, 5, 3.0], flat, seed=1)


def test_every_trial_may_be_superior() -> None:
    # one is found in the first step and the rest later, whereupon arch alone is left without a column
    columns = np.stack([with_t(noise(s, 400), t) for s, t in ((1, 9.0), (2, 8.0), (3, 2.3), (4, 2.1))], axis=1)
    assert significance.stepwise_superior(columns, np.zeros(400), size=0.2, block=1, seed=0) == (0, 1, 2, 3)


def test_trials_that_equal_the_benchmark_are_not_superior() -> None:
    benchmark = noise(8, 100)
    same = np.repeat(benchmark[:, None], 3, axis=1)
    assert significance.stepwise_superior(same, benchmark, reps=50, seed=0) == ()
    # nor those that equal it but for rounding
    assert significance.stepwise_superior(same * (1.0 + 1e-15), benchmark, reps=50, seed=0) == ()
    one = np.concatenate((same, with_t(noise(9, 100), 8.0)[:, None] + benchmark[:, None]), axis=1)
    assert significance.superior_predictive_ability(one, benchmark, reps=50, seed=0) == 0.0
    assert significance.stepwise_superior(one, benchmark, reps=50, seed=0) == (3,)
    with pytest.raises(NoVarianceError, match="column 1 less the benchmark is constant"):
        significance.superior_predictive_ability(same + np.array([0.0, 0.5, 0.0]), benchmark, seed=0)


def test_superiority_refuses_bad_input() -> None:
    with pytest.raises(NotEnoughData, match="19 periods, needed 20"):
        significance.superior_predictive_ability(noise(0, 19, 2), np.zeros(19), seed=0)
    with pytest.raises(NotEnoughData, match="0 trials, needed 1"):
        significance.stepwise_superior(np.empty((30, 0)), np.zeros(30), seed=0)
    with pytest.raises(ValueError, match="benchmark has 29 periods, returns 30"):
        significance.superior_predictive_ability(noise(0, 30, 2), np.zeros(29), seed=0)
    with pytest.raises(ValueError, match=r"size is 1\.5"):
        significance.stepwise_superior(noise(0, 30, 2), np.zeros(30), size=1.5, seed=0)
    with pytest.raises(ValueError, match="reps is 0"):
        significance.superior_predictive_ability(noise(0, 30, 2), np.zeros(30), reps=0, seed=0)
    with pytest.raises(ValueError, match=r"block is 31, allowed 1 \.\. 30"):
        significance.superior_predictive_ability(noise(0, 30, 2), np.zeros(30), block=31, seed=0)


# intervals


def test_intervals_cover_and_repeat() -> None:
    hits = 0
    for seed in range(60):
        returns = 0.1 + noise(seed, 250)
        interval = significance.stationary_bootstrap_interval(returns, "mean_return", 0.9, reps=200, seed=seed)
        assert interval.low < interval.estimate == returns.mean() < interval.high
        hits += interval.low <= 0.1 <= interval.high
    assert 46 <= hits <= 60
    assert interval == significance.stationary_bootstrap_interval(returns, "mean_return", 0.9, reps=200, seed=seed)


def test_intervals_of_each_statistic() -> None:
    returns = 0.001 + 0.01 * noise(0, 300)
    sharpe = significance.stationary_bootstrap_interval(returns, "sharpe", seed=1)
    assert sharpe.estimate == pytest.approx(metrics.sharpe(returns, 1))
    # near the normal interval, as the returns are
    error = significance.sharpe_standard_error(sharpe.estimate, 300, **NORMAL)
    assert sharpe.high - sharpe.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    drawdown = significance.stationary_bootstrap_interval(returns, "max_drawdown", seed=1)
    assert drawdown.estimate == metrics.max_drawdown(metrics.equity_curve(returns))
    assert 0.0 < drawdown.low < drawdown.high < 1.0
    own = significance.stationary_bootstrap_interval(returns, lambda r: float(r.mean()), block=7, seed=1)
    named = significance.stationary_bootstrap_interval(returns, "mean_return", block=7, seed=1)
    assert own == named
    assert own.block == 7


def test_dependent_returns_get_longer_blocks_and_wider_intervals() -> None:
    shocks = noise(2, 600)
    returns = np.convolve(shocks, np.full(10, 0.1))[:600]
    found = significance.stationary_bootstrap_interval(returns, "mean_return", seed=0)
    single = significance.stationary_bootstrap_interval(returns, "mean_return", block=1, seed=0)
    assert found.block > 5
    assert found.high - found.low > 1.5 * (single.high - single.low)


def test_intervals_of_returns_that_hardly_trade() -> None:
    returns = np.zeros(60)
    returns[:2] = 0.01, -0.01
    found = significance.stationary_bootstrap_interval(returns, "sharpe", reps=200, seed=0)
    assert found.low <= found.estimate == 0.0 <= found.high


def test_intervals_refuse_bad_input() -> None:
    interval = significance.stationary_bootstrap_interval
    with pytest.raises(NotEnoughData, match="bootstrap interval: 1 periods, needed 20"):
        interval(np.array([0.1]), "sharpe", seed=0)
    with pytest.raises(NoVarianceError, match=r"all 30 are 0\.1"):
        interval(np.full(30, 0.1), "sharpe", seed=0)
    with pytest.raises(ValueError, match="allowed sharpe, mean_return, max_drawdown or a function"):
        interval(noise(0, 30), "sortino", seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"level is 95, allowed above 0 and below 1"):
        interval(noise(0, 30), "sharpe", 95, seed=0)
    with pytest.raises(NonFiniteError, match="for a resample"):
        interval(noise(0, 30), lambda returns: math.nan, reps=5, seed=0)


# properties

sharpes = st.floats(-0.5, 0.5)
lengths = st.integers(2, 5000)
skews = st.floats(-2.0, 2.0)
tails = st.floats(0.5, 20.0)
"""Kurtosis above its least, 1 + skew^2."""
unders = st.sampled_from(["estimate", "null"])


@given(low=sharpes, step=sharpes, benchmark=sharpes, periods=lengths, skew=skews, tail=tails, under=unders)
def test_psr_grows_with_the_sharpe_ratio(
    *, low: float, step: float, benchmark: float, periods: int, skew: float, tail: float, under: significance.Under
) -> None:
    # at the estimate's own variance a better estimate may be a less certain one; not so near normal returns
    near = under == "estimate"
    moments = (skew * 0.1, 3.0 + 0.1 * tail) if near else (skew, 1.0 + skew**2 + tail)
    first, second = (
        significance.probabilistic_sharpe_ratio(sharpe, benchmark, periods, *moments, under=under)
        for sharpe in (low, low + abs(step))
    )
    assert 0.0 <= first <= second <= 1.0


@given(sharpe=sharpes, benchmark=sharpes, periods=lengths, more=lengths, skew=skews, tail=tails, under=unders)
def test_psr_moves_away_from_a_half_with_the_record(
    *, sharpe: float, benchmark: float, periods: int, more: int, skew: float, tail: float, under: significance.Under
) -> None:
    short, long = (
        significance.probabilistic_sharpe_ratio(sharpe, benchmark, length, skew, 1 + skew**2 + tail, under=under)
        for length in (periods, periods + more)
    )
    assert abs(long - 0.5) >= abs(short - 0.5)
    assert (short >= 0.5) == (sharpe >= benchmark) or short == pytest.approx(0.5)


@given(
    sharpe=sharpes,
    periods=lengths,
    skew=skews,
    tail=tails,
    trials=st.floats(1.0, 1e6),
    factor=st.floats(1.0, 100.0),
    variance=st.floats(0.0, 1.0),
)
def test_dsr_falls_with_the_number_of_trials(
    *, sharpe: float, periods: int, skew: float, tail: float, trials: float, factor: float, variance: float
) -> None:
    kurtosis = 1.0 + skew**2 + tail
    few, many = (
        significance.deflated_sharpe_ratio(sharpe, periods, skew, kurtosis, trials=count, variance=variance)
        for count in (trials, trials * factor)
    )
    psr = significance.probabilistic_sharpe_ratio(sharpe, 0.0, periods, skew, kurtosis)
    single = significance.deflated_sharpe_ratio(sharpe, periods, skew, kurtosis, trials=1, variance=variance)
    assert 0.0 <= many <= few <= psr == single


@given(sharpe=sharpes, benchmark=sharpes, skew=skews, tail=tails, confidence=st.floats(0.51, 0.999), under=unders)
def test_minimum_track_record_length_inverts_the_psr(
    *, sharpe: float, benchmark: float, skew: float, tail: float, confidence: float, under: significance.Under
) -> None:
    kurtosis = 1.0 + skew**2 + tail
    length = significance.minimum_track_record_length(
        sharpe, benchmark, skew, kurtosis, confidence=confidence, under=under
    )
    if sharpe <= benchmark:
        assert length == math.inf
        return
    assume(2 < length < 1e9)
    below, above = (
        significance.probabilistic_sharpe_ratio(sharpe, benchmark, periods, skew, kurtosis, under=under)
        for periods in (max(math.ceil(length) - 1, 2), math.ceil(length))
    )
    assert below <= confidence + 1e-9
    assert above >= confidence - 1e-9


@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=40), st.floats(1e-3, 1e3))
def test_moments_are_of_a_distribution_and_free_of_scale(values: list[float], scale: float) -> None:
    returns = np.array(values)
    assume(np.ptp(returns) > 1e-6 * np.abs(returns).max())
    moments = significance.sharpe_moments(returns)
    assert moments.kurtosis >= (1.0 + moments.skew**2) * (1.0 - 1e-9)
    assert significance.sharpe_moments(returns * scale) == pytest.approx(moments, rel=1e-6, abs=1e-6)
    # whatever the returns, the statistic is a probability or an error of ours
    try:
        psr = significance.probabilistic_sharpe_ratio(moments.sharpe, 0.0, returns.size, moments.skew, moments.kurtosis)
    except NoVarianceError:
        return
    assert 0.0 <= psr <= 1.0


# edges


def test_moments_refuse_what_has_none() -> None:
    with pytest.raises(NotEnoughData, match="1 periods, needed 4 or more") as error:
        significance.sharpe_moments(np.array([0.1]))
    assert (error.value.statistic, error.value.needed, error.value.available) == (
        "Sharpe ratio with its moments",
        4,
        1,
    )
    assert isinstance(error.value, SentioError)
    with pytest.raises(NotEnoughData, match="0 periods"):
        significance.sharpe_moments(np.empty(0))
    for value in (0.0, 0.1):
        with pytest.raises(NoVarianceError, match=f"all 50 are {value:g}"):
            significance.sharpe_moments(np.full(50, value))


@pytest.mark.parametrize(
    "call",
    [
        lambda returns: significance.sharpe_moments(returns[:, 0]),
        lambda returns: significance.probability_of_backtest_overfitting(returns, 4),
        significance.effective_trials,
        lambda returns: significance.superior_predictive_ability(returns, np.zeros(30), seed=0),
        lambda returns: significance.stepwise_superior(np.zeros((30, 2)), returns[:, 0], seed=0),
        lambda returns: significance.stationary_bootstrap_interval(returns[:, 0], "sharpe", seed=0),
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


def test_numbers_are_checked() -> None:
    psr = significance.probabilistic_sharpe_ratio
    with pytest.raises(NotEnoughData, match="probabilistic Sharpe ratio: 1 periods, needed 2"):
        psr(0.1, 0.0, 1, **NORMAL)
    with pytest.raises(NonFiniteError, match="sharpe is nan"):
        psr(math.nan, 0.0, 100, **NORMAL, under="null")
    with pytest.raises(NonFiniteError, match="kurtosis is inf"):
        psr(0.1, 0.0, 100, 0.0, math.inf)
    with pytest.raises(ValueError, match=r"kurtosis is 0\.0, allowed 1 \+ skew\^2 = 1 or more; give it not as excess"):
        psr(0.1, 0.0, 100, 0.0, 0.0)
    with pytest.raises(ValueError, match="under is 'h0', allowed estimate or null"):
        psr(0.1, 0.0, 100, **NORMAL, under="h0")  # type: ignore[arg-type]
    # two values, 9 of 10 periods 0: 1 - g3 SR + (g4 - 1)/4 SR^2 = (1 - g3 SR / 2)^2
    with pytest.raises(NoVarianceError, match="its variance is 0"):
        psr(1.0, 0.0, 100, 2.0, 5.0)
    with pytest.raises(NotEnoughData, match="needed 2"):
        significance.sharpe_standard_error(0.1, 0, **NORMAL)


def test_trials_lengths_and_rates_are_checked() -> None:
    for trials in (0, 0.5, -3):
        with pytest.raises(ValueError, match=f"trials is {trials}, allowed 1 or more"):
            significance.expected_maximum_sharpe_ratio(trials, 1.0)
    with pytest.raises(NonFiniteError, match="trials is nan"):
        significance.deflated_sharpe_ratio(0.1, 100, **NORMAL, trials=math.nan, variance=0.1)
    with pytest.raises(ValueError, match=r"variance is -0\.1"):
        significance.expected_maximum_sharpe_ratio(10, -0.1)
    with pytest.raises(ValueError, match="sharpe is 0, allowed above 0"):
        significance.minimum_backtest_length(10, 0)
    with pytest.raises(ValueError, match=r"confidence is 0\.5, allowed above 0\.5 and below 1"):
        significance.minimum_track_record_length(0.1, 0.0, **NORMAL, confidence=0.5)
    assert significance.minimum_track_record_length(0.1, 0.1, **NORMAL) == math.inf
    with pytest.raises(ValueError, match=r"alternative is 0\.1, allowed above the benchmark, 0\.1"):
        significance.type_two_error(0.1, 0.1, 24, **NORMAL)
    with pytest.raises(ValueError, match="prior is 0"):
        significance.false_discovery_rate(0.0, 0.05, 0.2)
    with pytest.raises(ValueError, match=r"beta is 1\.2"):
        significance.false_discovery_rate(0.1, 0.05, 1.2)
    assert significance.false_discovery_rate(0.1, 0.05, 1.0) == 1.0
