"""The market command: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sentio_rllib.market.__main__ import main
from sentio_rllib.market.bars import load_bars
from sentio_rllib.market.synthetic import session_grid
from tests.market.bar_files import frame_of, minutes, session_frame, write


def test_check_prints_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(session_frame(), tmp_path / "QQQ_1m.csv")
    assert main(["check", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("QQQ: 390 rows read, 390 bars kept, 2025-06-02T13:30Z .. 2025-06-02T19:59Z, 1 sessions")
    assert "missing: 0 of 390 regular minutes" in out
    assert err == ""


def frame_as_volatile_as(deviation: float) -> pd.DataFrame:
    """Ten sessions of minutes with log returns of this deviation, and a wild eleventh."""
    stamps = pd.to_datetime(session_grid(11 * 390), utc=True)
    deviations = np.repeat([deviation, 30 * deviation], [3_900, 390])
    close = 100.0 * np.exp(np.cumsum(deviations * np.random.default_rng(0).standard_normal(4_290)))
    opening = np.append(100.0, close[:-1])
    high, low = np.maximum(opening, close), np.minimum(opening, close)
    values = {"open": opening, "high": high, "low": low, "close": close, "volume": 100.0}
    return pd.DataFrame({"timestamp": stamps, **values})


@pytest.mark.parametrize(("times", "suggested"), [(1, None), (1.3, None), (3, 1.5e-3), (0.4, 2e-4)])
def test_check_suggests_a_reference_volatility_for_unusual_bars(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], times: float, suggested: float | None
) -> None:
    # minutes of QQQ have about 3e-4 on a usual day; one day that is not usual changes nothing
    frame = frame_as_volatile_as(times * 3e-4)
    assert main(["check", str(write(frame, tmp_path / "QQQ_1m.feather"))]) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("one-minute volatility")]
    assert f"{times * 3e-4:.1e}" in line
    found = re.findall(r"features\.reference_volatility=(\S+) suits these bars \(default 0\.0005\)", line)
    assert [float(each) for each in found] == ([] if suggested is None else [suggested])


def test_import_keeps_all_hours_and_thin_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = frame_of(minutes("2025-06-02 11:00", 180)).drop(range(155, 175)).reset_index(drop=True)
    local = frame["timestamp"].dt.tz_convert("America/New_York").dt.tz_localize(None)
    shuffled = frame.assign(timestamp=local).sample(frac=1, random_state=0)
    path = write(pd.concat([shuffled, shuffled.iloc[:4]]), tmp_path / "QQQ.csv")
    output = tmp_path / "out.parquet"
    arguments = ["import", str(path), "--output", str(output), "--tz", "America/New_York"]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.startswith("error: QQQ: ") for line in err.splitlines()] == [True, True]
    assert not output.exists()
    assert main([*arguments, "--fix"]) == 0
    out, err = capsys.readouterr()
    assert "fixed: 4 exact duplicate bars dropped" in out
    assert out.endswith(f"wrote 160 bars to {output}\n")
    stored = pd.read_parquet(output)
    assert str(stored["timestamp"].dtype) == "datetime64[ns, UTC]"
    np.testing.assert_array_equal(stored["close"], frame["close"])
    assert main(["check", str(output), "--hours", "all", "--max-missing", "0.93"]) == 0
    assert main(["check", str(output)]) == 2
    assert "above max_missing 0.1" in capsys.readouterr().err


def test_options_reach_the_reader(tmp_path: Path) -> None:
    frame = frame_of(minutes("2025-06-07 00:01", 1440))  # a Saturday, stamped at the end of each bar
    columns = ["timestamp", "open", "close", "high", "low", "volume"]
    path = write(frame[columns], tmp_path / "coin.csv", header=False)
    output = tmp_path / "coin.feather"
    told = ["--columns", ",".join(columns), "--stamp", "end", "--calendar", "24/7", "--symbol", "COIN"]
    assert main(["import", str(path), "--output", str(output), *told]) == 0
    bars, report = load_bars(output, calendar="24/7")
    assert (bars.first, bars.n, report.missing_minutes) == ("2025-06-07T00:00Z", 1440, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "absent.csv"], "bars file 'absent.csv' does not exist"),
        (["check", "absent.csv", "--calendar", "NOWHERE"], "calendar 'NOWHERE' is unknown"),
        (["check", "absent.csv", "--max-missing", "2"], "max_missing 2.0 is out of range"),
        (
            ["check", "absent.csv", "--max-missing", "much"],
            "argument --max-missing: invalid float value: 'much'",
        ),
        (["check", "absent.csv", "--stamp", "middle"], "argument --stamp: invalid choice: 'middle'"),
        (["import", "absent.csv"], "the following arguments are required: --output"),
        (
            ["import", "absent.parquet", "--output", "absent.parquet"],
            "is the file to import: pass another name",
        ),
        (["sell", "absent.csv"], "invalid choice: 'sell'"),
        ([], "the following arguments are required"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as left:
        code = left.code
    assert code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1


def test_a_bad_output_is_told_before_the_file_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(session_frame(), tmp_path / "QQQ.csv")
    assert main(["import", str(path), "--output", str(tmp_path / "out.csv")]) == 2
    assert "ends in '.csv': pass a name that ends in .feather or .parquet" in capsys.readouterr().err


def test_as_a_module(tmp_path: Path) -> None:
    path = write(session_frame(), tmp_path / "QQQ.csv")
    command = [sys.executable, "-m", "sentio_rllib.market", "check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*command[:-1], str(tmp_path / "no.csv")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
