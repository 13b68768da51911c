"""Small files of a sweep: replaced whole, or appended to line by line, and on disk when a call returns."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EVALUATIONS = "evaluations.jsonl"
"""In a trial's folder: what it reported."""

FAULTS = "faults.jsonl"
"""In a trial's folder: what broke it, and whether it was restarted."""


def write_text(path: Path, content: str) -> None:
    """Replace `path` by `content` in one step; a reader sees the old or the new file."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace `path` by `content` as :func:`write_text` does; NaN and infinities are refused."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one line of JSON, making the folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows that :func:`append_row` wrote, none where there is no file; a torn line is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # a kill can tear a line; what it told is repeated on resume
    return rows
