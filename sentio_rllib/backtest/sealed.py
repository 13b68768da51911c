"""Holdouts are read past no ledger: a backtest on sealed sessions is an opening, and is asked for and recorded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from sentio_rllib import __version__
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
    sealed = sealed_sessions(bundle.metadata, _walked(bars, scored))
    if not sealed or _opened_by_its_sweep(bundle):
        return None
    told = f"{len(sealed)} of the sessions, {sealed[0].date} .. {sealed[-1].date}, are the holdout of its sweep"
    if not allowed:
        raise SweepError(
            f"{bundle.name}: {told}, which is sealed: who has seen it can choose by it, and it shows nothing any more. "
            "Backtest other bars, or pass --open-holdout, which is recorded in the ledger"
        )
    path = ledger or Path(bundle.metadata["ledger"])
    uid, kept = bundle.metadata["sweep_id"], Ledger(path)
    if not kept.knows(uid):
        held = [SessionMark(*each) for each in bundle.metadata["bars_used"]["held_out"]["sessions"]]
        seen = [SessionMark(*each) for each in bundle.metadata["bars_used"]["trained"]["sessions"]]
        held_hashes = {mark.hash for mark in held}
        kept.register_sweep(
            uid,
            str(bundle.metadata.get("sweep") or bundle.name),
            __version__,
            [mark for mark in seen if mark.hash not in held_hashes],
            held,
            symbol=(bundle.metadata.get("data") or {}).get("symbol"),
        )
    opening = kept.open_holdout(uid, _key(folder, sealed), sealed, reopen=True)
    return f"caution: {told}; opening {opening.number} of these sessions was recorded in {path}"


def _walked(bars: Bars, scored: int) -> list[SessionMark]:
    """Sessions of the bars behind those that warm up, whole ones told by all their bars."""
    session = bars.sessions.session
    return list(session_marks(bars)[int(session[scored]) :]) if scored < bars.n else []


def _opened_by_its_sweep(bundle: Bundle) -> bool:
    holdout = bundle.metadata.get("holdout") or {}
    return bundle.metadata.get("combine") == "refit" and bool(holdout.get("opened"))


def _key(folder: Path, sealed: list[SessionMark]) -> str:
    """What is scored: these very networks on these very sessions."""
    manifest = json.loads((folder / MANIFEST).read_text())
    told = json.dumps([manifest, [mark.hash for mark in sealed]], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]
