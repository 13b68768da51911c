"""Options of a file of bars: what a user gives, what a vendor's layout fills in, and what each may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from sentio_rllib.errors import BarsError
from sentio_rllib.market.calendars import check_calendar, check_zone
from sentio_rllib.market.delimited import Skip
from sentio_rllib.market.vendors import NAMES, VENDORS, Vendor, VendorName

VolumeKind = Literal["file", "tick", "none"]


class FileOptions(TypedDict, total=False):
    """How a file is written, None throughout where it says so itself.

    vendor
        Sets the options below that are None to those of a vendor's layout.
    tz
        Time zone of stamps that carry none, for instance ``America/New_York``.
    columns
        Names of the file's columns in their order, ``_`` for one to leave out.
    skip
        Leading lines to leave out, as a number; or what lines to leave out begin with; or a list of both.
    decimal
        Decimal mark; by default found out between delimiters other than commas, else ``.``.
    price_scale
        Divisor of the prices; by default 1, and what looks like fixed point is refused.
    volume
        ``file`` (the default); ``tick``: the number of ticks; ``none``: 0 throughout, and every bar counts as traded.
    stamp
        Whether a stamp is its bar's start (the default) or end. Start stamps declared ``end`` date every bar a minute
        before its prices were known: **look-ahead** against the clock and against other markets.
    date_order
        ``mdy`` or ``dmy``, needed only for dates such as 11/5/2019 that fit both ways.
    """

    vendor: VendorName | None
    tz: str | None
    columns: str | Sequence[str] | None
    skip: Skip
    decimal: Literal[".", ","] | None
    price_scale: float | None
    volume: VolumeKind | None
    stamp: Literal["start", "end"] | None
    date_order: Literal["mdy", "dmy"] | None


@dataclass(frozen=True)
class Written:
    """How a file is written, with the fields of :class:`FileOptions`."""

    vendor: VendorName | None = None
    tz: str | None = None
    columns: str | Sequence[str] | None = None
    skip: Skip = None
    decimal: str | None = None
    price_scale: float | None = None
    volume: VolumeKind | None = None
    stamp: str | None = None
    date_order: str | None = None

    @property
    def layout(self) -> Vendor:
        """The vendor's layout, an empty one without a vendor."""
        return VENDORS[self.vendor] if self.vendor is not None else Vendor()

    def filled(self) -> Written:
        """Return the options with those of the vendor's layout where none is given."""
        absent = {name: value for name, value in self.layout.options.items() if getattr(self, name) is None}
        return replace(self, **absent)


def check_options(written: Written, *, calendar: str, hours: str, max_missing: float) -> None:
    """Raise :class:`BarsError`, a line for every option that is out of its range."""
    mistakes: list[str] = []
    for check, value in ((check_zone, written.tz), (check_calendar, calendar)):
        try:
            if value is not None:
                check(value)
        except BarsError as error:
            mistakes += error.lines
    choices = {
        "vendor": (written.vendor, (None, *NAMES)),
        "decimal": (written.decimal, (None, ".", ",")),
        "volume": (written.volume, (None, "file", "tick", "none")),
        "stamp": (written.stamp, (None, "start", "end")),
        "hours": (hours, ("regular", "all")),
        "date_order": (written.date_order, (None, "mdy", "dmy")),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            ways = [f"{each!r}" if each in (".", ",") else str(each) for each in allowed if each is not None]
            mistakes.append(f"{name} {value!r} is unknown: pass {', '.join(ways[:-1])} or {ways[-1]}")
    if not (math.isfinite(max_missing) and 0 <= max_missing <= 1):
        mistakes.append(f"max_missing {max_missing} is out of range: pass a share from 0 to 1")
    scale = written.price_scale
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        mistakes.append(f"price_scale {scale} is out of range: pass a divisor above 0, for instance 1e9")
    skip = written.skip
    for each in [skip] if isinstance(skip, int | str) else skip or ():
        if isinstance(each, bool) or (isinstance(each, int) and each < 0) or each == "":
            mistakes.append(f"skip {each!r} is out of range: pass a number of lines from 0, or what they begin with")
    if mistakes:
        raise BarsError(*mistakes)
