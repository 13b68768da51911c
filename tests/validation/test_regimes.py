"""Labels fitted on training segments alone, and what is earned, traded and lost under each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentio_rllib.errors import NonFiniteError
from sentio_rllib.market.feature_set import MULTISCALE, REGIME_FEATURES
from sentio_rllib.market.tape import Tape
from sentio_rllib.statistics.metrics import max_drawdown
from sentio_rllib.validation.regimes import MAX_FIT_ROWS, attribute, fit_regimes
from sentio_rllib.validation.splits import Range, Splits

NAMES = list(MULTISCALE.names)
COLUMNS = [NAMES.index(name) for name in REGIME_FEATURES]
LEVEL = NAMES.index("volatility_level")
T = 6_000
TRAIN = (Range(0, 2_000), Range(3_500, 5_000))


def noise(seed: int, bars: int = T) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.3, (bars, len(NAMES))).astype(np.float32)


def planted(seed: int, bars: int = T) -> tuple[np.ndarray, np.ndarray]:
    """Features of two regimes, the volatile one falling, and the regime of each bar."""
    regime = (np.arange(bars) // 400) % 2
    features = noise(seed, bars)
    features[regime == 1, LEVEL] += 1.2
    features[regime == 1, NAMES.index("return_390")] -= 0.8
    return features, regime


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_regime_is_recovered_and_the_calm_one_comes_first(seed: int) -> None:
    features, regime = planted(seed)
    labels = fit_regimes(features, TRAIN, seed=seed)
    assert labels.dtype == np.int8
    assert labels.shape == (T,)
    assert np.mean(labels == regime) > 0.95


def test_labels_ascend_in_volatility() -> None:
    features = noise(1)
    features[:, LEVEL] += np.repeat([2.0, -2.0, 0.0], T // 3)
    labels = fit_regimes(features, [Range(0, T)], regimes=3, seed=0)
    assert [labels[at] for at in (500, 2_500, 4_500)] == [2, 0, 1]
    assert np.all(np.diff([features[labels == each, LEVEL].mean() for each in range(3)]) > 1.0)


def test_only_training_segments_are_read() -> None:
    features, _ = planted(3)
    inside = np.concatenate([np.arange(each.start, each.stop) for each in TRAIN])
    outside = np.setdiff1d(np.arange(T), inside)
    changed = features.copy()
    changed[outside] = 4.0 * noise(9)[outside] - 1.0
    labels, others = fit_regimes(features, TRAIN, seed=0), fit_regimes(changed, TRAIN, seed=0)
    assert others[inside].tolist() == labels[inside].tolist()
    assert others[outside].tolist() != labels[outside].tolist()
    # a bar outside is labelled as a bar inside with the same features would be
    changed[outside[:2_000]] = features[inside[:2_000]]
    assert fit_regimes(changed, TRAIN, seed=0)[outside[:2_000]].tolist() == labels[inside[:2_000]].tolist()


def test_only_the_regime_features_are_read() -> None:
    features, _ = planted(5)
    changed = noise(6)
    changed[:, COLUMNS] = features[:, COLUMNS]
    assert fit_regimes(changed, TRAIN, seed=0).tolist() == fit_regimes(features, TRAIN, seed=0).tolist()


def test_the_same_seed_labels_alike_and_long_training_is_thinned_evenly() -> None:
    bars = 3 * MAX_FIT_ROWS
    features, regime = planted(7, bars)
    features[: bars // 2, LEVEL] = features[0, LEVEL]  # the first 20,000 rows alone would show one level
    labels = fit_regimes(features, [Range(0, bars)], seed=1)
    assert labels.tolist() == fit_regimes(features, [Range(0, bars)], seed=1).tolist()
    assert np.mean(labels[bars // 2 :] == regime[bars // 2 :]) > 0.95


@pytest.mark.parametrize("distinct", [1, 2])
def test_fewer_distinct_rows_than_regimes_are_one_regime(distinct: int) -> None:
    features = noise(0)[np.arange(T) % distinct]
    labels = fit_regimes(features, TRAIN, regimes=3, seed=0)
    assert labels.tolist() == [0] * T
    assert fit_regimes(features, [Range(7, 8)], seed=0).tolist() == [0] * T


def test_nearly_degenerate_features_are_labelled_without_a_warning() -> None:
    features, regime = planted(2)
    features[:, NAMES.index("return_30")] = 0.25
    assert np.mean(fit_regimes(features, TRAIN, seed=0) == regime) > 0.95
    two_rows = np.zeros((T, len(NAMES)), dtype=np.float32)
    two_rows[::2, LEVEL] = 1e-6
    assert fit_regimes(two_rows, TRAIN, seed=0).tolist() == [1, 0] * (T // 2)
    three_rows = two_rows.copy()
    three_rows[0, LEVEL] = np.nextafter(np.float32(1e-6), np.float32(1.0))
    assert set(fit_regimes(three_rows, TRAIN, regimes=3, seed=0)) <= {0, 1, 2}


def test_one_regime_is_the_whole_market() -> None:
    assert not fit_regimes(noise(0), TRAIN, regimes=1, seed=0).any()


def test_the_planted_market_is_told_apart_by_its_volatility(small_tape: Tape, small_splits: Splits) -> None:
    for fold in small_splits.folds:
        labels = fit_regimes(small_tape.features, fold.train, seed=fold.index)
        calm, wild = (small_tape.volatility[labels == each].mean() for each in (0, 1))
        assert wild > 1.2 * calm


def test_a_fit_refuses_what_it_cannot_use() -> None:
    features = noise(0)
    with pytest.raises(TypeError, match="float32"):
        fit_regimes(features.astype(np.float64), TRAIN, seed=0)
    with pytest.raises(ValueError, match="4 market features: no set"):
        fit_regimes(features[:, :4], TRAIN, seed=0)
    with pytest.raises(ValueError, match="regimes is 0"):
        fit_regimes(features, TRAIN, regimes=0, seed=0)
    with pytest.raises(ValueError, match="no bars"):
        fit_regimes(features, [Range(5, 5)], seed=0)
    with pytest.raises(ValueError, match="leaves the 6000 bars"):
        fit_regimes(features, [Range(5_000, T + 1)], seed=0)
    features[3, LEVEL] = np.nan
    with pytest.raises(NonFiniteError, match="features"):
        fit_regimes(features, TRAIN, seed=0)


def test_attribution_by_hand() -> None:
    labels = np.array([0, 1, 1, 0, 1, 0], dtype=np.int8)
    # equity 1, 1.1, 0.99, 1.089, 0.8712, 0.9583: from 1.1 down to 0.8712
    returns = np.array([0.1, -0.1, 0.1, -0.2, 0.1])
    found = attribute(returns, np.arange(1, 6), np.array([0, 2, 4]), labels, 2)
    assert found.bars.tolist() == [2, 3]  # returns of bars 1 and 4 follow label 0
    # 1.1 * 0.8 of the money after label 0, 0.9 * 1.1 * 1.1 of it after label 1
    assert found.log_return.tolist() == pytest.approx(np.log([0.88, 1.089]).tolist())
    assert found.trades.tolist() == [1, 2]
    fall = np.log(0.8712 / 1.1)
    assert found.drawdown_share.tolist() == pytest.approx([np.log(0.8) / fall, np.log(0.9 * 1.1) / fall])


def test_blocks_are_chained_and_a_loss_of_the_first_bar_counts() -> None:
    labels = np.array([0, 0, 0, 1, 1], dtype=np.int8)
    found = attribute(np.array([-0.1, -0.1]), np.array([1, 4]), np.zeros(0, dtype=np.int64), labels, 3)
    assert found.drawdown_share.tolist() == pytest.approx([0.5, 0.5, 0.0])
    assert found.trades.tolist() == [0, 0, 0]


def test_without_a_fall_no_regime_has_a_share_of_it() -> None:
    labels = np.zeros(4, dtype=np.int8)
    for returns in (np.zeros(3), np.array([0.1, 0.0, 0.2])):
        found = attribute(returns, np.arange(1, 4), np.array([1]), labels, 2)
        assert found.drawdown_share.tolist() == [0.0, 0.0]


@given(seed=st.integers(0, 10_000), regimes=st.integers(1, 4))
def test_the_parts_add_up(seed: int, regimes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, regimes, 300, dtype=np.int8)
    bars = np.sort(rng.choice(np.arange(1, 300), 200, replace=False))
    returns = rng.normal(0.0, 0.01, 200)
    trades = rng.integers(0, 300, 30)
    found = attribute(returns, bars, trades, labels, regimes)
    assert found.bars.sum() == 200
    money = 1.0
    for each in returns:
        money *= 1.0 + each
    assert found.log_return.sum() == pytest.approx(np.log(money), abs=1e-12)
    assert found.trades.sum() == 30
    assert found.drawdown_share.sum() == pytest.approx(1.0)
    # the fall that is divided is the maximum drawdown: alone in a regime, its returns compound to it
    equity = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
    trough = int(np.argmax(1.0 - equity / np.maximum.accumulate(equity)))
    peak = int(np.argmax(equity[:trough]))
    labels[:] = 0
    labels[bars[peak:trough] - 1] = 1
    inside = attribute(returns, bars, trades, labels, 2)
    assert inside.drawdown_share.tolist() == [0.0, 1.0]
    assert 1.0 - np.prod(1.0 + returns[peak:trough]) == pytest.approx(max_drawdown(equity))


def test_an_attribution_refuses_what_does_not_fit() -> None:
    returns, bars, none = np.zeros(2), np.array([1, 2]), np.zeros(0, dtype=np.int64)
    labels = np.array([0, 1, 0], dtype=np.int8)
    with pytest.raises(TypeError, match="bar_returns must be a float64"):
        attribute(returns.astype(np.float32), bars, none, labels, 2)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ValueError, match="rank 2"):
        attribute(returns, bars, none, labels[None], 2)
    with pytest.raises(ValueError, match=r"bars has shape \(1,\)"):
        attribute(returns, bars[:1], none, labels, 2)
    with pytest.raises(ValueError, match=r"bars spans 0 \.\. 1, allowed 1 \.\. 2"):
        attribute(returns, bars - 1, none, labels, 2)
    with pytest.raises(ValueError, match=r"trade_bars spans 3 \.\. 3"):
        attribute(returns, bars, np.array([3]), labels, 2)
    with pytest.raises(ValueError, match=r"labels span 0 \.\. 1, allowed 0 \.\. 0"):
        attribute(returns, bars, none, labels, 1)
    for bad in (np.nan, -1.0):
        with pytest.raises(NonFiniteError, match="bar_returns"):
            attribute(np.array([0.0, bad]), bars, none, labels, 2)
