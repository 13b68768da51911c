"""Walks a bundle over the bars of a file.

The bundle walks the bars as one long validation block, greedily, by its own rules and costs; what it holds before a
hole it holds over it. Look-ahead: on bars that it was trained or selected on, a backtest shows what was learned, not
what it is worth; it warns of those that it knows of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sentio_rllib.config.loading import build_config
from sentio_rllib.config.yaml_files import apply_overrides
from sentio_rllib.deploy.bundle import Bundle
from sentio_rllib.deploy.trades import Walked, walk_blocks
from sentio_rllib.errors import BarsError, ConfigError
from sentio_rllib.market.bars import load_bars
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.tape import Tape, build_tape
from sentio_rllib.policy.checkpoint import MANIFEST
from sentio_rllib.search.durable import write_json
from sentio_rllib.validation.baselines import NO_STOP, run_baselines
from sentio_rllib.validation.performance import describe_baselines, describe_record
from sentio_rllib.validation.schemes import Range

_FILES = ("metrics.json", "trades.parquet", "equity.parquet")


class Backtest(NamedTuple):
    """What a bundle did on bars: its way, and :func:`describe`'s figures of it (``policy``) and of the baselines."""

    walked: Walked
    figures: dict[str, dict[str, Any]]


def read_data(bundle: Bundle, path: Path, overrides: Sequence[str] = ()) -> tuple[Bars, list[str]]:
    """Read the bars of a file by the calendar and hours of `bundle`; return them and what was found.

    Parameters
    ----------
    bundle
        Whose market it is.
    path
        feather, parquet or csv.
    overrides
        ``data.KEY=VALUE``, as in the `data` section of a sweep's configuration.

    Raises
    ------
    ConfigError, BarsError
        A key is unknown or no key of `data`; the file is missing or wrong.
    """
    other = [each for each in overrides if not each.strip().startswith("data.")]
    if other:
        raise ConfigError(*(f"--set {each}: a backtest takes keys of data only, as data.tz" for each in other))
    raw: dict[str, Any] = {"data": {"path": str(path), "calendar": bundle.calendar, "hours": bundle.hours}}
    mistakes = apply_overrides(raw, overrides)
    data = build_config(raw, mistakes=mistakes, trial=True).data  # no folds are made of them
    if (data.calendar, data.hours) != (bundle.calendar, bundle.hours):
        raise ConfigError(
            f"data: calendar {data.calendar} and hours {data.hours}; this bundle was trained on {bundle.calendar} and "
            f"{bundle.hours}: leave both out"
        )
    assert data.path is not None
    try:
        bars, report = load_bars(data.path, **data.model_dump(exclude={"path", "bars", "synthetic"}))
    except BarsError as error:
        raise BarsError(*(f"{line} (options are passed as --set data.OPTION=VALUE)" for line in error.lines)) from error
    if data.bars is not None and data.bars < bars.n:
        bars = bars.slice(bars.n - data.bars, bars.n)
    return bars, report.lines()


def block_of(bundle: Bundle, tape: Tape) -> Range:
    """Return the bars that `bundle` walks: all behind those that warm the features up, across cuts.

    Raises
    ------
    BarsError
        Too few for a decision; says how many are needed.
    """
    first, least = tape.warmup + bundle.network.spec.receptive_field - 1, bundle.rules.decision_interval + 2
    if tape.n < first + least:
        raise BarsError(
            f"{tape.n:,} bars: {first + least:,} are needed, of which the first {first:,} warm the features up; bring "
            "a longer file"
        )
    return Range(first, tape.n)


def run_backtest(bundle: Bundle, bars: Bars, *, seed: int = 0) -> Backtest:
    """Walk `bars` with the bundle and with the baselines.

    Parameters
    ----------
    bundle
        Its rules give costs and pace.
    bars
        Of its calendar.
    seed
        Of the random traders.

    Raises
    ------
    BarsError
        Too few bars for a decision.
    """
    rules = bundle.rules
    tape = build_tape(bars, bundle.network.spec.features, reference_volatility=bundle.reference_volatility)
    blocks = [block_of(bundle, tape)]
    walked = walk_blocks(bundle.network, tape, rules, blocks)
    open_rules = rules.replace(max_drawdown=NO_STOP)
    found = run_baselines(tape.tensors(), open_rules, blocks, agent=[walked.record], seed=seed)
    # from the sweep's own folds; the market's mean on these very bars would be known only afterwards
    market = float((bundle.metadata.get("cv") or {}).get("market_mean") or 0.0)
    year, cash = tape.sessions_per_year, rules.initial_cash
    policy = describe_record(walked.record, found.hold, sessions_per_year=year, initial_cash=cash, market=market)
    baselines = describe_baselines(found, sessions_per_year=year, initial_cash=cash, market=market)
    figures = {"policy": policy, **baselines}
    return Backtest(walked, figures)


def another_market(metadata: Mapping[str, Any], bars: Bars) -> str | None:
    """Return a warning where the bundle with `metadata` was made on another symbol than that of `bars`; else None."""
    symbol = (metadata.get("data") or {}).get("symbol")
    if symbol in (None, bars.symbol):
        return None
    return f"the bundle was made on {symbol}, these bars are of {bars.symbol}: its verdict says nothing of them"


def overlap(metadata: Mapping[str, Any], bars: Bars, scored: int = 0) -> str | None:
    """Return a warning where bars are, or touch, those that the bundle with `metadata` was made on; else None.

    Parameters
    ----------
    metadata
        Of the bundle.
    bars, scored
        What is walked, and how many bars at its beginning only warm up.
    """
    data, holdout = metadata.get("data") or {}, metadata.get("holdout") or {}
    if data.get("fingerprint") == bars.fingerprint:
        return "the bundle was made on these very bars: the figures show what it learned there, not its worth"
    first, last = data.get("first"), data.get("last")
    if not (first and last):
        return "the bundle does not say on which bars it was made, so these may be among them"
    walked = bars.timestamp[scored:]
    walked = walked[(walked >= pd.Timestamp(first).value) & (walked <= pd.Timestamp(last).value)]
    opens = holdout.get("first")
    made_on = walked.size if opens is None else int((walked < pd.Timestamp(opens).value).sum())
    if made_on:
        return (
            f"{made_on:,} of {bars.n - scored:,} bars lie in {first} .. {last}, from which the bundle was made: the "
            "figures show what it learned there, not its worth; if this is another market, its luck may be shared"
        )
    if walked.size:
        return (
            f"{walked.size:,} of {bars.n - scored:,} bars lie in the holdout of the sweep, {opens} .. {last}: the "
            "networks were not trained on them, and the sweep has told its result on them already"
        )
    return None


def check_output(folder: Path) -> None:
    """Refuse a folder that holds another backtest or a bundle.

    Raises
    ------
    ConfigError
        Names the file that is in the way.
    """
    for name in (*_FILES, MANIFEST):
        if (folder / name).exists():
            raise ConfigError(f"--output {folder}: {name} is there already; name another folder")


def write_backtest(folder: Path, bundle: Bundle, bars: Bars, result: Backtest, notes: Sequence[str]) -> None:
    """Write ``metrics.json``, ``trades.parquet`` and ``equity.parquet`` to `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        result.walked.trades.to_parquet(folder / "trades.parquet")
        result.walked.equity.to_parquet(folder / "equity.parquet")
        data = {"symbol": bars.symbol, "bars": bars.n, "first": bars.first, "last": bars.last}
        content = {"bundle": bundle.name, "data": data | {"fingerprint": bars.fingerprint}, "notes": list(notes)}
        write_json(folder / "metrics.json", content | {"figures": result.figures})
    except OSError as error:
        raise ConfigError(f"--output {folder}: cannot be written ({error}); choose another") from error


def verdict_of(bundle: Bundle) -> str:
    """What the sweep or run that made the bundle says of it."""
    metadata = bundle.metadata
    evidence, note = metadata.get("evidence") or {}, metadata.get("evidence_note")
    verdict = evidence.get("claim") or evidence.get("verdict")
    if verdict is None:
        return f"{bundle.name}: no verdict, {note or 'it was not selected by a sweep'}"
    return f"{bundle.name}: the verdict of its sweep is {verdict!r}" + (f"; {note}" if note else "")
