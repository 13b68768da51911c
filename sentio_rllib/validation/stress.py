"""Cost stress: what a policy earns when trading costs more, or comes later, than was assumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch

from sentio_rllib.errors import ConfigError
from sentio_rllib.seeding import Member
from sentio_rllib.statistics.metrics import equity_curve, sharpe, total_return
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.evaluation import Decide, Record
from sentio_rllib.validation.series import by_session

Evaluate = Callable[[TradingRules, int], Sequence[Record]]
"""(rules, bars of delay) -> records of all members under these rules, each decision made on older news."""

HIGHEST_FEE: Final = 0.05
"""Most that :class:`~sentio_rllib.trading.rules.TradingRules` allows for ``fee_rate``."""
DELAYS: Final = (1, 2, 3)
HALF_SPREADS_BPS: Final = (1.0, 2.0, 4.0)
"""Shown where no slippage is configured that could be scaled."""
BISECTIONS: Final = 9
"""Of the search for the break-even fee: with up to three evaluations before, there are at most twelve."""


class StressRow(NamedTuple):
    """Result under one change: `mean_return` net per bar and `total_return`, both compounded, `sharpe` annual."""

    name: str
    mean_return: float
    sharpe: float
    total_return: float


@dataclass(frozen=True)
class Stress:
    """What a policy earns under worse conditions.

    Attributes
    ----------
    rows
        As configured first, then slippage, delays and fee.
    breakeven_fee
        Fee a side, as a share of the notional, at which the mean net return per bar is 0. :data:`HIGHEST_FEE`
        where the policy still earns there. ``None`` where it never trades or earns nothing without a fee.
    note
        In words why there is no break-even fee or that it is higher; empty otherwise.
    """

    rows: tuple[StressRow, ...]
    breakeven_fee: float | None
    note: str


def cost_stress(
    evaluate: Evaluate, rules: TradingRules, members: Sequence[Member], *, sessions_per_year: int, count: int = 1
) -> Stress:
    """Evaluate a policy under higher costs and later decisions, and find the fee that it can bear.

    Slippage is the half spread and the impact, scaled together; without either, half spreads of 1, 2 and 4
    basis points are put in. A row is left out where the rules refuse such costs, and the doubled fee where there
    is no fee. There are at most 20 evaluations.

    Parameters
    ----------
    evaluate
        Walks the policy through the same blocks under the rules that it is given, :func:`delayed` by as many
        bars as it is given, and returns a record for each member.
    rules
        As configured.
    members
        (seed, fold) of each record.
    sessions_per_year
        Annualises the Sharpe ratio.
    count
        :func:`~sentio_rllib.validation.series.coverage` of the folds.
    """
    delays = [(f"delay {bars} bar{'s' if bars > 1 else ''}", rules, bars) for bars in DELAYS]
    fee = _allowed(rules, fee_rate=2.0 * rules.fee_rate) if rules.fee_rate > 0.0 else None
    scenarios = [("as configured", rules, 0), *_slippage(rules), *delays]
    scenarios += [("fee x2", fee, 0)] if fee else []
    rows = tuple(
        _row(name, evaluate(changed, delay), members, sessions_per_year, count) for name, changed, delay in scenarios
    )
    return Stress(rows, *breakeven_fee(evaluate, rules))


def breakeven_fee(evaluate: Evaluate, rules: TradingRules) -> tuple[float | None, str]:
    """Return the fee a side at which the mean net return per bar is 0, and a note; see :class:`Stress`.

    Bisected between no fee and twice what the turnover suggests, to 0.2% of that, or else from there to
    :data:`HIGHEST_FEE`, to 5e-5. A drawdown stop bends the curve too sharply for a method that interpolates.

    Parameters
    ----------
    evaluate, rules
        As of :func:`cost_stress`; ``rules.fee_rate`` does not matter.
    """

    def earned(fee: float) -> float:
        return _mean_return(evaluate(rules.replace(fee_rate=fee), 0))

    free = evaluate(rules.replace(fee_rate=0.0), 0)
    gross = _mean_return(free)
    if all(record.trades == 0 for record in free):
        return None, "it never trades"
    if gross <= 0.0:
        return None, f"it earns nothing even without a fee: {gross:.3g} per bar"
    # a fee takes its share of the turnover, here in units of the cash that each block starts with
    turnover = sum(record.turnover_usd for record in free) / rules.initial_cash
    suggested = gross * sum(record.bars for record in free) / turnover
    low = 0.0
    for high in sorted({min(2.0 * suggested, HIGHEST_FEE), HIGHEST_FEE}):
        net = earned(high)
        if net <= 0.0:
            return _bisect(earned, low, high), ""
        low = high
    return HIGHEST_FEE, f"it still earns at {HIGHEST_FEE:g}, the highest fee there is: {net:.3g} per bar"


def _bisect(earned: Callable[[float], float], low: float, high: float) -> float:
    """Return where `earned` turns from above 0 at `low` to 0 or below at `high`."""
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if earned(middle) > 0.0 else (low, middle)
    return (low + high) / 2.0


def delayed(decide: Decide, bars_late: int) -> Decide:
    """Return the policy that sees the market as of `bars_late` bars ago, but its own account as it is now.

    The portfolio and the mask are those of the moment at which the order is sent. A policy that encodes the tape
    ahead must be built for the shifted bars: its contexts are those of ``evaluator.bars() - bars_late``, each
    with a receptive field that ends there. Before the tape's start the first bar is seen.

    Parameters
    ----------
    decide
        Reads the market only through the bar that it is given.
    bars_late
        Age of what it sees, >= 0; 0 changes nothing.
    """
    if bars_late < 0:
        raise ValueError(f"bars_late is {bars_late}, allowed 0 or more: less would show the future")

    def late(bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return decide((bar - bars_late).clamp(min=0), portfolio, mask)

    return late


def _slippage(rules: TradingRules) -> list[tuple[str, TradingRules, int]]:
    """Return the scenarios of higher slippage."""
    spread, impact = rules.half_spread_bps, rules.impact
    if spread == 0.0 and impact == 0.0:
        worse = [(f"half spread {bps:g} bp", _allowed(rules, half_spread_bps=bps)) for bps in HALF_SPREADS_BPS]
    else:
        worse = [
            (f"slippage x{times}", _allowed(rules, half_spread_bps=spread * times, impact=impact * times))
            for times in (2, 4)
        ]
    return [(name, changed, 0) for name, changed in worse if changed]


def _allowed(rules: TradingRules, **costs: float) -> TradingRules | None:
    """Return `rules` with other costs, ``None`` where these are out of range."""
    try:
        return rules.replace(**costs)
    except ConfigError:
        return None


def _row(
    name: str, records: Sequence[Record], members: Sequence[Member], sessions_per_year: int, count: int
) -> StressRow:
    found = by_session(records, members, count)
    total = total_return(equity_curve(found.returns))
    return StressRow(name, _mean_return(records), sharpe(found.excess, sessions_per_year), total)


def _mean_return(records: Sequence[Record]) -> float:
    """Return the net return per bar over all records, compounded, each bar counting alike."""
    logs = sum(math.log1p(record.mean_return) * record.bars for record in records)
    return math.expm1(logs / sum(record.bars for record in records))
