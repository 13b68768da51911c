"""The tables of the ledger's file, and the questions put to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime

from sentio_rllib.evidence.session_marks import LEAST_NEAR, MIN_DATES, NEAR, NEAR_SHARE, SessionMark

SCHEMA_VERSION = 2
APPLICATION_ID = 0x53454E54  # "SENT", tells a ledger from the databases of other programs

_SCHEMA = (
    "CREATE TABLE session (id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, date TEXT, gain REAL)",
    "CREATE INDEX session_date ON session (date)",
    """CREATE TABLE sweep (
        id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, name TEXT NOT NULL, code TEXT NOT NULL,
        registered_at TEXT NOT NULL, symbol TEXT)""",
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
_FROM_VERSION_1 = (
    "ALTER TABLE session ADD COLUMN date TEXT",
    "ALTER TABLE session ADD COLUMN gain REAL",
    "ALTER TABLE sweep ADD COLUMN symbol TEXT",
    "CREATE INDEX session_date ON session (date)",
)
"""Sessions of that version are known by their bars to the bit alone."""

UPSERT_TRIAL = """
INSERT INTO trial (sweep, trial_id, config, members, evaluations, env_steps, state, sharpe, timing_sharpe)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (sweep, trial_id) DO UPDATE SET
    config = excluded.config, state = excluded.state, members = MAX(members, excluded.members),
    evaluations = MAX(evaluations, excluded.evaluations), env_steps = MAX(env_steps, excluded.env_steps),
    sharpe = COALESCE(excluded.sharpe, sharpe), timing_sharpe = COALESCE(excluded.timing_sharpe, timing_sharpe)"""

# the sessions asked for are joined as a temporary table: SQLite bounds the variables of a statement
_TOLERANCE = f"MAX({LEAST_NEAR}, MIN({NEAR}, {NEAR_SHARE} * ABS(asked.gain)))"
_NEAR = f"""
WITH near AS (
    SELECT session.id AS session, asked.hash AS wanted,
           session.hash = asked.hash AS exact,
           session.hash = asked.hash OR ABS(session.gain - asked.gain) <= {_TOLERANCE} AS same
    FROM asked JOIN session ON session.date = asked.date
    UNION
    SELECT session.id, asked.hash, 1, 1 FROM asked JOIN session USING (hash))"""
_KNOWN = f"HAVING MAX(exact) = 1 OR (COUNT(*) >= {MIN_DATES} AND 2 * SUM(same) >= COUNT(*))"

TRIALS_ON = f"""{_NEAR}
SELECT sweep.uid, sweep.name, trial.trial_id, trial.config, trial.members, trial.evaluations, trial.env_steps,
       trial.state, trial.sharpe, trial.timing_sharpe
FROM trial JOIN sweep ON sweep.id = trial.sweep
WHERE sweep.id IN (
    SELECT sweep_session.sweep FROM near
    JOIN sweep_session ON sweep_session.session = near.session AND sweep_session.part = 'development'
    GROUP BY sweep_session.sweep {_KNOWN})
ORDER BY trial.id"""

OPENINGS_ON = f"""{_NEAR}
SELECT opening.id, opening.sweep, sweep.name, opening.opened_at, SUM(same)
FROM near
JOIN opening_session ON opening_session.session = near.session
JOIN opening ON opening.id = opening_session.opening
JOIN sweep ON sweep.id = opening.sweep
GROUP BY opening.id {_KNOWN} ORDER BY opening.id"""

HELD_OUT_ON = f"""{_NEAR}
SELECT DISTINCT near.wanted FROM near
JOIN sweep_session ON sweep_session.session = near.session AND sweep_session.part = 'holdout'
WHERE sweep_session.sweep IN (
    SELECT sweep_session.sweep FROM near
    JOIN sweep_session ON sweep_session.session = near.session
    JOIN sweep ON sweep.id = sweep_session.sweep AND sweep.uid <> ?
    GROUP BY sweep_session.sweep {_KNOWN})"""

GAINS_ON = """
SELECT sweep.name, sweep.symbol, asked.gain, session.gain
FROM asked JOIN session ON session.date = asked.date
JOIN sweep_session ON sweep_session.session = session.id
JOIN sweep ON sweep.id = sweep_session.sweep
WHERE session.gain IS NOT NULL AND sweep.uid <> ?
ORDER BY sweep.id, asked.date"""


class ForeignFileError(Exception):
    """The file is no ledger, or one of another version."""


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file, bring those of an earlier version up to date, or check them; writes any way.

    Raises
    ------
    ForeignFileError
        It is another program's database, or of a version that this program does not know.
    """
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    empty = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0
    if empty and (application, version) == (0, 0):
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    elif application != APPLICATION_ID:
        raise ForeignFileError("it is the database of another program")
    elif version == 1:
        for statement in _FROM_VERSION_1:
            connection.execute(statement)
    elif version != SCHEMA_VERSION:
        raise ForeignFileError(f"it has schema version {version}, this program needs {SCHEMA_VERSION}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")  # writes the first page even where it is equal


def now() -> str:
    """Return the time as it is written down."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def sweep_id(connection: sqlite3.Connection, uid: str) -> int:
    """Return the id of a sweep.

    Raises
    ------
    ValueError
        It is not registered.
    """
    row = connection.execute("SELECT id FROM sweep WHERE uid = ?", (uid,)).fetchone()
    if row is None:
        raise ValueError(f"sweep {uid!r} is not in the ledger: call register_sweep first")
    return int(row[0])


def add_sessions(connection: sqlite3.Connection, marks: Iterable[SessionMark]) -> None:
    """Add what is not there yet; a session that was known by its bars alone gets date and gain."""
    connection.executemany(
        "INSERT INTO session (hash, date, gain) VALUES (?, ?, ?) ON CONFLICT (hash) DO UPDATE SET "
        "date = COALESCE(date, excluded.date), gain = COALESCE(gain, excluded.gain)",
        marks,
    )


def ask(connection: sqlite3.Connection, marks: Iterable[SessionMark]) -> None:
    """Fill the table ``asked`` of this connection with the distinct sessions."""
    connection.execute("CREATE TEMP TABLE asked (hash TEXT PRIMARY KEY, date TEXT, gain REAL) WITHOUT ROWID")
    connection.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?, ?)", marks)


def recorded_opening(connection: sqlite3.Connection, sweep: int, key: str, hashes: set[str]) -> int | None:
    """Return the id of the opening that the sweep recorded under `key`, None where there is none.

    Raises
    ------
    ValueError
        It was of other sessions.
    """
    row = connection.execute("SELECT id FROM opening WHERE sweep = ? AND key = ?", (sweep, key)).fetchone()
    if row is None:
        return None
    recorded = connection.execute(
        "SELECT hash FROM opening_session JOIN session ON session.id = opening_session.session WHERE opening = ?", row
    )
    if {value for (value,) in recorded} != hashes:
        raise ValueError(f"opening {key!r} was recorded for other sessions: other sessions need another key")
    return int(row[0])


def add_opening(connection: sqlite3.Connection, sweep: int, key: str, marks: Iterable[SessionMark]) -> int:
    """Record an opening and how many trials have seen its sessions, which :func:`ask` has asked for; return its id."""
    marks = list(marks)
    add_sessions(connection, marks)
    seen = len(connection.execute(TRIALS_ON).fetchall())
    (opening,) = connection.execute(
        "INSERT INTO opening (sweep, key, opened_at, seen) VALUES (?, ?, ?, ?) RETURNING id",
        (sweep, key, now(), seen),
    ).fetchone()
    connection.executemany(
        "INSERT INTO opening_session (session, opening) SELECT id, ? FROM session WHERE hash = ?",
        ((opening, mark.hash) for mark in marks),
    )
    return int(opening)
