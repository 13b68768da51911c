"""What fills a ledger in tests."""

from __future__ import annotations

from typing import Any

from sentio_rllib.evidence.ledger import Ledger
from sentio_rllib.evidence.session_marks import SessionMark


def hashes(first: int, stop: int) -> list[SessionMark]:
    """Made-up marks of the sessions first .. stop - 1, no two of which gain the same."""
    return [SessionMark(f"{number:032x}", f"day {number}", 0.01 * number) for number in range(first, stop)]


def record(ledger: Ledger, uid: str, trial_id: str, **changes: Any) -> None:
    values: dict[str, Any] = {
        "config": "c0",
        "members": 6,
        "evaluations": 1,
        "env_steps": 100,
        "state": "running",
        "sharpe": 0.1,
        "timing_sharpe": 0.05,
    }
    ledger.record_trial(uid, trial_id, **values | changes)


def register(
    ledger: Ledger, uid: str, development: list[SessionMark], holdout: list[SessionMark] | None = None
) -> None:
    ledger.register_sweep(uid, f"sweep-{uid}", "1.0", development, holdout or [])
