"""The page of a sweep that ran: what stands at two places is one number."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sentio_rllib.report.page import render
from sentio_rllib.report.sweep_files import read_sweep
from tests.report.test_page import badge, head_of, section

PERCENT = r"(-?[\d,.]+%)"


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    return render(read_sweep(finished))


def test_the_growth_under_the_curve_is_the_total_return_of_the_table(page: str) -> None:
    drawn = re.findall(rf"champion {PERCENT}, buy and hold {PERCENT}, after costs", section(page, "equity"))
    told = re.findall(rf"total return {PERCENT} {PERCENT} {PERCENT}", section(page, "metrics"))
    assert len(drawn) == 2  # in cross-validation and in the holdout
    assert drawn == [(champion, hold) for champion, _, hold in told]
    assert all(hold != "0.0%" for _, hold in drawn)


def test_head_and_badge_tell_the_market_and_what_its_trading_costs(page: str) -> None:
    told = head_of(page)
    assert (told["market"], told["costs"], told["calendar"]) == (
        "PLANTED",
        "fee 0.1% a side",
        "XNYS, hours regular",
    )
    assert badge(page).endswith(" at 95%, fee 0.1% a side, PLANTED")
    assert page.count("Undeflated") == 1
