"""The figures that describe a policy out of sample, for people: one table for champion and baselines alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sentio_rllib.statistics import metrics
from sentio_rllib.statistics.inputs import Floats
from sentio_rllib.validation.baselines import Baselines
from sentio_rllib.validation.evaluation import Record
from sentio_rllib.validation.series import timing_returns

MONTHS = (21, 22)
"""Sessions of a month, of which both are told."""


def describe(
    returns: Floats,
    timing: Floats,
    records: Sequence[Record],
    *,
    sessions_per_year: int,
    initial_cash: float,
    count: int,
) -> dict[str, Any]:
    """Return the figures of one policy; None for what does not exist (no round trip, a ratio to nothing).

    Parameters
    ----------
    returns, timing
        float64[S >= 1], net session returns, and :func:`~sentio_rllib.validation.series.timing_returns`.
    records
        Whose blocks the returns are made of, one per fold and seed.
    sessions_per_year, initial_cash
        Of the calendar; dollars that each block starts with.
    count
        Records of the same bars (seeds, and paths of combinatorial splits): counts and sums are divided by it.

    Returns
    -------
    dict
        Ratios are annual, ``mean_return`` is per bar; drawdowns are the worst of all records, marked at every
        close, while ``calmar`` takes the one between closes of sessions; ``total_return`` of one record compounds its
        bars, of several the `returns`, which are sums within sessions; ``turnover_per_day`` is in units of
        ``initial_cash``; ``win_rate`` is of closed round trips.
    """

    def total(name: str) -> float:
        return float(sum(getattr(record, name) for record in records)) / count

    equity = metrics.equity_curve(np.maximum(returns, -1.0))  # sums within a session can fall below a total loss
    sessions, trips = returns.size, sum(record.trips for record in records)
    alone = records[0].total_return if len(records) == 1 else None
    decisions = sum(record.decisions for record in records)
    return {
        "sharpe": metrics.sharpe(returns, sessions_per_year),
        "timing_sharpe": metrics.sharpe(timing, sessions_per_year),
        "sortino": _finite(metrics.sortino(returns, sessions_per_year)),
        "calmar": _finite(metrics.calmar(returns, sessions_per_year)),
        "total_return": metrics.total_return(equity) if alone is None else alone,
        "mean_return": sum(record.mean_return * record.bars for record in records) / count / total("bars"),
        **{f"monthly_return_{month}": metrics.projected_return(returns, month) for month in MONTHS},
        "max_drawdown": max(record.max_drawdown for record in records),
        "longest_drawdown_bars": max(record.longest_drawdown for record in records),
        "cvar": metrics.cvar(returns),
        "win_rate": sum(record.winning_trips for record in records) / trips if trips else None,
        "trips": total("trips"),
        "trades": total("trades"),
        "trades_per_day": total("trades") / sessions,
        "drawdown_stops": total("drawdown_stops"),
        "turnover_per_day": total("turnover_usd") / initial_cash / sessions,
        "exposure": sum(record.exposure * record.decisions for record in records) / decisions,
        "fees_usd": total("fees_usd"),
        "sessions": sessions,
        "bars": round(total("bars")),
    }


def describe_baselines(found: Baselines, *, sessions_per_year: int, initial_cash: float) -> dict[str, dict[str, Any]]:
    """Return the figures of ``flat``, ``hold``, ``sma`` and, where there are any, ``oracle`` and ``random``.

    The last are means over the draws, with the 95% range of their Sharpe ratios (``sharpe_low``, ``sharpe_high``)
    and how many there are (``draws``). Parameters as in :func:`describe`.
    """

    def figures(record: Record) -> dict[str, Any]:
        timing = timing_returns(record, found.hold)
        shared = {"sessions_per_year": sessions_per_year, "count": 1}
        return describe(record.session_returns, timing, [record], initial_cash=initial_cash, **shared)

    told = {name: figures(record) for name, record in (("flat", found.flat), ("hold", found.hold), ("sma", found.sma))}
    if found.oracle is not None:
        told["oracle"] = figures(found.oracle)
    if found.random:
        draws = [figures(record) for record in found.random]
        low, high = np.quantile([each["sharpe"] for each in draws], [0.025, 0.975])
        told["random"] = mean_of(draws) | {"sharpe_low": float(low), "sharpe_high": float(high), "draws": len(draws)}
    return told


def mean_of(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of each figure over several policies; None where any of them has none."""
    return {
        key: None if any(each[key] is None for each in figures) else float(np.mean([each[key] for each in figures]))
        for key in figures[0]
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
