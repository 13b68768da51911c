"""What a sweep has to its account in the ledger: what it tried, and what all sweeps on overlapping bars have tried."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentio_rllib import __version__
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.evidence.ledger import AlikeMarket, Ledger, Opening
from sentio_rllib.evidence.session_marks import SessionMark, session_marks
from sentio_rllib.search.prepare import Prepared
from sentio_rllib.search.selection import Outcome
from sentio_rllib.statistics.deflation import Looks, count_looks
from sentio_rllib.statistics.significance import least_supported_sharpe_ratio
from sentio_rllib.validation.schemes import Range


@dataclass(frozen=True)
class Tally:
    """Writes one sweep's trials and openings, and reads everybody's.

    Attributes
    ----------
    ledger
        Where they stand.
    uid
        Identity of the sweep.
    members
        Networks of a trial.
    development, holdout
        The sessions that trials are trained and scored on, and the holdout's.
    """

    ledger: Ledger
    uid: str
    members: int
    development: tuple[SessionMark, ...]
    holdout: tuple[SessionMark, ...]

    def count(self, trial_id: str, params: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> None:
        """Count a trial as it runs, by the evaluations that it has reported."""
        self._record(trial_id, params, evaluations, "running", (None, None))

    def close(self, outcome: Outcome, sharpes: tuple[float | None, float | None]) -> None:
        """Count a trial as it ended, with its raw and timing Sharpe ratios per session."""
        self._record(outcome.trial_id, outcome.params, outcome.curve, outcome.state, sharpes)

    def _record(
        self,
        trial_id: str,
        params: Mapping[str, Any],
        evaluations: Sequence[Mapping[str, Any]],
        state: str,
        sharpes: tuple[float | None, float | None],
    ) -> None:
        self.ledger.record_trial(
            self.uid,
            trial_id,
            config=hashlib.sha256(json.dumps(dict(params), sort_keys=True).encode()).hexdigest()[:32],
            members=self.members,
            evaluations=sum(each.get("validation_trades", 0) > 0 for each in evaluations),
            env_steps=max((int(each["env_steps"]) for each in evaluations), default=0),
            state=state,
            sharpe=sharpes[0],
            timing_sharpe=sharpes[1],
        )

    def looks(self) -> tuple[Looks, dict[str, Any]]:
        """Return what was tried on these bars by all sweeps, and its counts for people."""
        trials = self.ledger.trials_on(self.development)
        traded = [trial for trial in trials if trial.evaluations > 0]
        own = [trial for trial in traded if trial.uid == self.uid]
        evaluations = sum(trial.evaluations for trial in traded)
        counts = {
            "path": str(self.ledger.path),
            "sweeps": len({trial.uid for trial in trials}),
            "configurations": len(trials),
            "evaluations": evaluations,
            "members": sum(trial.members for trial in trials),
            "pruned": sum(trial.state == "pruned" for trial in trials),
            "alike": [each._asdict() for each in self.alike()],
        }
        told = [(trial.sharpe, trial.timing_sharpe) for trial in traded]
        raw, timing = (
            np.array([pair[column] for pair in told if pair[column] is not None], dtype=np.float64) for column in (0, 1)
        )
        own_evaluations = sum(trial.evaluations for trial in own)
        others = len({trial.uid for trial in traded} - {self.uid})
        return Looks(len(own), own_evaluations, others, evaluations - own_evaluations, raw, timing), counts

    def alike(self) -> tuple[AlikeMarket, ...]:
        """Return other markets that moved alike on the dates of this sweep, its holdout's included."""
        return self.ledger.alike(self.uid, (*self.development, *self.holdout))

    def open(self, key: str, *, reopen: bool) -> Opening:
        """Record that the holdout is opened for what `key` names; before anything is scored there."""
        return self.ledger.open_holdout(self.uid, key, self.holdout, reopen=reopen)


def open_tally(ledger: Ledger, uid: str, name: str, members: int, prepared: Prepared) -> Tally:
    """Register a sweep, new or resumed, and return its tally."""
    marks, splits = session_marks(prepared.bars), prepared.splits
    session = prepared.bars.sessions.session

    def of(ranges: Sequence[Range]) -> tuple[SessionMark, ...]:
        return tuple(marks[index] for each in ranges for index in np.unique(session[each.start : each.stop]))

    holdout = of(splits.holdout_blocks)
    # a session that the edge divides would make every holdout one that trials have seen
    development = tuple(each for each in of([splits.development]) if each not in holdout)
    ledger.register_sweep(uid, name, __version__, development, holdout, symbol=prepared.bars.symbol)
    return Tally(ledger, uid, members, development, holdout)


def least_supported(config: SweepConfig, prepared: Prepared) -> str:
    """Say from which Sharpe ratio on a sweep that has not begun could be supported, were all its trials independent."""
    session, marks = prepared.bars.sessions.session, session_marks(prepared.bars)
    blocks = [each for fold in prepared.splits.folds for each in fold.validation]
    sessions = len({int(index) for each in blocks for index in np.unique(session[each.start : each.stop])})
    others, path = 0, Path(config.evidence.ledger)
    if path.is_file():
        known = [marks[index] for index in np.unique(session[: prepared.splits.development.stop])]
        others = len({trial.uid for trial in Ledger(path).trials_on(known) if trial.evaluations > 0})
    trials, each = config.asked_trials(), max(1, config.search.env_steps // config.search.evaluate_every)
    least = least_supported_sharpe_ratio(
        count_looks(trials, each, others), sessions, confidence=config.evidence.confidence
    )
    year = prepared.tape.sessions_per_year
    return (
        f"the least annual Sharpe ratio that could be supported: {least * year**0.5:.2f} ({sessions} sessions in "
        f"cross-validation, {trials} trials x {each} evaluations, {others} other sweeps on these bars in the ledger; "
        "less where trials are alike)"
    )
