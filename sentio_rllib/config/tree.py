"""The configuration of a sweep as one typed tree, and what follows from its keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any, cast

from pydantic import Field, field_validator

from sentio_rllib.config.keys import leaves
from sentio_rllib.config.schema import (
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
    home,
)
from sentio_rllib.config.space import ARM, Choice, Space, grid_size, parse_space
from sentio_rllib.config.yaml_files import write_yaml
from sentio_rllib.errors import ConfigError
from sentio_rllib.market.feature_set import SESSION_MINUTES, feature_set
from sentio_rllib.policy.variants import VARIANTS, receptive_patches
from sentio_rllib.trading.rules import MaskKind, TradingRules
from sentio_rllib.validation.splits import Footprint

_SESSION_MINUTES = {"24/7": 1440}


class SweepConfig(Section):
    """Everything that a sweep is told. Build it with :mod:`sentio_rllib.config.loading`.

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
        default="experiments", min_length=1, description="folder that holds the sweeps, ~ for home"
    )

    _storage_path = field_validator("storage_path")(home)

    @property
    def folder(self) -> Path:
        """Where the sweep writes."""
        return Path(self.storage_path) / self.name

    def parameters(self) -> Space:
        """Return the search space: dotted key to parameter, in the file's order; arms are the choices of one."""
        space, mistakes = parse_space(self.search.space, type(self))
        if mistakes:
            raise ConfigError(*mistakes)
        return {**space, ARM: Choice(tuple(self.search.arms))} if self.search.arms else space

    def arms(self) -> dict[str, SweepConfig]:
        """Return the configuration of each arm, in the file's order; the first is the baseline."""
        return {name: self.of_arm(name) for name in self.search.arms}

    def without_arms(self) -> SweepConfig:
        """Return the configuration as it stands without its arms."""
        return self.model_copy(update={"search": self.search.model_copy(update={"arms": {}})})

    def of_arm(self, name: str) -> SweepConfig:
        """Return the configuration of one arm."""
        values = self.without_arms().model_dump(by_alias=True)
        for key, value in (self.search.arms[name] or {}).items():
            put(values, key, value)
        return type(self).model_validate(values)

    def default_params(self) -> dict[str, Any]:
        """Return the parameters of trial 0: the values of the configuration itself, and the first of the arms."""
        return {key: next(iter(self.search.arms)) if key == ARM else self.value(key) for key in self.parameters()}

    def asked_trials(self) -> int:
        """Return how many trials a sweep makes if it is not cut off: `search.trials`, or a smaller grid's points."""
        search = self.search
        return min(search.trials, grid_size(self.parameters())) if search.sampler == "grid" else search.trials

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
            lookback=feature_set(self.features.set_).lookback(session_minutes),
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


def over_trials(config: SweepConfig, check: Callable[[SweepConfig], list[str]]) -> list[str]:
    """Return what a check of one trial finds, over all arms where there are any.

    A line that the configuration itself gives is told once, another one with the name of its arm. What no arm has
    is no mistake.
    """
    told = {name: check(arm) for name, arm in config.arms().items()}
    of_all = check(config.without_arms())
    if not told:
        return of_all
    shared = [line for line in of_all if any(line in lines for lines in told.values())]
    own = [f"search.arms.{name}: {line}" for name, lines in told.items() for line in lines if line not in of_all]
    return shared + own


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested values that hold it already."""
    *parents, leaf = key.split(".")
    for parent in parents:
        values = values[parent]
    values[leaf] = value


_PARTS = {
    "encoder": "policy.encoder",
    "head": "policy.head",
    "critic": "policy.critic",
    "masks": "trading.masks",
}
"""Keys that are a variant's where they are left null."""
