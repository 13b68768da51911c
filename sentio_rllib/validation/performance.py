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
    excess: Floats | None = None,
) -> dict[str, Any]:
    """Return the figures of one policy; None for what does not exist (no round trip, a ratio to nothing).

    Ratios are annual; ``total_return`` is what the `returns` compound to, ``mean_return`` the same per bar; drawdowns
    are the worst of all records, at every close, but that of ``calmar`` at closes of sessions; ``turnover_per_day`` is
    in units of ``initial_cash``; ``cuts_return`` is what bars behind cuts brought to what was held.

    Parameters
    ----------
    returns, timing
        float64[S >= 1], net session returns, and :func:`~sentio_rllib.validation.series.timing_returns`.
    records
        Whose blocks the returns are made of, one per fold and seed.
    sessions_per_year, initial_cash
        Of the calendar; what each block starts with.
    excess
        float64[S], `returns` beyond idle cash, None where it earns nothing; ``sharpe`` is of them.
    count
        Records of the same bars (seeds, paths of combinatorial splits), by which counts and sums are divided.
    """

    def total(name: str) -> float:
        return float(sum(getattr(record, name) for record in records)) / count

    equity = metrics.equity_curve(returns)
    sessions, trips, bars = returns.size, sum(each.trips for each in records), sum(each.bars for each in records)
    return {
        "sharpe": metrics.sharpe(returns if excess is None else excess, sessions_per_year),
        "sharpe_with_cash": metrics.sharpe(returns, sessions_per_year),
        "timing_sharpe": metrics.sharpe(timing, sessions_per_year),
        "sortino": _finite(metrics.sortino(returns, sessions_per_year)),
        "calmar": _finite(metrics.calmar(returns, sessions_per_year)),
        "total_return": metrics.total_return(equity),
        "mean_return": float(equity[-1] ** (1.0 / total("bars"))) - 1.0,
        **{f"monthly_return_{month}": metrics.projected_return(returns, month) for month in MONTHS},
        "max_drawdown": max(record.max_drawdown for record in records),
        "longest_drawdown_bars": max(record.longest_drawdown for record in records),
        "cvar": metrics.cvar(returns),
        "win_rate": sum(record.winning_trips for record in records) / trips if trips else None,
        **{name: total(name) for name in ("trips", "trades")},
        "trades_per_day": total("trades") / sessions,
        "drawdown_stops": total("drawdown_stops"),
        **{f"masked_{cause}": _masked(records, cause) for cause in ("volatility", "clock", "drawdown")},
        "cuts_held": total("cuts_held"),
        "cuts_return": math.expm1(sum(math.log1p(record.cuts_return) for record in records) / count),
        "turnover_per_day": total("turnover_usd") / initial_cash / sessions,
        "exposure": sum(record.exposure * record.bars for record in records) / bars,
        "fees_usd": total("fees_usd"),
        "sessions": sessions,
        "bars": round(total("bars")),
    }


def describe_record(
    record: Record, hold: Record, *, sessions_per_year: int, initial_cash: float, market: Floats | float
) -> dict[str, Any]:
    """Return the figures of one record; parameters as in :func:`describe_baselines`, `hold` on the same blocks."""
    return describe(
        record.session_returns,
        timing_returns(record, hold, market),
        [record],
        sessions_per_year=sessions_per_year,
        initial_cash=initial_cash,
        count=1,
        excess=record.excess_returns,
    )


def describe_baselines(
    found: Baselines, *, sessions_per_year: int, initial_cash: float, market: Floats | float
) -> dict[str, dict[str, Any]]:
    """Return the figures of ``flat``, ``hold``, ``sma`` and, where there are any, ``oracle`` and ``random``.

    The last are means over the draws, with the 95% range of their Sharpe ratios (``sharpe_low``, ``sharpe_high``)
    and how many there are (``draws``). Parameters as in :func:`describe` and
    :func:`~sentio_rllib.validation.series.timing_returns`.
    """

    def figures(record: Record) -> dict[str, Any]:
        return describe_record(
            record, found.hold, sessions_per_year=sessions_per_year, initial_cash=initial_cash, market=market
        )

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


def _masked(records: Sequence[Record], cause: str) -> float | None:
    """Share of the decisions with room for a Buy at which risk masks forbid it for a cause; None without such masks."""
    could = sum(record.could_buy for record in records)
    return sum(getattr(record, f"masked_{cause}") for record in records) / could if could else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
