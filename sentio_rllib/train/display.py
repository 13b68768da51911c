"""Live progress of a single run: a table that stays in place on a terminal, else a line for each evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sentio_rllib.search.progress import clock

MEASURED_ON = (
    "Projected, drawdown: of the greedy policy on validation, at the last evaluation; reward: 1.0 is the target pace"
)

_FIGURES: tuple[tuple[str, str, str], ...] = (
    ("episodes", "episodes", ",d"),
    ("steps", "env_steps", ",d"),
    ("reward", "reward", ".2f"),
    ("trades/episode", "trades_per_episode", ".2f"),
    ("drawdown", "drawdown", ".1%"),
    ("policy loss", "policy_loss", ".1e"),
    ("value loss", "value_loss", ".3f"),
    ("entropy", "entropy", ".3f"),
    ("learning rate", "learning_rate", ".2g"),
    ("steps/s", "env_steps_per_s", ",.0f"),
)


def progress_line(figures: Mapping[str, Any]) -> str:
    """Return one line of what is known; the projection last."""
    shown = [f"{label} {figures[key]:{form}}" for label, key, form in _FIGURES if key in figures]
    return "  ".join([clock(figures["seconds"]), *shown, *([figures["projected"]] if "projected" in figures else [])])


class Progress:
    """Shows figures as they come; a context inside which the terminal is its own.

    Parameters
    ----------
    console
        Where to.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._live = Live(console=self.console, refresh_per_second=4) if self.console.is_terminal else None
        self._figures: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        self.told(MEASURED_ON)
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def told(self, line: str) -> None:
        """Print a line that stays; lines are never wrapped, so that they can be searched."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def iteration(self, figures: Mapping[str, Any]) -> None:
        """Show the figures of an iteration, where there is a terminal."""
        self._figures |= figures
        if self._live is not None:
            self._live.update(_table(self._figures))

    def evaluation(self, figures: Mapping[str, Any]) -> None:
        """Print a line for an evaluation."""
        self._figures |= figures
        self.told(progress_line(self._figures))
        self.iteration({})


def _table(figures: Mapping[str, Any]) -> Table:
    table = Table(
        title=f"{clock(figures['seconds'])}  {figures.get('projected', 'Projected: at the first evaluation')}"
    )
    known = [(label, f"{figures[key]:{form}}") for label, key, form in _FIGURES if key in figures]
    for label, _ in known:
        table.add_column(label, justify="right")
    table.add_row(*(shown for _, shown in known))
    return table
