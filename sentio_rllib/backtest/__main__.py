"""Backtests a bundle on a file of bars: ``python -m sentio_rllib.backtest models/NAME --data FILE``.

The bundle walks the bars as one long validation block, greedily, by its own rules and costs; what it holds before a
hole it holds over it. Look-ahead: on bars that it was trained or selected on, a backtest shows what was learned, not
what it is worth; it warns of those that it knows of.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sentio_rllib.command_line import local_path
from sentio_rllib.errors import SentioError, tell


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 2 the user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m sentio_rllib.backtest", description=__doc__)
    parser.add_argument("bundle", type=local_path, help="folder of the bundle, models/NAME")
    parser.add_argument(
        "--data", type=local_path, required=True, metavar="FILE", help="feather, parquet or csv of bars"
    )
    parser.add_argument("--set", action="append", default=[], metavar="data.KEY=VALUE", help="how to read the file")
    parser.add_argument("--output", type=local_path, metavar="DIR", help="folder for metrics, trades and equity")
    parser.add_argument("--seed", type=int, default=0, help="of the random traders (default 0)")
    parser.add_argument(
        "--open-holdout", action="store_true", help="walk sessions that the bundle's sweep holds out; this is recorded"
    )
    parser.add_argument(
        "--ledger", type=local_path, metavar="FILE", help="where it is recorded (default: the sweep's ledger)"
    )
    args = parser.parse_args(arguments)
    try:
        from sentio_rllib.backtest.telling import backtest  # noqa: PLC0415  # --help need not wait for it

        backtest(
            args.bundle,
            args.data,
            args.set,
            args.output,
            seed=args.seed,
            open_holdout=args.open_holdout,
            ledger=args.ledger,
        )
    except (SentioError, OSError) as error:
        return tell(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
