"""What a sweep may claim: the statistics of its search and of its champion, put together at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.evidence.context import Context
from sentio_rllib.evidence.holdout import Opened
from sentio_rllib.evidence.selecting import Selected
from sentio_rllib.statistics.deflation import headline
from sentio_rllib.statistics.targets import compare_targets
from sentio_rllib.statistics.verdict import no_champion, nothing_judged, reach_verdict, weigh_holdout
from sentio_rllib.validation.series import Series

_FIGURES = ("effective_trials", "psr", "dsr", "pbo", "spa_p", "min_trl_years", "min_btl_years")


@dataclass(frozen=True)
class Findings:
    """What :func:`judge` found.

    Attributes
    ----------
    summary
        Parts of the sweep's summary.
    equity
        Session returns of champion and buy-and-hold.
    state
        Of the sweep.
    """

    summary: dict[str, Any]
    equity: pd.DataFrame
    state: str


def judge(sweep: Context, selected: Selected, opened: Opened) -> Findings:
    """Return what the trials of a sweep and its champion show."""
    if selected.best is None:
        return _without_champion(selected)
    config, examiner = sweep.config, selected.examiner
    trial, cv, deflated = selected.best.trial, selected.best.cv, selected.best.statistics
    holdout, told = None, opened.told
    if told is not None and opened.record is not None and opened.tape is not None:
        holdout = examiner.holdout(trial, opened.record, opened.tape)
        told = told | holdout.told | {"weight": _weight(holdout.series, deflated["timing"], examiner.year)}
    scope = f"{costs_of(config)}, {market_of(config, sweep.prepared.bars.symbol)}"
    evidence = reach_verdict(deflated, told, confidence=config.evidence.confidence, scope=scope).summary()
    reached = None if holdout is None else holdout.reached
    summary = {
        "evidence": evidence | headline(deflated) | deflated | {"ledger": selected.counts},
        "cv": cv.told,
        "holdout": told,
        "targets": compare_targets(examiner.targets(), cv.reached, reached),
        "stress": examiner.stress(trial) if config.evidence.stress and sweep.go_on() else None,
    }
    equity = equity_table([part.equity for part in (cv, holdout) if part is not None])
    return Findings(summary, equity, "interrupted" if opened.given_up else selected.state)


def _weight(series: Series, timing: Mapping[str, Any], year: int) -> dict[str, Any]:
    """What the holdout is worth, given the edge that cross-validation shows beyond luck."""
    known = timing["sharpe"] is not None
    edge = timing["sharpe"] - timing["expected_maximum_sharpe"] if known else None
    return weigh_holdout(series.excess, series.timing, edge, sessions_per_year=year)


def costs_of(config: SweepConfig) -> str:
    """Return what trading costs, for people: "fee 0.1% a side, half spread 1 bp"."""
    trading = config.trading
    costs = [f"fee {100 * trading.fee_rate:g}% a side"]
    if trading.half_spread_bps:
        costs.append(f"half spread {trading.half_spread_bps:g} bp")
    if trading.impact:
        costs.append(f"impact {trading.impact:g}")
    if trading.cash_rate:
        costs.append(f"idle cash earns {100 * trading.cash_rate:g}% a year")
    return ", ".join(costs)


def market_of(config: SweepConfig, symbol: str) -> str:
    """Return what was traded, for people: its symbol, or that it is synthetic and what is planted there."""
    if config.data.path is not None:
        return symbol
    return f"synthetic market {'with a planted edge' if config.data.synthetic.edge else 'without an edge'}"


def _without_champion(selected: Selected) -> Findings:
    if selected.state == "failed":
        judgement = nothing_judged("what trials failed of says nothing of the market")
    elif not selected.scored:
        judgement = nothing_judged("no trial was scored")
    else:
        judgement = no_champion("no trading: no scored trial's median member trades")
    evidence = {**dict.fromkeys(_FIGURES), **judgement.summary()}
    evidence |= {"n_trials": selected.looks, "ledger": selected.counts}
    summary = {"evidence": evidence, **dict.fromkeys(("cv", "holdout", "targets", "stress"))}
    return Findings(summary, equity_table([]), selected.state)


def equity_table(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return session returns in long form: ``part, session, champion, hold``."""
    empty = pd.DataFrame(columns=["part", "session", "champion", "hold"])
    return pd.concat(parts, ignore_index=True) if parts else empty
