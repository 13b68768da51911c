"""Scores a stack of members on their validation blocks: the one place where a trial's scores are made."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sentio_rllib.errors import NonFiniteError
from sentio_rllib.market.tape import TapeTensors
from sentio_rllib.policy.variants import ActorCritic, TapeReader
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.validation.evaluation import BlockEvaluator, Decide, Evaluation, score_members
from sentio_rllib.validation.regimes import fit_regimes


class Scores(NamedTuple):
    """`cv_score` of the greedy policies, `rung_score` of the sampled ones, `fold_scores` [folds, seeds]."""

    cv_score: float
    rung_score: float
    fold_scores: NDArray[np.float64]
    evaluation: Evaluation


def network_policy(network: ActorCritic, reader: TapeReader, bars: torch.Tensor) -> Decide:
    """Return `network` as a policy over the bars of blocks.

    Parameters
    ----------
    network, reader
        Networks and the tape they read.
    bars
        int64 ``[steps, blocks, M]``, of every decision in every block; a transformer encodes each once.
    """
    if not reader.encodes:
        return lambda bar, portfolio, mask: network.policy(reader.market(bar), portfolio, mask).logits
    blocks = bars.transpose(0, 1)
    contexts = reader.contexts(network.policy_context, blocks.flatten(0, 1)).view(*blocks.shape, -1)
    first, interval, last = bars[0], reader.patch, len(bars) - 1
    block, member = (torch.arange(size, device=bars.device) for size in bars.shape[1:])

    def decide(bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        passes = len(bar) // len(block)  # greedy and sampled walk the same bars
        step = torch.div(bar - first.repeat(passes, 1), interval, rounding_mode="floor").clamp_(0, last)
        context = contexts[block.repeat(passes).unsqueeze(1), step, member]
        return network.policy(context, portfolio, mask).logits

    return decide


def ensemble_policy(network: ActorCritic, reader: TapeReader, bars: torch.Tensor) -> Decide:
    """Return the members of `network` as one policy, the mean of their distributions.

    Parameters
    ----------
    network, reader
        M networks and the tape they read.
    bars
        int64 ``[steps, blocks, 1]``, of every decision in every block.
    """
    count = len(network.members)
    each = network_policy(network, reader, bars.expand(-1, -1, count))

    def decide(bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rows = len(bar)
        logits = each(bar.expand(rows, count), portfolio.expand(rows, count, -1), mask.expand(rows, count, -1))
        # a masked action has probability 0 with every member, and stays the least of all logits
        return torch.log(torch.softmax(logits, -1).mean(1, keepdim=True).clamp_(min=torch.finfo(logits.dtype).tiny))

    return decide


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
            tape, settings.rules, blocks, settings.members, dtype=dtype, regimes=_regimes(tape, settings)
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
        cv_score, fold_scores = score_members(evaluation.greedy, *shared)
        rung_score, _ = score_members(evaluation.sampled, *shared)
        if not (np.isfinite(cv_score) and np.isfinite(rung_score)):
            raise NonFiniteError(f"a score is not finite: cv_score {cv_score}, rung_score {rung_score}")
        return Scores(cv_score, rung_score, fold_scores, evaluation)


def _regimes(tape: TapeTensors, settings: TrialSettings) -> list[NDArray[np.int8]]:
    """Return each member's labels of all bars, fitted on its fold's training segments; for attribution only."""
    features = tape.features.cpu().numpy()
    folds = {
        fold: fit_regimes(features, settings.folds[fold].train, seed=settings.trial_seed % 2**32)
        for _, fold in settings.members
    }
    return [folds[fold] for _, fold in settings.members]
