"""From a file, or plain values, to a configuration, with every mistake told at once.

Knows no Ray, so that a mistake is told before Ray starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sentio_rllib.config.arms import parse_arms
from sentio_rllib.config.contradictions import contradictions
from sentio_rllib.config.keys import find_leaf, is_tunable, leaves, nearest, refused, show, unknown
from sentio_rllib.config.space import ARM, parse_space
from sentio_rllib.config.tree import SweepConfig, put
from sentio_rllib.config.yaml_files import apply_overrides, read_yaml, sort_keys
from sentio_rllib.errors import ConfigError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read a configuration.

    Parameters
    ----------
    path
        A YAML file.
    overrides
        ``key=value`` pairs of ``--set``, the value in YAML, applied in their order.

    Raises
    ------
    ConfigError
        One line for every mistake.
    """
    path = Path(path)
    raw = read_yaml(path)
    mistakes = apply_overrides(raw, overrides)
    if raw.get("name") is None:
        raw["name"] = path.stem
    return build_config(raw, mistakes=mistakes)


def build_config(raw: Mapping[Any, Any], *, mistakes: Sequence[str] = (), trial: bool = False) -> SweepConfig:
    """Return the configuration of nested plain values.

    Parameters
    ----------
    raw
        Sections with their keys, as a file holds them.
    mistakes
        Lines to tell with those found here.
    trial
        Check the values of one trial only, not the search space and the folds that all trials share.

    Raises
    ------
    ConfigError
        One line for every mistake: unknown keys, types, ranges, contradictions.
    """
    known = sort_keys(raw, SweepConfig)
    lines, wrong = [*mistakes, *known.mistakes], known.wrong
    config, refusals = _validated(known.values)
    lines += refusals.values()
    wrong += refusals
    parameters, space_mistakes = parse_space(config.search.space, SweepConfig)
    if space_mistakes:
        lines += space_mistakes
        wrong += [f"search.space.{key}" for key in config.search.space if key not in parameters]
        kept = {key: entry for key, entry in config.search.space.items() if key in parameters}
        config = _with_search(config, space=kept)
    if config.search.arms:
        arms, arm_mistakes = parse_arms(config.search.arms, SweepConfig)
        lines += arm_mistakes
        wrong += [f"search.arms.{name}" for name in config.search.arms if name not in arms]
        given = "trials" in config.search.model_fields_set
        config = _with_search(config, arms=arms, **({} if given else {"trials": len(config.search.arms)}))
    lines += contradictions(config, wrong, trial=trial)
    if lines:
        raise ConfigError(*lines)
    return config


def _validated(values: dict[str, Any]) -> tuple[SweepConfig, dict[str, str]]:
    """Return the configuration with refused values at their defaults, and a line for each refused key."""
    try:
        return SweepConfig.model_validate(values), {}
    except ValidationError as error:
        places = [detail["loc"] for detail in error.errors(include_url=False, include_context=False)]
    refusals: dict[str, str] = {}
    for place in places:
        prefixes = [".".join(map(str, place[:depth])) for depth in range(1, len(place) + 1)]
        key = next(prefix for prefix in prefixes if prefix in _LEAVES)
        if key in refusals:
            continue  # a second mistake within one list
        *parents, leaf = key.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        refusals[key] = refused(key, section.pop(leaf), _LEAVES[key])
    return SweepConfig.model_validate(values), refusals


def _with_search(config: SweepConfig, **changes: Any) -> SweepConfig:
    return config.model_copy(update={"search": config.search.model_copy(update=changes)})


def resolve(config: SweepConfig, params: Mapping[str, Any]) -> SweepConfig:
    """Return the configuration of one trial.

    Parameters
    ----------
    config
        Of the sweep.
    params
        Dotted tunable keys with the trial's values; ``search.arm`` names the arm that it is.

    Raises
    ------
    ConfigError
        A key or the arm is unknown, a key is not tunable, a value is out of its range, or values contradict
        each other.
    """
    changes = dict(params)
    name = changes.pop(ARM, None)
    if name is not None and name not in config.search.arms:
        raise ConfigError(_unknown_arm(name, list(config.search.arms)))
    values = (config if name is None else config.of_arm(name)).model_dump(by_alias=True)
    mistakes = []
    for key, value in changes.items():
        info = find_leaf(SweepConfig, key)
        if info is None or not is_tunable(info):
            mistakes.append(unknown(SweepConfig, key) if info is None else f"{key}: is not tunable")
            continue
        put(values, key, value)
    return build_config(values, mistakes=mistakes, trial=True)


def _unknown_arm(name: Any, names: list[str]) -> str:
    if not names:
        return f"{ARM}: {show(name)} is unknown, the configuration has no arms"
    near = nearest(str(name), names)
    return f"{ARM}: {show(name)} is unknown; " + (f"did you mean {near}?" if near else f"choose one of {names}")


_LEAVES = dict(leaves(SweepConfig))
