"""The search space: from `search.space` of a file to ranges and choices, and the grids that they span."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from sentio_rllib.config.keys import (
    Model,
    allowed,
    children,
    find_leaf,
    is_tunable,
    leaves,
    nearest,
    section_of,
    show,
    unknown,
)

ARM = "search.arm"
"""The parameter that says which arm a trial is."""

KINDS = ("loguniform", "uniform", "int", "choice")
_PAIR_OR_STEP = (2, 3)

Scalar = float | int | str | bool | None


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included, evenly on a linear or a logarithmic scale."""

    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: float | None = None

    def contains(self, value: Any) -> bool:
        """Tell whether a trial can have this value."""
        inside = bool(self.low <= value <= self.high)
        return inside and (self.step is None or _is_multiple(value - self.low, self.step))

    def extremes(self) -> tuple[float, ...]:
        """Return the smallest and the largest value."""
        return (self.low, self.high)

    def points(self) -> Sequence[float] | None:
        """Return all values in ascending order, or None where they are a continuum."""
        if self.whole:
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        if self.step is None:
            return None
        count = round((self.high - self.low) / self.step)
        return [self.low + index * self.step for index in range(count)] + [self.high]

    def encode(self, value: Any) -> Scalar:
        """Return a value as the study stores it."""
        return int(value) if self.whole else float(value)

    def decode(self, stored: Scalar) -> Any:
        """Return a value as the configuration takes it."""
        return stored


@dataclass(frozen=True)
class Choice:
    """One of some values; lists are stored as JSON text, which the study can hold."""

    values: tuple[Any, ...]

    def contains(self, value: Any) -> bool:
        """Tell whether a trial can have this value."""
        return self.encode(value) in [self.encode(each) for each in self.values]

    def extremes(self) -> tuple[Any, ...]:
        """Return all values: they need not be ordered."""
        return self.values

    def points(self) -> Sequence[Any]:
        """Return all values in the order of the file."""
        return self.values

    def encode(self, value: Any) -> Scalar:
        """Return a value as the study stores it."""
        return json.dumps(list(value)) if isinstance(value, (list, tuple)) else value

    def decode(self, stored: Scalar) -> Any:
        """Return a value as the configuration takes it."""
        return next(value for value in self.values if self.encode(value) == stored)


Parameter = Interval | Choice
Space = dict[str, Parameter]


def parse_space(raw: Mapping[Any, Any], model: Model) -> tuple[Space, list[str]]:
    """Return the parameters of a search space, in the file's order, and a line for every mistake.

    Parameters
    ----------
    raw
        `search.space`: dotted key to ``{loguniform: [low, high]}``, ``{uniform: [low, high]}``,
        ``{int: [low, high]}`` (both ends included; a third number is a step, except with loguniform) or
        ``{choice: [...]}``.
    model
        The configuration whose keys are searched.
    """
    space: Space = {}
    mistakes: list[str] = []
    for key, entry in raw.items():
        try:
            space[key] = _parse_entry(str(key), entry, model)
        except _Refused as refusal:
            mistakes += [f"search.space.{key}: {reason}" for reason in refusal.args]
    return space, mistakes


class _Refused(Exception):  # noqa: N818  (a signal within this file)
    """An entry cannot be used; its arguments are the reasons."""


def _parse_entry(key: str, entry: Any, model: Model) -> Parameter:
    _refuse_untunable(key, model)
    if not isinstance(entry, Mapping) or len(entry) != 1 or next(iter(entry)) not in KINDS:
        raise _Refused(f"{show(entry)} is no range; write {{KIND: [...]}} with one KIND of {', '.join(KINDS)}")
    kind, values = next(iter(entry.items()))
    if not isinstance(values, list):
        raise _Refused(f"{show(values)} is no list; write {{{kind}: [...]}}")
    return _parse_choice(key, values, model) if kind == "choice" else _parse_interval(key, kind, values, model)


def _refuse_untunable(key: str, model: Model) -> None:
    info = find_leaf(model, key)
    if info is None:
        raise _Refused(unknown(model, key).partition(": ")[2])
    if not is_tunable(info):
        tunable = [name for name, each in leaves(model) if is_tunable(each)]
        near = nearest(key, tunable)
        hint = f"did you mean {near}? " if near else ""
        raise _Refused(
            f"is not tunable: all trials share it; {hint}set {key} itself, or search keys of policy, ppo, "
            "risk, or trading other than costs"
        )


def _parse_choice(key: str, values: list[Any], model: Model) -> Choice:
    if len(values) < 2:
        raise _Refused(f"{show(values)} leaves nothing to choose; list two values or more")
    choice = Choice(tuple(_valid_values(key, values, model)))
    stored = [choice.encode(value) for value in choice.values]
    if len(set(stored)) < len(stored):
        raise _Refused(f"{show(values)} holds a value twice; list each once")
    return choice


def _parse_interval(key: str, kind: str, values: list[Any], model: Model) -> Interval:
    form = f"{{{kind}: [low, high{']' if kind == 'loguniform' else '] or [low, high, step]'}}}"
    info = find_leaf(model, key)
    assert info is not None
    whole = info.annotation is int
    if info.annotation not in (int, float):
        raise _Refused(f"{kind} needs a number, {key} is {allowed(info)}; use choice")
    if whole != (kind == "int"):
        raise _Refused(f"{kind} does not fit, {key} is {allowed(info)}; use {'int' if whole else 'uniform'} or choice")
    if len(values) not in (_PAIR_OR_STEP[:1] if kind == "loguniform" else _PAIR_OR_STEP):
        raise _Refused(f"{show(values)} has {len(values)} entries; write {form}")
    number = int if whole else (int, float)
    if any(isinstance(each, bool) or not isinstance(each, number) or not math.isfinite(each) for each in values):
        raise _Refused(f"{show(values)} must hold {'whole' if whole else 'finite'} numbers; write {form}")
    low, high, *steps = values
    if not low < high:
        raise _Refused(f"{show(values)} is empty; write {form} with low < high")
    _valid_values(key, [low, high], model)
    if kind == "loguniform" and low <= 0:
        raise _Refused(f"{show(values)} begins at {low!r}, which has no logarithm; begin above 0 or use uniform")
    if steps and not (steps[0] > 0 and _is_multiple(high - low, steps[0])):
        raise _Refused(f"step {steps[0]!r} does not lead from {low!r} to {high!r}; use one that divides the range")
    if whole:
        return Interval(low, high, whole=True, step=steps[0] if steps else None)
    step = float(steps[0]) if steps else None
    return Interval(float(low), float(high), log=kind == "loguniform", step=step)


def _is_multiple(distance: float, step: float) -> bool:
    return math.isclose(distance / step, round(distance / step), abs_tol=1e-9)


def _valid_values(key: str, values: list[Any], model: Model) -> list[Any]:
    """Return the values as the configuration holds them; refuse those that the key does not allow."""
    info = find_leaf(model, key)
    assert info is not None
    valid, reasons = [], []
    for value in values:
        try:
            valid.append(held_value(key, value, model))
        except ValidationError:
            reasons.append(f"{show(value)} is outside what {key} allows, {allowed(info)}")
    if reasons:
        raise _Refused(*reasons)
    return valid


def held_value(key: str, value: Any, model: Model) -> Any:
    """Return the value of a dotted key as the configuration holds it.

    Raises
    ------
    ValidationError
        If the key does not allow it.
    """
    *parents, leaf = key.split(".")
    for parent in parents:
        section = section_of(children(model)[parent])
        assert section is not None
        model = section
    [held] = model.model_validate({leaf: value}).model_dump(exclude_unset=True).values()
    return held


def decode_params(space: Mapping[str, Parameter], stored: Mapping[str, Scalar]) -> dict[str, Any]:
    """Return parameters as the configuration takes them, in the order of the space."""
    return {key: space[key].decode(stored[key]) for key in space if key in stored}


def encode_params(space: Mapping[str, Parameter], params: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return parameters as the study stores them."""
    return {key: space[key].encode(value) for key, value in params.items()}


def continuous_keys(space: Mapping[str, Parameter]) -> list[str]:
    """Return the keys that no grid can enumerate."""
    return [key for key, parameter in space.items() if parameter.points() is None]


def grid_size(space: Mapping[str, Parameter]) -> int:
    """Return the number of points of a grid; a space without keys has one, the default configuration."""
    return math.prod(len(parameter.points() or ()) for parameter in space.values())


def grid(space: Mapping[str, Parameter], first: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every point of the grid once: `first`, the default configuration, then the others in order.

    The last key of the space varies fastest.
    """
    yield dict(first)
    start = encode_params(space, first)
    for values in itertools.product(*(parameter.points() or () for parameter in space.values())):
        point = dict(zip(space, values, strict=True))
        if encode_params(space, point) != start:
            yield point
