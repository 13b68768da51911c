"""Significance: published values, agreement with purgedcv and arch, properties, and the edges.

Reference values, per period unless said: Bailey and Lopez de Prado 2012 and 2014; Lopez de Prado, Lipton and
Zoonekynd 2025.
"""

from __future__ import annotations

import math

import numpy as np
import purgedcv
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from sentio_rllib.errors import NonFiniteError, SentioError
from sentio_rllib.statistics import metrics, significance
from sentio_rllib.statistics.inputs import NotEnoughDataError, NoVarianceError
from tests.statistics.noise import NORMAL

HEDGE_FUND = {"skew": -2.448, "kurtosis": 10.164}
"""Monthly returns with mean 0.036 and deviation 0.079, T = 24, the example of the papers."""

MONTHLY = 0.036 / 0.079

sharpes = st.floats(-0.5, 0.5)

lengths = st.integers(2, 5000)

skews = st.floats(-2.0, 2.0)

tails = st.floats(0.5, 20.0)
"""Kurtosis above its least, 1 + skew^2."""

unders = st.sampled_from(["estimate", "null"])


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
    # products of neighbours 1, 1, -3, over a sum of squares of 12
    assert moments == pytest.approx((1 / 2, 6 / 3**1.5, 21 / 9, -1 / 12))
    assert moments.sharpe == pytest.approx(metrics.sharpe(np.array([0.0, 0.0, 0.0, 4.0]), 1))


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


def test_moments_refuse_what_has_none() -> None:
    with pytest.raises(NotEnoughDataError, match="1 periods, needed 4 or more") as error:
        significance.sharpe_moments(np.array([0.1]))
    assert (error.value.statistic, error.value.needed, error.value.available) == (
        "Sharpe ratio with its moments",
        4,
        1,
    )
    assert isinstance(error.value, SentioError)
    with pytest.raises(NotEnoughDataError, match="0 periods"):
        significance.sharpe_moments(np.empty(0))
    for value in (0.0, 0.1):
        with pytest.raises(NoVarianceError, match=f"all 50 are {value:g}"):
            significance.sharpe_moments(np.full(50, value))


def test_numbers_are_checked() -> None:
    psr = significance.probabilistic_sharpe_ratio
    with pytest.raises(NotEnoughDataError, match="probabilistic Sharpe ratio: 1 periods, needed 2"):
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
    with pytest.raises(NotEnoughDataError, match="needed 2"):
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


def test_the_standard_error_of_autoregressive_returns_is_theirs() -> None:
    """Against money: the spread of the Sharpe ratios of many made records, 3% exactly measured."""
    random, rho, periods = np.random.default_rng(1), 0.3, 400
    noise = random.standard_normal((6_000, periods))
    returns = np.empty_like(noise)
    returns[:, 0] = noise[:, 0]
    for period in range(1, periods):
        returns[:, period] = rho * returns[:, period - 1] + math.sqrt(1 - rho**2) * noise[:, period]
    returns += 0.15
    found = (returns.mean(1) / returns.std(1, ddof=1)).std()
    told = significance.sharpe_standard_error(0.15, periods, 0.0, 3.0, rho)
    assert told == pytest.approx(found, rel=0.03)
    assert significance.sharpe_standard_error(0.15, periods, 0.0, 3.0) < 0.8 * found  # as if they were independent


@pytest.mark.parametrize(("trials", "periods"), [(1.0, 250), (34.0, 900), (10.0, 107)])
def test_the_least_supported_sharpe_ratio_is_where_the_deflated_one_reaches_it(trials: float, periods: int) -> None:
    least = significance.least_supported_sharpe_ratio(trials, periods, confidence=0.95)
    shared = {"trials": trials, "variance": 1 / periods, "under": "null"}
    assert significance.deflated_sharpe_ratio(least, periods, 0.0, 3.0, **shared) == pytest.approx(0.95)
    assert significance.deflated_sharpe_ratio(0.99 * least, periods, 0.0, 3.0, **shared) < 0.95
