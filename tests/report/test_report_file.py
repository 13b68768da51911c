"""The report as a file: the same bytes from the same sweep, nothing else touched, and the command that writes it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sentio_rllib.errors import SweepError
from sentio_rllib.report.__main__ import main
from sentio_rllib.report.page import write_report
from tests.report.folders import write_sweep, write_unscored


class TestWriting:
    def test_same_files_same_bytes(self, tmp_path: Path) -> None:
        folder = write_sweep(tmp_path / "s", trials=8, folds=1, arms=True)
        first = write_report(folder).read_bytes()
        shutil.rmtree(folder)
        write_sweep(folder, trials=8, folds=1, arms=True)
        assert write_report(folder).read_bytes() == first

    def test_sweep_is_left_as_it_was(self, tmp_path: Path) -> None:
        folder = write_sweep(tmp_path / "s", trials=2, folds=1)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert write_report(folder) == folder / "report.html"
        after = {path.name: path.read_bytes() for path in folder.iterdir()}
        del after["report.html"]
        assert after == before

    def test_output_cannot_be_written(self, tmp_path: Path) -> None:
        folder = write_unscored(tmp_path / "s")
        (tmp_path / "file").write_text("")
        with pytest.raises(SweepError, match=r"cannot be written .*; choose another --output"):
            write_report(folder, tmp_path / "file" / "report.html")

    def test_command(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder, output = write_unscored(tmp_path / "s"), tmp_path / "out" / "page.html"
        assert main([str(folder), "--output", str(output)]) == 0
        assert capsys.readouterr().out == f"wrote {output}\n"
        assert output.read_text().startswith("<!DOCTYPE html>")
        assert not (folder / "report.html").exists()

    def test_command_refuses_a_folder_that_is_no_sweep(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(tmp_path)]) == 2
        told = capsys.readouterr().err
        assert told == f"error: {tmp_path}: no sweep is here (summary.json is missing); pass experiments/NAME\n"
        assert list(tmp_path.iterdir()) == []

    def test_needs_neither_ray_nor_torch(self) -> None:
        code = (
            "import sys, sentio_rllib.report.page\n"
            "above = ('sweep', 'ppo', 'policy', 'validation', 'trading', 'market')\n"
            "unwanted = {'ray', 'torch', 'matplotlib.pyplot', *(f'sentio_rllib.{name}' for name in above)}\n"
            "print(sorted(unwanted & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"


def test_fixtures_do_not_depend_on_the_day(tmp_path: Path) -> None:
    first, second = (write_sweep(tmp_path / name, trials=4) for name in ("a", "b"))
    for file in ("leaderboard", "curves", "returns", "equity"):
        path = f"{file}.parquet"
        pd.testing.assert_frame_equal(pd.read_parquet(first / path), pd.read_parquet(second / path))
