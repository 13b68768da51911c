"""A market in which the right action differs by regime, and no decision's own features tell which regime it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sentio_rllib.market.feature_set import MULTISCALE
from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.ppo.algorithm import SentioPPO, SentioPPOConfig
from sentio_rllib.ppo.env_runner import TapeHandle
from sentio_rllib.ppo.settings import PPOSettings, TrialSettings
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.splits import Fold, Range
from tests.trading.tapes import make_tape

pytestmark = pytest.mark.usefixtures("ray_cluster")

INTERVAL, DECISIONS, BLOCK, MARKER = 5, 4_800, 60, 4
EDGE = 1e-5
"""Log return of an interval; so small that no portfolio feature shows what was earned, and thus the regime."""
MEMBERS = ((0, 0), (1, 0))
TRAINED, JUDGED = range(6, 3_180), range(3_300, 4_780)
BEST = EDGE / INTERVAL / 2  # long where the interval rises, which is every other one, flat where it falls


class _Market(NamedTuple):
    """`signal` and `regime` of each decision, float64 of -1 and 1; decision k falls on bar 5 * k + 4."""

    tape: Tape
    signal: NDArray[np.float64]
    regime: NDArray[np.float64]


def _bars(decisions: range) -> Range:
    return Range(decisions.start * INTERVAL + INTERVAL - 1, decisions.stop * INTERVAL + INTERVAL - 1)


def _market() -> _Market:
    """The signal gives the sign of the next interval's return, and the regime whether it is to be believed.

    The regime shows on one bar in every 20, never on the bar of a decision.
    """
    rng = np.random.default_rng(0)
    pairs = [rng.permutation([-1.0, 1.0]) for _ in range(DECISIONS // BLOCK // 2)]
    regime = np.repeat(np.concatenate(pairs), BLOCK)
    signal = rng.choice([-1.0, 1.0], DECISIONS)
    returns = np.roll(np.repeat(EDGE / INTERVAL * signal * regime, INTERVAL), INTERVAL)
    close = 100.0 * np.exp(np.cumsum(returns))
    names = list(MULTISCALE.names)
    features = 0.1 * rng.standard_normal((DECISIONS * INTERVAL, len(names))).astype(np.float32)
    features[:, names.index("close_location")] = np.repeat(signal, INTERVAL)
    features[:, names.index("volume_z")] = 0.0
    marked = np.arange(0, DECISIONS, MARKER)
    features[marked * INTERVAL + 2, names.index("volume_z")] = regime[marked]
    tape = make_tape(np.concatenate([close[:1], close[:-1]]), close)
    return _Market(replace(tape, features=features), signal, regime)


@pytest.fixture(scope="module")
def market() -> _Market:
    return _market()


def _train(tape: Tape, **parts: Any) -> SentioPPO:
    shape = {"hidden": (16,), "d_model": 8, "heads": 1, "layers": 1, "band": MARKER, "patch": INTERVAL, "quantiles": 11}
    # each segment holds one episode from its first bar, so that decisions fall on the market's own intervals
    episodes = [_bars(range(first, first + BLOCK)) for first in TRAINED[: -BLOCK - 1 : 10]]
    segments = tuple(Range(each.start, each.stop + 2) for each in episodes)
    rows = 2_048
    settings = TrialSettings(
        TradingRules(
            fee_rate=0.0,
            max_position=1.0,
            decision_interval=INTERVAL,
            episode_length=BLOCK * INTERVAL,
            target_return_per_bar=EDGE / INTERVAL,
        ),
        PolicySpec(variant="enhanced-maskable", **{**shape, **parts}),
        PPOSettings(
            learning_rate=3e-3,
            gamma=0.0,
            lambda_=0.0,
            entropy_weight=0.01,
            environments=16,
            rollout_steps=rows // 16,
            minibatch_rows=512,
            epochs=4,
            precision="float32",
        ),
        (Fold(0, segments, (_bars(JUDGED),)),),
        MEMBERS,
        env_steps=12 * rows,
        evaluate_every=12 * rows,
    )
    algorithm: SentioPPO = SentioPPOConfig().trading(settings, TapeHandle(tape)).build_algo()
    algorithm.train()
    return algorithm


def _share_of_best(algorithm: SentioPPO) -> list[float]:
    """Each member's return out of sample as a share of the best there is."""
    assert algorithm.scores is not None
    return [record.mean_return / BEST for record in algorithm.scores.evaluation.greedy]


def _first_weight(algorithm: SentioPPO) -> NDArray[np.float32]:
    """The first expert's weight at each decision judged, float32[decisions, M], with no position."""
    network = algorithm.network()
    bars = torch.arange(_bars(JUDGED).start, _bars(JUDGED).stop, INTERVAL).unsqueeze(1).expand(-1, len(MEMBERS))
    with torch.no_grad():
        context = algorithm.scorer.reader.contexts(network.policy_context, bars)
        rows = (len(bars), len(MEMBERS))
        gate = network.policy(context, torch.zeros(*rows, 6), torch.ones(*rows, 3, dtype=torch.bool)).gate
    weights: NDArray[np.float32] = gate[..., 0].numpy()
    return weights


def test_without_the_past_nothing_can_be_learned(market: _Market) -> None:
    signal, regime = market.signal[JUDGED], market.regime[JUDGED]
    # long at a signal wherever that paid out of sample: no policy that reads the signal alone gets more
    best_local = 2.0 * sum(max(0.0, float((signal * regime * (signal == side)).mean())) for side in (-1.0, 1.0))
    assert best_local < 0.1
    algorithm = _train(market.tape, encoder="mlp")
    assert max(_share_of_best(algorithm)) < best_local + 0.1
    algorithm.stop()


def test_the_gate_learns_a_regime_that_only_the_past_tells(market: _Market) -> None:
    algorithm = _train(market.tape)
    assert min(_share_of_best(algorithm)) > 0.8
    assert bool((algorithm.rollout_figures["gate_information"] > 0.3).all())
    signal, regime = market.signal[JUDGED], market.regime[JUDGED]
    # the gate reads the signal too and may choose by what is right to do; at one signal, that is the regime
    for weight in _first_weight(algorithm).T:
        agreement = 0.0
        for side in (-1.0, 1.0):
            at = signal == side
            agrees = float(((weight[at] > 0.5) == (regime[at] > 0)).mean())
            agreement += float(at.mean()) * max(agrees, 1.0 - agrees)
        assert agreement > 0.75
    algorithm.stop()
