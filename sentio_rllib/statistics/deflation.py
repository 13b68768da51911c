"""What is left of the best trial's Sharpe ratio after the search that found it.

One column of session returns per configuration, the pruned ones included, at the evaluation that selection would
use. Everything is per session but what is named annual or years. What was tried, here and in earlier sweeps on
overlapping bars, comes as a :class:`Looks`.

**V is at least 1 / S.** The expected maximum (False Strategy theorem) takes trials to spread as they are wrong. Trials
of one sweep share their market and are wrong together, so their spread alone says too little
(`tests/statistics/test_deflation.py` deflates the best of correlated noise); 1 / S is the variance without any edge.

**N is the nominal one times what is independent of it.** The nominal N counts configurations times the evaluations at
which they could have been selected. The effective one takes this sweep's times the share of its configurations that
clustering finds independent (:func:`effective_trials`), by raw or by timing returns, whichever is more: trials that are
long together are one by raw returns and may be timed apart. Configurations that never trade are no looks, or a search
that collapses would be deflated least. Returns of other sweeps are not kept; their looks count in full.

**SPA speaks for the best of all trials, StepM for the champion.** Both take each configuration at its best evaluation,
which only the nominal N of the DSR accounts for; so all three are asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from sentio_rllib.statistics.inputs import Floats, NotEnoughDataError, NoVarianceError
from sentio_rllib.statistics.overfitting import Overfitting, effective_trials, probability_of_backtest_overfitting
from sentio_rllib.statistics.resampling import (
    MIN_BOOTSTRAP_PERIODS,
    stepwise_superior,
    superior_predictive_ability,
)
from sentio_rllib.statistics.significance import (
    deflated_sharpe_ratio,
    expected_maximum_sharpe_ratio,
    minimum_backtest_length,
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
    sharpe_moments,
)

T = TypeVar("T")

BLOCKS = 16
"""Of CSCV, fewer where there are fewer sessions."""
FEW_BLOCKS, MANY_TRIALS = 10, 500
"""Blocks where trials are many: 16 have 12,870 halves, each with a figure of every trial."""
SESSIONS_PER_BLOCK = 2


@dataclass(frozen=True)
class Panel:
    """Session returns of N configurations on the same S sessions.

    Attributes
    ----------
    trials
        Their names.
    raw, timing
        float64[S, N], see :class:`~sentio_rllib.validation.series.Series`.
    hold
        float64[S], of buy-and-hold.
    env_steps
        What each trained for.
    """

    trials: tuple[str, ...]
    raw: Floats
    timing: Floats
    hold: Floats
    env_steps: tuple[int, ...]


@dataclass(frozen=True)
class Looks:
    """What was tried on overlapping bars, in all sweeps that the ledger knows.

    Attributes
    ----------
    own, others
        Configurations times the evaluations of each that were eligible for selection, of this sweep and of all
        others. The nominal N is their sum.
    raw, timing
        float64[K], Sharpe ratios per session of all configurations, for their variance.
    """

    own: int
    others: int
    raw: Floats
    timing: Floats


@dataclass
class _Attempts:
    """Tries statistics; what the sessions do not suffice for is told in `missing`, with the number needed."""

    missing: list[str] = field(default_factory=list)

    def __call__(self, statistic: Callable[[], T]) -> T | None:
        try:
            return statistic()
        except NotEnoughDataError as error:
            if str(error) not in self.missing:
                self.missing.append(str(error))
        except NoVarianceError:
            pass  # there is nothing to measure, however long the record
        return None


def deflate(
    panel: Panel,
    chosen: str,
    looks: Looks,
    *,
    sessions_per_year: int,
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Return the deflated statistics of the trial `chosen`.

    How V and N come about stands at the head of this module.

    Parameters
    ----------
    panel, looks
        What was tried.
    chosen
        Name of the selected trial, one of the panel's.
    sessions_per_year
        Annualises.
    confidence
        1 minus it is the level of the stepwise tests.
    resamples, seed
        Of the bootstrap tests.

    Returns
    -------
    dict
        ``chosen, n_trials, effective_trials, sessions, years, min_btl_years, raw, timing, overfitting, missing``. A
        statistic that does not exist is None; where the sessions do not suffice, `missing` says how many do.
    """
    attempt = _Attempts()
    sessions = len(panel.raw)
    effective = _effective(attempt, panel, looks)
    nominal = max(1, looks.own + looks.others)
    column = panel.trials.index(chosen)
    tests = _Tests(panel.trials, attempt, 1.0 - confidence, resamples, seed % 2**32)
    shared: dict[str, Any] = {"nominal": nominal, "effective": effective, "year": sessions_per_year}
    raw = _sharpe_figures(attempt, panel.raw[:, column], looks.raw, **shared)
    timing = _sharpe_figures(attempt, panel.timing[:, column], looks.timing, **shared)
    flat = np.zeros(sessions)
    raw |= tests.against(panel.raw, flat) | tests.against(panel.raw, panel.hold, "_hold")
    timing |= tests.against(panel.timing, flat)
    return {
        "chosen": chosen,
        "n_trials": nominal,
        "effective_trials": effective,
        "sessions": sessions,
        "years": sessions / sessions_per_year,
        "min_btl_years": None if effective is None else minimum_backtest_length(effective),
        "raw": raw,
        "timing": timing,
        "overfitting": _overfittings(attempt, panel),
        "missing": attempt.missing,
    }


def _effective(attempt: _Attempts, panel: Panel, looks: Looks) -> float | None:
    """Return the effective N, or None where the sessions do not suffice for it."""
    shares = [attempt(partial(_independent_share, returns)) for returns in (panel.raw, panel.timing)]
    told = [share for share in shares if share is not None]
    return max(1.0, max(told) * looks.own + looks.others) if len(told) == len(shares) else None


def _independent_share(returns: Floats) -> float:
    """Share of the columns that vary which counts as independent, above 0 and up to 1."""
    varying = returns[:, np.ptp(returns, axis=0) > 0.0]
    return effective_trials(varying) / varying.shape[1] if varying.shape[1] else 1.0


def _sharpe_figures(
    attempt: _Attempts, returns: Floats, spread: Floats, *, nominal: int, effective: float | None, year: int
) -> dict[str, Any]:
    """PSR, DSR and MinTRL of one column, with what luck alone gives the best."""
    sessions, annual = len(returns), math.sqrt(year)
    moments = attempt(lambda: sharpe_moments(np.ascontiguousarray(returns)))
    if moments is None or effective is None:
        return dict.fromkeys(("sharpe", "psr", "dsr", "dsr_nominal", "expected_maximum_sharpe", "min_trl_years"))
    sharpe, shape = moments.sharpe, (moments.skew, moments.kurtosis)
    variance = max(float(spread.var(ddof=1)) if spread.size > 1 else 0.0, 1.0 / sessions)

    def dsr(trials: float) -> float | None:
        return attempt(lambda: deflated_sharpe_ratio(sharpe, sessions, *shape, trials=trials, variance=variance))

    needed = attempt(lambda: minimum_track_record_length(sharpe, 0.0, *shape))
    return {
        "sharpe": sharpe * annual,
        "psr": attempt(lambda: probabilistic_sharpe_ratio(sharpe, 0.0, sessions, *shape)),
        "dsr": dsr(effective),
        "dsr_nominal": dsr(float(nominal)),
        "expected_maximum_sharpe": expected_maximum_sharpe_ratio(effective, variance) * annual,
        "min_trl_years": None if needed is None or math.isinf(needed) else needed / year,
    }


@dataclass(frozen=True)
class _Tests:
    """SPA and StepM of all trials against a benchmark."""

    trials: tuple[str, ...]
    attempt: _Attempts
    size: float
    resamples: int
    seed: int

    def against(self, returns: Floats, benchmark: Floats, suffix: str = "") -> dict[str, Any]:
        """The p-value, and the names of the trials that are better."""
        reps, seed = self.resamples, self.seed
        p_value = self.attempt(lambda: superior_predictive_ability(returns, benchmark, reps=reps, seed=seed))
        better = self.attempt(lambda: stepwise_superior(returns, benchmark, size=self.size, reps=reps, seed=seed))
        return {f"spa_p{suffix}": p_value, f"stepm{suffix}": [self.trials[index] for index in better or ()]}


def _overfittings(attempt: _Attempts, panel: Panel) -> dict[str, dict[str, Any] | None]:
    """PBO over all trials, over those that trained longest, and by timing."""
    longest = [index for index, steps in enumerate(panel.env_steps) if steps == max(panel.env_steps)]
    return {
        "all": _overfitting(attempt, panel.raw),
        "equal_budgets": _overfitting(attempt, panel.raw[:, longest]),
        "timing": _overfitting(attempt, panel.timing),
    }


def _overfitting(attempt: _Attempts, returns: Floats) -> dict[str, Any] | None:
    """PBO with its degradation, or None where it cannot be had."""
    sessions, trials = returns.shape
    if trials < 2:
        return None

    def overfitting() -> Overfitting:
        if sessions < MIN_BOOTSTRAP_PERIODS:  # halves of a handful of sessions rank nothing
            raise NotEnoughDataError("probability of backtest overfitting", MIN_BOOTSTRAP_PERIODS, sessions)
        most = BLOCKS if trials <= MANY_TRIALS else FEW_BLOCKS
        blocks = min(most, sessions // SESSIONS_PER_BLOCK // 2 * 2)
        return probability_of_backtest_overfitting(np.ascontiguousarray(returns), blocks)

    found = attempt(overfitting)
    if found is None:
        return None
    figures = {"pbo": found.pbo, "slope": found.slope, "loss_probability": found.loss_probability}
    return {**figures, "trials": trials}


def headline(deflated: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the figures of the weaker of raw and timing returns; PBO is that of raw ones over all trials."""
    raw, timing, found = deflated["raw"], deflated["timing"], deflated["overfitting"]["all"]
    lower = {key: _of_both(min, raw[key], timing[key]) for key in ("psr", "dsr")}
    higher = {key: _of_both(max, raw[key], timing[key]) for key in ("spa_p", "min_trl_years")}
    return {**lower, **higher, "pbo": None if found is None else found["pbo"]}


def _of_both(choose: Callable[..., float], first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else choose(first, second)
