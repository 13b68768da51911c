"""Random streams that are named, so that each depends on what it is for and on nothing else.

A member of a stack must draw what it would draw alone, and a resumed run what an unbroken one draws.
Both hold when every generator is seeded from its meaning (seed, fold, iteration, purpose):

==============================================  ===============================================
stream                                          keyed by
==============================================  ===============================================
initial weights                                 seed, fold, layer
episode starts, action noise, dropout           seed, fold, iteration
order of rows                                   trial seed, iteration, epoch
noise of the sampled evaluation                 seed, fold
sampler of a suggestion                         sweep seed, place of the trial
the champion's seeds                            sweep seed, place; tuning seeds are passed over
bootstrap tests, random baselines, leak probes  sweep seed
==============================================  ===============================================
"""

from __future__ import annotations

import hashlib

import torch

Member = tuple[int, int]
"""(seed, fold) of one network of a stack; whatever is drawn for a member is keyed by these."""


def stream_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that is a pure function of `parts`.

    Parameters
    ----------
    *parts
        What the stream is for, for example ``("rollout", seed, fold, iteration)``.

    Returns
    -------
    int
        The first 63 bits of the SHA-256 of the parts, the same on every machine and Python version.
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded with :func:`stream_seed` of `parts`.

    Draws are made on the CPU and moved, so that a GPU run draws the same numbers.
    """
    return torch.Generator().manual_seed(stream_seed(*parts))
