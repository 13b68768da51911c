"""What was found in a bars file, counted, with the first bars of each kind, for people and for records."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.market.checks import FIRST_ROWS, Order, iso_minute
from sentio_rllib.market.feature_set import REFERENCE_VOLATILITY
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.sessions import CUT_MINUTES, missing_before

QQQ_VOLATILITY = 3.0e-4
"""Usual volatility of QQQ's minutes, for which the default reference was chosen."""
UNLIKE = 2.0
"""Times the reference volatility from which another one is suggested, above and below."""
JUMP = 0.20
"""A larger relative move of the price inside a session, or between sessions, is flagged."""


@dataclass(frozen=True)
class FileFacts:
    """What the file held before its bars were chosen: data rows, repeated header lines, rows without prices, ..."""

    rows_read: int
    repeated_headers: int
    empty_rows: int
    order: Order
    notes: tuple[str, ...]


@dataclass(frozen=True)
class BarsReport:
    """What was read, left out, mended and found.

    Attributes
    ----------
    rows_read, rows_kept
        Data rows of the file and bars kept of them.
    first, last
        Start of the first and last bar kept, ISO 8601 UTC.
    sessions, calendar, hours
        Sessions present, their calendar, and whether bars outside them were kept (``all``) or not.
    repeated_headers, empty_rows, exact_duplicates, disagreeing_stamps, disagreeing_rows, steps_back
        Mended by ``fix``: header lines and rows without prices dropped, rows dropped as exact duplicates, stamps
        whose rows disagreed, rows dropped for these, places where time went back.
    off_hours, off_hours_dropped
        Bars outside the calendar's sessions, and how many of them were left out.
    missing_minutes, regular_minutes, missing_share
        Minutes without a bar over the sessions present, those there are in all, and their ratio.
    gaps, longest_gap
        Runs of missing minutes before a bar of a session, and the longest in minutes.
    cuts
        Places where a session or more than 60 consecutive minutes are missing.
    jumps, session_jumps
        Moves over 20% inside a session, and from one session to the next (a split?).
    volatility
        Of :func:`usual_volatility`.
    zero_volume_share, one_price_share
        Shares of the bars without volume, and with high = low.
    examples
        Starts of the first bars of each kind.
    notes
        How stamps and columns were taken.
    """

    symbol: str
    rows_read: int
    rows_kept: int
    first: str
    last: str
    sessions: int
    calendar: str
    hours: str
    repeated_headers: int
    empty_rows: int
    exact_duplicates: int
    disagreeing_stamps: int
    disagreeing_rows: int
    steps_back: int
    off_hours: int
    off_hours_dropped: int
    missing_minutes: int
    regular_minutes: int
    missing_share: float
    gaps: int
    longest_gap: int
    cuts: int
    jumps: int
    session_jumps: int
    zero_volume_share: float
    one_price_share: float
    volatility: float
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report for people, one finding a line."""
        kept = f"{self.rows_read:,} rows read, {self.rows_kept:,} bars kept"
        span = f"{self.first} .. {self.last}, {self.sessions:,} sessions of {self.calendar}"
        told = [f"{self.symbol}: {kept}, {span}", *self.notes, *self._mended()]
        if self.off_hours:
            fate = "left out (hours: regular)" if self.off_hours_dropped else "kept (hours: all)"
            told.append(f"{self.off_hours:,} bars outside the sessions {fate}{self._like('off_hours')}")
        told.append(
            f"missing: {self.missing_minutes:,} of {self.regular_minutes:,} regular minutes "
            f"({self.missing_share:.2%}); {self.gaps:,} gaps before a bar of a session, the longest "
            f"{self.longest_gap:,} minutes{self._like('gaps')}"
        )
        told.append(
            f"cuts: {self.cuts:,} (a missing session, or more than {CUT_MINUTES} consecutive minutes)"
            f"{self._like('cuts')}"
        )
        told.append(f"jumps over {JUMP:.0%} inside a session: {self.jumps:,}{self._like('jumps')}")
        if self.session_jumps:
            told.append(
                f"moves over {JUMP:.0%} between sessions: {self.session_jumps:,} (a split? bring adjusted "
                f"bars){self._like('session_jumps')}"
            )
        told.append(self._volatility())
        told.append(f"bars without volume: {self.zero_volume_share:.2%}; with one price: {self.one_price_share:.2%}")
        return told

    def _volatility(self) -> str:
        told = f"one-minute volatility of a session: {self.volatility:.1e} (median)"
        suits = suitable_reference(self.volatility)
        if REFERENCE_VOLATILITY / UNLIKE <= suits <= REFERENCE_VOLATILITY * UNLIKE or self.volatility == 0.0:
            return told
        return (
            f"{told}; features.reference_volatility={suits:.1e} suits these bars (default {REFERENCE_VOLATILITY:g}): "
            "features are scaled and risk masks are set by it"
        )

    def _mended(self) -> list[str]:
        told = []
        if self.repeated_headers:
            told.append(f"fixed: {self.repeated_headers:,} repeated header lines dropped")
        if self.empty_rows:
            told.append(f"fixed: {self.empty_rows:,} rows without prices dropped, their minutes are missing")
        if self.steps_back:
            told.append(f"fixed: sorted, time went back in {self.steps_back:,} places")
        if self.exact_duplicates:
            told.append(f"fixed: {self.exact_duplicates:,} exact duplicate bars dropped")
        if self.disagreeing_stamps:
            told.append(
                f"fixed: {self.disagreeing_rows:,} bars dropped at {self.disagreeing_stamps:,} stamps whose "
                "rows disagree, the last of each kept"
            )
        return told

    def _like(self, kind: str) -> str:
        examples = self.examples.get(kind, ())
        return f"; first: {', '.join(examples)}" if examples else ""


def describe(bars: Bars, facts: FileFacts, off_hours: NDArray[np.int64], hours: str) -> BarsReport:
    """Report on `bars`; `off_hours` int64[K] are the stamps outside the calendar's sessions."""
    sessions = bars.sessions
    gap = missing_before(bars.timestamp, sessions.calendar)
    gap_bars = np.flatnonzero(gap)
    jumps, session_jumps = _find_jumps(bars)
    stamps = {
        "off_hours": off_hours,
        "gaps": bars.timestamp[gap_bars],
        "cuts": bars.timestamp[sessions.cuts],
        "jumps": bars.timestamp[jumps],
        "session_jumps": bars.timestamp[session_jumps],
    }
    return BarsReport(
        symbol=bars.symbol,
        rows_read=facts.rows_read,
        rows_kept=bars.n,
        first=bars.first,
        last=bars.last,
        sessions=sessions.labels.size,
        calendar=sessions.calendar,
        hours=hours,
        repeated_headers=facts.repeated_headers,
        empty_rows=facts.empty_rows,
        exact_duplicates=facts.order.exact_duplicates,
        disagreeing_stamps=facts.order.disagreeing_stamps,
        disagreeing_rows=facts.order.disagreeing_rows,
        steps_back=facts.order.steps_back,
        off_hours=off_hours.size,
        off_hours_dropped=off_hours.size if hours == "regular" else 0,
        missing_minutes=sessions.missing_minutes,
        regular_minutes=sessions.regular_minutes,
        missing_share=sessions.missing_minutes / max(sessions.regular_minutes, 1),
        gaps=gap_bars.size,
        longest_gap=int(gap.max()),
        cuts=sessions.cuts.size,
        jumps=jumps.size,
        session_jumps=session_jumps.size,
        zero_volume_share=float(np.mean(bars.volume == 0)),
        one_price_share=float(np.mean(bars.high == bars.low)),
        volatility=usual_volatility(bars),
        examples={kind: tuple(iso_minute(int(s)) for s in of[:FIRST_ROWS]) for kind, of in stamps.items()},
        notes=facts.notes,
    )


def usual_volatility(bars: Bars) -> float:
    """Return the median over sessions of the root mean square of log returns from close to close; 0 without any."""
    session = bars.sessions.session
    inside = session[1:] == session[:-1]
    squares, of = np.square(np.diff(np.log(bars.close))[inside]), session[1:][inside]
    counts = np.bincount(of)
    means = np.bincount(of, squares)[counts > 0] / counts[counts > 0]
    return float(np.sqrt(np.median(means))) if means.size else 0.0


def suitable_reference(volatility: float) -> float:
    """Return the reference volatility that is to a market of this usual volatility what the default is to QQQ."""
    return REFERENCE_VOLATILITY * volatility / QQQ_VOLATILITY


def _find_jumps(bars: Bars) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bars that open or close more than 20% off the close before, inside a session and at its start."""
    opens_session = np.ones(bars.n, dtype=bool)
    opens_session[1:] = np.diff(bars.sessions.session) > 0
    before = np.concatenate((bars.open[:1], bars.close[:-1]))
    off_open = np.abs(bars.open / before - 1) > JUMP
    reference = np.where(opens_session, bars.open, before)
    inside = (np.abs(bars.close / reference - 1) > JUMP) | (off_open & ~opens_session)
    return np.flatnonzero(inside), np.flatnonzero(off_open & opens_session)
