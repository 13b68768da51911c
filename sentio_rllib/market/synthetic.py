"""Synthetic minute bars with the stylised facts of QQQ, with a planted edge of known strength or none.

The path is built from the log returns from each bar's open to the next bar's open. Such a return has a body
(open to close) and a gap (close to the next open, large where the market was closed in between), and its
volatility is the product of

- the regime: bull is calm, bear is volatile, and switches show at once;
- a slow autoregression of the log volatility, driven by the shocks themselves with a negative sign (the
  leverage effect inside a regime);
- a U over the session, high at the open, low at noon, higher again into the close.

Shocks are Student-t, drawn as normals of a random scale. The facts are those of Cont, "Empirical properties
of asset returns: stylized facts and statistical issues", Quantitative Finance 1 (2001), as minute bars of QQQ
and TQQQ of 2025 show them. Tails, clusters and overnight gaps (14 minutes' moves in QQQ) are milder here, so
that the volatility of the last 30 and 390 bars and the minute of the session tell the regimes apart.

Between two consecutive boundaries (and the ends of the tape) lies a *section*. In each one, bull and bear alternate
and fill half the bars (of an odd number, one has one more).

With an edge, the noise of each regime of each section has mean 0, gaps included: the mean log return from open to
open is +edge in bull and -edge in bear (up to edge / bars of the section where their number is odd), and the sum over
every section is 0 up to floating point (1e-9). There is no gap before a boundary (``open[b] == close[b - 1]``), so
the same holds from close to close: always-long earns nothing before costs. A position held over a part of a section
does earn or lose. Without ``recentre`` the noise keeps the mean it happens to have, so that what the edge earns is as
uncertain as on a real market, and an oracle's Sharpe ratio is what the edge makes of it on average.

With a `memory`, volatility tells nothing of its own regime: each stretch of `regime_bars` is half calm and half
volatile, and which comes first tells the regime of a stretch that begins `memory` bars after its end. Where that is
more than any feature looks back, no bar's features tell the regime, but for what its drift has done already.

With ``edge=0`` the simple returns of bodies and gaps are a martingale (each has the mean 0 given all before), nothing
is re-centred, and the regimes remain as regimes of volatility. A `drift` is added to every bar of either market.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sentio_rllib.errors import ConfigError
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.sessions import MINUTE_NS, Sessions, _schedule_around, assign_sessions

BULL, BEAR = 1, 0


BULL_VOLATILITY = 2.6e-4
BEAR_VOLATILITY = 6.5e-4
"""Root mean square of the bodies of a regime, over whole sessions.

QQQ's one-minute returns had a daily root mean square of 2.0e-4 (5th percentile), 3.0e-4 (median) and 5.0e-4 (95th)
in August and September 2025; a third of TQQQ's had 2.6e-4 (quarter), 5.0e-4 (three quarters) and 9.0e-4 (95th) from
April to October 2025.
"""
GAP_SIGMAS = 5.0
"""Standard deviation of a gap over closed hours, in mean one-minute moves of its regime."""
QUOTE_SIGMAS = 0.07
"""Standard deviation of the gap between two minutes of a session, likewise of the bar's own moves."""
SHOCK_FREEDOM = 6.0
"""Degrees of freedom of the Student-t shocks: kurtosis 6, before volatility moves."""

CLUSTER_DEVIATION = 0.1
"""Standard deviation of the slow part of the log volatility."""
CLUSTER_BARS = 195
"""Bars in which a disturbance of the log volatility decays to 1/e."""
LEVERAGE = -0.4
"""Correlation of a bar's shock with the innovation of the log volatility that it leaves behind."""

DURATION_SHAPE = 4.0
"""Shape of the gamma-distributed regime durations: coefficient of variation 1/2."""
DAYS_PER_SESSION = 365 / 252
MAX_EDGE = 1e-3
"""A larger edge than this per bar is no market and no test of anything."""


@dataclass(frozen=True)
class SyntheticMarket:
    """Synthetic bars and what an oracle knows about them.

    **The regime is the future**: ``regime[t]`` acts between the open of bar t and the open of bar t+1 and may
    never become a feature.

    Attributes
    ----------
    bars
        T bars.
    regime
        int8[T], 1 bull, 0 bear: what drives the return from bar t's open to bar t+1's open (for the last bar,
        to its close).
    seed, edge
        What the market was made with; edge in log return per bar.
    """

    bars: Bars
    regime: NDArray[np.int8]
    seed: int
    edge: float


@dataclass(frozen=True)
class _Noise:
    """Log returns without drift, float64[T] each: bodies, gaps after them, and their compensators."""

    body: NDArray[np.float64]
    gap: NDArray[np.float64]
    body_compensator: NDArray[np.float64]
    gap_compensator: NDArray[np.float64]
    volatility: NDArray[np.float64]


def session_grid(n_bars: int, *, calendar: str = "XNYS", start: str = "2020-01-02") -> NDArray[np.int64]:
    """Return the first `n_bars` regular minutes of a calendar, half days and lunch breaks as they are.

    Parameters
    ----------
    n_bars
        Number of bars, >= 1.
    calendar
        Exchange calendar.
    start
        First date, ISO 8601; the first bar opens the first session on or after it.

    Returns
    -------
    NDArray
        int64[n_bars], starts of the bars in ns UTC.

    Raises
    ------
    ConfigError
        `n_bars` is no positive whole number.
    BarsError
        Unknown calendar, or bars beyond the years that it knows.
    """
    if not _is_whole(n_bars) or n_bars < 1:
        raise ConfigError(f"n_bars: {n_bars!r}, allowed whole numbers >= 1; pass the bars to make")
    first_ns = int(np.datetime64(start, "ns").astype(np.int64))
    days = 30 + math.ceil(n_bars / 390 * DAYS_PER_SESSION)
    while True:
        schedule = _schedule_around(calendar, first_ns, first_ns + days * 1440 * MINUTE_NS)
        wanted = schedule.opens >= first_ns
        counts = schedule.trading_minutes()[wanted]
        if counts.sum() >= n_bars:
            break
        days *= 2
    offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    stamps = np.repeat(schedule.opens[wanted], counts) + offset * MINUTE_NS
    break_start = np.repeat(schedule.break_starts[wanted], counts)
    break_length = np.repeat((schedule.break_ends - schedule.break_starts)[wanted], counts)
    stamps = np.where(stamps >= break_start, stamps + break_length, stamps)
    return np.ascontiguousarray(stamps[:n_bars], dtype=np.int64)


def synthetic_market(
    n_bars: int = 440_000,
    *,
    seed: int = 0,
    edge: float = 2e-5,
    regime_bars: int = 780,
    drift: float = 0.0,
    volatility: float = 1.0,
    recentre: bool = True,
    memory: int = 0,
    boundaries: Sequence[int] = (),
    start_price: float = 300.0,
    symbol: str = "SYN",
    calendar: str = "XNYS",
    start: str = "2020-01-02",
) -> SyntheticMarket:
    """Make synthetic minute bars with a planted edge, or without any; what is planted stands at this module's head.

    Parameters
    ----------
    n_bars, seed
        Number of bars, >= 2 (440,000 are 4.5 years), and what all random numbers come from, >= 0.
    edge, drift
        Log return of a bar, 0 .. 1e-3, by regime, and -1e-3 .. 1e-3, always.
    regime_bars
        Mean duration of a regime in bars, >= 1. A section shorter than two of them is split in two.
    volatility, recentre, memory
        Multiple of QQQ's volatility; whether a regime's noise in a section has mean 0; bars from what tells a regime.
    boundaries
        Bar indices, 0 .. n_bars, at which sections meet: the edges of **all** training segments and blocks.
        Without them a fold may be one-sided, and always-long then looks like skill.
    start_price, symbol, calendar, start
        First open, name, calendar and first date, see :func:`session_grid`.

    Returns
    -------
    SyntheticMarket
        Bars with high >= open, close >= low > 0 and whole volumes >= 1, with the regime of each.

    Raises
    ------
    ConfigError
        One line for every argument out of its range.
    BarsError
        Unknown calendar, or bars beyond the years that it knows.
    """
    _check_arguments(n_bars, seed, edge, regime_bars, start_price=start_price, boundaries=boundaries)
    _check_law(drift, volatility, memory)
    timestamp = session_grid(n_bars, calendar=calendar, start=start)
    sessions, _ = assign_sessions(timestamp, calendar)
    edges = np.unique([0, n_bars, *boundaries]).astype(np.int64)
    regime_rng, noise_rng, shape_rng = map(np.random.default_rng, np.random.SeedSequence(int(seed)).spawn(3))
    regime, calm = _states(edges, regime_bars, memory, regime_rng)
    noise = _draw_noise(timestamp, sessions, calm, volatility, noise_rng)
    body, gap = _planted(noise, regime, edges, edge) if edge > 0 and recentre else _as_found(noise, regime, edge)
    body += drift
    prices = _draw_prices(start_price, noise, body, gap, shape_rng)
    volume = _draw_volume(sessions, noise.volatility, body, shape_rng)
    bars = Bars(symbol=symbol, timestamp=timestamp, sessions=sessions, volume=volume, **prices)
    return SyntheticMarket(bars=bars, regime=regime, seed=int(seed), edge=float(edge))


def _check_arguments(
    n_bars: int, seed: int, edge: float, regime_bars: int, *, start_price: float, boundaries: Sequence[int]
) -> None:
    mistakes = [
        f"{name}: {value!r}, allowed whole numbers >= {least}"
        for name, value, least in (("n_bars", n_bars, 2), ("seed", seed, 0), ("regime_bars", regime_bars, 1))
        if not _is_whole(value) or value < least
    ]
    if not 0 <= edge <= MAX_EDGE:
        mistakes.append(f"edge: {edge!r}, allowed 0 .. {MAX_EDGE:g} log return per bar; 0 plants nothing")
    if not (math.isfinite(start_price) and start_price > 0):
        mistakes.append(f"start_price: {start_price!r}, allowed finite prices > 0")
    if not mistakes:
        wrong = [bar for bar in boundaries if not _is_whole(bar) or not 0 <= bar <= n_bars]
        if wrong:
            mistakes.append(f"boundaries: {wrong[0]!r}, allowed bar indices 0 .. {n_bars}")
    if mistakes:
        raise ConfigError(*mistakes)


def _check_law(drift: float, volatility: float, memory: int) -> None:
    if not _is_whole(memory) or memory < 0:
        raise ConfigError(f"memory: {memory!r}, allowed whole numbers >= 0 of bars")
    if not (abs(drift) <= MAX_EDGE and math.isfinite(volatility) and volatility > 0.0):
        raise ConfigError(
            f"drift: {drift!r}, volatility: {volatility!r}; allowed -{MAX_EDGE:g} .. {MAX_EDGE:g} a bar, and above 0"
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _states(
    edges: NDArray[np.int64], regime_bars: int, memory: int, rng: np.random.Generator
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Regimes int8[T], and which bars are calm, bool[T]."""
    if memory:
        return _remembered(int(edges[-1]), regime_bars, memory, rng)
    regime = _draw_regimes(edges, regime_bars, rng)
    return regime, regime == BULL


def _draw_regimes(edges: NDArray[np.int64], regime_bars: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """int8[T]: regimes of gamma-distributed durations, scaled so that both fill half of every section."""
    parts = [_section_regimes(int(length), regime_bars, rng) for length in np.diff(edges)]
    return np.concatenate(parts)


def _section_regimes(length: int, regime_bars: int, rng: np.random.Generator) -> NDArray[np.int8]:
    pairs = max(1, round(length / (2 * regime_bars)))
    first = int(rng.integers(2))
    halves = ((length + 1) // 2, length // 2)
    durations = np.empty(2 * pairs, dtype=np.int64)
    for sign, half in enumerate(halves):
        ends = np.cumsum(rng.gamma(DURATION_SHAPE, size=pairs))
        durations[sign::2] = np.diff(np.rint(ends / ends[-1] * half).astype(np.int64), prepend=0)
    signs = (first + np.arange(2 * pairs)) % 2
    return np.repeat(signs.astype(np.int8), durations)


def _remembered(
    n: int, length: int, memory: int, rng: np.random.Generator
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Regimes int8[n] by independent draws, a stretch each, and whether each bar is calm, which tells a later one."""
    bar = np.arange(n)
    ahead = length + memory
    drawn = rng.integers(0, 2, (n + ahead) // length + 2).astype(np.int8)
    stretch = (bar + ahead) // length  # the stretch of `bar` draws for the one that begins `ahead` bars after it
    first_half = (bar + ahead) % length < (length + 1) // 2
    return drawn[bar // length], np.asarray(first_half == (drawn[stretch] == BULL))


def _draw_noise(
    timestamp: NDArray[np.int64],
    sessions: Sessions,
    calm: NDArray[np.bool_],
    scale: float,
    rng: np.random.Generator,
) -> _Noise:
    """Shocks, each a normal of a random scale: given the scale s its compensator is s^2 / 2 exactly."""
    n = timestamp.size
    shock, spread = _student(n, rng)
    level = scale * np.where(calm, BULL_VOLATILITY, BEAR_VOLATILITY) * _cluster(shock, rng)
    volatility = level * _volatility_curve(_session_fraction(sessions))
    body_scale = volatility * spread
    gap_shock, gap_spread = _student(n, rng)
    closed = np.diff(timestamp, append=timestamp[-1] + MINUTE_NS) > MINUTE_NS
    gap_scale = np.where(closed, GAP_SIGMAS * level, QUOTE_SIGMAS * volatility) * gap_spread
    gap_scale[-1] = 0.0
    return _Noise(
        body=body_scale * (shock / spread),
        gap=gap_scale * (gap_shock / gap_spread),
        body_compensator=body_scale**2 / 2,
        gap_compensator=gap_scale**2 / 2,
        volatility=volatility,
    )


def _student(n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Student-t shocks of variance 1 and the scales of the normals behind them, float64[n] each."""
    spread = np.sqrt((SHOCK_FREEDOM - 2) / (2 * rng.standard_gamma(SHOCK_FREEDOM / 2, n)))
    return rng.standard_normal(n) * spread, spread


def _cluster(shock: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """float64[T], mean square 1: exp of an AR(1) whose value at t depends on shocks before t only."""
    n = shock.size
    decay = math.exp(-1 / CLUSTER_BARS)
    innovation = LEVERAGE * shock + math.sqrt(1 - LEVERAGE**2) * rng.standard_normal(n)
    innovation *= CLUSTER_DEVIATION * math.sqrt(1 - decay**2)
    driven = np.concatenate(([CLUSTER_DEVIATION * rng.standard_normal()], innovation[:-1] / (1 - decay)))
    # an exponentially weighted mean is the recursion y[t] = decay y[t-1] + (1 - decay) x[t]
    log_volatility = pd.Series(driven).ewm(alpha=1 - decay, adjust=False).mean().to_numpy(dtype=np.float64)
    return np.exp(log_volatility - CLUSTER_DEVIATION**2)


def _session_fraction(sessions: Sessions) -> NDArray[np.float64]:
    return (sessions.minute + 0.5) / sessions.length


@dataclass(frozen=True)
class _SessionCurve:
    """A U over the session's fraction 0 .. 1: a floor, and what decays from the open and into the close."""

    floor: float
    at_open: float
    at_close: float

    def __call__(self, fraction: NDArray[np.float64]) -> NDArray[np.float64]:
        opening, closing = np.exp(-fraction / 0.08), np.exp(-(1 - fraction) / 0.06)
        return np.asarray(self.floor + self.at_open * opening + self.at_close * closing)


VOLUME_CURVE = _SessionCurve(floor=0.7, at_open=1.8, at_close=1.8)
VOLATILITY_CURVE = _SessionCurve(floor=0.8, at_open=0.8, at_close=0.45)


def _volatility_curve(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Volatility over the session, of mean square 1 over a whole one."""
    return VOLATILITY_CURVE(fraction) / _VOLATILITY_NORM


_VOLATILITY_NORM = float(np.sqrt(np.mean(VOLATILITY_CURVE((np.arange(1440) + 0.5) / 1440) ** 2)))


def _as_found(noise: _Noise, regime: NDArray[np.int8], edge: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bodies and gaps float64[T] whose noise is a martingale's, with ±edge a bar."""
    body = noise.body - noise.body_compensator
    if edge > 0:
        body = body + edge * (2.0 * regime - 1.0)
    return body, noise.gap - noise.gap_compensator


def _planted(
    noise: _Noise, regime: NDArray[np.int8], edges: NDArray[np.int64], edge: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bodies and gaps float64[T] that have mean ±edge per regime and sum 0 over every section; no gap before one."""
    noise.gap[edges[1:] - 1] = 0.0
    starts, lengths = edges[:-1], np.diff(edges)
    cell = 2 * np.repeat(np.arange(lengths.size), lengths) + regime
    bars = np.bincount(cell, minlength=2 * lengths.size)
    noise_mean = np.bincount(cell, noise.body + noise.gap, 2 * lengths.size) / np.maximum(bars, 1)
    drift = edge * (2.0 * regime - 1.0)
    drift -= np.repeat(np.add.reduceat(drift, starts) / lengths, lengths)
    return np.asarray(noise.body - noise_mean[cell] + drift), noise.gap


def _draw_prices(
    start_price: float,
    noise: _Noise,
    body: NDArray[np.float64],
    gap: NDArray[np.float64],
    rng: np.random.Generator,
) -> dict[str, NDArray[np.float64]]:
    """open, high, low, close float64[T] along the log path, with exponential wicks."""
    log_open = np.concatenate(([0.0], np.cumsum(body + gap)[:-1]))
    open_price, close = start_price * np.exp(log_open), start_price * np.exp(log_open + body)
    upper, lower = (0.3 * noise.volatility * rng.standard_exponential(body.size) for _ in range(2))
    return {
        "open": open_price,
        "high": np.maximum(open_price, close) * np.exp(upper),
        "low": np.minimum(open_price, close) * np.exp(-lower),
        "close": close,
    }


def _draw_volume(
    sessions: Sessions, volatility: NDArray[np.float64], body: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """float64[T], whole numbers >= 1: a U over the session, more where the bar moved, lognormal around it."""
    curve = VOLUME_CURVE(_session_fraction(sessions))
    moved = np.log1p(np.abs(body) / volatility)
    surprise = 0.4 * rng.standard_normal(body.size)
    return np.maximum(1.0, np.rint(60_000 * curve * np.exp(0.6 * moved + surprise)))
