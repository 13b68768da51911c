"""The exception tree. Every error a user can cause derives from :class:`SentioError`.

The command line prints each line of a :class:`SentioError` and exits 2; any other exception is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence


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
