"""Files become bars: formats, columns, what is refused in which words, what is mended and counted."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentio_rllib.errors import BarsError
from sentio_rllib.market.bars import load_bars, write_bars
from tests.market.bar_files import assert_holds, frame_of, minutes, session_frame, write


@pytest.mark.parametrize("ending", ["feather", "parquet", "csv"])
def test_every_format_gives_the_same_bars(tmp_path: Path, ending: str) -> None:
    frame = session_frame()
    bars, report = load_bars(write(frame, tmp_path / f"QQQ_1m.{ending}"))
    assert_holds(bars, frame)
    assert bars.symbol == "QQQ"
    assert (bars.n, len(bars)) == (390, 390)
    assert (bars.first, bars.last) == ("2025-06-02T13:30Z", "2025-06-02T19:59Z")
    assert (report.rows_read, report.rows_kept, report.missing_minutes, report.cuts) == (390, 390, 0, 0)
    again, _ = load_bars(write(frame, tmp_path / "other.feather"))
    assert bars.fingerprint == again.fingerprint


def test_compressed_csv_with_a_byte_order_mark_and_semicolons(tmp_path: Path) -> None:
    frame = session_frame()
    path = tmp_path / "QQQ.csv.gz"
    text = frame.to_csv(index=False, sep=";", lineterminator="\r\n")
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.encode()))
    assert_holds(load_bars(path)[0], frame)


def test_the_fingerprint_tells_any_change(tmp_path: Path) -> None:
    frame = session_frame()
    prints = {load_bars(write(frame, tmp_path / "a.feather"))[0].fingerprint}
    for column in ("high", "volume"):
        changed = frame.copy()
        changed.loc[17, column] += 0.01
        prints.add(load_bars(write(changed, tmp_path / "b.feather"))[0].fingerprint)
    assert len(prints) == 3


def test_slice(tmp_path: Path) -> None:
    bars, _ = load_bars(write(session_frame(), tmp_path / "a.feather"))
    part = bars.slice(10, 20)
    np.testing.assert_array_equal(part.close, bars.close[10:20])
    assert part.sessions.minute.tolist() == list(range(10, 20))
    assert part.fingerprint != bars.fingerprint
    for start, stop in ((-1, 5), (5, 5), (0, 391)):
        with pytest.raises(IndexError, match="390"):
            bars.slice(start, stop)


@pytest.mark.parametrize(
    "names",
    [
        ["Datetime", "Open", "High", "Low", "Close", "Volume"],
        ["ts", "o", "h", "l", "c", "v"],
        ["date", " <OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<VOL>"],
        ["time", "1. open", "2. high", "3. low", "4. close", "5. volume"],
    ],
)
def test_column_aliases(tmp_path: Path, names: list[str]) -> None:
    frame = session_frame()
    assert_holds(load_bars(write(frame.set_axis(names, axis=1), tmp_path / "a.csv"))[0], frame)


def test_columns_by_position(tmp_path: Path) -> None:
    frame = session_frame()
    other = frame[["timestamp", "open", "close", "high", "low", "volume"]].assign(trades=1)
    path = write(other, tmp_path / "a.csv", header=False)
    with pytest.raises(BarsError, match=r"there is no header line .* pass columns with the names"):
        load_bars(path)
    bars, _ = load_bars(path, columns="timestamp,open,close,high,low,volume,_")
    assert_holds(bars, frame)
    bars, _ = load_bars(path, columns=["timestamp", "open", "close", "high", "low", "volume", "_"])
    assert_holds(bars, frame)
    misnamed = other.set_axis(list("abdefgh"), axis=1)
    bars, _ = load_bars(write(misnamed, tmp_path / "b.csv"), columns="timestamp,open,close,high,low,volume,_")
    assert_holds(bars, frame)
    for columns, words in (
        ("timestamp,open", "names 2 columns but the file has 7"),
        ("timestamp,open,close,high,low,volume,trades", "unknown names trades: allowed are timestamp"),
        ("timestamp,open,open,high,low,volume,_", "column close not found among"),
    ):
        with pytest.raises(BarsError, match=words):
            load_bars(path, columns=columns)


def test_doubtful_and_absent_columns_are_refused(tmp_path: Path) -> None:
    frame = session_frame()
    with pytest.raises(BarsError, match="columns volume, vol could each be volume: pass columns"):
        load_bars(write(frame.assign(vol=1.0), tmp_path / "a.csv"))
    with pytest.raises(BarsError, match="columns timestamp, date could each be timestamp: pass columns"):
        load_bars(write(frame.assign(date="2025-06-02"), tmp_path / "a.csv"))
    with pytest.raises(BarsError, match=r"column volume not found among timestamp, open, .*: pass columns"):
        load_bars(write(frame.drop(columns="volume"), tmp_path / "a.feather"))
    bars, report = load_bars(write(frame.assign(vwap=1.0), tmp_path / "a.csv"))
    assert_holds(bars, frame)
    assert "columns left out: vwap" in report.notes


def spoil(column: str, row: int, value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[row, column] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            spoil("open", 4, np.nan),
            r"open is NaN, absent or infinite in 1 of 390 rows; first: row 5 \(2025-06-02T13:34Z",
        ),
        (spoil("volume", 0, np.inf), "volume is NaN, absent or infinite in 1 of 390 rows; first: row 1 "),
        (
            spoil("low", 9, 0.0),
            r"low is 0 in 1 of 390 rows; first: row 10 \(2025-06-02T13:39Z low 0\)",
        ),
        (spoil("low", 9, -3.0), r"low is negative in 1 of 390 rows; .*: returns are of positive prices"),
        (spoil("volume", 9, -1.0), "volume is negative in 1 of 390 rows"),
        (spoil("high", 2, 50.0), r"high < low in 1 of 390 rows; first: row 3 .* pass columns if"),
        (spoil("close", 2, 1e6), r"open or close lies outside low \.\. high in 1 of 390 rows; first: row 3 "),
        (
            lambda f: f.iloc[[0, 1, 1, 2]],
            r"duplicate \(0 stamps disagree .*\) in 1 of 4 rows; first: row 3 .* pass fix",
        ),
        (lambda f: f.iloc[[0, 2, 1]], "time goes back .* in 1 of 3 rows; first: row 3 .*: pass fix to sort"),
        (lambda f: f.iloc[::5], "the bars are 5 minutes apart: bring 1-minute bars"),
        (
            lambda f: f.assign(timestamp=f["timestamp"] + pd.Timedelta(seconds=7)),
            r"on no full minute \(like 2025-06-02T13:30:07.* in 390 of 390 rows",
        ),
    ],
)
@pytest.mark.parametrize("ending", ["feather", "csv"])
def test_what_is_wrong_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], words: str, ending: str
) -> None:
    path = write(change(session_frame()).reset_index(drop=True), tmp_path / f"QQQ.{ending}")
    if ending == "csv":  # a text is told by its lines, of which the first is the header
        words = re.sub(r"row (\d+)", lambda row: f"line {int(row[1]) + 1}", words)
    with pytest.raises(BarsError, match=rf"QQQ: .*{words}") as caught:
        load_bars(path, max_missing=1.0)
    assert len(caught.value.lines) == 1


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    frame = session_frame().astype({"close": object})
    frame.loc[3, "open"] = np.nan
    frame.loc[5, "low"] = -1.0
    frame.loc[7, "close"] = "n.a!"
    frame.loc[9, "timestamp"] = frame.loc[8, "timestamp"]
    frame["timestamp"] = frame["timestamp"].dt.tz_localize(None)
    path = write(frame, tmp_path / "a.csv")
    with pytest.raises(BarsError) as caught:
        load_bars(path)
    told = [line.split(": ", 1)[1].split(" in ")[0] for line in caught.value.lines]
    assert told[0].startswith("the stamps (the first is 2025-06-02 13:30:00) carry no time zone")
    assert told[1:] == [
        "close is no number (like 'n.a!')",
        "open is NaN, absent or infinite",
        "low is negative",
    ]
    with pytest.raises(BarsError) as caught:
        load_bars(path, tz="UTC")
    assert len(caught.value.lines) == 4
    assert "the stamp is a duplicate (1 stamps disagree" in caught.value.lines[-1]


def test_files_that_are_no_bars(tmp_path: Path) -> None:
    cases = {
        "absent.feather": (None, "does not exist: pass the path"),
        "a.xlsx": (b"x", r"ends in '.xlsx': a bars file ends in .feather"),
        "a.feather": (b"no arrow", "a.feather cannot be read as feather: "),
        "a.parquet": (b"no parquet", "a.parquet cannot be read as parquet: "),
        "empty.csv": (b"", "empty.csv is empty"),
        "head.csv": (b"timestamp,open,high,low,close,volume\n", "head.csv holds no bars"),
        "people.csv": (b"name,town\nAda,London\n", "column timestamp, open, .* not found among name, town"),
        "ragged.csv": (
            b"timestamp,open,high,low,close,volume\n1,2\n",
            "the header line names 6 columns .* but rows have 2 cells: pass columns",
        ),
        "latin.csv": ("t,o,h,l,c,v\nMär,1,1,1,1,1\n".encode("latin-1"), "cannot be read as csv: "),
    }
    for name, (content, words) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(BarsError, match=words) as caught:
            load_bars(tmp_path / name)
        assert len(caught.value.lines) == 1
        assert "\n" not in caught.value.lines[0]
    with pytest.raises(BarsError, match="is a folder"):
        load_bars(tmp_path)


def test_wrong_options_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(BarsError) as caught:
        load_bars(
            tmp_path / "a.csv",
            tz="America/NewYork",
            calendar="NYSE?",
            stamp="mid",
            hours="most",
            max_missing=1.5,
        )
    assert [line.split(" ")[0] for line in caught.value.lines] == [
        "tz",
        "calendar",
        "stamp",
        "hours",
        "max_missing",
    ]
    assert "did you mean 'America/New_York'" in caught.value.lines[0]
    with pytest.raises(BarsError, match="max_missing nan"):
        load_bars(tmp_path / "a.csv", max_missing=float("nan"))


def test_hours(tmp_path: Path) -> None:
    frame = frame_of(minutes("2025-06-02 13:20", 410))
    path = write(frame, tmp_path / "a.feather")
    bars, report = load_bars(path)
    assert_holds(bars, frame.iloc[10:400])
    assert (report.rows_read, report.rows_kept, report.off_hours, report.off_hours_dropped) == (
        410,
        390,
        20,
        20,
    )
    assert "20 bars outside the sessions left out (hours: regular); first: 2025-06-02T13:20Z" in "\n".join(
        report.lines()
    )
    bars, report = load_bars(path, hours="all")
    assert_holds(bars, frame)
    assert (report.rows_kept, report.off_hours, report.off_hours_dropped, report.missing_minutes) == (
        410,
        20,
        0,
        0,
    )
    path = write(frame_of(minutes("2025-06-07 13:30", 390)), tmp_path / "b.feather")
    with pytest.raises(BarsError, match=r"none of the 390 bars .* lies inside the sessions of XNYS"):
        load_bars(path)
    assert load_bars(path, calendar="24/7", max_missing=0.75)[0].n == 390


def test_max_missing_is_the_largest_share_that_passes(tmp_path: Path) -> None:
    whole = session_frame()
    path = write(whole.drop(range(100, 139)), tmp_path / "a.feather")  # 39 of 390 are missing
    _, report = load_bars(path)
    assert report.missing_share == pytest.approx(0.1)
    path = write(whole.drop(range(100, 140)), tmp_path / "a.feather")
    with pytest.raises(
        BarsError, match=r"0\.1026 of the regular minutes .* lack one \(40 of 390 .*pass max_missing 0\.11"
    ):
        load_bars(path)
    assert load_bars(path, max_missing=0.11)[1].missing_minutes == 40


@pytest.mark.parametrize(
    ("calendar", "hours"),
    [("XNYS", [("14:30", 390)]), ("XHKG", [("01:30", 150), ("05:00", 180)])],  # in Hong Kong with a break
)
def test_a_file_may_begin_and_end_in_mid_session(tmp_path: Path, calendar: str, hours: list[tuple[str, int]]) -> None:
    """What lies before the first bar and after the last one is not there to be missed."""
    stretches = [minutes(f"2024-11-{day} {first}", count) for day in (25, 26) for first, count in hours]
    part = stretches[0].append(stretches[1:])[100:-50]
    path = write(frame_of(part), tmp_path / "a.feather")
    bars, report = load_bars(path, calendar=calendar, max_missing=0.0)
    assert (bars.n, report.missing_minutes) == (part.size, 150)
    path = write(frame_of(part.delete([7, 8, 9])), tmp_path / "a.feather")
    with pytest.raises(BarsError, match=rf"\(3 of {part.size} in 2 sessions"):
        load_bars(path, calendar=calendar, max_missing=0.0)


def test_the_report_counts_gaps_jumps_and_dead_bars(tmp_path: Path) -> None:
    frame = pd.concat([session_frame("2025-06-02"), session_frame("2025-06-03")], ignore_index=True)
    prices = ["open", "high", "low", "close"]
    frame.loc[100:389, prices] *= 0.5  # a jump inside the session, and one back between the sessions
    frame.loc[[5, 6], "volume"] = 0.0
    frame.loc[5, prices] = frame.loc[5, "close"]
    frame = frame.drop(index=[20, 21, 400]).reset_index(drop=True)
    _, report = load_bars(write(frame, tmp_path / "a.feather"))
    assert (report.gaps, report.longest_gap, report.missing_minutes) == (2, 2, 3)
    assert (report.jumps, report.session_jumps) == (1, 1)
    assert report.examples["jumps"] == ("2025-06-02T15:10Z",)
    assert report.examples["gaps"] == ("2025-06-02T13:52Z", "2025-06-03T13:41Z")
    assert report.zero_volume_share == pytest.approx(2 / 777)
    assert report.one_price_share == pytest.approx(1 / 777)
    assert any(line.startswith("jumps over 20% inside a session: 1; first:") for line in report.lines())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**16), copies=st.integers(0, 30))
def test_fix_undoes_shuffling_and_duplication(tmp_path: Path, seed: int, copies: int) -> None:
    frame = session_frame()
    rng = np.random.default_rng(seed)
    order = np.concatenate((np.arange(390), rng.integers(0, 390, copies)))
    rng.shuffle(order)
    bars, report = load_bars(write(frame.iloc[order].reset_index(drop=True), tmp_path / "a.feather"), fix=True)
    assert_holds(bars, frame)
    assert (report.rows_read, report.exact_duplicates, report.disagreeing_stamps) == (390 + copies, copies, 0)
    assert report.steps_back == int((np.diff(order) < 0).sum())


def test_fix_keeps_the_last_of_rows_that_disagree_and_counts_them(tmp_path: Path) -> None:
    frame = session_frame()
    later = frame.iloc[[3, 8]].assign(volume=[12345.0, frame.loc[8, "volume"]])
    both = pd.concat([frame, later], ignore_index=True)
    bars, report = load_bars(write(both, tmp_path / "a.feather"), fix=True)
    assert bars.volume[3] == 12345.0
    assert (report.exact_duplicates, report.disagreeing_stamps, report.disagreeing_rows) == (1, 1, 1)
    assert "fixed: 1 exact duplicate bars dropped" in report.lines()


def test_fix_does_not_mend_values(tmp_path: Path) -> None:
    frame = session_frame()
    frame.loc[3, "open"] = np.nan
    with pytest.raises(BarsError, match="open is NaN"):
        load_bars(write(frame, tmp_path / "a.feather"), fix=True)


@pytest.mark.parametrize("ending", ["feather", "parquet"])
def test_write_bars_round_trip(tmp_path: Path, ending: str) -> None:
    frame = session_frame()
    bars, _ = load_bars(write(frame, tmp_path / "a.csv"))
    for number, source in enumerate((bars, frame)):
        again, _ = load_bars(write_bars(source, tmp_path / f"b{number}.{ending}"))
        assert again.fingerprint == bars.fingerprint
    stored = pd.read_feather(tmp_path / "b0.feather") if ending == "feather" else None
    if stored is not None:
        assert str(stored["timestamp"].dtype) == "datetime64[ns, UTC]"
        assert stored.columns.tolist() == frame.columns.tolist()
    assert not list(tmp_path.glob("*.part"))


def test_write_bars_refuses(tmp_path: Path) -> None:
    frame = session_frame()
    for bars, path, words in (
        (frame, tmp_path / "a.csv", r"ends in '.csv': pass a name that ends in .feather or .parquet"),
        (frame, tmp_path / "none" / "a.feather", "does not exist: make it first"),
        (frame.drop(columns="open"), tmp_path / "a.feather", "lacks the columns open"),
        (
            frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)),
            tmp_path / "a.feather",
            "no time zone",
        ),
    ):
        with pytest.raises(BarsError, match=words):
            write_bars(bars, path)
