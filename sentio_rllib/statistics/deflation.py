"""What is left of the best trial's Sharpe ratio after the search that found it.

One column of session returns per configuration, the pruned ones included, at the evaluation that selection would
use. Everything is per session but what is named annual or years. What was tried, here and in earlier sweeps on
overlapping bars, comes as a :class:`Looks`.

**V is the variance without any edge**, (1 + p) / (1 - p) / S with the session returns' autocorrelation p where it is
positive. The spread of the trials' Sharpe ratios is told, and luck is not computed from it: trials that differ in skill
are no luck, and idle or ruinous ones would refuse every edge beside them. Skew and kurtosis enter at the benchmark.

**N counts what could have been luck.** The trials that traded, times the share of them that clustering finds
independent (:func:`effective_trials`), by raw or by timing returns, whichever is more: trials that are long together
are one by raw returns and may be timed apart. Times the square root of the evaluations of each, for these go on from
one another: the returns of neighbouring ones correlate by 0.7, of distant ones by 0.3. Plus one for every other sweep
on overlapping bars, since what its user carries from it is one choice.

**These three rules are calibrated, not derived**: `experiments/benchmarks/calibration.py` runs thousands of whole
verdicts without an edge, and with edges of known Sharpe ratios, and its result is committed.

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
from sentio_rllib.statistics.metrics import sharpe
from sentio_rllib.statistics.overfitting import Overfitting, effective_trials, probability_of_backtest_overfitting
from sentio_rllib.statistics.resampling import (
    MIN_BOOTSTRAP_PERIODS,
    stepwise_superior,
    superior_predictive_ability,
)
from sentio_rllib.statistics.significance import (
    deflated_sharpe_ratio,
    expected_maximum_sharpe_ratio,
    least_supported_sharpe_ratio,
    minimum_backtest_length,
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
    sharpe_moments,
    sharpe_standard_error,
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

    def trading(self) -> list[int]:
        """Return the columns of those that trade."""
        return [index for index in range(len(self.trials)) if np.ptp(self.raw[:, index]) > 0.0]


@dataclass(frozen=True)
class Looks:
    """What was tried on overlapping bars, in all sweeps that the ledger knows.

    Attributes
    ----------
    trials, evaluations
        Configurations of this sweep that traded, and their evaluations that did, all together.
    other_sweeps, other_evaluations
        Other sweeps of which a trial traded, and their evaluations that did. The nominal N is the sum of evaluations.
    raw, timing
        float64[K], Sharpe ratios per session of all configurations, to tell how they spread.
    """

    trials: int
    evaluations: int
    other_sweeps: int
    other_evaluations: int
    raw: Floats
    timing: Floats

    @property
    def nominal(self) -> int:
        """All evaluations that traded, at least 1."""
        return max(1, self.evaluations + self.other_evaluations)


@dataclass
class Attempts:
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
        ``chosen, n_trials, effective_trials, sessions, years, least_sharpe, min_btl_years, raw, timing, overfitting,
        missing``. A statistic that does not exist is None; where the sessions do not suffice, `missing` says how many
        do. ``least_sharpe`` is the annual Sharpe ratio from which the deflated one reaches `confidence`.
    """
    attempt = Attempts()
    sessions, trading = len(panel.raw), panel.trading()
    found = sharpe_evidence(panel, chosen, looks, sessions_per_year=sessions_per_year, attempt=attempt)
    effective, raw, timing = found["effective_trials"], found["raw"], found["timing"]
    tests = _Tests(panel.trials, trading, attempt, 1.0 - confidence, resamples, seed % 2**32)
    flat = np.zeros(sessions)
    raw |= tests.against(panel.raw, flat) | tests.against(panel.raw, panel.hold, "_hold")
    timing |= tests.against(panel.timing, flat)
    least = attempt(lambda: least_supported_sharpe_ratio(effective or 1.0, sessions, confidence=confidence))
    return {
        "chosen": chosen,
        "n_trials": looks.nominal,
        "effective_trials": effective,
        "sessions": sessions,
        "years": sessions / sessions_per_year,
        "least_sharpe": None if effective is None or least is None else least * math.sqrt(sessions_per_year),
        "min_btl_years": None if effective is None else minimum_backtest_length(effective),
        "raw": raw,
        "timing": timing,
        "overfitting": _overfittings(attempt, panel, trading),
        "missing": attempt.missing,
    }


def sharpe_evidence(
    panel: Panel, chosen: str, looks: Looks, *, sessions_per_year: int, attempt: Attempts | None = None
) -> dict[str, Any]:
    """Return ``effective_trials`` and the figures of ``raw`` and ``timing`` that need no resampling.

    Parameters as in :func:`deflate`, which they are a part of; `attempt` takes note of what the sessions do not
    suffice for.
    """
    attempt = Attempts() if attempt is None else attempt
    column, effective = panel.trials.index(chosen), _effective(attempt, panel, looks)
    shared: dict[str, Any] = {"nominal": looks.nominal, "effective": effective, "year": sessions_per_year}
    parts = {"raw": (panel.raw, looks.raw), "timing": (panel.timing, looks.timing)}
    return {"effective_trials": effective} | {
        part: _sharpe_figures(attempt, returns[:, column], spread, **shared)
        | {"of_trials": dict(zip(panel.trials, _annual(returns, sessions_per_year), strict=True))}
        for part, (returns, spread) in parts.items()
    }


def _annual(returns: Floats, sessions_per_year: int) -> list[float]:
    """Annual Sharpe ratio of each column."""
    return [sharpe(np.ascontiguousarray(column), sessions_per_year) for column in returns.T]


def count_looks(trials: float, evaluations: float, other_sweeps: int) -> float:
    """Return the effective N of `trials` independent configurations, >= 1.

    Parameters
    ----------
    trials
        Configurations that traded, times the share of them that is independent.
    evaluations
        Evaluations of each that traded, on average.
    other_sweeps
        Other sweeps on overlapping bars.
    """
    return max(1.0, trials * math.sqrt(max(1.0, evaluations))) + other_sweeps


def _effective(attempt: Attempts, panel: Panel, looks: Looks) -> float | None:
    """Return the effective N, or None where the sessions do not suffice for it."""
    trading = panel.trading()
    shares = [attempt(partial(_independent_share, returns[:, trading])) for returns in (panel.raw, panel.timing)]
    told = [share for share in shares if share is not None]
    if len(told) < len(shares):
        return None
    each = looks.evaluations / max(1, looks.trials)
    return count_looks(max(told) * looks.trials, each, looks.other_sweeps)


def _independent_share(returns: Floats) -> float:
    """Share of the columns that counts as independent, above 0 and up to 1; of none, 1."""
    return effective_trials(returns) / returns.shape[1] if returns.shape[1] else 1.0


def _sharpe_figures(
    attempt: Attempts, returns: Floats, spread: Floats, *, nominal: int, effective: float | None, year: int
) -> dict[str, Any]:
    """PSR, DSR and MinTRL of one column, with what luck alone gives the best; `spread` is told and used for nothing."""
    sessions, annual = len(returns), math.sqrt(year)
    moments = attempt(lambda: sharpe_moments(np.ascontiguousarray(returns)))
    if moments is None or effective is None:
        return dict.fromkeys(
            ("sharpe", "psr", "dsr", "dsr_nominal", "expected_maximum_sharpe", "min_trl_years", "spread")
        )
    found, shape = moments.sharpe, (moments.skew, moments.kurtosis)
    law: dict[str, Any] = {"autocorrelation": max(0.0, moments.autocorrelation), "under": "null"}
    variance = sharpe_standard_error(0.0, sessions, *shape, law["autocorrelation"]) ** 2

    def dsr(trials: float) -> float | None:
        return attempt(lambda: deflated_sharpe_ratio(found, sessions, *shape, trials=trials, variance=variance, **law))

    needed = attempt(lambda: minimum_track_record_length(found, 0.0, *shape, **law))
    return {
        "sharpe": found * annual,
        "psr": attempt(lambda: probabilistic_sharpe_ratio(found, 0.0, sessions, *shape, **law)),
        "dsr": dsr(effective),
        "dsr_nominal": dsr(float(nominal)),
        "expected_maximum_sharpe": expected_maximum_sharpe_ratio(effective, variance) * annual,
        "min_trl_years": None if needed is None or math.isinf(needed) else needed / year,
        "spread": float(spread.std(ddof=1)) * annual if spread.size > 1 else None,
    }


@dataclass(frozen=True)
class _Tests:
    """SPA and StepM of all trials that trade against a benchmark."""

    trials: tuple[str, ...]
    trading: list[int]
    attempt: Attempts
    size: float
    resamples: int
    seed: int

    def against(self, returns: Floats, benchmark: Floats, suffix: str = "") -> dict[str, Any]:
        """The p-value, and the names of the trials that are better."""
        reps, seed = self.resamples, self.seed
        returns = returns[:, self.trading]
        if not self.trading:
            return {f"spa_p{suffix}": None, f"stepm{suffix}": []}
        p_value = self.attempt(lambda: superior_predictive_ability(returns, benchmark, reps=reps, seed=seed))
        better = self.attempt(lambda: stepwise_superior(returns, benchmark, size=self.size, reps=reps, seed=seed))
        names = [self.trials[self.trading[index]] for index in better or ()]
        return {f"spa_p{suffix}": p_value, f"stepm{suffix}": names}


def _overfittings(attempt: Attempts, panel: Panel, trading: list[int]) -> dict[str, dict[str, Any] | None]:
    """PBO over the trials that trade, over those of them that trained longest, and by timing."""
    most = max((panel.env_steps[index] for index in trading), default=0)
    longest = [index for index in trading if panel.env_steps[index] == most]
    return {
        "all": _overfitting(attempt, panel.raw[:, trading]),
        "equal_budgets": _overfitting(attempt, panel.raw[:, longest]),
        "timing": _overfitting(attempt, panel.timing[:, trading]),
    }


def _overfitting(attempt: Attempts, returns: Floats) -> dict[str, Any] | None:
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
