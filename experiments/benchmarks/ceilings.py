"""What the features of a planted market can say at best: trees that were told the regimes, and an oracle that is late.

The trees (histogram gradient boosting) are fitted to the true regimes of each fold's training segments and decide with
hysteresis: Buy above a probability, Sell below another, both chosen on the training segments. The late oracle knows the
regime that the market had so many bars ago.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from markets import Market
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from sentio_rllib.market.oracle import BUY, SELL, skill
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.validation.baselines import table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator, Record
from sentio_rllib.validation.schemes import training_stretch
from sentio_rllib.validation.splits import Range

LATE = 15
"""Bars by which the oracle is late: one decision."""
ABOVE, BELOW = (0.5, 0.7, 0.85, 0.9, 0.95), (0.5, 0.2, 0.1, 0.05, 0.02)


def ceilings(found: Market, settings: TrialSettings) -> dict[str, float]:
    """Return the mean skill over folds of the trees and of the late oracle, of it on training stretches too."""
    one = sorted({fold for _, fold in settings.members})
    blocks = [settings.folds[fold].validation for fold in one]
    stretches = [(training_stretch(settings.folds[fold]),) for fold in one]
    late = np.concatenate([found.oracle[:LATE], found.oracle[:-LATE]])
    trees = np.stack([_fitted(found, settings, fold) for fold in one], axis=1)
    return {
        "trees": float(np.mean(_skills(found, settings, blocks, trees))),
        "late_oracle": float(np.mean(_skills(found, settings, blocks, late))),
        "late_oracle_training": float(np.mean(_skills(found, settings, stretches, late))),
    }


def _fitted(found: Market, settings: TrialSettings, fold: int) -> NDArray[np.int64]:
    """Actions int64[T] of the trees of one fold, with the thresholds that are best on its training segments."""
    segments = settings.folds[fold].train
    rows = np.concatenate([np.arange(each.start, each.stop, 3) for each in segments])
    bull = found.oracle == BUY
    trees = HistGradientBoostingClassifier(max_iter=150, max_leaf_nodes=15, early_stopping=False, random_state=0)
    trees.fit(found.tape.features[rows], bull[rows])
    probability = trees.predict_proba(found.tape.features)[:, 1]

    def actions(above: float, below: float) -> NDArray[np.int64]:
        return np.where(probability > above, BUY, np.where(probability < below, SELL, 0)).astype(np.int64)

    tried = list(itertools.product(ABOVE, BELOW))
    tables = np.stack([actions(*each) for each in tried], axis=1)
    reached = _skills(found, settings, [segments] * len(tried), tables)
    return tables[:, int(np.argmax(reached))]


def _skills(
    found: Market, settings: TrialSettings, blocks: Sequence[Sequence[Range]], table: NDArray[np.int64]
) -> list[float]:
    """Skill of a table of actions, int64[T] or [T, members], on each member's blocks."""
    members = [(0, number) for number in range(len(blocks))]
    evaluator = BlockEvaluator(found.tape.tensors(), settings.rules, blocks, members)

    def walked(actions: NDArray[np.int64]) -> Sequence[Record]:
        return evaluator.evaluate(table_policy(actions)).greedy

    rows = zip(walked(table), walked(found.oracle), walked(np.full(found.tape.n, BUY)), strict=True)
    return [
        skill(agent.mean_return, oracle.mean_return, hold.mean_return, agent.exposure) for agent, oracle, hold in rows
    ]
