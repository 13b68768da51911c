"""From a YAML file and `--set` options to plain values, with a line for every mistake on the way.

YAML 1.2 by ruamel (safe, pure): ``3e-4`` is a number, ``16:00`` text, ``no`` text; duplicate keys and foreign
tags such as ``!!python`` are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from sentio_rllib.config.keys import Model, children, leaves, section_of, show, unknown
from sentio_rllib.errors import ConfigError

_ENTRIES = (("search", "space"), ("search", "arms"))
"""Mappings with keys of their own, which may hold dots."""
TEXTS = ("name", "storage_path", "data.path", "data.symbol", "data.tz", "data.calendar", "evidence.ledger")
"""Keys that hold any text, of which ``--set`` takes the value as it stands."""
_NULLS = ("null", "Null", "NULL", "~")


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a file holds; an empty file is an empty mapping.

    Raises
    ------
    ConfigError
        The file is missing, no text, no YAML, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; pass the path of a configuration, as configs/quickstart.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}; pass a YAML file in UTF-8") from None
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds {show(values)}; write a mapping of sections, as `ppo: {{gamma: 0.98}}`")
    return values


def parse_yaml(text: str) -> Any:
    """Return the value of one YAML document.

    Raises
    ------
    ValueError
        The text is not YAML, or uses a tag or a duplicate key; the message is one line.
    """
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise ValueError(f"{where}{problem}; mend the YAML there") from None
    except (YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"is not YAML 1.2: {reason}") from None


def write_yaml(values: Mapping[str, Any]) -> str:
    """Return a mapping as YAML in its own order, readable by :func:`parse_yaml`."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel types it as None
    stream = StringIO()
    yaml.dump(dict(values), stream)
    return stream.getvalue()


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Set ``key=value`` pairs in `raw`, in their order; return a line for each that cannot be.

    The value is YAML; of a key that holds text it is taken as it stands, since a name may look like a date and a path
    may hold ``#`` or ``: ``, unless it is in quotes or YAML's null. Under ``search.space`` the rest of the key is one
    searched key, under ``search.arms`` one arm's name; ``null`` takes it out.
    """
    mistakes = []
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            mistakes.append(f"--set {override}: is no key=value; write for instance --set ppo.gamma=0.99")
            continue
        try:
            value = text.strip() if key in TEXTS and _is_plain(text.strip()) else parse_yaml(text)
        except ValueError as error:
            mistakes.append(f"--set {override}: {error}")
            continue
        if value is None and text.strip() not in ("", *_NULLS):
            mistakes.append(f"--set {override}: is a comment in YAML, so nothing is set; write the value in quotes")
            continue
        reason = _put(raw, key, value)
        if reason:
            mistakes.append(f"--set {override}: {reason}")
    return mistakes


def _is_plain(text: str) -> bool:
    return bool(text) and text not in _NULLS and text[0] not in "\"'"


def _put(raw: dict[str, Any], key: str, value: Any) -> str | None:
    """Set one dotted key; return why it cannot be, or None."""
    parts = key.split(".")
    entry = tuple(parts[:2]) in _ENTRIES and len(parts) > 2
    if entry:
        parts = [*parts[:2], ".".join(parts[2:])]
    for depth, part in enumerate(parts[:-1], start=1):
        inner = raw.get(part)
        if inner is None:
            inner = raw[part] = {}
        if not isinstance(inner, dict):
            return f"{'.'.join(parts[:depth])} holds {show(inner)}, which has no keys below it"
        raw = inner
    if value is None and entry:
        raw.pop(parts[-1], None)
    else:
        raw[parts[-1]] = value
    return None


@dataclass
class Sorted:
    """What a mapping holds, sorted by whether it has a place in the configuration.

    Attributes
    ----------
    values
        The keys that exist, under the names that a file uses (``lambda``); empty sections are mappings.
    mistakes
        A line for everything else.
    wrong
        The dotted keys that those lines are about.
    """

    values: dict[str, Any] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def sort_keys(raw: Mapping[Any, Any], model: Model) -> Sorted:
    """Tell known keys of `raw` from unknown ones, and sections from what should be one."""
    result = Sorted()
    result.values = _known(raw, model, "", model, result)
    return result


def _known(raw: Mapping[Any, Any], section: Model, prefix: str, root: Model, result: Sorted) -> dict[str, Any]:
    fields = children(section)
    alias = {name: info.alias for name, info in section.model_fields.items() if info.alias}
    found: dict[str, Any] = {}
    for written, value in raw.items():
        name = alias.get(written, written) if isinstance(written, str) else show(written)
        key, info = f"{prefix}{name}", fields.get(name)
        inner = section_of(info) if info is not None else None
        if info is None:
            result.mistakes.append(unknown(root, key))
            result.wrong.append(key)
        elif inner is None:
            found[name] = value
        elif value is None or isinstance(value, Mapping):
            found[name] = _known(value or {}, inner, f"{key}.", root, result)
        else:
            result.mistakes.append(f"{key}: {show(value)} is not allowed; it is a section, write its keys below it")
            result.wrong += [f"{key}.{each}" for each, _ in leaves(inner)]
    return found
