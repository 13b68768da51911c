"""One file of bars for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sweep.tiny import market_frame


@pytest.fixture(scope="session")
def bars_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feather file of a small planted market."""
    path = tmp_path_factory.mktemp("bars") / "PLANTED_1m.feather"
    market_frame().to_feather(path)
    return path
