"""Are timing and verdicts right where the truth is known? Markets and policies at the level of returns, no network.

`timing`: bias and size of the timing Sharpe ratio for policies without an edge, and its power beside the former
definition's (returns less mean exposure times buy-and-hold) where timing is real. `null`: whole verdicts on markets
without an edge, through `sharpe_evidence`, `deflate` and `reach_verdict`, of searches of 1, 12 and 100 trials with 1
and 8 evaluations each. `steered`: the same of the last of five sweeps, each built around the one before. `power`:
verdicts with planted timing. `robust`: what idle trials, a ruinous one and another sweep's rows in the ledger do to
power. All take less than an hour on one core; `--markets` scales their number. With `--check`, exits 1 where a floor
is missed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import common
import numpy as np
from made_searches import (
    BARS,
    FOLDS,
    YEAR,
    Exposures,
    Floats,
    Search,
    by_session,
    edge_of,
    hold_records,
    made_record,
    make,
    market,
    persistent,
    rule,
    search,
    spans,
)

from sentio_rllib.statistics.deflation import Looks, Panel, deflate, sharpe_evidence
from sentio_rllib.statistics.metrics import sharpe
from sentio_rllib.statistics.significance import (
    least_supported_sharpe_ratio,
    probabilistic_sharpe_ratio,
    sharpe_moments,
)
from sentio_rllib.statistics.verdict import reach_verdict, weigh_holdout
from sentio_rllib.validation.series import combine

PROGRAM = "calibration"
CONFIDENCE, RESAMPLES = 0.95, 200
SESSIONS, DRIFTS = (107, 250, 900), (0.0, 0.8, 1.5)
POLICIES = ("random", "trend 1", "trend 20", "take profit", "dip 5%", "dip 10%")
SIZES = tuple(product((1, 12, 100), (1, 8)))
"""Trials and evaluations of a search."""
TARGETS = (1.0, 2.0, 3.0, 4.0)


def judge(found: Search) -> bool:
    """Whether the verdict is `supported`; what cannot be any more is not resampled."""
    name = found.panel.trials[found.chosen]
    quick = sharpe_evidence(found.panel, name, found.looks, sessions_per_year=YEAR)
    if any(quick[part]["dsr"] is None or quick[part]["dsr"] < CONFIDENCE for part in ("raw", "timing")):
        return False
    shared: dict[str, Any] = {"sessions_per_year": YEAR, "confidence": CONFIDENCE, "resamples": RESAMPLES, "seed": 1}
    deflated = deflate(found.panel, name, found.looks, **shared)
    timing = deflated["timing"]
    edge = timing["sharpe"] - timing["expected_maximum_sharpe"]
    raw = found.holdout_raw
    metrics = {"sharpe": sharpe(raw, YEAR), "sessions": raw.size, "trades": int(np.ptp(raw) > 0.0)}
    weight = weigh_holdout(raw, found.holdout_timing, edge, sessions_per_year=YEAR)
    holdout = {"opened": True, "why": "", "sound": True, "openings": 1, "metrics": metrics, "weight": weight}
    return reach_verdict(deflated, holdout, confidence=CONFIDENCE, scope="made").verdict == "supported"


def null_cells(markets: int) -> list[dict[str, Any]]:
    """Judge searches without an edge; one row for each size, policy, drift and length."""
    rows = []
    for (number, size), sessions in product(enumerate(SIZES), SESSIONS):
        for (kind, policy), drift in product(enumerate(POLICIES), DRIFTS):
            random = np.random.default_rng([number, sessions, kind, round(10 * drift)])
            found = [search(policy, random, size, make(random, sessions, drift=drift)) for _ in range(markets)]
            rows.append(
                {
                    "trials": size[0],
                    "evaluations": size[1],
                    "sessions": sessions,
                    "policy": policy,
                    "drift": drift,
                    "verdicts": markets,
                    "supported": sum(map(judge, found)),
                }
            )
        done = sum(row["supported"] for row in rows), sum(row["verdicts"] for row in rows)
        print(f"null {size} {sessions}: {done[0]} of {done[1]} so far", flush=True)
    return rows


def steered(markets: int) -> list[dict[str, Any]]:
    """Judge the last of five sweeps on one market without an edge, each built around the champion of the one before.

    The four before never open their holdout, as comparisons of arms and runs that are given up do not.
    """
    rows = []
    for sessions in SESSIONS:
        random, supported = np.random.default_rng([5, sessions]), 0
        for _ in range(markets):
            made, wishes = make(random, sessions, drift=0.8), ()
            for _ in range(5):
                found = search("random", random, (12, 8), made, shared=wishes)
                wishes = found.wishes
            looks = found.looks
            counted = Looks(looks.trials, looks.evaluations, 4, 4 * looks.evaluations, looks.raw, looks.timing)
            supported += judge(replace(found, looks=counted))
        rows.append({"sessions": sessions, "verdicts": markets, "supported": supported, "rate": supported / markets})
        print(f"steered {sessions}: {supported} of {markets}", flush=True)
    return rows


def cells(rows: list[dict[str, Any]], least: int = 500) -> Iterator[dict[str, Any]]:
    """Yield sums over every combination of up to three keys that leaves at least `least` verdicts."""
    keys = ("trials", "evaluations", "sessions", "policy", "drift")
    for chosen in product((False, True), repeat=len(keys)):
        names = [key for key, use in zip(keys, chosen, strict=True) if use]
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(tuple(row[name] for name in names), []).append(row)
        for values, group in groups.items():
            verdicts = sum(row["verdicts"] for row in group)
            if names and verdicts >= least:
                supported = sum(row["supported"] for row in group)
                yield {**dict(zip(names, values, strict=True)), "verdicts": verdicts, "rate": supported / verdicts}


def power_table(markets: int) -> list[dict[str, Any]]:
    """Judge searches that have found planted timing: 12 trials, 8 evaluations, a market that rises."""
    rows = []
    for sessions, target in product(SESSIONS, TARGETS):
        random = np.random.default_rng([1, sessions, round(target)])
        found = [
            search("random", random, (12, 8), make(random, sessions, drift=0.8, edge=edge_of(target, 1.0)), skill=1.0)
            for _ in range(markets)
        ]
        rate = sum(map(judge, found)) / markets
        rows.append({"sessions": sessions, "target": target, "verdicts": markets, "power": rate})
        print(f"power {sessions} sessions, Sharpe ratio {target:g}: {rate:.2f}", flush=True)
    return rows


def with_idle(found: Search, count: int) -> Search:
    """Add `count` trials that never trade."""
    panel = found.panel
    names = (*panel.trials, *(f"idle_{index}" for index in range(count)))
    columns = [np.concatenate([each, np.zeros((len(each), count))], axis=1) for each in (panel.raw, panel.timing)]
    wider = Panel(names, *columns, panel.hold, (1,) * len(names))
    return Search(wider, found.chosen, found.holdout_raw, found.holdout_timing, found.looks)


def with_ruin(found: Search, random: np.random.Generator) -> Search:
    """Add one trial with an annual Sharpe ratio of -20, here and in the ledger."""
    panel, looks = found.panel, found.looks
    loss = random.normal(-20.0 / np.sqrt(YEAR), 1.0, len(panel.raw)) * 0.001
    columns = [np.concatenate([each, loss[:, None]], axis=1) for each in (panel.raw, panel.timing)]
    wider = Panel((*panel.trials, "ruin"), *columns, panel.hold, (1,) * (len(panel.trials) + 1))
    evaluations = looks.evaluations + looks.evaluations // looks.trials
    told = [np.append(each, sharpe(loss, 1)) for each in (looks.raw, looks.timing)]
    counted = Looks(looks.trials + 1, evaluations, 0, 0, *told)
    return Search(wider, found.chosen, found.holdout_raw, found.holdout_timing, counted)


def with_other_sweep(found: Search) -> Search:
    """Add another sweep's 12 trials with 8 evaluations each to the ledger, of Sharpe ratios from -20 to 20."""
    looks, other = found.looks, np.linspace(-20.0, 20.0, 12) / np.sqrt(YEAR)
    told = [np.append(each, other) for each in (looks.raw, looks.timing)]
    counted = Looks(looks.trials, looks.evaluations, 1, 96, *told)
    return Search(found.panel, found.chosen, found.holdout_raw, found.holdout_timing, counted)


def robustness(markets: int) -> dict[str, Any]:
    """Power at a timing Sharpe ratio of 2 in 900 sessions, as it is and with rows that should not matter."""
    random = np.random.default_rng(2)
    found = [
        search("random", random, (12, 8), make(random, 900, drift=0.8, edge=edge_of(2.0, 1.0)), skill=1.0)
        for _ in range(markets)
    ]
    ruin = np.random.default_rng(3)
    cases = {
        "as it is": found,
        "4 idle trials": [with_idle(each, 4) for each in found],
        "a trial of -20": [with_ruin(each, ruin) for each in found],
        "another sweep": [with_other_sweep(each) for each in found],
    }
    return {name: sum(map(judge, each)) / markets for name, each in cases.items()}


def timing_of(returns: Floats, held: Exposures, sessions: int) -> tuple[Floats, Floats]:
    """Timing by the package's definition and by the former one, float64[S] each."""
    grown, exposure = by_session(held, returns)
    whole, _ = by_session(np.ones(returns.size), returns)
    records, former = [], []
    for first, last in spans(sessions):
        opening = float(held[first * BARS])
        records.append(made_record(grown[first:last], exposure[first:last], opening, first))
        former.append(grown[first:last] - exposure[first:last].mean() * whole[first:last])
    series = combine(records, hold_records(returns, sessions), [(0, fold) for fold in range(FOLDS)])
    return series.timing, np.concatenate(former)


def probability(returns: Floats) -> float:
    """PSR of timing above 0; 0 where there is none."""
    if np.ptp(returns) == 0.0:
        return 0.0
    moments = sharpe_moments(returns)
    return probabilistic_sharpe_ratio(
        moments.sharpe,
        0.0,
        returns.size,
        moments.skew,
        moments.kurtosis,
        autocorrelation=max(0.0, moments.autocorrelation),
        under="null",
    )


def timing_null(markets: int) -> list[dict[str, Any]]:
    """Bias and size of timing of policies without an edge."""
    rows = []
    for (sessions, times), drift, (kind, policy) in product(
        ((107, 4), (252, 2), (900, 1)), DRIFTS, enumerate(POLICIES)
    ):
        count = times * markets  # a Sharpe ratio of few sessions is known less
        random = np.random.default_rng([3, sessions, round(10 * drift), kind])
        returns = market(random, sessions, drift, count)
        parts = []
        for first, last in spans(sessions):
            bars = returns[:, first * BARS : last * BARS]
            if policy == "random":
                parts.append(persistent(random, bars.shape) > 0.0)
            else:
                prices = np.concatenate([np.zeros((count, 1)), np.cumsum(np.log1p(bars), axis=1)], axis=1)
                parts.append(rule(policy, random, prices))
        held = np.concatenate(parts, axis=1)
        both = [timing_of(returns[index], held[index], sessions) for index in range(count)]
        row = {"sessions": sessions, "drift": drift, "policy": policy, "markets": count}
        for name, series in zip(("", "former_"), zip(*both, strict=True), strict=True):
            row[f"{name}sharpe"] = float(np.mean([sharpe(each, YEAR) for each in series]))
            row[f"{name}size"] = float(np.mean([probability(each) >= CONFIDENCE for each in series]))
        rows.append(row)
    print(f"timing: {len(rows)} cells without an edge", flush=True)
    return rows


def timing_power(markets: int) -> list[dict[str, Any]]:
    """Power of timing that is real, by the definition and by the former one."""
    rows = []
    for sessions, target in ((107, 3.0), (107, 4.0), (252, 1.5), (252, 2.5), (900, 1.0)):
        random = np.random.default_rng([4, sessions])
        both = []
        for _ in range(markets):
            regime = np.where(persistent(random, (sessions * BARS,)) > 0.0, 1.0, -1.0)
            returns = market(random, sessions, 0.8)[0] + edge_of(target, 1.0) * regime
            both.append(timing_of(returns, persistent(random, regime.shape) + regime > 0.0, sessions))
        found, former = (
            np.mean([probability(each) >= CONFIDENCE for each in series]) for series in zip(*both, strict=True)
        )
        rows.append({"sessions": sessions, "target": target, "power": float(found), "former_power": float(former)})
    return rows


def least_supported() -> list[dict[str, Any]]:
    """The least annual Sharpe ratio that can be supported, by sessions and looks."""
    counts = {"1 x 1": 1.0, "12 x 8": 12 * 8**0.5, "100 x 8": 100 * 8**0.5}
    return [
        {"sessions": sessions}
        | {
            name: least_supported_sharpe_ratio(looks, sessions, confidence=CONFIDENCE) * YEAR**0.5
            for name, looks in counts.items()
        }
        for sessions in SESSIONS
    ]


def main() -> None:
    """Run all parts, write the result, and compare with the floors."""
    parser = common.parser(__doc__)
    parser.add_argument("--markets", type=int, default=28, help="null markets of each of the 324 cells (default 28)")
    args = parser.parse_args()
    rows = null_cells(args.markets)
    figures: dict[str, Any] = {
        "settings": vars(args),
        "timing_null": timing_null(max(1, 1000 * args.markets // 28)),
        "timing_power": timing_power(max(1, 1000 * args.markets // 28)),
        "null": rows,
        "steered": steered(max(1, 500 * args.markets // 28)),
        "power": power_table(max(1, 300 * args.markets // 28)),
        "robust": robustness(max(1, 400 * args.markets // 28)),
        "least_sharpe": least_supported(),
    }
    verdicts, supported = (sum(row[key] for row in rows) for key in ("verdicts", "supported"))
    worst = max(cells(rows), key=lambda cell: cell["rate"], default={"rate": 1.0})
    figures["null_total"] = {"verdicts": verdicts, "supported": supported, "rate": supported / verdicts, "worst": worst}
    print(common.write_result(PROGRAM, figures))
    common.finish(floors_of(figures), args.check)


def floors_of(figures: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """What `--check` asks: upper bounds are given by what is left of them."""
    power = {(row["sessions"], row["target"]): row["power"] for row in figures["power"]}
    robust, total = figures["robust"], figures["null_total"]
    moved = max(abs(rate - robust["as it is"]) for rate in robust.values())
    timing = figures["timing_null"]
    kept = min(row["power"] / row["former_power"] for row in figures["timing_power"])
    return {
        "null verdicts": (total["verdicts"], 5000),
        "supported without an edge, 1% at most (what is left)": (0.01 - total["rate"], 0.0),
        f"the same in the worst cell of 500, 2% at most: {total['worst']}": (0.02 - total["worst"]["rate"], 0.0),
        "the same after four sweeps that steered it, 5% at most, as the verdict claims": (
            0.05 - max(row["rate"] for row in figures["steered"]),
            0.0,
        ),
        "power at a timing Sharpe ratio of 2, 900 sessions": (power[900, 2.0], 0.60),
        "power at a timing Sharpe ratio of 3, 900 sessions": (power[900, 3.0], 0.95),
        "power moved by idle, ruinous and others' trials, 2 points at most": (0.02 - moved, 0.0),
        "largest bias of timing without an edge, 0.1 at most": (0.1 - max(abs(row["sharpe"]) for row in timing), 0.0),
        "largest size of timing at 5%, 7% at most": (0.07 - max(row["size"] for row in timing), 0.0),
        "power of timing, share of the former definition's": (kept, 0.9),
    }


if __name__ == "__main__":
    sys.exit(main())
