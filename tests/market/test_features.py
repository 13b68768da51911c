"""The market features: textbook values, causality, finite memory, bounds, and the streaming form."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sentio_rllib.errors import ConfigError
from sentio_rllib.market import feature_set as module
from sentio_rllib.market.feature_set import (
    CLASSIC,
    FEATURE_SETS,
    MULTISCALE,
    PORTFOLIO_FEATURES,
    feature_set,
    set_of_digest,
    set_of_size,
)
from sentio_rllib.market.features import (
    compute_market_features,
    session_anchor,
    trailing_dollar_volume,
    trailing_sum,
    volatility,
)
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.streaming import StreamingFeatures
from tests.strategies import MARKETS, irregular_bars, make_bars, session_minutes

PRICES = ("open", "high", "low", "close", "volume")
COLUMN = {name: column for column, name in enumerate(MULTISCALE.names)}
FULL_DAYS = ("2024-09-09", "2024-09-12")


@pytest.fixture(scope="module")
def bars() -> Bars:
    """Four full sessions of a random walk."""
    return make_bars(session_minutes(*FULL_DAYS), seed=1)


@pytest.fixture(scope="module")
def columns(bars: Bars) -> dict[str, NDArray[np.float32]]:
    values = compute_market_features(bars)
    return {name: values[:, column] for name, column in COLUMN.items()}


def disturbed(bars: Bars, rows: slice | int, seed: int = 0) -> Bars:
    """The same bars with other prices and volumes in `rows`."""
    rng = np.random.default_rng(seed)
    changed = {name: getattr(bars, name).copy() for name in PRICES}
    for name in PRICES:
        changed[name][rows] *= rng.uniform(1.1, 3.0, changed[name][rows].shape)
    changed["volume"][rows] += 17.0
    top = np.maximum(changed["open"], changed["close"])
    changed["high"] = np.maximum(changed["high"], top)
    changed["low"] = np.minimum(changed["low"], np.minimum(changed["open"], changed["close"]))
    return dataclasses.replace(bars, **changed)


def stream(
    bars: Bars, start: int = 0, features: str = MULTISCALE.name
) -> tuple[NDArray[np.float32], StreamingFeatures]:
    streaming = StreamingFeatures(features, session_minutes=int(bars.sessions.length.max()))
    sessions = bars.sessions
    rows = [
        streaming.push(
            open_price=bars.open[t],
            high=bars.high[t],
            low=bars.low[t],
            close=bars.close[t],
            volume=bars.volume[t],
            session=int(sessions.session[t]),
            minute=int(sessions.minute[t]),
            length=int(sessions.length[t]),
            regular=bool(sessions.regular[t]),
        )
        for t in range(start, bars.n)
    ]
    return np.stack(rows), streaming


def test_the_list_is_fixed() -> None:
    assert CLASSIC.names == (
        "return_1", "return_5", "return_30", "return_390", "return_session", "volatility_ratio",
        "volatility_level", "close_location", "rsi_14", "sma_12_26", "bollinger_20", "volume_z", "minute_sin",
        "minute_cos",
    )  # fmt: skip
    assert MULTISCALE.names == (*CLASSIC.names, *(f"absolute_return_{window}" for window in (5, 10, 15, 60, 120, 240)))
    assert len(PORTFOLIO_FEATURES) == 6


def test_the_hash_names_this_version_and_moves_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # a feature that changes needs a new version; checkpoints made with these hashes rely on it
    assert CLASSIC.digest == "7199a2968843bf09628e9052183958322c437973c28882e2cbe6ccb94e39b14d"
    assert MULTISCALE.digest == "6345ef5eb9f3101337c6eb143f52f57bd5d0c81f48981c028a8f011a879c4b61"
    rescaled = dataclasses.replace(CLASSIC.features[0], scale=0.25)
    seen = {
        CLASSIC.digest,
        MULTISCALE.digest,
        dataclasses.replace(CLASSIC, version="features/v0").digest,
        dataclasses.replace(CLASSIC, features=(rescaled, *CLASSIC.features[1:])).digest,
    }
    monkeypatch.setattr(module, "PORTFOLIO_FEATURES", PORTFOLIO_FEATURES[::-1])
    seen.add(dataclasses.replace(CLASSIC).digest)
    assert len(seen) == 5


def test_a_set_is_found_by_name_size_and_hash() -> None:
    for name, each in FEATURE_SETS.items():
        assert feature_set(name) is set_of_size(len(each)) is set_of_digest(each.digest) is each
        assert each.features[:14] == CLASSIC.features
    assert set_of_digest("0" * 64) is None
    with pytest.raises(ConfigError, match="'clasic' is unknown; choose one of classic, multiscale"):
        feature_set("clasic")
    with pytest.raises(ValueError, match=r"15 market features: .* allowed 14 \(classic\), 20 \(multiscale\)"):
        set_of_size(15)


def test_the_classic_set_is_the_first_columns(bars: Bars) -> None:
    both = compute_market_features(bars, MULTISCALE)
    np.testing.assert_array_equal(compute_market_features(bars, CLASSIC), both[:, :14])
    np.testing.assert_allclose(stream(bars, features="classic")[0], both[:, :14], rtol=0, atol=1e-6)


def test_absolute_returns_are_the_logs_of_their_means(bars: Bars, columns: dict[str, NDArray[np.float32]]) -> None:
    sizes = pd.Series(np.log(bars.close)).diff().abs()
    for window in (5, 10, 15, 60, 120, 240):
        wanted = np.log(sizes.rolling(window).mean() / (5e-4 * math.sqrt(2 / math.pi)))
        np.testing.assert_allclose(columns[f"absolute_return_{window}"][window:], wanted[window:], atol=1e-6)


def test_lookbacks_count_the_normaliser_and_the_longest_session() -> None:
    lookbacks = {feature.name: feature.lookback() for feature in MULTISCALE.features}
    assert [lookbacks[name] for name in ("return_1", "return_390", "return_session", "sma_12_26")] == [390] * 4
    assert (lookbacks["volume_z"], lookbacks["bollinger_20"], lookbacks["rsi_14"]) == (389, 19, 14)
    assert lookbacks["close_location"] == lookbacks["minute_sin"] == 0
    assert lookbacks["absolute_return_240"] == 240
    for each in FEATURE_SETS.values():
        assert each.lookback() == 390
        assert each.lookback(1440) == 1439


def test_reference_volatility_must_be_positive_and_finite(bars: Bars) -> None:
    for value in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="reference_volatility"):
            compute_market_features(bars, reference_volatility=value)
        with pytest.raises(ConfigError, match="reference_volatility"):
            StreamingFeatures(reference_volatility=value)


def test_trailing_sum_of_a_few_values() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    np.testing.assert_array_equal(trailing_sum(values, 3), [1, 3, 7, 14, 28, 56])
    np.testing.assert_array_equal(trailing_sum(values, 1), values)
    np.testing.assert_array_equal(trailing_sum(values, 100), np.cumsum(values))
    with pytest.raises(TypeError, match="float64"):
        trailing_sum(values.astype(np.float32), 3)
    with pytest.raises(ValueError, match="at least 1"):
        trailing_sum(values, 0)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=60), st.integers(1, 70))
def test_trailing_sum_equals_the_plain_sum(values: list[int], window: int) -> None:
    expected = [sum(values[max(t - window + 1, 0) : t + 1]) for t in range(len(values))]
    np.testing.assert_array_equal(trailing_sum(np.array(values, dtype=float), window), expected)


def test_volatility_of_a_few_closes() -> None:
    close = np.exp([0.0, 0.03, -0.01, -0.01])
    expected = [0.0, 0.03, math.sqrt((0.03**2 + 0.04**2) / 2), math.sqrt((0.04**2 + 0.0**2) / 2)]
    np.testing.assert_allclose(volatility(close, 2), expected, atol=1e-15)


def test_dollar_volume_is_the_mean_of_the_window(bars: Bars) -> None:
    dollars = bars.close * bars.volume
    measured = trailing_dollar_volume(bars)
    np.testing.assert_allclose(measured[1], dollars[:2].mean())
    np.testing.assert_allclose(measured[900], dollars[511:901].mean())


def test_returns_and_volatilities_by_hand(bars: Bars, columns: dict[str, NDArray[np.float32]]) -> None:
    t = 1000
    steps = np.diff(np.log(bars.close))
    long_volatility = math.sqrt(np.mean(steps[t - 390 : t] ** 2))
    short_volatility = math.sqrt(np.mean(steps[t - 30 : t] ** 2))
    for window in (1, 5, 30, 390):
        z = math.log(bars.close[t] / bars.close[t - window]) / (long_volatility * math.sqrt(window))
        assert columns[f"return_{window}"][t] == pytest.approx(math.tanh(z / 2), abs=1e-6)
    session_open, minute = bars.open[780], 1000 - 780
    z = math.log(bars.close[t] / session_open) / (long_volatility * math.sqrt(minute + 1))
    assert columns["return_session"][t] == pytest.approx(math.tanh(z / 2), abs=1e-6)
    expected_ratio = math.log(short_volatility / long_volatility)
    assert columns["volatility_ratio"][t] == pytest.approx(expected_ratio, abs=1e-6)
    assert columns["volatility_level"][t] == pytest.approx(math.log(long_volatility / 5e-4), abs=1e-6)
    assert columns["minute_sin"][t] == pytest.approx(math.sin(2 * math.pi * minute / 390), abs=1e-6)
    assert columns["minute_cos"][t] == pytest.approx(math.cos(2 * math.pi * minute / 390), abs=1e-6)


def test_indicators_equal_their_textbook_form(bars: Bars, columns: dict[str, NDArray[np.float32]]) -> None:
    close, warm = pd.Series(bars.close), slice(390, None)
    change = close.diff()
    gain, loss = change.clip(lower=0).rolling(14).mean(), (-change).clip(lower=0).rolling(14).mean()
    rsi = 100 - 100 / (1 + gain / loss)
    np.testing.assert_allclose(columns["rsi_14"][warm], (rsi / 50 - 1)[warm], atol=1e-6)
    deviation = close.rolling(20).std(ddof=0)
    bollinger = (close - close.rolling(20).mean()) / deviation
    np.testing.assert_allclose(columns["bollinger_20"][warm], np.tanh(bollinger / 2)[warm], atol=1e-5)
    per_bar = np.sqrt((np.log(close).diff() ** 2).rolling(390).mean())
    distance = (close.rolling(12).mean() - close.rolling(26).mean()) / (close * per_bar * 1.5875)
    np.testing.assert_allclose(columns["sma_12_26"][warm], np.tanh(distance / 2)[warm], atol=1e-4)
    log_volume = np.log1p(pd.Series(bars.volume))
    z = (log_volume - log_volume.rolling(390).mean()) / log_volume.rolling(390).std(ddof=0)
    np.testing.assert_allclose(columns["volume_z"][warm], np.tanh(z / 2)[warm], atol=1e-6)
    location = (2 * bars.close - bars.high - bars.low) / (bars.high - bars.low)
    np.testing.assert_allclose(columns["close_location"], location, atol=1e-6)


def test_the_distance_of_the_means_has_deviation_one_on_a_random_walk() -> None:
    walk = np.cumsum(np.random.default_rng(0).normal(size=200_000))
    kernel = np.zeros(26)
    kernel[:12] += 1 / 12
    kernel -= 1 / 26
    distance = np.convolve(walk, kernel, mode="valid")
    assert distance.std() / module.MEAN_DISTANCE_DEVIATION == pytest.approx(1.0, abs=0.03)


def test_features_spread_so_that_a_network_can_read_them() -> None:
    bars = make_bars(session_minutes("2024-09-03", "2024-09-20"), seed=3)
    warm = compute_market_features(bars)[390:]
    spread = {name: float(warm[:, column].std()) for name, column in COLUMN.items()}
    unlevelled = {name: value for name, value in spread.items() if not name.startswith(("volatility", "absolute"))}
    assert all(0.25 <= value <= 1.0 for value in unlevelled.values()), unlevelled


def test_volatility_level_is_a_plain_logarithm_of_the_reference(bars: Bars) -> None:
    level = COLUMN["volatility_level"]
    usual = compute_market_features(bars, reference_volatility=5e-4)[390:]
    half = compute_market_features(bars, reference_volatility=2.5e-4)[390:]
    levels = [level, *(COLUMN[name] for name in COLUMN if name.startswith("absolute"))]
    np.testing.assert_allclose(half[:, levels] - usual[:, levels], math.log(2), atol=1e-5)
    others = [column for column in COLUMN.values() if column not in levels]
    np.testing.assert_array_equal(half[:, others], usual[:, others])


@settings(max_examples=25, deadline=None)
@given(bars=irregular_bars(), data=st.data())
def test_no_feature_reads_a_later_bar(bars: Bars, data: st.DataObject) -> None:
    t = data.draw(st.integers(0, bars.n - 2))
    later = compute_market_features(disturbed(bars, slice(t + 1, None), t))
    np.testing.assert_array_equal(later[: t + 1], compute_market_features(bars)[: t + 1])


@settings(max_examples=25, deadline=None)
@given(bars=irregular_bars(), data=st.data())
def test_no_feature_reads_beyond_its_lookback(bars: Bars, data: st.DataObject) -> None:
    t = data.draw(st.integers(min(MULTISCALE.lookback() + 1, bars.n - 1), bars.n - 1))
    before = compute_market_features(bars)
    for column, feature in enumerate(MULTISCALE.features):
        oldest = t - feature.lookback()
        if oldest > 0:
            after = compute_market_features(disturbed(bars, slice(0, oldest), column))
            assert after[t, column] == before[t, column], feature.name


@pytest.mark.parametrize("name", MULTISCALE.names)
def test_the_declared_lookback_is_the_least_that_holds(bars: Bars, name: str) -> None:
    column, lookback = COLUMN[name], MULTISCALE.features[COLUMN[name]].lookback()
    t = 3 * 390 - 1
    changed = compute_market_features(disturbed(bars, t - lookback))
    kept = compute_market_features(disturbed(bars, t - lookback - 1))
    before = compute_market_features(bars)
    assert kept[t, column] == before[t, column]
    if not name.startswith("minute"):
        assert changed[t, column] != before[t, column]


@settings(max_examples=25, deadline=None)
@given(bars=irregular_bars(), data=st.data())
def test_a_window_of_the_bars_gives_the_same_values(bars: Bars, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, bars.n - MULTISCALE.lookback() - 1))
    stop = data.draw(st.integers(start + MULTISCALE.lookback() + 1, bars.n))
    whole = compute_market_features(bars)[start + MULTISCALE.lookback() : stop]
    part = compute_market_features(bars.slice(start, stop))[MULTISCALE.lookback() :]
    np.testing.assert_allclose(part, whole, rtol=0, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(bars=irregular_bars())
def test_streaming_equals_batch(bars: Bars) -> None:
    rows, streaming = stream(bars)
    np.testing.assert_allclose(rows, compute_market_features(bars), rtol=0, atol=1e-6)
    assert streaming.volatility == pytest.approx(volatility(bars.close)[-1], rel=1e-9)
    assert streaming.dollar_volume == pytest.approx(trailing_dollar_volume(bars)[-1], rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(bars=irregular_bars(), data=st.data())
def test_streaming_may_begin_anywhere_once_it_is_warm(bars: Bars, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, bars.n - MULTISCALE.lookback() - 1))
    rows, streaming = stream(bars, start)
    assert streaming.is_warm
    expected = compute_market_features(bars)[start + MULTISCALE.lookback() :]
    np.testing.assert_allclose(rows[MULTISCALE.lookback() :], expected, rtol=0, atol=1e-6)


def test_streaming_is_warm_after_the_lookback_and_one_bar(bars: Bars) -> None:
    assert not stream(bars.slice(0, 390))[1].is_warm
    assert stream(bars.slice(0, 391))[1].is_warm


def test_streaming_equals_batch_over_many_times_its_window() -> None:
    bars = make_bars(session_minutes("2024-09-03", "2024-09-20"), seed=5)
    rows, _ = stream(bars)
    np.testing.assert_allclose(rows, compute_market_features(bars), rtol=0, atol=1e-6)


@pytest.mark.parametrize("calendar", ["XNYS", "24/7"])
def test_bars_outside_the_hours_and_sessions_of_a_whole_day(calendar: str) -> None:
    every_minute = session_minutes("2024-11-27", "2024-11-29", hours="all")
    bars = make_bars(every_minute, seed=7, calendar=calendar)
    session_minutes_ = int(bars.sessions.length.max())
    values = compute_market_features(bars)
    rows, _ = stream(bars)
    np.testing.assert_allclose(rows, values, rtol=0, atol=1e-6)
    t, lookback, column = bars.n - 1, MULTISCALE.lookback(session_minutes_), COLUMN["return_session"]
    assert compute_market_features(disturbed(bars, slice(0, t - lookback)))[t, column] == values[t, column]


def test_the_session_opens_with_its_first_regular_bar() -> None:
    bars = make_bars(session_minutes("2024-09-09", "2024-09-09", hours="all")[12 * 60 : 21 * 60])
    anchor, regular = session_anchor(bars.sessions), np.flatnonzero(bars.sessions.regular)
    assert regular.size == 390
    assert regular[0] == 90
    np.testing.assert_array_equal(anchor[:90], 0)
    np.testing.assert_array_equal(anchor[90:480], 90)
    np.testing.assert_array_equal(anchor[480:], np.arange(480, bars.n) - 389)


def test_the_session_open_after_missing_minutes_and_nights() -> None:
    grid = session_minutes(*FULL_DAYS)
    bars = make_bars(np.delete(grid, slice(390, 395)), seed=2)
    anchor = session_anchor(bars.sessions)
    np.testing.assert_array_equal(anchor[:390], 0)
    np.testing.assert_array_equal(anchor[390 : 390 + 385], 390)
    assert bars.sessions.minute[390] == 5


@settings(max_examples=25, deadline=None)
@given(bars=irregular_bars())
def test_features_are_finite_and_bounded(bars: Bars) -> None:
    values = compute_market_features(bars)
    assert values.dtype == np.float32
    assert values.shape == (bars.n, 20)
    assert np.isfinite(values).all()
    limits = np.array([5.0 if feature.squash == "clip" else 1.0 for feature in MULTISCALE.features])
    assert (np.abs(values) <= limits).all()


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("n", [1, 2, 19, 400])
def test_short_tapes_of_every_market_are_finite(market: str, n: int) -> None:
    bars = make_bars(session_minutes(*FULL_DAYS)[:n], market=market)  # type: ignore[arg-type]
    assert np.isfinite(compute_market_features(bars)).all()


def test_a_constant_price_says_nothing() -> None:
    bars = make_bars(session_minutes(*FULL_DAYS), market="constant")
    values = compute_market_features(bars)
    silent = [
        COLUMN[name] for name in COLUMN if not name.startswith(("minute", "volume", "volatility_level", "absolute"))
    ]
    np.testing.assert_array_equal(values[:, silent], 0.0)
    assert (values[:, COLUMN["volatility_level"]] == -5.0).all()
