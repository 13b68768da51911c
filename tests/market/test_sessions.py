"""Sessions: membership, half days, cuts, missing minutes; a slice is what a shorter file would give."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentio_rllib.errors import BarsError
from sentio_rllib.market.sessions import assign_sessions, check_calendar, missing_before, on_session_days
from tests.market.bar_files import minutes


def ns(*parts: pd.DatetimeIndex) -> np.ndarray:
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.append(part)
    return joined.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)


DAYS = [minutes(f"2025-07-{day:02d} 13:30", 210 if day == 3 else 390) for day in (1, 2, 3, 7, 8)]
GRID = ns(*DAYS)  # 2025-07-03 is a half day, 07-04 a holiday, 07-05 and 06 a weekend


def test_full_and_half_days() -> None:
    sessions, regular = assign_sessions(GRID)
    assert regular.all()
    assert sessions.session.dtype == sessions.minute.dtype == sessions.length.dtype == np.int32
    assert np.bincount(sessions.session).tolist() == [390, 390, 210, 390, 390]
    assert np.unique(sessions.length[sessions.session == 2]).tolist() == [210]
    assert sessions.minute[:3].tolist() == [0, 1, 2]
    assert sessions.minute[sessions.last].tolist() == [389, 389, 209, 389, 389]
    assert sessions.labels.astype(str).tolist() == [f"2025-07-{d:02d}" for d in (1, 2, 3, 7, 8)]
    assert sessions.cuts.size == 0, "a holiday and a weekend are no hole"
    assert (sessions.missing_minutes, sessions.regular_minutes, sessions.sessions_per_year) == (0, 1770, 252)


def test_the_minute_of_the_open_belongs_and_that_of_the_close_does_not() -> None:
    stamps = ns(minutes("2025-07-01 13:29", 2), minutes("2025-07-01 19:59", 2))
    sessions, regular = assign_sessions(stamps)
    assert regular.tolist() == [False, True, True, False]
    assert sessions.minute.tolist() == [0, 0, 389, 389]
    assert sessions.session.tolist() == [0, 0, 0, 0]
    assert sessions.missing_minutes == 388


def test_off_hours_bars_belong_to_the_session_of_their_local_date() -> None:
    stamps = ns(minutes("2025-07-01 23:00", 1), minutes("2025-07-02 12:00", 1), minutes("2025-07-05 15:00", 1))
    sessions, regular = assign_sessions(stamps)
    assert not regular.any()
    assert sessions.labels.astype(str).tolist() == ["2025-07-01", "2025-07-02", "2025-07-03"]
    assert (sessions.missing_minutes, sessions.regular_minutes) == (0, 0)


@pytest.mark.parametrize(("day", "open_utc"), [("2025-03-07", "14:30"), ("2025-03-10", "13:30")])
@pytest.mark.parametrize("autumn", [False, True])
def test_daylight_saving_moves_the_open(day: str, open_utc: str, autumn: bool) -> None:
    if autumn:
        day, open_utc = ("2025-10-31", "13:30") if open_utc == "14:30" else ("2025-11-03", "14:30")
    sessions, regular = assign_sessions(ns(minutes(f"{day} {open_utc}", 390)))
    assert regular.all()
    assert sessions.minute.tolist() == list(range(390))


@pytest.mark.parametrize(("missing", "cut"), [(60, False), (61, True)])
def test_more_than_60_consecutive_missing_minutes_cut(missing: int, cut: bool) -> None:
    kept = np.delete(GRID, np.arange(100, 100 + missing))
    sessions, _ = assign_sessions(kept)
    assert sessions.cuts.tolist() == ([100] if cut else [])
    assert sessions.missing_minutes == missing
    gaps = missing_before(kept)
    assert np.flatnonzero(gaps).tolist() == [100]
    assert gaps[100] == missing


def test_minutes_missing_at_both_sides_of_a_night_do_not_add_up() -> None:
    around = np.arange(390 - 40, 390 + 40)
    assert assign_sessions(np.delete(GRID, around))[0].cuts.size == 0
    tail = np.arange(390 - 61, 390)
    assert assign_sessions(np.delete(GRID, tail))[0].cuts.tolist() == [390 - 61]


def test_on_a_calendar_without_nights_they_do() -> None:
    days = ns(minutes("2025-07-05 00:00", 2 * 1440))
    sessions, regular = assign_sessions(days, "24/7")
    assert regular.all()
    assert sessions.sessions_per_year == 365
    assert np.unique(sessions.length).tolist() == [1440]
    assert assign_sessions(np.delete(days, np.arange(1400, 1480)), "24/7")[0].cuts.tolist() == [1400]
    assert assign_sessions(np.delete(days, np.arange(1410, 1470)), "24/7")[0].cuts.size == 0


def test_a_missing_session_cuts_and_is_not_counted_as_missing_minutes() -> None:
    sessions, _ = assign_sessions(np.delete(GRID, np.arange(390, 780)))
    assert sessions.cuts.tolist() == [390]
    assert sessions.missing_minutes == 0
    assert sessions.session.max() == 3


def test_a_lunch_break_is_neither_regular_nor_missing() -> None:
    day = ns(minutes("2025-07-02 01:30", 390))  # Hong Kong 09:30 .. 16:00, break 12:00 .. 13:00
    sessions, regular = assign_sessions(day, "XHKG")
    assert np.flatnonzero(~regular).tolist() == list(range(150, 210))
    sessions, _ = assign_sessions(day[regular], "XHKG")
    assert (sessions.missing_minutes, sessions.regular_minutes, sessions.cuts.size) == (0, 330, 0)
    assert np.unique(sessions.length).tolist() == [390]
    assert not missing_before(day[regular], "XHKG").any()
    assert 240 <= sessions.sessions_per_year <= 250


def same(left: object, right: object) -> None:
    for field in dataclasses.fields(left):
        got, wanted = getattr(left, field.name), getattr(right, field.name)
        np.testing.assert_array_equal(got, wanted, err_msg=field.name)
        if isinstance(wanted, np.ndarray):
            assert got.dtype == wanted.dtype, field.name


@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**16), share=st.floats(0.005, 1.0))
def test_a_slice_is_what_a_file_of_these_bars_gives(data: st.DataObject, seed: int, share: float) -> None:
    off_hours = ns(minutes("2025-07-03 17:00", 120))
    stamps = np.union1d(GRID, off_hours)
    chosen = stamps[np.random.default_rng(seed).random(stamps.size) < share]
    if chosen.size < 2:
        chosen = stamps[:2]
    start = data.draw(st.integers(0, chosen.size - 1))
    stop = data.draw(st.integers(start + 1, chosen.size))
    sessions, _ = assign_sessions(chosen)
    same(sessions.slice(start, stop), assign_sessions(chosen[start:stop])[0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), share=st.floats(0.01, 1.0))
def test_missing_minutes_and_cuts_agree_with_a_plain_count(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    there = np.repeat(rng.random(GRID.size // 30) < share, 30)
    there[0] = True
    sessions, _ = assign_sessions(GRID[there])
    day = np.repeat(np.arange(5), [390, 390, 210, 390, 390])
    assert sessions.missing_minutes == sum(int((~there[day == d]).sum()) for d in range(5) if there[day == d].any())
    kept = np.flatnonzero(there)
    longest = [np.bincount(day[left + 1 : right], minlength=5).max() for left, right in pairwise(kept)]
    assert sessions.cuts.tolist() == [bar + 1 for bar, run in enumerate(longest) if run > 60]


def test_session_days() -> None:
    dates = np.array(["2025-07-03", "2025-07-04", "2025-07-05"], dtype="datetime64[D]")
    assert on_session_days(dates).tolist() == [True, False, False]
    assert on_session_days(dates, "24/7").all()


def test_wrong_input_is_named() -> None:
    with pytest.raises(BarsError, match=r"calendar 'XNYSE' is unknown: did you mean 'XNYS'"):
        check_calendar("XNYSE")
    with pytest.raises(BarsError, match="calendar 'mars' is unknown"):
        assign_sessions(GRID, "mars")
    with pytest.raises(BarsError, match="not strictly ascending"):
        assign_sessions(GRID[::-1])
    with pytest.raises(BarsError, match="no bars"):
        assign_sessions(GRID[:0])
    with pytest.raises(BarsError, match=r"outside the years 1990 \.\. 2100"):
        assign_sessions(np.array([0, 60_000_000_000]))
    with pytest.raises(TypeError, match="float64"):
        assign_sessions(GRID.astype(np.float64))
