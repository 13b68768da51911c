"""What a planted market allows: the actions of who knows its regimes, and the share of it that an agent reached."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.errors import ConfigError
from sentio_rllib.market.synthetic import BULL

BUY, SELL = 1, 2


def oracle_actions(regime: NDArray[np.int8], bars: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the actions of the oracle: ``max_position`` in bull, flat in bear.

    A decision at the close of bar t fills at the open of bar t+1, so it goes by ``regime[t + 1]``, which acts
    from that open on. **This is the future**; the oracle is a measure, not a strategy.

    Parameters
    ----------
    regime
        int8[T], 1 bull, 0 bear.
    bars
        int64[...], the decision bars t, 0 <= t <= T - 2.

    Returns
    -------
    NDArray
        int64[...], 1 (Buy) in bull, 2 (Sell) in bear.

    Raises
    ------
    IndexError
        A bar after which no order can fill.
    """
    bars = np.asarray(bars)
    if bars.dtype.kind not in "iu":
        raise TypeError(f"bars must be an array of integers, not {bars.dtype}")
    if bars.size and not 0 <= bars.min() <= bars.max() <= len(regime) - 2:
        raise IndexError(f"decision bars {bars.min()} .. {bars.max()}, allowed 0 .. {len(regime) - 2}")
    return np.where(regime[bars + 1] == BULL, BUY, SELL).astype(np.int64)


def skill(agent: float, oracle: float, hold: float, exposure: float) -> float:
    """Return the share of the oracle's timing that an agent reached, (agent - e hold) / (oracle - e hold).

    Parameters
    ----------
    agent, oracle, hold
        Net mean returns per bar, out of sample: of the agent, of the oracle with the same fills, fees,
        interval and phase, and of always long.
    exposure
        The agent's mean position fraction e, 0 .. 1: what it would earn of `hold` without any timing.

    Returns
    -------
    float
        1 for the oracle, 0 for an agent without timing, below 0 for one whose costs exceed its gains.

    Raises
    ------
    ConfigError
        A value that is not finite, an exposure out of range, or an oracle that earns no more than the
        exposure alone does.
    """
    values = {"agent": agent, "oracle": oracle, "hold": hold, "exposure": exposure}
    mistakes = [
        f"{name}: {value!r}, allowed finite numbers" for name, value in values.items() if not math.isfinite(value)
    ]
    if not mistakes and not 0 <= exposure <= 1:
        mistakes.append(f"exposure: {exposure!r}, allowed 0 .. 1 (mean share of equity in the market)")
    if mistakes:
        raise ConfigError(*mistakes)
    attainable = oracle - exposure * hold
    if attainable <= 0:
        raise ConfigError(
            f"oracle: {oracle:.3g} a bar, allowed more than the {exposure * hold:.3g} of the exposure alone; "
            "there is no skill to measure: plant a larger edge or longer regimes, or lower the fees"
        )
    return (agent - exposure * hold) / attainable
