"""Bars that are not new: what a vendor, a float or a split makes of a session, and other markets that move alike."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from sentio_rllib.evidence.ledger import HoldoutOpenedError, Ledger
from sentio_rllib.evidence.session_marks import SessionMark, near, session_hashes, session_marks
from sentio_rllib.market.ohlcv import Bars
from tests.evidence.ledgers import record, register
from tests.strategies import make_bars, session_minutes

PRICES = ("open", "high", "low", "close")


@pytest.fixture(scope="module")
def bars() -> Bars:
    """Four weeks of sessions, at some 400 dollars."""
    made = make_bars(session_minutes("2024-10-01", "2024-10-31"))
    scale = 400.0 / made.close[0]
    return dataclasses.replace(made, **{name: getattr(made, name) * scale for name in PRICES})


def with_one_share_more(bars: Bars) -> Bars:
    volume = bars.volume.copy()
    volume[::390] += 1.0
    return dataclasses.replace(bars, volume=volume)


def in_float32(bars: Bars) -> Bars:
    values = {name: getattr(bars, name).astype(np.float32).astype(np.float64) for name in (*PRICES, "volume")}
    return dataclasses.replace(bars, **values)


def split_ten_for_one(bars: Bars) -> Bars:
    values = {name: getattr(bars, name) / 10.0 for name in PRICES}
    return dataclasses.replace(bars, **values, volume=bars.volume * 10.0)


def in_whole_cents(bars: Bars) -> Bars:
    return dataclasses.replace(bars, **{name: np.round(getattr(bars, name), 2) for name in PRICES})


@pytest.mark.parametrize("change", [with_one_share_more, in_float32, split_ten_for_one, in_whole_cents])
def test_no_such_change_makes_bars_new(tmp_path: Path, bars: Bars, change: Callable[[Bars], Bars]) -> None:
    known, again = session_marks(bars), session_marks(change(bars))
    assert not {mark.hash for mark in known} & {mark.hash for mark in again}  # to the bit they are others
    ledger = Ledger(tmp_path / "ledger.sqlite")
    register(ledger, "a", list(known[:15]), list(known[15:]))
    record(ledger, "a", "trial_0000")
    assert ledger.trials_that_saw(again[:15]) == 1
    assert ledger.trials_that_saw(again[12:18]) == 1
    assert ledger.trials_that_saw(again[15:]) == 0
    ledger.open_holdout("a", "champion", known[15:], reopen=False)
    register(ledger, "b", list(again[:15]), list(again[15:]))
    with pytest.raises(HoldoutOpenedError):
        ledger.open_holdout("b", "champion", again[15:], reopen=False)
    assert len(ledger.openings_on(again[15:])) == 1
    assert ledger.alike("b", again) == ()  # the same bars are counted, not told as alike


def test_another_market_of_the_same_dates_is_new_and_told_where_it_moves_alike(tmp_path: Path, bars: Bars) -> None:
    ledger, known = Ledger(tmp_path / "ledger.sqlite"), session_marks(bars)
    ledger.register_sweep("a", "first", "1.0", known[:15], known[15:], symbol="QQQ")
    record(ledger, "a", "trial_0000")
    random = np.random.default_rng(1)
    threefold = [
        SessionMark(f"three {index}", mark.date, 3.0 * mark.gain + random.normal(0.0, 1e-3))
        for index, mark in enumerate(known)
    ]
    other = [SessionMark(f"other {mark.date}", mark.date, random.normal(0.0, 0.01)) for mark in known]
    for uid, marks in (("b", threefold), ("c", other)):
        ledger.register_sweep(uid, uid, "1.0", marks, [], symbol=uid)
        assert ledger.trials_that_saw(marks) == 0
    (alike,) = ledger.alike("b", threefold)
    gains = np.array([[mark.gain for mark in each] for each in (known, threefold)])
    assert (alike.sweep, alike.symbol, alike.dates) == ("first", "QQQ", len(known))
    assert alike.correlation == pytest.approx(np.corrcoef(gains)[0, 1])
    assert ledger.alike("c", other) == ()
    assert ledger.alike("b", threefold[:19]) == ()  # too few dates to say


def test_markets_that_hardly_move_are_not_taken_for_one_another(tmp_path: Path) -> None:
    """Funds of short bonds gain a few basis points a day, any two of them on most days nearly the same."""
    ledger, random = Ledger(tmp_path / "ledger.sqlite"), np.random.default_rng(2)
    one, other = (
        [SessionMark(f"{name} {day}", f"2024-01-{day:02d}", random.normal(0.0, 4e-4)) for day in range(1, 29)]
        for name in ("one", "other")
    )
    register(ledger, "a", one)
    record(ledger, "a", "trial_0000")
    assert ledger.trials_that_saw(other) == 0
    assert ledger.trials_that_saw(one) == 1
    single = [SessionMark("x", one[0].date, one[0].gain)]  # one date says nothing
    assert ledger.trials_that_saw(single) == 0
    assert near(0.01, 0.01049)
    assert not near(0.01, 0.01051)
    assert near(1e-4, 1.49e-4)
    assert not near(1e-4, 1.51e-4)


def test_a_gain_is_of_regular_bars_from_first_open_to_last_close(bars: Bars) -> None:
    rows = np.flatnonzero(bars.sessions.session == 3)
    mark = session_marks(bars)[3]
    assert mark.gain == bars.close[rows[-1]] / bars.open[rows[0]] - 1.0
    assert mark.date == str(bars.sessions.labels[3])
    assert mark.hash == session_hashes(bars)[3]


def test_a_ledger_of_the_first_version_is_brought_up_to_date(tmp_path: Path, bars: Bars) -> None:
    """Its sessions are known by their bars alone, until a sweep brings their dates."""
    path, marks = tmp_path / "ledger.sqlite", session_marks(bars)
    ledger = Ledger(path)
    register(ledger, "a", list(marks[:15]), list(marks[15:]))
    record(ledger, "a", "trial_0000")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP INDEX session_date")
        for column in ("date", "gain"):
            connection.execute(f"ALTER TABLE session DROP COLUMN {column}")
        connection.execute("ALTER TABLE sweep DROP COLUMN symbol")
        connection.execute("PRAGMA user_version = 1")
    again = Ledger(path)
    assert again.trials_that_saw(marks[:15]) == 1
    near = session_marks(with_one_share_more(bars))
    assert again.trials_that_saw(near[:15]) == 0
    register(again, "b", list(marks[:15]))
    assert again.trials_that_saw(near[:15]) == 1
