"""The command: ``python -m sentio_rllib.pull experiments/NAME --output models/NAME``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from sentio_rllib.command_line import local_path
from sentio_rllib.errors import ConfigError, SentioError, tell
from sentio_rllib.pull.combine import Combine

SCORE_TOLERANCE = 1e-6


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sentio_rllib.pull", description="Write the champion of a sweep, or another trial, as a bundle."
    )
    parser.add_argument("experiment", type=local_path, help="folder of the sweep, experiments/NAME")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--trial", metavar="ID", help="take this trial instead of the champion")
    which.add_argument("--champion", action="store_true", help="take the champion, as without --trial")
    which.add_argument(
        "--final",
        action="store_true",
        help="train the champion's configuration once more, on all bars; its verdict is the champion's",
    )
    parser.add_argument("--output", type=local_path, required=True, help="folder to make, models/NAME")
    parser.add_argument(
        "--combine",
        choices=get_args(Combine),
        help="members: refit, trained anew on all but the holdout; mean, of all folds; best, of the best fold; "
        "default refit for a champion that was refitted, else mean",
    )
    parser.add_argument("--verify", action="store_true", help="score the members again and compare")
    return parser


def _told(metadata: dict[str, Any], output: Path) -> str:
    trial, count = metadata["trial_id"], len(metadata["members"])
    what = f"{metadata['combine']}, {count} network{'s' if count > 1 else ''}"
    evidence, note = metadata["evidence"] or {}, metadata["evidence_note"]
    verdict = evidence.get("claim") or evidence.get("verdict")
    claim = f"verdict of the sweep: {verdict}; {note}" if verdict else f"no verdict: {note}"
    return f"pulled {trial} to {output} ({what})\n{claim}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 2 the user's mistake, 1 the scores differ."""
    args = _parser().parse_args(arguments)
    if args.final and args.combine:
        return tell(ConfigError("--final trains networks of its own: leave --combine out"))
    try:
        from sentio_rllib.pull.bundling import pull, verify  # noqa: PLC0415  # --help need not wait for it

        print(_told(pull(args.experiment, args.output, args.trial, args.combine, final=args.final), args.output))
        found = verify(args.experiment, args.output) if args.verify else None
    except (SentioError, OSError) as error:
        return tell(error)
    if not args.verify:
        return 0
    if found is None:
        print("nothing to verify: these networks were scored on no bars that they had not seen")
        return 0
    what, written, now = found
    print(f"{what} in the sweep {written:.9f}, scored again {now:.9f}")
    if abs(written - now) > SCORE_TOLERANCE:
        print(f"error: the scores differ by more than {SCORE_TOLERANCE:g}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
