"""What several keys of a configuration forbid together, and what deserves a word of caution.

Each check returns lines ``dotted.path: message``. A check is skipped where a key that it reads was wrong by
itself, so that one mistake is told once.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sentio_rllib.command_line import not_local
from sentio_rllib.config.folds import make_folds
from sentio_rllib.config.keys import show
from sentio_rllib.config.space import Choice, continuous_keys, grid_size
from sentio_rllib.config.tree import SweepConfig, over_trials
from sentio_rllib.errors import BarsError, ConfigError, SplitError
from sentio_rllib.market.calendars import check_calendar, check_zone

Check = tuple[tuple[str, ...], Callable[[SweepConfig], list[str]]]

_MANY_BARS = 100_000_000
_MOST_COMBINATIONS = 10_000
_LARGEST_GRID = 100_000
_BATCH_KEYS = ("ppo.environments", "ppo.rollout_steps", "ppo.minibatch_rows")
_GROUP_KEYS = ("ppo.environments", "ppo.path_group")
_HEAD_KEYS = ("policy.d_model", "policy.heads")
_SEQUENCE_KEYS = ("ppo.rollout_steps", "ppo.minibatch_rows", "ppo.sequence_length")


def contradictions(config: SweepConfig, wrong: Sequence[str] = (), *, trial: bool = False) -> list[str]:
    """Return a line for every contradiction between keys.

    Parameters
    ----------
    config
        A configuration whose keys are each within their ranges.
    wrong
        Dotted keys that were wrong in the file and stand at their defaults here.
    trial
        Check the values of one trial only, not the search space and the folds that all trials share.
    """
    lines: list[str] = []
    for reads, check in _OF_A_TRIAL:
        if not any(key.startswith(reads) for key in wrong):
            lines += over_trials(config, check)
    for reads, check in () if trial else _OF_A_SWEEP:
        if not any(key.startswith(reads) for key in wrong):
            lines += check(config)
    return lines


def cautions(config: SweepConfig) -> list[str]:
    """Return what is allowed but probably not meant, one line each."""
    search, space = config.search, config.parameters()
    lines = []
    if not space and search.trials > 1 and search.sampler != "grid":
        lines.append(f"search.space: is empty, so all {search.trials} trials are the same; set search.trials=1")
    if search.sampler == "gp" and search.scheduler != "none":
        lines.append(
            f"search.sampler: gp learns nothing from trials that {search.scheduler} stops; tpe does, or set "
            "search.scheduler=none"
        )
    categorical = [key for key in space if isinstance(space[key], Choice)]
    if search.sampler == "cmaes" and categorical:
        lines.append(f"search.sampler: cmaes draws {', '.join(categorical)} at random; tpe learns them")
    if search.sampler == "cmaes" and len(space) - len(categorical) < 2:
        lines.append("search.sampler: cmaes needs two numeric keys, otherwise it draws at random; use tpe")
    if search.sampler == "grid" and search.trials < grid_size(space):
        points = "arms" if search.arms else "points of the grid"
        lines.append(f"search.trials: {search.trials} of the {grid_size(space)} {points} are tried")
    lines += _doubtful_arms(config)
    for key, value, default in config.changed_from_defaults():
        reason = _without_effect(config, key)
        if reason:
            lines.append(f"{key}: {show(value)} has no effect {reason} (default {show(default)})")
    return lines


def _doubtful_arms(config: SweepConfig) -> list[str]:
    """What makes a comparison of arms less than it seems."""
    search, arms = config.search, config.arms()
    if not arms:
        return []
    lines = []
    if search.scheduler != "none":
        lines.append(
            f"search.scheduler: {search.scheduler} stops arms early, so they may not train equally long; set "
            "search.scheduler=none"
        )
    if search.patience > 0:
        lines.append(
            "search.patience: an arm that converges ends early, so arms may not train equally long; set "
            "search.patience=0"
        )
    prints = {name: arm.fingerprint() for name, arm in arms.items()}
    for alike in (print_ for print_, count in Counter(prints.values()).items() if count > 1):
        names = ", ".join(show(name) for name in arms if prints[name] == alike)
        lines.append(f"search.arms: {names} are the same configuration; keep one of them")
    for name, arm in arms.items():
        reasons = {key: _without_effect(arm, key) for key in search.arms[name]}
        lines += [f"search.arms.{name}: {key} has no effect {reasons[key]}" for key in reasons if reasons[key]]
    return lines


def _trading(config: SweepConfig) -> list[str]:
    try:
        config.trading_rules()
    except ConfigError as error:
        return list(error.lines)
    return []


def _batch(config: SweepConfig) -> list[str]:
    ppo = config.ppo
    reason = _batch_reason(ppo.environments, ppo.rollout_steps, ppo.minibatch_rows)
    return [f"ppo.minibatch_rows: {reason}"] if reason else []


def _batch_reason(environments: int, rollout_steps: int, minibatch_rows: int) -> str | None:
    rows = environments * rollout_steps
    if minibatch_rows > rows:
        return (
            f"{minibatch_rows} rows exceed the batch of {rows} (environments {environments} * rollout_steps "
            f"{rollout_steps}); set it to at most {rows}"
        )
    if rows % minibatch_rows:
        fits = next(size for size in range(minibatch_rows, 0, -1) if rows % size == 0)
        return (
            f"{minibatch_rows} does not divide the batch of {rows} (environments {environments} * "
            f"rollout_steps {rollout_steps}), so rows would be lost; set it for instance to {fits}"
        )
    return None


def _path_group(config: SweepConfig) -> list[str]:
    group = config.ppo.path_group
    if group > 1 and config.ppo.advantages == "counterfactual":
        told = "paths are compared where actions are sampled, and advantages are counterfactual"
        return [f"ppo.path_group: {group} {told}; set it to 1, or ppo.advantages=sampled"]
    reason = _group_reason(config.ppo.environments, group)
    return [f"ppo.path_group: {reason}"] if reason else []


def _group_reason(environments: int, path_group: int) -> str | None:
    if environments % path_group == 0:
        return None
    fits = next(size for size in range(min(path_group, environments), 0, -1) if environments % size == 0)
    return f"{path_group} does not divide environments {environments}; set it for instance to {fits}"


def _encoder(config: SweepConfig) -> list[str]:
    if config.variant == "enhanced-maskable" or not config.may_have("encoder", "transformer"):
        return []
    where = "search.space.policy.encoder" if "policy.encoder" in config.search.space else "policy.encoder"
    shows = f"which variant {config.variant} does not show"
    return [f"{where}: a transformer reads windows of bars, {shows}; set it to mlp, or variant=enhanced-maskable"]


def _heads(config: SweepConfig) -> list[str]:
    if not config.may_have("encoder", "transformer"):
        return []
    reason = _heads_reason(config.policy.d_model, config.policy.heads)
    return [f"policy.heads: {reason}"] if reason else []


def _heads_reason(d_model: int, heads: int) -> str | None:
    if d_model % heads == 0:
        return None
    allowed = [number for number in range(1, d_model + 1) if d_model % number == 0]
    return f"{heads} does not divide d_model {d_model}; set it to one of {', '.join(map(str, allowed[:12]))}"


def _sequence(config: SweepConfig) -> list[str]:
    if not config.may_have("encoder", "transformer") or _batch(config):
        return []
    ppo = config.ppo
    reason = _sequence_reason(ppo.rollout_steps, ppo.minibatch_rows, ppo.sequence_length)
    return [f"ppo.sequence_length: {reason}"] if reason else []


def _sequence_reason(rollout_steps: int, minibatch_rows: int, sequence_length: int) -> str | None:
    both = math.gcd(rollout_steps, minibatch_rows)
    if both % sequence_length == 0:
        return None
    fits = next(length for length in range(min(sequence_length, both), 0, -1) if both % length == 0)
    return (
        f"{sequence_length} does not divide rollout_steps {rollout_steps} and minibatch_rows {minibatch_rows}; set "
        f"it for instance to {fits}"
    )


def _steps(config: SweepConfig) -> list[str]:
    search = config.search
    return [
        f"search.{name}: {value} exceeds the budget of {search.env_steps} env_steps, so no trial gets there; "
        "set it to at most that, or raise search.env_steps"
        for name, value in (("evaluate_every", search.evaluate_every), ("grace_steps", search.grace_steps))
        if value > search.env_steps
    ]


def _gpu(config: SweepConfig) -> list[str]:
    gpu = config.resources.gpu
    if gpu <= 1 or float(gpu).is_integer():
        return []
    return [f"resources.gpu: {gpu!r} is not allowed; set it to a fraction up to 1 or to a whole number"]


def _calendar(config: SweepConfig) -> list[str]:
    try:
        check_calendar(config.data.calendar)
    except BarsError as error:
        return [f"data.calendar: {line}" for line in error.lines]
    return []


def _zone(config: SweepConfig) -> list[str]:
    try:
        if config.data.tz is not None:
            check_zone(config.data.tz)
    except BarsError as error:
        return [f"data.tz: {line}" for line in error.lines]
    return []


def _local(config: SweepConfig) -> list[str]:
    paths = {
        "data.path": config.data.path,
        "storage_path": config.storage_path,
        "evidence.ledger": config.evidence.ledger,
    }
    found = {key: not_local(path) for key, path in paths.items() if path is not None}
    return [f"{key}: {paths[key]!r} {reason}" for key, reason in found.items() if reason]


def _volume(config: SweepConfig) -> list[str]:
    if config.data.volume != "none":
        return []
    told = "needs volume, and data.volume is none; leave one of them out"
    return [f"{key}: {show(value)} {told}" for key, value in needs_volume(config)]


def needs_volume(config: SweepConfig) -> list[tuple[str, float]]:
    """Return the keys, with their values, that limit or move orders by a bar's volume."""
    trading = config.trading
    found = [("trading.max_participation", trading.max_participation), ("trading.impact", trading.impact or None)]
    return [(key, value) for key, value in found if value is not None]


def _source(config: SweepConfig) -> list[str]:
    if config.data.path is None and config.data.bars is not None:
        return [f"data.bars: {config.data.bars} cuts a file, and data.path is not set; set data.synthetic.bars"]
    return []


def _folds(config: SweepConfig) -> list[str]:
    """The folds that the known number of bars cannot hold; with a file of unknown length, what never fits."""
    data = config.data
    try:
        make_folds(config, data.synthetic.bars if data.path is None else data.bars or _MANY_BARS)
    except SplitError as error:
        return list(error.lines)
    return []


def _arms(config: SweepConfig) -> list[str]:
    search = config.search
    if not search.arms:
        return []
    lines = []
    if search.space:
        searched = ", ".join(search.space)
        lines.append(f"search.arms: arms are compared as they stand, so nothing is searched; take out {searched}")
    if search.sampler != "grid":
        lines.append(f"search.sampler: {search.sampler} draws from search.space; arms need search.sampler=grid")
    return lines


def _defaults_in_space(config: SweepConfig) -> list[str]:
    lines = []
    for key, value in config.default_params().items():
        if not config.parameters()[key].contains(value):
            lines.append(
                f"search.space.{key}: trial 0 is the default configuration, and its {show(value)} is not in "
                f"the range; widen the range or set {key} within it"
            )
    return lines


def _grid(config: SweepConfig) -> list[str]:
    space = config.parameters()
    if config.search.sampler != "grid":
        return []
    continuous = [
        f"search.space.{key}: a grid cannot enumerate a continuous range; list the values with choice, or "
        "use search.sampler=tpe"
        for key in continuous_keys(space)
    ]
    if continuous or grid_size(space) <= _LARGEST_GRID:
        return continuous
    return [f"search.space: a grid of {grid_size(space)} points; keep it to {_LARGEST_GRID}, or use tpe"]


def _searched_batches(config: SweepConfig) -> list[str]:
    return [
        *_searched_sizes(config, _BATCH_KEYS, _batch_reason),
        *_searched_sizes(config, _GROUP_KEYS, _group_reason),
    ]


def _searched_transformers(config: SweepConfig) -> list[str]:
    if not config.may_have("encoder", "transformer"):
        return []
    return [
        *_searched_sizes(config, _HEAD_KEYS, _heads_reason),
        *_searched_sizes(config, _SEQUENCE_KEYS, _sequence_reason),
    ]


def _searched_sizes(config: SweepConfig, keys: tuple[str, ...], reason_of: Callable[..., str | None]) -> list[str]:
    """The first combination of searched sizes that cannot train; combinations are few or are refused."""
    space = config.parameters()
    searched = [key for key in keys if key in space]
    if not searched:
        return []
    values = [space[key].points() or () if key in space else (config.value(key),) for key in keys]
    if math.prod(map(len, values)) > _MOST_COMBINATIONS:
        return [f"search.space.{searched[-1]}: too many combinations of {', '.join(keys)}; list a few with choice"]
    for combination in itertools.product(*values):
        reason = reason_of(*combination)
        if reason:
            return [f"search.space.{searched[-1]}: the space holds a trial that cannot train: {reason}"]
    return []


def _searched_trading(config: SweepConfig) -> list[str]:
    """Ends of the ranges suffice: the rules of trading are monotone in each of these keys."""
    space = config.parameters()
    names = ("position_step", "max_position", "min_trade", "episode_length", "decision_interval")
    searched = [name for name in names if f"trading.{name}" in space]
    if not searched or _trading(config):
        return []
    rules = config.trading_rules()
    for values in itertools.product(*(_ends(space[f"trading.{name}"].extremes()) for name in searched)):
        try:
            rules.replace(**dict(zip(searched, values, strict=True)))
        except ConfigError as error:
            line = error.lines[0]
            return [f"search.space.trading.{searched[-1]}: the space holds a trial that cannot trade: {line}"]
    return []


def _ends(values: Sequence[Any]) -> tuple[Any, ...]:
    return (min(values), max(values))


def _searched_in_vain(config: SweepConfig) -> list[str]:
    lines = []
    for key in config.parameters():
        reason = _without_effect(config, key)
        if reason:
            lines.append(f"search.space.{key}: searching it has no effect {reason}; take it out")
    return lines


def _without_effect(config: SweepConfig, key: str) -> str | None:
    """Return why a key does nothing in any trial of this configuration, or None where it may."""
    for keys, part, choice in _PARTS:
        if key in keys and not config.may_have(part, choice):
            section = "trading" if part == "masks" else "policy"
            return f"with {section}.{part}={' and '.join(config.choices(part))}"
    if key == "trading.close_minutes":
        trials = config.arms().values() or [config]
        used = any(trial.trading.flat_by_close for trial in trials) or "trading.flat_by_close" in config.search.space
        return None if used else "without trading.flat_by_close"
    if key in _NEEDS:
        needed, value = _NEEDS[key]
        trials = config.arms().values() or [config]
        used = any(getattr(trial.ppo, needed) == value for trial in trials) or f"ppo.{needed}" in config.search.space
        return None if used else f"without ppo.{needed}={value}"
    return None


_NEEDS = {
    "ppo.plateau_patience": ("schedule", "plateau"),
    "ppo.path_group": ("advantages", "sampled"),
    "ppo.target_policy": ("advantages", "counterfactual"),
}
"""Keys that are read with one value of another key of `ppo`."""


_PARTS = (
    (
        {f"policy.{key}" for key in ("d_model", "heads", "layers", "band", "gated_residual", "neck")}
        | {"ppo.sequence_length"},
        "encoder",
        "transformer",
    ),
    ({f"policy.{key}" for key in ("experts", "mixture", "load_balance")}, "head", "gated"),
    ({"policy.quantiles", "ppo.huber", "risk.cvar_weight"}, "critic", "quantile"),
    ({f"trading.risk_{key}" for key in ("volatility", "first_minutes", "last_minutes", "drawdown")}, "masks", "risk"),
)
"""Keys that only one choice of a part reads."""

_OF_A_TRIAL: tuple[Check, ...] = (
    (("trading.", "features."), _trading),
    (_BATCH_KEYS, _batch),
    ((*_GROUP_KEYS, "ppo.advantages"), _path_group),
    (("variant", "policy.encoder"), _encoder),
    (("variant", "policy.encoder", *_HEAD_KEYS), _heads),
    (("variant", "policy.encoder", *_SEQUENCE_KEYS), _sequence),
    (("search.env_steps", "search.evaluate_every", "search.grace_steps"), _steps),
    (("resources.gpu",), _gpu),
    (("data.calendar",), _calendar),
    (("data.tz",), _zone),
    (("data.path", "data.bars"), _source),
    (("data.path", "storage_path", "evidence.ledger"), _local),
    (("data.volume", "trading.max_participation", "trading.impact"), _volume),
)
_OF_A_SWEEP: tuple[Check, ...] = (
    (
        (
            "validation.",
            "data.path",
            "data.bars",
            "data.synthetic.bars",
            "data.calendar",
            "trading.",
            "variant",
            "policy.",
            "search.space.trading.",
            "search.space.policy.",
        ),
        _folds,
    ),
    (("search.sampler",), _arms),
    (("policy.", "ppo.", "trading."), _defaults_in_space),
    (("search.sampler",), _grid),
    (("ppo.",), _searched_batches),
    (("variant", "ppo.", "policy."), _searched_transformers),
    (("trading.",), _searched_trading),
    (("variant", "policy.", "trading."), _searched_in_vain),
)
