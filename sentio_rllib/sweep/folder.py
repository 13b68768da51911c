"""The folder of a sweep: who may start in it, and what must be the same for a sweep to go on.

Knows no Ray, so that a used name or changed data is told before Ray starts.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sentio_rllib import __version__
from sentio_rllib.config.loading import load_config
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import SweepError
from sentio_rllib.search.durable import write_json, write_text

if TYPE_CHECKING:  # it stands on torch, and a used name is told without
    from sentio_rllib.search.prepare import Prepared

CONFIG = "config.yaml"
FINGERPRINT = "fingerprint.json"
EXTENDABLE = ("search.trials", "search.minutes", "search.max_concurrent", "resources.cpu", "resources.gpu")
"""Keys that may differ when a sweep is resumed."""


def claim_folder(config: SweepConfig, *, resume: bool) -> Path:
    """Return the sweep's folder, free or checked to be the one to resume; nothing is written.

    Raises
    ------
    SweepError
        If the name is used and `resume` is off, there is nothing to resume, or keys have changed.
    """
    folder = config.folder
    used = (folder / CONFIG).is_file()
    if used and not resume:
        raise SweepError(f"{folder}: the name is used; pass --resume to go on with it, or another --name")
    if resume and not used:
        raise SweepError(f"{folder}: there is no sweep to resume; start it without --resume")
    if used:
        before = load_config(folder / CONFIG)
        changed = [key for key in config.changed_keys(before) if key not in EXTENDABLE]
        if changed:
            raise SweepError(
                *(
                    f"{key}: was {before.value(key)!r} when the sweep was started, is {config.value(key)!r}; put it "
                    "back or choose another --name"
                    for key in changed
                )
            )
    return folder


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other starts of the same sweep out; the kernel lets go where this process is killed.

    Raises
    ------
    SweepError
        If another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise SweepError(f"{folder}: the sweep is running; wait for its end, or end it with Ctrl-C") from error
    try:
        yield
    finally:
        os.close(descriptor)


def fingerprint(prepared: Prepared) -> dict[str, str]:
    """Return what must be the same for a sweep to be resumed or scored again, the configuration aside."""
    features = prepared.tape.feature_set
    return {
        "data": prepared.bars.fingerprint,
        "code": __version__,
        "features": f"{features.version}:{features.digest}",
    }


def check_fingerprint(folder: Path, prepared: Prepared) -> None:
    """Refuse to go on with other bars, code or features than the sweep was started with.

    Raises
    ------
    SweepError
        Names what has changed, or the file where it cannot be told.
    """
    path = folder / FINGERPRINT
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SweepError(f"{path}: cannot be read ({error}), so changes cannot be told; start a new sweep") from error
    now = fingerprint(prepared)
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        raise SweepError(
            *(
                f"{key}: changed since the sweep was started ({str(before.get(key))[:24]} then, {now[key][:24]} now); "
                "put it back or start a new sweep"
                for key in changed
            )
        )


def record(folder: Path, config: SweepConfig, prepared: Prepared) -> str:
    """Write the configuration and the fingerprint of a sweep that starts or goes on, and return its identity.

    The identity is drawn when a sweep starts and kept when it goes on: a sweep of the same name that is run again
    in another or an emptied folder is another one, and is counted as such.
    """
    path = folder / FINGERPRINT
    before = json.loads(path.read_text()) if path.is_file() else {}
    identity: str = before.get("sweep") or uuid.uuid4().hex
    write_json(path, fingerprint(prepared) | {"config": config.fingerprint(), "sweep": identity})
    write_text(folder / CONFIG, config.to_yaml())
    return identity
