"""The market command: ``python -m sentio_rllib.market check FILE`` and ``import FILE --output OUT``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sentio_rllib.command_line import OneLineParser, local_path
from sentio_rllib.errors import BarsError, SentioError, tell
from sentio_rllib.market.vendors import NAMES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 2 where the user's input is wrong."""
    options = _build_parser().parse_args(arguments)
    try:
        _run(options)
    except (SentioError, OSError) as error:
        return tell(error)
    return 0


def _run(options: argparse.Namespace) -> None:
    from sentio_rllib.market.bars import check_output, load_bars, write_bars  # noqa: PLC0415  # --help needs none

    output: Path | None = options.output
    if output is not None:
        check_output(output)
        if output.resolve() == options.file.resolve():
            raise BarsError(f"output {str(output)!r} is the file to import: pass another name")
    given = vars(options).keys() - {"command", "file", "output"}
    bars, report = load_bars(options.file, **{name: getattr(options, name) for name in sorted(given)})
    lines = report.lines()
    if output is not None:
        write_bars(bars, output)
        lines.append(f"wrote {bars.n:,} bars to {output}")
    sys.stdout.write("\n".join(lines) + "\n")


def _build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m sentio_rllib.market", description="Minute bars: check a file, or import it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{check,import}")
    check = commands.add_parser("check", help="validate a file as training would and report what it holds")
    check.set_defaults(output=None)
    _add_options(check, hours="regular", max_missing=0.10)
    bring_in = commands.add_parser(
        "import", help="validate a file and write it as feather or parquet, all its hours kept"
    )
    bring_in.add_argument("--output", type=local_path, required=True, help="file to write, .feather or .parquet")
    _add_options(bring_in, hours="all", max_missing=1.0)
    return parser


def _add_options(parser: argparse.ArgumentParser, *, hours: str, max_missing: float) -> None:
    add = parser.add_argument
    add("file", type=local_path, help="feather, parquet or csv (.gz)")
    add("--symbol", help="instrument to pick where a column holds it, else a name (default: from the file's name)")
    add("--vendor", choices=NAMES, metavar="VENDOR", help=f"whose layout the file has: {', '.join(NAMES)}")
    add("--tz", help="time zone of stamps that carry none, e.g. America/New_York or UTC")
    add("--columns", help="names of the file's columns in their order, _ to leave one out")
    skip_help = "lines to leave out: how many at the head, or what they begin with; may be given several times"
    add("--skip", action="append", type=_lines, help=skip_help)
    add("--decimal", choices=(".", ","), help="decimal mark (default: found out)")
    add("--price-scale", type=float, help="divisor of prices in fixed point, e.g. 1e9")
    add("--volume", choices=("file", "tick", "none"), help="which volume to read (default: file)")
    add("--stamp", choices=("start", "end"), help="what a stamp marks (default: start)")
    add("--date-order", choices=("mdy", "dmy"), help="for dates such as 11/5/2019")
    add("--calendar", default="XNYS", help="exchange calendar, e.g. XNYS (default) or 24/7")
    add("--hours", choices=("regular", "all"), default=hours, help=f"bars to keep (default: {hours})")
    missing_help = f"largest share of regular minutes without a bar (default: {max_missing:g})"
    add("--max-missing", type=float, default=max_missing, help=missing_help)
    fix_help = "sort, keep the last bar of a duplicate stamp, drop repeated header lines and rows without prices"
    add("--fix", action="store_true", help=fix_help)


def _lines(text: str) -> int | str:
    return int(text) if text.isdigit() else text


if __name__ == "__main__":
    sys.exit(main())
