"""Arms: named trials that are compared, each the configuration with some keys at other values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sentio_rllib.config.keys import Model, children, find_leaf, is_tunable, leaves, nearest, refused, show, unknown
from sentio_rllib.config.space import held_value

Arms = dict[str, dict[str, Any]]

MAX_NAME = 60
BUDGET = "search.env_steps"
"""An arm's own budget, with which arms of different speed train for the same time."""

_UNTUNABLE = ("variant", BUDGET)
"""Keys that arms may vary beside the tunable ones."""


def parse_arms(raw: Mapping[Any, Any], model: Model) -> tuple[Arms, list[str]]:
    """Return the arms without a mistake, in the file's order, and a line for every mistake.

    Parameters
    ----------
    raw
        `search.arms`: name to a mapping of dotted keys, empty or null for the configuration as it stands.
    model
        The configuration whose keys the arms set.
    """
    arms: Arms = {}
    mistakes: list[str] = []
    for name, entry in raw.items():
        found = _mistakes(name, entry, model)
        shown = name if isinstance(name, str) and name.isprintable() else show(name)
        mistakes += [f"search.arms.{shown}: {line}" for line in found]
        if not found:
            arms[name] = dict(entry or {})
    if len(raw) == 1:
        mistakes.append("search.arms: holds one arm, which leaves nothing to compare; write two or more, or none")
    return arms, mistakes


def _mistakes(name: Any, entry: Any, model: Model) -> list[str]:
    if not isinstance(name, str):
        return [f"the name {show(name)} is no text; write it in quotes"]
    found = []
    if not (0 < len(name) <= MAX_NAME and name.isprintable() and name == name.strip()):
        found.append(
            f"a name has 1 to {MAX_NAME} printable characters, none of them a space at its ends, this one "
            f"{len(name)}; choose another"
        )
    if entry is None:
        return found
    if not isinstance(entry, Mapping):
        return [*found, f"{show(entry)} is no mapping; write {{KEY: VALUE, ...}}, or {{}} to change nothing"]
    return [*found, *(line for key, value in entry.items() for line in _wrong_value(key, value, model))]


def _wrong_value(key: Any, value: Any, model: Model) -> list[str]:
    info = find_leaf(model, str(key))
    if info is None and key in children(model):
        return [f"{key}: is a section; write its keys with their dots, as {key}.KEY: VALUE"]
    if info is None:
        return [unknown(model, str(key))]
    if not is_tunable(info) and key not in _UNTUNABLE:
        near = nearest(key, [name for name, each in leaves(model) if is_tunable(each)])
        hint = f"did you mean {near}? " if near else ""
        allowed = f"variant, {BUDGET}, and keys of policy, ppo, risk, or trading other than costs"
        return [f"{key}: all arms share it; {hint}set {key} itself, or in an arm {allowed}"]
    try:
        held_value(key, value, model)
    except ValidationError:
        return [refused(key, value, info)]
    return []
