"""What every part of a started sweep needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sentio_rllib.sweep.account import Account
from sentio_rllib.sweep.config import SweepConfig
from sentio_rllib.sweep.prepare import Prepared


@dataclass(frozen=True)
class Context:
    """A sweep that has been started: its folder, what was asked for, its bars and folds, its account in the ledger."""

    folder: Path
    config: SweepConfig
    prepared: Prepared
    account: Account
