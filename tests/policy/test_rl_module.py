"""The variants as RLlib modules: plain RLlib PPO trains them, masks hold, and saving keeps every action."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns

from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.actor_critic import TapeReader
from sentio_rllib.policy.rl_module import SentioRLModule, rl_module_spec
from sentio_rllib.policy.variants import VARIANTS, PolicySpec
from sentio_rllib.trading.environment import register

ROWS = 1_000


PARTS: dict[str, dict[str, Any]] = {
    **{variant: {"variant": variant} for variant in VARIANTS},
    "no transformer": {"variant": "enhanced-maskable", "encoder": "mlp"},
    "no gated head": {"variant": "enhanced-maskable", "head": "categorical"},
    "no quantile critic": {"variant": "enhanced-maskable", "critic": "scalar"},
}


def _spec(name: str) -> PolicySpec:
    return PolicySpec(**PARTS[name], hidden=(8, 8), patch=15, d_model=8, heads=2, layers=2, band=2, quantiles=5)


def _observations(space: gymnasium.Space[Any]) -> Any:
    generator = torch.Generator().manual_seed(0)
    if isinstance(space, gymnasium.spaces.Dict):
        batch = {key: torch.randn(ROWS, *part.shape, generator=generator) for key, part in space.spaces.items()}
        batch["action_mask"] = (torch.rand(ROWS, 3, generator=generator) < 0.6).to(torch.int8)
        batch["action_mask"][:, 0] = 1
        return batch
    return torch.randn(ROWS, *space.shape, generator=generator)


@pytest.mark.parametrize("variant", PARTS)
def test_saving_and_loading_keeps_the_actions_of_a_thousand_observations(variant: str, tmp_path: Path) -> None:
    module: SentioRLModule = rl_module_spec(_spec(variant), members=[(4, 2)]).build()
    batch = {Columns.OBS: _observations(module.observation_space)}
    logits = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
    assert logits.shape == (ROWS, 3)
    module.save_to_path(tmp_path)
    other: SentioRLModule = rl_module_spec(_spec(variant), members=[(9, 1)]).build()
    assert not torch.equal(other.forward_inference(batch)[Columns.ACTION_DIST_INPUTS], logits)
    other.restore_from_path(tmp_path)
    again = other.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
    assert torch.equal(again.argmax(-1), logits.argmax(-1))
    assert torch.equal(again, logits)
    if variant != "standard":
        masked = batch[Columns.OBS]["action_mask"] == 0
        assert bool(masked.any())
        assert torch.softmax(logits, -1)[masked].max() == 0.0


@pytest.mark.parametrize("variant", PARTS)
def test_values_have_one_number_a_row_and_equal_those_of_training(variant: str) -> None:
    module: SentioRLModule = rl_module_spec(_spec(variant)).build()
    batch = {Columns.OBS: _observations(module.observation_space)}
    trained = module.forward_train(batch)
    values = module.compute_values(batch)
    assert values.shape == (ROWS,)
    assert torch.equal(values, module.compute_values(batch, embeddings=trained[Columns.EMBEDDINGS]))


@pytest.mark.parametrize("name", ["enhanced-maskable", "no transformer", "no gated head", "no quantile critic"])
def test_a_window_and_its_place_on_the_tape_are_judged_alike(name: str, small_tape: Tape) -> None:
    spec = _spec(name)
    module: SentioRLModule = rl_module_spec(spec, dtype=torch.float64).build()
    features = torch.tensor(small_tape.features).double()
    bars = 500 + torch.tensor([0, 15, 30, 75, 1, 4000, 4015])
    generator = torch.Generator().manual_seed(2)
    portfolio = torch.randn(len(bars), 6, generator=generator, dtype=torch.float64)
    mask = torch.ones(len(bars), 3, dtype=torch.bool)
    shared = {"portfolio": portfolio, "action_mask": mask}
    windows = features[bars.unsqueeze(1) + torch.arange(1 - spec.receptive_field, 1)]
    reader = TapeReader(features, spec)
    column = bars.unsqueeze(1)
    line = reader.line(column)
    columns = {key: value.unsqueeze(1) for key, value in shared.items()} | {"market": reader.market(column)}
    columns |= {} if line is None else line._asdict()
    shown, stacked = {Columns.OBS: {"market": windows, **shared}}, {Columns.OBS: columns}
    logits = module.forward_inference(shown)[Columns.ACTION_DIST_INPUTS]
    on_tape = module.forward_inference(stacked)[Columns.ACTION_DIST_INPUTS].squeeze(1)
    torch.testing.assert_close(logits, on_tape, rtol=0, atol=1e-12)
    assert (logits - logits[0]).abs().amax(-1)[1:].min() > 1e-6
    values = module.compute_values(stacked).squeeze(1)
    torch.testing.assert_close(module.compute_values(shown), values, rtol=0, atol=1e-12)


def test_a_transformer_is_refused_where_no_window_is_shown() -> None:
    with pytest.raises(ValueError, match="use enhanced-maskable"):
        PolicySpec(variant="maskable", encoder="transformer")


def test_an_unknown_variant_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="choose one of standard, maskable, enhanced-maskable"):
        PolicySpec(variant="advanced")  # type: ignore[arg-type]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("variant", PARTS)
def test_plain_rllib_ppo_trains_on_the_environment(variant: str, small_tape: Tape) -> None:
    register()
    spec = _spec(variant)
    config = (
        PPOConfig()
        .environment(
            "sentio/Trading-v0",
            env_config={
                "tape": small_tape,
                "variant": spec.variant,
                "receptive_field": spec.receptive_field,
                "rules": {"episode_length": 150},
                "seed": 1,
            },
            disable_env_checking=True,
        )
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=1)
        .rl_module(rl_module_spec=rl_module_spec(spec))
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    before = {key: np.copy(value) for key, value in algorithm.get_module().get_state().items()}
    result = algorithm.train()
    after = algorithm.get_module().get_state()
    algorithm.stop()
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] >= 64
    assert any(not np.array_equal(before[key], after[key]) for key in before)
    assert all(np.isfinite(value).all() for value in after.values())
