"""What every step of a started sweep needs, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.evidence.tally import Tally
from sentio_rllib.search.interruption import Interruption
from sentio_rllib.search.prepare import Prepared


@dataclass(frozen=True)
class Context:
    """A sweep that has been started.

    Attributes
    ----------
    folder
        Where it writes.
    config
        What was asked for.
    prepared
        Bars, folds and tape.
    tally
        What it has to its account in the ledger.
    interruption
        Whether the user has asked for an end.
    """

    folder: Path
    config: SweepConfig
    prepared: Prepared
    tally: Tally
    interruption: Interruption

    def go_on(self) -> bool:
        """Whether nobody has asked for an end."""
        return not self.interruption.seen
