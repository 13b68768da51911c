"""Real files: six as they come in the wild with the right answer, and the four clean ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sentio_rllib.errors import BarsError
from sentio_rllib.market.bars import load_bars, write_bars
from tests.market.bar_files import REAL, needs_real_bars

pytestmark = needs_real_bars

EVERYTHING: dict[str, Any] = {"hours": "all", "max_missing": 1.0}
OCHL = "timestamp,open,close,high,low,volume"


NEW_YORK = {"tz": "America/New_York"}
RIGHT = {
    "01_bitfinex_BTCUSD_noheader_ms_OCHL.csv": (
        {"columns": OCHL},
        (11_522, "2016-07-28T00:02Z", "2016-08-14T23:59Z"),
    ),
    "05_ibkr_QQQ_naive_NewYork_truncated_days.csv": (
        NEW_YORK,
        (4_525, "2025-08-07T13:30Z", "2025-08-28T14:16Z"),
    ),
    "06_walstreet_INDA_naiveUTC_16month_hole.csv": (
        {"tz": "UTC"},
        (10_001, "2023-09-29T14:28Z", "2025-02-27T14:47Z"),
    ),
    "08_mplfinance_SP500_USdate_OCHL_zero_volume.csv": (
        NEW_YORK,
        (1_563, "2019-11-05T14:30Z", "2019-11-08T20:59Z"),
    ),
    "11_concat_SPY_two_downloads_header_midfile_dups.csv": (
        {"fix": True},
        (4_000, "2025-09-22T18:31Z", "2025-10-06T20:00Z"),
    ),
    "13_alpaca_SPY_ms_epoch_header.csv": ({}, (7_867, "2025-08-22T19:08Z", "2025-10-08T19:14Z")),
}


@pytest.mark.parametrize("name", RIGHT)
def test_dirty_files_come_in_right(tmp_path: Path, name: str) -> None:
    options, (rows, first, last) = RIGHT[name]
    bars, report = load_bars(REAL / "dirty" / name, **EVERYTHING, **options)
    assert (bars.n, bars.first, bars.last) == (rows, first, last)
    assert report.rows_kept == rows
    written = write_bars(bars, tmp_path / "written.parquet")
    assert load_bars(written, **EVERYTHING)[0].fingerprint == bars.fingerprint


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("01_bitfinex_BTCUSD_noheader_ms_OCHL.csv", {}, ["no header line"]),
        (
            "01_bitfinex_BTCUSD_noheader_ms_OCHL.csv",
            {"columns": "timestamp,open,high,low,close,volume"},
            ["high < low in 5,539 of 11,522 rows", "outside low .. high in 2,605 of 11,522"],
        ),
        ("05_ibkr_QQQ_naive_NewYork_truncated_days.csv", {}, ["pass tz"]),
        ("06_walstreet_INDA_naiveUTC_16month_hole.csv", {}, ["pass tz"]),
        ("08_mplfinance_SP500_USdate_OCHL_zero_volume.csv", {}, ["pass tz"]),
        (
            "11_concat_SPY_two_downloads_header_midfile_dups.csv",
            {},
            [
                "header line stands again in 1 of 5,393",
                "(14 stamps disagree in their values) in 1,392",
                "time goes back",
            ],
        ),
    ],
)
def test_without_the_option_they_are_refused(name: str, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(BarsError) as caught:
        load_bars(REAL / "dirty" / name, **EVERYTHING, **options)
    assert len(caught.value.lines) == len(words)
    for line, expected in zip(caught.value.lines, words, strict=True):
        assert expected in line


def test_duplicates_of_the_two_downloads_are_counted() -> None:
    path = REAL / "dirty/11_concat_SPY_two_downloads_header_midfile_dups.csv"
    _, report = load_bars(path, fix=True, **EVERYTHING)
    assert (report.rows_read, report.repeated_headers, report.steps_back) == (5_392, 1, 1)
    assert (report.exact_duplicates, report.disagreeing_stamps, report.disagreeing_rows) == (1_378, 14, 14)


@pytest.mark.parametrize(
    ("name", "kept", "dropped", "sessions", "cuts"),
    [
        ("TQQQ_1m_2025-04_2025-10.feather", 53_640, 139, 138, 0),
        ("QQQ_1m_2025-08_2025-09.feather", 9_575, 25, 25, 0),
        ("BTCUSD-RTH_1m_2015-01_2019-12.feather", 422_106, 17_321, 1_191, 9),
    ],
)
def test_clean_files_load_as_they_are(name: str, kept: int, dropped: int, sessions: int, cuts: int) -> None:
    bars, report = load_bars(REAL / name)
    assert (bars.n, report.off_hours_dropped, report.sessions, report.cuts) == (kept, dropped, sessions, cuts)
    assert report.rows_read == kept + dropped
    assert report.jumps == 0
    assert bars.sessions.minute.max() == 389


def test_the_half_day_is_short_and_its_stray_bar_left_out() -> None:
    bars, _ = load_bars(REAL / "TQQQ_1m_2025-04_2025-10.feather")
    assert set(bars.sessions.length.tolist()) == {210, 390}
    assert int((bars.sessions.length == 210).sum()) == 210


def test_moves_between_sessions_are_told() -> None:
    _, report = load_bars(REAL / "BTCUSD-RTH_1m_2015-01_2019-12.feather")
    assert report.session_jumps == 6
    assert report.missing_share == pytest.approx(0.0874, abs=1e-4)


def test_the_thin_fund_is_refused_with_its_share() -> None:
    path = REAL / "ERY_1m_2025-04_2025-10.feather"
    with pytest.raises(
        BarsError, match=r"ERY: 0\.3451 of the regular minutes .* above max_missing 0\.1: pass max_missing"
    ):
        load_bars(path)
    assert load_bars(path, max_missing=0.35)[0].n == 35_131
