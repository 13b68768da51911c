"""Names of exchange calendars and time zones, checked without loading a calendar."""

from __future__ import annotations

import difflib
import re
import zoneinfo

from sentio_rllib.errors import BarsError

KNOWN = ("XNYS", "24/7")
"""Calendars that every version of `exchange_calendars` has; naming one of them costs no import of it."""


_MEANING = {
    "XNYS": "New York; Nasdaq, Arca and Cboe keep the same sessions",
    "XBOM": "India; NSE and BSE keep the same sessions",
    "CMES": "CME Globex",
    "XCBF": "Cboe futures",
    "24/7": "around the clock",
    "24/5": "around the clock on weekdays",
}
_NAMES = {
    "XNYS": "NYSE NASDAQ NSDQ NASD AMEX NYSEARCA ARCA BATS CBOEEQUITIES IEX US USA USEQUITY SPY XNMS XNGS XNCM",
    "XBOM": "NSE NSEI XNSE NSEINDIA INDIA BSEINDIA NFO MCX BOMBAY MUMBAI",
    "CMES": "CME GLOBEX CMEGLOBEX XCME XCBT CBOT XNYM NYMEX XCEC COMEX ES NQ FUTURES USFUT GLBX",
    "XCBF": "CBOE CFE VIX",
    "IEPA": "ICE ICEUS XICEUS NYBOT IFUS",
    "24/7": "CRYPTO CRYPTOCURRENCY CRYPTOS COIN BTC BITCOIN BINANCE KRAKEN COINBASE 24H ALWAYS ALWAYSOPEN 247 24X7",
    "24/5": "FX FOREX OTC CURRENCY CURRENCIES 245 24X5",
    "XLON": "LSE LONDON UK GB",
    "XTSE": "TSX TORONTO CANADA TSXV",
    "XETR": "XETRA GERMANY DE DAX",
    "XEUR": "EUREX",
    "XPAR": "EURONEXT PARIS FRANCE EPA",
    "XAMS": "AMSTERDAM AEX NETHERLANDS",
    "XMIL": "MILAN ITALY BORSAITALIANA MTA",
    "XMAD": "BME MADRID SPAIN",
    "XSWX": "SIX ZURICH SWITZERLAND",
    "XSTO": "STOCKHOLM SWEDEN OMX",
    "XWAR": "GPW WSE WARSAW POLAND",
    "XIST": "BIST ISTANBUL TURKEY",
    "XMOS": "MOEX MICEX MOSCOW RUSSIA",
    "XTKS": "TSE JPX TOKYO JAPAN TOSE",
    "XHKG": "HKEX HKSE SEHK HONGKONG",
    "XSHG": "SSE SHANGHAI CHINA SZSE XSHE SHENZHEN",
    "XKRX": "KRX KOSPI KOSDAQ KOREA SEOUL",
    "XTAI": "TWSE TAIWAN TAIPEI",
    "XSES": "SGX SINGAPORE",
    "XASX": "ASX AUSTRALIA SYDNEY",
    "BVMF": "B3 BOVESPA BRAZIL",
    "XMEX": "BMV MEXICO",
    "XJSE": "JSE JOHANNESBURG SOUTHAFRICA",
    "XSAU": "TADAWUL SAUDI SAUDIARABIA",
    "XTAE": "TASE TELAVIV ISRAEL",
}
_KNOWN_AS = {alias: name for name, aliases in _NAMES.items() for alias in aliases.split()}
"""What exchanges and countries are called otherwise: by the likeness of letters NSE would be Toronto's."""


def check_calendar(calendar: str) -> None:
    """Raise :class:`BarsError`, naming the calendar that is meant, where `exchange_calendars` has none of this name."""
    if calendar in KNOWN:
        return
    import exchange_calendars  # noqa: PLC0415  # takes most of a second, which a mistake elsewhere need not wait for

    names = exchange_calendars.get_calendar_names()
    if calendar in names:
        return
    wanted = re.sub(r"[^A-Z0-9]", "", calendar.upper())
    known = {re.sub(r"[^A-Z0-9]", "", name.upper()): name for name in names}
    suited = _KNOWN_AS.get(wanted) or known.get(wanted)
    hint = f"pass calendar={suited!r}" + (f" ({_MEANING[suited]})" if suited in _MEANING else "") if suited else ""
    if not suited:
        near = difflib.get_close_matches(calendar.upper(), names, n=1, cutoff=0.75)
        hint = (f"did you mean {near[0]!r}? " if near else "") + "Pass calendar, for instance XNYS (New York) or 24/7"
    raise BarsError(f"calendar {calendar!r} is unknown: {hint}")


def check_zone(tz: str) -> None:
    """Raise :class:`BarsError`, naming the nearest zone, where `tz` is no time zone."""
    try:
        zoneinfo.ZoneInfo(tz)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = difflib.get_close_matches(tz, zoneinfo.available_timezones(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        message = f"tz {tz!r} is no time zone: {hint}Pass for instance tz='America/New_York' or tz='UTC'"
        raise BarsError(message) from None
