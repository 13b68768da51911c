"""Scores of a stack of networks: the mean over the phases of the decision grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sentio_rllib.config.loading import build_config
from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.actor_critic import ActorCritic
from sentio_rllib.policy.deciding import network_policy
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.ppo.scoring import Scorer
from sentio_rllib.ppo.settings import PPOSettings, TrialSettings
from sentio_rllib.search.prepare import trial_settings
from sentio_rllib.statistics.metrics import cv_score, sharpe
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.baselines import table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator, fold_score
from sentio_rllib.validation.schemes import Fold, training_stretch
from sentio_rllib.validation.series import timing_by_member
from sentio_rllib.validation.splits import Range, Splits

MEMBERS = ((1, 0), (2, 0), (1, 1), (2, 1))
INTERVAL, YEAR = 10, 252


def _scorer(splits: Splits, tape: Tape, phases: int) -> Scorer:
    settings = TrialSettings(
        TradingRules(episode_length=300, decision_interval=INTERVAL, fee_rate=1e-4),
        PolicySpec(hidden=(8,)),
        PPOSettings(precision="float64"),
        splits.folds,
        MEMBERS,
        fold_penalty=0.5,
        phases=phases,
    )
    return Scorer(tape.tensors(), settings, YEAR, torch.float64)


@pytest.fixture(scope="module")
def network() -> ActorCritic:
    """Networks that have learned nothing and yet trade: weights large enough to change their mind."""
    made = ActorCritic(PolicySpec(hidden=(8,)), MEMBERS).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weights in made.parameters():
            weights.add_(torch.randn(weights.shape, generator=generator, dtype=torch.float64))
    return made


def test_fold_scores_are_means_over_the_phases(small_splits: Splits, small_tape: Tape, network: ActorCritic) -> None:
    scorer = _scorer(small_splits, small_tape, phases=3)
    found = scorer.score(network)
    by_phase = []
    for late in (0, 3, 6):
        blocks = [
            [Range(each.start + late, each.stop) for each in small_splits.folds[fold].validation] for _, fold in MEMBERS
        ]
        rules = scorer.settings.rules
        alone = BlockEvaluator(small_tape.tensors(), rules, blocks, MEMBERS, dtype=torch.float64)
        records = alone.evaluate(network_policy(network, scorer.reader, alone.bars())).greedy
        assert all(record.trades > 10 for record in records)
        by_phase.append([fold_score(record, YEAR) for record in records])
    # rows are folds, columns are seeds
    expected = np.mean(by_phase, axis=0).reshape(2, 2)
    np.testing.assert_allclose(found.fold_scores, expected, rtol=1e-9)
    assert found.cv_score == pytest.approx(cv_score(expected, 0.5), rel=1e-9)
    assert np.ptp(by_phase, axis=0).min() > 0.05  # they differ, so that a mean is no single one


def test_one_phase_is_the_score_of_the_greedy_walk(
    small_splits: Splits, small_tape: Tape, network: ActorCritic
) -> None:
    found = _scorer(small_splits, small_tape, phases=1).score(network)
    greedy = [fold_score(record, YEAR) for record in found.evaluation.greedy]
    np.testing.assert_allclose(found.fold_scores.ravel(), greedy, rtol=1e-12)
    # the sampled walk knows no phases
    assert found.sampled_score == _scorer(small_splits, small_tape, phases=3).score(network).sampled_score
    assert found.rung_score == max(found.cv_score, found.sampled_score)


def test_the_training_score_is_that_of_training_bars_beside_the_block(
    small_splits: Splits, small_tape: Tape, network: ActorCritic
) -> None:
    scorer = _scorer(small_splits, small_tape, phases=1)
    stretches = []
    for fold in small_splits.folds:
        stretch, (block,) = training_stretch(fold), fold.validation
        assert len(stretch) == min(len(block), max(map(len, fold.train)))
        assert any(each.start <= stretch.start and stretch.stop <= each.stop for each in fold.train)
        assert any(stretch.stop == each.stop or stretch.start == each.start for each in fold.train)
        stretches.append(stretch)
    pieces = [[stretches[fold]] for _, fold in MEMBERS]
    alone = BlockEvaluator(small_tape.tensors(), scorer.settings.rules, pieces, MEMBERS, dtype=torch.float64)
    records = alone.evaluate(network_policy(network, scorer.reader, alone.bars())).greedy
    expected = cv_score(np.array([fold_score(record, YEAR) for record in records]).reshape(2, 2), 0.5)
    assert scorer.score(network).train_score == pytest.approx(expected, rel=1e-12)


def test_of_several_segments_the_stretch_is_the_longest_and_nearest() -> None:
    block = (Range(500, 600),)
    assert training_stretch(Fold(0, (Range(0, 480), Range(700, 1000)), block)) == Range(380, 480)
    assert training_stretch(Fold(0, (Range(0, 60), Range(700, 1000)), block)) == Range(700, 800)
    assert training_stretch(Fold(0, (Range(700, 750),), block)) == Range(700, 750)


def test_by_timing_a_score_is_that_of_what_the_verdict_asks_for(
    small_splits: Splits, small_tape: Tape, network: ActorCritic
) -> None:
    raw = _scorer(small_splits, small_tape, phases=3)
    timed = Scorer(small_tape.tensors(), replace(raw.settings, score="timing"), YEAR, torch.float64)
    found = timed.score(network)
    rules = raw.settings.rules.replace(max_drawdown=0.999_999)
    expected = []
    for phase, late in enumerate((0, 3, 6)):
        blocks = [
            [Range(each.start + late, each.stop) for each in small_splits.folds[fold].validation] for _, fold in MEMBERS
        ]
        evaluator = BlockEvaluator(small_tape.tensors(), rules, blocks, MEMBERS, dtype=torch.float64)
        always = evaluator.evaluate(table_policy(np.ones(small_tape.n, dtype=np.int64))).greedy
        hold = {fold: record for (_, fold), record in zip(MEMBERS, always, strict=True)}
        records = found.evaluation.phases[phase]
        expected.append([sharpe(each, YEAR) for each in timing_by_member(records, hold, MEMBERS)])
    np.testing.assert_allclose(found.fold_scores, np.mean(expected, axis=0).reshape(2, 2), rtol=1e-9)
    assert abs(found.cv_score - raw.score(network).cv_score) > 0.01


@pytest.mark.parametrize(("asked", "interval", "taken"), [(3, 15, 3), (1, 15, 1), (60, 15, 15), (3, 2, 2)])
def test_no_more_phases_are_taken_than_an_interval_has_bars(
    small_splits: Splits, asked: int, interval: int, taken: int
) -> None:
    config = build_config({"validation": {"phases": asked, "folds": 2}, "trading": {"decision_interval": interval}})
    assert trial_settings(config, small_splits, {}).phases == taken


def test_three_phases_are_the_default(small_splits: Splits) -> None:
    assert trial_settings(build_config({}), small_splits, {}).phases == 3
