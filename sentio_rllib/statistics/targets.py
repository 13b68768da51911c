"""What the user aims at, as configured and as reached, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sentio_rllib.statistics.inputs import Floats
from sentio_rllib.statistics.intervals import return_interval, win_rate_interval
from sentio_rllib.statistics.metrics import projected_return
from sentio_rllib.statistics.resampling import Statistic

IntervalFigures = dict[str, float | None]


@dataclass(frozen=True)
class Targets:
    """The targets: `return_per_bar` over sessions of `session_bars`, annual Sharpe, drawdown and win rate (0 .. 1)."""

    return_per_bar: float
    session_bars: int
    sharpe: float
    max_drawdown: float
    win_rate: float

    @property
    def session_return(self) -> float:
        """Simple return a session that the pace comes to: 0.39% of 1e-5 a bar over 390 bars."""
        return self.return_per_bar * self.session_bars


def measure(
    returns: Floats,
    metrics: Mapping[str, Any],
    *,
    excess: Floats | None = None,
    sessions_per_year: int,
    level: float,
    resamples: int,
    seed: int,
) -> dict[str, IntervalFigures]:
    """Return the interval of each target's measure, the drawdown's at session closes and ``at_closes`` of minutes.

    Parameters
    ----------
    returns
        float64[S], net session returns.
    metrics
        Of :func:`~sentio_rllib.validation.performance.describe`, of the same returns.
    excess
        float64[S], `returns` beyond idle cash, None where it earns nothing; the Sharpe ratio is of them.
    sessions_per_year
        Annualises.
    level, resamples, seed
        Of the stationary bootstrap; the win rate's interval is exact.
    """
    annual = float(np.sqrt(sessions_per_year))

    def interval(statistic: Statistic) -> IntervalFigures:
        return return_interval(returns, statistic, level=level, resamples=resamples, seed=seed % 2**32)

    beyond = returns if excess is None else excess
    sharpe = return_interval(beyond, "sharpe", level=level, resamples=resamples, seed=seed % 2**32)
    wins = round((metrics["win_rate"] or 0.0) * metrics["trips"])
    found = {
        "monthly_return": interval("monthly_return"),
        "sharpe": {key: None if value is None else value * annual for key, value in sharpe.items()},
        "max_drawdown": interval("max_drawdown"),
        "win_rate": win_rate_interval(wins, round(metrics["trips"]), level),
    }
    found["monthly_return"]["estimate"], found["sharpe"]["estimate"] = metrics["monthly_return_21"], metrics["sharpe"]
    # who never trades has no drawdown to speak of
    found["max_drawdown"]["at_closes"] = metrics["max_drawdown"] if metrics["trades"] else None
    found["win_rate"]["estimate"] = metrics["win_rate"]
    return found


def compare_targets(
    targets: Targets, cv: Mapping[str, IntervalFigures] | None, holdout: Mapping[str, IntervalFigures] | None
) -> dict[str, Any]:
    """Return each target with its measures; `reached` is the holdout's word, None where it was not opened.

    A drawdown is judged at every minute's close, deeper than at the closes of sessions.
    """
    month, year = (projected_return(np.array([targets.session_return]), sessions) for sessions in (21, 22))
    goals = {
        "monthly_return": (
            month,
            True,
            f"{month:.1%} in 21 sessions, {year:.1%} in 22 ({targets.return_per_bar:g} a bar)",
        ),
        "sharpe": (targets.sharpe, True, f"annual Sharpe ratio above {targets.sharpe:g}"),
        "max_drawdown": (targets.max_drawdown, False, f"maximum drawdown below {targets.max_drawdown:.0%}"),
        "win_rate": (targets.win_rate, True, f"over {targets.win_rate:.0%} of round trips with a net gain"),
    }
    return {
        name: {
            "target": goal,
            "text": text,
            "cv": None if cv is None else cv[name],
            "holdout": None if holdout is None else holdout[name],
            "reached": None if holdout is None else _met(holdout[name], goal, above=above),
        }
        for name, (goal, above, text) in goals.items()
    }


def _met(held: IntervalFigures, goal: float, *, above: bool) -> bool | None:
    value = held.get("at_closes", held["estimate"])
    if value is None:
        return None
    return value > goal if above else value < goal
