"""Files that cannot be used as the ledger: refused in one line, and kept as they are."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sentio_rllib.errors import SweepError
from sentio_rllib.evidence import ledger as ledger_module
from sentio_rllib.evidence.ledger import Ledger
from sentio_rllib.evidence.ledger_tables import SCHEMA_VERSION
from tests.evidence.ledgers import hashes, record, register

NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """Act as a user whom modes bind, where the tests run as root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def refused(path: Path, reason: str) -> None:
    with pytest.raises(SweepError, match=reason) as raised:
        Ledger(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert "evidence.ledger" in message
    assert "\n" not in message


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file" / "ledger.sqlite", "its folder: File exists")
    refused(tmp_path / "file" / "below" / "ledger.sqlite", "its folder: Not a directory")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "it is a folder")


@pytest.mark.parametrize("content", [b"a,b\n", b"no database " * 1_000])
def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    refused(path, "not a database")
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"")
    assert Ledger(tmp_path / "ledger.sqlite").trials_on(hashes(0, 1)) == []


@pytest.mark.parametrize("statement", ["CREATE TABLE studies (id)", f"PRAGMA user_version = {SCHEMA_VERSION}"])
def test_the_database_of_another_program_is_refused_and_kept(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    content = path.read_bytes()
    refused(path, "database of another program")
    assert path.read_bytes() == content


def test_another_schema_version_is_refused(ledger: Ledger) -> None:
    with closing(sqlite3.connect(ledger.path)) as connection:
        connection.execute("PRAGMA user_version = 7")
    refused(ledger.path, "schema version 7, this program needs 2")


@pytest.mark.parametrize("bound", ["file", "folder", "new", "closed"])
def test_what_may_not_be_written_is_refused(bound: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        path = Ledger(folder / "ledger.sqlite").path if bound != "new" else folder / "deeper" / "ledger.sqlite"
        if bound in ("file", "folder"):
            path.chmod(0o444 if bound == "file" else 0o666)
        # a journal needs the folder
        folder.chmod({"file": 0o777, "folder": 0o555, "new": 0o555, "closed": 0o000}[bound])
        try:
            with unprivileged():
                refused(path, "readonly|unable to open|Permission denied")
        finally:
            folder.chmod(0o700)


def test_a_locked_ledger_is_told(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "BUSY_SECONDS", 0.01)
    register(ledger, "a", hashes(0, 1))
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(SweepError, match="locked"):
            record(ledger, "a", "trial_0000")
        assert ledger.trials_on(hashes(0, 1)) == []  # reading goes on
    record(ledger, "a", "trial_0000")
    assert ledger.trials_that_saw(hashes(0, 1)) == 1


def test_a_ledger_that_was_removed_is_told_and_not_made_anew(ledger: Ledger) -> None:
    ledger.path.unlink()
    with pytest.raises(SweepError, match="unable to open"):
        ledger.trials_on(hashes(0, 1))
    assert not ledger.path.exists()
