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
from sentio_rllib.policy.rl_module import SentioRLModule, rl_module_spec
from sentio_rllib.policy.variants import VARIANTS, PolicySpec
from sentio_rllib.trading.environment import register

ROWS = 1_000


def _spec(variant: str) -> PolicySpec:
    return PolicySpec(variant=variant, hidden=(8, 8))  # type: ignore[arg-type]  # a name of the table


def _observations(space: gymnasium.Space[Any]) -> Any:
    generator = torch.Generator().manual_seed(0)
    if isinstance(space, gymnasium.spaces.Dict):
        batch = {key: torch.randn(ROWS, *part.shape, generator=generator) for key, part in space.spaces.items()}
        batch["action_mask"] = (torch.rand(ROWS, 3, generator=generator) < 0.6).to(torch.int8)
        batch["action_mask"][:, 0] = 1
        return batch
    return torch.randn(ROWS, *space.shape, generator=generator)


@pytest.mark.parametrize("variant", VARIANTS)
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_values_have_one_number_a_row_and_equal_those_of_training(variant: str) -> None:
    module: SentioRLModule = rl_module_spec(_spec(variant)).build()
    batch = {Columns.OBS: _observations(module.observation_space)}
    trained = module.forward_train(batch)
    values = module.compute_values(batch)
    assert values.shape == (ROWS,)
    assert torch.equal(values, module.compute_values(batch, embeddings=trained[Columns.EMBEDDINGS]))


def test_an_unknown_variant_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="choose one of standard, maskable, enhanced-maskable"):
        rl_module_spec(_spec("advanced"))


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("variant", VARIANTS)
def test_plain_rllib_ppo_trains_on_the_environment(variant: str, small_tape: Tape) -> None:
    register()
    config = (
        PPOConfig()
        .environment(
            "sentio/Trading-v0",
            env_config={"tape": small_tape, "variant": variant, "rules": {"episode_length": 150}, "seed": 1},
            disable_env_checking=True,
        )
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=1)
        .rl_module(rl_module_spec=rl_module_spec(_spec(variant)))
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
