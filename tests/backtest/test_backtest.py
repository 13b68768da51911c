"""Backtests: the trade log accounts for every dollar, the command reads, warns, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sentio_rllib.backtest.__main__ import main
from sentio_rllib.backtest.walking import another_market, block_of, overlap, read_data, run_backtest
from sentio_rllib.deploy.bundle import load_bundle, write_bundle
from sentio_rllib.deploy.trades import walk_blocks
from sentio_rllib.errors import BarsError, ConfigError
from sentio_rllib.market.bars import write_bars
from sentio_rllib.market.checks import iso_minute
from sentio_rllib.market.tape import build_tape
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.splits import Range
from tests.deploy.replay import SMALL, bundle_of, busy_network, small_bars

BUSY = {"half_spread_bps": 3.0, "impact": 2.0, "position_step": 0.5}
RULES = {
    "plain": TradingRules(fee_rate=0.0005),
    "closed daily": TradingRules(fee_rate=0.0005, flat_by_close=True, **BUSY),
    "stopped": TradingRules(fee_rate=0.0, max_drawdown=0.015, **BUSY),
    "stopped or closed": TradingRules(
        fee_rate=0.0, max_drawdown=0.02, position_step=0.3, flat_by_close=True, close_minutes=0
    ),
    "stopped, no fills between": TradingRules(fee_rate=0.0, max_drawdown=0.015, decision_interval=1),
}


@pytest.mark.parametrize("name", RULES)
def test_the_trade_log_accounts_for_every_dollar(name: str) -> None:
    rules = RULES[name]
    spec = PolicySpec(variant="maskable", hidden=(8,), patch=rules.decision_interval)
    tape = build_tape(small_bars())
    blocks = [Range(600, 1_300), Range(1_300, 1_950), Range(2_100, 2_990)]
    walked = walk_blocks(busy_network(spec), tape, rules, blocks)
    trades, equity, record = walked.trades, walked.equity, walked.record
    assert len(trades) > 20
    assert trades["notional_usd"].sum() == pytest.approx(record.turnover_usd, rel=1e-12)
    assert trades["fee_usd"].sum() == pytest.approx(record.fees_usd, rel=1e-12, abs=1e-12)
    assert (trades["reason"] == "drawdown stop").sum() == record.drawdown_stops
    assert [len(actions) for actions in walked.actions] == [
        (block.stop - 2 - rules.decision_interval - block.start) // rules.decision_interval + 1 for block in blocks
    ]
    for number, block in enumerate(blocks):
        own = trades[trades["block"] == number]
        marks = equity[equity["block"] == number].set_index("time")["equity_usd"]
        sign = np.where(own["side"] == "buy", 1.0, -1.0)
        cash = rules.initial_cash - np.cumsum(sign * own["notional_usd"] + own["fee_usd"])
        held = np.cumsum(sign * own["shares"])
        np.testing.assert_allclose(cash + held * own["price"], own["equity_usd"], rtol=1e-9)
        assert abs(held.iloc[-1]) < 1e-6
        assert cash.iloc[-1] == pytest.approx(marks.iloc[-1], rel=1e-9)
        assert len(marks) == len(block)
        # at every close, what the log left in the account is what was marked
        closes = pd.Series(tape.close[block.start : block.stop], index=marks.index)
        at_open = own["reason"].isin(["order", "drawdown stop"])
        first_mark = own["filled"] + pd.to_timedelta(at_open.astype(int), unit="min")  # an open shows at its close
        account = pd.DataFrame({"cash": cash.to_numpy(), "held": held.to_numpy()}, index=first_mark)
        account = account[~account.index.duplicated(keep="last")]
        known = account.reindex(marks.index, method="ffill").fillna({"cash": rules.initial_cash, "held": 0.0})
        apart = marks.index[np.abs((known["cash"] + known["held"] * closes) / marks - 1.0) > 1e-9]
        stops = own.loc[own["reason"] == "drawdown stop", "filled"]
        assert set(apart) <= {marks.index.asof(stop) for stop in stops}  # a decision's bar shows its cash at once


def test_forced_exits_are_dated_where_they_fill() -> None:
    rules = RULES["stopped or closed"].replace(max_drawdown=0.5)
    tape = build_tape(small_bars())
    spec = PolicySpec(variant="maskable", hidden=(8,))
    trades = walk_blocks(busy_network(spec), tape, rules, [Range(600, 2_990)]).trades
    closed = trades[trades["reason"] == "session close"]
    ends = pd.DatetimeIndex(tape.timestamp[tape.session_last].view("datetime64[ns]")).tz_localize("UTC")
    assert len(closed) >= 2
    assert set(closed["filled"]) <= set(ends + pd.Timedelta(minutes=1))
    assert closed["decided"].isna().all()
    orders = trades[trades["reason"] == "order"]
    assert (orders["filled"] >= orders["decided"]).all()  # the open of the next minute is the end of this one
    lookup = dict(zip(tape.timestamp.tolist(), tape.open.tolist(), strict=True))
    filled = orders["filled"].dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    np.testing.assert_allclose(orders["price"], [lookup[each] for each in filled.tolist()], rtol=1e-12)


def test_all_bars_behind_the_warm_up_are_one_block_across_cuts() -> None:
    spec = PolicySpec(variant="enhanced-maskable", **SMALL)
    bundle = bundle_of(busy_network(spec), TradingRules())
    bars = small_bars(without=(1_203, 1_278))
    tape = build_tape(bars)
    first = 390 + spec.receptive_field - 1
    assert block_of(bundle, tape) == Range(first, tape.n)
    exactly = build_tape(bars.slice(0, first + 17))
    assert block_of(bundle, exactly) == Range(first, first + 17)
    with pytest.raises(BarsError, match=f"{first + 16:,} bars: {first + 17:,} are needed"):
        block_of(bundle, build_tape(bars.slice(0, first + 16)))


def test_figures_of_policy_and_baselines() -> None:
    rules = TradingRules(masks="none", fee_rate=0.0005)
    bundle = bundle_of(busy_network(PolicySpec(variant="standard", hidden=(8,))), rules)
    bars = small_bars()
    result = run_backtest(bundle, bars)
    assert list(result.figures) == ["policy", "flat", "hold", "sma", "random"]
    policy, hold = result.figures["policy"], result.figures["hold"]
    assert policy["trades"] == result.walked.record.trades
    assert policy["fees_usd"] == pytest.approx(result.walked.trades["fee_usd"].sum())
    assert hold["trades"] == 2
    growth = result.walked.equity["growth"].to_numpy()
    assert growth[0] == 1.0
    assert policy["total_return"] == pytest.approx(growth[-1] - 1.0, rel=1e-9)
    assert growth[-1] == pytest.approx(result.walked.equity["equity_usd"].iloc[-1] / rules.initial_cash)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"fingerprint": "same"}, "these very bars"),
        ({}, "does not say"),
        ({"first": "2020-01-01T00:00Z", "last": "2020-01-02T14:34Z"}, "5 of 3,000 bars lie in"),
        ({"first": "2019-01-01T00:00Z", "last": "2020-01-02T14:29Z"}, None),
    ],
)
def test_overlap_with_what_it_was_made_on(data: dict[str, str], told: str | None) -> None:
    bars = small_bars()
    if data.get("fingerprint"):
        data = {"fingerprint": bars.fingerprint}
    warning = overlap({"data": data}, bars)
    assert warning is None if told is None else told in (warning or "")


@pytest.mark.parametrize(
    ("scored", "told"),
    [(0, "5 of 3,000 bars lie in 2020-01-02T14:30Z .. "), (5, "2,990 of 2,995 bars lie in the holdout of the sweep")],
)
def test_bars_of_the_holdout_are_told_from_those_it_was_made_on(scored: int, told: str) -> None:
    bars = small_bars()
    data = {"first": "2020-01-02T14:30Z", "last": iso_minute(int(bars.timestamp[-6]))}
    holdout = {"first": iso_minute(int(bars.timestamp[5]))}
    assert (overlap({"data": data, "holdout": holdout}, bars, scored) or "").startswith(told)


def test_the_verdict_of_another_market_says_nothing() -> None:
    bars = small_bars()
    assert another_market({"data": {"symbol": bars.symbol}}, bars) is None
    assert another_market({}, bars) is None
    warning = another_market({"data": {"symbol": "QQQ"}}, bars)
    assert warning == f"the bundle was made on QQQ, these bars are of {bars.symbol}: its verdict says nothing of them"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder and, beside it, a file of bars."""
    place = tmp_path_factory.mktemp("backtest")
    spec = PolicySpec(variant="maskable", hidden=(8,))
    network = busy_network(spec)
    write_bundle(
        place / "model",
        "model",
        network.state_dict(),
        spec,
        network.members,
        TradingRules(),
        market={"calendar": "XNYS", "hours": "regular", "session_minutes": 390},
        metadata={"evidence": {"verdict": "not supported", "reasons": ["no edge"]}},
    )
    write_bars(small_bars(), place / "SYN_1.feather")
    return place


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(folder / "model"), "--data", str(folder / "SYN_1.feather")]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    cautions = ("caution: the bundle does not say", "caution: 7 sessions; annual figures of fewer than 20 say little")
    for part in ("'not supported'", *cautions, "policy", "hold", "random", "Sharpe"):
        assert part in told
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    trades = pd.read_parquet(tmp_path / "out" / "trades.parquet")
    equity = pd.read_parquet(tmp_path / "out" / "equity.parquet")
    assert metrics["data"]["bars"] == 3_000
    assert metrics["figures"]["policy"]["fees_usd"] == pytest.approx(trades["fee_usd"].sum())
    assert len(equity) == 3_000 - 390
    assert str(trades["filled"].dtype) == "datetime64[ns, UTC]"


def test_the_command_refuses(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(folder / "SYN_1.feather")
    assert main([str(tmp_path / "none"), "--data", data]) == 2
    assert main([str(folder / "model"), "--data", str(tmp_path / "none.csv")]) == 2
    assert main([str(folder / "model"), "--data", data, "--set", "trading.fee_rate=0"]) == 2
    assert main([str(folder / "model"), "--data", data, "--set", "data.zone=UTC"]) == 2
    (tmp_path / "file").write_text("")
    assert main([str(folder / "model"), "--data", data, "--output", str(tmp_path / "file")]) == 2
    assert main([str(folder / "model"), "--data", data, "--output", str(folder / "model")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    assert "keys of data only" in lines[2]
    assert "data.zone" in lines[3]
    assert "choose another" in lines[4]
    assert "manifest.json is there already; name another folder" in lines[5]


def test_data_are_read_by_the_bundles_calendar(folder: Path) -> None:
    bundle = load_bundle(folder / "model")
    bars, _ = read_data(bundle, folder / "SYN_1.feather", ["data.bars=1000"])
    assert bars.n == 1_000
    assert bars.fingerprint == small_bars().slice(2_000, 3_000).fingerprint
    with pytest.raises(ConfigError, match="leave both out"):
        read_data(bundle, folder / "SYN_1.feather", ["data.hours=all"])
