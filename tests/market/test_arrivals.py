"""Kinds of faults that files arrive with, in variants: read right, or refused in one line with the way out."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sentio_rllib.market.bars import load_bars
from tests.market.bar_files import (
    REAL,
    assert_holds,
    needs_real_bars,
    refusal,
    session_frame,
    text,
    write,
)

# prices


@pytest.mark.parametrize(("scale", "told"), [(10**9, "1e9"), (10**4, "1e4")])
@pytest.mark.parametrize("ending", ["csv", "feather"])
def test_prices_in_fixed_point_are_never_taken(tmp_path: Path, scale: int, told: str, ending: str) -> None:
    frame = session_frame()
    prices = {name: np.rint(frame[name] * scale).astype(np.int64) for name in ("open", "high", "low", "close")}
    path = write(frame.assign(**prices), tmp_path / f"a.{ending}")
    assert f"pass price_scale={told} if they are" in refusal(path)
    bars, report = load_bars(path, price_scale=float(scale))
    assert_holds(bars, frame)
    assert f"prices divided by {scale:g} (price_scale)" in report.notes
    assert load_bars(path, price_scale=1.0)[0].close[0] == frame["close"][0] * scale


def test_true_whole_prices_pass(tmp_path: Path) -> None:
    frame = session_frame()
    prices = {name: np.rint(frame[name] * 397) for name in ("open", "high", "low", "close")}  # as of Nikkei futures
    assert load_bars(write(frame.assign(**prices), tmp_path / "a.csv"))[0].close[0] == round(frame["close"][0] * 397)


def test_rounding_is_no_price_outside_the_range(tmp_path: Path) -> None:
    frame = session_frame()
    frame.loc[3, "close"] = np.nextafter(frame.loc[3, "high"], np.inf)
    frame.loc[5, "open"] = frame.loc[5, "low"] * (1 - 1e-10)
    frame.loc[7, ["open", "high", "low", "close"]] = [100.0, 100.0, np.nextafter(100.0, np.inf), 100.0]
    bars, report = load_bars(write(frame, tmp_path / "a.feather"))
    assert "high or low widened by rounding to hold open and close: 3 bars" in report.notes
    assert bars.high[3] == bars.close[3] == frame.loc[3, "close"]
    assert bars.low[5] == bars.open[5]
    frame.loc[9, "close"] = frame.loc[9, "high"] * (1 + 1e-6)
    assert "outside low .. high in 1 of 390 rows; first: row 10" in refusal(write(frame, tmp_path / "a.feather"))


def test_rows_without_prices_are_missing_minutes_on_demand(tmp_path: Path) -> None:
    frame = session_frame()
    frame.loc[[4, 9], ["open", "high", "low", "close", "volume"]] = np.nan
    frame.loc[12, ["open", "high", "low", "close"]] = np.nan
    path = write(frame, tmp_path / "a.csv")
    line = refusal(path)
    assert "there are no prices (NaN or empty) in 3 of 390 rows; first: line 6, 11, 14: pass fix to drop them" in line
    bars, report = load_bars(path, fix=True)
    assert (bars.n, report.rows_read, report.empty_rows, report.missing_minutes) == (387, 390, 3, 3)
    assert "fixed: 3 rows without prices dropped, their minutes are missing" in report.lines()


# stretches that are no minutes


@pytest.mark.parametrize("step", [2, 5, 15])
def test_a_stretch_of_several_minutes_is_refused(tmp_path: Path, step: int) -> None:
    frame = pd.concat([session_frame(f"2025-06-{day:02}") for day in (2, 3, 4, 5, 6, 9, 10)], ignore_index=True)
    second = frame.index // 390 == 1
    sparse = frame[~second | (frame.index % step == 0)].reset_index(drop=True)
    line = refusal(write(sparse, tmp_path / "a.feather"), max_missing=1.0)
    hour = frame[(frame.index >= 45) | (frame.index % 5 == 0)].reset_index(drop=True)
    assert "10 bars between 2025-06-02T13:30Z and 2025-06-02T14:15Z are 5" in refusal(
        write(hour, tmp_path / "b.feather")
    )
    assert "between 2025-06-03T13:30Z and 2025-06-03T" in line
    assert f"are {step} minutes apart throughout" in line


@pytest.mark.parametrize("step", [2, 3, 5, 10])
@pytest.mark.parametrize("how", ["all", "close, no volume", "close, all volumes"])
def test_bars_that_are_filled_forward_are_refused(tmp_path: Path, step: int, how: str) -> None:
    frame = pd.concat([session_frame("2025-06-02"), session_frame("2025-06-03")], ignore_index=True)
    real = frame.index // step * step
    filled = frame.iloc[real].reset_index(drop=True).assign(timestamp=frame["timestamp"])
    copies = frame.index % step > 0
    if how != "all":
        filled.loc[copies, ["open", "high", "low"]] = filled.loc[copies, "close"].to_numpy()[:, None].repeat(3, axis=1)
    if how == "close, no volume":
        filled.loc[copies, "volume"] = 0.0
    line = refusal(write(filled, tmp_path / "a.feather"))
    assert f"repeat the one before; only every {step} minutes is one new" in line


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_thin_market_is_not_taken_for_a_filled_one(tmp_path: Path, share: float) -> None:
    """Without a trade the price stands still and nothing is traded, at any minute; or there is no bar."""
    rng = np.random.default_rng(0)
    frame = pd.concat([session_frame(f"2025-06-{day:02}") for day in range(2, 7)], ignore_index=True)
    still = rng.random(frame.shape[0]) < share
    still[0] = False
    real = np.maximum.accumulate(np.where(still, 0, frame.index))
    filled = frame.iloc[real].reset_index(drop=True).assign(timestamp=frame["timestamp"])
    filled.loc[still, ["open", "high", "low"]] = filled.loc[still, "close"].to_numpy()[:, None].repeat(3, axis=1)
    filled.loc[still, "volume"] = 0.0
    assert load_bars(write(filled, tmp_path / "a.feather"))[0].n == frame.shape[0]
    assert load_bars(write(frame[~still].reset_index(drop=True), tmp_path / "b.feather"), max_missing=1.0)[0].n


@needs_real_bars
def test_thin_real_bars_are_minutes() -> None:
    assert load_bars(REAL / "ERY_1m_2025-04_2025-10.feather", max_missing=0.35)[0].n == 35_131


# text


def lines_of(frame: pd.DataFrame) -> list[str]:
    return frame.to_csv(index=False).splitlines()


def test_comments_and_footers_are_skipped_on_demand(tmp_path: Path) -> None:
    frame = session_frame()
    rows = lines_of(frame)
    content = ["# made by a tool", "#", *rows[:100], "# a pause, of, some, sort", *rows[100:], "Total rows: 390", ""]
    path = text(tmp_path / "a.csv", "\n".join(content))
    assert "4 of 395 rows have another number of cells than 6; first: line 1 ('# made by a tool') with 1" in refusal(
        path
    )
    bars, report = load_bars(path, skip=[2, "# a", "Total"])
    assert_holds(bars, frame)
    assert "lines left out by skip: 4 (line 1, 2, 103, 395)" in report.notes
    assert_holds(load_bars(path, skip=["#", "Total"])[0], frame)
    line = refusal(text(tmp_path / "b.csv", "\n".join([*rows, "End of file"])))
    assert "first: line 392 ('End of file') with 1: pass skip='End of file' to leave out what begins so" in line
    line = refusal(text(tmp_path / "c.csv", "\n".join(["http://a.b", "downloaded today", *rows])))
    assert "pass skip=2 to leave out the first lines" in line
    line = refusal(text(tmp_path / "d.csv", "\n".join([*rows, "2025-06-02 20:00:00+00:00,10"])))
    assert "first: line 392" in line
    assert "correct or remove these lines in the file" in line


@pytest.mark.parametrize("skip", [-1, "", True, [1, ""]])
def test_skips_out_of_range(tmp_path: Path, skip: Any) -> None:
    assert "is out of range: pass a number of lines from 0" in refusal(tmp_path / "absent.csv", skip=skip)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("where", ["rows", "header", "both", "neither"])
@pytest.mark.parametrize("named", [False, True])
def test_a_delimiter_too_many(tmp_path: Path, delimiter: str, where: str, named: bool) -> None:
    frame = session_frame()
    head, *rows = frame.to_csv(index=False, sep=delimiter).splitlines()
    head += delimiter if where in ("header", "both") else ""
    rows = [row + (delimiter if where in ("rows", "both") else "") for row in rows]
    columns = "timestamp,open,high,low,close,volume"
    assert_holds(
        load_bars(text(tmp_path / "a.csv", "\n".join([head, *rows])), columns=columns if named else None)[0], frame
    )
    assert_holds(load_bars(text(tmp_path / "b.csv", "\n".join(rows)), columns=columns)[0], frame)


def test_a_header_of_another_width_needs_columns(tmp_path: Path) -> None:
    frame = session_frame()
    rows = lines_of(frame.assign(trades=5))
    path = text(tmp_path / "a.csv", "\n".join(["timestamp,open,high,low,close,volume", *rows[1:]]))
    assert "the header line names 6 columns (timestamp, open, high, low, close, volume) but rows have 7" in refusal(
        path
    )
    assert_holds(load_bars(path, columns="timestamp,open,high,low,close,volume,_")[0], frame)


def test_a_header_at_the_end_and_byte_order_marks(tmp_path: Path) -> None:
    frame = session_frame()
    head, *rows = lines_of(frame)
    bars, report = load_bars(text(tmp_path / "a.csv", "\n".join([*rows, head])))
    assert_holds(bars, frame)
    assert "the header line is the last line" in report.notes
    for encoding in ("utf-16", "utf-16-be", "utf-8-sig"):
        content = "\n".join([head, *rows]).encode(encoding)
        content = codecs.BOM_UTF16_BE + content if encoding == "utf-16-be" else content
        (tmp_path / "b.csv.gz").write_bytes(gzip.compress(content))
        assert_holds(load_bars(tmp_path / "b.csv.gz")[0], frame)
    twice = "\n".join([head, *rows[:200], "\ufeff" + head, *rows[200:]])
    assert "the header line stands again in 1 of 391 rows; first: line 202" in refusal(text(tmp_path / "c.csv", twice))
    (tmp_path / "d.csv").write_bytes("\n".join([head, *rows]).encode("utf-16-le"))
    assert "is no text in UTF-8 (it holds NUL bytes)" in refusal(tmp_path / "d.csv")


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("header", [False, True])
def test_decimal_commas(tmp_path: Path, delimiter: str, header: bool) -> None:
    frame = session_frame()
    content = frame.to_csv(index=False, sep=delimiter, decimal=",", header=header)
    columns = None if header else "timestamp,open,high,low,close,volume"
    path = text(tmp_path / "a.csv", content)
    bars, report = load_bars(path, columns=columns)
    assert_holds(bars, frame)
    assert "commas read as decimal marks (decimal: ',')" in report.notes
    assert_holds(load_bars(path, columns=columns, decimal=",")[0], frame)
    assert "is no number (like '100,0')" in refusal(path, columns=columns, decimal=".")


def test_commas_that_may_part_thousands_are_refused(tmp_path: Path) -> None:
    rows = [f"2025-06-02T13:{30 + n}:00Z;1,095;1,096;1,094;1,095;10" for n in range(5)]
    path = text(tmp_path / "a.csv", "\n".join(["time;open;high;low;close;volume", *rows]))
    assert "prices like '1,095' may have a decimal comma or one between thousands: pass decimal=','" in refusal(path)
    assert load_bars(path, decimal=",")[0].close[0] == 1.095
    both = [row.replace(",09", ".500,09") for row in rows]
    assert "is no number" in refusal(text(path, "\n".join(["time;open;high;low;close;volume", *both])), decimal=",")
    quoted = [f'2025-06-02T13:{30 + n}:00Z,"1,5","1,6","1,4","1,5",10' for n in range(5)]
    path = text(path, "\n".join(["time,open,high,low,close,volume", *quoted]))
    assert "is no number (like '1,5') in 5 of 5 rows; first: line 2 (2025-06-02T13:30Z)" in refusal(path)
    assert load_bars(path, decimal=",")[0].close[0] == 1.5


def test_an_index_without_a_name_is_a_stamp_where_it_holds_times(tmp_path: Path) -> None:
    frame = session_frame()
    indexed = frame.set_index("timestamp").rename_axis(None)
    indexed.to_parquet(tmp_path / "a.parquet")
    indexed.to_csv(tmp_path / "a.csv")
    indexed.reset_index().to_feather(tmp_path / "a.feather")
    for ending in ("parquet", "csv", "feather"):
        assert_holds(load_bars(tmp_path / f"a.{ending}")[0], frame)
    whole = frame.drop(columns="timestamp").set_index(np.arange(390) + 1_700_000_000 // 60 * 60)
    whole.to_parquet(tmp_path / "b.parquet")
    whole.to_csv(tmp_path / "b.csv")
    for ending in ("parquet", "csv"):
        assert "column timestamp not found among" in refusal(tmp_path / f"b.{ending}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.zip", "unpack it and pass the file inside"),
        ("a.json", "write it as csv or parquet"),
        ("a.csv.zst", "unpack it first, or compress it with gzip"),
        ("a.dbn", "databento's DBNStore"),
    ],
)
def test_other_kinds_of_files_are_refused_by_name(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert words in refusal(tmp_path / name)


# volume


def test_volumes_that_are_none(tmp_path: Path) -> None:
    frame = session_frame().assign(volume=-1.0)
    path = write(frame, tmp_path / "a.csv")
    assert "volume is negative in 390 of 390 rows" in refusal(path)
    assert "pass volume='none'" in refusal(path)
    bars, _ = load_bars(path, volume="none")
    assert not bars.volume.any()
    assert "pass volume='none'" in refusal(write(frame.assign(volume=np.nan), path))
    assert not load_bars(path, volume="none")[0].volume.any()


def test_tick_volume(tmp_path: Path) -> None:
    frame = session_frame()
    ticks = frame.assign(tick_volume=np.arange(390.0))
    bars, report = load_bars(write(ticks, tmp_path / "a.csv"))
    assert_holds(bars, frame)
    bars, report = load_bars(tmp_path / "a.csv", volume="tick")
    assert_holds(bars, frame.assign(volume=np.arange(390.0)))
    assert "volume is the number of ticks (volume: tick)" in report.notes
    alone = write(ticks.drop(columns="volume"), tmp_path / "b.csv")
    assert_holds(load_bars(alone)[0], frame.assign(volume=np.arange(390.0)))
    line = refusal(write(frame, tmp_path / "c.csv"), volume="tick")
    assert "column of tick volume not found among" in line


# calendars


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("XNSE", "XBOM"),
        ("NSE", "XBOM"),
        ("GLOBEX", "CMES"),
        ("CRYPTO", "24/7"),
        ("FX", "24/5"),
        ("nyse", "XNYS"),
        ("nasdaq", "XNYS"),
        ("lse", "XLON"),
        ("xnys", "XNYS"),
        ("Xetra", "XETR"),
        ("24x7", "24/7"),
    ],
)
def test_calendars_by_their_other_names(tmp_path: Path, name: str, meant: str) -> None:
    assert f"calendar {name!r} is unknown: pass calendar={meant!r}" in refusal(tmp_path / "absent.csv", calendar=name)
