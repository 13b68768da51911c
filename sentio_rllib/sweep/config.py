"""The configuration of a sweep: one typed tree, read from YAML, with every mistake told at once.

Knows no Ray, so that a mistake is told before Ray starts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, cast

from pydantic import Field, ValidationError

from sentio_rllib.errors import ConfigError
from sentio_rllib.market.features import SESSION_MINUTES, max_lookback
from sentio_rllib.policy.encoders import receptive_patches
from sentio_rllib.policy.variants import VARIANTS
from sentio_rllib.sweep import contradictions
from sentio_rllib.sweep.arms import parse_arms
from sentio_rllib.sweep.keys import find_leaf, is_tunable, leaves, nearest, refused, show, unknown
from sentio_rllib.sweep.reading import apply_overrides, read_yaml, sort_keys, write_yaml
from sentio_rllib.sweep.schema import (
    Data,
    Evidence,
    Features,
    Policy,
    Ppo,
    Resources,
    Risk,
    Search,
    Section,
    Trading,
    Validation,
    VariantName,
)
from sentio_rllib.sweep.space import ARM, Choice, Space, parse_space
from sentio_rllib.trading.rules import MaskKind, TradingRules
from sentio_rllib.validation.splits import Footprint

__all__ = ["SweepConfig", "build_config", "load_config"]

_SESSION_MINUTES = {"24/7": 1440}


class SweepConfig(Section):
    """Everything that a sweep is told. Build it with :func:`load_config` or :func:`build_config`.

    Constructing it directly checks each key by itself only, not what several keys forbid together.
    """

    name: str = Field(
        default="sweep",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="of the sweep and its folder; null: the file's name",
        json_schema_extra={
            "allowed": "up to 100 letters, digits, '.', '_' and '-', the first a letter or digit; no folders"
        },
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="of everything random in the sweep")
    variant: VariantName = Field(default="maskable", description="masks and policy head")
    data: Data = Field(default_factory=Data, description="the bars")
    features: Features = Field(default_factory=Features, description="the market features")
    trading: Trading = Field(default_factory=Trading, description="costs, limits and pace")
    validation: Validation = Field(default_factory=Validation, description="folds and holdout")
    policy: Policy = Field(default_factory=Policy, description="the networks")
    ppo: Ppo = Field(default_factory=Ppo, description="optimisation")
    risk: Risk = Field(default_factory=Risk, description="what the objective counts besides the mean")
    search: Search = Field(default_factory=Search, description="what is tried and when a trial ends")
    evidence: Evidence = Field(default_factory=Evidence, description="which trial becomes champion, what is claimed")
    resources: Resources = Field(default_factory=Resources, description="of one trial")
    storage_path: str = Field(
        default="experiments", min_length=1, description="folder or pyarrow file system that holds the sweeps"
    )

    def parameters(self) -> Space:
        """Return the search space: dotted key to parameter, in the file's order; arms are the choices of one."""
        space, mistakes = parse_space(self.search.space, type(self))
        if mistakes:
            raise ConfigError(*mistakes)
        return {**space, ARM: Choice(tuple(self.search.arms))} if self.search.arms else space

    def arms(self) -> dict[str, SweepConfig]:
        """Return the configuration of each arm, in the file's order; the first is the baseline."""
        return {name: self._of_arm(name) for name in self.search.arms}

    def without_arms(self) -> SweepConfig:
        """Return the configuration as it stands without its arms."""
        return self.model_copy(update={"search": self.search.model_copy(update={"arms": {}})})

    def _of_arm(self, name: str) -> SweepConfig:
        values = self.without_arms().model_dump(by_alias=True)
        for key, value in (self.search.arms[name] or {}).items():
            _put(values, key, value)
        return type(self).model_validate(values)

    def value(self, key: str) -> Any:
        """Return the value of a dotted key, named as in a file (``ppo.lambda``)."""
        held: Any = self
        for part in key.split("."):
            names = {info.alias or name: name for name, info in type(held).model_fields.items()}
            held = getattr(held, names[part])
        return held

    def largest(self, key: str) -> float:
        """Return the largest value that a number has in any trial."""
        if self.search.arms:
            return max(arm.largest(key) for arm in self.arms().values())
        parameter = self.parameters().get(key)
        value: float = self.value(key)
        return value if parameter is None else max(value, *parameter.extremes())

    def resolve(self, params: Mapping[str, Any]) -> SweepConfig:
        """Return the configuration of one trial.

        Parameters
        ----------
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
        if name is not None and name not in self.search.arms:
            raise ConfigError(_unknown_arm(name, list(self.search.arms)))
        values = (self if name is None else self._of_arm(name)).model_dump(by_alias=True)
        mistakes = []
        for key, value in changes.items():
            info = find_leaf(type(self), key)
            if info is None or not is_tunable(info):
                mistakes.append(unknown(type(self), key) if info is None else f"{key}: is not tunable")
                continue
            _put(values, key, value)
        return build_config(values, mistakes=mistakes, trial=True)

    def to_yaml(self) -> str:
        """Return the whole configuration, defaults included, as YAML that loads to an equal one."""
        return write_yaml(self.model_dump(mode="json", by_alias=True))

    def fingerprint(self) -> str:
        """Return the SHA-256, in hex, of the canonical form; the order of search space and arms is part of it."""
        values = self.model_dump(mode="json", by_alias=True)
        order = [list(self.search.space), list(self.search.arms)]
        canonical = json.dumps([values, order], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def changed_keys(self, other: SweepConfig) -> list[str]:
        """Return the dotted keys in which two configurations differ."""
        changed = [key for key, _ in leaves(type(self)) if self.value(key) != other.value(key)]
        for key in ("search.space", "search.arms"):
            if key not in changed and list(self.value(key)) != list(other.value(key)):
                changed.append(key)
        return changed

    def changed_from_defaults(self) -> Iterator[tuple[str, Any, Any]]:
        """Yield key, value and default of every key that is not at its default."""
        default = SweepConfig()
        for key in self.changed_keys(default):
            yield key, self.value(key), default.value(key)

    def cautions(self) -> list[str]:
        """Return what is allowed but probably not meant, one line each."""
        return contradictions.cautions(self)

    def trading_masks(self) -> MaskKind:
        """Return the masks in force: the variant's, unless `trading.masks` is set."""
        return cast(MaskKind, self.part("masks"))

    def trading_rules(self) -> TradingRules:
        """Return the rules that the simulator trades by.

        Raises
        ------
        ConfigError
            If the rules contradict each other.
        """
        values = self.trading.model_dump() | {"masks": self.trading_masks()}
        return TradingRules(**values, reference_volatility=self.features.reference_volatility)

    def footprint(self, session_minutes: int | None = None) -> Footprint:
        """Return the largest footprint of a decision in the search space; a smaller one would leak.

        Parameters
        ----------
        session_minutes
            Minutes of the longest session of the bars; by default what the calendar is known to have.
        """
        if session_minutes is None:
            session_minutes = _SESSION_MINUTES.get(self.data.calendar, SESSION_MINUTES)
        if self.search.arms:
            each = [arm.footprint(session_minutes) for arm in self.arms().values()]
            return Footprint(*map(max, zip(*map(astuple, each), strict=True)))
        interval = int(self.largest("trading.decision_interval"))
        return Footprint(
            lookback=max_lookback(session_minutes),
            receptive_field=self.receptive_patches() * interval or 1,
            decision_interval=interval,
        )

    def part(self, name: str) -> str:
        """Return the `encoder`, `head`, `critic` or `masks`, the variant's where the file names none."""
        part: str = self.value(_PARTS[name]) or getattr(VARIANTS[self.variant], name)
        return part

    def choices(self, name: str) -> list[str]:
        """Return what trials have for their `encoder`, `head`, `critic` or `masks`, each once."""
        if self.search.arms:
            return list(dict.fromkeys(choice for arm in self.arms().values() for choice in arm.choices(name)))
        parameter = self.parameters().get(_PARTS[name])
        values = [self.part(name)] if parameter is None else parameter.points() or ()
        of_variant: str = getattr(VARIANTS[self.variant], name)
        return list(dict.fromkeys(str(value or of_variant) for value in values))

    def may_have(self, name: str, choice: str) -> bool:
        """Return whether any trial has `choice` for its `encoder`, `head`, `critic` or `masks`."""
        return choice in self.choices(name)

    def receptive_patches(self) -> int:
        """Return the most patches that a decision of any trial reads; 0 without a transformer."""
        if self.search.arms:
            return max(arm.receptive_patches() for arm in self.arms().values())
        if not self.may_have("encoder", "transformer"):
            return 0
        return receptive_patches(int(self.largest("policy.layers")), int(self.largest("policy.band")))


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
    lines += contradictions.contradictions(config, wrong, trial=trial)
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


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested values that hold it already."""
    *parents, leaf = key.split(".")
    for parent in parents:
        values = values[parent]
    values[leaf] = value


def _unknown_arm(name: Any, names: list[str]) -> str:
    if not names:
        return f"{ARM}: {show(name)} is unknown, the configuration has no arms"
    near = nearest(str(name), names)
    return f"{ARM}: {show(name)} is unknown; " + (f"did you mean {near}?" if near else f"choose one of {names}")


_PARTS = {
    "encoder": "policy.encoder",
    "head": "policy.head",
    "critic": "policy.critic",
    "masks": "trading.masks",
}
"""Keys that are a variant's where they are left null."""

_LEAVES = dict(leaves(SweepConfig))
