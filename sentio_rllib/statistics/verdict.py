"""The verdict: what the evidence supports, each check with its value and its threshold.

``supported`` takes every check; one that fails makes it ``not supported``, and sessions too few for a statistic
``not enough data``, whatever the rest says.

**PBO is a gate only where selection costs something.** Where all trials found the same edge, choosing among them is
luck, and PBO is about one half however real the edge. A PBO above one half therefore fails only where the trial best
in one half of the sessions loses in more than 5% of the other halves.

**The holdout confirms with three quarters.** It has a fifth of the bars; asking for the whole significance there again
would refuse every edge that cross-validation can just show. Its sign alone is nearly free: raw returns are above 0 in
any market that rises. So net returns have to be above 0, and the probability that timing is (PSR, which needs a higher
Sharpe ratio the fewer sessions there are) has to reach 0.75. Without an edge one market in four passes, whatever was
selected before; how many pass with the edge that cross-validation shows depends on its length and is told with it.

**Drawdowns are judged at every minute's close**; their bootstrap intervals are of session closes, since the path
inside a session is not resampled.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import ndtr, ndtri

from sentio_rllib.statistics.inputs import Floats, NotEnoughDataError, NoVarianceError
from sentio_rllib.statistics.significance import probabilistic_sharpe_ratio, sharpe_moments

Verdict = Literal["supported", "not supported", "not enough data", "no verdict"]

MAX_PBO = 0.5
"""Above it the trial best in one half of the sessions is below the median in the other more often than not."""
MAX_LOSS_PROBABILITY = 0.05
"""Where all trials are about as good, choosing among them is luck and no harm, as long as the chosen one gains."""
MIN_HOLDOUT_SESSIONS = 20
HOLDOUT_CONFIDENCE = 0.75
"""Probability of timing above 0 that the holdout has to show; `experiments/benchmarks/calibration.py` bears it out."""


@dataclass(frozen=True)
class Check:
    """One condition of the verdict; `held` is None where the data do not suffice for the value."""

    name: str
    value: float | None
    threshold: float
    held: bool | None
    text: str


@dataclass(frozen=True)
class Judgement:
    """The verdict with its reasons, one line each, and the checks it was made of; `claim` says of what it speaks."""

    verdict: Verdict
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    claim: str

    def summary(self) -> dict[str, Any]:
        """Return plain values, to be written."""
        return {
            "verdict": self.verdict,
            "claim": self.claim,
            "reasons": list(self.reasons),
            "checks": [asdict(check) for check in self.checks],
        }


def reach_verdict(
    deflated: Mapping[str, Any], holdout: Mapping[str, Any] | None, *, confidence: float, scope: str
) -> Judgement:
    """Return what may be claimed of a champion.

    Parameters
    ----------
    deflated
        Of :func:`~sentio_rllib.statistics.deflation.deflate`.
    holdout
        ``opened``, ``why`` (it was not, or does not count), ``sound`` (no earlier opening and no earlier trial saw
        any of its sessions) and, where opened, ``metrics`` of
        :func:`~sentio_rllib.validation.performance.describe` and ``weight`` of :func:`weigh_holdout`; None where
        there is no holdout.
    confidence
        What the deflated Sharpe ratios have to reach, 0.5 .. 1; 1 minus it bounds the p-values.
    scope
        Costs and market that the verdict speaks of, for people.
    """
    claim = f"at {100 * confidence:g}%, {scope}"
    missing = list(deflated["missing"])
    checks = [*_of_search(deflated, confidence), *_of_holdout(holdout, missing)]
    failed = [check.text for check in checks if check.held is False]
    if missing:
        return _judge("not enough data", (*missing, *failed), checks, claim)
    if failed:
        return _judge("not supported", failed, checks, claim)
    return _judge("supported", [check.text for check in checks], checks, claim)


def _judge(verdict: Verdict, reasons: Sequence[str], checks: Sequence[Check], claim: str) -> Judgement:
    return Judgement(verdict, tuple(reasons), tuple(checks), f"{verdict} {claim}")


def no_champion(why: str) -> Judgement:
    """Return the verdict of a sweep that has nothing to judge."""
    return Judgement("not supported", (why,), (), "not supported")


def nothing_judged(why: str) -> Judgement:
    """Return what stands where a verdict would, of a sweep that shows nothing of the market either way."""
    return Judgement("no verdict", (why,), (), "no verdict")


def weigh_holdout(raw: Floats, timing: Floats, edge: float | None, *, sessions_per_year: int) -> dict[str, Any]:
    """Return what a holdout shows, and what its showing it is worth.

    Parameters
    ----------
    raw, timing
        float64[H], session returns of the champion there.
    edge
        Annual Sharpe ratio of timing that cross-validation shows beyond luck; None or not above 0 where it shows none.
    sessions_per_year
        Annualises.

    Returns
    -------
    dict
        ``raw, timing``: probability that the true Sharpe ratio is above 0 (PSR), None where there is none;
        ``needed`` of timing; ``by_luck`` and ``by_edge``: chances to reach it without an edge and with `edge`;
        ``factor``: their ratio, by which passing raises the odds of an edge.
    """
    by_luck = 1.0 - HOLDOUT_CONFIDENCE
    told = {"raw": _probability(raw), "timing": _probability(timing), "needed": HOLDOUT_CONFIDENCE, "by_luck": by_luck}
    if edge is None or edge <= 0.0:
        return told | {"edge": None, "by_edge": None, "factor": None}
    by_edge = float(ndtr(edge * math.sqrt(timing.size / sessions_per_year) - ndtri(HOLDOUT_CONFIDENCE)))
    return told | {"edge": edge, "by_edge": by_edge, "factor": by_edge / by_luck}


def _probability(returns: Floats) -> float | None:
    try:
        moments = sharpe_moments(np.ascontiguousarray(returns))
        law: dict[str, Any] = {"autocorrelation": max(0.0, moments.autocorrelation), "under": "null"}
        return probabilistic_sharpe_ratio(moments.sharpe, 0.0, returns.size, moments.skew, moments.kurtosis, **law)
    except (NotEnoughDataError, NoVarianceError):
        return None


def _of_search(deflated: Mapping[str, Any], confidence: float) -> list[Check]:
    enough = not deflated["missing"]
    checks = []
    for part, what in (("raw", "net returns"), ("timing", "timing")):
        figures = deflated[part]
        dsr, spa = f"deflated Sharpe ratio of {what}", f"SPA p-value of {what} against 0"
        checks.append(_compared(f"dsr_{part}", figures["dsr"], ">=", confidence, dsr, enough=enough))
        checks.append(_compared(f"spa_{part}", figures["spa_p"], "<=", 1.0 - confidence, spa, enough=enough))
        checks.append(_stepwise(part, what, deflated, enough=enough))
    for part, key, what in (("raw", "all", "net returns"), ("timing", "timing", "timing")):
        found = deflated["overfitting"][key]
        if found is not None:
            checks.append(_overfitting(part, what, found))
    return checks


def _stepwise(part: str, what: str, deflated: Mapping[str, Any], *, enough: bool) -> Check:
    """SPA speaks for the best of all trials; this one for the champion."""
    among = deflated["chosen"] in deflated[part]["stepm"]
    text = f"StepM finds the champion {'better' if among else 'not better'} than staying flat by {what}"
    held = None if not enough and deflated[part]["spa_p"] is None else among
    return Check(f"stepm_{part}", float(among), 1.0, held, text)


def _overfitting(part: str, what: str, found: Mapping[str, Any]) -> Check:
    pbo, loses = found["pbo"], found["loss_probability"]
    text = (
        f"probability of backtest overfitting by {what}: {pbo:.2f}, needed {MAX_PBO:g} or less, or a chosen trial that "
        f"loses in {MAX_LOSS_PROBABILITY:.0%} of the halves or less (it does in {loses:.0%})"
    )
    return Check(f"pbo_{part}", pbo, MAX_PBO, pbo <= MAX_PBO or loses <= MAX_LOSS_PROBABILITY, text)


def _of_holdout(holdout: Mapping[str, Any] | None, missing: list[str]) -> list[Check]:
    if holdout is None:
        return [Check("holdout", None, 1.0, False, "no holdout was kept (validation.holdout is 0)")]
    if not holdout["opened"]:
        return [Check("holdout", 0.0, 1.0, False, f"the holdout was not opened: {holdout['why']}")]
    told = holdout["why"] or "the holdout was opened once, and no earlier trial saw its sessions"
    sound = Check("holdout", float(holdout["openings"]), 1.0, holdout["sound"], told)
    metrics = holdout["metrics"]
    if metrics["sessions"] < MIN_HOLDOUT_SESSIONS:
        missing.append(
            f"holdout: {metrics['sessions']} sessions, needed {MIN_HOLDOUT_SESSIONS} or more; bring more bars"
        )
    enough = metrics["sessions"] >= MIN_HOLDOUT_SESSIONS
    idle = "" if metrics["trades"] else ", where the champion never trades"
    raw = f"Sharpe ratio of net returns on the holdout{idle}"
    timing = f"probability that timing on the holdout is above 0{idle or _worth(holdout['weight'], metrics)}"
    return [
        sound,
        _compared("holdout_raw", metrics["sharpe"], ">", 0.0, raw, enough=enough),
        _compared("holdout_timing", holdout["weight"]["timing"], ">=", HOLDOUT_CONFIDENCE, timing, enough=enough),
    ]


def _worth(weight: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Say what the holdout's word is worth, in brackets."""
    if weight["factor"] is None:
        return f" ({metrics['sessions']} sessions)"
    return (
        f" ({metrics['sessions']} sessions: without an edge {weight['by_luck']:.0%} of markets pass, with the Sharpe "
        f"ratio of {weight['edge']:.2g} that cross-validation shows beyond luck {weight['by_edge']:.0%}, so passing "
        f"raises the odds of an edge {weight['factor']:.1f}-fold)"
    )


def _compared(
    name: str, value: float | None, sense: Literal[">=", "<=", ">"], threshold: float, what: str, *, enough: bool
) -> Check:
    """A value that does not exist although there is enough data (returns that are all 0) fails."""
    compare, words = _SENSES[sense]
    shown = "does not exist" if value is None else f"{value:.3g}"
    held = None if value is None and not enough else value is not None and bool(compare(value, threshold))
    return Check(name, value, threshold, held, f"{what}: {shown}, needed {words.format(f'{threshold:g}')}")


_SENSES: dict[str, tuple[Callable[[float, float], bool], str]] = {
    ">=": (operator.ge, "{} or more"),
    "<=": (operator.le, "{} or less"),
    ">": (operator.gt, "above {}"),
}
