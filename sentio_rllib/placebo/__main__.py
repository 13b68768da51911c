"""The command: ``python -m sentio_rllib.placebo CONFIG --markets N``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from sentio_rllib.errors import SentioError, tell
from sentio_rllib.market.bootstrap import MEAN_BLOCK
from sentio_rllib.placebo.figures import VERDICTS, Figures
from sentio_rllib.placebo.markets import KINDS, parse_kinds
from sentio_rllib.sweep.claim import sweep_folder
from sentio_rllib.sweep.options import read_config, sweep_parser


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
        for line in config.cautions():
            print(f"caution: {line}")
        from sentio_rllib.placebo.runs import REPORT, run_placebo  # noqa: PLC0415  # Ray comes after all is checked

        found = run_placebo(
            config, counts, edge=args.edge, mean_block=args.block, resume=args.resume, address=args.address
        )
    except (SentioError, OSError) as error:
        return tell(error)
    except KeyboardInterrupt:  # between two sweeps; within one it is a request to end
        print("ended; go on with --resume", file=sys.stderr)
        return 1
    print_report(found)
    print(f"written to {sweep_folder(config) / REPORT}")
    if found["state"] == "completed":
        return 0
    print("ended before all markets were run; go on with --resume", file=sys.stderr)
    return 1


def print_report(found: Figures) -> None:
    """Print the verdicts by kind of market, the false-positive rate, the power, and the naive reading."""
    console = Console(width=None if Console().is_terminal else 160)
    table = Table(title=f"placebo: planted edge {found['edge']:g} a bar, bootstrap of {found['mean_block']} bars")
    table.add_column("market", no_wrap=True)
    for column in ("markets", *VERDICTS, "supported, 95% interval", "cv Sharpe", "DSR", "holdout Sharpe", "s"):
        table.add_column(column, justify="right")
    for kind, figures in found["kinds"].items():
        verdicts = [str(figures[verdict.replace(" ", "_")]) for verdict in VERDICTS]
        table.add_row(
            kind,
            str(figures["markets"]),
            *verdicts,
            shown(figures["rate"]),
            *(_number(figures[key]) for key in ("cv_sharpe", "dsr", "holdout_sharpe")),
            f"{figures['seconds']:,.0f}",
        )
    console.print(table)
    for kind, figures in found["kinds"].items():
        failed = ", ".join(f"{name} {count}" for name, count in figures["checks_failed"].items())
        console.print(f"{kind}: checks that failed: {failed or 'none'}")
    console.print(f"false-positive rate (bootstrap and random-walk): {shown(found['false_positives'])}")
    console.print(f"power (planted): {shown(found['power'])}")
    for bound, naive in found["naive"].items():
        console.print(f"null markets whose best trial has an undeflated Sharpe ratio above {bound}: {shown(naive)}")


def shown(rate: Figures) -> str:
    """Return a rate of :func:`~sentio_rllib.placebo.figures.rate` as text."""
    if rate["of"] == 0:
        return "no market"
    interval = f"[{rate['low']:.0%}, {rate['high']:.0%}]"
    return f"{rate['count']} of {rate['of']}, {rate['estimate']:.0%} {interval}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
