"""Vendors' layouts: a small file of each, as the vendor writes it, read by its name alone where that can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from sentio_rllib.errors import BarsError
from sentio_rllib.market.__main__ import main
from sentio_rllib.market.bars import load_bars
from sentio_rllib.market.vendors import NAMES, VENDORS, VendorName
from tests.market.bar_files import assert_holds, frame_of, minutes

NEW_YORK = "America/New_York"
Layout = Callable[[pd.DataFrame], str]


def rows(frame: pd.DataFrame, stamps: pd.Series, *more: object, mark: str = ",", header: str = "") -> str:
    """Lines of stamp, prices, volume as a whole number, and `more` cells that are the same in each."""
    cells = [stamps.astype(str), *(frame[name].map("{:.2f}".format) for name in ("open", "high", "low", "close"))]
    cells += [frame["volume"].astype(int).astype(str), *(pd.Series(str(each), frame.index) for each in more)]
    lines = [mark.join(line) for line in zip(*cells, strict=True)]
    return "\n".join([*([header] if header else []), *lines]) + "\n"


def local(frame: pd.DataFrame, form: str, zone: str = NEW_YORK) -> pd.Series:
    return frame["timestamp"].dt.tz_convert(zone).dt.strftime(form)


def epoch(frame: pd.DataFrame, per_second: int) -> pd.Series:
    nanoseconds = frame["timestamp"].dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    return pd.Series(nanoseconds // (10**9 // per_second), frame.index)


def polygon(frame: pd.DataFrame) -> str:
    head = ["ticker,volume,open,close,high,low,window_start,transactions"]
    values = zip(frame["volume"].astype(int), frame["open"], frame["close"], frame["high"], frame["low"], strict=True)
    stamps = epoch(frame, 10**9)
    return "\n".join(head + [f"SPY,{v},{o},{c},{h},{lo},{stamps[n]},9" for n, (v, o, c, h, lo) in enumerate(values)])


def alpaca(frame: pd.DataFrame) -> str:
    head = "timestamp,open,high,low,close,volume,trade_count,vwap,symbol"
    return rows(frame, local(frame, "%Y-%m-%d %H:%M:%S+00:00", "UTC"), 5, 100.0, "SPY", header=head)


def databento(frame: pd.DataFrame) -> str:
    head = "ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol"
    prices = {name: np.rint(frame[name] * 1e9).astype(np.int64) for name in ("open", "high", "low", "close")}
    lines = zip(epoch(frame, 10**9), *prices.values(), frame["volume"].astype(int), strict=True)
    return "\n".join([head, *(f"{t},33,2,15144,{o},{h},{lo},{c},{v},SPY" for t, o, h, lo, c, v in lines)])


def databento_in_decimals(frame: pd.DataFrame) -> str:
    head = "ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol"
    stamps = local(frame, "%Y-%m-%dT%H:%M:%S.000000000Z", "UTC") + ",33,2,15144"
    return rows(frame, stamps, "SPY", header=head)


def ibkr(frame: pd.DataFrame) -> str:
    head = "date,open,high,low,close,volume,average,barCount"
    return rows(frame, local(frame, "%Y%m%d %H:%M:%S US/Eastern"), 100.0, 7, header=head)


def binance(frame: pd.DataFrame) -> str:
    close_time = epoch(frame, 10**6).iloc[0] + 59_999_999
    return rows(frame, epoch(frame, 10**6), close_time, "1000.5", 9, "12.0", "600.1", 0)


def kraken(frame: pd.DataFrame) -> str:
    return rows(frame, epoch(frame, 1), 12)


def tradingview(frame: pd.DataFrame) -> str:
    return rows(frame, epoch(frame, 1), header="time,open,high,low,close,Volume")


def metatrader(frame: pd.DataFrame) -> str:
    head = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>"
    return rows(frame, local(frame, "%Y.%m.%d\t%H:%M:%S", "Etc/GMT-3"), 0, 12, mark="\t", header=head)


def metatrader_4(frame: pd.DataFrame) -> str:
    return rows(frame, local(frame, "%Y.%m.%d,%H:%M", "Etc/GMT-3"))


def firstrate(frame: pd.DataFrame) -> str:
    return rows(frame, local(frame, "%Y-%m-%d %H:%M:%S"))


def kibot(frame: pd.DataFrame) -> str:
    return rows(frame, local(frame, "%m/%d/%Y,%H:%M"))


def stooq(frame: pd.DataFrame) -> str:
    head = "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>"
    return rows(frame, "SPY.US,1," + local(frame, "%Y%m%d,%H%M%S", "Europe/Warsaw"), 0, header=head)


def ninjatrader(frame: pd.DataFrame) -> str:
    ends = frame.assign(timestamp=frame["timestamp"] + pd.Timedelta(minutes=1))
    return rows(frame, local(ends, "%Y%m%d %H%M%S", "UTC"), mark=";")


def histdata(frame: pd.DataFrame) -> str:
    return rows(frame.assign(volume=0.0), local(frame, "%Y%m%d %H%M%S", "Etc/GMT+5"), mark=";")


def yfinance(frame: pd.DataFrame) -> str:
    lines = frame[["timestamp", "close", "high", "low", "open", "volume"]].astype({"timestamp": str})
    heads = ["Price,Close,High,Low,Open,Volume", "Ticker,SPY,SPY,SPY,SPY,SPY", "Datetime,,,,,"]
    return "\n".join(heads) + "\n" + lines.to_csv(index=False, header=False)


def yfinance_before(frame: pd.DataFrame) -> str:
    head = "Datetime,Open,High,Low,Close,Adj Close,Volume"
    lines = frame.assign(adjusted=frame["close"] - 1)
    lines = lines[["timestamp", "open", "high", "low", "close", "adjusted", "volume"]].astype({"timestamp": str})
    return head + "\n" + lines.to_csv(index=False, header=False)


CASES: list[tuple[VendorName, Layout, dict[str, Any]]] = [
    ("polygon", polygon, {}),
    ("massive", polygon, {}),
    ("alpaca", alpaca, {}),
    ("databento", databento, {}),
    ("databento", databento_in_decimals, {}),
    ("ibkr", ibkr, {}),
    ("binance", binance, {}),
    ("kraken", kraken, {}),
    ("tradingview", tradingview, {}),
    ("metatrader", metatrader, {"tz": "Etc/GMT-3"}),
    ("metatrader", metatrader_4, {"tz": "Etc/GMT-3"}),
    ("firstrate", firstrate, {}),
    ("kibot", kibot, {}),
    ("stooq", stooq, {"tz": "Europe/Warsaw"}),
    ("ninjatrader", ninjatrader, {}),
    ("histdata", histdata, {}),
    ("yfinance", yfinance, {}),
    ("yfinance", yfinance_before, {}),
]


def frame_for(layout: Layout) -> pd.DataFrame:
    """Two sessions around a clock change of New York, and without volume where the vendor has none."""
    frame = pd.concat([frame_of(minutes("2024-03-08 14:30", 390)), frame_of(minutes("2024-03-11 13:30", 390))])
    frame = frame.reset_index(drop=True)
    return frame.assign(volume=0.0) if layout is histdata else frame


@pytest.mark.parametrize(("vendor", "layout", "options"), CASES)
def test_a_vendors_file_is_read_by_its_name(
    tmp_path: Path, vendor: VendorName, layout: Layout, options: dict[str, Any]
) -> None:
    frame, path = frame_for(layout), tmp_path / "SPY.txt"
    path.write_text(layout(frame))
    bars, report = load_bars(path, vendor=vendor, **options)
    assert_holds(bars, frame)
    assert f"read as a file of {vendor} (data.vendor)" in report.notes


def test_every_vendor_has_a_case() -> None:
    assert set(NAMES) == set(VENDORS) == {vendor for vendor, _, _ in CASES} == set(get_args(VendorName))


@pytest.mark.parametrize(("vendor", "layout", "options"), CASES)
def test_a_layout_is_recognised_where_it_is_like_no_other(
    tmp_path: Path, vendor: VendorName, layout: Layout, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "SPY.txt"
    path.write_text(layout(frame_for(layout)))
    more = ["--tz", options["tz"]] if options else []
    main(["check", str(path), *more])
    told = "".join(capsys.readouterr())
    like_others = {tradingview, firstrate}
    name = {"massive": "polygon", "histdata": "ninjatrader or histdata", "ninjatrader": "ninjatrader or histdata"}
    if layout not in like_others:
        assert name.get(vendor, vendor) in told.lower()
        if layout is databento:
            assert "pass price_scale=1e9" in told
            return
        assert f"data.vendor: {name.get(vendor, vendor).split(' ')[0]}" in told or "pass vendor=" in told
    else:
        assert "vendor" not in told


def test_an_option_wins_over_the_vendor(tmp_path: Path) -> None:
    frame, path = frame_for(ninjatrader), tmp_path / "SPY.txt"
    path.write_text(ninjatrader(frame))
    assert load_bars(path, vendor="ninjatrader", stamp="start")[0].first == "2024-03-08T14:31Z"
    at_utc = load_bars(path, vendor="histdata", tz="UTC", stamp="end", volume="file")[0]
    assert_holds(at_utc, frame)


def test_a_vendor_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BarsError, match="vendor 'bloomberg' is unknown: pass polygon, massive, alpaca"):
        load_bars(tmp_path / "a.csv", vendor="bloomberg")  # type: ignore[arg-type]  # a vendor that is none
