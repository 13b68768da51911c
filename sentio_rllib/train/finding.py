"""What the validation of a single run shows, told so that luck is not taken for an edge.

The best of a run's evaluations is chosen on the bars that it is shown for. So its timing, what it earned beyond its
mean exposure to the market, is compared with what the best of so many evaluations reaches by luck. That deflates one
run; what was tried besides on the same bars is the matter of a sweep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentio_rllib.statistics.deflation import count_looks
from sentio_rllib.statistics.inputs import Floats, NotEnoughDataError, NoVarianceError
from sentio_rllib.statistics.metrics import projected_return, sharpe
from sentio_rllib.statistics.significance import (
    expected_maximum_sharpe_ratio,
    probabilistic_sharpe_ratio,
    sharpe_moments,
)
from sentio_rllib.validation.performance import MONTHS
from sentio_rllib.validation.series import Series

COLLAPSED_ENTROPY = 0.05
"""Nats of the policy in training, below which one that never trades has settled on that; ln 3 = 1.10 is undecided."""

LEAST_TRIPS = 10
"""Closed round trips below which nothing is shown, however good they were: their sessions are not independent."""

UNDEFLATED = (
    "of this one run's validation, undeflated: the best of its evaluations on the very bars it is shown for; a "
    "deflated Sharpe ratio takes a sweep"
)


@dataclass(frozen=True)
class Finding:
    """The best evaluation of a run.

    Attributes
    ----------
    trades, trips
        Of the greedy policy on validation; trips are round trips that were closed.
    sharpe, timing_sharpe
        Annual, of net returns and of timing; undeflated.
    luck
        Annual Sharpe ratio that the best of `evaluations` reaches without any edge.
    probability
        That the true timing is above `luck`; None where the returns do not allow one.
    needed
        What `probability` has to reach.
    evaluations
        Evaluations that could have been chosen: those that traded.
    sessions
        Of validation.
    """

    trades: float
    trips: float
    sharpe: float
    timing_sharpe: float
    luck: float
    probability: float | None
    needed: float
    evaluations: int
    sessions: int

    @property
    def shown(self) -> bool:
        """Whether there is timing that luck does not explain."""
        return self.trips >= LEAST_TRIPS and self.probability is not None and self.probability >= self.needed

    def why(self) -> str:
        """Say what validation shows."""
        if self.trades == 0:
            return "validation shows no timing: the best policy makes no trade"
        if self.probability is None:
            return "validation shows no timing: the best policy is as long as buy-and-hold, and no more"
        if self.trips < LEAST_TRIPS:
            return f"validation shows no timing: {self.trips:.0f} round trips were closed, needed {LEAST_TRIPS} or more"
        told = (
            f"its Sharpe ratio is {self.timing_sharpe:.2f} in {self.sessions} sessions, by luck the best of "
            f"{self.evaluations} evaluations that traded reaches {self.luck:.2f}; probability {self.probability:.3f}, "
            f"needed {self.needed:g}"
        )
        return f"validation shows {'timing' if self.shown else 'no timing'}: {told}"

    def summary(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {**vars(self), "shown": self.shown, "told": self.why(), "note": UNDEFLATED}


def end_of(last: Mapping[str, Any], stop_reason: str | None, *, late: bool) -> str | None:
    """Tell a collapse to no trading from convergence; one that even the noise cannot break ends at once.

    Parameters
    ----------
    last
        Figures of the last evaluation: ``validation_trades``, ``sampled_trades``, ``entropy``.
    stop_reason
        Why the trial ends by itself, None where it does not.
    late
        Whether the grace period is over.

    Returns
    -------
    str or None
        ``collapsed``, or else `stop_reason`.
    """
    sure, mute = last["entropy"] < COLLAPSED_ENTROPY, last["sampled_trades"] == 0
    ended = (sure or mute) if stop_reason == "converged" else (sure and mute and late)
    return "collapsed" if last["validation_trades"] == 0 and ended else stop_reason


def examine_run(
    series: Series, trades: float, trips: float, evaluations: int, *, sessions_per_year: int, needed: float
) -> Finding:
    """Return what the best evaluation of a run shows.

    Parameters
    ----------
    series
        Its session returns on validation, raw and as timing.
    trades, trips
        Of the greedy policy there; trips are round trips that were closed.
    evaluations
        Evaluations that traded, of which it is the best.
    sessions_per_year
        Annualises.
    needed
        Probability from which timing counts as shown, `evidence.confidence`.
    """
    sessions, tried = series.raw.size, max(evaluations, 1)
    luck = expected_maximum_sharpe_ratio(count_looks(1.0, tried, 0), 1.0 / sessions)
    return Finding(
        trades=trades,
        trips=trips,
        sharpe=sharpe(series.excess, sessions_per_year),
        timing_sharpe=sharpe(series.timing, sessions_per_year),
        luck=luck * math.sqrt(sessions_per_year),
        probability=_probability(series.timing, luck),
        needed=needed,
        evaluations=tried,
        sessions=sessions,
    )


def _probability(timing: Floats, luck: float) -> float | None:
    try:
        moments = sharpe_moments(timing)
        shape = (moments.skew, moments.kurtosis)
        return probabilistic_sharpe_ratio(moments.sharpe, luck, timing.size, *shape, under="null")
    except (NotEnoughDataError, NoVarianceError):
        return None


def projected(returns: Floats) -> str:
    """Say what the mean of session returns float64[S] compounds to in a month."""
    each = (f"{projected_return(returns, month):.1%} monthly ({month} days)" for month in MONTHS)
    return f"Projected: {' | '.join(each)}"
