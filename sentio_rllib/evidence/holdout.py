"""The holdout: opened once, for the champion alone, after it was written down that it is opened.

The opening is keyed by the champion (parameters, steps, seeds). Training and evaluation repeat exactly, so a sweep
that was killed in between opens nothing anew. A search that goes on after its holdout was opened and comes to another
champion needs ``--reopen-holdout``, since it may have been steered by what was seen. A holdout that any trial in the
ledger was trained or scored on before is told as seen, and supports nothing; what later sweeps do to its sessions
changes nothing any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sentio_rllib.evidence.context import Context
from sentio_rllib.evidence.ledger import HoldoutOpenedError
from sentio_rllib.evidence.refit import Refitted, Weights, champion_key
from sentio_rllib.evidence.selecting import Selected
from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.actor_critic import TapeReader
from sentio_rllib.policy.deciding import ensemble_policy, with_weights
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.search.prepare import Prepared, tape_of
from sentio_rllib.validation.evaluation import BlockEvaluator, Record


@dataclass(frozen=True)
class Opened:
    """What came of the holdout.

    Attributes
    ----------
    told
        ``opened, why, sound, openings, reopened, seen`` and its range; None where there is no holdout.
    given_up
        Whether the champion's training was, so that the sweep has not come to its end.
    record
        Of the champion, the mean of its members' distributions; None where the holdout stayed shut.
    tape
        The whole tape; None likewise.
    """

    told: dict[str, Any] | None
    given_up: bool = False
    record: Record | None = None
    tape: Tape | None = None


def open_holdout(sweep: Context, selected: Selected, refitted: Refitted | None, *, reopen: bool) -> Opened:
    """Evaluate the champion on the holdout, after it was written down that it is opened.

    Parameters
    ----------
    sweep, selected
        The opening goes to the sweep's tally before anything is scored.
    refitted
        The champion's networks; None where the holdout stays shut.
    reopen
        Whether sessions that were opened before may be opened again.
    """
    config, prepared, tally = sweep.config, sweep.prepared, sweep.tally
    if refitted is None:
        return Opened({"opened": False, "why": selected.shut} if selected.shut else None)
    told = _range(prepared) | {"openings": len(tally.ledger.openings_on(tally.holdout)), "reopened": False}
    told |= {"opened": False, "sound": False, "seen": tally.ledger.trials_that_saw(tally.holdout)}
    if refitted.weights is None:
        return Opened(told | {"why": refitted.why}, given_up=refitted.given_up)
    settings = refitted.settings
    try:
        opening = tally.open(champion_key(refitted.trial, settings), reopen=reopen)
    except HoldoutOpenedError as error:
        return Opened(told | {"why": str(error)})
    told |= {"opened": True, "openings": opening.number, "reopened": opening.reopened, "seen": opening.seen}
    told |= {"sound": not opening.reopened and not opening.seen, "why": _doubts(opening.number, opening.seen)}
    tape = tape_of(config, prepared.bars)
    return Opened(told, record=evaluate_ensemble(refitted.weights, settings, tape, prepared), tape=tape)


def evaluate_ensemble(weights: Weights, settings: TrialSettings, tape: Tape, prepared: Prepared) -> Record:
    """Walk the holdout's blocks with the mean of the members' distributions, greedily."""
    network = with_weights(settings.policy, settings.members, weights)
    dtype = network.dtype
    tensors = tape.tensors()
    evaluator = BlockEvaluator(
        tensors, settings.rules, [prepared.splits.holdout_blocks], settings.members[:1], dtype=dtype
    )
    reader = TapeReader(tensors.features.to(dtype), settings.policy)
    with torch.no_grad():
        return evaluator.evaluate(ensemble_policy(network, reader, evaluator.bars())).greedy[0]


def _doubts(openings: int, seen: int) -> str:
    """Say why the holdout's word does not count; empty where it does."""
    doubts = []
    if openings > 1:
        doubts.append(f"its sessions have been opened {openings} times; only the first opening is out of sample")
    if seen:
        doubts.append(f"{seen} earlier trials were trained or scored on some of its sessions")
    return "; ".join(doubts)


def _range(prepared: Prepared) -> dict[str, Any]:
    blocks, bars = prepared.splits.holdout_blocks, prepared.bars
    sessions = np.concatenate([np.unique(bars.sessions.session[each.start : each.stop]) for each in blocks])
    ends = bars.timestamp[[blocks[0].start, blocks[-1].stop - 1]].astype("datetime64[ns]").astype("datetime64[m]")
    first, last = (f"{stamp}Z" for stamp in ends)
    return {"first": first, "last": last, "bars": sum(map(len, blocks)), "sessions": len(np.unique(sessions))}
