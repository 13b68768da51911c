"""What metrics and statistical evidence share: errors, and the checks of their input."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sentio_rllib.errors import NonFiniteError, SentioError

Floats = NDArray[np.float64]


class NotEnoughDataError(SentioError):
    """The record is too short for the statistic.

    Parameters
    ----------
    statistic
        What was asked for.
    needed, available
        How many, and how many there are.
    unit
        Of both.
    """

    def __init__(self, statistic: str, needed: int, available: int, unit: str = "periods") -> None:
        self.statistic = statistic
        self.needed = needed
        self.available = available
        super().__init__(f"{statistic}: {available} {unit}, needed {needed} or more; evaluate on more data")


class NoVarianceError(SentioError):
    """Returns do not vary, so that a statistic divided by their deviation is undefined."""


def check_returns(name: str, values: Floats, rank: int | None = None) -> None:
    """Refuse what is not a finite float64 array, of this rank where one is given."""
    if not isinstance(values, np.ndarray) or values.dtype != np.float64:
        raise TypeError(f"{name} must be a float64 array")
    if values.ndim == 0 or (rank is not None and values.ndim != rank):
        raise ValueError(f"{name} has rank {values.ndim}, needed {rank or 'at least 1'}")
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise NonFiniteError(f"{name}: {bad} of {values.size} values are NaN or infinite; needed finite ones")


def check_finite(**values: float) -> None:
    """Refuse NaN and infinite numbers."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteError(f"{name} is {value}, needed a finite number")


def check_open(name: str, value: float, low: float = 0.0) -> None:
    """Refuse what does not lie strictly between `low` and 1."""
    if not low < value < 1.0:
        raise ValueError(f"{name} is {value}, allowed above {low:g} and below 1")
