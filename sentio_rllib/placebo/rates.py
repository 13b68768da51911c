"""What a placebo run shows: counts of verdicts, false-positive rate and power, and what a naive reader would claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from sentio_rllib.placebo.kinds import KINDS, NULL_KINDS
from sentio_rllib.placebo.markets import Market

VERDICTS = ("supported", "not supported", "not enough data", "no verdict")
NO_VERDICT = VERDICTS[-1]
"""Of a sweep that was too short or broke: it tells nothing about the method, so no rate counts it."""

NAIVE_SHARPES = (1.0, 3.0)
"""Out-of-sample Sharpe ratios of the best trial from which it would pass for an edge without deflation."""
CONFIDENCE = 0.95

Figures = dict[str, Any]


def market_figures(market: Market, summary: Mapping[str, Any]) -> Figures:
    """Return what the summary of one finished sweep says; figures that do not exist are None."""
    evidence = summary.get("evidence") or {}
    return {
        "name": market.name,
        "kind": market.kind,
        "seed": market.seed,
        "state": summary["state"],
        "verdict": _verdict(summary, evidence),
        "reasons": list(evidence.get("reasons", [])),
        "checks_failed": [check["name"] for check in evidence.get("checks", []) if check["held"] is False],
        "cv_sharpe": _metric(summary, "cv", "sharpe"),
        "dsr": evidence.get("dsr"),
        "holdout_sharpe": _metric(summary, "holdout", "sharpe"),
        "seconds": summary["throughput"]["seconds"],
    }


def _verdict(summary: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    if summary["state"] in ("failed", "budget too short"):
        return NO_VERDICT
    return str(evidence.get("verdict", NO_VERDICT))


def _metric(summary: Mapping[str, Any], part: str, name: str) -> float | None:
    metrics = (summary.get(part) or {}).get("metrics") or {}
    value = metrics.get(name)
    return None if value is None else float(value)


def rate(count: int, of: int) -> Figures:
    """Return `count` of `of` with the exact 95% interval of Clopper and Pearson (1934); None where `of` is 0."""
    if of == 0:
        return {"count": 0, "of": 0, "estimate": None, "low": None, "high": None}
    interval = binomtest(count, of).proportion_ci(confidence_level=CONFIDENCE, method="exact")
    return {
        "count": count,
        "of": of,
        "estimate": count / of,
        "low": float(interval.low),
        "high": float(interval.high),
    }


def report(markets: Sequence[Figures]) -> Figures:
    """Return the figures of a placebo run from those of its markets.

    ``not enough data`` counts as not supported, a market without a verdict not at all.

    Returns
    -------
    dict
        ``kinds``: per kind its counts, rate and means; ``false_positives``: `supported` over all null markets;
        ``power``: over the planted ones; ``naive``: null markets whose best trial has an out-of-sample Sharpe ratio
        above each of :data:`NAIVE_SHARPES`; ``markets``: `markets`.
    """
    null = [market for market in markets if market["kind"] in NULL_KINDS]
    return {
        "kinds": {
            kind: _of_kind([market for market in markets if market["kind"] == kind])
            for kind in KINDS
            if any(market["kind"] == kind for market in markets)
        },
        "false_positives": _supported(null),
        "power": _supported([market for market in markets if market["kind"] == "planted"]),
        "naive": {f"{bound:g}": _naive(null, bound) for bound in NAIVE_SHARPES},
        "markets": list(markets),
    }


def _of_kind(markets: Sequence[Figures]) -> Figures:
    verdicts = Counter(market["verdict"] for market in markets)
    failed = Counter(name for market in markets for name in market["checks_failed"])
    return {
        "markets": len(markets),
        **{verdict.replace(" ", "_"): verdicts[verdict] for verdict in VERDICTS},
        "rate": _supported(markets),
        "cv_sharpe": _mean(markets, "cv_sharpe"),
        "dsr": _mean(markets, "dsr"),
        "holdout_sharpe": _mean(markets, "holdout_sharpe"),
        "checks_failed": dict(failed.most_common()),
        "seconds": float(sum(market["seconds"] for market in markets)),
    }


def _judged(markets: Sequence[Figures]) -> list[Figures]:
    return [market for market in markets if market["verdict"] != NO_VERDICT]


def _supported(markets: Sequence[Figures]) -> Figures:
    judged = _judged(markets)
    return rate(sum(market["verdict"] == "supported" for market in judged), len(judged))


def _naive(markets: Sequence[Figures], bound: float) -> Figures:
    judged = _judged(markets)
    return rate(sum(market["cv_sharpe"] is not None and market["cv_sharpe"] > bound for market in judged), len(judged))


def _mean(markets: Sequence[Figures], key: str) -> float | None:
    values = [market[key] for market in markets if market[key] is not None]
    return float(np.mean(values)) if values else None
