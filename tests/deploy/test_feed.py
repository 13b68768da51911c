"""Bars as they arrive: their stamps, and where each stands in its session."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sentio_rllib.deploy import feed
from sentio_rllib.deploy.feed import VALUES, Bar, check_bar, nanoseconds, place
from sentio_rllib.errors import BarsError
from sentio_rllib.market import sessions
from sentio_rllib.market.bars import load_bars
from sentio_rllib.market.sessions import MINUTE_NS
from tests.deploy.replay import small_bars


def test_stamps_of_all_kinds_are_one() -> None:
    wanted = int(np.datetime64("2020-01-02T14:30", "ns").astype(np.int64))
    eastern = timezone(timedelta(hours=-5))
    for stamp in (
        wanted,
        np.int64(wanted),
        np.datetime64("2020-01-02T14:30"),
        datetime(2020, 1, 2, 14, 30, tzinfo=UTC),
        datetime(2020, 1, 2, 9, 30, tzinfo=eastern),
        pd.Timestamp("2020-01-02T09:30", tz="America/New_York"),
    ):
        assert nanoseconds(stamp) == wanted


def test_places_are_those_of_the_batch() -> None:
    whole_day = small_bars(1_300, without=(500, 575))
    wanted = whole_day.sessions
    previous = None
    for index, stamp in enumerate(whole_day.timestamp.tolist()):
        at = place(stamp, previous, "XNYS", "regular")
        assert (at.minute, at.length) == (wanted.minute[index], wanted.length[index])
        assert at.new_session == (index > 0 and wanted.session[index] != wanted.session[index - 1])
        previous = stamp
    assert wanted.cuts.tolist() == [500]


@pytest.mark.parametrize("calendar", ["XNYS", "24/7", "XHKG", "XASX", "CMES"])  # breaks, sessions over midnight UTC
def test_a_bar_stands_where_the_batch_puts_it_whatever_came_before(
    monkeypatch: pytest.MonkeyPatch, calendar: str
) -> None:
    start = int(np.datetime64("2024-11-27T00:00", "ns").astype(np.int64))  # a half day of XNYS follows
    steps = np.random.default_rng(7).choice([1, 5, 30, 60, 61, 62, 90, 600], size=1_500)
    stamps = (start + np.cumsum(steps) * MINUTE_NS).tolist()
    pairs = list(itertools.pairwise(stamps))
    found = [place(stamp, previous, calendar, "all") for previous, stamp in pairs]
    monkeypatch.setattr(feed, "session_parts", lambda *_: ())
    wanted = [place(stamp, previous, calendar, "all") for previous, stamp in pairs]
    assert found == wanted
    assert {at.regular for at in found} == ({True} if calendar == "24/7" else {True, False})
    assert {at.new_session for at in found} == {True, False}


@pytest.mark.parametrize("calendar", ["XBOM", "XHKG"])
def test_no_bar_is_refused_earlier_than_the_calendar_ends(monkeypatch: pytest.MonkeyPatch, calendar: str) -> None:
    """Bars are placed up to a fortnight before the calendar's last day, which bounds what can be said of gaps."""
    end = np.datetime64(f"{sessions._known_years(calendar)[1] + 1}-01-01")
    days = (end - 14 - np.arange(6)).astype("datetime64[m]")
    stamps = sorted(int((day + np.timedelta64(5, "h")).astype("datetime64[ns]").astype(np.int64)) for day in days)

    def answers() -> list[object]:
        found: list[object] = []
        for stamp in stamps:
            try:
                found.append(place(stamp, stamp - MINUTE_NS, calendar, "all"))
            except BarsError as error:
                found.append(error.lines)
        return found

    found = answers()
    monkeypatch.setattr(feed, "session_parts", lambda *_: ())
    assert found == answers()
    assert any(isinstance(each, feed.Place) for each in found)


def test_rounding_widens_the_range_as_in_a_file(tmp_path: Path) -> None:
    above = float(np.nextafter(100.2, np.inf))
    frame = pd.DataFrame({"timestamp": pd.date_range("2024-03-07 14:30", periods=2, freq="min", tz="UTC")})
    prices = {"open": [100.1, 100.1], "high": [100.2, 100.3], "low": [100.0, 100.1 + 5e-11], "close": [above, 100.2]}
    frame = frame.assign(**prices, volume=10.0)
    frame.to_feather(tmp_path / "a.feather")
    bars, _ = load_bars(tmp_path / "a.feather")
    for row in range(2):
        stamp, values = check_bar(Bar(int(bars.timestamp[row]), *(float(frame[name][row]) for name in VALUES)))
        assert stamp == bars.timestamp[row]
        assert values == tuple(getattr(bars, name)[row] for name in VALUES)
    assert bars.high[0] == above
    with pytest.raises(BarsError, match="open or close lies outside"):
        check_bar(Bar(int(bars.timestamp[0]), 100.1, 100.2, 100.0, 100.2 * (1 + 1e-6), 10.0))
