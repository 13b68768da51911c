"""The command: ``python -m sentio_rllib.placebo CONFIG --markets N``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sentio_rllib.config.contradictions import cautions
from sentio_rllib.config.options import read_config, sweep_parser
from sentio_rllib.errors import SentioError, tell
from sentio_rllib.placebo.kinds import KINDS, MEAN_BLOCK, parse_kinds


def _parser() -> argparse.ArgumentParser:
    parser = sweep_parser(
        "sentio_rllib.placebo",
        "Run the same sweep on markets without an edge and on markets with a planted one, and report how often it "
        "claims an edge on the first and on the second.",
        example="configs/placebo.yaml",
        resume="keep finished markets and go on with the others",
    )
    parser.add_argument("--markets", type=int, required=True, metavar="N", help="markets of each kind")
    parser.add_argument(
        "--kinds", default=",".join(KINDS), help="bootstrap: the configuration's own bars, resampled (default: all)"
    )
    parser.add_argument(
        "--edge", type=float, help="planted log return a bar, up or down by regime (default: data.synthetic.edge)"
    )
    parser.add_argument(
        "--block", type=int, default=MEAN_BLOCK, help="mean block of the bootstrap in bars (default: %(default)s)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 2 the user's mistake, 1 interrupted."""
    args = _parser().parse_args(arguments)
    try:
        counts = dict.fromkeys(parse_kinds(args.kinds), args.markets)
        config = read_config(args)
    except (SentioError, OSError) as error:
        return tell(error)
    try:
        for line in cautions(config):
            print(f"caution: {line}")
        from sentio_rllib.placebo.rates_table import print_report  # noqa: PLC0415  # a wrong configuration need not wait
        from sentio_rllib.placebo.runs import REPORT, run_placebo  # noqa: PLC0415  # a wrong configuration need not wait

        found = run_placebo(
            config, counts, edge=args.edge, mean_block=args.block, resume=args.resume, address=args.address
        )
    except (SentioError, OSError) as error:
        return tell(error)
    except KeyboardInterrupt:  # between two sweeps; within one it is a request to end
        begun = config.folder.is_dir()
        print("ended; go on with --resume" if begun else "ended before a market was begun", file=sys.stderr)
        return 1
    print_report(found)
    print(f"written to {config.folder / REPORT}")
    if found["state"] == "completed":
        return 0
    print("ended before all markets were run; go on with --resume", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
