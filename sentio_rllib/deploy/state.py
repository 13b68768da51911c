"""The state of a live policy outside of it: checked before anything takes it, and kept in a file."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sentio_rllib.deploy.feed import VALUES, Bar, check_bar
from sentio_rllib.errors import BarsError, CheckpointError
from sentio_rllib.market.sessions import assign_sessions

State = Mapping[str, Any]
_UNREADABLE = (OSError, ValueError, EOFError, TypeError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What zipfile and numpy raise for damaged files, by what is damaged."""


def check_state(state: State, example: State, made_for: State, most_bars: int) -> None:
    """Refuse what no policy's ``get_state`` returned, or another's.

    Parameters
    ----------
    state
        To be checked.
    example
        A state of the policy that is to take it; it shows names, kinds and shapes.
    made_for
        The part of `example` that has to be equal.
    most_bars
        Bars that a state holds at most.

    Raises
    ------
    CheckpointError
        One line for every mistake of the first kind found: parts missing, another policy's, or out of shape.
    """
    absent = sorted(set(example) - set(state))
    if absent:
        raise CheckpointError(f"state: {', '.join(absent)} missing; pass what get_state returned, whole")
    lines = [
        f"state: {name} is {state[name]}, this policy has {wanted}; begin with warm_up instead"
        for name, wanted in made_for.items()
        if np.ndim(state[name]) or state[name] != wanted
    ]
    if lines:
        raise CheckpointError(*lines)
    lines = [_mistake(name, state[name], value) for name, value in example.items() if name not in made_for]
    lines = [line for line in lines if line] or _contradictions(state, most_bars)
    if lines:
        raise CheckpointError(*(f"state: {line}; it was altered: go on from another, or warm up" for line in lines))


def _mistake(name: str, value: Any, example: Any) -> str:
    """What makes `value` another kind of thing than `example`; empty where nothing does."""
    value, example = np.asarray(value), np.asarray(example)
    kinds = "iu" if example.dtype.kind == "i" else "fiu"
    if value.dtype.kind not in kinds or value.ndim != example.ndim:
        return f"{name} holds {value.dtype} of {value.ndim} dimensions, not {example.dtype} of {example.ndim}"
    if not np.isfinite(value).all():
        return f"{name} is not finite"
    if name not in ("stamps", "bars") and value.shape != example.shape:
        return f"{name} is of shape {value.shape}, not {example.shape}"
    return ""


def _contradictions(state: State, most_bars: int) -> list[str]:
    stamps, bars = np.asarray(state["stamps"]), np.asarray(state["bars"], dtype=np.float64)
    if bars.shape != (stamps.size, len(VALUES)) or stamps.size > most_bars:
        return [f"bars is of shape {bars.shape} with {stamps.size} stamps, of which there are at most {most_bars}"]
    if np.any(stamps[1:] <= stamps[:-1]):
        return ["its stamps do not ascend"]
    try:
        for stamp, values in zip(stamps.tolist(), bars.tolist(), strict=True):
            check_bar(Bar(stamp, *values))
        if stamps.size:
            assign_sessions(stamps.astype(np.int64), state["calendar"])
    except BarsError as error:
        return list(error.lines)
    lines = []
    if state["since_start"] >= 0 and stamps.size < most_bars:
        lines.append(f"since_start is {state['since_start']}, yet only {stamps.size} of {most_bars} bars are held")
    if not 0 <= state["account.reported"] <= state["account.bar"]:
        lines.append(f"account.reported is {state['account.reported']}, account.bar {state['account.bar']}")
    positive = [f"account.{name}" for name in ("marks", "settled", "session_equity", "close")]
    if state["account.opened"] and not all(np.all(np.asarray(state[name]) > 0.0) for name in positive):
        lines.append(f"one of {', '.join(positive)} is not positive")
    return lines


def write_state(path: Path, state: State) -> Path:
    """Write `state` as ``.npz`` (numbers, words and arrays, no pickle), whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **state)
        file.flush()
        os.fsync(file.fileno())
    return temporary.replace(path)


def read_state(path: Path) -> dict[str, Any]:
    """Return what :func:`write_state` wrote, unchecked.

    Raises
    ------
    CheckpointError
        The file is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            return {name: value if value.ndim else value.item() for name, value in archive.items()}
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: no state of a policy can be read there ({error})") from error
