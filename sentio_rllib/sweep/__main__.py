"""The command: ``python -m sentio_rllib.sweep CONFIG``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sentio_rllib.config.contradictions import cautions
from sentio_rllib.config.options import read_config, sweep_parser
from sentio_rllib.errors import SentioError, tell


def _parser() -> argparse.ArgumentParser:
    parser = sweep_parser(
        "sentio_rllib.sweep",
        "Search PPO trading agents under purged cross-validation and keep the best.",
        example="configs/enhanced.yaml",
        resume="go on with a sweep, or extend a finished one",
    )
    parser.add_argument(
        "--reopen-holdout",
        action="store_true",
        help="open the holdout although some of its sessions were opened before; it then supports nothing any more",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would run and how long; start nothing")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 2 the user's mistake, 1 otherwise (interrupted, no trial scored)."""
    args = _parser().parse_args(arguments)
    try:
        config = read_config(args)
        for line in cautions(config):
            print(f"caution: {line}")
        if args.dry_run:
            from sentio_rllib.sweep.dry_run import dry_run  # noqa: PLC0415  # a wrong configuration need not wait

            dry_run(config)
            return 0
        from sentio_rllib.sweep.results import print_summary  # noqa: PLC0415  # as above
        from sentio_rllib.sweep.run import run_sweep  # noqa: PLC0415  # as above

        summary = run_sweep(config, resume=args.resume, address=args.address, reopen_holdout=args.reopen_holdout)
    except (SentioError, OSError) as error:
        return tell(error)
    except KeyboardInterrupt:  # before the sweep takes it as a request to end
        print("ended before a trial was started", file=sys.stderr)
        return 1
    print_summary(summary, config.folder)
    return 0 if summary["state"] not in {"interrupted", "failed"} and summary["trials"]["total"] else 1


if __name__ == "__main__":
    sys.exit(main())
