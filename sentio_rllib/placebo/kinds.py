"""The kinds of markets that a placebo run puts a sweep on."""

from __future__ import annotations

from typing import Literal, get_args

from sentio_rllib.errors import ConfigError

Kind = Literal["bootstrap", "random-walk", "planted"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NULL_KINDS: tuple[Kind, ...] = ("bootstrap", "random-walk")
"""Kinds without an edge that pays its fees."""

MEAN_BLOCK = 30
"""Mean block of the bootstrap in bars, where none is asked for."""


def parse_kinds(text: str) -> tuple[Kind, ...]:
    """Return the kinds named in `text`, separated by commas, in the order of :data:`KINDS`.

    Raises
    ------
    ConfigError
        A name is unknown, or there is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in KINDS]
    if unknown or not names:
        raise ConfigError(f"--kinds {', '.join(unknown) or text!r}: allowed are {', '.join(KINDS)}, joined by commas")
    return tuple(kind for kind in KINDS if kind in names)
