"""Names of exchange calendars and time zones, checked without loading a calendar."""

from __future__ import annotations

import difflib
import zoneinfo

from sentio_rllib.errors import BarsError

KNOWN = ("XNYS", "24/7")
"""Calendars that every version of `exchange_calendars` has; naming one of them costs no import of it."""


def check_calendar(calendar: str) -> None:
    """Raise :class:`BarsError`, naming the nearest calendar, where `exchange_calendars` has none of this name."""
    if calendar in KNOWN:
        return
    import exchange_calendars  # noqa: PLC0415  # takes most of a second, which a mistake elsewhere need not wait for

    names = exchange_calendars.get_calendar_names()
    if calendar not in names:
        near = difflib.get_close_matches(calendar.upper(), names, n=1, cutoff=0.3)
        raise BarsError(
            f"calendar {calendar!r} is unknown: "
            + (f"did you mean {near[0]!r}? " if near else "")
            + "Pass calendar, for instance XNYS (New York) or 24/7"
        )


def check_zone(tz: str) -> None:
    """Raise :class:`BarsError`, naming the nearest zone, where `tz` is no time zone."""
    try:
        zoneinfo.ZoneInfo(tz)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = difflib.get_close_matches(tz, zoneinfo.available_timezones(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        message = f"tz {tz!r} is no time zone: {hint}Pass for instance tz='America/New_York' or tz='UTC'"
        raise BarsError(message) from None
