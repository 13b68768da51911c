"""The live policy: what it refuses, when it decides, how it starts and stops."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sentio_rllib.deploy.account import DecisionError, Portfolio
from sentio_rllib.deploy.export import DecisionModel
from sentio_rllib.deploy.feed import Bar, place
from sentio_rllib.deploy.live import TradingPolicy
from sentio_rllib.errors import BarsError, SentioError
from sentio_rllib.market import sessions
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.sessions import MINUTE_NS, assign_sessions
from sentio_rllib.market.tape import build_tape
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.trading.simulator import Simulator
from tests.deploy.replay import SMALL, bar_at, bundle_of, busy_network, small_bars
from tests.deploy.warm import FLAT, NEEDED, RULES, SPEC, fresh, same, told, warm
from tests.trading.tapes import bars_of, whole

# --- decisions ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bars() -> Bars:
    return small_bars()


def test_a_decision_says_it_all(bars: Bars) -> None:
    policy = warm(bars)
    decision = policy.decide(FLAT)
    assert decision.name == ("Hold", "Buy", "Sell")[decision.action]
    assert decision.probabilities.sum() == pytest.approx(1.0, abs=1e-6)
    assert decision.mask.tolist() == [True, True, False]
    assert decision.probabilities[2] == 0.0
    assert decision.quantiles is not None
    assert decision.quantiles.shape == (SMALL["quantiles"],)
    assert decision.value == pytest.approx(decision.quantiles.mean(), rel=1e-5, abs=1e-7)
    assert decision.regime_weights is not None
    assert decision.regime_weights.sum() == pytest.approx(1.0, abs=1e-6)
    assert decision.timestamp == policy.last_bar == bars.timestamp[NEEDED + 100].astype("datetime64[ns]")
    held = policy.decide(Portfolio(60_000.0, 100.0))
    fraction = 100.0 * bars.close[NEEDED + 100] / (60_000.0 + 100.0 * bars.close[NEEDED + 100])
    assert held.target_fraction == pytest.approx({0: fraction, 1: 0.95, 2: 0.0}[held.action])


def test_without_masks_it_says_what_cannot_be_done(bars: Bars) -> None:
    network = busy_network(PolicySpec(variant="standard", hidden=(8,)))
    with torch.no_grad():
        network.policy_head.linear.bias[..., 2] = 1e4  # always sells
    policy = TradingPolicy(bundle_of(network, TradingRules(masks="none")))
    policy.warm_up(bars.slice(0, 500))
    decision = policy.decide(FLAT)
    assert (decision.name, decision.executable, decision.target_fraction) == ("Sell", False, 0.0)
    assert decision.mask.all()
    assert decision.quantiles is None
    assert decision.regime_weights is None
    assert policy.decide(Portfolio(0.0, 10.0)).executable


def test_asking_twice_changes_nothing(bars: Bars) -> None:
    policy = warm(bars)
    first = policy.decide(FLAT)
    before = policy.get_state()
    assert told(policy.decide(FLAT)) == told(first)
    assert same(before, policy.get_state())


def test_decisions_are_due_every_interval_from_the_last_bar_of_history(bars: Bars) -> None:
    policy = warm(bars)
    due = [policy.decision_due]
    for index in range(NEEDED + 101, NEEDED + 131):
        policy.update(bar_at(bars, index))
        due.append(policy.decision_due)
    assert np.flatnonzero(due).tolist() == [0, 15, 30]


def test_off_phase_is_refused_unless_asked_for(bars: Bars) -> None:
    policy = warm(bars)
    policy.update(bar_at(bars, NEEDED + 101))
    with pytest.raises(DecisionError, match=r"no decision is due .* every 15 bars, the next in 14; .*off_phase=True"):
        policy.decide(FLAT)
    assert policy.decide(FLAT, off_phase=True).timestamp == policy.last_bar
    assert not policy.decision_due


def test_not_ready_says_what_is_needed_and_seen(bars: Bars) -> None:
    policy = fresh()
    with pytest.raises(DecisionError, match=f"not ready: {NEEDED} bars are needed and 0 were seen"):
        policy.decide(FLAT)
    policy.warm_up(bars.slice(0, NEEDED - 1))
    assert not policy.is_ready
    with pytest.raises(DecisionError, match=f"{NEEDED} bars are needed and {NEEDED - 1} were seen; pass history"):
        policy.report(FLAT)
    policy.update(bar_at(bars, NEEDED - 1))
    assert policy.is_ready
    assert policy.decision_due  # the first bar at which it is ready is the start
    policy.decide(FLAT)


def test_it_warms_up_from_bars_fed_or_from_history_alike(bars: Bars) -> None:
    fed, last = fresh(), NEEDED + 40
    for index in range(last + 1):
        fed.update(bar_at(bars, index))
    fed.restart()
    assert told(fed.decide(FLAT)) == told(warm(bars, last).decide(FLAT))


def test_it_sees_the_batch_features_and_no_more(bars: Bars) -> None:
    """The last rows of the policy's window are the tape's; a changed future bar cannot reach them."""
    last = NEEDED + 100
    decision = warm(bars, last).decide(FLAT)
    assert told(warm(bars.slice(0, last + 1), last).decide(FLAT)) == told(decision)
    tape = build_tape(bars)
    network = busy_network(SPEC)
    market = torch.from_numpy(tape.features[last - SPEC.receptive_field + 1 : last + 1]).unsqueeze(0)
    simulator = Simulator(tape.tensors(), RULES, 1, horizon=None)
    simulator.reset(whole(1), bars_of(1, last), bars_of(1, tape.n))
    seen = simulator.observe()
    with torch.no_grad():
        output = DecisionModel(network)(market, seen.portfolio, seen.mask)
    np.testing.assert_allclose(decision.probabilities, output.probabilities[0].numpy(), atol=1e-5)


# --- bars --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"timestamp": -1}, "was there already, the last one taken is"),
        ({"timestamp": -2}, "comes late or out of order"),
        ({"timestamp": 0.5}, "on no full minute"),
        ({"timestamp": "2020-01-03"}, "is no stamp"),
        ({"timestamp": True}, "is no stamp"),
        ({"timestamp": datetime(2020, 1, 6, 15, 0)}, "carries no time zone"),  # noqa: DTZ001  # naive is the point
        ({"timestamp": np.datetime64("NaT")}, "outside the years"),
        ({"timestamp": 1_700_000_000}, "outside the years"),
        ({"timestamp": 60 * 24}, "outside the sessions of XNYS"),
        ({"close": math.nan}, "close is nan, no finite number"),
        ({"open": math.inf}, "open is inf"),
        ({"volume": None}, "volume is None"),
        ({"open": "300"}, "open is '300', no finite number"),
        ({"close": True}, "close is True, no finite number"),
        ({"timestamp": np.timedelta64(28_000_000, "m")}, "is no stamp"),
        ({"timestamp": pd.Timestamp("2020-01-06T15:00:00.000000001Z")}, "on no full minute"),
        ({"low": 0.0}, "a price is not positive"),
        ({"close": -1.0}, "a price is not positive"),
        ({"volume": -1.0}, "volume -1 is negative"),
        ({"high": 1.0, "open": 1.0}, "high < low"),
        ({"close": 1e6}, "open or close lies outside low .. high"),
    ],
)
def test_bars_that_are_refused_leave_no_trace(bars: Bars, change: dict[str, Any], match: str) -> None:
    policy = warm(bars)
    policy.decide(FLAT)
    good = bar_at(bars, NEEDED + 101)
    stamp = change.get("timestamp")
    if isinstance(stamp, int | float) and not isinstance(stamp, bool) and abs(stamp) < 1e6:
        change = {"timestamp": int(good.timestamp) + int(stamp * MINUTE_NS)}
    before = copy.deepcopy(policy.get_state())
    with pytest.raises(BarsError, match=match) as caught:
        policy.update(Bar(**(vars(good) | change)))
    assert len(caught.value.lines) == 1
    assert same(before, policy.get_state())
    policy.update(good)


def test_what_is_no_history_no_bar_and_no_portfolio_is_named(bars: Bars) -> None:
    policy = warm(bars)
    before = policy.get_state()
    with pytest.raises(BarsError, match="a tuple is none; pass Bars, the first of the two"):
        policy.warm_up((bars, None))  # type: ignore[arg-type]
    with pytest.raises(BarsError, match=r"bar: \{\} is none; pass a Bar\("):
        policy.update({})  # type: ignore[arg-type]
    with pytest.raises(DecisionError, match=r"portfolio: \(1, 2\) is none"):
        policy.decide((1, 2))  # type: ignore[arg-type]
    assert same(before, policy.get_state())


def test_history_of_another_market_is_refused(bars: Bars) -> None:
    with pytest.raises(BarsError, match=r"those of XNYS, this policy was trained on 24/7"):
        fresh(calendar="24/7", session_minutes=1440).warm_up(bars)
    stamps = np.append(bars.timestamp[:390], bars.timestamp[389] + MINUTE_NS)
    values = {name: np.append(getattr(bars, name)[:390], 300.0) for name in ("open", "high", "low", "close", "volume")}
    late = Bars(symbol="SYN", timestamp=stamps, sessions=assign_sessions(stamps)[0], **values)
    with pytest.raises(BarsError, match="1 bars lie outside"):
        fresh().warm_up(late)
    fresh(hours="all").warm_up(late)


# --- sessions and cuts -------------------------------------------------------------------------------------------


def test_a_new_year_builds_no_calendar(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh()

    def fail(*_: object) -> None:
        raise AssertionError("a calendar is built")

    monkeypatch.setattr(sessions, "_open_calendar", fail)
    previous = None
    for year in range(1995, 2100):
        stamp = int(np.datetime64(f"{year}-12-20T15:00", "ns").astype(np.int64))
        place(stamp, previous, "XNYS", "all")
        previous = stamp


@pytest.mark.parametrize("missing", [60, 61, 200])
def test_an_outage_forgets_nothing_of_the_account(bars: Bars, missing: int) -> None:
    """Drawdown, peak and stop go on behind a hole, as does the phase, until the user restarts."""
    last = 390 * 2 + 20
    policy = warm(bars, last)
    policy.decide(Portfolio(50_000.0, 100.0))
    policy.report(Portfolio(30_000.0, 100.0))  # a fifth of what there was is lost
    assert policy.stop_reached
    policy.update(bar_at(bars, last + missing + 1))
    assert policy.stop_reached
    assert not policy.decision_due
    policy.restart()
    assert policy.decision_due
    assert not policy.stop_reached


def test_a_missing_session_changes_no_phase(bars: Bars) -> None:
    policy = warm(bars, 389 + 390)
    policy.update(bar_at(bars, 390 * 3))
    assert not policy.decision_due
    assert policy.minutes_left == 389
    assert policy.is_ready  # features count bars, not minutes


# --- splits and dividends ----------------------------------------------------------------------------------------


def in_new_shares(bars: Bars, scale: float, shares: float) -> Bars:
    """The bars as a vendor gives them who has adjusted them all."""
    prices = {name: getattr(bars, name) * scale for name in ("open", "high", "low", "close")}
    return replace(bars, **prices, volume=bars.volume * shares)


@pytest.mark.parametrize(("split", "dividend"), [(2.0, 0.0), (0.1, 0.0), (1.0, 3.0), (4.0, 2.5)])
def test_after_a_split_or_a_dividend_it_decides_as_on_adjusted_bars(bars: Bars, split: float, dividend: float) -> None:
    last = 390 * 2 + 20
    scale = (1.0 - dividend / bars.close[last]) / split
    adjusted = in_new_shares(bars, scale, split)
    told_late, knew = warm(bars, last), warm(adjusted, last)
    told_late.decide(Portfolio(50_000.0, 100.0))
    knew.decide(Portfolio(50_000.0 + 100.0 * dividend, 100.0 * split))
    told_late.adjust(split=split, dividend=dividend)
    later = Portfolio(50_000.0 + 100.0 * dividend, 100.0 * split)
    for index in range(last + 1, last + 31):
        for policy in (told_late, knew):
            policy.update(bar_at(adjusted, index))
        assert told_late.stop_reached == knew.stop_reached is False
        if knew.decision_due:
            first, second = told_late.decide(later), knew.decide(later)
            assert first.action == second.action
            np.testing.assert_allclose(first.probabilities, second.probabilities, atol=1e-5)


def test_without_it_a_split_reaches_the_stop(bars: Bars) -> None:
    last = 390 * 2 + 20
    halved = in_new_shares(bars, 0.5, 2.0)
    policy = warm(bars, last)
    policy.decide(Portfolio(5_000.0, 200.0))
    policy.update(bar_at(halved, last + 1))
    assert policy.stop_reached


@pytest.mark.parametrize("wrong", [{"split": 0.0}, {"split": float("nan")}, {"dividend": -1.0}, {"dividend": 1e9}])
def test_no_such_split_or_dividend(bars: Bars, wrong: dict[str, float]) -> None:
    with pytest.raises(DecisionError, match="allowed"):
        warm(bars, NEEDED).adjust(**wrong)


def test_the_window_is_moved_without_a_seam(bars: Bars) -> None:
    """More bars than the buffer of windows holds."""
    policy, last = warm(bars, NEEDED), NEEDED + 1_500
    for index in range(NEEDED + 1, last + 1):
        policy.update(bar_at(bars, index))
    policy.restart()
    assert told(policy.decide(FLAT)) == told(warm(bars, last).decide(FLAT))


# --- the account -------------------------------------------------------------------------------------------------


def test_the_drawdown_stop_closes_and_stays_closed(bars: Bars) -> None:
    policy = warm(bars)
    last = NEEDED + 100
    policy.decide(FLAT)
    for index in range(last + 1, last + 16):
        policy.update(bar_at(bars, index))
        if index == last + 1:
            policy.report(Portfolio(100.0, 250.0))
            assert policy.stop_reached == (100.0 + 250.0 * bars.close[index] <= 80_000.0)
    assert policy.stop_reached  # 250 shares near 300 are worth less than four fifths of 100,000
    decision = policy.decide(Portfolio(100.0, 250.0))
    assert (decision.name, decision.stopped, decision.target_fraction) == ("Sell", True, 0.0)
    assert decision.mask.tolist() == [True, False, True]
    for index in range(last + 16, last + 31):
        policy.update(bar_at(bars, index))
    flat = policy.decide(Portfolio(75_000.0, 0.0))
    assert (flat.name, flat.stopped, flat.mask.tolist()) == ("Hold", True, [True, False, False])
    policy.restart()
    again = policy.decide(Portfolio(75_000.0, 0.0))
    assert not again.stopped


@pytest.mark.parametrize("portfolio", [Portfolio(0.0, 0.0), Portfolio(-1e6, 1.0)])
def test_an_account_worth_nothing_is_refused(bars: Bars, portfolio: Portfolio) -> None:
    policy = warm(bars)
    policy.decide(FLAT)
    before = policy.get_state()
    with pytest.raises(SentioError, match="worth more than 0"):
        policy.decide(portfolio)
    assert same(before, policy.get_state())
