"""The holdout: opened once, for the champion alone, after it was written down that it is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sentio_rllib.errors import NonFiniteError
from sentio_rllib.market.tape import Tape, build_tape
from sentio_rllib.policy.deciding import ensemble_policy, with_weights
from sentio_rllib.policy.variants import TapeReader
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.sweep.context import Context
from sentio_rllib.sweep.ledger import HoldoutOpenedError
from sentio_rllib.sweep.prepare import Prepared
from sentio_rllib.sweep.refit import Weights, champion_key, refit, refit_settings
from sentio_rllib.sweep.selection import Outcome
from sentio_rllib.validation.evaluation import BlockEvaluator, Record

REFIT = "refit"
"""Folder of the champion's networks."""


@dataclass(frozen=True)
class Opened:
    """What came of the holdout.

    Attributes
    ----------
    told
        ``opened, why, sound, openings, reopened, seen`` and its range.
    given_up
        Whether the champion's training was.
    record
        Of the champion, the mean of its members' distributions; None where the holdout stayed shut.
    tape
        The whole tape; None likewise.
    """

    told: dict[str, Any]
    given_up: bool = False
    record: Record | None = None
    tape: Tape | None = None


def open_holdout(sweep: Context, best: Outcome, *, reopen: bool, go_on: Callable[[], bool]) -> Opened | None:
    """Train the champion on everything but the holdout and evaluate it there; None where there is no holdout.

    Parameters
    ----------
    sweep
        The champion's networks go below its folder, and the opening to its account before anything is scored.
    best
        The selected trial.
    reopen
        Whether sessions that were opened before may be opened again.
    go_on
        False ends the training early; the holdout then stays shut.
    """
    config, prepared, account = sweep.config, sweep.prepared, sweep.account
    if not prepared.splits.holdout_blocks:
        return None
    settings = refit_settings(config, prepared, best.params)
    told = _range(prepared) | {"openings": len(account.ledger.openings_on(account.holdout)), "reopened": False}
    told |= {"opened": False, "sound": False, "seen": account.ledger.trials_that_saw(account.holdout)}
    try:
        weights = refit(sweep.folder / REFIT, best, settings, prepared, go_on=go_on)
    except NonFiniteError as error:
        return Opened(told | {"why": f"the champion's training was not finite: {error}"})
    if weights is None:
        return Opened(told | {"why": "the champion's training was interrupted; --resume goes on"}, given_up=True)
    try:
        opening = account.open(champion_key(best, settings), reopen=reopen)
    except HoldoutOpenedError as error:
        return Opened(told | {"why": str(error)})
    told |= {"opened": True, "openings": opening.number, "reopened": opening.reopened, "seen": opening.seen}
    told |= {"sound": not opening.reopened and not opening.seen, "why": _doubts(opening.number, opening.seen)}
    tape = build_tape(prepared.bars, reference_volatility=config.features.reference_volatility)
    return Opened(told, record=evaluate_ensemble(weights, settings, tape, prepared), tape=tape)


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
