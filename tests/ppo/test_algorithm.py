"""SentioPPO as a whole: members are independent, checkpoints exact, reused actors fresh, failures named."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from sentio_rllib.errors import CheckpointError
from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.ppo.algorithm import SentioPPO, SentioPPOConfig
from sentio_rllib.ppo.env_runner import TapeHandle
from sentio_rllib.ppo.settings import PPOSettings, TrialSettings
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.evaluation import Evaluation
from sentio_rllib.validation.splits import Splits

pytestmark = pytest.mark.usefixtures("ray_cluster")

MEMBERS = ((11, 0), (11, 1), (12, 0), (12, 1))
CURVE = ("env_steps", "cv_score", "rung_score", "reward_mean", "entropy", "validation_trades")


def _settings(splits: Splits, **changes: Any) -> TrialSettings:
    ppo = PPOSettings(
        environments=8,
        rollout_steps=32,
        minibatch_rows=64,
        sequence_length=16,
        epochs=2,
        precision="float64",
        learning_rate=3e-3,
    )
    policy = PolicySpec(variant="enhanced-maskable", hidden=(16, 16), d_model=8, heads=2, layers=2, band=3, quantiles=7)
    rules = TradingRules(masks="risk", episode_length=300)
    settings = TrialSettings(
        rules, policy, ppo, splits.folds, MEMBERS, trial_seed=3, env_steps=256 * 5, evaluate_every=256
    )
    return replace(settings, **changes)


def _build(settings: TrialSettings, tape: Tape) -> SentioPPO:
    algorithm: SentioPPO = SentioPPOConfig().trading(settings, TapeHandle(tape)).build_algo()
    return algorithm


def _weights(algorithm: SentioPPO) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in algorithm.network().state_dict().items()}


def _evaluation(algorithm: SentioPPO) -> Evaluation:
    algorithm._evaluate()
    assert algorithm.scores is not None
    return algorithm.scores.evaluation


PLAIN = {"encoder": "mlp", "head": "categorical", "critic": "scalar"}


@pytest.mark.parametrize(
    ("path_group", "parts", "max_drawdown"),
    [
        (1, {}, 0.01),
        (4, {}, 0.01),
        (1, {"dropout": 0.2, "gated_residual": True}, 0.2),
        (1, PLAIN, 0.2),
        (4, PLAIN, 0.2),
    ],
)
def test_a_stacked_member_learns_what_it_would_learn_alone(
    small_splits: Splits, small_tape: Tape, path_group: int, parts: dict[str, Any], max_drawdown: float
) -> None:
    base = _settings(small_splits)
    base = replace(
        base,
        rules=base.rules.replace(max_drawdown=max_drawdown),
        policy=replace(base.policy, **parts),
        ppo=replace(base.ppo, path_group=path_group),
    )
    together = _build(base, small_tape)
    for _ in range(5):
        together.training_step()
    assert (max_drawdown < 0.2) == bool(together.rollout_figures["drawdown_stops"].sum() > 0)
    stacked = _weights(together)
    records = _evaluation(together)
    together.stop()
    for index in (0, 3):
        alone = _build(replace(base, members=(MEMBERS[index],)), small_tape)
        start = _weights(alone)
        for _ in range(5):
            alone.training_step()
        for key, own in _weights(alone).items():
            torch.testing.assert_close(stacked[key][index : index + 1], own, rtol=0, atol=1e-9)
        assert any((own - start[key]).abs().max() > 1e-3 for key, own in _weights(alone).items())
        own_records = _evaluation(alone)
        for kind in ("greedy", "sampled"):
            ours, theirs = getattr(records, kind)[index], getattr(own_records, kind)[0]
            assert ours.trades == theirs.trades
            assert ours.session_returns == pytest.approx(theirs.session_returns, abs=1e-12)
        alone.stop()


def test_minibatches_hold_every_row_once_in_stretches_of_one_environment(
    small_splits: Splits, small_tape: Tape
) -> None:
    settings = _settings(small_splits)
    algorithm = _build(settings, small_tape)
    columns = dict(algorithm.env_runner.sample(iteration=0).columns)
    rows = settings.rows_per_iteration
    columns["log_prob"] = torch.arange(rows).double().unsqueeze(1).expand(-1, len(MEMBERS))  # names the row
    batch = MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, env_steps=rows)
    learner = algorithm.learner_group._learner
    minibatches = learner._create_iterator_if_necessary(training_data=SimpleNamespace(batch=batch), iteration=0)
    taken = [each.policy_batches[DEFAULT_MODULE_ID]["log_prob"][:, 0].long() for each in minibatches]
    assert {len(each) for each in taken} == {64}
    passes = torch.cat(taken).view(-1, rows)
    assert len(passes) == settings.ppo.epochs == 2
    assert torch.equal(passes.sort(1).values, torch.arange(rows).expand(len(passes), -1))
    assert not torch.equal(passes[0], passes[1])
    stretches = passes.view(-1, settings.ppo.sequence_length)
    assert bool((stretches.diff() == settings.ppo.environments).all())  # rows are time-major
    algorithm.stop()


def _curve(algorithm: SentioPPO, evaluations: int) -> list[tuple[Any, ...]]:
    results = [algorithm.train() for _ in range(evaluations)]
    return [tuple(result[key] for key in CURVE) for result in results]


def test_the_same_seed_gives_the_same_curve_twice_and_another_a_different_one(
    small_splits: Splits, small_tape: Tape
) -> None:
    curves = []
    for members in (MEMBERS, MEMBERS, ((21, 0), (21, 1))):
        algorithm = _build(_settings(small_splits, members=members), small_tape)
        curves.append(_curve(algorithm, 2))
        algorithm.stop()
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]


def test_a_restored_trial_goes_on_exactly(small_splits: Splits, small_tape: Tape, tmp_path: Path) -> None:
    unbroken = _build(_settings(small_splits), small_tape)
    head = _curve(unbroken, 2)
    unbroken.save_checkpoint(str(tmp_path))
    tail = _curve(unbroken, 2)
    restored = _build(_settings(small_splits), small_tape)
    restored.load_checkpoint(str(tmp_path))
    assert restored.env_steps == head[-1][0]
    assert restored.best == json.loads((tmp_path / "best/metadata.json").read_text())
    assert _curve(restored, 2) == tail
    for key, value in _weights(unbroken).items():
        assert torch.equal(value, _weights(restored)[key])
    unbroken.stop()
    restored.stop()


@pytest.mark.parametrize(("harm", "message"), [("flip", "SHA-256 differs"), ("remove", "is missing")])
def test_a_harmed_checkpoint_is_refused(
    small_splits: Splits, small_tape: Tape, tmp_path: Path, harm: str, message: str
) -> None:
    algorithm = _build(_settings(small_splits), small_tape)
    algorithm.train()
    algorithm.save_checkpoint(str(tmp_path))
    victim = tmp_path / "best" / "model.safetensors"
    if harm == "flip":
        content = bytearray(victim.read_bytes())
        content[-1] ^= 1
        victim.write_bytes(bytes(content))
    else:
        victim.unlink()
    with pytest.raises(CheckpointError, match=message):
        algorithm.load_checkpoint(str(tmp_path))
    algorithm.stop()


def test_a_reused_actor_gives_the_curve_of_a_fresh_one(small_splits: Splits, small_tape: Tape) -> None:
    handle = TapeHandle(small_tape)

    class Trial(SentioPPO):
        def setup(self, config: Any, *_: Any) -> None:
            super().setup(config, tape=handle, settings_for=settings_for)

    def settings_for(params: Mapping[str, Any]) -> TrialSettings:
        settings = _settings(small_splits)
        return replace(settings, ppo=replace(settings.ppo, learning_rate=params["ppo.learning_rate"]))

    fresh = Trial(config={"params": {"ppo.learning_rate": 1e-3}})
    expected = _curve(fresh, 2)
    fresh.stop()
    reused = Trial(config={"params": {"ppo.learning_rate": 3e-2}})
    first = reused.train()
    assert reused.reset({"params": {"ppo.learning_rate": 1e-3}})
    assert _curve(reused, 2) == expected
    assert first["env_steps"] == expected[0][0]
    reused.stop()


def test_a_trial_that_is_not_finite_ends_with_its_reason(small_splits: Splits, small_tape: Tape) -> None:
    algorithm = _build(_settings(small_splits), small_tape)
    with torch.no_grad():
        next(algorithm.network().parameters())[0].fill_(math.nan)
    result = algorithm.train()
    assert result["done"] is True
    assert result["stop_reason"] == "nonfinite"
    assert "not finite" in result["failure"]
    assert math.isfinite(result["rung_score"])
    algorithm.stop()


def test_the_budget_ends_a_trial_with_its_reason(small_splits: Splits, small_tape: Tape) -> None:
    algorithm = _build(_settings(small_splits, env_steps=512), small_tape)
    first, second = algorithm.train(), algorithm.train()
    assert first["stop_reason"] is None
    assert (second["stop_reason"], second["done"], second["env_steps"]) == ("budget", True, 512)
    for result in (first, second):
        assert 0.0 < result["approximate_kl"] < 1.0
        assert 0.0 <= result["clip_fraction"] < 1.0
        assert result["rung_score"] == max(result["cv_score"], result["sampled_score"])
        assert result["env_steps_per_s"] == pytest.approx(256 / result["train_seconds"], rel=1e-9)
    algorithm.stop()


def test_bfloat16_scores_agree_with_float32_within_noise(small_splits: Splits, small_tape: Tape) -> None:
    scores, weights = {}, {}
    for precision in ("float32", "bfloat16"):
        settings = _settings(small_splits)
        settings = replace(settings, ppo=replace(settings.ppo, precision=precision))
        algorithm = _build(settings, small_tape)
        scores[precision] = [algorithm.train()["rung_score"] for _ in range(3)]
        weights[precision] = torch.cat([value.flatten() for value in _weights(algorithm).values()])
        algorithm.stop()
    difference = (weights["float32"] - weights["bfloat16"]).abs().max()
    assert 0.0 < difference < 0.1
    assert scores["bfloat16"] == pytest.approx(scores["float32"], abs=3.0)


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


@pytest.mark.slow
def test_memory_has_a_ceiling_over_two_hundred_iterations(small_tape: Tape, small_splits: Splits) -> None:
    settings = _settings(small_splits, env_steps=256 * 10_000, evaluate_every=256)
    algorithm = _build(settings, small_tape)
    for _ in range(40):
        algorithm.train()
    before = _resident_mb()
    for _ in range(200):
        algorithm.train()
    grown = _resident_mb() - before
    algorithm.stop()
    assert grown < 20.0, f"{grown:.1f} MB in 200 iterations"
