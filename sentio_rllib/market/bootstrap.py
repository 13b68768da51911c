"""Markets without an edge that look like given ones: bars resampled in short blocks, with their drift taken out.

The stationary bootstrap of Politis and Romano (The Stationary Bootstrap, 1994), by ``arch``, over whole bars.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from arch.bootstrap import StationaryBootstrap
from numpy.typing import NDArray

from sentio_rllib.errors import ConfigError
from sentio_rllib.market.ohlcv import Bars


def block_bootstrap(bars: Bars, *, seed: int, mean_block: int) -> Bars:
    """Return bars on the same stamps, each of which moves as a bar of `bars` does, in blocks of random length.

    A bar is resampled whole: the gap to its open, high, low and close relative to the open, and the volume. So bar
    shapes stay, and volatility clusters as far as a block reaches. The U of volatility over the session and the
    regimes that last longer than a block are lost. Bars that open a session or a stretch, with the gap over closed
    hours, are drawn one by one from their like.

    Before, every move (close to close, as a simple return) is divided by the mean move of its session, those of the
    opening bars by their own mean. Each bar of a kind is as likely as any other at every place of that kind,
    hence **the expected simple return of every bar is 0**, and always-long earns nothing before costs. A path drifts
    by chance, as a random walk's does; that is not taken out, since the mean of the first part would then
    foretell that of the rest.

    What can still be predicted is how a block goes on: patterns shorter than a session, such as reversals from one
    bar to the next, and where drift turns within a session a part of it. Of the embedded market's edge, whose regimes
    last two sessions, about a quarter is left, for as long as blocks of the same regime follow each other, twice
    `mean_block` bars: a trader who saw the regime of every bar at once would gain 7.5 basis points a round trip with
    an edge of 5e-5 and blocks of 30, and pay 20 at a fee of 0.1%. **With longer blocks, stronger edges or lower fees
    this is no null market.**

    Parameters
    ----------
    bars
        The original, T >= 2.
    seed
        Of all random numbers, >= 0. The same arguments give the same bars.
    mean_block
        Mean length of a block in bars, >= 1; lengths are geometric.

    Returns
    -------
    Bars
        With the symbol, stamps and sessions of `bars`, and its first open. high >= open, close >= low > 0.

    Raises
    ------
    ConfigError
        `mean_block` or `seed` is out of range.
    """
    rows = resampled_rows(bars, seed=seed, mean_block=mean_block)
    gap, body = _centred_moves(bars)
    gap, body = gap[rows], body[rows]
    gap[0] = 1.0
    log_close = np.cumsum(np.log(gap) + np.log(body))
    close = bars.open[0] * np.exp(log_close)
    open_ = np.concatenate((bars.open[:1], close[:-1] * gap[1:]))
    close = open_ * body
    high = np.maximum(open_ * (bars.high / bars.open)[rows], np.maximum(open_, close))
    low = np.minimum(open_ * (bars.low / bars.open)[rows], np.minimum(open_, close))
    return dataclasses.replace(bars, open=open_, high=high, low=low, close=close, volume=bars.volume[rows])


def resampled_rows(bars: Bars, *, seed: int, mean_block: int) -> NDArray[np.int64]:
    """Return int64[T], the bar of `bars` that each bar of :func:`block_bootstrap` is made of."""
    mistakes = []
    if mean_block < 1:
        mistakes.append(f"mean_block: {mean_block}, allowed whole numbers of bars >= 1; 1 draws bars one by one")
    if seed < 0:
        mistakes.append(f"seed: {seed}, allowed whole numbers >= 0")
    if mistakes:
        raise ConfigError(*mistakes)
    block_rng, opening_rng = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    opening = _opening(bars)
    inner, first = np.flatnonzero(~opening), np.flatnonzero(opening)
    rows = np.empty(bars.n, dtype=np.int64)
    rows[first] = opening_rng.choice(first, first.size)
    if inner.size:
        (drawn,), _ = next(StationaryBootstrap(mean_block, inner, seed=block_rng).bootstrap(1))
        rows[inner] = drawn
    return rows


def _opening(bars: Bars) -> NDArray[np.bool_]:
    """bool[T], whether a bar is the first of its session or of its stretch."""
    opening = np.asarray(np.diff(bars.sessions.session, prepend=-1) != 0)
    opening[bars.sessions.cuts] = True
    return opening


def _centred_moves(bars: Bars) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factors close to open and open to close, float64[T] each, their product of mean 1 over every group."""
    gap = np.concatenate(([1.0], bars.open[1:] / bars.close[:-1]))
    body = bars.close / bars.open
    # group 0 is the opening bars; sessions count from 0
    group = np.where(_opening(bars), 0, bars.sessions.session.astype(np.int64) + 1)
    counts = np.bincount(group)
    mean = np.bincount(group, gap * body) / np.maximum(counts, 1)
    return gap, body / mean[group]
