"""The configuration of a sweep: one typed tree, read from YAML, with every mistake told at once.

Knows no Ray, so that a mistake is told before Ray starts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from sentio_rllib.errors import ConfigError
from sentio_rllib.market.features import SESSION_MINUTES, max_lookback
from sentio_rllib.policy.variants import VARIANTS
from sentio_rllib.sweep import contradictions
from sentio_rllib.sweep.keys import find_leaf, is_tunable, leaves, refused, unknown
from sentio_rllib.sweep.reading import apply_overrides, read_yaml, sort_keys, write_yaml
from sentio_rllib.sweep.schema import (
    Data,
    Features,
    Policy,
    Ppo,
    Resources,
    Search,
    Section,
    Trading,
    Validation,
    VariantName,
)
from sentio_rllib.sweep.space import Space, parse_space
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
    search: Search = Field(default_factory=Search, description="what is tried and when a trial ends")
    resources: Resources = Field(default_factory=Resources, description="of one trial")
    storage_path: str = Field(
        default="experiments", min_length=1, description="folder or pyarrow file system that holds the sweeps"
    )

    def parameters(self) -> Space:
        """Return the search space: dotted key to parameter, in the file's order."""
        space, mistakes = parse_space(self.search.space, type(self))
        if mistakes:
            raise ConfigError(*mistakes)
        return space

    def value(self, key: str) -> Any:
        """Return the value of a dotted key, named as in a file (``ppo.lambda``)."""
        held: Any = self
        for part in key.split("."):
            names = {info.alias or name: name for name, info in type(held).model_fields.items()}
            held = getattr(held, names[part])
        return held

    def largest(self, key: str) -> float:
        """Return the largest value that a number has in any trial."""
        parameter = self.parameters().get(key)
        value: float = self.value(key)
        return value if parameter is None else max(value, *parameter.extremes())

    def resolve(self, params: Mapping[str, Any]) -> SweepConfig:
        """Return the configuration of one trial.

        Parameters
        ----------
        params
            Dotted tunable keys with the trial's values.

        Raises
        ------
        ConfigError
            A key is unknown or not tunable, a value is out of its range, or values contradict each other.
        """
        values = self.model_dump(by_alias=True)
        mistakes = []
        for key, value in params.items():
            info = find_leaf(type(self), key)
            if info is None or not is_tunable(info):
                mistakes.append(unknown(type(self), key) if info is None else f"{key}: is not tunable")
                continue
            section, _, leaf = key.partition(".")
            values[section][leaf] = value
        return build_config(values, mistakes=mistakes, trial=True)

    def to_yaml(self) -> str:
        """Return the whole configuration, defaults included, as YAML that loads to an equal one."""
        return write_yaml(self.model_dump(mode="json", by_alias=True))

    def fingerprint(self) -> str:
        """Return the SHA-256, in hex, of the canonical form; the order of the search space is part of it."""
        values = self.model_dump(mode="json", by_alias=True)
        canonical = json.dumps([values, list(self.search.space)], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def changed_keys(self, other: SweepConfig) -> list[str]:
        """Return the dotted keys in which two configurations differ."""
        changed = [key for key, _ in leaves(type(self)) if self.value(key) != other.value(key)]
        if "search.space" not in changed and list(self.search.space) != list(other.search.space):
            changed.append("search.space")
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
        return self.trading.masks or VARIANTS[self.variant].masks

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
        interval = int(self.largest("trading.decision_interval"))
        return Footprint(lookback=max_lookback(session_minutes), decision_interval=interval)


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
        search = config.search.model_copy(update={"space": kept})
        config = config.model_copy(update={"search": search})
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


_LEAVES = dict(leaves(SweepConfig))
