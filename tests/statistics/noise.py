"""Made-up returns that the tests of evidence share."""

from __future__ import annotations

import numpy as np

from sentio_rllib.statistics.inputs import Floats

NORMAL = {"skew": 0.0, "kurtosis": 3.0}


def noise(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape)
