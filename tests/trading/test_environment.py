"""The gymnasium environments: contracts, observations, autoreset, and that other libraries train on them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from sentio_rllib.errors import ConfigError
from sentio_rllib.trading.environment import (
    ENV_ID,
    EpisodeStarts,
    TradingEnv,
    TradingVectorEnv,
    VariantName,
    create,
    observation_space,
)
from sentio_rllib.trading.rules import TradingRules
from tests.trading.tapes import make_tape, random_tape

VARIANTS = get_args(VariantName)
RULES = {"decision_interval": 5, "episode_length": 60, "max_drawdown": 0.5}


def config(**changes: Any) -> dict[str, Any]:
    return {"tape": random_tape(1, bars=600, scale=0.002), "rules": RULES, "seed": 3} | changes


@pytest.mark.parametrize("variant", VARIANTS)
def test_gymnasium_checker(variant: str) -> None:
    check_env(TradingEnv(config(variant=variant, receptive_field=3)), skip_render_check=True)


def test_observation_spaces() -> None:
    standard = observation_space("standard")
    assert standard.shape == (26,)
    assert set(observation_space("maskable").spaces) == {"observations", "action_mask"}
    enhanced = observation_space("enhanced-maskable", 7)
    assert {key: space.shape for key, space in enhanced.spaces.items()} == {
        "market": (7, 20), "portfolio": (6,), "action_mask": (3,),
    }  # fmt: skip
    assert standard.low.min() == -5
    assert standard.high.max() == 5


@pytest.mark.parametrize("variant", VARIANTS)
def test_observation_holds_the_features_of_its_bar(variant: str) -> None:
    settings = config(variant=variant, receptive_field=4)
    env, tape = TradingEnv(settings), settings["tape"]
    observation, _ = env.reset(seed=0)
    for action in (0, 1, 0, 2):
        bar = int(env._rows.simulator.observe().bar[0])
        portfolio = env._rows.simulator.observe().portfolio[0].numpy()
        if variant == "enhanced-maskable":
            np.testing.assert_array_equal(observation["market"], tape.features[bar - 3 : bar + 1])
            np.testing.assert_array_equal(observation["portfolio"], portfolio)
        else:
            both = observation if variant == "standard" else observation["observations"]
            np.testing.assert_array_equal(both, np.concatenate([tape.features[bar], portfolio]))
        if variant != "standard":
            np.testing.assert_array_equal(observation["action_mask"], env.action_masks())
        observation, _, _, _, _ = env.step(action)


def test_masks_default_to_the_variants() -> None:
    kinds = [TradingEnv(config(variant=variant))._rows.rules.masks for variant in VARIANTS]
    assert kinds == ["none", "state", "risk"]
    explicit = config(variant="standard", rules=RULES | {"masks": "risk"})
    assert TradingEnv(explicit)._rows.rules.masks == "risk"
    assert TradingEnv(config(rules=TradingRules(masks="none")))._rows.rules.masks == "none"


def test_info_and_episode_end() -> None:
    env = TradingEnv(config(rules=RULES | {"fee_rate": 0.01}))
    env.reset(seed=5)
    growth, steps, ended = 0.0, 0, False
    while not ended:
        _, reward, terminated, truncated, info = env.step(2 if steps < 3 else 1)
        growth += info["log_return"]
        steps += 1
        assert reward == pytest.approx(info["log_return"] / 5e-5, rel=1e-5)
        assert info["equity"] == pytest.approx(100_000 * np.exp(growth))
        ended = terminated or truncated
    assert steps == 12
    assert truncated
    assert not terminated
    assert info["invalid"] >= 3 + steps - 5
    assert env.reset()[1] == {"log_return": 0.0, "invalid": 0, "equity": 100_000.0}


def test_vector_equals_single_environments_on_the_same_bars() -> None:
    """A range with one admissible start makes all environments walk the same bars."""
    settings = config(ranges=[(100, 100 + 62)], rules=RULES | {"position_step": 0.3})
    vector, single = TradingVectorEnv(3, settings), TradingEnv(settings)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    observations, _ = vector.reset(seed=1)
    observation, _ = single.reset(seed=9)
    generator, restart = np.random.default_rng(0), False
    for _ in range(40):
        np.testing.assert_array_equal(observations["observations"][1], observation["observations"])
        assert vector.observation_space.contains(observations)
        np.testing.assert_array_equal(vector.action_masks()[1], single.action_masks())
        actions = np.array([0, generator.integers(3), 1])
        observations, rewards, terminated, truncated, infos = vector.step(actions)
        if restart:
            observation, info = single.reset()
            assert rewards[1] == 0
            assert not terminated[1]
            assert not truncated[1]
            restart = False
        else:
            observation, reward, ended, cut, info = single.step(int(actions[1]))
            assert (rewards[1], terminated[1], truncated[1]) == (np.float32(reward), ended, cut)
            restart = ended or cut
        assert {key: infos[key][1].item() for key in info} == info
        assert all(infos[f"_{key}"].all() for key in info)


def test_starts_are_uniform_over_the_admissible_bars() -> None:
    rules = TradingRules(decision_interval=5, episode_length=23)
    starts = EpisodeStarts([(10, 35), (50, 72), (80, 90)], rules, 1, 100)
    start, stop = (each.numpy() for each in starts.draw(np.random.default_rng(0), 6000))
    values, counts = np.unique(start, return_counts=True)
    assert values.tolist() == [10, 11, 12, 13, 50, 80]
    assert counts.min() > 850
    assert counts.max() < 1150
    assert set(zip(start.tolist(), stop.tolist(), strict=True)) == {
        (10, 35), (11, 35), (12, 35), (13, 35), (50, 72), (80, 90),
    }  # fmt: skip


def test_default_ranges_do_not_cross_a_cut() -> None:
    tape = make_tape([1.0] * 300, [1.0] * 300, warmup=20)
    object.__setattr__(tape, "cuts", np.array([150, 155], dtype=np.int64))
    starts = TradingEnv(config(tape=tape))._rows.starts
    assert list(zip(starts.start.tolist(), starts.stop.tolist(), strict=True)) == [(20, 150), (155, 300)]


def test_seeds() -> None:
    first, second = TradingEnv(config()), TradingEnv(config())
    same = np.array_equal(first.reset()[0]["observations"], second.reset()[0]["observations"])
    assert same
    assert not np.array_equal(first.reset()[0]["observations"], first.reset(seed=1)[0]["observations"])

    class Context(dict[str, Any]):
        worker_index, vector_index = 1, 0

    other = TradingEnv(Context(config()))
    assert not np.array_equal(TradingEnv(config()).reset()[0]["observations"], other.reset()[0]["observations"])


def test_all_mistakes_of_a_configuration_are_told() -> None:
    with pytest.raises(ConfigError) as caught:
        TradingEnv({"variants": "standard", "variant": "maskeable", "receptive_field": 0})
    assert len(caught.value.lines) == 3
    assert "did you mean variant?" in caught.value.lines[0]
    with pytest.raises(ConfigError, match=r"\[0, 50\) is not usable"):
        TradingEnv(config(ranges=[(0, 50), (100, 600)]))
    with pytest.raises(ConfigError, match="at least 7 bars"):
        TradingEnv(config(ranges=[(100, 106)]))
    with pytest.raises(ConfigError, match=r"trading\.fee_rte: unknown"):
        TradingEnv(config(rules={"fee_rte": 0.1}))


def test_without_data_there_is_a_small_made_up_market() -> None:
    env = TradingEnv({"synthetic": {"n_bars": 3000}, "rules": RULES})
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env._rows.features.shape == (3000, 20)


def test_sb3_ppo_trains() -> None:
    from stable_baselines3 import PPO  # noqa: PLC0415  # seconds to import

    env = TradingEnv(config(variant="standard"))
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(192)
    assert model.num_timesteps == 192


@pytest.mark.parametrize("variant", ["maskable", "enhanced-maskable"])
def test_sb3_maskable_ppo_trains_and_keeps_to_the_mask(variant: str) -> None:
    from sb3_contrib import MaskablePPO  # noqa: PLC0415  # seconds to import

    env = TradingEnv(config(variant=variant))
    model = MaskablePPO("MultiInputPolicy", env, n_steps=64, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(192)
    observation, info = env.reset(seed=1)
    for _ in range(10):
        action, _ = model.predict(observation, action_masks=env.action_masks())
        observation, _, _, _, info = env.step(int(action))
    assert info["invalid"] == 0


def test_create_builds_a_vector_when_a_number_is_given() -> None:
    assert isinstance(create(config()), TradingEnv)
    vector = create(config() | {"num_envs": 4})
    assert isinstance(vector, TradingVectorEnv)
    assert vector.num_envs == 4


def test_registration_and_lazy_imports() -> None:
    """In a fresh process: only `register` imports ray, and both registries know the name afterwards."""
    program = f"""
import sys, warnings
import sentio_rllib
from sentio_rllib.trading import environment, simulator
assert "ray" not in sys.modules
sentio_rllib.register()
sentio_rllib.register()
import gymnasium
from ray.tune.registry import ENV_CREATOR, _global_registry
assert _global_registry.contains(ENV_CREATOR, {ENV_ID!r})
config = {{"synthetic": {{"n_bars": 2000}}, "seed": 0}}
env = gymnasium.make({ENV_ID!r}, config=config)
assert env.reset()[0]["observations"].shape == (26,)
vector = gymnasium.make_vec({ENV_ID!r}, 2, vectorization_mode="vector_entry_point", config=config)
assert vector.reset()[0]["observations"].shape == (2, 26)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
