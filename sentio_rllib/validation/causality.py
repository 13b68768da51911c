"""Leak probes of causality: what stands at bar t must follow from the bars up to t and its look-back alone.

Both probes recompute: on truncated bars, and on bars whose future was changed. They compare exactly, so no
chance is involved; what a probe reports as broken is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from sentio_rllib.market.checks import iso_minute
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.tape import Tape
from sentio_rllib.seeding import stream_seed
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.trading.simulator import Simulator

TapeOf = Callable[[Bars], Tape]
"""Makes the tape that policies and simulator read."""
Simulate = Callable[[Tape, TradingRules, NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]
"""(tape, rules, start [n], actions [steps, n]) -> equity [n, 1 + steps * interval], as :func:`simulate`."""

TRUNCATE, PERTURB = "truncate and recompute", "future perturbation"

VALUE_TOLERANCE: Final = 1e-6
"""Largest difference that counts as rounding: two float32 units in the last place of a feature at its bound of 5.
Volatility and dollar volume are compared by their logarithm."""
EQUITY_TOLERANCE: Final = 1e-12
"""Likewise, as a share of equity; it is float64 and the arithmetic is the same."""
TINY: Final = 1e-300

EVEN_BARS, SESSION_BARS = 12, 6
"""Bars to truncate at: spaced evenly, and as many at starts and again at ends of sessions."""
PERTURBED_BARS: Final = 4
ACCOUNTS: Final = 16
"""Accounts of a perturbation. Their decisions fall on 16 bars in a row, so that some lie right before the change."""
DECISIONS: Final = 20
PRICE_CHANGE: Final = 0.05
"""Standard deviation of the log factor that each price after the bar is multiplied by."""


@dataclass(frozen=True)
class ProbeResult:
    """What a leak probe found.

    Attributes
    ----------
    name
        Of the probe.
    held
        Whether no leak was found; ``None`` where the bars do not suffice to tell.
    text
        The figures, in one line.
    """

    name: str
    held: bool | None
    text: str


def simulate(
    tape: Tape, rules: TradingRules, start: NDArray[np.int64], actions: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Step n accounts through given actions.

    Parameters
    ----------
    tape
        T bars.
    rules
        Of trading, with the decision interval I.
    start
        int64[n], bar of each account's first decision, >= 1; ``start + steps * I + 1`` is at most T - 1.
    actions
        int64[steps, n], 0 Hold, 1 Buy, 2 Sell.

    Returns
    -------
    float64[n, 1 + steps * I]
        The cash at the start, then equity marked at each close from ``start + 1`` on. A drawdown stop liquidates;
        the account goes on from there.
    """
    steps, n = actions.shape
    interval = rules.decision_interval
    simulator = Simulator(tape.tensors(), rules, n, horizon=None)
    first = torch.from_numpy(start)
    simulator.reset(torch.ones(n, dtype=torch.bool), first, first + steps * interval + 2)
    paths = [torch.full((n, 1), rules.initial_cash, dtype=torch.float64)]
    paths += [simulator.step(action).equity_path for action in torch.from_numpy(actions)]
    return torch.cat(paths, 1).numpy()


def truncation(bars: Bars, tape: Tape, tape_of: TapeOf, *, seed: int) -> ProbeResult:
    """Recompute values at some bars t from the declared look-back alone, and compare with the whole tape's.

    Catches what reads bars after t at any distance, and what reads bars older than the look-back, which the
    purge between training and validation counts on.

    Parameters
    ----------
    bars
        T bars.
    tape
        What `tape_of` makes of them; ``tape.warmup`` is the declared look-back.
    tape_of
        What is probed.
    seed
        Of the choice of session starts and ends; the last two bars and evenly spaced ones always belong to it.
    """
    lookback = tape.warmup
    if bars.n <= lookback:
        return ProbeResult(TRUNCATE, None, f"not enough bars: {bars.n:,} of the {lookback + 1:,} needed")
    chosen = _probed_bars(tape, lookback, bars.n - 1, even=EVEN_BARS, sessions=SESSION_BARS, seed=seed)
    chosen = np.unique(np.append(chosen, [max(lookback, bars.n - 2), bars.n - 1]))
    alone = np.stack([_values(tape_of(bars.slice(int(t) - lookback, int(t) + 1)))[-1] for t in chosen])
    difference = np.abs(alone - _values(tape, chosen))
    if (difference <= VALUE_TOLERANCE).all():
        largest = float(difference.max())
        text = f"{len(_names(tape))} values at {chosen.size} bars differ by at most {largest:.1g} from the whole tape's"
        return ProbeResult(TRUNCATE, True, text)
    row, column = _worst(difference)
    text = (
        f"{_names(tape)[column]} at bar {_place(bars, int(chosen[row]))} is {difference[row, column]:.3g} off when "
        f"computed from that bar and the {lookback} before it alone (allowed {VALUE_TOLERANCE:g}); "
        f"so at {int((~(difference <= VALUE_TOLERANCE)).any(1).sum())} of {chosen.size} bars"
    )
    return ProbeResult(TRUNCATE, False, text)


def perturbation(
    bars: Bars, tape: Tape, rules: TradingRules, tape_of: TapeOf, simulate: Simulate, *, seed: int
) -> ProbeResult:
    """Change every price and volume after some bars t, and compare what stood at t and before.

    Values of the tape at bars <= t must not change. Nor must the equity of accounts with fixed random actions,
    marked at closes <= t; for these the open of t+1 is left as it was, since a drawdown stop at t is executed
    there. Each t is probed on a window of two look-backs on either side; :func:`truncation` sees farther.

    Parameters
    ----------
    bars, tape, tape_of
        As in :func:`truncation`.
    rules
        Of the sweep, its decision interval included.
    simulate
        What steps the accounts.
    seed
        Of the bars chosen, the changes and the actions.
    """
    reach = max(2 * tape.warmup, rules.decision_interval + 2)
    needed = tape.warmup + ACCOUNTS + rules.decision_interval + 3
    if bars.n < needed:
        return ProbeResult(PERTURB, None, f"not enough bars: {bars.n:,} of the {needed:,} needed")
    last = bars.n - rules.decision_interval - 3
    chosen = _probed_bars(tape, tape.warmup + ACCOUNTS, last, even=PERTURBED_BARS, sessions=PERTURBED_BARS, seed=seed)
    rng = np.random.default_rng(stream_seed("probe", PERTURB, seed))
    for t in chosen:
        start = max(int(t) - reach, 0)
        window = bars.slice(start, min(int(t) + reach + 1, bars.n))
        at = int(t) - start
        before, after = tape_of(window), tape_of(_change_future(window, at, rng))
        found = _value_change(before, after, at) or _equity_change(before, after, at, rules, simulate, rng=rng)
        if found:
            what, bar, change = found
            text = (
                f"{what} bar {_place(bars, start + bar)} changes by {change:.3g} when the bars after {int(t):,} change"
            )
            return ProbeResult(PERTURB, False, text)
    text = (
        f"{len(_names(tape))} values and the equity of {ACCOUNTS} accounts stay as they were when prices and volumes "
        f"change, after each of {chosen.size} bars"
    )
    return ProbeResult(PERTURB, True, text)


def _probed_bars(tape: Tape, first: int, last: int, *, even: int, sessions: int, seed: int) -> NDArray[np.int64]:
    """Ascending bars in ``first .. last``: `even` spaced evenly, `sessions` starts and as many ends of sessions."""
    rng = np.random.default_rng(stream_seed("probe", "bars", seed))
    ends = np.flatnonzero(tape.session_last)
    chosen = [np.linspace(first, last, even).astype(np.int64)]
    for candidates in (ends + 1, ends):
        inside = candidates[(candidates >= first) & (candidates <= last)]
        chosen.append(rng.choice(inside, min(sessions, inside.size), replace=False))
    return np.unique(np.concatenate(chosen))


def _names(tape: Tape) -> tuple[str, ...]:
    """What is compared."""
    return (*tape.feature_set.names, "volatility", "dollar_volume")


def _values(tape: Tape, rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.float64]:
    """What is known at the bars `rows`, float64[R, F + 2], columns as in `_names`, the last two as logarithms."""
    logs = (np.log(np.maximum(values[rows], TINY)) for values in (tape.volatility, tape.dollar_volume))
    return np.column_stack((tape.features[rows].astype(np.float64), *logs))


def _change_future(bars: Bars, t: int, rng: np.random.Generator) -> Bars:
    """`bars` with other prices and volumes after bar `t`; each bar keeps its shape."""
    later = np.arange(bars.n) > t
    factor = np.where(later, np.exp(PRICE_CHANGE * rng.standard_normal(bars.n)), 1.0)
    volume = np.where(later, bars.volume * np.exp(rng.standard_normal(bars.n)) + 1.0, bars.volume)
    prices = {name: getattr(bars, name) * factor for name in ("open", "high", "low", "close")}
    return replace(bars, volume=volume, **prices)


def _value_change(before: Tape, after: Tape, t: int) -> tuple[str, int, float] | None:
    """What changed most among the values at bars <= t, at which bar and by how much; None where nothing did."""
    difference = np.abs(_values(before)[: t + 1] - _values(after)[: t + 1])
    row, column = _worst(difference)
    change = float(difference[row, column])
    return None if change <= VALUE_TOLERANCE else (f"{_names(before)[column]} at", row, change)


def _equity_change(
    before: Tape, after: Tape, t: int, rules: TradingRules, simulate: Simulate, *, rng: np.random.Generator
) -> tuple[str, int, float] | None:
    """Likewise for equity marked at closes <= t, the change as a share of it, with the open of t+1 as it was."""
    opening = after.open.copy()
    opening[t + 1] = before.open[t + 1]
    interval = rules.decision_interval
    steps = min(DECISIONS, (t - ACCOUNTS) // interval + 1)
    start = t - (steps - 1) * interval - np.arange(ACCOUNTS)
    actions = rng.integers(0, 3, (steps, ACCOUNTS))
    paths = [simulate(tape, rules, start, actions) for tape in (before, replace(after, open=opening))]
    bar = start[:, None] + np.arange(paths[0].shape[1])
    difference = np.where(bar <= t, np.abs(paths[1] / paths[0] - 1.0), 0.0)
    row, column = _worst(difference)
    change = float(difference[row, column])
    what = "an account's equity, as a share of it, at the close of"
    return None if change <= EQUITY_TOLERANCE else (what, int(bar[row, column]), change)


def _worst(difference: NDArray[np.float64]) -> tuple[int, int]:
    """Row and column of the largest difference; NaN counts as the largest."""
    row, column = np.unravel_index(int(np.argmax(difference)), difference.shape)
    return int(row), int(column)


def _place(bars: Bars, bar: int) -> str:
    return f"{bar:,} ({iso_minute(int(bars.timestamp[bar]))})"
