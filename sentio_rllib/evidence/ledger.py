"""The ledger: every trial that was scored on a session's bars, and every opening of a holdout, of all sweeps.

What the best Sharpe ratio of a search is worth depends on how much was tried on the same data, by this sweep and by
others. A session is known again by its bars, or by its date and what it gained (`session_marks.py`), so neither an
appended day nor another file makes old data new. Nothing is taken back: rows are added, and counts only grow.

The ledger is one SQLite file with a rollback journal, which network file systems bear and a write-ahead log does not.
Processes wait for one another, and what a killed one left half done is undone by whoever comes next. Knows no Ray.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sentio_rllib.errors import SweepError
from sentio_rllib.evidence.ledger_tables import (
    GAINS_ON,
    HELD_OUT_ON,
    OPENINGS_ON,
    TRIALS_ON,
    UPSERT_TRIAL,
    ForeignFileError,
    add_opening,
    add_sessions,
    ask,
    now,
    prepare,
    recorded_opening,
    sweep_id,
)
from sentio_rllib.evidence.session_marks import SessionMark, near

Marks = Sequence[SessionMark]
ALIKE, MIN_COMMON = 0.8, 20
"""Correlation of session gains from which two markets move alike, and the common dates that it takes."""
BUSY_SECONDS = 30.0
"""How long an operation waits for another process before it gives up."""


class HoldoutOpenedError(SweepError):
    """Sessions of the holdout were looked at before, and a second look was not asked for."""


class AlikeMarket(NamedTuple):
    """A sweep on another market: its name and symbol, the correlation of session gains, and over how many dates."""

    sweep: str
    symbol: str
    correlation: float
    dates: int


@dataclass(frozen=True)
class LedgerTrial:
    """One trial of one sweep, as last recorded.

    Attributes
    ----------
    uid, sweep
        Identity and name of its sweep.
    trial_id
        Its label within the sweep.
    config
        Hash of its resolved parameters; equal for a rerun.
    members
        Networks trained, folds times seeds.
    evaluations
        Evaluations that selection could have taken.
    env_steps
        Environment steps trained.
    state
        As the sweep tells it; ``running`` until its end.
    sharpe, timing_sharpe
        Sharpe ratios per session of raw and of timing returns at the evaluation that selection would use; None where
        there was none.
    """

    uid: str
    sweep: str
    trial_id: str
    config: str
    members: int
    evaluations: int
    env_steps: int
    state: str
    sharpe: float | None
    timing_sharpe: float | None


class EarlierOpening(NamedTuple):
    """An opening of a holdout: by which sweep, when (ISO 8601, UTC), and how many of the sessions asked for it saw."""

    sweep: str
    opened_at: str
    shared: int


@dataclass(frozen=True)
class Opening:
    """The opening of a holdout.

    Attributes
    ----------
    number
        Openings of any of its sessions up to this one, itself included: 1 for an unseen holdout.
    reopened
        Whether any session had been looked at before.
    earlier
        The openings before it, oldest first, and all others of the same sweep: a sweep that has looked twice chooses.
    seen
        Trials that had been trained or scored on any of its sessions by then.
    """

    number: int
    reopened: bool
    earlier: tuple[EarlierOpening, ...]
    seen: int


class Ledger:
    """The ledger at `path`, made with its folders where there is none.

    Holds the path alone and connects anew for every operation, so it can be pickled and used in many processes at
    once. What a method wrote is on disk when it returns.

    Parameters
    ----------
    path
        The SQLite file.

    Raises
    ------
    SweepError
        If the file cannot be made or written (a write is tried), is no ledger, or is one of another schema version;
        later, by every method, if the file is gone, damaged, or locked for longer than ``BUSY_SECONDS``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            folder = self.path.is_dir()
        except OSError as error:
            raise SweepError(self._unusable(f"its folder: {error.strerror}")) from error
        if folder:
            raise SweepError(self._unusable("it is a folder"))
        with self._transaction("IMMEDIATE", create=True) as connection:
            try:
                prepare(connection)
            except ForeignFileError as error:
                raise SweepError(self._unusable(str(error))) from error

    def register_sweep(
        self, uid: str, name: str, code: str, development: Marks, holdout: Marks, *, symbol: str | None = None
    ) -> None:
        """Record a sweep and its sessions; again for the same `uid`, sessions are only added.

        Parameters
        ----------
        uid
            Identity of the sweep, kept when it is resumed.
        name, code
            Its name and the version of the code, as first registered.
        development, holdout
            Of the sessions that its trials are trained and scored on, and of those of its holdout, if it has one.
        symbol
            Of its market.
        """
        with self._transaction("IMMEDIATE") as connection:
            connection.execute(
                "INSERT INTO sweep (uid, name, code, registered_at, symbol) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (uid) DO NOTHING",
                (uid, name, code, now(), symbol),
            )
            sweep = sweep_id(connection, uid)
            for part, marks in (("development", development), ("holdout", holdout)):
                add_sessions(connection, marks)
                connection.executemany(
                    "INSERT OR IGNORE INTO sweep_session (session, part, sweep) "
                    "SELECT id, ?, ? FROM session WHERE hash = ?",
                    ((part, sweep, mark.hash) for mark in marks),
                )

    def knows(self, uid: str) -> bool:
        """Whether a sweep is registered."""
        with self._transaction("DEFERRED") as connection:
            return connection.execute("SELECT 1 FROM sweep WHERE uid = ?", (uid,)).fetchone() is not None

    def record_trial(
        self,
        uid: str,
        trial_id: str,
        *,
        config: str,
        members: int,
        evaluations: int,
        env_steps: int,
        state: str,
        sharpe: float | None,
        timing_sharpe: float | None,
    ) -> None:
        """Record where a trial stands: after each of its evaluations, and at its end.

        The parameters are those of :class:`LedgerTrial`. Counts never go down, as when a trial goes on from an earlier
        checkpoint. A Sharpe ratio that is None, NaN or infinite leaves the last one: a trial that fails has been seen.

        Raises
        ------
        ValueError
            If the sweep is not registered or a count is negative.
        """
        counts = (int(members), int(evaluations), int(env_steps))
        if min(counts) < 0:
            raise ValueError(f"members, evaluations, env_steps are {counts}: none may be negative")
        with self._transaction("IMMEDIATE") as connection:
            sweep = sweep_id(connection, uid)
            sharpes = (_finite(sharpe), _finite(timing_sharpe))
            connection.execute(UPSERT_TRIAL, (sweep, trial_id, config, *counts, state, *sharpes))

    def trials_on(self, sessions: Marks) -> list[LedgerTrial]:
        """Return the trials of every sweep that was trained or scored on any of `sessions`, oldest first."""
        with self._transaction("DEFERRED") as connection:
            ask(connection, sessions)
            return [LedgerTrial(*row) for row in connection.execute(TRIALS_ON)]

    def trials_that_saw(self, sessions: Marks) -> int:
        """Count the trials that were trained or scored on any of `sessions`; such a holdout is not unseen."""
        return len(self.trials_on(sessions))

    def open_holdout(self, uid: str, key: str, sessions: Marks, *, reopen: bool) -> Opening:
        """Record that a holdout is opened; call it **before** anything is scored there.

        Parameters
        ----------
        uid
            Identity of the sweep.
        key
            What is scored. The same `uid` and `key` again are the same opening, whose answer is repeated: evaluating is
            deterministic, and a resumed sweep does it again.
        sessions
            That are looked at.
        reopen
            Whether sessions that were opened before, by any sweep or for another `key`, may be opened again. Each
            further look lets the holdout choose what is shown, so its figures are worth less.

        Raises
        ------
        HoldoutOpenedError
            If any session was opened before and `reopen` is off; nothing is recorded.
        ValueError
            If the sweep is not registered, `sessions` is empty, or differs from those of the same `uid` and `key`.
        """
        hashes = {mark.hash for mark in sessions}
        if not hashes:
            raise ValueError("a holdout without sessions cannot be opened")
        with self._transaction("IMMEDIATE") as connection:
            sweep = sweep_id(connection, uid)
            overlapping = _overlapping(connection, sessions)
            recorded = recorded_opening(connection, sweep, key, hashes)
            earlier = tuple(
                opening
                for number, owner, opening in overlapping
                if recorded is None or number < recorded or (owner == sweep and number != recorded)
            )
            if recorded is None:
                if earlier and not reopen:
                    raise HoldoutOpenedError(self._opened_before(earlier, len(hashes)))
                recorded = add_opening(connection, sweep, key, {mark.hash: mark for mark in sessions}.values())
            (seen,) = connection.execute("SELECT seen FROM opening WHERE id = ?", (recorded,)).fetchone()
        return Opening(number=len(earlier) + 1, reopened=bool(earlier), earlier=earlier, seen=seen)

    def openings_on(self, sessions: Marks) -> tuple[EarlierOpening, ...]:
        """Return the distinct openings that saw any of `sessions`, oldest first."""
        with self._transaction("DEFERRED") as connection:
            return tuple(opening for _, _, opening in _overlapping(connection, sessions))

    def held_out_by_others(self, uid: str, sessions: Marks) -> set[str]:
        """Return the hashes of those of `sessions` that sweeps other than `uid` hold out, opened or not."""
        with self._transaction("DEFERRED") as connection:
            ask(connection, sessions)
            return {wanted for (wanted,) in connection.execute(HELD_OUT_ON, (uid,))}

    def alike(self, uid: str, sessions: Marks) -> tuple[AlikeMarket, ...]:
        """Return other markets whose sessions on the dates of `sessions` moved alike, the likest first.

        Sweeps on the same bars are none: they are counted. A search on one of two such markets tells of the other.

        Parameters
        ----------
        uid
            Of the sweep that asks.
        sessions
            Its sessions.
        """
        pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
        with self._transaction("DEFERRED") as connection:
            ask(connection, sessions)
            for name, symbol, own, other in connection.execute(GAINS_ON, (uid,)):
                pairs.setdefault((name, symbol or "?"), []).append((own, other))
        found = []
        for (name, symbol), gains in pairs.items():
            own, other = np.array(gains).T
            same = 2 * sum(map(near, own, other)) >= own.size
            if own.size < MIN_COMMON or same or not (np.ptp(own) and np.ptp(other)):
                continue
            correlation = float(np.corrcoef(own, other)[0, 1])
            if abs(correlation) >= ALIKE:
                found.append(AlikeMarket(name, symbol, correlation, own.size))
        return tuple(sorted(found, key=lambda market: -abs(market.correlation)))

    @contextmanager
    def _transaction(
        self, begin: Literal["DEFERRED", "IMMEDIATE"], *, create: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """Give a connection inside a transaction that is committed at the end, and undone after any exception."""
        address = f"{self.path.as_uri()}?mode={'rwc' if create else 'rw'}"
        try:
            with (
                closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection,
                connection,
            ):
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA temp_store = MEMORY")
                # FULL and the folder as well: a commit is only on disk once the journal's removal is
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute(f"BEGIN {begin}")
                yield connection
        except sqlite3.Error as error:
            raise SweepError(self._unusable(str(error))) from error

    def _unusable(self, reason: str) -> str:
        return f"{self.path}: cannot be used as the ledger ({reason}); mend it, or name another file in evidence.ledger"

    def _opened_before(self, earlier: Sequence[EarlierOpening], sessions: int) -> str:
        last = earlier[-1]
        others = f", the last of {len(earlier)} openings" if len(earlier) > 1 else ""
        return (
            f"{self.path}: {last.shared} of the {sessions} holdout sessions were opened before, by sweep "
            f"{last.sweep!r} at {last.opened_at} (UTC){others}; hold out later bars, or pass --reopen-holdout, which "
            "the report shows"
        )


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _overlapping(connection: sqlite3.Connection, marks: Iterable[SessionMark]) -> list[tuple[int, int, EarlierOpening]]:
    """Openings that share any of the sessions, each behind its id and its sweep's; ids ascend in order of opening."""
    ask(connection, marks)
    return [(row[0], row[1], EarlierOpening(*row[2:])) for row in connection.execute(OPENINGS_ON)]
