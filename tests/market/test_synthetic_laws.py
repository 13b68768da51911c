"""Laws of a synthetic market that are asked for: how volatile it is, what being long earns, and luck or none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sentio_rllib.errors import ConfigError
from sentio_rllib.market.features import volatility as trailing_volatility
from sentio_rllib.market.report import usual_volatility
from sentio_rllib.market.synthetic import SyntheticMarket, synthetic_market

BARS, EDGE = 20_000, 1e-4


def body_of(market: SyntheticMarket) -> NDArray[np.float64]:
    """Log returns from each bar's open to its close."""
    return np.asarray(np.log(market.bars.close / market.bars.open))


def log_growth(market: SyntheticMarket) -> float:
    return math.log(float(market.bars.close[-1] / market.bars.open[0]))


def open_to_open(market: SyntheticMarket) -> NDArray[np.float64]:
    return np.asarray(np.diff(np.log(np.append(market.bars.open, market.bars.close[-1]))))


@pytest.mark.parametrize("edge", [0.0, 1e-4])
def test_volatility_is_a_multiple_of_the_same_moves(edge: float) -> None:
    one, three = (synthetic_market(BARS, seed=2, edge=edge, volatility=scale) for scale in (1.0, 3.0))
    rms = [float(np.sqrt(np.mean(np.square(body_of(market))))) for market in (one, three)]
    assert rms[1] == pytest.approx(3.0 * rms[0], rel=2e-2 if edge else 1e-3)
    assert usual_volatility(three.bars) == pytest.approx(3.0 * usual_volatility(one.bars), rel=2e-2)
    np.testing.assert_array_equal(one.regime, three.regime)
    assert np.corrcoef(body_of(one), body_of(three))[0, 1] > 0.99
    # where a policy reads it as well
    seen = [float(np.median(trailing_volatility(market.bars.close)[390:])) for market in (one, three)]
    assert seen[1] == pytest.approx(3.0 * seen[0], rel=2e-2)
    gaps = [np.log(market.bars.open[1:] / market.bars.close[:-1]) for market in (one, three)]
    assert np.sqrt(np.mean(gaps[1] ** 2) / np.mean(gaps[0] ** 2)) == pytest.approx(3.0, rel=1e-2)


@pytest.mark.parametrize("drift", [3e-6, -2e-5])
@pytest.mark.parametrize("edge", [0.0, EDGE])
def test_drift_is_earned_at_every_bar(drift: float, edge: float) -> None:
    plain, drifting = (synthetic_market(BARS, seed=7, edge=edge, drift=each) for each in (0.0, drift))
    assert log_growth(drifting) - log_growth(plain) == pytest.approx(drift * BARS, abs=1e-9)
    np.testing.assert_allclose(body_of(drifting) - body_of(plain), drift, rtol=0.0, atol=1e-12)
    # the regimes earn what they did, and the drift besides
    if edge:
        bull = plain.regime == 1
        assert open_to_open(drifting)[bull].mean() == pytest.approx(edge + drift, rel=1e-6)
        assert log_growth(plain) == pytest.approx(0.0, abs=1e-9)


def deviations(seed: int, *, recentre: bool) -> NDArray[np.float64]:
    """How far the mean returns of bull and bear lie from the edge, and from minus it, in their standard errors."""
    market = synthetic_market(BARS, seed=seed, edge=EDGE, recentre=recentre)
    found = []
    for regime, mean in ((1, EDGE), (0, -EDGE)):
        returns = open_to_open(market)[market.regime == regime]
        found.append((returns.mean() - mean) / (returns.std() / math.sqrt(returns.size)))
    return np.array(found)


def test_recentred_noise_leaves_exactly_the_edge() -> None:
    for seed in range(5):
        np.testing.assert_allclose(deviations(seed, recentre=True), 0.0, rtol=0.0, atol=1e-6)


def test_noise_as_found_leaves_the_edge_up_to_luck() -> None:
    found = np.array([deviations(seed, recentre=False) for seed in range(40)])
    # 80 means, each off by its own noise: about a standard error, and nought on average
    assert np.abs(found).min() > 1e-4
    assert 0.7 < found.std() < 1.3
    assert abs(found.mean()) < 4 / math.sqrt(found.size)


def test_without_an_edge_there_is_nothing_to_recentre() -> None:
    prints = {synthetic_market(BARS, seed=1, edge=0.0, recentre=each).bars.fingerprint for each in (True, False)}
    assert len(prints) == 1


@pytest.mark.parametrize("law", [{"drift": 1.1e-3}, {"drift": math.nan}, {"volatility": 0.0}, {"volatility": math.inf}])
def test_laws_out_of_range_are_refused(law: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"allowed -0\.001 \.\. 0\.001 a bar, and above 0"):
        synthetic_market(1_000, **law)


def test_with_a_memory_the_order_of_calm_and_volatile_halves_tells_a_later_regime() -> None:
    length, memory = 60, 420
    market = synthetic_market(120_000, seed=4, edge=0.0, regime_bars=length, memory=memory)
    body = np.log(market.bars.close / market.bars.open)
    regime, stretches = market.regime, market.bars.n // length - (memory // length + 2)
    told, own = [], []
    for number in range(stretches):
        start = number * length
        first, second = (np.abs(body[start + half : start + half + length // 2]).mean() for half in (0, length // 2))
        later = regime[start + length + memory]
        assert (regime[start + length + memory : start + 2 * length + memory] == later).all()
        told.append((first < second) == (later == 1))
        own.append((first < second) == (regime[start] == 1))
    assert np.mean(told) > 0.97  # calm first: a bull
    assert 0.45 < np.mean(own) < 0.55
    assert 0.45 < regime.mean() < 0.55
    volatility = [body[regime == state].std() for state in (0, 1)]
    assert volatility[0] == pytest.approx(volatility[1], rel=0.05)


def test_no_memory_is_the_market_of_before_and_a_wrong_one_is_refused() -> None:
    plain, none = synthetic_market(3_000, seed=1), synthetic_market(3_000, seed=1, memory=0)
    assert plain.bars.fingerprint == none.bars.fingerprint
    wrong: Any
    for wrong in (-1, 1.5, True):
        with pytest.raises(ConfigError, match="memory"):
            synthetic_market(3_000, memory=wrong)
