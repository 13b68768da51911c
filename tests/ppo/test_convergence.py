"""The plateau schedule's share of the learning rate, by hand; convergence itself is in tests/sweep/test_stopping.py."""

from __future__ import annotations

from sentio_rllib.ppo.convergence import Plateau

SCORES = [(100, 0.0), (200, 0.0), (300, 0.0), (400, 0.05), (500, 1.0), (600, 0.9), (700, 1.05), (800, 1.0), (900, 1.0)]
"""Env steps and rung_score; a rise of 0.1 is an improvement, and nothing counts before 300 steps."""

FACTORS = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
"""After two evaluations without an improvement: at 300 and 400, at 600 and 700, and once more at 800 and 900."""


def _plateau() -> Plateau:
    return Plateau(grace_steps=300, patience=2, min_delta=0.1)


def test_the_rate_is_halved_whenever_the_score_has_stopped_rising() -> None:
    plateau = _plateau()
    factors = []
    for env_steps, score in SCORES:
        plateau.update(env_steps, score)
        factors.append(plateau.factor)
    assert factors == FACTORS
    assert plateau.halvings == [400, 700, 900]


def test_a_restored_plateau_goes_on_exactly() -> None:
    for cut in range(len(SCORES)):
        first, second = _plateau(), _plateau()
        for env_steps, score in SCORES[:cut]:
            first.update(env_steps, score)
        second.set_state(first.get_state())
        for env_steps, score in SCORES[cut:]:
            second.update(env_steps, score)
        assert (second.factor, second.halvings) == (FACTORS[-1], [400, 700, 900])
