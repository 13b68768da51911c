"""Files of several instruments: refused with what picks one, whatever the column is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sentio_rllib.market.bars import load_bars
from tests.market.bar_files import (
    assert_holds,
    frame_of,
    minutes,
    refusal,
    session_frame,
    write,
)


def two_instruments(column: str, *, values: tuple[object, object] = ("AAPL", "MSFT")) -> pd.DataFrame:
    one, other = session_frame(), frame_of(minutes("2025-06-02 13:30", 390), seed=1)
    return pd.concat([one.assign(**{column: values[0]}), other.assign(**{column: values[1]})], ignore_index=True)


@pytest.mark.parametrize("ending", ["csv", "parquet", "feather"])
@pytest.mark.parametrize(
    "column", ["symbol", "Ticker", "tic", "<TICKER>", "instrument_id", "publisher_id", "root", "sym"]
)
@pytest.mark.parametrize("interleaved", [False, True])
def test_several_instruments_are_refused_or_one_is_picked(
    tmp_path: Path, ending: str, column: str, interleaved: bool
) -> None:
    values: tuple[object, object] = (17, 39) if column.endswith("_id") else ("AAPL", "MSFT")
    frame = two_instruments(column, values=values)
    frame = frame.sort_values("timestamp", kind="stable") if interleaved else frame
    path = write(frame.reset_index(drop=True), tmp_path / f"a.{ending}")
    for fix in (False, True):
        line = refusal(path, fix=fix)
        assert f"2 instruments in one file by column {column.strip('<>').lower()}: {values[0]} (390 rows" in line
        assert "pass fix" not in line
    bars, report = load_bars(path, symbol=str(values[1]))
    assert_holds(bars, frame_of(minutes("2025-06-02 13:30", 390), seed=1))
    assert any(note.startswith(f"symbol {values[1]} picks 390 of 780 rows") for note in report.notes)
    assert "symbol 'GOOG' is none of the 2 instruments of column" in refusal(path, symbol="GOOG")


def test_a_column_of_any_name_tells_instruments_apart(tmp_path: Path) -> None:
    path = write(two_instruments("what"), tmp_path / "a.csv")
    assert "2 instruments in one file by column what: AAPL (390 rows" in refusal(path, fix=True)
    path = write(two_instruments("what").drop(columns="what"), tmp_path / "b.csv")
    line = refusal(write(_apart(two_instruments("what").drop(columns="what")), path), fix=True)
    assert "rows of one stamp have closes more than 5% apart, as of several instruments," in line


def _apart(frame: pd.DataFrame) -> pd.DataFrame:
    prices = ["open", "high", "low", "close"]
    return frame.assign(**{name: np.where(frame.index < 390, frame[name], 3 * frame[name]) for name in prices})


def test_the_five_first_of_many_instruments_are_told(tmp_path: Path) -> None:
    frames = [frame_of(minutes("2025-06-02 13:30", 20), seed=n).assign(symbol=f"S{n}") for n in range(9)]
    line = refusal(write(pd.concat(frames), tmp_path / "a.csv"))
    assert "S4 (20 rows, 2025-06-02T13:30Z .. 2025-06-02T13:49Z) and 4 more: pass symbol='S0'" in line


@pytest.mark.parametrize("column", ["contract", "front", "expiry"])
def test_contracts_one_after_the_other_are_several(tmp_path: Path, column: str) -> None:
    values = ("ESM5", "ESU5") if column != "expiry" else ("2025-06", "2025-09")
    frame = pd.concat(
        [
            session_frame("2025-06-02").assign(**{column: values[0]}),
            session_frame("2025-06-03").assign(**{column: values[1]}),
        ]
    )
    line = refusal(write(frame, tmp_path / "a.csv"))
    assert (
        f"{values[0]} (390 rows, 2025-06-02T13:30Z .. 2025-06-02T19:59Z), {values[1]} (390 rows, 2025-06-03T13:30Z"
        in line
    )
    assert "they follow each other as contracts do, and a roll is no return" in line


def test_instruments_side_by_side_are_refused(tmp_path: Path) -> None:
    one, other = session_frame(), session_frame().drop(columns="timestamp")
    path = tmp_path / "a.csv"
    pd.concat([one, other], axis=1).to_csv(path, index=False)
    assert "2 instruments side by side (columns close, close): pass columns with the names of one" in refusal(path)
    assert_holds(load_bars(path, columns="timestamp,open,high,low,close,volume,_,_,_,_,_")[0], one)


def test_a_symbol_does_not_pick_twice(tmp_path: Path) -> None:
    frames = [two_instruments("symbol").assign(publisher_id=n) for n in (2, 39)]
    path = write(pd.concat(frames, ignore_index=True), tmp_path / "a.csv")
    line = refusal(path, symbol="MSFT", fix=True)
    assert "2 instruments in one file by column publisher_id: 2 (390 rows" in line
    assert line.endswith(": keep the rows of one of them in the file")


def test_a_symbol_in_a_column_that_is_named_by_the_user(tmp_path: Path) -> None:
    frame = two_instruments("symbol")[["symbol", "timestamp", "open", "high", "low", "close", "volume"]]
    path = write(frame, tmp_path / "a.csv", header=False)
    columns = "symbol,timestamp,open,high,low,close,volume"
    assert "2 instruments in one file by column symbol" in refusal(path, columns=columns)
    assert load_bars(path, columns=columns, symbol="AAPL")[0].n == 390
    assert "2 instruments in one file by column 1" in refusal(path, columns=columns.replace("symbol", "_"))


def test_a_symbol_is_a_name_where_nothing_is_to_pick(tmp_path: Path) -> None:
    frame = session_frame().assign(symbol="AAPL.US", exchange="Q")
    bars, report = load_bars(write(frame, tmp_path / "a.csv"), symbol="AAPL")
    assert_holds(bars, frame)
    assert bars.symbol == "AAPL"
    assert "symbol AAPL is taken as a name; the file is of AAPL.US (column symbol)" in report.notes
    assert load_bars(write(session_frame(), tmp_path / "b.csv"), symbol="AAPL")[0].symbol == "AAPL"
