"""Which column of a file is which: by the names of vendors and tools, or by the names that a user gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sentio_rllib.errors import BarsError
from sentio_rllib.market.checks import PRICES
from sentio_rllib.market.instruments import INSTRUMENT_NAMES

SKIP = "_"
COLUMNS_EXAMPLE = "columns='timestamp,open,high,low,close,volume'"
UNNAMED_INDEX = frozenset(
    ("", "index", "level_0", "level_1", "_index_level_0_", "_index_level_1_", "unnamed:_0", "price")
)
"""Names, normalised, that tools write over an index without one; it is a stamp only if it holds dates and times."""

_ALIASES = {
    "timestamp": "timestamp datetime date_time date/time ts ts_utc ts_event unix epoch unix_timestamp open_time "
    "opentime window_start gmt_time local_time time_utc utc_time utc datetime_utc timestamp_utc time_period_start "
    "bar_time start_time begin dt t",
    "date": "date day yyyymmdd dtyyyymmdd datum fecha",
    "time": "time hhmmss hhmm time_key zeit uhrzeit hora",
    "open": "open o open_price openprice 1._open eröffnung",
    "high": "high h high_price highprice max 2._high hoch",
    "low": "low l low_price lowprice min 3._low tief",
    "close": "close c close_price closeprice last 4._close schluss schlusskurs",
    "volume": "volume v vol 5._volume real_volume realvol volumefrom base_volume trade_volume volumen",
    "ticks": "tickvol tick_volume tickvolume tick_vol ticks",
}
_CANONICAL = {alias: name for name, aliases in _ALIASES.items() for alias in aliases.split()}
_QUOTES = "usd usdt usdc busd tusd eur gbp jpy krw try brl aud cad chf"


@dataclass(frozen=True)
class Matched:
    """Positions of the columns that are needed, several stamps where any of them could be it, and of the rest."""

    positions: dict[str, int]
    stamps: tuple[int, ...]
    rest: tuple[int, ...]


def given_names(columns: str | Sequence[str], count: int, found: Sequence[str], *, last_is_empty: bool) -> list[str]:
    """Return the names that a user gives for `count` columns; an empty last one, of a delimiter too many, needs none.

    Raises
    ------
    BarsError
        Another number of names than of columns, or a name that is none.
    """
    names = columns.split(",") if isinstance(columns, str) else list(columns)
    names = [name.strip() for name in names]
    if len(names) == count - 1 and last_is_empty:
        names.append(SKIP)
    if len(names) == count + 1 and names[-1] == SKIP:
        names.pop()
    if len(names) != count:
        raise BarsError(
            f"columns names {len(names)} columns but the file has {count} ({', '.join(found)}): name each, {SKIP!r} "
            "for one to leave out"
        )
    allowed = ["timestamp", "date", "time", *PRICES, "volume", "ticks", "symbol", SKIP]
    unknown = [name for name in names if name != SKIP and normalise(name) not in {*_CANONICAL, *INSTRUMENT_NAMES}]
    if unknown:
        raise BarsError(f"columns holds unknown names {', '.join(unknown)}: allowed are {', '.join(allowed)}")
    return names


def normalise(name: str) -> str:
    """Return a name of a column in lower case, blanks as underscores, without marks around it."""
    return re.sub(r"[\s_]+", "_", name.strip().strip("<>#").lower())


def match_columns(names: Sequence[str], *, by_name: bool, volume: str, holds_stamps: Callable[[int], bool]) -> Matched:
    """Find the columns of stamps, prices and volume among `names`.

    Parameters
    ----------
    names
        Of all columns in their order.
    by_name
        The names are the file's own, so that date and time beside another stamp leave a choice.
    volume
        ``file``, ``tick`` or ``none``: a column of volume is needed, one of tick volume, or neither.
    holds_stamps
        Tells of a column by its position whether it holds dates and times.

    Raises
    ------
    BarsError
        A column is absent, or two could be the same.
    """
    found: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        canonical = None if name == SKIP else _CANONICAL.get(normalise(name))
        if canonical is not None:
            found.setdefault(canonical, []).append(position)
    _settle_volume(found, names, volume)
    if "timestamp" not in found:  # a lone date or time column holds the whole stamp
        alone = [name for name in ("date", "time") if name in found]
        unnamed = [place for place, name in enumerate(names) if normalise(name) in UNNAMED_INDEX]
        unnamed = [] if alone else [place for place in unnamed if holds_stamps(place)]
        if len(alone) == 1:
            found["timestamp"] = found.pop(alone[0])
        elif unnamed:
            found["timestamp"] = unnamed
    elif by_name and ("date" in found or "time" in found):
        found["timestamp"] += found.pop("date", []) + found.pop("time", [])
    stamps = tuple(found.get("timestamp", ()))
    _refuse_doubtful(found, names, volume)
    used = {position for positions in found.values() for position in positions}
    rest = tuple(position for position in range(len(names)) if position not in used)
    return Matched({name: positions[0] for name, positions in found.items()}, stamps, rest)


def doubtful(name: str, names: Sequence[str]) -> str:
    """Return the line that refuses several columns for the same."""
    return (
        f"columns {', '.join(names)} could each be {name}: pass columns with the names in the file's order, {SKIP!r} "
        "for one to leave out"
    )


def _settle_volume(found: dict[str, list[int]], names: Sequence[str], volume: str) -> None:
    """Take ``Volume BTC`` beside ``Volume USD`` for the volume, and ticks where there is nothing else."""
    if "volume" not in found:
        of = {
            place: re.fullmatch(r"vol(?:ume)?_\(?([a-z0-9]+)\)?", normalise(name)) for place, name in enumerate(names)
        }
        named = [place for place, match in of.items() if match and match[1] not in _QUOTES.split()]
        if named:
            found["volume"] = named
    if volume == "none":
        found.pop("volume", None)
        found.pop("ticks", None)
    elif volume == "tick":
        found.pop("volume", None)
        if "ticks" in found:
            found["volume"] = found.pop("ticks")
    elif volume == "file" and "volume" not in found and "ticks" in found:
        found["volume"] = found["ticks"]
        del found["ticks"]


def _refuse_doubtful(found: dict[str, list[int]], names: Sequence[str], volume: str) -> None:
    lines = []
    stamp_known = "timestamp" in found or {"date", "time"} <= found.keys()
    missing = [name for name in PRICES if name not in found]
    missing = missing if stamp_known else ["timestamp", *missing]
    if missing:
        missing += [] if "volume" in found or volume == "none" else ["volume"]
        lines.append(
            f"column {', '.join(missing)} not found among {', '.join(names)}: pass columns with the names in "
            f"the file's order, {SKIP!r} for one to leave out, for instance {COLUMNS_EXAMPLE}"
        )
    elif volume == "tick" and "volume" not in found:
        lines.append(f"column of tick volume not found among {', '.join(names)}: pass columns with ticks for it")
    elif volume == "file" and "volume" not in found:
        lines.append(
            f"column volume not found among {', '.join(names)}: pass columns if there is one, or volume='none' where "
            "the file has none, as of an index"
        )
    if all(len(found.get(name, ())) > 1 for name in PRICES):
        side = ", ".join(names[position] for position in found["close"])
        raise BarsError(
            f"{len(found['close'])} instruments side by side (columns {side}): pass columns with the names of one of "
            f"them in the file's order, {SKIP!r} for each of the others"
        )
    lines += [
        doubtful(name, [names[position] for position in positions])
        for name, positions in found.items()
        if len(positions) > 1 and name != "timestamp"
    ]
    if lines:
        raise BarsError(*lines)
