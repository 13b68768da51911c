"""Leak probes: run before a sweep, they refuse a market in which something could be earned by knowing the future.

Two of them recompute exactly (:mod:`sentio_rllib.validation.causality`). The two here go by what can be
earned or foretold, and so also see a leak that came with the file: returns in random order must earn nothing,
and what foretells the next bar well must still do so a bar later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.errors import LeakError
from sentio_rllib.market.feature_set import VOLATILITY_FLOOR
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.tape import Tape, build_tape
from sentio_rllib.seeding import stream_seed
from sentio_rllib.trading.masks import BUY, SELL
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.causality import (
    PERTURB,
    TRUNCATE,
    ProbeResult,
    Simulate,
    TapeOf,
    perturbation,
    simulate,
    truncation,
)

__all__ = ["LeakError", "ProbeResult", "check_leaks", "run_probes", "simulate"]

SHUFFLE, DELAY = "shuffled returns", "one bar of extra delay"

MAX_BARS: Final = 60_000
"""The two probes by statistics read the last so many bars."""
LEAST_BARS: Final = 3_000
"""Fewer decisions than this, after warming up, tell nothing."""

FITTED_SHARE: Final = 1 / 3
"""Share of the shuffled bars that medians and ridge are fitted on; the rest is traded."""
BLOCK_BARS: Final = 200
"""The shuffled bars are traded by accounts of so many bars each, side by side."""
GAIN_LIMIT: Final = 6.0
"""Limit of |sum of gains| / root of the sum of their squares.

Gains on shuffled returns have symmetric signs, so the ratio exceeds 6 with a probability of about 2 exp(-6²/2) = 3e-8
at most (Efron, "Student's t-test under symmetry conditions", JASA 64, 1969). The 15 policies counted, one clean sweep
in two million is refused at most; by the normal law, one in thirty million.
"""

CLIP_VOLATILITIES: Final = 5.0
"""Returns to foretell are divided by the volatility known before and clipped here: a night is no outlier."""
RIDGE: Final = 1e-3
"""Weight of the penalty relative to the number of rows, for standardised features."""
PLAUSIBLE_CORRELATION: Final = 0.15
"""Correlation of predicted and realised next return up to which a minute bar can be foretold: real files reach 0.10
(BTCUSD of 2015-2019; ETFs 0.02)."""
ERRORS: Final = 4.0
"""Standard errors beyond that from which it is no chance: one clean file in 30,000 at most that is at the limit."""
SURVIVING_SHARE: Final = 0.4
"""A correlation above the limit must keep this share of itself a bar later.

A drift that lasts (a planted edge of 1e-3 in regimes of 3 bars or more) does; the next bar's own return does not.
"""

_ADVICE: Final = {
    TRUNCATE: "compute it from a window of trailing bars and declare that window as its look-back",
    PERTURB: "let the feature, fill or mark read nothing after its bar",
    SHUFFLE: "look for a feature that holds its next bar, or a fill at a price from before its decision",
    DELAY: "look for a feature that holds its next bar, or for a file whose closes are dated a bar before their opens",
}


def run_probes(
    bars: Bars,
    rules: TradingRules,
    *,
    reference_volatility: float,
    seed: int,
    tape_of: Callable[..., Tape] = build_tape,
    simulate: Simulate = simulate,
) -> tuple[ProbeResult, ...]:
    """Run all four leak probes.

    Parameters
    ----------
    bars
        T bars that trials may read. The last probe tells how well their returns are foretold, which on a sealed
        holdout would be a look at it: leave it out. A probe with too few bars says so (``held`` is ``None``).
    rules
        Of the sweep. The shuffled returns are traded every bar without costs and limits.
    reference_volatility
        As for :func:`~sentio_rllib.market.tape.build_tape`.
    seed
        Of everything that is drawn; the same arguments give the same results.
    tape_of, simulate
        What is probed: what makes the tape (called as ``build_tape``), and what steps accounts on it.

    Returns
    -------
    tuple of ProbeResult
        Truncate and recompute, future perturbation, shuffled returns, one bar of extra delay.

    Raises
    ------
    ConfigError
        Where `reference_volatility` is not positive and finite.
    """
    make: TapeOf = partial(tape_of, reference_volatility=reference_volatility)
    tape = make(bars)
    recent = bars.slice(max(bars.n - MAX_BARS, 0), bars.n)
    return (
        truncation(bars, tape, make, seed=seed),
        perturbation(bars, tape, rules, make, simulate, seed=seed),
        shuffled_returns(recent, rules, make, simulate, seed=seed),
        extra_delay(tape),
    )


def check_leaks(
    bars: Bars,
    rules: TradingRules,
    *,
    reference_volatility: float,
    seed: int,
    tape_of: Callable[..., Tape] = build_tape,
    simulate: Simulate = simulate,
) -> tuple[ProbeResult, ...]:
    """Run all probes as :func:`run_probes` does, and refuse where one does not hold.

    Raises
    ------
    LeakError
        One line for each probe that found a leak: what and where, by how much, and what to do.
    """
    results = run_probes(
        bars, rules, reference_volatility=reference_volatility, seed=seed, tape_of=tape_of, simulate=simulate
    )
    lines = [f"leak probe {each.name!r}: {each.text}; {_ADVICE[each.name]}" for each in results if each.held is False]
    if lines:
        raise LeakError(*lines)
    return results


def shuffled_returns(bars: Bars, rules: TradingRules, tape_of: TapeOf, simulate: Simulate, *, seed: int) -> ProbeResult:
    """Trade simple policies on bars in random order with random signs, where no policy can gain or lose.

    A policy is in the market where a feature lies above its median, for each feature, or where a ridge regression
    of the next fill-to-fill return on all features does; both are fitted on the first third. Decisions fall on
    every bar and there are no costs. A gain beyond chance, or a loss, needs knowledge of the future: a feature that
    correlates with the next return by 0.3 is caught on 6,000 bars, by 0.1 on 60,000.

    Parameters
    ----------
    bars
        T bars, of which shapes, volumes and stamps are kept.
    rules
        Of which the cash at the start is kept.
    tape_of, simulate
        What is probed.
    seed
        Of the order and the signs.
    """
    tape = tape_of(_shuffle(bars, np.random.default_rng(stream_seed("probe", SHUFFLE, seed))))
    rows = np.arange(tape.warmup, tape.n - 2)
    if rows.size < LEAST_BARS:
        return ProbeResult(SHUFFLE, None, _too_few(bars.n, tape.warmup))
    fitted = int(rows.size * FITTED_SHARE)
    blocks = (rows.size - fitted) // BLOCK_BARS
    traded = rows[fitted : fitted + blocks * BLOCK_BARS]
    signals = _signals(tape, rows[:fitted], traded)
    policies = signals.shape[1]
    by_step = signals.reshape(blocks, BLOCK_BARS, policies).swapaxes(0, 1).reshape(BLOCK_BARS, blocks * policies)
    actions = np.where(by_step, BUY, SELL).astype(np.int64)
    start = np.repeat(traded[::BLOCK_BARS], policies)
    paths = simulate(tape, _without_costs(rules), start, actions)
    gains = (paths[:, 1:] / paths[:, :-1] - 1.0).reshape(blocks, policies, BLOCK_BARS)
    scale = np.sqrt(np.square(gains).sum((0, 2)))
    ratio = gains.sum((0, 2)) / np.where(scale > 0.0, scale, 1.0)
    worst = int(np.argmax(np.abs(ratio)))
    names = [*(f"above the median of {name}" for name in tape.feature_set.names), "by a ridge regression"]
    text = (
        f"of {policies} policies on {traded.size:,} shuffled bars, the one {names[worst]} gains {ratio[worst]:.1f} "
        f"standard errors (allowed -{GAIN_LIMIT:g} .. {GAIN_LIMIT:g})"
    )
    return ProbeResult(SHUFFLE, bool(np.abs(ratio[worst]) <= GAIN_LIMIT), text)


def extra_delay(tape: Tape) -> ProbeResult:
    """Foretell the next fill-to-fill return, and the one after, from the features; out of sample.

    A decision at the close of t fills at the open of t+1 and can be undone at the open of t+2: that return is
    predicted by a ridge regression fitted on the first half of the bars and judged on the second. A bar of delay
    shifts it to t+2 .. t+3. A drift that lasts survives the delay; what was read off the next bar does not. What
    reads several bars ahead survives as well: :func:`~sentio_rllib.validation.causality.truncation` sees that.

    Parameters
    ----------
    tape
        Real bars, of which the last 60,000 are read.
    """
    first = max(tape.warmup, tape.n - MAX_BARS)
    rows = np.arange(first, tape.n - 3)
    if rows.size < LEAST_BARS:
        return ProbeResult(DELAY, None, _too_few(tape.n, tape.warmup))
    fitted, judged = rows[: rows.size // 2], rows[rows.size // 2 + 2 :]  # no return is in both
    now, later = (_correlation(_ridge(tape, fitted, judged, delay), _targets(tape, judged, delay)) for delay in (0, 1))
    limit = PLAUSIBLE_CORRELATION + ERRORS / np.sqrt(judged.size)
    held = bool(now <= limit or later >= SURVIVING_SHARE * now)
    text = (
        f"over {judged.size:,} bars, predicted and realised returns correlate by {now:.3f} at once (allowed "
        f"{limit:.3f}, or more where {SURVIVING_SHARE:.0%} survive) and by {later:.3f} a bar later"
    )
    if not held:
        alone = [abs(_correlation(column, _targets(tape, judged, 0))) for column in tape.features[judged].T]
        text += f"; {tape.feature_set.names[int(np.argmax(alone))]} alone correlates by {max(alone):.3f} at once"
    return ProbeResult(DELAY, held, text)


def _too_few(bars: int, warmup: int) -> str:
    return f"not enough bars: {bars:,} of the {warmup + LEAST_BARS + 3:,} needed"


def _shuffle(bars: Bars, rng: np.random.Generator) -> Bars:
    """The bars in random order and turned upside down at random, strung together again.

    A bar carries the gap before it. Gap and body get signs of their own and are compensated by the log of their
    hyperbolic cosine, so that their simple returns are ± tanh(x) with equal probability, whatever came before.
    """
    order = rng.permutation(bars.n)
    last_close = np.concatenate((bars.open[:1], bars.close[:-1]))
    gap, body = np.log(bars.open / last_close)[order], np.log(bars.close / bars.open)[order]
    upper = np.log(bars.high / np.maximum(bars.open, bars.close))[order]
    lower = np.log(np.minimum(bars.open, bars.close) / bars.low)[order]
    gap_sign, sign = rng.choice([-1.0, 1.0], (2, bars.n))
    gap, body = gap * gap_sign - _log_cosh(gap), body * sign - _log_cosh(body)
    upper, lower = np.where(sign > 0, upper, lower), np.where(sign > 0, lower, upper)
    log_close = np.cumsum(gap + body)
    opening, close = bars.open[0] * np.exp(log_close - body), bars.open[0] * np.exp(log_close)
    return replace(
        bars,
        open=opening,
        high=np.maximum(opening, close) * np.exp(upper),
        low=np.minimum(opening, close) * np.exp(-lower),
        close=close,
        volume=bars.volume[order],
    )


def _log_cosh(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.logaddexp(x, -x) - np.log(2.0))


def _without_costs(rules: TradingRules) -> TradingRules:
    """All in or out at every bar, at no cost and without a stop that binds."""
    return TradingRules(
        fee_rate=0.0,
        max_position=1.0,
        decision_interval=1,
        episode_length=1,
        max_drawdown=0.999,
        initial_cash=rules.initial_cash,
    )


def _signals(tape: Tape, fitted: NDArray[np.int64], traded: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool[N, 15]: at which of the bars `traded` each policy, fitted on other bars, wants to be in the market."""
    above = tape.features[traded] > np.median(tape.features[fitted], axis=0)
    return np.column_stack((above, _ridge(tape, fitted, traded, 0) > 0.0))


def _targets(tape: Tape, rows: NDArray[np.int64], delay: int) -> NDArray[np.float64]:
    """float64[N], log return from the open of t+1+delay to the next, over the volatility known at t, clipped."""
    log_return = np.log(tape.open[rows + delay + 2] / tape.open[rows + delay + 1])
    scaled = log_return / np.maximum(tape.volatility[rows], VOLATILITY_FLOOR)
    return np.asarray(np.clip(scaled, -CLIP_VOLATILITIES, CLIP_VOLATILITIES))


def _ridge(tape: Tape, fitted: NDArray[np.int64], wanted: NDArray[np.int64], delay: int) -> NDArray[np.float64]:
    """float64[N], targets of the bars `wanted` predicted from their features, less the mean target of `fitted`."""
    features = tape.features[fitted].astype(np.float64)
    mean, deviation = features.mean(0), features.std(0)
    deviation = np.where(deviation > 0.0, deviation, 1.0)
    features = (features - mean) / deviation
    target = _targets(tape, fitted, delay)
    penalty = RIDGE * fitted.size * np.eye(features.shape[1])
    weights = np.linalg.solve(features.T @ features + penalty, features.T @ (target - target.mean()))
    return np.asarray(((tape.features[wanted] - mean) / deviation) @ weights)


def _correlation(x: NDArray[np.floating], y: NDArray[np.float64]) -> float:
    """Pearson's correlation, 0 where a series is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0.0 else 0.0
