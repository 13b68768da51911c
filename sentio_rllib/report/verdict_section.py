"""What comes first: the verdict with its reasons, and the targets as configured and as reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sentio_rllib.report.blocks import Badge, Block, Bullets, Heading, Note, ReportSection, Table
from sentio_rllib.report.deflation_section import deflated
from sentio_rllib.report.formats import NONE, count, finite, interval, number, percent
from sentio_rllib.report.sweep_files import Sweep, dig

_TONES = {"supported": "good", "not supported": "bad", "not enough data": "unknown"}
_TARGETS: dict[str, tuple[str, Callable[[object], str]]] = {
    "monthly_return": ("monthly return, projected", percent),
    "sharpe": ("Sharpe ratio, annual, undeflated", number),
    "max_drawdown": ("maximum drawdown", percent),
    "win_rate": ("win rate of round trips", percent),
}
_BOUNDS = {"monthly_return": ">", "sharpe": ">", "max_drawdown": "<", "win_rate": ">"}
_REACHED = {True: "reached", False: "not reached", None: "not judged"}
"""By the holdout's word alone; nothing is judged while it is sealed."""
_NO_CHAMPION = {True: "there is no champion", False: "the sweep is older than that"}
"""By whether the summary has the key at all."""

_STATES = {
    "interrupted": "The sweep was interrupted; figures are of what had ended by then. Go on with --resume.",
    "time budget": "search.minutes ended the sweep before all trials. --resume goes on; since the holdout has been "
    "opened, another champion then needs --reopen-holdout and supports nothing.",
    "budget too short": "No trial passed the grace period: raise search.minutes or lower search.grace_steps.",
    "no trading": "No champion: no scored trial's median member trades. That is the result.",
    "failed": "What trials failed of says nothing of the market. Mend the cause, then start anew under another --name.",
}


def verdict_section(sweep: Sweep) -> ReportSection:
    """Return the verdict, the targets and how often the holdout was opened."""
    blocks = [*_verdict(sweep), *_targets(sweep), Heading("Holdout"), *holdout_notes(sweep)]
    return ReportSection("verdict", "Verdict", blocks)


def _verdict(sweep: Sweep) -> list[Block]:
    state = _STATES.get(str(sweep.get("state")))
    told: list[Block] = [Note(state, "caution")] if state else []
    if failures := sweep.get("failures"):
        told.append(Bullets([f"{each['trials']} failed: {each['reason']}" for each in failures]))
    evidence = sweep.deflation
    if not evidence:
        return [Badge(f"no verdict: {_NO_CHAMPION['evidence' in sweep.summary]}", "unknown"), *told]
    verdict = str(evidence.get("verdict", "no verdict"))
    claim = str(evidence.get("claim") or verdict)
    blocks: list[Block] = [Badge(claim, _TONES.get(verdict, "unknown")), *told]
    reasons = [str(reason) for reason in evidence.get("reasons") or []]
    return [*blocks, Bullets(reasons or ["No reasons were written down."])]


def _targets(sweep: Sweep) -> list[Block]:
    targets = sweep.get("targets")
    if not isinstance(targets, dict):
        return [Heading("Targets"), Note(f"Not measured: {_NO_CHAMPION['targets' in sweep.summary]}.", "missing")]
    rows = []
    for key, held in targets.items():
        if isinstance(held, dict):
            rows.append(_target(key, held))
            rows += _deflated_rows(sweep) if key == "sharpe" else _at_closes(held)
    head = ("target", "configured", "cross-validation", "holdout", "", "in words")
    level = "" if sweep.confidence is None else f"{percent(sweep.confidence, 0)} "
    caption = f"In brackets {level}intervals. Whether a target is reached is judged on the holdout alone."
    return [Heading("Targets"), Table(head, rows, caption, words=frozenset({4, 5})), deflated(sweep)]


def _target(key: str, held: dict[str, Any]) -> tuple[str, ...]:
    label, form = _TARGETS.get(key, (key.replace("_", " "), number))
    return (
        label,
        f"{_BOUNDS.get(key, '')} {form(held.get('target'))}".strip(),
        *(interval(held.get(part), form) for part in ("cv", "holdout")),
        _REACHED.get(held.get("reached"), NONE),
        str(held.get("text", "")),
    )


def _at_closes(held: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the row of a drawdown at the closes of bars, which is deeper than between sessions and is what counts."""
    deep = [dig(held, part, "at_closes") for part in ("cv", "holdout")]
    if all(value is None for value in deep):
        return []
    return [("\u2003at the closes of bars", "", *map(percent, deep), "", "what the target is judged by")]


def _deflated_rows(sweep: Sweep) -> list[tuple[str, ...]]:
    dsr, luck = (sweep.get("evidence", "raw", key) for key in ("dsr", "expected_maximum_sharpe"))
    return [
        ("\u2003deflated (DSR)", "", number(dsr, 3), "", "", "probability that it is more than luck"),
        ("\u2003expected maximum by luck", "", number(luck), "", "", "annual Sharpe ratio, of all tries"),
    ]


def holdout_notes(sweep: Sweep) -> list[Block]:
    """Say how often the holdout was opened, over all sweeps, and name a reopened one."""
    holdout = sweep.get("holdout")
    if not isinstance(holdout, dict):
        why = "no champion, or validation.holdout is 0" if "holdout" in sweep.summary else "an older sweep"
        return [Note(f"Nothing is told of a holdout: {why}.", "missing")]
    openings = f"Openings of these bars, over all sweeps in the ledger: {count(holdout.get('openings'))}."
    first, last = (str(holdout[end])[:10] if holdout.get(end) else None for end in ("first", "last"))
    size = f"{count(holdout.get('sessions'))} sessions, {count(holdout.get('bars'))} bars."
    where = f"{first} to {last}, {size}" if first and last else ""
    why = str(holdout.get("why") or "")
    where = f"{where} {_worth(holdout.get('weight') or {})}".strip()
    state = "Opened" if holdout.get("opened") else "Sealed"
    blocks: list[Block] = [Note(" ".join(filter(None, (f"{state}: {why}." if why else f"{state}.", where, openings))))]
    if holdout.get("reopened"):
        name = sweep.get("name") or sweep.folder.name
        told = f"Reopened: the holdout of {name} had been opened before, so its figures are no longer out of sample."
        blocks.append(Note(told, "caution"))
    blocks += _alike(sweep)
    if holdout.get("seen"):
        told = f"Earlier trials that were trained or scored on some of its sessions: {count(holdout['seen'])}."
        blocks.append(Note(told, "caution"))
    return blocks


def _worth(weight: dict[str, Any]) -> str:
    """Say what the holdout's word adds; empty where that is not known."""
    if finite(weight.get("factor")) is None:
        return ""
    edge = f"with the timing Sharpe ratio of {number(weight['edge'])} that cross-validation shows beyond luck"
    return (
        f"What it adds: without an edge {percent(weight['by_luck'], 0)} of markets pass it, {edge} "
        f"{percent(weight['by_edge'], 0)}; passing raises the odds of an edge {number(weight['factor'], 1)}-fold."
    )


def _alike(sweep: Sweep) -> list[Block]:
    """Name other markets in the ledger that move alike on the same dates."""
    found = [
        f"{each['symbol']} (sweep {each['sweep']}, correlation {number(each['correlation'])}, {each['dates']} dates)"
        for each in sweep.get("evidence", "ledger", "alike") or []
    ]
    if not found:
        return []
    told = "Other markets in the ledger moved alike on these dates, so what was seen there tells of this one"
    return [Note(f"{told}: {'; '.join(found)}.", "caution")]
