"""How long does a live policy take from a finished bar to its decision, and how much memory does it need?

One bar and one decision (``update`` and ``decide``) are timed together on one thread, at the bars where a decision is
due; also an update alone, and a decision between two due ones, which encodes its whole window anew. The portfolio
changes from each decision to the next, as if every order were filled. The longest update is told beside the
percentiles: the bars go past a new year. Memory is the resident set of a fresh process after
``import sentio_rllib.deploy.live``.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from typing import Any

import common
import numpy as np
import torch

from sentio_rllib.deploy.bundle import Bundle
from sentio_rllib.deploy.feed import VALUES, Bar
from sentio_rllib.deploy.live import Portfolio, TradingPolicy
from sentio_rllib.market.synthetic import synthetic_market
from sentio_rllib.policy.actor_critic import ActorCritic
from sentio_rllib.policy.variants import VARIANTS, PolicySpec
from sentio_rllib.trading.rules import TradingRules

PROGRAM = "latency"
CEILING_MS = {"standard": 2.0, "enhanced-maskable": 5.0}
"""Most milliseconds of the 99th percentile."""
RSS_CEILING_MB = 400.0
POLICIES = {
    "standard": PolicySpec(variant="standard"),
    "enhanced": PolicySpec(variant="enhanced-maskable"),
    "enhanced, configs/enhanced.yaml": PolicySpec(
        variant="enhanced-maskable", hidden=(64, 64), d_model=32, heads=2, layers=1, band=16
    ),
}
"""Default sizes (256-256-128; 64 wide, 2 layers, band 32), and those of the configuration."""

_RSS = """
import sentio_rllib.deploy.live
import resource
from pathlib import Path
pages = int(Path("/proc/self/statm").read_text().split()[1])
print(pages * resource.getpagesize())
"""


def policy_of(spec: PolicySpec, members: int) -> TradingPolicy:
    """Return a policy with first weights; what they are does not matter to the time."""
    network = ActorCritic(spec, [(seed, 0) for seed in range(members)]).eval()
    rules = TradingRules(masks=VARIANTS[spec.variant].masks, decision_interval=spec.patch)
    return TradingPolicy(Bundle(PROGRAM, network, rules, rules.reference_volatility, "XNYS", "regular", 390, {}))


def time_decisions(spec: PolicySpec, members: int, decisions: int) -> dict[str, float]:
    """Return percentiles in milliseconds: `update` and `decide` at bars where a decision is due; each `update`
    alone, and the longest of them; and a decision between two due ones, which encodes a whole window.
    """
    policy = policy_of(spec, members)
    spare = 20 * spec.patch  # to warm caches up
    bars = synthetic_market(policy.bars_needed + spare + decisions * spec.patch, seed=0, start="2022-10-03").bars
    policy.warm_up(bars.slice(0, policy.bars_needed))
    columns = [getattr(bars, name).tolist() for name in VALUES]
    portfolios = itertools.cycle([Portfolio(100_000.0, 0.0), Portfolio(50_000.0, 100.0), Portfolio(75_000.0, 50.0)])
    policy.decide(next(portfolios))
    seconds: dict[str, list[float]] = {"": [], "update_": [], "window_": []}
    for number, (stamp, *values) in enumerate(zip(bars.timestamp, *columns, strict=True)):
        if number < policy.bars_needed:
            continue
        bar, between = Bar(int(stamp), *values), number % spec.patch == spec.patch // 2
        started = time.perf_counter()
        policy.update(bar)
        updated = time.perf_counter()
        due = policy.decision_due
        if due or between:
            policy.decide(next(portfolios), off_phase=True)
        if number < policy.bars_needed + spare:
            continue
        seconds["update_"].append(updated - started)
        if due or between:
            seconds["" if due else "window_"].append(time.perf_counter() - started)
    told = {
        f"{name}p{percentile}_ms": 1e3 * float(np.percentile(values, percentile))
        for name, values in seconds.items()
        for percentile in (50, 99)
    }
    return told | {"update_max_ms": 1e3 * max(seconds["update_"])}


def resident_mb() -> float:
    """Return the resident set of a fresh process that has imported the live policy, in MB (1e6 bytes)."""
    run = subprocess.run([sys.executable, "-c", _RSS], capture_output=True, text=True, check=True)
    return int(run.stdout) / 1e6


def main() -> None:
    """Measure, print the table, write the result."""
    parser = common.parser(__doc__)
    parser.add_argument("--decisions", type=int, default=2_000)
    parser.add_argument("--members", type=int, default=4, help="networks of a bundle; a refitted champion has 4")
    args = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    figures: dict[str, Any] = {}
    floors: dict[str, tuple[float, float]] = {}
    print(
        f"{'':44}"
        + "".join(f"{what:>18}" for what in ("due decision", "update alone", "whole window"))
        + f"{'update':>9}"
    )
    print(f"{'milliseconds':44}" + f"{'p50':>9}{'p99':>9}" * 3 + f"{'max':>9}")
    for name, spec in POLICIES.items():
        for members in sorted({1, args.members}):
            label = f"{name}, {members} member{'s' if members > 1 else ''}"
            told = time_decisions(spec, members, args.decisions)
            figures[label] = told
            print(f"{label:44}" + "".join(f"{value:9.3f}" for value in told.values()), flush=True)
            ceiling = CEILING_MS[spec.variant]
            floors[f"{label}: {ceiling:g} ms over p99"] = (ceiling / told["p99_ms"], 1.0)
    rss = resident_mb()
    print(f"resident after import {rss:.0f} MB; load average {load:.1f} on {os.cpu_count()} cores")
    floors[f"memory: {RSS_CEILING_MB:g} MB over what is resident"] = (RSS_CEILING_MB / rss, 1.0)
    content = {"settings": vars(args), "load_average": load, "milliseconds": figures, "resident_mb": rss}
    print(common.write_result(PROGRAM, content))
    common.finish(floors, args.check)


if __name__ == "__main__":
    main()
