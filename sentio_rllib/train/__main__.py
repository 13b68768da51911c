"""The command: ``python -m sentio_rllib.train``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from sentio_rllib.errors import NonFiniteError, SentioError, TrainError, tell
from sentio_rllib.sweep.claim import CONFIG
from sentio_rllib.sweep.config import SweepConfig
from sentio_rllib.sweep.options import add_overrides
from sentio_rllib.sweep.reading import read_yaml
from sentio_rllib.train.files import LIMITS, Output, check_free, check_resumable, output_of, read_json
from sentio_rllib.train.options import (
    OF_OPTIONS,
    Options,
    budget,
    cautions,
    configure,
    episodes_limit,
    start_values,
)

if TYPE_CHECKING:
    from sentio_rllib.train.run import Plan

_MAY_CHANGE = (
    "name",
    "storage_path",
    "search.minutes",
    "search.env_steps",
    "search.patience",
    "resources.cpu",
    "resources.gpu",
    "evidence.ledger",
)
"""Keys that may differ when a run goes on."""


class _Parser(argparse.ArgumentParser):
    """Tells a wrong option in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
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


def plan_of(options: Options) -> Plan:
    """Return what is to be trained, everything checked that can be without reading bars; nothing is written.

    Raises
    ------
    SentioError
        One line for every mistake.
    """
    episodes = episodes_limit(options)
    if options.resume:
        output, config, before = _going_on(options)
        episodes = before if episodes is None else episodes
    else:
        output = output_of(options.output, options.variant)
        check_free(output)
        config = configure(start_values(options), options)
    budget(config, episodes)
    from sentio_rllib.train.run import Plan  # noqa: PLC0415  # Ray is imported only after all is checked

    named = options.output is not None
    return Plan(config=config, output=output, episodes=episodes, resume=options.resume, named=named)


def _going_on(options: Options) -> tuple[Output, SweepConfig, int | None]:
    """Return output, configuration and limit in episodes of the run that goes on."""
    if options.output is None:
        raise TrainError("--resume: which run is to go on? pass --output with its name")
    output = output_of(options.output, "")
    check_resumable(output)
    before = configure(read_yaml(output.folder / CONFIG), Options())
    config = configure(read_yaml(output.folder / CONFIG), options)
    changed = [key for key in config.changed_keys(before) if key not in _MAY_CHANGE]
    if changed:
        raise TrainError(
            *(
                f"{key}: was {before.value(key)!r} when the run was started, is {config.value(key)!r}; put it back or "
                "start a new run with another --output"
                for key in changed
            )
        )
    limits = read_json(output.folder / LIMITS) if (output.folder / LIMITS).is_file() else {"episodes": None}
    return output, config, limits["episodes"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done or interrupted, 2 the user's mistake, 1 otherwise (not finite, killed)."""
    options = _options(arguments)
    try:
        plan = plan_of(options)
        from sentio_rllib.train.progress import Progress  # noqa: PLC0415  # as in plan_of
        from sentio_rllib.train.run import train  # noqa: PLC0415  # as in plan_of

        progress = Progress()
        for line in cautions(plan.config, options):
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
