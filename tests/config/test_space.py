"""The search space: what is refused, and which points a grid has."""

from __future__ import annotations

from typing import Any

import pytest

from sentio_rllib.config.loading import build_config, resolve
from sentio_rllib.config.space import (
    continuous_keys,
    encode_params,
    grid,
    grid_size,
    parse_space,
)
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import ConfigError


def configured(space: dict[str, Any], **search: Any) -> SweepConfig:
    return build_config({"search": {"space": space, **search}})


@pytest.mark.parametrize(
    ("key", "entry", "says"),
    [
        ("ppo.gama", {"uniform": [0, 1]}, "did you mean ppo.gamma"),
        ("gamma", {"uniform": [0, 1]}, "did you mean ppo.gamma"),
        ("ppo", {"uniform": [0, 1]}, "unknown key"),
        (7, {"uniform": [0, 1]}, "unknown key"),
        ("trading.fee_rate", {"uniform": [0, 0.01]}, "not tunable"),
        ("data.synthetic.bars", {"int": [2000, 9000]}, "not tunable"),
        ("trading.masks", {"choice": ["none", "state"]}, "its None is not in the range"),
        ("validation.seeds", {"int": [1, 2]}, "not tunable"),
        ("ppo.gamma", 0.9, "is no range"),
        ("ppo.gamma", {"normal": [0, 1]}, "is no range"),
        ("ppo.gamma", {"uniform": [0, 1], "choice": [0.9]}, "is no range"),
        ("ppo.gamma", {"uniform": 0.9}, "is no list"),
        ("ppo.gamma", {"uniform": [0.9]}, "1 entries"),
        ("ppo.gamma", {"uniform": [0.99, 0.9]}, "low < high"),
        ("ppo.gamma", {"uniform": [0.9, 1.5]}, "outside what ppo.gamma allows"),
        ("ppo.gamma", {"uniform": [0.9, float("nan")]}, "finite numbers"),
        ("ppo.gamma", {"uniform": [False, True]}, "finite numbers"),
        ("ppo.gamma", {"uniform": [0.9, 0.98, 0.03]}, "step 0.03"),
        ("ppo.gamma", {"loguniform": [0, 1]}, "no logarithm"),
        ("ppo.gamma", {"loguniform": [0.9, 0.98, 0.04]}, "3 entries"),
        ("ppo.gamma", {"int": [0, 1]}, "use uniform"),
        ("ppo.epochs", {"uniform": [1, 8]}, "use int"),
        ("ppo.epochs", {"int": [1, 8.0]}, "whole numbers"),
        ("ppo.epochs", {"int": [0, 8]}, "outside what ppo.epochs allows"),
        ("ppo.schedule", {"uniform": [0, 1]}, "use choice"),
        ("ppo.schedule", {"choice": ["constant"]}, "nothing to choose"),
        ("ppo.schedule", {"choice": ["constant", "cosin"]}, "'cosin' is outside"),
        ("ppo.gamma", {"choice": [0.98, 0.98]}, "twice"),
        ("ppo.clip", {"uniform": [0.25, 0.3]}, "trial 0 is the default configuration"),
        ("ppo.path_group", {"choice": [1, 8]}, "no effect without ppo.advantages=sampled"),
        ("ppo.plateau_patience", {"int": [1, 3]}, "no effect without ppo.schedule=plateau"),
        ("ppo.environments", {"int": [30, 40]}, "cannot train"),
        ("ppo.minibatch_rows", {"int": [1, 100000]}, "list a few with choice"),
        ("trading.position_step", {"uniform": [0.001, 1.0]}, "cannot trade"),
        ("policy.experts", {"int": [2, 4]}, "no effect with policy.head=categorical"),
        ("policy.encoder", {"choice": [None, "transformer"]}, "which variant maskable does not show"),
        ("risk.cvar_weight", {"uniform": [0.0, 1.0]}, "no effect with policy.critic=scalar"),
        ("trading.risk_drawdown", {"uniform": [0.5, 0.9]}, "no effect with trading.masks=state"),
        ("trading.close_minutes", {"int": [5, 30]}, "no effect without trading.flat_by_close"),
    ],
)
def test_an_entry_that_cannot_be_searched_is_refused_in_one_line(key: Any, entry: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        configured({key: entry})
    [line] = caught.value.lines
    assert line.startswith(f"search.space.{key}: ")


@pytest.mark.parametrize(
    ("key", "entry", "says"),
    [
        ("policy.heads", {"int": [1, 4]}, "cannot train: 3 does not divide d_model 64"),
        ("policy.d_model", {"choice": [64, 66]}, "cannot train: 4 does not divide d_model 66"),
        ("ppo.sequence_length", {"choice": [64, 100]}, "cannot train: 100 does not divide rollout_steps 128"),
        ("ppo.rollout_steps", {"choice": [128, 96]}, "cannot train: 64 does not divide rollout_steps 96"),
        ("policy.band", {"choice": [32, 4096]}, "policy.band: a decision reads 122865 bars .* at most "),
    ],
)
def test_sizes_are_searched_only_where_every_transformer_can_train(key: str, entry: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        build_config({"variant": "enhanced-maskable", "search": {"space": {key: entry}}})
    [line] = caught.value.lines
    assert line.startswith(f"search.space.{key}: ")


def test_without_a_transformer_its_sizes_forbid_nothing() -> None:
    space = {"ppo.rollout_steps": {"choice": [128, 96]}}
    mlp = {"variant": "enhanced-maskable", "policy": {"encoder": "mlp"}}
    assert build_config({**mlp, "search": {"space": space}}).largest("ppo.rollout_steps") == 128
    with pytest.raises(ConfigError, match=r"searching it has no effect with policy\.encoder=mlp"):
        build_config({**mlp, "search": {"space": {"policy.heads": {"int": [1, 4]}}}})


def test_a_transformer_is_checked_where_it_is_searched() -> None:
    space = {"policy.encoder": {"choice": ["mlp", "transformer"]}, "policy.band": {"choice": [8, 16]}}
    values: dict[str, Any] = {"variant": "enhanced-maskable", "policy": {"encoder": "mlp", "band": 8}}
    config = build_config({**values, "search": {"space": space}})
    assert config.footprint().receptive_field == (2 * 15 + 1) * 15
    values["policy"]["heads"] = 3
    with pytest.raises(ConfigError, match=r"policy\.heads: 3 does not divide d_model 64"):
        build_config({**values, "search": {"space": space}})


def test_what_depends_on_another_searched_key_is_allowed() -> None:
    config = configured(
        {
            "trading.flat_by_close": {"choice": [False, True]},
            "trading.close_minutes": {"int": [5, 30]},
            "ppo.environments": {"choice": [16, 32]},
            "ppo.advantages": {"choice": ["counterfactual", "sampled"]},
        }
    )
    assert len(config.parameters()) == 4


def test_good_entries_are_parsed_beside_wrong_ones() -> None:
    raw = {"ppo.clip": {"uniform": [0.1, 0.3]}, "ppo.gama": 1, "ppo.gamma": 2}
    space, mistakes = parse_space(raw, SweepConfig)
    assert list(space) == ["ppo.clip"]
    assert [line.partition(": ")[0] for line in mistakes] == [
        "search.space.ppo.gama",
        "search.space.ppo.gamma",
    ]


def test_a_grid_has_every_point_once_and_begins_with_the_default() -> None:
    config = configured(
        {
            "ppo.epochs": {"int": [2, 6, 2]},
            "ppo.gamma": {"uniform": [0.95, 0.99, 0.02]},
            "policy.hidden": {"choice": [[64], [64, 64]]},
        },
        sampler="grid",
    )
    space = config.parameters()
    points = [tuple(encode_params(space, point).values()) for point in grid(space, config.default_params())]
    assert points[0] == (2, 0.99, "[64, 64]")
    assert len(points) == len(set(points)) == grid_size(space) == 18
    assert points[1] == (2, 0.95, "[64]")
    assert all(resolve(config, point) for point in grid(space, config.default_params()))


def test_a_grid_over_a_continuum_is_refused_with_the_way_out() -> None:
    space = {"ppo.learning_rate": {"loguniform": [1e-4, 1e-2]}, "ppo.epochs": {"int": [1, 4]}}
    assert continuous_keys(configured(space).parameters()) == ["ppo.learning_rate"]
    with pytest.raises(ConfigError, match=r"search.space.ppo.learning_rate.*list the values with choice"):
        configured(space, sampler="grid")


def test_a_grid_too_large_to_try_is_refused() -> None:
    space = {key: {"int": [1, 1000]} for key in ("ppo.epochs", "ppo.rollout_steps")}
    space["ppo.epochs"] = {"int": [1, 100]}
    space["trading.risk_first_minutes"] = {"int": [0, 1440]}
    with pytest.raises(ConfigError, match="a grid of"):
        build_config(
            {
                "variant": "enhanced-maskable",
                "ppo": {"minibatch_rows": 1},
                "search": {"space": space, "sampler": "grid"},
            }
        )


def test_a_target_policy_is_searched_where_advantages_are_counterfactual() -> None:
    space = {"ppo.target_policy": {"choice": ["greedy", "stochastic"]}}
    configured(space)
    with pytest.raises(ConfigError, match=r"no effect without ppo\.advantages=counterfactual"):
        build_config({"search": {"space": space}, "ppo": {"advantages": "sampled"}})
