"""What it takes to make the sweep again: data, versions, command and configuration."""

from __future__ import annotations

import platform
import shlex
from importlib import metadata

from sentio_rllib.report.blocks import Block, Details, Note, ReportSection, Table
from sentio_rllib.report.formats import NONE, count
from sentio_rllib.report.sweep_files import CONFIG, Sweep

_LIBRARIES = ("sentio_rllib", "ray", "torch", "optuna", "gymnasium", "numpy", "pandas", "scipy", "arch", "matplotlib")


def provenance_section(sweep: Sweep) -> ReportSection:
    """Return where the figures come from and how to make them again."""
    name = str(sweep.get("name") or sweep.folder.name)
    config = shlex.quote(str(sweep.folder / CONFIG))
    rows = [
        ("data fingerprint", str(sweep.get("data", "fingerprint") or NONE)),
        ("bars", count(sweep.get("data", "bars"))),
        ("range", f"{sweep.get('data', 'first') or NONE} to {sweep.get('data', 'last') or NONE}"),
        ("code version", str(sweep.fingerprint.get("code", NONE))),
        ("features", str(sweep.fingerprint.get("features", NONE))),
        ("configuration", str(sweep.fingerprint.get("config", NONE))),
        ("make it again", f"python -m sentio_rllib.sweep {config} --name {shlex.quote(name + '-again')}"),
        ("libraries where this report was written", _libraries()),
    ]
    blocks: list[Block] = [Table(("", "value"), rows, words=frozenset({1}))]
    blocks += [Note(f"{line}.", "missing") for line in sweep.missing]
    if sweep.config is not None:
        blocks.append(Details(f"{CONFIG}, every key resolved", sweep.config))
    return ReportSection("provenance", "Reproducibility", blocks)


def _libraries() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue  # a report can be written without what trained the sweep
    return ", ".join(found)
