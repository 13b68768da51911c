"""Does a sweep claim what is not there, and find what is? configs/placebo.yaml on null and on planted markets.

72 null markets are martingales, a quarter each as they are, with a drift of an annual Sharpe ratio of 1, with TQQQ's
volatility, and with both. Planted ones have an edge whose oracle has an annual Sharpe ratio of 1, 2, 3, 5 and 10
on average, 8 each; their noise is not re-centred, so that what the edge earns is as uncertain as on a real market.
Training is half as long as in the configuration. Each finished market is kept under work/, and one that was cut off
goes on; `--fresh` starts over, `--only` runs the cells with a word in their names, so that two processes can share
the work. All 112 take an hour and a half on one core. With `--check`, exits 1 where a null market is called supported
or one is missing.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import common
import torch

from sentio_rllib.config.loading import load_config
from sentio_rllib.errors import SentioError
from sentio_rllib.placebo.kinds import Kind
from sentio_rllib.placebo.rates import report
from sentio_rllib.placebo.rates_table import print_report
from sentio_rllib.placebo.runs import run_placebo

PROGRAM = "placebo"
CONFIG = Path(__file__).parents[2] / "configs" / "placebo.yaml"
SHORTER = ("search.env_steps=49152", "search.evaluate_every=12288", "search.grace_steps=12288")
ALONE = ("search.max_concurrent=1", "search.minutes=null")
DRIFT = 1.6e-6
"""Log return a bar that gives always-long an annual Sharpe ratio of about 1 at QQQ's volatility."""
TQQQ = 3.0
"""TQQQ's volatility in QQQ's."""
NULLS = {"plain": (0.0, 1.0), "drift": (DRIFT, 1.0), "volatile": (0.0, TQQQ), "volatile_drift": (TQQQ * DRIFT, TQQQ)}
"""Drift and volatility of each quarter."""
ORACLES = {1: 1.61e-6, 2: 2.88e-6, 3: 4.16e-6, 5: 6.89e-6, 10: 1.6e-5}
"""Annual Sharpe ratio of the oracle, and the edge a bar that gives it where exactly the edge is realised: by bisection
on the embedded market of 440,000 bars, seed 1, at the configuration's fees."""
NULL_MARKETS, PLANTED_MARKETS = 18, 8
"""Of each cell."""


def cells() -> dict[str, tuple[Kind, int, list[str], float | None]]:
    """Kind, markets, keys and edge of each cell."""
    made: dict[str, tuple[Kind, int, list[str], float | None]] = {}
    for name, (drift, volatility) in NULLS.items():
        keys = [f"data.synthetic.drift={drift}", f"data.synthetic.volatility={volatility}"]
        keys.append(f"features.reference_volatility={5e-4 * volatility}")
        made[f"null_{name}"] = ("random-walk", NULL_MARKETS, keys, None)
    for target, edge in ORACLES.items():
        made[f"planted_{target}"] = ("planted", PLANTED_MARKETS, ["data.synthetic.recentre=false"], edge)
    return made


def run_cell(
    name: str, kind: Kind, markets: int, keys: list[str], edge: float | None, *, fresh: bool
) -> dict[str, Any]:
    """Run what is left of a cell, and return its report."""
    place = [f"storage_path={common.WORK / PROGRAM}", f"name={name}"]
    config = load_config(CONFIG, [*place, *SHORTER, *ALONE, *keys])
    if fresh and config.folder.is_dir():
        shutil.rmtree(config.folder)
    found = run_placebo(config, {kind: markets}, edge=edge, mean_block=15, resume=config.folder.is_dir())
    print_report(found)
    if found["state"] != "completed":
        sys.exit("ended before all markets were run; start it again to go on")
    return found


def main() -> None:
    """Run what is left of the markets, print the report, write the result."""
    parser = common.parser(__doc__)
    parser.add_argument("--only", default="", help="run the cells with this word in their names, and write no result")
    parser.add_argument("--fresh", action="store_true", help="forget finished markets")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    try:
        for name, (kind, markets, keys, edge) in cells().items():
            if args.only in name:
                found[name] = run_cell(name, kind, markets, keys, edge, fresh=args.fresh)
    except SentioError as error:
        sys.exit("\n".join(f"error: {line}" for line in error.lines))
    if args.only:
        return
    whole = report([market for each in found.values() for market in each["markets"]])
    edges = {f"planted_{target}": {"oracle_sharpe": target, "edge": edge} for target, edge in ORACLES.items()}
    parts = {name: {**each, **edges.get(name, {})} for name, each in found.items()}
    print(common.write_result(PROGRAM, {"settings": vars(args), "cells": parts, **whole}))
    false = whole["false_positives"]
    planted = [each["power"]["of"] for name, each in found.items() if name.startswith("planted")]
    floors = {
        "null markets with a verdict": (false["of"], len(NULLS) * NULL_MARKETS),
        "null markets called supported (what is left of 0)": (-false["count"], 0),
        "planted markets with a verdict, in the cell with fewest": (min(planted), PLANTED_MARKETS),
    }
    for target in ORACLES:
        print(f"oracle {target}: {found[f'planted_{target}']['power']}")
    common.finish({name: (float(reached), float(floor)) for name, (reached, floor) in floors.items()}, args.check)


if __name__ == "__main__":
    main()
