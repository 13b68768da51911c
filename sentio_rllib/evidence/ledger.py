"""The ledger: every trial that was scored on a session's bars, and every opening of a holdout, of all sweeps.

What the best Sharpe ratio of a search is worth depends on how much was tried on the same data, by this sweep and by
others. A session is known by the hash of its bars, so neither an appended day nor another file name makes old data
new. Nothing is taken back: rows are added, and counts only grow.

The ledger is one SQLite file with a rollback journal, which network file systems bear and a write-ahead log does not.
Processes wait for one another, and what a killed one left half done is undone by whoever comes next. Knows no Ray.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sentio_rllib.errors import SweepError
from sentio_rllib.market.ohlcv import Bars

SCHEMA_VERSION = 1
APPLICATION_ID = 0x53454E54  # "SENT", tells a ledger from the databases of other programs
HASH_DIGITS = 32
BUSY_SECONDS = 30.0
"""How long an operation waits for another process before it gives up."""

_SCHEMA = (
    "CREATE TABLE session (id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE)",
    """CREATE TABLE sweep (
        id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, name TEXT NOT NULL, code TEXT NOT NULL,
        registered_at TEXT NOT NULL)""",
    """CREATE TABLE sweep_session (
        session INTEGER NOT NULL REFERENCES session, part TEXT NOT NULL CHECK (part IN ('development', 'holdout')),
        sweep INTEGER NOT NULL REFERENCES sweep, PRIMARY KEY (session, part, sweep)) WITHOUT ROWID""",
    """CREATE TABLE trial (
        id INTEGER PRIMARY KEY, sweep INTEGER NOT NULL REFERENCES sweep, trial_id TEXT NOT NULL, config TEXT NOT NULL,
        members INTEGER NOT NULL, evaluations INTEGER NOT NULL, env_steps INTEGER NOT NULL, state TEXT NOT NULL,
        sharpe REAL, timing_sharpe REAL, UNIQUE (sweep, trial_id))""",
    """CREATE TABLE opening (
        id INTEGER PRIMARY KEY, sweep INTEGER NOT NULL REFERENCES sweep, key TEXT NOT NULL, opened_at TEXT NOT NULL,
        seen INTEGER NOT NULL, UNIQUE (sweep, key))""",
    """CREATE TABLE opening_session (
        session INTEGER NOT NULL REFERENCES session, opening INTEGER NOT NULL REFERENCES opening,
        PRIMARY KEY (session, opening)) WITHOUT ROWID""",
)

_UPSERT_TRIAL = """
INSERT INTO trial (sweep, trial_id, config, members, evaluations, env_steps, state, sharpe, timing_sharpe)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (sweep, trial_id) DO UPDATE SET
    config = excluded.config, state = excluded.state, members = MAX(members, excluded.members),
    evaluations = MAX(evaluations, excluded.evaluations), env_steps = MAX(env_steps, excluded.env_steps),
    sharpe = COALESCE(excluded.sharpe, sharpe), timing_sharpe = COALESCE(excluded.timing_sharpe, timing_sharpe)"""

# the sessions asked for are joined as a temporary table: SQLite bounds the variables of a statement
_TRIALS_ON = """
SELECT sweep.uid, sweep.name, trial.trial_id, trial.config, trial.members, trial.evaluations, trial.env_steps,
       trial.state, trial.sharpe, trial.timing_sharpe
FROM trial JOIN sweep ON sweep.id = trial.sweep
WHERE sweep.id IN (
    SELECT sweep_session.sweep FROM asked JOIN session USING (hash)
    JOIN sweep_session ON sweep_session.session = session.id AND sweep_session.part = 'development')
ORDER BY trial.id"""

_OPENINGS_ON = """
SELECT opening.id, opening.sweep, sweep.name, opening.opened_at, COUNT(*)
FROM asked JOIN session USING (hash)
JOIN opening_session ON opening_session.session = session.id
JOIN opening ON opening.id = opening_session.opening
JOIN sweep ON sweep.id = opening.sweep
GROUP BY opening.id ORDER BY opening.id"""


class HoldoutOpenedError(SweepError):
    """Sessions of the holdout were looked at before, and a second look was not asked for."""


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


def session_hashes(bars: Bars) -> tuple[str, ...]:
    """Hash the bars of each session.

    Parameters
    ----------
    bars
        T bars of S sessions. Pass whole bars: a session that a slice divides is another session here.

    Returns
    -------
    tuple[str, ...]
        S hashes in time order, each the first 32 hex digits of the SHA-256 of the session's stamps (int64, ns UTC) and
        its open, high, low, close and volume (float64), little-endian, one array after the other. The symbol is left
        out, so that a renamed file is the same data, and so are bars outside the calendar's hours, so that keeping
        them makes no new session; one that has no others is hashed by them.
    """
    session, regular = bars.sessions.session, bars.sessions.regular
    kept = np.flatnonzero(regular | (np.bincount(session, regular) == 0)[session])
    starts = np.flatnonzero(np.diff(session[kept])) + 1  # of all but the first
    values = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    columns = [bars.timestamp[kept].astype("<i8"), *(column[kept].astype("<f8") for column in values)]
    sessions = zip(*(np.split(column, starts) for column in columns), strict=True)
    return tuple(
        hashlib.sha256(b"".join(part.tobytes() for part in session)).hexdigest()[:HASH_DIGITS] for session in sessions
    )


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
            self._prepare(connection)

    def register_sweep(
        self, uid: str, name: str, code: str, development: Sequence[str], holdout: Sequence[str]
    ) -> None:
        """Record a sweep and its sessions; again for the same `uid`, sessions are only added.

        Parameters
        ----------
        uid
            Identity of the sweep, kept when it is resumed.
        name, code
            Its name and the version of the code, as first registered.
        development
            Hashes (:func:`session_hashes`) of the sessions that its trials are trained and scored on.
        holdout
            Hashes of the sessions of its holdout, empty where it has none.
        """
        with self._transaction("IMMEDIATE") as connection:
            connection.execute(
                "INSERT INTO sweep (uid, name, code, registered_at) VALUES (?, ?, ?, ?) ON CONFLICT (uid) DO NOTHING",
                (uid, name, code, _now()),
            )
            sweep = _sweep_id(connection, uid)
            for part, hashes in (("development", development), ("holdout", holdout)):
                _add_sessions(connection, hashes)
                connection.executemany(
                    "INSERT OR IGNORE INTO sweep_session (session, part, sweep) "
                    "SELECT id, ?, ? FROM session WHERE hash = ?",
                    ((part, sweep, value) for value in hashes),
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
            sweep = _sweep_id(connection, uid)
            sharpes = (_finite(sharpe), _finite(timing_sharpe))
            connection.execute(_UPSERT_TRIAL, (sweep, trial_id, config, *counts, state, *sharpes))

    def trials_on(self, sessions: Sequence[str]) -> list[LedgerTrial]:
        """Return the trials of every sweep that was trained or scored on any of `sessions` (hashes), oldest first."""
        with self._transaction("DEFERRED") as connection:
            _ask(connection, sessions)
            return [LedgerTrial(*row) for row in connection.execute(_TRIALS_ON)]

    def trials_that_saw(self, sessions: Sequence[str]) -> int:
        """Count the trials that were trained or scored on any of `sessions`; such a holdout is not unseen."""
        return len(self.trials_on(sessions))

    def open_holdout(self, uid: str, key: str, sessions: Sequence[str], *, reopen: bool) -> Opening:
        """Record that a holdout is opened; call it **before** anything is scored there.

        Parameters
        ----------
        uid
            Identity of the sweep.
        key
            What is scored. The same `uid` and `key` again are the same opening, whose answer is repeated: evaluating is
            deterministic, and a resumed sweep does it again.
        sessions
            Hashes of the sessions that are looked at.
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
        hashes = set(sessions)
        if not hashes:
            raise ValueError("a holdout without sessions cannot be opened")
        with self._transaction("IMMEDIATE") as connection:
            sweep = _sweep_id(connection, uid)
            overlapping = _overlapping(connection, hashes)
            recorded = _recorded_opening(connection, sweep, key, hashes)
            earlier = tuple(
                opening
                for number, owner, opening in overlapping
                if recorded is None or number < recorded or (owner == sweep and number != recorded)
            )
            if recorded is None:
                if earlier and not reopen:
                    raise HoldoutOpenedError(self._opened_before(earlier, len(hashes)))
                recorded = _add_opening(connection, sweep, key, hashes)
            (seen,) = connection.execute("SELECT seen FROM opening WHERE id = ?", (recorded,)).fetchone()
        return Opening(number=len(earlier) + 1, reopened=bool(earlier), earlier=earlier, seen=seen)

    def openings_on(self, sessions: Sequence[str]) -> tuple[EarlierOpening, ...]:
        """Return the distinct openings that saw any of `sessions` (hashes), oldest first."""
        with self._transaction("DEFERRED") as connection:
            return tuple(opening for _, _, opening in _overlapping(connection, sessions))

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

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the tables in an empty file, or check whose they are; writes either way."""
        application, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        empty = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0
        if empty and (application, version) == (0, 0):
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        elif application != APPLICATION_ID:
            raise SweepError(self._unusable("it is the database of another program"))
        elif version != SCHEMA_VERSION:
            raise SweepError(self._unusable(f"it has schema version {version}, this program needs {SCHEMA_VERSION}"))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")  # writes the first page even where it is equal

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


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _sweep_id(connection: sqlite3.Connection, uid: str) -> int:
    row = connection.execute("SELECT id FROM sweep WHERE uid = ?", (uid,)).fetchone()
    if row is None:
        raise ValueError(f"sweep {uid!r} is not in the ledger: call register_sweep first")
    return int(row[0])


def _add_sessions(connection: sqlite3.Connection, hashes: Iterable[str]) -> None:
    connection.executemany("INSERT OR IGNORE INTO session (hash) VALUES (?)", ((value,) for value in hashes))


def _ask(connection: sqlite3.Connection, hashes: Iterable[str]) -> None:
    """Fill the table ``asked`` of this connection with the distinct hashes."""
    connection.execute("CREATE TEMP TABLE asked (hash TEXT PRIMARY KEY) WITHOUT ROWID")
    connection.executemany("INSERT OR IGNORE INTO asked VALUES (?)", ((value,) for value in hashes))


def _overlapping(connection: sqlite3.Connection, hashes: Iterable[str]) -> list[tuple[int, int, EarlierOpening]]:
    """Openings that share any of the sessions, each behind its id and its sweep's; ids ascend in order of opening."""
    _ask(connection, hashes)
    return [(row[0], row[1], EarlierOpening(*row[2:])) for row in connection.execute(_OPENINGS_ON)]


def _recorded_opening(connection: sqlite3.Connection, sweep: int, key: str, hashes: set[str]) -> int | None:
    """Id of the opening that the sweep recorded under `key`, None where there is none."""
    row = connection.execute("SELECT id FROM opening WHERE sweep = ? AND key = ?", (sweep, key)).fetchone()
    if row is None:
        return None
    recorded = connection.execute(
        "SELECT hash FROM opening_session JOIN session ON session.id = opening_session.session WHERE opening = ?", row
    )
    if {value for (value,) in recorded} != hashes:
        raise ValueError(f"opening {key!r} was recorded for other sessions: other sessions need another key")
    return int(row[0])


def _add_opening(connection: sqlite3.Connection, sweep: int, key: str, hashes: set[str]) -> int:
    """Record an opening and how many trials have seen its sessions, which :func:`_overlapping` has asked for."""
    _add_sessions(connection, hashes)
    seen = len(connection.execute(_TRIALS_ON).fetchall())
    (opening,) = connection.execute(
        "INSERT INTO opening (sweep, key, opened_at, seen) VALUES (?, ?, ?, ?) RETURNING id",
        (sweep, key, _now(), seen),
    ).fetchone()
    connection.executemany(
        "INSERT INTO opening_session (session, opening) SELECT id, ? FROM session WHERE hash = ?",
        ((opening, value) for value in hashes),
    )
    return int(opening)
