"""Scores a stack of members on their validation blocks: the one place where a trial's scores are made."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sentio_rllib.errors import NonFiniteError
from sentio_rllib.market.tape import TapeTensors
from sentio_rllib.policy.actor_critic import ActorCritic, TapeReader
from sentio_rllib.policy.deciding import network_policy
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.statistics.metrics import cv_score
from sentio_rllib.validation.evaluation import BlockEvaluator, Evaluation, score_members
from sentio_rllib.validation.regimes import fit_regimes


class Scores(NamedTuple):
    """`cv_score` of the greedy policies, `rung_score` of the sampled ones, `fold_scores` [folds, seeds].

    `fold_scores`, of which `cv_score` is made, are means over the phases of the decision grid.
    """

    cv_score: float
    rung_score: float
    fold_scores: NDArray[np.float64]
    evaluation: Evaluation


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
        blocks = [settings.folds[fold].validation for _, fold in settings.members]
        self.evaluator = BlockEvaluator(
            tape,
            settings.rules,
            blocks,
            settings.members,
            dtype=dtype,
            regimes=_regimes(tape, settings),
            phases=settings.phases,
        )

    def score(self, network: ActorCritic) -> Scores:
        """Evaluate and score `network`.

        Raises
        ------
        NonFiniteError
            If a score is NaN or infinite.
        """
        network.eval()
        evaluation = self.evaluator.evaluate(network_policy(network, self.reader, self.evaluator.bars()))
        shared = (self.settings.members, self.sessions_per_year, self.settings.fold_penalty)
        by_phase = [score_members(records, *shared)[1] for records in evaluation.phases]
        fold_scores = np.mean(by_phase, axis=0)
        found = cv_score(fold_scores, self.settings.fold_penalty)
        rung_score, _ = score_members(evaluation.sampled, *shared)
        if not (np.isfinite(found) and np.isfinite(rung_score)):
            raise NonFiniteError(f"a score is not finite: cv_score {found}, rung_score {rung_score}")
        return Scores(found, rung_score, fold_scores, evaluation)


def _regimes(tape: TapeTensors, settings: TrialSettings) -> list[NDArray[np.int8]]:
    """Return each member's labels of all bars, fitted on its fold's training segments; for attribution only."""
    features = tape.features.cpu().numpy()
    folds = {
        fold: fit_regimes(features, settings.folds[fold].train, seed=settings.trial_seed % 2**32)
        for _, fold in settings.members
    }
    return [folds[fold] for _, fold in settings.members]
