"""The command: ``python -m sentio_rllib.report experiments/NAME [--output FILE]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sentio_rllib.command_line import local_path
from sentio_rllib.errors import SentioError, tell


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 2 the user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m sentio_rllib.report",
        description="Write what a sweep found, and what of it the evidence supports, as one HTML file.",
    )
    parser.add_argument("experiment", type=local_path, help="folder of the sweep, experiments/NAME")
    parser.add_argument("--output", type=local_path, help="file to write (default: report.html in the sweep's folder)")
    args = parser.parse_args(arguments)
    try:
        from sentio_rllib.report.page import write_report  # noqa: PLC0415  # --help needs no matplotlib

        path = write_report(args.experiment, args.output)
    except (SentioError, OSError) as error:
        return tell(error)
    sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
