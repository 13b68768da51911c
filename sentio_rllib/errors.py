"""The exception tree. Every error a user can cause derives from :class:`SentioError`.

The command line prints each line of a :class:`SentioError` and exits 2; a full disk is told in one line and exits 1;
any other exception is a bug.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

_FULL = (errno.ENOSPC, errno.EDQUOT)


class SentioError(Exception):
    """A mistake the user can mend, told in one line or in several.

    Parameters
    ----------
    *lines
        One message per independent mistake. Each names the value, the allowed range and the way out.
    """

    def __init__(self, *lines: str) -> None:
        self.lines: Sequence[str] = lines
        super().__init__("\n".join(lines))


class ConfigError(SentioError):
    """The configuration is wrong: unknown key, wrong type, value out of range, keys that contradict."""


class BarsError(SentioError):
    """A bars file is missing, is no market, or holds values no market has."""


class SplitError(SentioError):
    """The bars do not suffice for the folds that were asked for."""


class LeakError(SentioError):
    """A leak probe found that decisions could know the future; one line for every probe that did not hold."""


class CheckpointError(SentioError):
    """A checkpoint or bundle is incomplete, altered, or made for something else."""


class DecisionError(SentioError):
    """No live decision can be made: history is missing, none is due, or the portfolio is none."""


class MissingExtraError(SentioError, ImportError):
    """A part was imported whose packages are an extra that is not installed."""


class SweepError(SentioError):
    """A sweep cannot start or go on as asked: used name, changed configuration, nothing to resume."""


class TrainError(SentioError):
    """A single run cannot start or go on as asked: used name, changed configuration, nothing to resume."""


class NonFiniteError(SentioError):
    """A loss, gradient or score is NaN or infinite; the trial that met it fails."""


def tell(error: SentioError | OSError) -> int:
    """Print an error as commands do, and return the exit status.

    Raises
    ------
    OSError
        The one given, where it tells of anything but a full disk.
    """
    if isinstance(error, SentioError):
        lines, status = error.lines, 2
    elif is_full(error):
        where = f"{error.filename}: " if error.filename else ""
        lines = [f"{where}no space is left on the disk; make room and start again (with --resume where there is one)"]
        status = 1
    else:
        raise error
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    return status


def is_full(error: BaseException) -> bool:
    """Tell whether an exception says that the disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in _FULL
