"""From the options of a single run to the configuration that the sweep's parts take, with every mistake told at once.

Knows no Ray, so that a mistake is told before Ray starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sentio_rllib.config.contradictions import cautions
from sentio_rllib.config.keys import nearest, show
from sentio_rllib.config.loading import build_config
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.config.yaml_files import apply_overrides, parse_yaml
from sentio_rllib.errors import ConfigError, TrainError
from sentio_rllib.policy.variants import VARIANTS

UNLIMITED = 10**12
"""`search.env_steps` of a run that trains until it has converged: the largest that the key allows."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "validation": {"scheme": "walk_forward", "folds": 2},
    "policy": {},
    "ppo": {"learning_rate": 3e-4, "schedule": "constant"},
    "search": {
        "trials": 1,
        "env_steps": UNLIMITED,
        "evaluate_every": 49_152,
        "grace_steps": 147_456,
        "patience": 6,
        # scores that creep towards 0, as of a policy that trades ever less, are no improvement
        "min_delta": 0.05,
    },
}
"""What differs from a sweep's defaults; without a budget of steps no rate can fall
towards its end."""

ENHANCED: Mapping[str, Mapping[str, Any]] = {
    "policy": {"d_model": 32, "heads": 2, "layers": 1, "band": 16},
    "ppo": {"minibatch_rows": 512, "sequence_length": 128},
}
"""Sizes of configs/enhanced.yaml, for the variant that has a transformer."""

OF_OPTIONS = {
    "--minutes": "search.minutes",
    "--episode-length": "trading.episode_length",
    "--learning-rate": "ppo.learning_rate",
    "--seed": "seed",
}
"""The keys that options set, read as a value of ``--set`` is."""

_ELSEWHERE = {"variant": "--type", "name": "--output", "storage_path": "--output", "search.minutes": "--minutes"}
_OF_A_SWEEP = (
    *(f"search.{key}" for key in ("space", "arms", "trials", "sampler", "scheduler", "reduction_factor")),
    "search.max_concurrent",
    "validation.seeds",
    "validation.fold_penalty",
    *(f"evidence.{key}" for key in ("selection", "refit_seeds", "stress", "resamples", "target_")),
)
"""What such keys begin with: one network on one fold is neither searched nor selected nor refitted."""

_FALLING = ("linear", "cosine")


@dataclass(frozen=True)
class Options:
    """The options as they were typed; None where one was not given.

    Attributes
    ----------
    type, output, data
        See the command's help.
    episodes
        Text of ``--episodes``.
    values
        By option, the texts of :data:`OF_OPTIONS` that were given.
    overrides
        ``key=value`` pairs of ``--set``, applied after the options.
    resume
        Go on with what `output` names.
    """

    type: str | None = None
    output: str | None = None
    data: str | None = None
    episodes: str | None = None
    values: Mapping[str, str] | None = None
    overrides: Sequence[str] = ()
    resume: bool = False

    @property
    def variant(self) -> str:
        """What is trained where nothing is gone on with.

        Raises
        ------
        TrainError
            If ``--type`` names none.
        """
        if self.type is None:
            return "enhanced-maskable"
        if self.type not in VARIANTS:
            near = nearest(self.type, list(VARIANTS))
            told = f"; did you mean {near}?" if near else ""
            raise TrainError(f"--type {show(self.type)}: allowed are {', '.join(VARIANTS)}{told}")
        return self.type


def start_values(options: Options) -> dict[str, Any]:
    """Return the plain values of a new run before ``--set`` and :data:`OF_OPTIONS`."""
    values: dict[str, Any] = {name: dict(section) for name, section in DEFAULTS.items()}
    if options.variant == "enhanced-maskable":
        for name, section in ENHANCED.items():
            values[name] |= section
    return values | {"variant": options.variant}


def configure(values: dict[str, Any], options: Options) -> SweepConfig:
    """Return the configuration of a run.

    Parameters
    ----------
    values
        Of :func:`start_values`, or those that a run which goes on was started with; changed in place.
    options
        Those that were given now.

    Raises
    ------
    ConfigError
        One line for every mistake; a key that an option sets is told under the option's name.
    """
    given = dict(options.values or {})
    if options.type is not None:
        values["variant"] = options.variant
    if options.data is not None:
        values.setdefault("data", {})["path"] = options.data  # as it is: a path is not YAML
    empty = [option for option, text in given.items() if _is_nothing(text)]
    typed = [f"{OF_OPTIONS[option]}={text}" for option, text in given.items() if option not in empty]
    mistakes = [f"{option}: {show(given[option])} is no value; give one, or leave the option out" for option in empty]
    mistakes += apply_overrides(values, typed)
    mistakes += _not_here(options.overrides) or apply_overrides(values, options.overrides)
    try:
        return build_config(values, mistakes=mistakes)
    except ConfigError as error:
        keys = {key: option for option, key in OF_OPTIONS.items() if option in given}
        raise ConfigError(*(_under_option(line, keys) for line in error.lines)) from error


def _is_nothing(text: str) -> bool:
    """Whether YAML reads no value in `text`, which a key without a limit would take for unlimited."""
    try:
        return parse_yaml(text) is None
    except ValueError:
        return False  # told where it is set


def _not_here(overrides: Sequence[str]) -> list[str]:
    """Return a line for every ``--set`` of a key that a single run takes from an option or does not read."""
    lines = []
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in _ELSEWHERE:
            lines.append(f"--set {override}: a single run takes it from an option; pass {_ELSEWHERE[key]}")
        elif key.startswith(_OF_A_SWEEP):
            lines.append(f"--set {override}: a single run does not read it; use python -m sentio_rllib.sweep")
    return lines


def _under_option(line: str, keys: Mapping[str, str]) -> str:
    key, colon, rest = line.partition(":")
    return f"{keys[key]}{colon}{rest}" if key in keys else line


def episodes_limit(options: Options) -> int | None:
    """Return the limit of ``--episodes``, None where it was not given.

    Raises
    ------
    TrainError
        If it is no whole number from 1.
    """
    text = options.episodes
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise TrainError(f"--episodes {show(text)}: allowed are whole numbers from 1")
    return int(text)


def budget(config: SweepConfig, episodes: int | None) -> int:
    """Return the env steps over which the learning rate falls and after which training ends.

    `search.env_steps`, or less where `episodes` end earlier: none takes more than its length, and every
    environment may be inside one when the last of them ends. A run that goes on with more episodes has a longer
    budget, so a rate that falls over it is higher again at the steps that are made.

    Raises
    ------
    TrainError
        If the learning rate is to fall over a budget and there is none.
    """
    steps = config.search.env_steps
    if episodes is not None:
        trading = config.trading
        decisions = max(1, trading.episode_length // trading.decision_interval)
        steps = min(steps, (episodes + config.ppo.environments) * decisions)
    if steps == UNLIMITED and config.ppo.schedule in _FALLING:
        raise TrainError(
            f"ppo.schedule: {config.ppo.schedule} falls over a budget, and there is none; pass --episodes, or --set "
            "search.env_steps=500000, or use plateau"
        )
    return steps


def cautions_of(config: SweepConfig, options: Options) -> list[str]:
    """Return what is allowed but probably not meant, of the keys that were named."""
    named = {override.partition("=")[0].strip() for override in options.overrides}
    return [line for line in cautions(config) if line.partition(":")[0] in named]
