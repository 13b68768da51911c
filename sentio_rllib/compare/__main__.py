"""The command: ``python -m sentio_rllib.compare configs/variants.yaml``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sentio_rllib.compare.budgets import COMPARISON, EQUAL, check_comparable
from sentio_rllib.config.contradictions import cautions
from sentio_rllib.config.options import read_config, sweep_parser
from sentio_rllib.errors import SentioError, tell


def _parser() -> argparse.ArgumentParser:
    parser = sweep_parser(
        "sentio_rllib.compare",
        "Train the arms of a configuration with equal compute and say whether they differ.",
        example="configs/variants.yaml",
        resume="go on with a comparison, with the budgets it began with",
    )
    parser.add_argument(
        "--equal",
        choices=EQUAL,
        help="steps: every arm trains for search.env_steps (default); seconds: as long as the first arm does, by "
        "rates that are measured first",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 2 the user's mistake, 1 otherwise (interrupted, no arm scored)."""
    args = _parser().parse_args(arguments)
    try:
        config = read_config(args)
        check_comparable(config)
        for line in cautions(config):
            print(f"caution: {line}")
        from sentio_rllib.compare.comparison_tables import print_comparison  # noqa: PLC0415  # a wrong configuration need not wait
        from sentio_rllib.compare.running import compare  # noqa: PLC0415  # a wrong configuration need not wait

        found, summary = compare(config, equal=args.equal, resume=args.resume, address=args.address)
    except (SentioError, OSError) as error:
        return tell(error)
    except KeyboardInterrupt:  # before the sweep takes it as a request to end
        print("ended before an arm was started", file=sys.stderr)
        return 1
    print_comparison(found, summary["evidence"])
    print(f"written to {config.folder / COMPARISON}")
    return 0 if summary["state"] not in {"interrupted", "failed"} and summary["trials"]["total"] else 1


if __name__ == "__main__":
    sys.exit(main())
