"""Stamps: epochs, text, zones, clock changes; what cannot be known is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sentio_rllib.errors import BarsError
from sentio_rllib.market.bars import load_bars
from tests.market.bar_files import assert_holds, frame_of, minutes, session_frame, write

NEW_YORK = "America/New_York"


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("kind", ["text", "integer", "float"])
def test_epochs(tmp_path: Path, unit: str, per_second: int, kind: str) -> None:
    frame = session_frame()
    nanoseconds = frame["timestamp"].dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    epochs = nanoseconds // (10**9 // per_second)
    written = frame.assign(timestamp=epochs.astype(float) if kind == "float" else epochs)
    path = write(written, tmp_path / ("a.csv" if kind == "text" else "a.feather"))
    bars, report = load_bars(path)
    assert_holds(bars, frame)
    assert f"stamps read as epoch in {unit}" in report.notes


@pytest.mark.parametrize("first", [0, 600_000_000, 4_200_000_000, 20_250_602])
def test_epochs_of_no_plausible_year_are_refused(tmp_path: Path, first: int) -> None:
    frame = session_frame()
    path = write(frame.assign(timestamp=first + 60 * np.arange(390)), tmp_path / "a.csv")
    with pytest.raises(BarsError, match=r"no epoch in s, ms, us or ns between 1990 and 2100"):
        load_bars(path)


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M:%S.%f",
        "%Y-%m-%d %H:%M",
        "%Y/%m/%d %H:%M",
        "%Y%m%d %H:%M:%S",
        "%Y%m%d %H%M%S",
        "%d.%m.%Y %H:%M:%S",
        "%Y.%m.%d %H:%M",
        "%Y/%m/%d %I:%M:%S %p",
        "%m/%d/%Y %H:%M",
    ],
)
def test_naive_text_needs_tz(tmp_path: Path, form: str) -> None:
    frame = session_frame("2025-06-16")
    local = frame["timestamp"].dt.tz_convert(NEW_YORK).dt.strftime(form)
    path = write(frame.assign(timestamp=local), tmp_path / "a.csv")
    with pytest.raises(BarsError, match=r"carry no time zone: pass tz, for instance tz='America/New_York'"):
        load_bars(path)
    assert_holds(load_bars(path, tz=NEW_YORK)[0], frame)


@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d %H:%M:%S%z", "%Y/%m/%d %H:%M:%S%z"])
def test_text_with_offsets(tmp_path: Path, form: str) -> None:
    frame = pd.concat([session_frame("2025-10-31"), frame_of(minutes("2025-11-03 14:30", 390))])
    local = frame["timestamp"].dt.tz_convert(NEW_YORK).dt.strftime(form)  # -0400, then -0500
    assert local.str[-5:].nunique() == 2
    bars, report = load_bars(write(frame.assign(timestamp=local), tmp_path / "a.csv"), tz="UTC")
    assert_holds(bars, frame)
    assert "tz UTC was not needed: the stamps carry their zone" in report.notes


def test_the_suffix_utc_is_a_zone(tmp_path: Path) -> None:
    frame = session_frame()
    text = frame["timestamp"].dt.strftime("%Y-%m-%d %H:%M:%S UTC")
    assert_holds(load_bars(write(frame.assign(timestamp=text), tmp_path / "a.csv"))[0], frame)


@pytest.mark.parametrize("naive", [False, True])
def test_absent_stamps_of_a_feather_file_are_refused(tmp_path: Path, naive: bool) -> None:
    frame = session_frame()
    frame.loc[[4, 6], "timestamp"] = pd.NaT
    if naive:
        frame["timestamp"] = frame["timestamp"].dt.tz_localize(None)
    path = write(frame, tmp_path / "a.feather")
    with pytest.raises(BarsError, match="absent or unreadable in 2 of 390 rows; first: row 5, 7: ") as caught:
        load_bars(path, tz="UTC")
    assert len(caught.value.lines) == 1


def test_naive_stamps_of_a_feather_file_need_tz(tmp_path: Path) -> None:
    frame = session_frame()
    path = write(frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)), tmp_path / "a.feather")
    with pytest.raises(BarsError, match="pass tz"):
        load_bars(path)
    assert_holds(load_bars(path, tz="UTC")[0], frame)


def test_dates_that_fit_both_ways_need_date_order(tmp_path: Path) -> None:
    frame = session_frame("2025-06-05")  # 5 June and 6 May are both sessions
    path = write(frame.assign(timestamp=frame["timestamp"].dt.strftime("%m/%d/%Y %H:%M")), tmp_path / "a.csv")
    with pytest.raises(BarsError, match=r"month/day or day/month: pass date_order='mdy'"):
        load_bars(path, tz="UTC")
    assert_holds(load_bars(path, tz="UTC", date_order="mdy")[0], frame)
    assert load_bars(path, tz="UTC", date_order="dmy")[0].first == "2025-05-06T13:30Z"


def test_date_and_time_in_two_columns(tmp_path: Path) -> None:
    frame = session_frame()
    local = frame["timestamp"].dt.tz_convert(NEW_YORK)
    two = frame.drop(columns="timestamp")
    two.insert(0, "<TIME>", local.dt.strftime("%H:%M:%S"))
    two.insert(0, "<DATE>", local.dt.strftime("%Y%m%d"))
    assert_holds(load_bars(write(two, tmp_path / "a.csv"), tz=NEW_YORK)[0], frame)


def around_the_clock(first: str, count: int, tmp_path: Path) -> tuple[pd.DataFrame, Path]:
    frame = frame_of(minutes(first, count))
    local = frame["timestamp"].dt.tz_convert(NEW_YORK).dt.tz_localize(None)
    return frame, write(frame.assign(timestamp=local), tmp_path / "a.csv")


@pytest.mark.parametrize("day", ["2025-03-09", "2025-11-02"])
def test_both_days_of_a_clock_change_come_out_right(tmp_path: Path, day: str) -> None:
    frame, path = around_the_clock(f"{day} 00:00", 1440, tmp_path)
    assert_holds(load_bars(path, tz=NEW_YORK, calendar="24/7")[0], frame)


def test_times_that_a_clock_change_makes_absent_or_double_are_refused(tmp_path: Path) -> None:
    for first, count in (("2025-03-09 02:10", 3), ("2025-11-02 01:10", 3)):
        stamps = pd.date_range(first, periods=count, freq="min")
        path = write(frame_of(stamps), tmp_path / "a.csv")
        with pytest.raises(BarsError, match="absent or twice in America/New_York") as caught:
            load_bars(path, tz=NEW_YORK, calendar="24/7", max_missing=1.0)
        assert len(caught.value.lines) == 1
        assert "in 3 of 3 rows; first: line 2, 3, 4" in caught.value.lines[0]


def test_stamps_at_the_end_of_the_bar(tmp_path: Path) -> None:
    frame = session_frame()
    late = frame.assign(timestamp=frame["timestamp"] + pd.Timedelta(minutes=1))
    path = write(late, tmp_path / "a.feather")
    assert_holds(load_bars(path, stamp="end")[0], frame)
    assert load_bars(path)[1].off_hours_dropped == 1


def test_stamps_that_cannot_be_read(tmp_path: Path) -> None:
    frame = session_frame()
    text = frame["timestamp"].dt.strftime("%Y-%m-%d %H:%M:%S%z")
    text[4], text[6] = "", "yesterday"
    path = write(frame.assign(timestamp=text), tmp_path / "a.csv")
    with pytest.raises(
        BarsError, match=r"absent or unreadable \(like 'yesterday'\) in 2 of 390 rows; first: line 6, 8: "
    ):
        load_bars(path)
    path = write(frame.assign(timestamp="yesterday"), tmp_path / "a.csv")
    with pytest.raises(BarsError, match="stamps like 'yesterday' are of no known format: bring YYYY-MM-DD"):
        load_bars(path)
    text = frame["timestamp"].dt.strftime("%Y-%m-%d %H:%M:%S%z")
    text[4] = "2025-06-02 13:34:00"
    path = write(frame.assign(timestamp=text), tmp_path / "a.csv")
    with pytest.raises(BarsError, match="lacks the zone that others carry in 1 of 390 rows; first: line 6"):
        load_bars(path)
