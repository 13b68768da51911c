"""Holdouts are read past no ledger: a backtest on sealed sessions is an opening, and is asked for and recorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from sentio_rllib.deploy.bundle import Bundle
from sentio_rllib.errors import SweepError
from sentio_rllib.evidence.bars_used import sealed_sessions
from sentio_rllib.evidence.ledger import Ledger
from sentio_rllib.evidence.session_marks import SessionMark, session_marks
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.policy.checkpoint import MANIFEST


def open_sealed(
    folder: Path, bundle: Bundle, bars: Bars, scored: int, *, allowed: bool, ledger: Path | None = None
) -> str | None:
    """Record that sessions which the sweep of a bundle holds out are looked at, or refuse; say what was recorded.

    The champion itself was scored there by its sweep, if that opened the holdout: to see it again is no opening.

    Parameters
    ----------
    folder, bundle
        Of the model that walks.
    bars, scored
        What it walks, and how many bars at the beginning only warm up.
    allowed
        Whether the user asked for the opening.
    ledger
        Where it is recorded; None: the ledger of the sweep.

    Raises
    ------
    SweepError
        Sessions are sealed and the opening was not asked for, or the ledger cannot be used.
    """
    held = sealed_sessions(bundle.metadata, bars, scored)
    path = ledger or Path(bundle.metadata.get("ledger") or "")
    sealed = [*([] if _opened_by_its_sweep(bundle) else held), *_of_others(bundle, path, bars, scored, held)]
    if not sealed:
        return None
    told = f"{len(sealed)} of the sessions, {sealed[0].date} .. {sealed[-1].date}, are held out by a sweep"
    if not allowed:
        raise SweepError(
            f"{bundle.name}: {told} and sealed: who has seen them can choose by them, and they show nothing any more. "
            "Backtest other bars, or pass --open-holdout, which is recorded in the ledger"
        )
    uid = bundle.metadata["sweep_id"]
    if not path.is_file() or not Ledger(path).knows(uid):
        raise SweepError(
            f"{path}: there is no ledger that knows the sweep of {bundle.name}, so the opening cannot be recorded; put "
            "it back, or name it with --ledger"
        )
    opening = Ledger(path).open_holdout(uid, _key(folder, sealed), sealed, reopen=True)
    return f"caution: {told}; opening {opening.number} of these sessions was recorded in {path}"


def _of_others(bundle: Bundle, path: Path, bars: Bars, scored: int, held: Sequence[SessionMark]) -> list[SessionMark]:
    """Sessions that other sweeps in the ledger hold out."""
    if not path.is_file() or scored >= bars.n:
        return []
    own, walked = {mark.date for mark in held}, session_marks(bars)[int(bars.sessions.session[scored]) :]
    others = Ledger(path).held_out_by_others(str(bundle.metadata.get("sweep_id")), walked)
    return [mark for mark in walked if mark.hash in others and mark.date not in own]


def _opened_by_its_sweep(bundle: Bundle) -> bool:
    holdout = bundle.metadata.get("holdout") or {}
    return bundle.metadata.get("combine") == "refit" and bool(holdout.get("opened"))


def _key(folder: Path, sealed: list[SessionMark]) -> str:
    """What is scored: these very networks on these very sessions."""
    manifest = json.loads((folder / MANIFEST).read_text())
    told = json.dumps([manifest, [mark.hash for mark in sealed]], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]
