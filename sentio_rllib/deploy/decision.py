"""What a live policy answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

ACTIONS: Final = ("Hold", "Buy", "Sell")


@dataclass(frozen=True, eq=False)
class Decision:
    """What the policy wants after a bar; to be filled at the open of the next one.

    Attributes
    ----------
    action, name
        0 Hold, 1 Buy, 2 Sell, and its name.
    executable
        False where rules or account forbid the action (only without masks); then it means Hold.
    target_fraction
        Share of equity in the market after the order, as marked at the last close. The rules' ``max_participation``
        is not in it: where it is set, whoever trades keeps the order below that share of what a bar turns over.
    stopped
        The drawdown stop of the rules is reached: close the whole position at the next open. The policy then
        decides nothing but to close, until :meth:`~sentio_rllib.deploy.live.TradingPolicy.restart` or the next cut.
    probabilities
        float64[3], of the actions; 0 where masked.
    mask
        bool[3], what the policy was told to be allowed.
    value
        Expected return to come, in units of normalised reward.
    quantiles
        float64[Q], of that return; None for a critic without.
    regime_weights
        float64[R], weights of the experts, means over the members; None for a head without a gate.
    timestamp
        datetime64[ns], start of the bar after which it was made, UTC.
    """

    action: int
    name: str
    executable: bool
    target_fraction: float
    stopped: bool
    probabilities: NDArray[np.float64]
    mask: NDArray[np.bool_]
    value: float
    quantiles: NDArray[np.float64] | None
    regime_weights: NDArray[np.float64] | None
    timestamp: np.datetime64
