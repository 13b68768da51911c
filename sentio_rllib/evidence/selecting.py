"""Which trial becomes champion, and what its search makes of its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.evidence.champion import CHAMPION, champion_model
from sentio_rllib.evidence.context import Context
from sentio_rllib.evidence.examiner import Examiner, Measured
from sentio_rllib.policy.checkpoint import save_model
from sentio_rllib.search.selection import Outcome, best_outcome
from sentio_rllib.search.tuning import SearchCourse, Searched
from sentio_rllib.statistics.metrics import sharpe

FINAL = ("completed", "time budget")
"""States of a sweep whose search is over and has a champion."""


@dataclass(frozen=True)
class Deflated:
    """The selected trial out of sample.

    Attributes
    ----------
    trial
        Which it is.
    cv
        Its figures on the validation blocks of its folds.
    statistics
        Of :func:`sentio_rllib.statistics.deflation.deflate`.
    """

    trial: Outcome
    cv: Measured
    statistics: dict[str, Any]


@dataclass(frozen=True)
class Selected:
    """What a search selected.

    Attributes
    ----------
    state
        Of the sweep, as its summary tells it.
    best
        The selected trial; None where none is eligible.
    scored
        Whether any trial was that did not fail.
    looks
        How many looks at these bars the ledger knows, this sweep's included.
    counts
        What the ledger knows of them, for people.
    examiner
        Measures champion and baselines.
    shut
        Why the holdout stays shut; empty where it does not.
    """

    state: str
    best: Deflated | None
    scored: bool
    looks: int
    counts: dict[str, Any]
    examiner: Examiner
    shut: str


def select(sweep: Context, searched: Searched) -> Selected:
    """Select a trial by `evidence.selection`, keep its members below the sweep's folder, and deflate its figures.

    Closes every trial in the ledger. The holdout is not looked at.
    """
    config, outcomes = sweep.config, searched.outcomes
    best = best_outcome(outcomes, config.evidence.selection)
    if best is not None:
        save_model(sweep.folder / CHAMPION, *champion_model(best, config, sweep.prepared))
    examiner = Examiner(config, sweep.prepared)
    series = {outcome.trial_id: examiner.series(outcome) for outcome in outcomes if outcome.best}
    for outcome in outcomes:
        known = series.get(outcome.trial_id)
        sweep.tally.close(
            outcome, (None, None) if known is None else (sharpe(known.excess, 1), sharpe(known.timing, 1))
        )
    looks, counts = sweep.tally.looks()
    deflated = None
    if best is not None:
        cv = examiner.cross_validation(best, series[best.trial_id])
        deflated = Deflated(best, cv, examiner.deflate(outcomes, best, series, cv.hold, looks))
    state = state_of(config, outcomes, best, searched.course)
    shut = "arms are compared, no champion is chosen" if config.search.arms else ""
    if not shut and state not in FINAL:
        shut = "the search is not over"
    scored = any(outcome.best for outcome in outcomes if outcome.state != "failed")
    return Selected(state, deflated, scored, looks.nominal, counts, examiner, shut)


def state_of(config: SweepConfig, outcomes: Sequence[Outcome], best: Outcome | None, course: SearchCourse) -> str:
    """Return the state of a sweep after its search, as its summary tells it."""
    if course.interrupted:
        return "interrupted"
    sound = [outcome for outcome in outcomes if outcome.state != "failed"]
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if failed and not sound:
        return "failed"
    if not any(outcome.env_steps >= config.search.grace_steps for outcome in sound):
        return "budget too short"
    if best is None:
        if any(outcome.best and outcome.best["validation_trades"] > 0 for outcome in failed):
            return "failed"  # those that trade are lost to a fault, so that none trades is no finding
        return "no trading"
    return "completed" if course.remaining == 0 else "time budget"
