"""Bad input to the command: one line for each mistake, exit code 2, nothing started and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from sentio_rllib.sweep import run
from sentio_rllib.sweep.__main__ import main
from tests.tiny_sweep import market_frame, run_command, tiny_values, write_config

BAR = market_frame()["timestamp"].iloc[100].strftime("%Y-%m-%dT%H:%M")


def _file(change: Callable[[pd.DataFrame], pd.DataFrame], name: str = "BAD_1m.csv") -> Callable[[Path], list[str]]:
    """Arguments that name a file of changed bars."""

    def arguments(folder: Path) -> list[str]:
        path = folder / name
        frame = change(market_frame())
        frame.to_feather(path) if path.suffix == ".feather" else frame.to_csv(path, index=False)
        return ["--set", f"data.path={path}"]

    return arguments


def _without_price(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(close=frame["close"].where(frame.index != 100))


def _twice(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame.iloc[:101], frame.iloc[100:]])


def _naive(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None))


def _people(_: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"name": ["Ann", "Bob"], "age": [31, 44]})


FOUR = ["ppo.learning_rte=1e-3", "ppo.clip=-1", "validation.folds=two", "search.sampler=tpee"]


@dataclass
class Bad:
    """A bad input: its arguments, and what each line of the answer holds."""

    arguments: Callable[[Path], list[str]]
    lines: list[list[str]]


BAD = {
    "missing file": Bad(lambda folder: ["--set", f"data.path={folder / 'none.feather'}"], [["none.feather", "exist"]]),
    "no market": Bad(_file(_people, "people.csv"), [["people", "timestamp"]]),
    "a price that is none": Bad(_file(_without_price), [["BAD", "close", "NaN", BAR]]),
    "a bar twice": Bad(_file(_twice), [["BAD", "duplicate", BAR, "data.fix"]]),
    "naive stamps": Bad(_file(_naive), [["BAD", "time zone", "data.tz"]]),
    "too few bars": Bad(
        _file(lambda frame: frame[:2500], "BAD_1m.feather"), [["too few bars", "needed ", "available 2500"]]
    ),
    "four mistakes": Bad(
        lambda _: [part for pair in FOUR for part in ("--set", pair)],
        [["ppo.learning_rte", "ppo.learning_rate"], ["ppo.clip"], ["validation.folds"], ["search.sampler", "tpe"]],
    ),
    "a name that is a path": Bad(lambda _: ["--name", "../evil"], [["name: ", "../evil"]]),
    "nothing to resume": Bad(lambda _: ["--resume"], [["no sweep to resume"]]),
}


def assert_told(lines: list[str], wanted: list[list[str]]) -> None:
    assert len(lines) == len(wanted), lines
    for parts in wanted:
        assert any(line.startswith("error: ") and all(part in line for part in parts) for line in lines), lines


def no_ray(address: str | None) -> None:
    pytest.fail(f"the command came as far as Ray, address {address}")


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_line_each(
    name: str, bars_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "cluster", no_ray)
    config = write_config(tiny_values(bars_file, tmp_path / "experiments"), tmp_path / "tiny.yaml")
    assert main([str(config), *BAD[name].arguments(tmp_path)]) == 2
    told = capsys.readouterr()
    assert_told(told.err.splitlines(), BAD[name].lines)
    assert "dashboard" not in told.out
    assert not (tmp_path / "experiments").exists()
    assert not (tmp_path / "evil").exists()


def test_an_address_without_a_ray_is_told_by_the_command(bars_file: Path, tmp_path: Path) -> None:
    config = write_config(tiny_values(bars_file, tmp_path / "experiments"), tmp_path / "tiny.yaml")
    answer = run_command(config, "--address", "127.0.0.1:1")
    assert answer.returncode == 2, answer.stderr
    assert_told(answer.stderr.splitlines(), [["--address 127.0.0.1:1", "ray start --head"]])
    assert not (tmp_path / "experiments").exists()


def test_a_used_name_is_refused_by_the_command(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "cluster", no_ray)
    values = tiny_values(tmp_path / "none.feather", finished.parent)
    assert main([str(write_config(values, tmp_path / "tiny.yaml"))]) == 2
    told = capsys.readouterr()
    assert told.err == f"error: {finished}: the name is used; pass --resume to go on with it, or another --name\n"
    assert told.out == ""
