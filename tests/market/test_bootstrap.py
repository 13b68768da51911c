"""Bootstrapped markets: valid bars with the moves of the original, no drift, short memory, and no edge after fees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sentio_rllib.errors import ConfigError
from sentio_rllib.market.bars import load_bars, write_bars
from sentio_rllib.market.bootstrap import block_bootstrap, resampled_rows
from sentio_rllib.market.checks import check_values
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.synthetic import SyntheticMarket, synthetic_market
from sentio_rllib.placebo.kinds import MEAN_BLOCK
from tests.strategies import irregular_bars, make_bars, session_minutes

VALUES = ("open", "high", "low", "close", "volume")


@pytest.fixture(scope="module")
def bars() -> Bars:
    """A full day, a half day and a full day, with a hole of 90 minutes in the last, which cuts it."""
    grid = session_minutes("2024-11-27", "2024-12-02")
    return make_bars(np.delete(grid, slice(700, 790)), seed=1)


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return synthetic_market(60_000, seed=3, edge=5e-5)


def openings(bars: Bars) -> NDArray[np.bool_]:
    """First bars of sessions and of what follows a cut."""
    first = np.zeros(bars.n, dtype=bool)
    first[np.unique(bars.sessions.session, return_index=True)[1]] = True
    first[bars.sessions.cuts] = True
    return first


def moves(bars: Bars) -> NDArray[np.float64]:
    """Factors from close to close, float64[T - 1], of the bars 1 .. T - 1."""
    return bars.close[1:] / bars.close[:-1]


@settings(max_examples=40, deadline=None)
@given(original=irregular_bars(), seed=st.integers(0, 2**63 - 1), mean_block=st.integers(1, 2_000))
def test_any_market_gives_valid_bars_on_its_own_stamps(original: Bars, seed: int, mean_block: int) -> None:
    made = block_bootstrap(original, seed=seed, mean_block=mean_block)
    assert check_values({name: getattr(made, name) for name in VALUES}, {}) == []
    np.testing.assert_array_equal(made.timestamp, original.timestamp)
    assert made.sessions is original.sessions
    assert (made.symbol, made.open[0]) == (original.symbol, original.open[0])
    again = block_bootstrap(original, seed=seed, mean_block=mean_block)
    assert again.fingerprint == made.fingerprint


def test_another_seed_is_another_market(bars: Bars) -> None:
    assert (
        len({block_bootstrap(bars, seed=seed, mean_block=30).fingerprint for seed in range(5)} | {bars.fingerprint})
        == 6
    )


def test_the_file_of_a_bootstrapped_market_loads_as_it_is(bars: Bars, tmp_path: Path) -> None:
    made = block_bootstrap(bars, seed=2, mean_block=30)
    loaded, report = load_bars(write_bars(made, tmp_path / "TEST.feather"))
    assert loaded.fingerprint == made.fingerprint
    assert report.missing_minutes == 90
    np.testing.assert_array_equal(loaded.sessions.session, bars.sessions.session)


def test_a_bar_is_a_whole_bar_of_its_kind(bars: Bars) -> None:
    made, rows = block_bootstrap(bars, seed=4, mean_block=30), resampled_rows(bars, seed=4, mean_block=30)
    first = openings(bars)
    assert first.sum() == 4
    np.testing.assert_array_equal(first[rows], first)
    np.testing.assert_array_equal(made.volume, bars.volume[rows])
    # wicks are the source's, but for what taking off the mean move of a session changes in the body
    np.testing.assert_allclose(made.high / made.open, (bars.high / bars.open)[rows], rtol=2e-4)
    np.testing.assert_allclose(made.low / made.open, (bars.low / bars.open)[rows], rtol=2e-4)
    later = np.flatnonzero(rows[1:] > 0) + 1
    gaps, sources = made.open[later] / made.close[later - 1], rows[later]
    np.testing.assert_allclose(gaps, bars.open[sources] / bars.close[sources - 1], rtol=1e-12)


def test_the_expected_move_of_every_bar_is_exactly_none(bars: Bars) -> None:
    move_of = np.full(bars.n, np.nan)
    for seed in range(60):
        made, rows = block_bootstrap(bars, seed=seed, mean_block=30), resampled_rows(bars, seed=seed, mean_block=30)
        move_of[rows[1:]] = moves(made)
    assert np.isfinite(move_of).all(), "every bar was drawn"
    first = openings(bars)
    assert move_of[first].mean() == pytest.approx(1.0, abs=1e-12)
    for session in range(3):
        assert move_of[~first & (bars.sessions.session == session)].mean() == pytest.approx(1.0, abs=1e-12)
    assert np.abs(moves(bars)[~first[1:]].mean() - 1.0) > 1e-6, "the original does drift"


def test_each_bar_of_a_kind_is_as_likely_as_any_other(bars: Bars) -> None:
    counts = np.zeros(bars.n)
    for seed in range(400):
        counts += np.bincount(resampled_rows(bars, seed=seed, mean_block=30), minlength=bars.n)
    # blocks of 30 make a count vary more than single draws do: 400 +- 6 deviations of 20
    assert counts.min() > 280
    assert counts.max() < 520


@pytest.mark.parametrize("mean_block", [1, 5, 30])
def test_blocks_have_the_mean_length_asked_for(market: SyntheticMarket, mean_block: int) -> None:
    rows = resampled_rows(market.bars, seed=1, mean_block=mean_block)
    first = openings(market.bars)
    place = np.cumsum(~first) - 1  # among the bars that open nothing
    step = np.diff(place[rows[~first]])
    assert (step == 1).mean() == pytest.approx(1 - 1 / mean_block, abs=0.005)


def test_volatility_and_its_clusters_stay_within_a_block_and_end_with_it(market: SyntheticMarket) -> None:
    made = block_bootstrap(market.bars, seed=5, mean_block=30)
    assert moves(made).std() == pytest.approx(moves(market.bars).std(), rel=0.03)

    def memory(bars: Bars, lags: range) -> float:
        size = np.abs(moves(bars) - 1.0)
        return float(np.mean([np.corrcoef(size[lag:], size[:-lag])[0, 1] for lag in lags]))

    assert memory(made, range(1, 10)) > 0.7 * memory(market.bars, range(1, 10)) > 0.1
    assert memory(market.bars, range(150, 180)) > 0.05
    assert abs(memory(made, range(150, 180))) < 0.01


@pytest.mark.parametrize(
    ("edge", "fee_rate", "mean_block"),
    [(5e-5, 1e-3, MEAN_BLOCK), (3e-5, 2e-4, 15)],
    ids=["the defaults", "configs/placebo.yaml"],
)
def test_who_sees_the_regime_of_each_bar_at_once_gains_by_it_but_not_after_fees(
    edge: float, fee_rate: float, mean_block: int
) -> None:
    def gains(bars: Bars, regime: NDArray[np.int8]) -> tuple[float, float]:
        """Mean gain of timing per decision, before and after fees, deciding every 15 bars, filled one later."""
        decisions = np.arange(0, bars.n - 15, 15)
        position = regime[decisions].astype(float)
        prices = bars.open[np.append(decisions + 1, decisions[-1] + 15)]
        timing = (position - position.mean()) * (prices[1:] / prices[:-1] - 1)
        fees = fee_rate * np.abs(np.diff(position, prepend=0.0))
        return float(timing.mean()), float((timing - fees).mean())

    planted = synthetic_market(60_000, seed=3, edge=edge)
    before, after = gains(planted.bars, planted.regime)
    assert after > 0.5 * before > 0, "the original has an edge to find"
    nets = []
    for seed in range(20):
        rows = resampled_rows(planted.bars, seed=seed, mean_block=mean_block)
        made = block_bootstrap(planted.bars, seed=seed, mean_block=mean_block)
        left, net = gains(made, planted.regime[rows])
        assert left < 0.5 * before
        nets.append(net)
    assert max(nets) < 0


def test_a_single_session_and_single_bars_are_markets_too() -> None:
    one = make_bars(session_minutes("2024-11-29", "2024-11-29"), seed=6)
    rows = resampled_rows(one, seed=1, mean_block=30)
    assert rows[0] == 0, "the only bar that opens a session"
    assert len(set(rows[1:].tolist())) > 50
    apart = make_bars(session_minutes("2024-11-27", "2024-12-02")[[0, 390, 600]], seed=7)
    made = block_bootstrap(apart, seed=1, mean_block=30)
    assert set(resampled_rows(apart, seed=1, mean_block=30)) <= {0, 1, 2}
    assert np.isfinite(made.close).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 0, "mean_block": 0}, "mean_block: 0, allowed whole numbers of bars >= 1"),
        ({"seed": -1}, "seed: -1, allowed whole numbers >= 0"),
    ],
)
def test_values_out_of_range_are_refused(bars: Bars, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        block_bootstrap(bars, **{"mean_block": 30} | arguments)
