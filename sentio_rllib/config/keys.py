"""Dotted keys of a configuration: which exist, what each allows, and which one was probably meant."""

from __future__ import annotations

import difflib
import reprlib
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Model = type[BaseModel]

_LATER = {
    ("search.scheduler", "hyperband"),
    ("search.scheduler", "pbt"),
}


def children(model: Model) -> dict[str, FieldInfo]:
    """Return the fields of a section under the names that a file uses."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def section_of(info: FieldInfo) -> Model | None:
    """Return the model of a section, or None where the field is a value."""
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def leaves(model: Model, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every dotted key that holds a value, in the order of the sections."""
    for name, info in children(model).items():
        section = section_of(info)
        if section is None:
            yield prefix + name, info
        else:
            yield from leaves(section, f"{prefix}{name}.")


def find_leaf(model: Model, key: str) -> FieldInfo | None:
    """Return the field of a dotted key, or None where there is none."""
    return dict(leaves(model)).get(key)


def is_tunable(info: FieldInfo) -> bool:
    """Tell whether `search.space` may vary the key."""
    extra = info.json_schema_extra
    return isinstance(extra, dict) and extra.get("tunable") is True


def show(value: object) -> str:
    """Return a value as an error message quotes it: as Python writes it, cut when long."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = 80
    return shortened.repr(value)


def allowed(info: FieldInfo) -> str:
    """Return the allowed values of a key in words."""
    extra = info.json_schema_extra
    if isinstance(extra, dict) and "allowed" in extra:
        return str(extra["allowed"])
    kind, optional = info.annotation, ""
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
        optional = "null or "
    return optional + _kind_in_words(kind, info.metadata)


def _kind_in_words(kind: Any, metadata: list[Any]) -> str:
    if get_origin(kind) is Literal:
        names = [str(name) for name in get_args(kind)]
        return "one of " + ", ".join(names) if len(names) > 1 else names[0]
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        name = "a whole number" if kind is int else "a number"
        return name + _limits_in_words(metadata)
    return "text, in quotes where it looks like a number or a date"


def _limits_in_words(metadata: list[Any]) -> str:
    words = []
    for limit in metadata:
        if isinstance(limit, annotated_types.Ge):
            words.append(f"from {limit.ge}")
        elif isinstance(limit, annotated_types.Gt):
            words.append(f"above {limit.gt}")
        elif isinstance(limit, annotated_types.Le):
            words.append(f"up to {limit.le}")
        elif isinstance(limit, annotated_types.Lt):
            words.append(f"below {limit.lt}")
    return "".join(f" {word}" for word in words)


def refused(key: str, value: object, info: FieldInfo) -> str:
    """Return the line for a value that its key does not allow."""
    if isinstance(value, str) and (key, value) in _LATER:
        return f"{key}: {value} is not available yet; set it to {allowed(info)}"
    hint = ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63 and "whole" in allowed(info):
        hint = f"; write {int(value)} without point or exponent"
    return f"{key}: {show(value)} is not allowed; set it to {allowed(info)}{hint}"


def unknown(model: Model, key: str) -> str:
    """Return the line for a key that does not exist, with the nearest one that does."""
    near = nearest(key, [name for name, _ in leaves(model)] + _sections(model))
    parent = key.rpartition(".")[0]
    known = _siblings(model, parent)
    help_ = f"did you mean {near}?" if near else "known here are " + ", ".join(known)
    return f"{key}: unknown key; {help_}"


def nearest(key: str, names: list[str]) -> str | None:
    """Return the name that `key` most probably meant: near as a whole, or by its last part."""
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.75)
    if close:
        return close[0]
    last_parts = {name.rpartition(".")[2]: name for name in reversed(names)}
    close = difflib.get_close_matches(key.rpartition(".")[2], list(last_parts), n=1, cutoff=0.7)
    return last_parts[close[0]] if close else None


def _sections(model: Model, prefix: str = "") -> list[str]:
    found = []
    for name, info in children(model).items():
        section = section_of(info)
        if section is not None:
            found += [prefix + name, *_sections(section, f"{prefix}{name}.")]
    return found


def _siblings(model: Model, parent: str) -> list[str]:
    for part in filter(None, parent.split(".")):
        info = children(model).get(part)
        section = section_of(info) if info is not None else None
        if section is None:
            break
        model = section
    return list(children(model))
