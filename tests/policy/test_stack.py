"""Stacked networks: each member is what it would be alone, and every part does what its name says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sentio_rllib.market.feature_set import MULTISCALE
from sentio_rllib.policy.actor_critic import N_PORTFOLIO, ActorCritic, TapeReader
from sentio_rllib.policy.heads import MASKED_LOGIT
from sentio_rllib.policy.layers import StackedDropout, StackedLinear
from sentio_rllib.policy.variants import PolicySpec

MEMBERS = [(0, 0), (0, 1), (7, 0)]
ROWS = 11
ENHANCED = PolicySpec(
    variant="enhanced-maskable", hidden=(16,), experts=3, patch=5, d_model=8, heads=2, layers=2, band=3, quantiles=7
)
SPECS = [
    PolicySpec(variant="standard", hidden=(16, 8)),
    PolicySpec(variant="maskable", hidden=(16, 8), shared=True),
    ENHANCED,
    replace(ENHANCED, shared=True, gated_residual=True, mixture="logits"),
    replace(ENHANCED, head="categorical"),
    replace(ENHANCED, critic="scalar"),
    replace(ENHANCED, encoder="mlp"),
    replace(ENHANCED, encoder="mlp", mixture="logits"),
    replace(ENHANCED, dropout=0.3),
]
FEATURES = torch.randn(400, len(MULTISCALE), generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def _inputs(members: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    market = torch.randn(ROWS, members, len(MULTISCALE), generator=generator, dtype=torch.float64)
    portfolio = torch.randn(ROWS, members, N_PORTFOLIO, generator=generator, dtype=torch.float64)
    mask = torch.rand(ROWS, members, 3, generator=generator) < 0.7
    mask[..., 0] = True
    return market, portfolio, mask


def _bars() -> torch.Tensor:
    """Runs of decisions that break at other rows in every member, so that their lines differ in length."""
    bars = 100 + 5 * torch.arange(ROWS).unsqueeze(1) + torch.zeros(1, len(MEMBERS), dtype=torch.int64)
    bars[4:, 1] += 92
    bars[7:, 1] -= 31
    bars[9:, 2] += 10
    return bars


@pytest.mark.parametrize("spec", SPECS)
def test_a_stacked_member_computes_what_it_computes_alone(spec: PolicySpec) -> None:
    together = ActorCritic(spec, MEMBERS).double()
    _, portfolio, mask = _inputs(len(MEMBERS))
    reader = TapeReader(FEATURES, spec)
    bars = _bars()
    output, values = together.both(reader.market(bars), reader.line(bars), portfolio, mask)
    for index, member in enumerate(MEMBERS):
        alone = ActorCritic(spec, [member]).double()
        one = slice(index, index + 1)
        own_line = reader.line(bars[:, one])
        own, own_values = alone.both(reader.market(bars[:, one]), own_line, portfolio[:, one], mask[:, one])
        torch.testing.assert_close(output.logits[:, one], own.logits, rtol=0, atol=1e-12)
        torch.testing.assert_close(values[:, one], own_values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_gradients_of_members_do_not_meet(spec: PolicySpec) -> None:
    network = ActorCritic(spec, MEMBERS).double()
    reader = TapeReader(FEATURES, spec)
    _, portfolio, mask = _inputs(len(MEMBERS))
    output, values = network.both(reader.market(_bars()), reader.line(_bars()), portfolio, mask)
    (output.logits[:, 1, 0].sum() + values[:, 1].sum()).backward()  # type: ignore[no-untyped-call]  # torch's
    for parameter in network.parameters():
        if parameter.grad is not None:
            assert parameter.grad[0].abs().max() == 0
            assert parameter.grad[2].abs().max() == 0
    assert any(p.grad is not None and p.grad[1].abs().max() > 0 for p in network.parameters())


def test_policy_and_value_share_a_trunk_only_where_asked() -> None:
    apart, shared = (ActorCritic(PolicySpec(hidden=(8,), shared=shared), MEMBERS) for shared in (False, True))
    market, portfolio, mask = (x.float() for x in _inputs(3))
    for network, expected in ((apart, 0.0), (shared, 1.0)):
        network.value(market, portfolio).sum().backward()  # type: ignore[no-untyped-call]  # torch's
        gradient = network.get_parameter("policy_trunk.layers.0.weight").grad
        assert float(gradient is not None and gradient.abs().max() > 0) == expected
    assert apart.policy(market, portfolio, mask.bool()).gate is None


@pytest.mark.parametrize("spec", SPECS)
def test_masked_actions_are_never_likely_and_hold_bias_raises_hold(spec: PolicySpec) -> None:
    _, portfolio, mask = _inputs(len(MEMBERS))
    reader = TapeReader(FEATURES, spec)

    def logits(spec: PolicySpec, allowed: torch.Tensor) -> torch.Tensor:
        network = ActorCritic(spec, MEMBERS).double()
        context = network.policy_context(reader.market(_bars()), reader.line(_bars()))
        return network.policy(context, portfolio, allowed).logits.detach()

    assert bool((logits(spec, mask)[~mask] == MASKED_LOGIT).all())
    every = torch.ones_like(mask)
    shift = logits(replace(spec, hold_bias=4.0), every) - logits(spec, every)
    if spec.head == "gated" and spec.mixture == "distributions":  # log probabilities of experts that are nearly one
        odds = shift[..., :1] - shift[..., 1:]
        torch.testing.assert_close(odds, torch.full_like(odds, 4.0), rtol=0, atol=1e-3)
    else:
        torch.testing.assert_close(shift[..., 0], torch.full_like(shift[..., 0], 4.0), rtol=0, atol=1e-9)
        assert shift[..., 1:].abs().max() < 1e-9


def test_gate_weights_sum_to_one_and_follow_the_regime_features() -> None:
    network = ActorCritic(replace(ENHANCED, encoder="mlp"), MEMBERS).double()
    market, portfolio, mask = _inputs(len(MEMBERS))
    gate = network.policy(market, portfolio, mask).gate
    assert gate is not None
    assert gate.shape == (ROWS, len(MEMBERS), 3)
    torch.testing.assert_close(gate.sum(-1), torch.ones(ROWS, len(MEMBERS), dtype=torch.float64))
    changed = market.clone()
    changed[..., network.regime_columns] += 1.0
    other = network.policy(changed, portfolio, mask).gate
    assert other is not None
    assert (gate - other).abs().max() > 1e-3


def test_initial_weights_depend_on_the_member_alone_and_are_orthogonal() -> None:
    stack = StackedLinear(MEMBERS, 6, 4, gain=2.0, name="x")
    again = StackedLinear([MEMBERS[2], MEMBERS[0]], 6, 4, gain=2.0, name="x")
    assert torch.equal(stack.weight[0], again.weight[1])
    assert torch.equal(stack.weight[2], again.weight[0])
    assert not torch.equal(stack.weight[0], stack.weight[1])
    columns = stack.weight[1].detach()
    torch.testing.assert_close(columns.T @ columns, 4.0 * torch.eye(4), atol=1e-5, rtol=0)


def test_dropout_masks_are_a_members_own_and_off_in_evaluation() -> None:
    together = StackedDropout(MEMBERS, 0.5, name="d")
    alone = StackedDropout([MEMBERS[1]], 0.5, name="d")
    ones = torch.ones(3, 50, 4)
    seen = []
    for iteration in (1, 2):
        together.begin_iteration(iteration, 5)
        alone.begin_iteration(iteration, 5)
        together.rows = alone.rows = torch.arange(50) % 5
        dropped = together(ones)
        assert torch.equal(dropped[1:2], alone(ones[1:2]))
        assert set(dropped.unique().tolist()) == {0.0, 2.0}
        assert torch.equal(dropped[:, :5], dropped[:, 45:])  # an environment keeps its mask
        assert torch.equal(dropped, together(ones))
        assert not torch.equal(dropped[:, 0], dropped[:, 1])
        seen.append(dropped)
    assert not torch.equal(*seen)
    together.eval()
    assert torch.equal(together(ones), ones)
