"""The options that all commands have which run sweeps."""

from __future__ import annotations

import argparse

from sentio_rllib.command_line import local_path
from sentio_rllib.config.loading import load_config
from sentio_rllib.config.tree import SweepConfig


def sweep_parser(command: str, description: str, *, example: str, resume: str) -> argparse.ArgumentParser:
    """Return a parser of a configuration with its overrides and name, whether to resume, and the cluster's address.

    Parameters
    ----------
    command
        Module that is run.
    description, resume
        What the command does, and what going on means there.
    example
        A configuration that suits it.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {command}", description=description)
    parser.add_argument("config", type=local_path, help=f"a YAML file, for example {example}")
    add_overrides(parser, "override a key, for example data.path=bars.feather")
    parser.add_argument("--name", help="of its folder below experiments (default: the file's name)")
    parser.add_argument("--resume", action="store_true", help=resume)
    parser.add_argument("--address", help="of a running Ray cluster (default: start a local one)")
    return parser


def add_overrides(parser: argparse.ArgumentParser, told: str) -> None:
    """Add ``--set KEY=VALUE`` as `overrides`; `told` is its help."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help=f"{told}; may be given several times",
    )


def read_config(args: argparse.Namespace) -> SweepConfig:
    """Return the configuration that `args` of :func:`sweep_parser` name.

    Raises
    ------
    ConfigError
        One line for every mistake.
    """
    return load_config(args.config, args.overrides + ([] if args.name is None else [f"name={args.name}"]))
