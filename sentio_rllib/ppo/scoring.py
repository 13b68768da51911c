"""Scores a stack of members on their validation blocks: the one place where a trial's scores are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sentio_rllib.errors import NonFiniteError
from sentio_rllib.market.tape import TapeTensors
from sentio_rllib.policy.actor_critic import ActorCritic, TapeReader
from sentio_rllib.policy.deciding import network_policy
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.statistics.inputs import Floats
from sentio_rllib.statistics.metrics import cv_score, sharpe
from sentio_rllib.trading.masks import BUY
from sentio_rllib.validation.baselines import NO_STOP, table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator, Evaluation, Record, fold_score, score_members
from sentio_rllib.validation.regimes import fit_regimes
from sentio_rllib.validation.schemes import training_stretch
from sentio_rllib.validation.series import coverage, timing_by_member


class Scores(NamedTuple):
    """`cv_score` of the greedy policies, `sampled_score` of the sampled ones, `fold_scores` [folds, seeds].

    `rung_score`, by which trials are stopped, is the higher of the two: a policy that is soft on purpose earns little
    where it is sampled, and one that is still undecided earns little where it is greedy.

    `fold_scores`, of which `cv_score` is made, are means over the phases of the decision grid. `train_score` is that
    of the greedy policies on a stretch of their own training bars, as long as what they validate on.
    """

    cv_score: float
    sampled_score: float
    train_score: float
    fold_scores: NDArray[np.float64]
    evaluation: Evaluation

    @property
    def rung_score(self) -> float:
        """The higher score."""
        return max(self.cv_score, self.sampled_score)


class _Held(NamedTuple):
    """Buy-and-hold by fold: in every phase of the decision grid, and on the training stretches."""

    phases: list[dict[int, Record]]
    beside: dict[int, Record]


class Scorer:
    """Scores networks of one trial.

    Parameters
    ----------
    tape
        The tape that trials receive.
    settings
        Of the trial.
    sessions_per_year
        Annualises the Sharpe ratio.
    dtype
        Of the networks.
    """

    def __init__(self, tape: TapeTensors, settings: TrialSettings, sessions_per_year: int, dtype: torch.dtype) -> None:
        self.settings, self.sessions_per_year = settings, sessions_per_year
        self.reader = TapeReader(tape.features.to(dtype), settings.policy)
        folds = [settings.folds[fold] for _, fold in settings.members]
        shared: dict[str, Any] = {"members": settings.members, "dtype": dtype}
        regimes = _regimes(tape, settings)
        blocks = [fold.validation for fold in folds]
        stretches = [training_stretch(fold) for fold in folds]
        self.evaluator = BlockEvaluator(
            tape, settings.rules, blocks, **shared, regimes=regimes, phases=settings.phases, beside=stretches
        )
        self._hold = self._held(tape) if settings.score == "timing" else None
        self._coverage = coverage(settings.folds)

    def _held(self, tape: TapeTensors) -> _Held:
        """Buy-and-hold of each fold, without a stop."""
        rules, walked = self.settings.rules.replace(masks="state", max_drawdown=NO_STOP), self.evaluator
        shared: dict[str, Any] = {"dtype": walked.dtype, "phases": len(walked.phases)}
        stretches = [block for (block,) in walked.beside]
        evaluator = BlockEvaluator(tape, rules, walked.blocks, walked.members, **shared, beside=stretches)
        always = table_policy(np.full(tape.n, BUY, dtype=np.int64), device=tape.device)

        def by_fold(records: Sequence[Record]) -> dict[int, Record]:
            return {fold: record for (_, fold), record in zip(self.settings.members, records, strict=True)}

        found = evaluator.evaluate(always)
        return _Held([by_fold(records) for records in found.phases], by_fold(found.beside))

    def score(self, network: ActorCritic) -> Scores:
        """Evaluate and score `network`.

        Raises
        ------
        NonFiniteError
            If a score is NaN or infinite.
        """
        network.eval()
        evaluation = self.evaluator.evaluate(network_policy(network, self.reader, self.evaluator.bars()))
        by_phase = [self._by_fold(records, phase)[1] for phase, records in enumerate(evaluation.phases)]
        fold_scores = np.mean(by_phase, axis=0)
        found = cv_score(fold_scores, self.settings.fold_penalty)
        sampled, _ = self._by_fold(evaluation.sampled)
        trained, _ = self._by_fold(evaluation.beside, None)
        if not np.isfinite([found, sampled, trained]).all():
            raise NonFiniteError(
                f"a score is not finite: cv_score {found}, sampled_score {sampled}, train_score {trained}"
            )
        return Scores(found, sampled, trained, fold_scores, evaluation)

    def _by_fold(self, records: Sequence[Record], phase: int | None = 0) -> tuple[float, NDArray[np.float64]]:
        """Score over folds, and by fold and seed, of what `search.score` names; phase None: on training bars."""
        year, members = self.sessions_per_year, self.settings.members
        if self._hold is not None:
            series = self._timing(records, self._hold, phase)
            scores = [
                sharpe(each, year) if record.trades else 0.0 for each, record in zip(series, records, strict=True)
            ]
        else:
            scores = [fold_score(record, year) for record in records]
        return score_members(scores, members, self.settings.fold_penalty)

    def _timing(self, records: Sequence[Record], hold: _Held, phase: int | None) -> list[Floats]:
        """Timing of each member; training stretches overlap, so there each is told the market's mean in validation."""
        members = self.settings.members
        if phase is not None:
            return timing_by_member(records, hold.phases[phase], members, self._coverage)
        alone = []
        for record, member in zip(records, members, strict=True):
            fold = hold.phases[0][member[1]]
            mean = float(fold.excess_returns.sum() / fold.session_bars.sum())
            alone += timing_by_member([record], {member[1]: hold.beside[member[1]]}, [member], elsewhere=mean)
        return alone


def _regimes(tape: TapeTensors, settings: TrialSettings) -> list[NDArray[np.int8]]:
    """Return each member's labels of all bars, fitted on its fold's training segments; for attribution only."""
    features = tape.features.cpu().numpy()
    folds = {
        fold: fit_regimes(features, settings.folds[fold].train, seed=settings.trial_seed % 2**32)
        for _, fold in settings.members
    }
    return [folds[fold] for _, fold in settings.members]
