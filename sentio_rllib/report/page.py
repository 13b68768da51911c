"""The report of a sweep as one HTML file that loads nothing: no network, no script, no font."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from sentio_rllib.errors import SweepError
from sentio_rllib.report.blocks import ReportSection
from sentio_rllib.report.deflation_section import deflation_section
from sentio_rllib.report.folds_section import folds_section
from sentio_rllib.report.formats import NONE, count
from sentio_rllib.report.performance_section import equity_section, metrics_section, stress_section
from sentio_rllib.report.provenance_section import provenance_section
from sentio_rllib.report.search_section import (
    leaderboard_section,
    learning_section,
    parameters_section,
)
from sentio_rllib.report.sweep_files import Sweep, read_sweep
from sentio_rllib.report.verdict_section import verdict_section

REPORT = "report.html"

_SECTIONS = (
    verdict_section,
    equity_section,
    metrics_section,
    learning_section,
    leaderboard_section,
    parameters_section,
    folds_section,
    deflation_section,
    stress_section,
    provenance_section,
)
_STATES = ("completed", "pruned", "failed", "unfinished")


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the report of a sweep and return where.

    Parameters
    ----------
    folder
        Of the sweep, in whatever state it ended; what is missing is told in the report.
    output
        File to write, `report.html` in the folder where none is given; replaced in one step.

    Raises
    ------
    SweepError
        There is no sweep in the folder, or the file cannot be written.

    Notes
    -----
    The same files and libraries give the same bytes.
    """
    page = render(read_sweep(folder))
    path = folder / REPORT if output is None else output
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise SweepError(f"{path}: cannot be written ({error}); choose another --output") from error
    return path


def render(sweep: Sweep) -> str:
    """Return the page of a sweep."""
    loader = PackageLoader("sentio_rllib.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sections: list[ReportSection] = [section(sweep) for section in _SECTIONS]
    return environment.get_template(REPORT).render(
        name=str(sweep.get("name") or sweep.folder.name), facts=_facts(sweep), sections=sections
    )


def _facts(sweep: Sweep) -> list[tuple[str, str]]:
    """Return what the head of the page says of the sweep."""
    trials = sweep.get("trials") or {}
    counts = ", ".join(f"{trials[state]} {state}" for state in _STATES if trials.get(state))
    first, last = (str(sweep.get("data", end) or NONE)[:10] for end in ("first", "last"))
    asked = count(trials.get("asked"))
    return [
        ("state", str(sweep.get("state") or NONE)),
        ("variant", str(sweep.get("variant") or NONE)),
        ("market", str(sweep.get("data", "market") or NONE)),
        ("costs", str(sweep.get("data", "costs") or NONE)),
        ("calendar", f"{sweep.get('data', 'calendar') or NONE}, hours {sweep.get('data', 'hours') or NONE}"),
        ("period", f"{first} to {last}, {count(sweep.get('data', 'bars'))} bars"),
        ("trials", f"{count(trials.get('total'))} of {asked} asked for" + (f": {counts}" if counts else "")),
    ]
