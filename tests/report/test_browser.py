"""The page in headless Chromium: it opens without a console error, and shows something."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sentio_rllib.report.page import write_report
from tests.report.folders import write_sweep, write_unscored

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--v=0",
    "--window-size=1200,1600",
)
_CONSOLE = re.compile(r"^\[.*:CONSOLE.*$", re.MULTILINE)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="neither chromium nor chromium-browser is on the path; install Debian's chromium"
)


def console(page: Path, folder: Path) -> list[str]:
    """Open a page, which must give a screenshot, and return what was written to its console."""
    screenshot = folder / f"{page.stem}.png"
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--screenshot={screenshot}", page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert screenshot.stat().st_size > 2_000
    return _CONSOLE.findall(done.stderr)


def test_opens_without_a_console_error(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep", trials=8, reopened=True, arms=True)
    assert console(write_report(folder), tmp_path) == []


def test_a_console_error_would_be_seen(tmp_path: Path) -> None:
    page = write_report(write_unscored(tmp_path / "sweep"))
    page.write_text(page.read_text().replace("</main>", '<img src="https://example.org/a.png" alt=""></main>'))
    (line,) = console(page, tmp_path)
    assert "Content Security Policy" in line
