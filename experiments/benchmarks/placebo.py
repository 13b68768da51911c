"""Does a sweep claim what is not there, and find what is? configs/placebo.yaml on null and on planted markets.

`--markets` of each null kind (block bootstrap of a planted market, random walk) and twice as many planted ones.
Each finished market is kept under work/, and one that was cut off goes on, so that a stopped run costs a minute;
`--fresh` starts over. All 40 take about an hour on two cores. With `--check`, exits 1 where more than one null
market is called supported, or fewer than 16 planted ones of 20 are.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import common
import torch

from sentio_rllib.config.loading import load_config
from sentio_rllib.errors import SentioError
from sentio_rllib.placebo.kinds import NULL_KINDS, Kind
from sentio_rllib.placebo.rates_table import print_report
from sentio_rllib.placebo.runs import run_placebo

PROGRAM = "placebo"
CONFIG = Path(__file__).parents[2] / "configs" / "placebo.yaml"
MEAN_BLOCK = 15
"""Bars; half the default, for the low fees of the configuration."""
MARKETS = 20
"""Fewest null and planted markets that show anything."""
MOST_FALSE = 1
LEAST_FOUND = 16


def main() -> None:
    """Run what is left of the markets, print the report, write the result."""
    parser = common.parser(__doc__)
    parser.add_argument("--markets", type=int, default=MARKETS // len(NULL_KINDS), help="of each null kind")
    parser.add_argument("--edge", type=float, help="planted log return a bar (default: that of the configuration)")
    parser.add_argument("--fresh", action="store_true", help="forget finished markets")
    args = parser.parse_args()
    torch.set_num_threads(1)
    counts: dict[Kind, int] = dict.fromkeys(NULL_KINDS, args.markets)
    counts["planted"] = len(NULL_KINDS) * args.markets
    try:
        config = load_config(CONFIG, [f"storage_path={common.WORK}", f"name={PROGRAM}"])
        folder = config.folder
        if args.fresh and folder.is_dir():
            shutil.rmtree(folder)
        found = run_placebo(config, counts, edge=args.edge, mean_block=MEAN_BLOCK, resume=folder.is_dir())
    except SentioError as error:
        sys.exit("\n".join(f"error: {line}" for line in error.lines))
    print_report(found)
    if found["state"] != "completed":
        sys.exit("ended before all markets were run; start it again to go on")
    print(common.write_result(PROGRAM, {"settings": {"config": CONFIG.name, **vars(args)}, **found}))
    false, power = found["false_positives"], found["power"]
    floors = {
        "null markets with a verdict": (false["of"], MARKETS),
        "planted markets with a verdict": (power["of"], MARKETS),
        f"null markets called supported, {MOST_FALSE} at most (what is left of it)": (MOST_FALSE - false["count"], 0),
        "planted markets called supported": (power["count"], LEAST_FOUND),
    }
    common.finish({name: (float(reached), float(floor)) for name, (reached, floor) in floors.items()}, args.check)


if __name__ == "__main__":
    main()
