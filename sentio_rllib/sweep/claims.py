"""What a sweep may claim: the statistics of its trials and of its champion, put together at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sentio_rllib.sweep.context import Context
from sentio_rllib.sweep.examiner import Examiner
from sentio_rllib.sweep.holdout import open_holdout
from sentio_rllib.sweep.selection import Outcome
from sentio_rllib.validation.deflation import headline
from sentio_rllib.validation.metrics import sharpe
from sentio_rllib.validation.targets import compare_targets
from sentio_rllib.validation.verdict import judge, no_champion


@dataclass(frozen=True)
class Findings:
    """What :func:`examine` found.

    Attributes
    ----------
    summary
        Parts of the sweep's summary.
    equity
        Session returns of champion and buy-and-hold.
    given_up
        Whether the champion's training was, so that the sweep has not come to its end.
    """

    summary: dict[str, Any]
    equity: pd.DataFrame
    given_up: bool = False


def examine(
    sweep: Context,
    outcomes: Sequence[Outcome],
    best: Outcome | None,
    *,
    final: bool,
    reopen: bool,
    go_on: Callable[[], bool],
) -> Findings:
    """Return what the trials of a sweep and its champion show.

    Parameters
    ----------
    sweep
        What trials ran on, and its account in the ledger.
    outcomes
        One per trial.
    best
        The selected trial; None where none is eligible.
    final
        Whether the search is over; before that, and for a comparison of arms, the holdout stays shut.
    reopen, go_on
        As in :func:`~sentio_rllib.sweep.holdout.open_holdout`.
    """
    config, examiner = sweep.config, Examiner(sweep.config, sweep.prepared)
    series = {outcome.trial_id: examiner.series(outcome) for outcome in outcomes if outcome.best}
    for outcome in outcomes:
        known = series.get(outcome.trial_id)
        sweep.account.close(outcome, (None, None) if known is None else (sharpe(known.raw, 1), sharpe(known.timing, 1)))
    search, counts = sweep.account.search()
    if best is None:
        why = "no trading: no scored trial's median member trades" if series else "no trial was scored"
        evidence = {**dict.fromkeys(_FIGURES), **no_champion(why).summary(), "n_trials": search.own + search.others}
        evidence |= {"ledger": counts}
        return Findings(
            {"evidence": evidence, **dict.fromkeys(("cv", "holdout", "targets", "stress"))}, equity_table([])
        )
    cv = examiner.cross_validation(best, series[best.trial_id])
    deflated = examiner.deflate(outcomes, best, series, cv.hold, search)
    holdout, given_up = None, False
    told: dict[str, Any] | None = {"opened": False, "why": _SHUT[bool(config.search.arms)]}
    if final and not config.search.arms:
        opened = open_holdout(sweep, best, reopen=reopen, go_on=go_on)
        told = None if opened is None else opened.told
        given_up = opened is not None and opened.given_up
        if opened is not None and opened.record is not None and opened.tape is not None:
            holdout = examiner.holdout(best, opened.record, opened.tape)
            told = opened.told | holdout.told
    evidence = judge(deflated, told, confidence=config.evidence.confidence).summary()
    reached = None if holdout is None else holdout.reached
    summary = {
        "evidence": evidence | headline(deflated) | deflated | {"ledger": counts},
        "cv": cv.told,
        "holdout": told,
        "targets": compare_targets(examiner.targets(), cv.reached, reached),
        "stress": examiner.stress(best) if config.evidence.stress and go_on() else None,
    }
    return Findings(summary, equity_table([part.equity for part in (cv, holdout) if part is not None]), given_up)


_FIGURES = ("effective_trials", "psr", "dsr", "pbo", "spa_p", "min_trl_years", "min_btl_years")
_SHUT = {True: "arms are compared, no champion is chosen", False: "the search is not over"}
"""Why a holdout stays shut: whether there are arms."""


def equity_table(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return session returns in long form: ``part, session, champion, hold``."""
    empty = pd.DataFrame(columns=["part", "session", "champion", "hold"])
    return pd.concat(parts, ignore_index=True) if parts else empty
