"""Layouts of vendors: the options that read their files, in one table, and how a file of theirs is recognised."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

VendorName = Literal[
    "polygon",
    "massive",
    "alpaca",
    "databento",
    "ibkr",
    "binance",
    "kraken",
    "tradingview",
    "metatrader",
    "firstrate",
    "kibot",
    "stooq",
    "ninjatrader",
    "histdata",
    "yfinance",
]
NAMES: tuple[str, ...] = get_args(VendorName)


@dataclass(frozen=True)
class Vendor:
    """A vendor's layout.

    Attributes
    ----------
    columns
        Names of the columns where the file has no header line.
    options
        Options of :func:`sentio_rllib.market.bars.load_bars` that hold for all its files.
    fixed_point
        Divisor of its prices where they are in fixed point; the same vendor writes decimal ones as well.
    header
        Normalised names that its header line has.
    first_line
        Pattern of the first line of a file without a header line.
    calendar
        Calendar to pass where it is not the default; it is never set here, since more than the bars depends on it.
    """

    columns: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    fixed_point: float | None = None
    header: frozenset[str] = frozenset()
    first_line: str | None = None
    calendar: str | None = None


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NUMBER = r"-?\d+(\.\d+)?(e-?\d+)?"
_POLYGON = Vendor(header=_names("ticker window_start transactions"))
_SEMICOLONS = rf"\d{{8}} \d{{6}}(;{_NUMBER}){{5}}$"
_NEW_YORK = {"tz": "America/New_York"}
VENDORS: dict[str, Vendor] = {
    "polygon": _POLYGON,
    "massive": _POLYGON,  # Polygon's name since 2025
    "alpaca": Vendor(header=_names("timestamp trade_count vwap")),
    "databento": Vendor(fixed_point=1e9, header=_names("ts_event rtype publisher_id")),
    "ibkr": Vendor(header=_names("date average barcount")),
    "binance": Vendor(
        columns="timestamp,open,high,low,close,volume,_,_,_,_,_,_",
        header=_names("open_time close_time ignore"),
        first_line=rf"\d{{13,16}}(,{_NUMBER}){{5}},\d{{13,16}}(,{_NUMBER}){{5}}$",
        calendar="24/7",
    ),
    "kraken": Vendor(
        columns="timestamp,open,high,low,close,volume,_",
        first_line=rf"\d{{10}}(,{_NUMBER}){{5}},\d+$",
        calendar="24/7",
    ),
    "tradingview": Vendor(),
    "metatrader": Vendor(
        columns="date,time,open,high,low,close,ticks",
        header=_names("date time tickvol spread"),
        first_line=rf"\d{{4}}\.\d\d\.\d\d,\d\d:\d\d(,{_NUMBER}){{5}}$",
    ),
    "firstrate": Vendor(columns="timestamp,open,high,low,close,volume", options=_NEW_YORK),
    "kibot": Vendor(
        columns="date,time,open,high,low,close,volume",
        options={"date_order": "mdy", **_NEW_YORK},
        first_line=rf"\d\d/\d\d/\d{{4}},\d\d:\d\d(,{_NUMBER}){{5}}$",
    ),
    "stooq": Vendor(header=_names("ticker per date time openint")),
    # exports are in UTC and date a bar by its end
    "ninjatrader": Vendor(
        columns="timestamp,open,high,low,close,volume",
        options={"tz": "UTC", "stamp": "end"},
        first_line=_SEMICOLONS,
    ),
    # New York's winter time all year, and a volume that is always 0
    "histdata": Vendor(
        columns="timestamp,open,high,low,close,volume",
        options={"tz": "Etc/GMT+5", "volume": "none"},
        first_line=_SEMICOLONS,
        calendar="24/5",
    ),
    "yfinance": Vendor(
        options={"skip": ("Ticker,", "Datetime,,")},
        header=_names("datetime open high low close adj_close volume"),
        first_line=r"Price,(Adj Close,)?Close,High,Low,Open,Volume$",
    ),
}


def recognise(names: Collection[str], first_line: str) -> str | None:
    """Return whose layout a file is of, several names joined by ``or``, or None where it cannot be told.

    Parameters
    ----------
    names
        The normalised names of its columns; empty where it has none.
    first_line
        Its first line; empty for binary files.
    """
    found = [
        name
        for name, vendor in VENDORS.items()
        if (vendor.header and vendor.header <= set(names))
        or (vendor.first_line and re.match(vendor.first_line, first_line))
    ]
    return " or ".join(each for each in found if each != "massive") or None


def advice(recognised: str) -> str:
    """Return what to pass for a file of a vendor's layout."""
    first = recognised.partition(" or ")[0]
    calendar = VENDORS[first].calendar
    return f"pass vendor={first!r}" + (f" and calendar={calendar!r}" if calendar else "")
