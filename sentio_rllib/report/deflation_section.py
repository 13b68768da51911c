"""What the search leaves of the Sharpe ratio: the note beside every undeflated one, and the deflation panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from sentio_rllib.report.blocks import Block, Chart, Heading, Note, ReportSection, Table
from sentio_rllib.report.figures import luck_figure
from sentio_rllib.report.formats import NONE, count, finite, number, p_value, percent
from sentio_rllib.report.sweep_files import Sweep, dig

_KINDS = ("raw", "timing")
_TITLE = "What luck explains"
_HELD = {True: "yes", False: "no"}


def deflated(sweep: Sweep) -> Note:
    """Return what must stand beside every undeflated Sharpe ratio: its deflated form, or that there is none."""
    evidence = sweep.deflation
    raw, timing = evidence.get("raw"), evidence.get("timing")
    if raw is None:
        return Note("Undeflated, and there is no deflated Sharpe ratio (DSR) to put beside it: no evidence.", "caution")
    return Note(
        f"Undeflated; beside it: the best of {count(evidence.get('n_trials'))} tries is expected to reach a Sharpe "
        f"ratio of {number(dig(raw, 'expected_maximum_sharpe'))} by luck alone. Deflated Sharpe ratio (DSR) of the "
        f"champion: {number(dig(raw, 'dsr'), 3)} of its returns, {number(dig(timing, 'dsr'), 3)} of its timing.",
        "caution",
    )


def deflation_section(sweep: Sweep) -> ReportSection:
    """Return the panel: trials against luck, statistics, overfitting, and the checks of the verdict."""
    evidence = sweep.deflation
    if evidence.get("raw") is None:
        why = "there is no champion" if "evidence" in sweep.summary else "the sweep is older than that"
        return ReportSection("deflation", _TITLE, [Note(f"Nothing to deflate: {why}.", "missing"), *_ledger(evidence)])
    return ReportSection("deflation", _TITLE, [*_luck(sweep), *_statistics(evidence), *_checks(evidence)])


def _luck(sweep: Sweep) -> list[Block]:
    sharpes = annual_sharpes(sweep)
    if sharpes.empty:
        return [Note("The trials' Sharpe ratios cannot be drawn: there are no out-of-sample returns.", "missing")]
    champion, expected = (finite(sweep.get("evidence", "raw", key)) for key in ("sharpe", "expected_maximum_sharpe"))
    drawing = luck_figure(list(sharpes), champion, expected)
    caption = f"{len(sharpes)} trials, pruned ones included, each at its best evaluation, seeds averaged."
    return [Chart(drawing, caption)]


def annual_sharpes(sweep: Sweep) -> pd.Series[Any]:
    """Return the annual Sharpe ratio of each trial's session returns, as the evidence has it; empty without any."""
    return pd.Series(sweep.get("evidence", "raw", "of_trials") or {}, dtype=float)


def _statistics(evidence: dict[str, Any]) -> list[Block]:
    kinds = [evidence.get(kind) or {} for kind in _KINDS]
    lines: Sequence[tuple[str, str, Callable[[object], str]]] = (
        ("Sharpe ratio, annual", "sharpe", number),
        ("expected maximum by luck, annual", "expected_maximum_sharpe", number),
        ("spread of all trials' Sharpe ratios, annual", "spread", number),
        ("deflated Sharpe ratio (DSR), effective N", "dsr", _probability),
        ("deflated Sharpe ratio (DSR), nominal N", "dsr_nominal", _probability),
        ("probabilistic Sharpe ratio (PSR)", "psr", _probability),
        ("minimum track record (MinTRL)", "min_trl_years", _years),
        ("SPA p-value against flat", "spa_p", p_value),
        ("SPA p-value against buy and hold", "spa_p_hold", p_value),
    )
    rows = [(label, *(form(kind.get(key)) for kind in kinds)) for label, key, form in lines]
    rows.append(("better than flat (StepM)", *(_names(kind.get("stepm")) for kind in kinds)))
    rows.append(("better than buy and hold (StepM)", *(_names(kind.get("stepm_hold")) for kind in kinds)))
    size = (
        f"Nominal N {count(evidence.get('n_trials'))}, effective N {number(evidence.get('effective_trials'), 1)}; "
        f"{count(evidence.get('sessions'))} sessions, {_years(evidence.get('years'))}. The least annual Sharpe ratio "
        f"that could be supported with these bars, trials and ledger: {number(evidence.get('least_sharpe'))}. A search "
        f"of this size needs {_years(evidence.get('min_btl_years'))} at least (MinBTL). Luck has the variance that "
        "Sharpe ratios have without an edge; the trials' own spread is told for information. Timing: what exposure "
        "earns by its moments, beyond what was usual and what the market earns elsewhere."
    )
    return [
        Heading("Deflated statistics"),
        Note(size),
        Table(("", "returns", "timing"), rows, "Of the champion out of sample"),
        _overfitting(evidence),
        *_ledger(evidence),
    ]


_PANELS = {"all": "all trials", "equal_budgets": "trials of equal budget", "timing": "all trials, by timing"}


def _overfitting(evidence: dict[str, Any]) -> Table:
    rows = []
    for key, label in _PANELS.items():
        held = dig(evidence, "overfitting", key)
        cells = (
            percent(dig(held, "pbo")),
            number(dig(held, "slope")),
            percent(dig(held, "loss_probability")),
            count(dig(held, "trials")),
        )
        rows.append((label, *cells))
    head = ("", "PBO", "slope", "probability of loss", "trials")
    caption = "Probability of backtest overfitting (CSCV): how often the best in sample is below the median out of it"
    return Table(head, rows, caption)


def _ledger(evidence: dict[str, Any]) -> list[Block]:
    held = evidence.get("ledger")
    if not isinstance(held, dict):
        return []
    return [
        Note(
            f"Ledger {held.get('path', NONE)}, on overlapping bars: sweeps {count(held.get('sweeps'))}, "
            f"configurations {count(held.get('configurations'))}, eligible evaluations "
            f"{count(held.get('evaluations'))}, networks {count(held.get('members'))}, trials stopped early "
            f"{count(held.get('pruned'))}."
        )
    ]


def _checks(evidence: dict[str, Any]) -> list[Block]:
    rows = [
        (
            str(check.get("name", NONE)).replace("_", " "),
            number(check.get("value"), 3),
            number(check.get("threshold"), 3),
            _HELD.get(check.get("held"), "not known"),
            str(check.get("text", "")),
        )
        for check in evidence.get("checks") or []
    ]
    if not rows:
        return [Note("The verdict rests on no checks.", "missing")]
    table = Table(("check", "value", "threshold", "held", "meaning"), rows, words=frozenset({3, 4}))
    return [Heading("Checks of the verdict"), table]


def _probability(value: object) -> str:
    return number(value, 3)


def _years(value: object) -> str:
    text = number(value)
    return text if text == NONE else f"{text} years"


def _names(trials: object) -> str:
    if not isinstance(trials, list):
        return NONE
    return ", ".join(map(str, trials)) or "none"
