"""A sweep from its configuration to its summary."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import SweepError
from sentio_rllib.evidence.claims import judge
from sentio_rllib.evidence.context import Context
from sentio_rllib.evidence.holdout import open_holdout
from sentio_rllib.evidence.ledger import Ledger
from sentio_rllib.evidence.refit import refit
from sentio_rllib.evidence.selecting import select
from sentio_rllib.evidence.tally import open_tally
from sentio_rllib.search.cluster import check_resources, cluster
from sentio_rllib.search.interruption import Interruption
from sentio_rllib.search.prepare import Prepared, members_of, prepare, probe
from sentio_rllib.search.trials import FIRST_RUN, next_run
from sentio_rllib.search.tuning import search
from sentio_rllib.sweep.folder import check_fingerprint, claim_folder, hold, record
from sentio_rllib.sweep.outcome import write_outcome, write_trials


def run_sweep(
    config: SweepConfig, *, resume: bool = False, address: str | None = None, reopen_holdout: bool = False
) -> dict[str, Any]:
    """Run a sweep to its end and return its summary.

    Parameters
    ----------
    config
        What to run.
    resume
        Go on with a sweep that was cut off, or extend a finished one.
    address
        Of a running Ray cluster; None uses the one of `RAY_ADDRESS` or of this process, or starts a local one.
    reopen_holdout
        Open the holdout although some of its sessions were opened before; it then supports nothing any more.

    Raises
    ------
    SentioError
        If the data, the folds, the name, the ledger, a leak or the cluster do not allow it; nothing was started then.
    """
    started = time.perf_counter()
    folder = claim_folder(config, resume=resume)
    with ExitStack() as stack:
        if resume:
            stack.enter_context(hold(folder))
        prepared = _prepare(config, folder, resume=resume)
        probe(config, prepared)
        sweep = _start(stack, config, folder, prepared, resume=resume, address=address)
        searched = search(
            folder, config, prepared, count=sweep.tally.count, interruption=sweep.interruption, started=started
        )
        write_trials(sweep, searched.outcomes)
        selected = select(sweep, searched)
        refitted = refit(sweep, selected)
        opened = open_holdout(sweep, selected, refitted, reopen=reopen_holdout)
        found = judge(sweep, selected, opened)
        return write_outcome(sweep, searched, selected, found)


def _prepare(config: SweepConfig, folder: Path, *, resume: bool) -> Prepared:
    """Prepare what trials run on, the same as before where the sweep goes on, and tell what was found in it."""
    prepared = prepare(config)
    if resume:
        check_fingerprint(folder, prepared)
    for note in prepared.notes:
        print(note)
    return prepared


def _start(
    stack: ExitStack, config: SweepConfig, folder: Path, prepared: Prepared, *, resume: bool, address: str | None
) -> Context:
    """Start Ray, take the folder and open the tally; what is not to be started is refused before anything is written.

    `stack` keeps signals, Ray and the folder until the sweep has ended.
    """
    interruption = stack.enter_context(Interruption())
    dashboard = stack.enter_context(cluster(address))
    interruption.listen()  # ray.init() takes the termination signal for itself
    check_resources(config)
    ledger = Ledger(config.evidence.ledger)
    if not resume:
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(hold(folder))
    uid = record(folder, config, prepared)
    if resume and not ledger.knows(uid) and next_run(folder) != FIRST_RUN:
        raise SweepError(
            f"{ledger.path}: does not know the sweep of {folder}, so what was tried and opened is lost to it; put "
            "the ledger back that the sweep was started with, or start a new sweep"
        )
    tally = open_tally(ledger, uid, config.name, len(members_of(config, prepared.splits)), prepared)
    if dashboard:
        print(f"dashboard: http://{dashboard} (token: ray get-auth-token)")
    return Context(folder, config, prepared, tally, interruption)
