"""Arms: what is refused, what their trials run with, and how they compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sentio_rllib.config.arms import BUDGET, MAX_NAME
from sentio_rllib.config.contradictions import cautions
from sentio_rllib.config.folds import make_folds
from sentio_rllib.config.loading import build_config, load_config, resolve
from sentio_rllib.config.space import ARM, grid
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import ConfigError
from sentio_rllib.policy.variants import receptive_patches
from sentio_rllib.search.prepare import trial_settings
from tests.tiny_sweep import COMPARED, PARTS


def armed(arms: dict[Any, Any], variant: str = "enhanced-maskable", **sections: Any) -> SweepConfig:
    return build_config({"variant": variant, "search": {**COMPARED, "arms": arms}, **sections})


def mistakes_of(arms: Any, **sections: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        armed(arms, **sections)
    return list(caught.value.lines)


def test_arms_are_a_grid_whose_first_point_is_the_baseline() -> None:
    config = armed(PARTS)
    assert cautions(config) == []
    assert config.default_params() == {ARM: "enhanced"}
    points = list(grid(config.parameters(), config.default_params()))
    assert points == [{ARM: name} for name in PARTS]
    assert config.search.trials == config.asked_trials() == 3


def test_the_number_of_trials_is_that_of_the_arms_unless_it_is_set() -> None:
    many = {f"clip {index}": {"ppo.clip": 0.1 + index / 1000} for index in range(20)}
    assert armed(many).search.trials == 20
    some = build_config({"search": {**COMPARED, "arms": many, "trials": 3}})
    assert some.search.trials == some.asked_trials() == 3
    assert cautions(some) == ["search.trials: 3 of the 20 arms are tried"]
    more = build_config({"search": {**COMPARED, "arms": many, "trials": 30}})
    assert more.asked_trials() == 20


def test_an_arm_resolves_to_the_configuration_with_its_keys() -> None:
    config = armed({**PARTS, "both": {"policy.hidden": [32], "ppo.lambda": 0.9, "policy.critic": None}})
    resolved = {name: resolve(config, {ARM: name}) for name in config.search.arms}
    assert resolved == config.arms()
    assert [resolve(config, {ARM: name}).part("encoder") for name in PARTS] == ["transformer", "mlp", "mlp"]
    assert [resolved[name].trading_masks() for name in PARTS] == ["risk", "risk", "state"]
    assert [resolved["maskable"].part(part) for part in ("head", "critic")] == ["categorical", "scalar"]
    assert resolved["both"].policy.hidden == (32,)
    assert resolved["both"].ppo.lambda_ == 0.9
    assert all(each.search.arms == {} for each in resolved.values())
    assert resolve(config, {}) == config
    assert resolve(config, {ARM: "enhanced", "ppo.gamma": 0.9}).ppo.gamma == 0.9
    with pytest.raises(ConfigError, match=r"search\.arm: 'maskabel' is unknown; did you mean maskable\?"):
        resolve(config, {ARM: "maskabel"})
    with pytest.raises(ConfigError, match="the configuration has no arms"):
        resolve(build_config({}), {ARM: "enhanced"})


def test_an_arm_may_have_a_budget_of_its_own() -> None:
    config = armed({"base": {}, "slow": {BUDGET: 200_000}})
    splits = make_folds(config, config.data.synthetic.bars)
    budgets = [trial_settings(config, splits, {ARM: name}).env_steps for name in config.search.arms]
    assert budgets == [config.search.env_steps, 200_000]
    assert config.largest(BUDGET) == config.search.env_steps
    [line] = mistakes_of({"base": {}, "short": {BUDGET: 100_000}})
    assert line.startswith("search.arms.short: search.grace_steps: 131072 exceeds the budget of 100000 env_steps")


def test_every_mistake_in_arms_is_told_at_once() -> None:
    lines = mistakes_of(
        {
            "base": None,
            "typo": {"policy.encodr": "mlp", "ppo.gamma": 1.5, "ppo.epochs": 2.0},
            "shared": {"trading.fee_rate": 0.0, "validation.folds": 3},
            "nested": {"policy": {"encoder": "mlp"}},
            "list": ["policy.encoder"],
            7: {},
            "x" * (MAX_NAME + 1): {},
            "two\nlines": {},
            "contradicts": {"variant": "maskable", "policy.encoder": "transformer"},
            "heads": {"policy.heads": 5},
            "alone": {"trading.min_trade": 0.4, "trading.position_step": 0.2},
            "variant": {"variant": "enhanced"},
        },
        ppo={"minibatch_rows": 1000},
    )
    starts = [
        "search.arms.typo: policy.encodr: unknown key; did you mean policy.encoder?",
        "search.arms.typo: ppo.gamma: 1.5 is not allowed; set it to a number from 0 up to 1",
        "search.arms.typo: ppo.epochs: 2.0 is not allowed; set it to a whole number from 1 up to 100; write 2",
        "search.arms.shared: trading.fee_rate: all arms share it; ",
        "search.arms.shared: validation.folds: all arms share it; ",
        "search.arms.nested: policy: is a section; write its keys with their dots, as policy.KEY: VALUE",
        "search.arms.list: ['policy.encoder'] is no mapping; ",
        "search.arms.7: the name 7 is no text; ",
        f"search.arms.{'x' * (MAX_NAME + 1)}: a name has 1 to 60 printable characters",
        "search.arms.'two\\nlines': a name has 1 to 60 printable characters",
        "search.arms.variant: variant: 'enhanced' is not allowed; set it to one of standard, ",
        "search.arms.alone: trading.min_trade: ",
        "ppo.minibatch_rows: 1000 does not divide",
        "search.arms.contradicts: policy.encoder: a transformer reads windows of bars",
        "search.arms.heads: policy.heads: 5 does not divide d_model 64; ",
    ]
    for start in starts:
        assert sum(line.startswith(start) for line in lines) == 1, (start, lines)
    assert len(lines) == len(starts)


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ({"arms": {"one": {}}}, "search.arms: holds one arm"),
        ({"arms": [1]}, "search.arms: .* set it to a mapping from names to mappings"),
        (
            {"arms": PARTS, "sampler": "tpe"},
            "search.sampler: tpe draws from search.space; arms need search.sampler=grid",
        ),
        (
            {"arms": PARTS, "space": {"ppo.gamma": {"choice": [0.99, 0.9]}}},
            "search.arms: arms are compared as they stand, so nothing is searched; take out ppo.gamma",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(search: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        build_config({"variant": "enhanced-maskable", "search": {**COMPARED, **search}})
    assert len(caught.value.lines) == 1


def test_a_mistake_of_no_arm_is_none_and_one_of_all_is_told_once() -> None:
    mlp = {"small": {"policy.encoder": "mlp"}, "large": {"policy.encoder": "mlp", "policy.hidden": [512]}}
    assert armed(mlp, policy={"heads": 3}).search.trials == 2
    [line] = mistakes_of(PARTS, policy={"heads": 3})
    assert line.startswith("policy.heads: 3 does not divide d_model 64")
    lines = mistakes_of({"a": {"policy.heads": 3}, "b": {"policy.heads": 3, "policy.experts": 3}})
    assert [line.partition(": ")[0] for line in lines] == ["search.arms.a", "search.arms.b"]


def test_the_footprint_covers_every_arm() -> None:
    sizes = {"policy.layers": 3, "policy.band": 8}
    config = armed(
        {
            "narrow": {"policy.layers": 1, "policy.band": 4},
            "deep": sizes,
            "slow": {"policy.encoder": "mlp", "trading.decision_interval": 60, "trading.episode_length": 500},
        }
    )
    assert config.receptive_patches() == receptive_patches(3, 8) == 22
    assert config.footprint().receptive_field == 22 * 15
    assert config.footprint().decision_interval == 60
    assert config.largest("trading.episode_length") == 1000
    assert config.largest("policy.layers") == 3
    assert config.may_have("encoder", "mlp")
    assert config.choices("masks") == ["risk"]
    assert armed(PARTS).choices("masks") == ["risk", "state"]
    flat = armed({"a": {"policy.encoder": "mlp"}, "b": {"variant": "maskable"}})
    assert flat.footprint().receptive_field == 1


def test_an_arm_that_reads_too_far_is_named() -> None:
    arms = {"near": {"policy.band": 8}, "far": {"policy.band": 4096}}
    [line] = mistakes_of(arms, data={"synthetic": {"bars": 60_000}})
    assert line.startswith("search.arms.far: policy.band: a decision reads ")


def test_arms_that_are_not_what_they_seem_are_cautioned() -> None:
    config = armed(
        {"base": {}, "same": {"policy.encoder": None}, "idle": {"policy.encoder": "mlp", "policy.band": 8}},
        policy={"quantiles": 11},
    )
    assert cautions(config) == [
        "search.arms: 'base', 'same' are the same configuration; keep one of them",
        "search.arms.idle: policy.band has no effect with policy.encoder=mlp",
    ]
    config = build_config({"search": {"sampler": "grid", "arms": {"a": {}, "b": {"ppo.gamma": 0.9}}}})
    assert [line.partition(": ")[0] for line in cautions(config)] == ["search.scheduler", "search.patience"]


def test_a_key_that_one_arm_reads_has_an_effect() -> None:
    unread = armed({"a": {"policy.critic": "scalar"}, "b": {"variant": "maskable"}}, policy={"quantiles": 11})
    assert cautions(unread) == ["policy.quantiles: 11 has no effect with policy.critic=scalar (default 51)"]
    masks = {"trading": {"risk_volatility": 2.0, "close_minutes": 30}}
    read = armed({"a": {}, "b": {"variant": "maskable"}, "c": {"trading.flat_by_close": True}}, **masks)
    assert cautions(read) == []
    none = armed({"a": {"trading.masks": "none"}, "b": {"trading.masks": "state"}}, **masks)
    assert cautions(none) == [
        "trading.close_minutes: 30 has no effect without trading.flat_by_close (default 15)",
        "trading.risk_volatility: 2.0 has no effect with trading.masks=none and state (default 3.0)",
    ]


def test_arms_survive_their_own_yaml_and_their_order_counts(tmp_path: Path) -> None:
    config = armed(PARTS)
    path = tmp_path / "arms.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    again = load_config(path)
    assert again == config
    assert list(again.search.arms) == list(PARTS)
    turned = armed(dict(reversed(PARTS.items())))
    assert turned.fingerprint() != config.fingerprint()
    assert turned.changed_keys(config) == ["search.arms"]
    taken = load_config(path, ["search.arms.no transformer=null", "search.arms.v1.5={ppo.gamma: 0.9}"])
    assert list(taken.search.arms) == ["enhanced", "maskable", "v1.5"]
