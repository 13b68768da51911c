"""Leak probes: each catches its own planted leak, and none fires on clean bars."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sentio_rllib.errors import ConfigError, SentioError
from sentio_rllib.market.bars import load_bars
from sentio_rllib.market.feature_set import MULTISCALE
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.sessions import assign_sessions
from sentio_rllib.market.synthetic import synthetic_market
from sentio_rllib.market.tape import Tape, build_tape
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation import causality, probes
from sentio_rllib.validation.probes import LeakError, ProbeResult, check_leaks, run_probes, simulate
from tests.strategies import MARKETS, Market, make_bars, session_minutes
from tests.trading.tapes import make_tape

LEVEL = 5e-4
RULES = TradingRules()
SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
TRUNCATE, PERTURB, SHUFFLE, DELAY = range(4)
LOOKBACK = MULTISCALE.lookback()
RETURN_1, VOLUME_Z = (MULTISCALE.names.index(name) for name in ("return_1", "volume_z"))


@pytest.fixture(scope="module")
def bars() -> Bars:
    return synthetic_market(6_000, seed=3).bars


def _probe(bars: Bars, rules: TradingRules = RULES, **planted: object) -> tuple[ProbeResult, ...]:
    return run_probes(bars, rules, reference_volatility=LEVEL, seed=1, **planted)  # type: ignore[arg-type]


def _held(results: tuple[ProbeResult, ...]) -> list[bool | None]:
    return [each.held for each in results]


def _with_feature(column: int, change: Callable[[Tape, Bars], NDArray[np.float64]]) -> Callable[..., Tape]:
    """``build_tape`` with one feature replaced by `change` of the honest tape."""

    def tape_of(bars: Bars, *, reference_volatility: float) -> Tape:
        tape = build_tape(bars, reference_volatility=reference_volatility)
        features = tape.features.copy()
        features[:, column] = change(tape, bars)
        return replace(tape, features=features)

    return tape_of


def _next_return(tape: Tape, bars: Bars) -> NDArray[np.float64]:
    """Log return of the bar after each, in volatilities."""
    return np.append(np.diff(np.log(bars.close)), 0.0) / np.maximum(tape.volatility, 1e-6)


def _next_return_and_noise(tape: Tape, bars: Bars) -> NDArray[np.float64]:
    noise = np.random.default_rng(0).standard_normal(tape.n)
    return np.asarray(np.tanh(0.25 * (_next_return(tape, bars) + noise)))


# clean bars


@pytest.mark.parametrize("edge", [0.0, 1e-4, 1e-3])
@pytest.mark.parametrize("seed", range(3))
def test_all_hold_on_a_market_with_an_edge_or_none(edge: float, seed: int) -> None:
    market = synthetic_market(12_000, seed=seed, edge=edge)
    assert _held(_probe(market.bars)) == [True] * 4


@pytest.mark.parametrize("market", MARKETS)
def test_all_hold_on_odd_markets(market: Market) -> None:
    assert _held(_probe(make_bars(session_minutes("2024-11-04", "2024-11-27"), seed=7, market=market))) == [True] * 4


@pytest.mark.parametrize(
    "rules",
    [
        TradingRules(decision_interval=1, flat_by_close=True, masks="none", max_drawdown=0.002),
        TradingRules(decision_interval=7, masks="risk", half_spread_bps=2.0, impact=1.0, max_participation=0.1),
        TradingRules(decision_interval=390, position_step=0.3),
        TradingRules(decision_interval=1440, episode_length=1440),
    ],
)
def test_all_hold_under_any_rules(bars: Bars, rules: TradingRules) -> None:
    assert _held(_probe(bars, rules)) == [True] * 4


def test_all_hold_on_bars_with_cuts_and_missing_minutes(bars: Bars) -> None:
    present = np.random.default_rng(0).random(bars.n) > 0.02
    present[(bars.sessions.session == 6) | ((bars.sessions.session == 9) & (bars.sessions.minute < 100))] = False
    sessions, _ = assign_sessions(bars.timestamp[present])
    values = {name: getattr(bars, name)[present] for name in ("timestamp", "open", "high", "low", "close", "volume")}
    holed = replace(bars, sessions=sessions, **values)
    assert holed.sessions.cuts.size >= 2
    assert _held(_probe(holed)) == [True] * 4


def test_all_hold_around_the_clock() -> None:
    assert _held(_probe(synthetic_market(6_000, seed=2, calendar="24/7").bars)) == [True] * 4


@pytest.mark.parametrize(
    ("file", "count"), [("QQQ_1m_2025-08_2025-09.feather", 9_575), ("ERY_1m_2025-04_2025-10.feather", 35_131)]
)
def test_all_hold_on_real_bars(file: str, count: int) -> None:
    path = SHARED / file
    if not path.is_file():
        pytest.skip(f"real bars are not part of the project; {path} is absent")
    real, _ = load_bars(path, max_missing=0.5)
    assert real.n == count
    assert _held(_probe(real)) == [True] * 4


def test_the_same_arguments_give_the_same_results(bars: Bars) -> None:
    assert _probe(bars) == _probe(bars)
    assert check_leaks(bars, RULES, reference_volatility=LEVEL, seed=1) == _probe(bars)


# too few bars


def test_too_few_bars_are_said_and_refuse_nothing(bars: Bars) -> None:
    results = check_leaks(bars.slice(0, LOOKBACK), RULES, reference_volatility=LEVEL, seed=1)
    assert _held(results) == [None] * 4
    assert [each.text for each in results] == [
        "not enough bars: 390 of the 391 needed",
        "not enough bars: 390 of the 424 needed",
        "not enough bars: 390 of the 3,393 needed",
        "not enough bars: 390 of the 3,393 needed",
    ]


@pytest.mark.parametrize(("needed", "held"), [(391, 1), (424, 2), (3_393, 4)])
def test_exactly_enough_bars_pass(bars: Bars, needed: int, held: int) -> None:
    assert _held(_probe(bars.slice(0, needed))) == [True] * held + [None] * (4 - held)
    assert _held(_probe(bars.slice(0, needed - 1))).count(True) < held


# planted leaks


def test_truncation_catches_a_feature_normalised_by_the_whole_sample(bars: Bars) -> None:
    whole = _with_feature(VOLUME_Z, lambda _, bars: np.log1p(bars.volume) - np.log1p(bars.volume).mean())
    found = _probe(bars, tape_of=whole)[TRUNCATE]
    assert found.held is False
    assert found.text.startswith("volume_z at bar ")


def test_truncation_catches_what_reads_far_ahead(bars: Bars) -> None:
    far = _with_feature(RETURN_1, lambda tape, _: np.roll(tape.features[:, RETURN_1], -2_000))
    assert _probe(bars, tape_of=far)[TRUNCATE].held is False


def test_truncation_catches_a_lookback_longer_than_declared(bars: Bars) -> None:
    def lagged(lag: int) -> Callable[..., Tape]:
        return _with_feature(
            RETURN_1, lambda _, bars: np.log(bars.close / bars.close[np.maximum(np.arange(bars.n) - lag, 0)])
        )

    assert _held(_probe(bars, tape_of=lagged(LOOKBACK)))[:2] == [True, True]
    assert _held(_probe(bars, tape_of=lagged(LOOKBACK + 1)))[:2] == [False, True]


def test_truncation_and_perturbation_refuse_nan(bars: Bars) -> None:
    def ends_in_nan(tape: Tape, bars: Bars) -> NDArray[np.float64]:
        return np.where(np.arange(bars.n) < bars.n - 1, tape.features[:, RETURN_1], np.nan)

    def after_a_rise(tape: Tape, bars: Bars) -> NDArray[np.float64]:
        return np.where(bars.close[-1] > 1.02 * bars.close, np.nan, tape.features[:, RETURN_1])

    assert _probe(bars, tape_of=_with_feature(RETURN_1, ends_in_nan))[TRUNCATE].held is False
    assert _probe(bars, tape_of=_with_feature(RETURN_1, after_a_rise))[PERTURB].held is False


def test_perturbation_catches_a_feature_that_reads_the_next_bar(bars: Bars) -> None:
    ahead = _with_feature(VOLUME_Z, lambda tape, _: np.roll(tape.features[:, VOLUME_Z], -1))
    found = _probe(bars, tape_of=ahead)[PERTURB]
    assert found.held is False
    assert found.text.startswith("volume_z at bar ")


@pytest.mark.parametrize("name", ["volatility", "dollar_volume"])
def test_both_see_a_trailing_value_that_reads_the_next_bar(bars: Bars, name: str) -> None:
    def tape_of(bars: Bars, *, reference_volatility: float) -> Tape:
        tape = build_tape(bars, reference_volatility=reference_volatility)
        return replace(tape, **{name: np.append(getattr(tape, name)[1:], getattr(tape, name)[-1:])})

    results = _probe(bars, tape_of=tape_of)
    assert _held(results) == [False, False, True, True]
    assert all(each.text.startswith(f"{name} at bar ") for each in results[:2])


@pytest.mark.parametrize("interval", [1, 15, 390])
def test_perturbation_catches_equity_marked_at_the_next_close(bars: Bars, interval: int) -> None:
    def marks_ahead(
        tape: Tape, rules: TradingRules, start: NDArray[np.int64], actions: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        return simulate(replace(tape, close=np.append(tape.close[1:], tape.close[-1:])), rules, start, actions)

    found = _probe(bars, TradingRules(decision_interval=interval), simulate=marks_ahead)[PERTURB]
    assert found.held is False
    assert found.text.startswith("an account's equity")


def test_shuffled_returns_catch_a_fill_at_the_decision_bars_own_open(bars: Bars) -> None:
    def fills_early(
        tape: Tape, rules: TradingRules, start: NDArray[np.int64], actions: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        return simulate(replace(tape, open=np.append(tape.open[:1], tape.open[:-1])), rules, start, actions)

    results = _probe(bars, simulate=fills_early)
    assert _held(results) == [True, True, False, True]
    assert "21 policies" in results[SHUFFLE].text


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_shuffled_returns_catch_a_feature_that_holds_the_next_return(bars: Bars, sign: float) -> None:
    leaking = _with_feature(RETURN_1, lambda tape, bars: sign * np.tanh(0.5 * _next_return(tape, bars)))
    found = _probe(bars, tape_of=leaking)[SHUFFLE]
    assert found.held is False


def test_extra_delay_catches_the_next_return_under_noise(bars: Bars) -> None:
    found = _probe(bars, tape_of=_with_feature(VOLUME_Z, _next_return_and_noise))[DELAY]
    assert found.held is False
    assert "volume_z alone correlates" in found.text


def test_extra_delay_alone_catches_a_file_whose_closes_come_a_bar_early(bars: Bars) -> None:
    close = np.append(bars.close[1:], bars.close[-1:])
    early = replace(bars, close=close, high=np.maximum(bars.high, close), low=np.minimum(bars.low, close))
    assert _held(_probe(early)) == [True, True, True, False]


def test_extra_delay_lets_pass_what_lasts() -> None:
    strong = synthetic_market(6_000, seed=0, edge=1e-3).bars
    found = _probe(strong)[DELAY]
    now = float(found.text.split("correlate by ")[1].split()[0])
    assert found.held
    assert now > probes.PLAUSIBLE_CORRELATION + probes.ERRORS / np.sqrt(2_802)


def _mixed(bars: Bars, share: float) -> Bars:
    """Bars whose closes hold a share of the return to the next close, as of a file that was smoothed over time."""
    ahead = np.append(np.log(bars.close[1:] / bars.close[:-1]), 0.0)
    close = bars.close * np.exp(share * ahead)
    return replace(bars, close=close, high=np.maximum(bars.high, close), low=np.minimum(bars.low, close))


def _correlations(result: ProbeResult) -> tuple[float, float]:
    """Of predicted and realised returns at once and a bar later, as the probe tells them."""
    at_once, later = re.findall(r"by (-?\d\.\d+) (?:at once \(|a bar later)", result.text)
    return float(at_once), float(later)


@pytest.mark.parametrize("seed", [3, 4])
def test_extra_delay_refuses_a_file_whose_closes_know_a_little_of_the_next_bar(seed: int) -> None:
    clean = synthetic_market(12_000, seed=seed).bars
    found = probes.extra_delay(build_tape(_mixed(clean, 0.1)))
    at_once, later = _correlations(found)
    assert at_once == pytest.approx(0.27, abs=0.03)
    assert abs(later) < 0.05
    assert found.held is False
    assert "close_location alone correlates by 0.2" in found.text
    with pytest.raises(LeakError, match="one bar of extra delay"):
        check_leaks(_mixed(clean, 0.1), RULES, reference_volatility=LEVEL, seed=1)
    unmixed = probes.extra_delay(build_tape(_mixed(clean, 0.0)))
    assert unmixed.held
    assert max(map(abs, _correlations(unmixed))) < 0.05


def test_extra_delay_forgives_what_chance_and_a_plausible_edge_foretell(bars: Bars) -> None:
    # a correlation of 0.15 is what minute bars may have, and four standard errors are chance
    judged, errors = 2_802, 4 / np.sqrt(2_802)
    weak = probes.extra_delay(build_tape(_mixed(bars, 0.05)))
    at_once, later = _correlations(weak)
    assert f"over {judged:,} bars" in weak.text
    assert f"(allowed {0.15 + errors:.3f}, " in weak.text
    assert 0.08 < at_once < 0.15 + errors
    assert abs(later) < 0.4 * at_once
    assert weak.held


# refusal


def test_a_leak_is_refused_with_one_line_for_each_probe(bars: Bars) -> None:
    leaking = _with_feature(RETURN_1, lambda tape, bars: np.tanh(0.5 * _next_return(tape, bars)))
    with pytest.raises(LeakError) as caught:
        check_leaks(bars, RULES, reference_volatility=LEVEL, seed=1, tape_of=leaking)
    assert isinstance(caught.value, SentioError)
    names = ["truncate and recompute", "future perturbation", "shuffled returns", "one bar of extra delay"]
    assert [line.split(": ")[0] for line in caught.value.lines] == [f"leak probe {name!r}" for name in names]
    assert all("return_1" in line for line in caught.value.lines)


def test_a_reference_volatility_that_is_none_is_refused(bars: Bars) -> None:
    with pytest.raises(ConfigError, match="reference_volatility is 0"):
        run_probes(bars, RULES, reference_volatility=0.0, seed=1)


# the parts


def test_simulate_equals_the_account_by_hand() -> None:
    tape = make_tape([10.0, 10.0, 11.0, 12.0, 12.0, 12.0], [10.0, 11.0, 12.0, 12.5, 12.0, 12.0])
    rules = TradingRules(fee_rate=0.0, max_position=1.0, decision_interval=1, initial_cash=110.0, max_drawdown=0.9)
    # the first account buys 10 shares at 11 and sells them at 12, the second does nothing
    paths = simulate(tape, rules, np.array([1, 1]), np.array([[1, 0], [2, 0]]))
    np.testing.assert_allclose(paths, [[110.0, 120.0, 120.0], [110.0, 110.0, 110.0]], rtol=1e-12)


def test_shuffled_bars_keep_their_shapes_and_have_symmetric_returns(bars: Bars) -> None:
    seen: list[Bars] = []

    def tape_of(bars: Bars) -> Tape:
        seen.append(bars)
        return build_tape(bars)

    assert probes.shuffled_returns(bars, RULES, tape_of, simulate, seed=5).held
    (shuffled,) = seen
    assert shuffled.fingerprint != bars.fingerprint
    np.testing.assert_array_equal(shuffled.timestamp, bars.timestamp)
    np.testing.assert_array_equal(np.sort(shuffled.volume), np.sort(bars.volume))
    body = np.abs(np.tanh(np.log(bars.close / bars.open)))
    np.testing.assert_allclose(np.sort(np.abs(shuffled.close / shuffled.open - 1)), np.sort(body), atol=1e-12)
    gap = np.abs(np.tanh(np.log(bars.open[1:] / bars.close[:-1])))
    found = np.abs(shuffled.open[1:] / shuffled.close[:-1] - 1)
    assert np.isin(np.round(found, 10), np.round(np.append(gap, 0.0), 10)).all()
    rises = int((shuffled.close > shuffled.open).sum())
    assert abs(rises - bars.n / 2) < 5 * np.sqrt(bars.n) / 2
    assert (shuffled.high >= np.maximum(shuffled.open, shuffled.close)).all()
    assert (shuffled.low <= np.minimum(shuffled.open, shuffled.close)).all()
    wicks = np.log(bars.high / bars.low) - np.abs(np.log(bars.close / bars.open))
    kept = np.log(shuffled.high / shuffled.low) - np.abs(np.log(shuffled.close / shuffled.open))
    np.testing.assert_allclose(np.sort(kept), np.sort(wicks), atol=1e-12)


def test_probed_bars_hold_session_starts_ends_and_the_last_bars(bars: Bars) -> None:
    seen: list[Bars] = []

    def tape_of(bars: Bars) -> Tape:
        seen.append(bars)
        return build_tape(bars)

    tape = build_tape(bars)
    assert causality.truncation(bars, tape, tape_of, seed=0).held
    ends = np.searchsorted(bars.timestamp, [each.timestamp[-1] for each in seen])
    assert all(each.n == LOOKBACK + 1 for each in seen)
    assert 20 <= ends.size <= 30
    assert {bars.n - 2, bars.n - 1, LOOKBACK} <= set(ends)
    assert bars.sessions.last[ends].sum() >= causality.SESSION_BARS
    assert bars.sessions.last[ends - 1].sum() >= causality.SESSION_BARS
