"""The command: ``python -m sentio_rllib.train``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sentio_rllib.command_line import OneLineParser
from sentio_rllib.config.options import add_overrides
from sentio_rllib.errors import NonFiniteError, SentioError, tell
from sentio_rllib.train.arguments import OF_OPTIONS, Options, cautions_of
from sentio_rllib.train.plan import plan_of


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m sentio_rllib.train",
        description="Train one agent, without a sweep, and keep its best evaluation. It trains on the bars before the "
        "holdout but the last third of them, on which it is validated; the holdout stays sealed. Ctrl-C saves.",
        allow_abbrev=False,
    )
    parser.add_argument("--type", help="standard, maskable or enhanced-maskable (default)")
    parser.add_argument("--minutes", help="of training, then it ends (default: unlimited)")
    parser.add_argument(
        "--episodes",
        help="that end, then it ends with the rollout in which the last of them does (default: unlimited); whichever "
        "limit comes first counts, and without any it trains until it has converged",
    )
    parser.add_argument("--episode-length", help="bars of an episode (default 1000)")
    parser.add_argument("--output", help="name without extension, may lie in a folder (default: {type}_{timestamp})")
    parser.add_argument("--data", help="feather, parquet or csv of minute bars (default: the embedded market)")
    parser.add_argument("--learning-rate", help="Adam's step size (default 3e-4)")
    parser.add_argument("--seed", help="of everything random (default 0)")
    told = "set a key of a sweep's configuration, for example ppo.schedule=plateau; comes after the options"
    add_overrides(parser, told)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with what --output names, from its checkpoint; its limits stay unless they are given anew, a large "
        "number (1000000) lifts one",
    )
    return parser


def _options(arguments: Sequence[str] | None) -> Options:
    args = _parser().parse_args(arguments)
    values = {option: getattr(args, option[2:].replace("-", "_")) for option in OF_OPTIONS}
    return Options(
        type=args.type,
        output=args.output,
        data=args.data,
        episodes=args.episodes,
        values={option: text for option, text in values.items() if text is not None},
        overrides=args.overrides,
        resume=args.resume,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done or interrupted, 2 the user's mistake, 1 otherwise (not finite, killed)."""
    options = _options(arguments)
    try:
        plan = plan_of(options)
        from sentio_rllib.train.display import Progress  # noqa: PLC0415  # heavy imports come after all checks
        from sentio_rllib.train.training import train  # noqa: PLC0415  # heavy imports come after all checks

        progress = Progress()
        for line in cautions_of(plan.config, options):
            progress.told(f"caution: {line}")
        if plan.config.data.path is None:
            progress.told("no --data: this trains on the embedded market, which is synthetic, not on a real one")
        train(plan, progress)
    except (SentioError, OSError) as error:
        status = tell(error)
        return 1 if isinstance(error, NonFiniteError) else status
    except KeyboardInterrupt:  # before the run takes it as a request to end, or the second
        print("ended at once; --resume goes on from the last checkpoint, if there is one", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
