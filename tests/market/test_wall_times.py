"""Stamps as people write them: digits, offsets, abbreviations and names of zones, read right or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sentio_rllib.market.bars import load_bars
from tests.market.bar_files import (
    CLOCK,
    NEW_YORK,
    assert_holds,
    frame_of,
    minutes,
    refusal,
    session_frame,
    text,
    write,
)


def of_times(path: Path, times: list[str], day: str = "20240312") -> Path:
    """A file of one bar for each time of a day, prices in cents that differ."""
    rows = [f"{day},{time},{70 + n / 100},71,69,{70 + n / 100},{n + 1}" for n, time in enumerate(times)]
    return text(path, "Date,Time,Open,High,Low,Close,Volume\n" + "\n".join(rows) + "\n")


# times of day in digits


@pytest.mark.parametrize(
    ("times", "first", "last"),
    [
        (["0", "1", "2", "3"], "00:00", "00:03"),
        (["59", "100", "101", "115"], "00:59", "01:15"),
        (["958", "959", "1000", "1001"], "09:58", "10:01"),
        (["0958", "0959", "1000"], "09:58", "10:00"),
        (["95800", "95900", "100000", "100100"], "09:58", "10:01"),
        (["0", "100", "200", "5900", "10000", "235900"], "00:00", "23:59"),
        (["095800", "095900", "100000"], "09:58", "10:00"),
        (["93000.0", "93100.0"], "09:30", "09:31"),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_times_in_digits_are_numbers(tmp_path: Path, times: list[str], first: str, last: str, ending: str) -> None:
    path = of_times(tmp_path / "a.csv", times)
    if ending == "parquet":
        path = write(pd.read_csv(path), tmp_path / "a.parquet")
    bars, _ = load_bars(path, tz="UTC", **CLOCK)
    assert (bars.n, bars.first, bars.last) == (len(times), f"2024-03-12T{first}Z", f"2024-03-12T{last}Z")


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (["0930", "093100", "093200"], "mix padded times of different widths"),
        (["1530", "153100", "153200"], "mix times of four and of six digits"),
        (["100", "200", "300"], "are whole hours as HHMM and whole minutes as HHMMSS"),
        (["960", "961"], "absent or unreadable (like '20240312 960')"),
        (["2400", "2401"], "absent or unreadable (like '20240312 2400')"),
        (["0930000", "0931000"], "of no known format"),
    ],
)
def test_times_in_digits_that_may_be_two_are_refused(tmp_path: Path, times: list[str], words: str) -> None:
    assert words in refusal(of_times(tmp_path / "a.csv", times), tz="UTC", **CLOCK)


# zones


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S-05",
        "%Y-%m-%d %H:%M-05",
        "%Y-%m-%dT%H:%M:%S-0500",
        "%Y-%m-%dT%H:%M:%S.000-05:00",
        "%Y%m%d %H%M%S-05",
        "%Y%m%d %H:%M:%S -0500",
        "%m/%d/%Y %I:%M %p -05:00",
        "%d.%m.%Y %H:%M:%S.000 GMT-0500",
        "%Y-%m-%d %H:%M:%S UTC-5",
        "%Y-%m-%d %H:%M:%S EST",
        "%Y-%m-%dT%H:%M:%S-05:00[America/New_York]",
        "%Y%m%d  %H:%M:%S US/Eastern",
        "%Y%m%d-%H:%M:%S America/New_York",
        "%Y/%m/%d %H:%M ET",
    ],
)
def test_every_written_zone_is_one(tmp_path: Path, form: str) -> None:
    frame = frame_of(minutes("2024-01-16 14:30", 390))
    local = frame["timestamp"].dt.tz_convert(NEW_YORK).dt.strftime(form)
    path = write(frame.assign(timestamp=local), tmp_path / "a.csv")
    for options in ({}, {"tz": "Asia/Tokyo"}):
        assert_holds(load_bars(path, **options)[0], frame)


@pytest.mark.parametrize("zero", ["+00", "+0000", "+00:00", "Z", " UTC", " GMT", "-00"])
def test_every_zero_offset_is_one(tmp_path: Path, zero: str) -> None:
    frame = session_frame()
    stamps = frame["timestamp"].dt.strftime("%Y-%m-%d %H:%M:%S") + zero
    assert_holds(load_bars(write(frame.assign(timestamp=stamps), tmp_path / "a.csv"))[0], frame)


@pytest.mark.parametrize("kind", ["offset", "short offset", "abbreviation", "name"])
@pytest.mark.parametrize("day", ["2024-03-10", "2024-11-03"])
def test_zones_over_a_clock_change(tmp_path: Path, kind: str, day: str) -> None:
    frame = frame_of(minutes(f"{day} 00:00", 1440))
    local = frame["timestamp"].dt.tz_convert(NEW_YORK)
    offset = local.dt.strftime("%z")
    zone = {
        "offset": offset,
        "short offset": offset.str[:3],
        "abbreviation": local.dt.strftime(" %Z"),
        "name": " America/New_York",
    }[kind]
    stamps = local.dt.strftime("%Y-%m-%d %H:%M:%S") + zone
    bars, _ = load_bars(write(frame.assign(timestamp=stamps), tmp_path / "a.csv"), **CLOCK)
    assert_holds(bars, frame)


def test_an_abbreviation_that_may_be_several_is_refused(tmp_path: Path) -> None:
    frame = session_frame()
    stamps = frame["timestamp"].dt.strftime("%Y-%m-%d %H:%M:%S IST")
    line = refusal(write(frame.assign(timestamp=stamps), tmp_path / "a.csv"))
    assert "stamps end in 'IST', which is no zone or may be several: bring an offset such as -05:00" in line


def test_an_offset_that_is_none_is_not_read(tmp_path: Path) -> None:
    frame = session_frame()
    stamps = frame["timestamp"].dt.strftime("%Y-%m-%d %H:%M:%S+25:00")
    line = refusal(write(frame.assign(timestamp=stamps), tmp_path / "a.csv"))
    assert "absent or unreadable (like '2025-06-02 13:30:00+25:00') in 390 of 390 rows" in line


def test_dates_alone_are_told_to_be_daily(tmp_path: Path) -> None:
    frame = session_frame()
    path = write(frame.assign(timestamp=frame["timestamp"].dt.strftime("%Y-%m-%d")), tmp_path / "a.csv")
    assert "stamps like '2025-06-02' hold a date without a time of day" in refusal(path)


@pytest.mark.parametrize("form", ["%Y%m%d%H%M", "%Y%m%d%H%M%S"])
def test_a_date_and_a_time_in_one_number(tmp_path: Path, form: str) -> None:
    frame = session_frame()
    stamps = frame["timestamp"].dt.strftime(form)
    for column, ending in ((stamps, "csv"), (stamps.astype(np.int64), "feather")):
        path = write(frame.assign(timestamp=column), tmp_path / f"a.{ending}")
        assert_holds(load_bars(path, tz="UTC")[0], frame)
