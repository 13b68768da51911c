"""When a trial has stopped getting better, and what is done about it: it ends, or takes smaller steps."""

from __future__ import annotations

import math
from typing import Any


class Convergence:
    """Patience on all scores of a trial together, counted in evaluations after a grace period.

    Parameters
    ----------
    grace_steps
        Env steps before which nothing counts.
    patience
        Evaluations without an improvement after which a trial has converged; 0 turns it off.
    min_delta
        Smallest rise of any score that is an improvement, >= 0.
    """

    def __init__(self, grace_steps: int, patience: int, min_delta: float) -> None:
        self.grace_steps, self.patience, self.min_delta = grace_steps, patience, min_delta
        self.best: list[float] = []
        self.waited = 0

    def update(self, env_steps: int, *scores: float) -> bool:
        """Take in one evaluation, of the greedy and of the sampled policy; True once the trial has converged."""
        self.best = [*self.best, *[-math.inf] * (len(scores) - len(self.best))]
        risen = [score > best + self.min_delta for score, best in zip(scores, self.best, strict=True)]
        self.best = [score if up else best for score, best, up in zip(scores, self.best, risen, strict=True)]
        if any(risen):
            self.waited = 0
        elif env_steps >= self.grace_steps:
            self.waited += 1
        return 0 < self.patience <= self.waited

    def get_state(self) -> dict[str, Any]:
        """Return what :meth:`set_state` needs."""
        return {"best": list(self.best), "waited": self.waited}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.best, self.waited = list(state["best"]), int(state["waited"])


class Plateau:
    """The share of the learning rate that is left: halved whenever the score has stopped getting better.

    Parameters
    ----------
    grace_steps, min_delta
        As of :class:`Convergence`.
    patience
        Evaluations without an improvement that halve, >= 1; they are counted anew after each halving.

    Attributes
    ----------
    halvings
        Env steps of the evaluations that halved, ascending: all that a training without evaluations needs to take
        the same steps.
    """

    def __init__(self, grace_steps: int, patience: int, min_delta: float) -> None:
        self.halvings: list[int] = []
        self._score = Convergence(grace_steps, patience, min_delta)

    @property
    def factor(self) -> float:
        """The share, 0.5 for each halving."""
        return float(0.5 ** len(self.halvings))

    def update(self, env_steps: int, *scores: float) -> None:
        """Take in one evaluation."""
        if self._score.update(env_steps, *scores):
            self.halvings.append(env_steps)
            self._score.waited = 0

    def get_state(self) -> dict[str, Any]:
        """Return what :meth:`set_state` needs."""
        return {"halvings": list(self.halvings), **self._score.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.halvings = list(state["halvings"])
        self._score.set_state(state)
