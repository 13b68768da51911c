"""Random frames written in random layouts come back as the right bars, or are refused: never other bars."""

from __future__ import annotations

import codecs
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentio_rllib.errors import BarsError
from sentio_rllib.market.bars import load_bars
from sentio_rllib.market.vendors import VendorName
from tests.market.bar_files import assert_holds, frame_of

ZONES = {
    "none": "",
    "offset": "%z",
    "short": "%z",
    "blank": " %z",
    "utc": "",
    "letters": " %Z",
    "name": " America/New_York",
}
FORMS = [
    *("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M:%S.000"),
    *("%Y%m%d %H:%M:%S", "%Y%m%d  %H:%M:%S", "%Y%m%d-%H:%M:%S", "%Y%m%d %H%M%S", "%Y%m%d%H%M%S", "%Y.%m.%d,%H:%M"),
    *("%m/%d/%Y %I:%M:%S %p", "%d/%m/%Y %H:%M", "epoch s", "epoch ms", "epoch ns"),
    *("hhmm", "hhmmss", "unpadded hhmm", "unpadded hhmmss"),
]
DAYS = ["2024-01-16", "2024-03-10", "2024-06-05", "2024-11-03", "2024-12-31"]


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "day": draw(st.sampled_from(DAYS)),
        "start": draw(st.integers(0, 1439)),
        "count": draw(st.integers(2, 60)),
        "seed": draw(st.integers(0, 1_000)),
        "scale": draw(st.sampled_from([1.0, 0.01, 50.0])),
        "delimiter": draw(st.sampled_from([",", ";", "\t", "|"])),
        "header": draw(st.sampled_from(["first", "last", "none"])),
        "form": draw(st.sampled_from(FORMS)),
        "zone": draw(st.sampled_from(sorted(ZONES))),
        "decimal": draw(st.sampled_from([".", ","])),
        "encoding": draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])),
        "trailing": draw(st.booleans()),
        "quoted": draw(st.booleans()),
        "more": draw(st.sampled_from([None, "vwap", "trades", "symbol"])),
        "comment": draw(st.booleans()),
        "end": draw(st.sampled_from(["\n", "\r\n"])),
    }


def stamps_of(frame: pd.DataFrame, form: str, zone: str) -> tuple[list[str], list[list[str]]]:
    """Names and cells of the columns of time."""
    utc = frame["timestamp"]
    if form.startswith("epoch"):
        nanoseconds = utc.dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
        per_second = {"s": 1, "ms": 10**3, "ns": 10**9}[form.split()[1]]
        return ["timestamp"], [[str(each) for each in nanoseconds // (10**9 // per_second)]]
    local = utc if zone == "utc" and "hhmm" not in form else utc.dt.tz_convert("America/New_York")
    if "hhmm" in form:
        times = local.dt.strftime("%H%M%S" if form.endswith("ss") else "%H%M")
        times = times.astype(int).astype(str) if form.startswith("unpadded") else times
        return ["date", "time"], [local.dt.strftime("%Y%m%d").tolist(), times.tolist()]
    suffix = local.dt.strftime(ZONES[zone])
    suffix = suffix.str[:-2] if zone == "short" else suffix
    mark = "" if zone != "utc" else " UTC" if form.endswith("%p") else "Z"
    return ["timestamp"], [(local.dt.strftime(form) + suffix + mark).tolist()]


def written(frame: pd.DataFrame, layout: dict[str, Any], path: Path) -> tuple[Path, str]:
    """Write the frame in a layout; return the file and the names of its columns in order."""
    names, cells = stamps_of(frame, layout["form"], layout["zone"])
    for name in ("open", "high", "low", "close", "volume"):
        names.append(name)
        text = frame[name].map(lambda value, name=name: f"{value:.0f}" if name == "volume" else repr(float(value)))
        cells.append([each.replace(".", layout["decimal"]) for each in text])
    if layout["more"]:
        names.append(layout["more"])
        cells.append(["SPY" if layout["more"] == "symbol" else str(n * 7 % 31) for n in range(len(frame))])
    mark, tail = layout["delimiter"], layout["delimiter"] if layout["trailing"] else ""
    quote = (lambda each: f'"{each}"') if layout["quoted"] or mark == "," else str
    lines = [mark.join(quote(each) for each in row) + tail for row in zip(*cells, strict=True)]
    head = mark.join(names)
    lines = {"first": [head, *lines], "last": [*lines, head], "none": lines}[layout["header"]]
    lines = (["# made"] if layout["comment"] else []) + lines
    content = (layout["end"].join(lines) + layout["end"]).encode(layout["encoding"])
    if layout["encoding"] == "utf-16-le":
        content = codecs.BOM_UTF16_LE + content
    path.write_bytes(content)
    known = {"timestamp", "date", "time", "open", "high", "low", "close", "volume"}
    return path, ",".join(name if name in known else "_" for name in names)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layout=layouts(), told=st.booleans(), vendor=st.sampled_from([None, None, None, *get_args(VendorName)]))
def test_the_right_bars_or_a_refusal(layout: dict[str, Any], told: bool, vendor: VendorName | None) -> None:
    """With all options told the bars are right or refused; without, they are as right or refused."""
    first = pd.Timestamp(f"{layout['day']} 00:00", tz="UTC") + pd.Timedelta(minutes=layout["start"])
    frame = frame_of(pd.date_range(first, periods=layout["count"], freq="min").as_unit("ns"), seed=layout["seed"])
    for name in ("open", "high", "low", "close"):
        frame[name] = frame[name] * layout["scale"]
    with tempfile.TemporaryDirectory() as folder:
        path, columns = written(frame, layout, Path(folder) / "SPY.csv")
        options: dict[str, Any] = {"tz": "America/New_York", "calendar": "24/7", "max_missing": 1.0, "fix": False}
        if vendor in ("ninjatrader", "histdata", "kibot"):  # these say something else of the same file
            vendor = None
        if told:
            options |= {"columns": columns, "decimal": layout["decimal"], "skip": 1 if layout["comment"] else None}
            order = {"%m/%d/%Y": "mdy", "%d/%m/%Y": "dmy"}.get(layout["form"][:8])
            options |= {"date_order": order}
        try:
            bars, _ = load_bars(path, vendor=vendor, **options)
        except BarsError as error:
            refused = error.lines
        else:
            assert_holds(bars, frame)
            return
    assert all(line and "\n" not in line for line in refused)
    assert not told or hard(layout), refused


def hard(layout: dict[str, Any]) -> bool:
    """Tell layouts that may be refused even so: stamps that a clock change makes double, or digits that are few."""
    doubtful = layout["zone"] in ("none", "name") or "hhmm" in layout["form"]
    return bool(doubtful or layout["form"] in ("%Y%m%d%H%M%S",))
