"""The ensemble of the members: the mean of their distributions, whatever encodes the market."""

from __future__ import annotations

import pytest
import torch

from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.actor_critic import ActorCritic, TapeReader
from sentio_rllib.policy.deciding import ensemble_policy, network_policy
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.evaluation import BlockEvaluator
from sentio_rllib.validation.splits import Range

MEMBERS = ((1, 0), (2, 0), (3, 0))
MLP = PolicySpec(variant="maskable", hidden=(8,))
FULL = PolicySpec(
    variant="enhanced-maskable", hidden=(8,), d_model=8, heads=2, layers=1, band=4, experts=2, quantiles=5
)


def reader_and_bars(tape: Tape, spec: PolicySpec) -> tuple[TapeReader, torch.Tensor]:
    evaluator = BlockEvaluator(tape.tensors(), TradingRules(), [[Range(800, 1400), Range(1500, 1900)]], [(0, 0)])
    return TapeReader(tape.tensors().features, spec), evaluator.bars()


@pytest.mark.parametrize("spec", [MLP, FULL], ids=["maskable", "enhanced"])
@torch.no_grad()
def test_it_is_the_mean_of_the_members_distributions(small_tape: Tape, spec: PolicySpec) -> None:
    network = ActorCritic(spec, MEMBERS).eval()
    reader, bars = reader_and_bars(small_tape, spec)
    bar = bars[3].repeat(2, 1)  # greedy and sampled rows
    portfolio = torch.rand(*bar.shape, 6, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(*bar.shape, 3, dtype=torch.bool)
    mask[0, 0, 2] = False
    together = ensemble_policy(network, reader, bars)(bar, portfolio, mask)
    spread = (len(bar), len(MEMBERS))
    each = network_policy(network, reader, bars.expand(-1, -1, len(MEMBERS)))(
        bar.expand(*spread), portfolio.expand(*spread, -1), mask.expand(*spread, -1)
    )
    expected = each.softmax(-1).mean(1, keepdim=True)
    torch.testing.assert_close(together.exp(), expected)
    assert float(together.exp()[0, 0, 2]) < 1e-30
    assert not torch.allclose(each[:, 0].softmax(-1), expected[:, 0])


@torch.no_grad()
def test_one_member_is_itself(small_tape: Tape) -> None:
    network = ActorCritic(MLP, MEMBERS[:1]).eval()
    reader, bars = reader_and_bars(small_tape, MLP)
    blocks = [[Range(800, 1400), Range(1500, 1900)]]
    walks = [
        BlockEvaluator(small_tape.tensors(), TradingRules(), blocks, [(0, 0)]).evaluate(policy(network, reader, bars))
        for policy in (network_policy, ensemble_policy)
    ]
    assert walks[0].greedy[0].session_returns.tolist() == walks[1].greedy[0].session_returns.tolist()
