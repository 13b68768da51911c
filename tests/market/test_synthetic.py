"""Synthetic markets: the edge, its balance and strength, the martingale, stylised facts, what can be seen."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sentio_rllib.errors import BarsError, ConfigError
from sentio_rllib.market import synthetic
from sentio_rllib.market.features import volatility
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.oracle import oracle_actions, skill
from sentio_rllib.market.sessions import MINUTE_NS, assign_sessions
from sentio_rllib.market.synthetic import (
    SyntheticMarket,
    session_grid,
    synthetic_market,
)

Floats = NDArray[np.float64]
EDGE = 2e-5
BLOCKS = (90_001, 176_000, 176_390, 264_000, 352_000)
INTERVAL, FEE, POSITION = 15, 0.001, 0.95


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    """4.5 years with an edge."""
    return synthetic_market(seed=1, boundaries=BLOCKS)


@pytest.fixture(scope="module")
def null() -> SyntheticMarket:
    """4.5 years without an edge."""
    return synthetic_market(seed=1, edge=0.0, boundaries=BLOCKS)


def open_returns(bars: Bars) -> Floats:
    """Log returns float64[T] from each open to the next, of the last bar to its close."""
    log_open = np.log(np.append(bars.open, bars.close[-1]))
    return np.asarray(np.diff(log_open))


def sections(n: int, boundaries: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(pairwise(sorted({0, n, *boundaries})))


def in_session(bars: Bars) -> Floats:
    """Open-to-open log returns, NaN where the market closes in between."""
    returns = open_returns(bars)
    returns[bars.sessions.last] = np.nan
    return returns


def autocorrelation(values: Floats, lag: int) -> float:
    one, other = values[:-lag], values[lag:]
    known = np.isfinite(one) & np.isfinite(other)
    return float(np.corrcoef(one[known], other[known])[0, 1])


# --- the grid ---------------------------------------------------------------------------------------------


def test_the_grid_holds_every_regular_minute() -> None:
    stamps = session_grid(440_000)
    assert stamps.dtype == np.int64
    assert stamps.size == 440_000
    assert np.datetime64(int(stamps[0]), "ns") == np.datetime64("2020-01-02T14:30")
    sessions, regular = assign_sessions(stamps)
    assert regular.all()
    assert sessions.cuts.size == 0
    whole = sessions.slice(0, int(np.flatnonzero(sessions.last)[-2]) + 1)
    assert whole.missing_minutes == 0
    halves = np.unique(sessions.session[sessions.length == 210])
    early = ["2020-11-27", "2020-12-24", "2021-11-26", "2022-11-25", "2023-07-03", "2023-11-24"]
    np.testing.assert_array_equal(sessions.labels[halves], np.array(early, dtype="datetime64[D]"))


def test_a_longer_grid_continues_a_shorter_one() -> None:
    np.testing.assert_array_equal(session_grid(30_000)[:1_000], session_grid(1_000))


def test_the_grid_starts_at_the_first_session_from_the_date_on() -> None:
    first = session_grid(1, start="2021-07-03")[0]
    assert np.datetime64(int(first), "ns") == np.datetime64("2021-07-06T13:30")


def test_a_calendar_that_never_closes() -> None:
    market = synthetic_market(5_000, calendar="24/7", boundaries=(2_500,))
    assert (np.diff(market.bars.timestamp) == MINUTE_NS).all()
    assert np.abs(open_returns(market.bars)).max() < 0.02  # no gap where no hour is closed


def test_a_calendar_with_a_lunch_break() -> None:
    stamps = session_grid(1_000, calendar="XHKG")
    sessions, regular = assign_sessions(stamps, "XHKG")
    assert regular.all()
    assert sessions.cuts.size == 0


@pytest.mark.parametrize("n_bars", [0, -3, 2.5, True])
def test_a_wrong_number_of_bars_is_refused(n_bars: int) -> None:
    with pytest.raises(ConfigError, match="n_bars"):
        session_grid(n_bars)


def test_an_unknown_calendar_is_refused() -> None:
    with pytest.raises(BarsError, match="XNYS"):
        session_grid(10, calendar="XNYZ")


# --- seeds ------------------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_market() -> None:
    one, two = (synthetic_market(20_000, seed=7, boundaries=(9_000,)) for _ in range(2))
    assert one.bars.fingerprint == two.bars.fingerprint
    np.testing.assert_array_equal(one.regime, two.regime)
    other = synthetic_market(20_000, seed=8, boundaries=(9_000,))
    assert other.bars.fingerprint != one.bars.fingerprint
    assert (other.regime != one.regime).any()


def test_the_order_of_boundaries_and_their_repetition_do_not_matter() -> None:
    one = synthetic_market(5_000, boundaries=(0, 2_000, 3_000, 5_000))
    two = synthetic_market(5_000, boundaries=(3_000, 2_000, 3_000))
    assert one.bars.fingerprint == two.bars.fingerprint


def test_the_first_regime_is_bull_or_bear_by_chance() -> None:
    first = [int(synthetic_market(4_000, seed=seed).regime[0]) for seed in range(40)]
    assert 8 <= sum(first) <= 32


# --- the planted edge -------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(2, 3_000),
    regime_bars=st.sampled_from([1, 20, 780]),
    shares=st.lists(st.floats(0, 1), max_size=4),
    edge=st.sampled_from([0.0, EDGE, 1e-3]),
)
def test_every_market_is_one(seed: int, n: int, regime_bars: int, shares: list[float], edge: float) -> None:
    boundaries = tuple(int(share * n) for share in shares)
    market = synthetic_market(n, seed=seed, edge=edge, regime_bars=regime_bars, boundaries=boundaries)
    bars = market.bars
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    assert all(column.shape == (n,) and column.dtype == np.float64 for column in columns)
    assert all(np.isfinite(column).all() for column in columns)
    assert (bars.low > 0).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.volume >= 1).all()
    assert (bars.volume == np.rint(bars.volume)).all()
    assert market.regime.dtype == np.int8
    assert set(np.unique(market.regime)) <= {0, 1}
    returns = open_returns(bars)
    for start, stop in sections(n, boundaries):
        bulls = int(market.regime[start:stop].sum())
        assert abs(2 * bulls - (stop - start)) <= 1
        if edge:
            assert abs(returns[start:stop].sum()) < 1e-9


def test_the_edge_has_its_strength_in_every_section_and_regime(market: SyntheticMarket) -> None:
    returns = open_returns(market.bars)
    for start, stop in sections(market.bars.n, BLOCKS):
        part, bull = returns[start:stop], market.regime[start:stop] == 1
        odd = EDGE / (stop - start)
        assert part[bull].mean() == pytest.approx(EDGE, abs=1.01 * odd)
        assert part[~bull].mean() == pytest.approx(-EDGE, abs=1.01 * odd)


def test_always_long_earns_nothing_in_any_section(market: SyntheticMarket) -> None:
    bars = market.bars
    for start, stop in sections(bars.n, BLOCKS):
        assert math.log(bars.close[stop - 1] / bars.open[start]) == pytest.approx(0, abs=1e-9)
        before = bars.close[start - 1] if start else bars.open[0]
        assert math.log(bars.close[stop - 1] / before) == pytest.approx(0, abs=1e-9)


def test_without_boundaries_the_tape_is_one_section() -> None:
    market = synthetic_market(10_000, seed=3)
    assert market.regime.sum() == 5_000
    assert abs(open_returns(market.bars).sum()) < 1e-9
    assert abs(open_returns(market.bars)[:5_000].sum()) > 1e-3


def test_regimes_last_as_long_as_asked_and_vary(market: SyntheticMarket) -> None:
    durations = np.diff(np.flatnonzero(np.diff(market.regime)))
    assert durations.mean() == pytest.approx(780, rel=0.06)
    assert 0.35 < durations.std() / durations.mean() < 0.65
    short = synthetic_market(20_000, seed=2, regime_bars=100)
    assert np.diff(np.flatnonzero(np.diff(short.regime))).mean() == pytest.approx(100, rel=0.1)


def test_a_section_shorter_than_two_regimes_is_split_in_two() -> None:
    market = synthetic_market(2_000, boundaries=(1_000, 1_060), seed=4)
    assert np.count_nonzero(np.diff(market.regime[1_000:1_060])) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_bars": 1}, "n_bars: 1"),
        ({"seed": -1}, "seed: -1"),
        ({"edge": -1e-5}, "edge: -1e-05"),
        ({"edge": math.nan}, "edge: nan"),
        ({"edge": 0.1}, "edge: 0.1"),
        ({"regime_bars": 0}, "regime_bars: 0"),
        ({"start_price": 0.0}, "start_price: 0.0"),
        ({"start_price": math.inf}, "start_price: inf"),
        ({"boundaries": (5, 101)}, "boundaries: 101"),
        ({"boundaries": (-1,)}, "boundaries: -1"),
        ({"boundaries": (1.5,)}, "boundaries: 1.5"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        synthetic_market(**{"n_bars": 100, **arguments})


def test_several_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        synthetic_market(1, seed=-1, edge=1.0)
    assert len(caught.value.lines) == 3


# --- no edge ----------------------------------------------------------------------------------------------


def t_statistic(values: Floats) -> float:
    return float(values.mean() / values.std(ddof=1) * math.sqrt(values.size))


def test_without_an_edge_simple_returns_have_mean_zero(null: SyntheticMarket) -> None:
    returns = np.expm1(open_returns(null.bars))
    for chosen in (returns, returns[null.regime == 1], returns[null.regime == 0]):
        assert abs(t_statistic(chosen)) < 3
    assert abs(open_returns(null.bars)[: BLOCKS[0]].sum()) > 1e-3  # not re-centred


def test_the_compensator_is_that_of_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    # a hundred times as volatile: without the compensator simple returns would have t > 15
    monkeypatch.setattr(synthetic, "BULL_VOLATILITY", 0.04)
    monkeypatch.setattr(synthetic, "BEAR_VOLATILITY", 0.08)
    bars = synthetic_market(300_000, seed=5, edge=0.0, start_price=1e100).bars
    bodies = np.log(bars.close / bars.open)
    gaps = np.log(bars.open[1:] / bars.close[:-1])[bars.sessions.last[:-1]]
    assert abs(t_statistic(np.expm1(bodies))) < 3
    assert t_statistic(bodies) < -10
    assert abs(t_statistic(np.expm1(gaps))) < 3


def test_without_an_edge_the_regimes_are_still_regimes_of_volatility(null: SyntheticMarket) -> None:
    returns = in_session(null.bars)
    ratio = np.nanstd(returns[null.regime == 0]) / np.nanstd(returns[null.regime == 1])
    assert ratio == pytest.approx(2.5, rel=0.05)


# --- stylised facts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["market", "null"])
def test_stylised_facts(name: str, request: pytest.FixtureRequest) -> None:
    market: SyntheticMarket = request.getfixturevalue(name)
    bars = market.bars
    returns = in_session(bars)
    known = returns[np.isfinite(returns)]
    assert np.mean((known - known.mean()) ** 4) / known.var() ** 2 > 6  # a normal: 3
    for regime, level in ((1, 2.6e-4), (0, 6.5e-4)):
        assert np.sqrt(np.nanmean(returns[market.regime == regime] ** 2)) == pytest.approx(level, rel=0.05)
    moves = np.abs(returns)
    assert autocorrelation(moves, 1) > 0.1
    assert autocorrelation(moves, 30) > 0.1
    assert abs(autocorrelation(returns, 1)) < 0.03
    gaps = np.log(bars.open[1:] / bars.close[:-1])[bars.sessions.last[:-1]]
    assert gaps.std() > 4 * known.std()
    assert 0.0 < known.std() < 2e-3
    assert np.abs(np.expm1(open_returns(bars))).max() < 0.2  # nothing that a reader would flag as a split


def test_volatility_and_volume_have_a_u_over_the_session(null: SyntheticMarket) -> None:
    bars, minute = null.bars, null.bars.sessions.minute
    full = bars.sessions.length == 390
    squares = in_session(bars) ** 2
    for values, opening, closing in ((np.sqrt(squares), 1.3, 1.1), (bars.volume, 1.5, 1.5)):
        first, noon, final = (np.nanmean(values[full & (minute >= low) & (minute < low + 30)]) for low in (0, 180, 360))
        assert first > opening * noon
        assert final > closing * noon


def test_volume_follows_the_moves(null: SyntheticMarket) -> None:
    body = np.abs(np.log(null.bars.close / null.bars.open))
    assert np.corrcoef(body, np.log(null.bars.volume))[0, 1] > 0.2


def test_volatility_clusters_inside_a_regime_and_rises_after_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    # one level for both regimes, and the slow part stronger, so that nothing else clusters
    monkeypatch.setattr(synthetic, "BULL_VOLATILITY", 5e-4)
    monkeypatch.setattr(synthetic, "BEAR_VOLATILITY", 5e-4)
    monkeypatch.setattr(synthetic, "CLUSTER_DEVIATION", 0.4)
    bars = synthetic_market(400_000, seed=6, edge=0.0, calendar="24/7").bars
    returns = open_returns(bars)[: 8_000 * 50].reshape(8_000, 50)
    level = np.log(np.abs(returns)).mean(axis=1)
    assert np.corrcoef(level[:-1], level[1:])[0, 1] > 0.3
    assert np.corrcoef(returns.sum(axis=1)[:-1], level[1:])[0, 1] < -0.05


# --- what can be seen -------------------------------------------------------------------------------------


def seen(market: SyntheticMarket) -> tuple[NDArray[np.int64], Floats]:
    """Decision bars [D] and what a rule knows there, [D, 5]: 1, log volatility of 30 and 390 bars, minute."""
    bars = market.bars
    decisions = np.arange(390, bars.n - INTERVAL - 1, INTERVAL)
    phase = 2 * np.pi * bars.sessions.minute / bars.sessions.length
    columns = (
        np.ones(bars.n),
        np.log(volatility(bars.close, 30) + 1e-9),
        np.log(volatility(bars.close) + 1e-9),
        np.sin(phase),
        np.cos(phase),
    )
    return decisions, np.stack(columns, axis=1)[decisions]


def fit_bull(market: SyntheticMarket) -> Floats:
    """Least squares of +1 in bull, -1 in bear, on what is seen."""
    decisions, inputs = seen(market)
    target = 2.0 * market.regime[decisions + 1] - 1.0
    return np.asarray(np.linalg.lstsq(inputs, target)[0])


def net_growth(bars: Bars, decisions: NDArray[np.int64], long: NDArray[np.bool_]) -> float:
    """Net mean log return per bar of a position of 0.95 bought and sold at the opens after the decisions."""
    changes = np.flatnonzero(np.diff(long.astype(np.int8), prepend=0))
    prices = list(bars.open[decisions[changes] + 1])
    if long[-1]:
        prices.append(bars.close[decisions[-1] + INTERVAL])
    growth = 0.0
    for bought, sold in zip(prices[::2], prices[1::2], strict=True):
        notional = POSITION / (1 + POSITION * FEE)
        growth += math.log1p(notional * ((1 - FEE) * sold / bought - (1 + FEE)))
    return growth / float(decisions[-1] + INTERVAL - decisions[0])


def with_hysteresis(score: Floats, band: float) -> NDArray[np.bool_]:
    """Long from a score above `band` on until one below -`band`."""
    clear = np.where(np.abs(score) > band, np.arange(score.size), 0)
    return np.asarray(score[np.maximum.accumulate(clear)] > band)


def test_volatility_tells_the_regimes_apart(market: SyntheticMarket) -> None:
    other = synthetic_market(seed=2, boundaries=BLOCKS)
    decisions, inputs = seen(other)
    bull = other.regime[decisions + 1] == 1
    long = inputs @ fit_bull(market) > 0
    assert np.mean(long == bull) > 0.9


def test_the_volatility_of_390_bars_alone_tells_a_settled_regime(market: SyntheticMarket) -> None:
    # at a switch the window is half of the old regime: about 195 of 780 bars are then taken for the other one
    decisions, inputs = seen(market)
    bull = market.regime[decisions + 1] == 1
    long = np.exp(2 * inputs[:, 2]) < (synthetic.BULL_VOLATILITY**2 + synthetic.BEAR_VOLATILITY**2) / 2
    switches = np.flatnonzero(np.diff(market.regime, prepend=2 - market.regime[0]))
    age = decisions + 1 - switches[np.searchsorted(switches, decisions + 1, side="right") - 1]
    assert np.mean(long == bull) > 0.7
    assert np.mean((long == bull)[age > 390]) > 0.98


def test_a_rule_on_volatility_earns_most_of_what_the_oracle_does(market: SyntheticMarket) -> None:
    other = synthetic_market(seed=2, boundaries=BLOCKS)
    decisions, inputs = seen(other)
    long = with_hysteresis(inputs @ fit_bull(market), 0.35)
    always = np.ones(decisions.size, dtype=bool)
    best = oracle_actions(other.regime, decisions) == 1
    agent, oracle, hold = (net_growth(other.bars, decisions, each) for each in (long, best, always))
    assert oracle == pytest.approx(8.2e-6, rel=0.1)  # 0.95 (2e-5 / 2 - 0.002 / 1560)
    assert abs(hold) < 2e-7
    assert skill(agent, oracle, hold, POSITION * float(long.mean())) > 0.75


# --- the oracle and the measure ---------------------------------------------------------------------------


def test_the_oracle_goes_by_the_regime_from_the_fill_on() -> None:
    regime = np.array([0, 0, 1, 1, 0], dtype=np.int8)
    actions = oracle_actions(regime, np.array([[0, 1], [2, 3]]))
    np.testing.assert_array_equal(actions, [[2, 1], [1, 2]])
    assert actions.dtype == np.int64
    assert oracle_actions(regime, np.array([], dtype=np.int64)).size == 0


@pytest.mark.parametrize("bar", [-1, 4])
def test_the_oracle_refuses_bars_without_a_fill(bar: int) -> None:
    with pytest.raises(IndexError, match=r"0 \.\. 3"):
        oracle_actions(np.zeros(5, dtype=np.int8), np.array([bar]))


def test_the_oracle_refuses_bars_that_are_no_integers() -> None:
    with pytest.raises(TypeError, match="integers"):
        oracle_actions(np.zeros(5, dtype=np.int8), np.array([0.5]))


def test_skill_by_hand() -> None:
    assert skill(6e-6, 8e-6, 0.0, 0.5) == pytest.approx(0.75)
    assert skill(6e-6, 8e-6, 2e-6, 0.5) == pytest.approx(5 / 7)
    assert skill(8e-6, 8e-6, 2e-6, 0.4) == pytest.approx(1)
    assert skill(1e-6, 8e-6, 2e-6, 0.5) == pytest.approx(0)
    assert skill(-7e-6, 8e-6, 0.0, 0.5) == pytest.approx(-7 / 8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((1e-6, 0.0, 0.0, 0.5), "no skill to measure"),
        ((1e-6, 1e-6, 2e-6, 0.5), "no skill to measure"),
        ((math.nan, 1.0, 0.0, 0.5), "agent: nan"),
        ((0.0, math.inf, 0.0, 0.5), "oracle: inf"),
        ((0.0, 1.0, 0.0, 1.5), "exposure: 1.5"),
        ((0.0, 1.0, 0.0, -0.1), "exposure: -0.1"),
    ],
)
def test_skill_refuses_what_has_none(values: tuple[float, float, float, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        skill(*values)
