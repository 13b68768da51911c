"""Backtest overfitting and effective trials: against purgedcv, by hand, and on noise."""

from __future__ import annotations

import math

import numpy as np
import purgedcv
import pytest

from sentio_rllib.statistics import overfitting
from sentio_rllib.statistics.inputs import NotEnoughDataError, NoVarianceError
from tests.statistics.noise import noise


@pytest.mark.parametrize(("periods", "trials", "blocks"), [(480, 20, 8), (101, 6, 6), (40, 9, 4), (60, 7, 2)])
def test_overfitting_agrees_with_purgedcv(periods: int, trials: int, blocks: int) -> None:
    returns = 1.0 + 100.0 * noise(periods, periods, trials)
    returns[:, 1] = 0.0  # a trial that never traded
    own = overfitting.probability_of_backtest_overfitting(returns, blocks)
    other = purgedcv.probability_of_backtest_overfitting(returns.T, blocks)
    # theirs enumerates the half out of sample
    np.testing.assert_allclose(own.logits, other.logits[::-1], atol=1e-9)
    assert own.slope == pytest.approx(other.slope, rel=1e-6)
    # theirs does not count the very median
    assert own.pbo == pytest.approx(other.pbo + 0.5 * np.mean(np.abs(other.logits) < 1e-9))
    assert own.loss_probability == np.mean(other.is_oos_performance[:, 1] < 0.0)


def test_overfitting_of_noise_is_a_half_on_average_only() -> None:
    pbo = [overfitting.probability_of_backtest_overfitting(noise(seed, 480, 20), 8).pbo for seed in range(100)]
    assert np.mean(pbo) == pytest.approx(0.48, abs=0.05)
    assert np.std(pbo) == pytest.approx(0.21, abs=0.04)


def test_overfitting_with_one_good_trial_is_small() -> None:
    for seed in range(5):
        returns = noise(seed, 480, 20)
        returns[:, 3] += 0.3
        found = overfitting.probability_of_backtest_overfitting(returns)
        assert found.pbo < 0.02
        assert found.loss_probability < 0.02
        assert found.logits.shape == (math.comb(16, 8),)


def test_overfitting_by_hand() -> None:
    # Sharpe ratios of the two halves: (1.5, 0.5), (0.5, 1.5) up to a factor: the best of either half loses
    rise, fall = np.array([1.0, 2.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 2.0])
    found = overfitting.probability_of_backtest_overfitting(np.stack([rise, fall], axis=1), 2)
    assert found.pbo == 1.0
    np.testing.assert_allclose(found.logits, [-math.log(2)] * 2)
    assert found.slope == 0.0


def test_ties_do_not_depend_on_the_order_of_trials() -> None:
    returns = np.repeat(noise(0, 120, 3), 4, axis=1)
    same = overfitting.probability_of_backtest_overfitting(returns[:, :4], 6)
    assert same.pbo == 0.5
    assert not same.logits.any()
    flat = np.concatenate((np.zeros((120, 3)), -np.abs(noise(1, 120, 3))), axis=1)
    for order in (slice(None), slice(None, None, -1)):
        assert overfitting.probability_of_backtest_overfitting(flat[:, order], 6).pbo == 0.0
    left = overfitting.probability_of_backtest_overfitting(returns, 6)
    right = overfitting.probability_of_backtest_overfitting(np.ascontiguousarray(returns[:, ::-1]), 6)
    np.testing.assert_allclose(left.logits, right.logits)


def test_overfitting_refuses_what_cannot_be_halved() -> None:
    returns = noise(0, 12, 3)
    for blocks in (0, 3, 22):
        with pytest.raises(ValueError, match=f"blocks is {blocks}, allowed even"):
            overfitting.probability_of_backtest_overfitting(returns, blocks)
    with pytest.raises(NotEnoughDataError, match="12 periods, needed 14") as error:
        overfitting.probability_of_backtest_overfitting(returns, 14)
    assert (error.value.needed, error.value.available) == (14, 12)
    with pytest.raises(NotEnoughDataError, match="3 periods, needed 4"):
        overfitting.probability_of_backtest_overfitting(returns[:3], 2)
    with pytest.raises(NotEnoughDataError, match="1 trials, needed 2"):
        overfitting.probability_of_backtest_overfitting(returns[:, :1], 4)
    with pytest.raises(NoVarianceError, match="none of the 3"):
        overfitting.probability_of_backtest_overfitting(np.full((12, 3), 0.1), 4)


def test_effective_trials_of_copies_and_of_independent_trials() -> None:
    base = noise(1, 500, 30)
    assert overfitting.effective_trials(base[:, :1]) == 1.0
    assert overfitting.effective_trials(np.repeat(base[:, :1], 9, axis=1)) == 1.0
    assert overfitting.effective_trials(base) == pytest.approx(30.0, abs=1.0)
    sizes = [1, 12, 3, 5]
    copies = np.repeat(base[:, :4], sizes, axis=1) * np.linspace(0.5, 2.0, 21)
    assert overfitting.effective_trials(copies) == pytest.approx(4.0)
    assert overfitting.effective_trials(copies + 0.05 * noise(2, 500, 21)) == pytest.approx(4.0)
    assert overfitting.effective_trials(copies[:, ::-1].copy()) == pytest.approx(4.0)


def test_effective_trials_fall_with_correlation_and_count_flat_ones_once() -> None:
    common, own = noise(3, 500, 1), noise(4, 500, 20)
    counts = [
        overfitting.effective_trials(math.sqrt(rho) * common + math.sqrt(1 - rho) * own)
        for rho in (0.0, 0.3, 0.6, 0.9, 1.0)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1.0
    assert counts[2] > 5.0
    flat = np.concatenate((own, np.zeros((500, 4)), np.full((500, 2), 0.1)), axis=1)
    assert overfitting.effective_trials(flat) == overfitting.effective_trials(own) + 1.0
    assert overfitting.effective_trials(np.zeros((500, 3))) == 1.0
    mirrored = np.concatenate((common, -common), axis=1)
    assert overfitting.effective_trials(mirrored) == 2.0


def test_effective_trials_need_periods_and_a_trial() -> None:
    with pytest.raises(NotEnoughDataError, match="3 periods, needed 4"):
        overfitting.effective_trials(noise(0, 3, 5))
    with pytest.raises(NotEnoughDataError, match="0 trials, needed 1"):
        overfitting.effective_trials(np.empty((9, 0)))
