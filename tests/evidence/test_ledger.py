"""The ledger: what is counted on which sessions, who may open a holdout, and what two processes or a kill leave."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentio_rllib.evidence import ledger_tables as tables
from sentio_rllib.evidence.ledger import HoldoutOpenedError, Ledger, LedgerTrial
from sentio_rllib.evidence.session_marks import session_hashes, session_marks
from sentio_rllib.market.ohlcv import Bars
from tests.evidence.ledgers import hashes, record, register
from tests.strategies import make_bars, session_minutes

COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")


@pytest.fixture(scope="module")
def bars() -> Bars:
    """Three sessions, the second of them a half day."""
    return make_bars(session_minutes("2024-11-27", "2024-12-02"))


# ---- hashes


def test_bars_outside_the_calendars_hours_make_no_new_session(bars: Bars) -> None:
    late = dataclasses.replace(bars.sessions, regular=np.arange(bars.n) != bars.n - 1)
    with_late = dataclasses.replace(bars, sessions=late)
    assert session_hashes(with_late)[:2] == session_hashes(bars)[:2]
    assert session_hashes(with_late)[2] == session_hashes(bars.slice(0, bars.n - 1))[2]
    none = dataclasses.replace(bars.sessions, regular=bars.sessions.session < 2)
    assert session_hashes(dataclasses.replace(bars, sessions=none)) == session_hashes(bars)


def test_hash_is_sha256_of_the_sessions_values(bars: Bars) -> None:
    second = np.flatnonzero(bars.sessions.session == 1)
    assert second.size == 210
    content = b"".join(struct.pack("<q", int(bars.timestamp[row])) for row in second)
    for name in COLUMNS[1:]:
        content += b"".join(struct.pack("<d", float(getattr(bars, name)[row])) for row in second)
    assert session_hashes(bars)[1] == hashlib.sha256(content).hexdigest()[:32]


def test_an_appended_day_keeps_the_hashes(bars: Bars) -> None:
    before = bars.slice(0, int(np.flatnonzero(bars.sessions.session == 2)[0]))
    assert len(session_hashes(before)) == 2
    assert session_hashes(bars)[:2] == session_hashes(before)
    assert len(set(session_hashes(bars))) == 3


def test_a_renamed_file_is_the_same_data(bars: Bars) -> None:
    assert session_hashes(dataclasses.replace(bars, symbol="OTHER")) == session_hashes(bars)


@pytest.mark.parametrize("row", [390, 500, 599])
@pytest.mark.parametrize("column", COLUMNS)
def test_a_changed_value_changes_only_its_sessions_hash(bars: Bars, column: str, row: int) -> None:
    values = getattr(bars, column).copy()
    values[row] = values[row] + 1 if column == "timestamp" else np.nextafter(values[row], np.inf)
    changed = session_hashes(dataclasses.replace(bars, **{column: values}))
    assert [a == b for a, b in zip(changed, session_hashes(bars), strict=True)] == [True, False, True]


# ---- trials


def test_trials_are_found_by_any_shared_development_session(ledger: Ledger) -> None:
    register(ledger, "a", hashes(0, 5), hashes(5, 7))
    register(ledger, "b", hashes(4, 9))
    record(ledger, "a", "trial_0000", config="x", state="pruned", sharpe=-0.2, timing_sharpe=None)
    record(ledger, "b", "trial_0000", config="y")
    record(ledger, "b", "trial_0001", config="y", members=8)
    first = LedgerTrial("a", "sweep-a", "trial_0000", "x", 6, 1, 100, "pruned", -0.2, None)
    assert ledger.trials_on(hashes(0, 4)) == [first]
    assert [(trial.uid, trial.trial_id) for trial in ledger.trials_on(hashes(4, 5))] == [
        ("a", "trial_0000"),
        ("b", "trial_0000"),
        ("b", "trial_0001"),
    ]
    # session 5 is of the holdout of a, and of what b was trained on
    assert [trial.uid for trial in ledger.trials_on(hashes(5, 6))] == ["b", "b"]
    assert [ledger.trials_that_saw(hashes(*span)) for span in ((0, 2), (4, 5), (5, 7), (9, 20))] == [1, 3, 2, 0]
    assert ledger.trials_on([]) == []


def test_an_appended_day_does_not_reset_the_count(ledger: Ledger, bars: Bars) -> None:
    before = session_marks(bars.slice(0, 600))
    register(ledger, "a", list(before[:1]), list(before[1:]))
    record(ledger, "a", "trial_0000")
    ledger.open_holdout("a", "champion", before[1:], reopen=False)
    now = session_marks(bars)
    assert ledger.trials_that_saw(now[:2]) == 1
    register(ledger, "b", list(now[:1]), list(now[1:]))
    with pytest.raises(HoldoutOpenedError, match="1 of the 2 holdout sessions"):
        ledger.open_holdout("b", "champion", now[1:], reopen=False)


def test_registering_again_adds_sessions_and_takes_none_back(ledger: Ledger) -> None:
    register(ledger, "a", hashes(0, 3))
    record(ledger, "a", "trial_0000")
    ledger.register_sweep("a", "renamed", "2.0", hashes(2, 4), hashes(0, 1))
    ledger.register_sweep("a", "renamed", "2.0", hashes(2, 4), hashes(0, 1))
    for session in range(4):
        assert [trial.sweep for trial in ledger.trials_on(hashes(session, session + 1))] == ["sweep-a"]


def test_counts_never_go_down(ledger: Ledger) -> None:
    register(ledger, "a", hashes(0, 1))
    record(ledger, "a", "trial_0000", evaluations=5, env_steps=500, sharpe=0.3)
    record(ledger, "a", "trial_0000", evaluations=3, env_steps=300, members=2, sharpe=0.2)
    (trial,) = ledger.trials_on(hashes(0, 1))
    assert (trial.evaluations, trial.env_steps, trial.members, trial.sharpe) == (5, 500, 6, 0.2)
    record(ledger, "a", "trial_0000", evaluations=6, env_steps=600, state="completed", sharpe=-0.4)
    (trial,) = ledger.trials_on(hashes(0, 1))
    assert (trial.evaluations, trial.env_steps, trial.state, trial.sharpe) == (6, 600, "completed", -0.4)


@pytest.mark.parametrize("sharpe", [None, float("nan"), float("inf"), float("-inf")])
def test_a_trial_that_fails_keeps_the_sharpe_that_was_seen(ledger: Ledger, sharpe: float | None) -> None:
    register(ledger, "a", hashes(0, 1))
    record(ledger, "a", "trial_0000", sharpe=sharpe, timing_sharpe=0.25)
    assert ledger.trials_on(hashes(0, 1))[0].sharpe is None
    record(ledger, "a", "trial_0000", sharpe=0.5)
    record(ledger, "a", "trial_0000", state="failed", sharpe=sharpe, timing_sharpe=sharpe)
    (trial,) = ledger.trials_on(hashes(0, 1))
    assert (trial.state, trial.sharpe, trial.timing_sharpe) == ("failed", 0.5, 0.05)


def test_numpy_numbers_are_taken(ledger: Ledger) -> None:
    register(ledger, "a", hashes(0, 1))
    record(ledger, "a", "t", members=np.int64(3), env_steps=np.int32(7), sharpe=np.float32(0.5))
    (trial,) = ledger.trials_on(hashes(0, 1))
    assert (trial.members, trial.env_steps, trial.sharpe) == (3, 7, 0.5)


@pytest.mark.parametrize("name", ["members", "evaluations", "env_steps"])
def test_negative_counts_are_refused(ledger: Ledger, name: str) -> None:
    register(ledger, "a", hashes(0, 1))
    with pytest.raises(ValueError, match="may be negative"):
        record(ledger, "a", "trial_0000", **{name: -1})
    assert ledger.trials_on(hashes(0, 1)) == []


def test_an_unknown_sweep_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="'a' is not in the ledger: call register_sweep"):
        record(ledger, "a", "trial_0000")
    with pytest.raises(ValueError, match="'a' is not in the ledger: call register_sweep"):
        ledger.open_holdout("a", "champion", hashes(0, 1), reopen=True)
    assert ledger.openings_on(hashes(0, 1)) == ()


# ---- openings


def test_the_first_opening_is_free_and_its_repeat_the_same(ledger: Ledger) -> None:
    register(ledger, "a", hashes(0, 5))
    opening = ledger.open_holdout("a", "champion", hashes(5, 9), reopen=False)
    assert (opening.number, opening.reopened, opening.earlier) == (1, False, ())
    assert ledger.open_holdout("a", "champion", hashes(5, 9), reopen=False) == opening
    assert [(held.sweep, held.shared) for held in ledger.openings_on(hashes(8, 12))] == [("sweep-a", 1)]


@pytest.mark.parametrize(("uid", "key"), [("b", "champion"), ("a", "another trial")])
@pytest.mark.parametrize(("sessions", "shared"), [(hashes(5, 9), 4), (hashes(8, 12), 1), (hashes(0, 6), 1)])
def test_another_look_at_any_session_needs_reopen(
    ledger: Ledger, uid: str, key: str, sessions: list[str], shared: int
) -> None:
    for name in "ab":
        register(ledger, name, hashes(20, 21))
    before = ledger.open_holdout("a", "champion", hashes(5, 9), reopen=False)
    with pytest.raises(HoldoutOpenedError) as raised:
        ledger.open_holdout(uid, key, sessions, reopen=False)
    ((_, opened_at, _),) = ledger.openings_on(hashes(5, 9))
    message = str(raised.value)
    assert "\n" not in message
    for part in (
        f"{shared} of the {len(sessions)} holdout",
        "'sweep-a'",
        f"{opened_at} (UTC)",
        "--reopen-holdout",
        str(ledger.path),
    ):
        assert part in message
    assert len(ledger.openings_on(hashes(0, 30))) == 1
    opening = ledger.open_holdout(uid, key, sessions, reopen=True)
    assert (opening.number, opening.reopened, opening.earlier) == (2, True, (("sweep-a", opened_at, shared),))
    # neither sweep's repeat is a new look, nor does it need the option again
    assert ledger.open_holdout(uid, key, sessions, reopen=False) == opening
    repeated = ledger.open_holdout("a", "champion", hashes(5, 9), reopen=False)
    # but a sweep that looked twice has chosen between two champions
    assert repeated == before if uid == "b" else repeated.reopened


def test_what_had_seen_a_holdout_is_counted_as_it_is_opened(ledger: Ledger) -> None:
    register(ledger, "early", hashes(7, 9))
    register(ledger, "a", hashes(0, 5), hashes(6, 9))
    register(ledger, "later", hashes(0, 9))
    record(ledger, "early", "trial_0000")
    record(ledger, "early", "trial_0001")
    record(ledger, "a", "trial_0000")
    opening = ledger.open_holdout("a", "champion", hashes(6, 9), reopen=False)
    assert opening.seen == 2
    record(ledger, "later", "trial_0000")  # the normal course: more bars, trained on what was held out
    assert ledger.trials_that_saw(hashes(6, 9)) == 3
    assert ledger.open_holdout("a", "champion", hashes(6, 9), reopen=False) == opening


def test_a_sweep_is_known_once_it_is_registered(ledger: Ledger) -> None:
    assert not ledger.knows("a")
    register(ledger, "a", hashes(0, 1))
    assert ledger.knows("a")
    assert not ledger.knows("b")


def test_openings_without_a_shared_session_do_not_meet(ledger: Ledger) -> None:
    register(ledger, "a", hashes(0, 1))
    ledger.open_holdout("a", "first", hashes(5, 9), reopen=False)
    opening = ledger.open_holdout("a", "second", hashes(9, 12), reopen=False)
    assert (opening.number, opening.reopened) == (1, False)
    assert ledger.openings_on(hashes(12, 15)) == ()
    third = ledger.open_holdout("a", "third", hashes(8, 10), reopen=True)
    assert [held.shared for held in third.earlier] == [1, 1]
    with pytest.raises(HoldoutOpenedError, match="the last of 3 openings"):
        ledger.open_holdout("a", "fourth", hashes(5, 12), reopen=False)


def test_opening_times_are_utc_to_the_second(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            new_york = datetime(2026, 1, 1, 22, 4, 5, 678, tzinfo=timezone(timedelta(hours=-5)))
            return new_york if tz is None else new_york.astimezone(tz)

    monkeypatch.setattr(tables, "datetime", Clock)
    register(ledger, "a", hashes(0, 1))
    ledger.open_holdout("a", "champion", hashes(1, 2), reopen=False)
    assert ledger.openings_on(hashes(1, 2)) == (("sweep-a", "2026-01-02T03:04:05Z", 1),)


def test_one_key_cannot_name_other_sessions(ledger: Ledger) -> None:
    register(ledger, "a", hashes(0, 1))
    ledger.open_holdout("a", "champion", hashes(1, 4), reopen=False)
    for sessions in (hashes(1, 3), hashes(1, 5), hashes(6, 9)):
        with pytest.raises(ValueError, match="recorded for other sessions"):
            ledger.open_holdout("a", "champion", sessions, reopen=True)
    with pytest.raises(ValueError, match="without sessions"):
        ledger.open_holdout("a", "empty", [], reopen=True)


_LOOKS = st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"))


@settings(max_examples=25, deadline=None)
@given(
    seen=st.fixed_dictionaries(
        {(uid, key): st.sets(st.integers(0, 9), min_size=1, max_size=4) for uid in "ab" for key in "xyz"}
    ),
    steps=st.lists(st.tuples(_LOOKS, st.booleans()), max_size=8),
)
def test_openings_agree_with_sets(
    seen: dict[tuple[str, str], set[int]], steps: list[tuple[tuple[str, str], bool]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        for uid in "ab":
            register(ledger, uid, [])
        opened: list[tuple[str, str]] = []
        for look, reopen in steps:
            sessions = [mark for number in seen[look] for mark in hashes(number, number + 1)]
            before = [
                each
                for place, each in enumerate(opened)
                if look not in opened or place < opened.index(look) or (each[0] == look[0] and each != look)
            ]
            shared = [(f"sweep-{uid}", len(seen[uid, key] & seen[look])) for uid, key in before]
            expected = [(sweep, count) for sweep, count in shared if count]
            if look not in opened and expected and not reopen:
                with pytest.raises(HoldoutOpenedError):
                    ledger.open_holdout(*look, sessions, reopen=False)
                continue
            opening = ledger.open_holdout(*look, sessions, reopen=reopen)
            assert [(held.sweep, held.shared) for held in opening.earlier] == expected
            assert (opening.number, opening.reopened) == (len(expected) + 1, bool(expected))
            opened += [look] if look not in opened else []


# ---- size


def test_more_sessions_than_a_statement_has_variables(ledger: Ledger) -> None:
    many = hashes(0, 40_000)  # SQLite's usual bound is 32,766
    register(ledger, "a", many[:-5_000], many[-5_000:])
    record(ledger, "a", "trial_0000")
    assert ledger.trials_that_saw(many[:-5_000]) == 1
    assert ledger.trials_that_saw(many[-5_000:]) == 0
    assert ledger.open_holdout("a", "champion", many[-5_000:], reopen=False).number == 1
    assert ledger.openings_on(many)[0].shared == 5_000


# ---- processes

_WRITER = """
import sys
from sentio_rllib.evidence.ledger import Ledger
from sentio_rllib.evidence.session_marks import SessionMark
path, uid = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
ledger = Ledger(path)
marks = [SessionMark(f"{n:032x}", f"day {n}", 0.01 * n) for n in range(300)]
ledger.register_sweep(uid, uid, "1.0", marks, [])
for step in range(1, 4):
    for trial in range(12):
        ledger.record_trial(uid, f"trial_{trial:04d}", config="c", members=1, evaluations=step, env_steps=step * 10,
                            state="running", sharpe=float(trial), timing_sharpe=None)
"""

# dies as it comes to a statement, with a cache so small that the file itself already holds pages of the transaction
_KILLED = """
import os, signal, sqlite3, sys
from sentio_rllib.evidence.ledger import Ledger
from sentio_rllib.evidence.session_marks import SessionMark
path, method, statement = sys.argv[1:]
ledger = Ledger(path)

class Dying(sqlite3.Connection):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA cache_size = 1")
        self.set_trace_callback(lambda sql: sql.startswith(statement) and os.kill(os.getpid(), signal.SIGKILL))

connect = sqlite3.connect
sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Dying, **kwargs)
sessions = [SessionMark(f"{n:032x}", f"day {n}", 0.01 * n) for n in range(5000)]
if method == "register":
    ledger.register_sweep("b", "sweep-b", "1.0", sessions, [])
else:
    ledger.open_holdout("a", "champion", sessions, reopen=True)
"""


def start(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.sqlite"
    writers = [start(_WRITER, path, uid) for uid in ("a", "b")]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # both make the file and its tables
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        assert writer.communicate(timeout=60)[1] == ""
        assert writer.returncode == 0
    trials = Ledger(path).trials_on(hashes(0, 1))
    told = {(trial.uid, trial.trial_id): (trial.evaluations, trial.env_steps, trial.sharpe) for trial in trials}
    assert len(trials) == 24
    assert told == {(uid, f"trial_{n:04d}"): (3, 30, float(n)) for uid in "ab" for n in range(12)}


@pytest.mark.parametrize(
    ("method", "statement"),
    [("register", "INSERT OR IGNORE INTO sweep_session"), ("register", "COMMIT"), ("open", "COMMIT")],
)
def test_a_process_killed_in_a_transaction_leaves_the_ledger_as_it_was(
    ledger: Ledger, method: str, statement: str
) -> None:
    register(ledger, "a", hashes(0, 3))
    record(ledger, "a", "trial_0000")
    before = ledger.path.read_bytes()
    journal = ledger.path.with_name(ledger.path.name + "-journal")
    with start(_KILLED, ledger.path, method, statement) as killed:
        killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert journal.stat().st_size > 0
    assert ledger.path.read_bytes()[: len(before)] != before  # half written

    again = Ledger(ledger.path)
    assert not journal.exists()
    with closing(sqlite3.connect(ledger.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT COUNT(*) FROM session").fetchone() == (3,)
    assert [trial.uid for trial in again.trials_on(hashes(0, 5_000))] == ["a"]
    assert again.openings_on(hashes(0, 5_000)) == ()
    register(again, "b", hashes(0, 5_000))
    record(again, "b", "trial_0000")
    assert again.trials_that_saw(hashes(4_999, 5_000)) == 1
    assert again.open_holdout("a", "champion", hashes(0, 5_000), reopen=False).number == 1


def test_a_ledger_pickles(ledger: Ledger) -> None:
    register(ledger, "a", hashes(0, 1))
    copy = pickle.loads(pickle.dumps(ledger))
    record(copy, "a", "trial_0000")
    assert ledger.trials_that_saw(hashes(0, 1)) == 1


def test_a_relative_path_holds_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger("data/led?ger #1 100%.sqlite")
    monkeypatch.chdir("/")
    register(ledger, "a", hashes(0, 1))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["led?ger #1 100%.sqlite"]


def test_knows_no_ray() -> None:
    script = "import sys, sentio_rllib.evidence.ledger; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
