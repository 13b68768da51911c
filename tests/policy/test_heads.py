"""Heads: mixtures are what their names say, gates are measured, tails are those of the distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sentio_rllib.policy.heads import (
    RegimeGatedHead,
    conditional_value_at_risk,
    gate_collapsed,
    gate_figures,
    quantile_levels,
    value_at_risk,
)

MEMBERS = [(0, 0), (1, 0)]
ROWS, WIDTH, EXPERTS = 40, 5, 3


def _head(mixture: str) -> tuple[RegimeGatedHead, torch.Tensor, torch.Tensor, torch.Tensor]:
    head = RegimeGatedHead(
        MEMBERS,
        WIDTH,
        hold_bias=1.0,
        regime_features=4,
        experts=EXPERTS,
        mixture=mixture,  # type: ignore[arg-type]
    ).double()
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        head.linear.weight.mul_(100.0)  # experts that differ
    embedding = torch.randn(2, ROWS, WIDTH, generator=generator, dtype=torch.float64)
    regime = torch.randn(2, ROWS, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, ROWS, 3, generator=generator) < 0.6
    mask[..., 0] = True
    mask[:, 0, 1:] = False  # nothing but Hold
    return head, embedding, regime, mask


@pytest.mark.parametrize("mixture", ["distributions", "logits"])
def test_a_mixture_is_the_weighted_sum_of_its_experts(mixture: str) -> None:
    head, embedding, regime, mask = _head(mixture)
    logits, weights = head(embedding, regime, mask)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, ROWS, dtype=torch.float64))
    experts = head.linear(embedding).view(2, ROWS, EXPERTS, 3)
    forbidden = ~mask.unsqueeze(-2)
    if mixture == "distributions":
        each = torch.softmax(experts.masked_fill(forbidden, -math.inf), -1)
        expected = (weights.unsqueeze(-1) * each).sum(-2)
    else:
        mixed = (weights.unsqueeze(-1) * experts).sum(-2)
        expected = torch.softmax(mixed.masked_fill(~mask, -math.inf), -1)
    found = torch.softmax(logits, -1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert found[~mask].abs().max() == 0
    (found[..., 0].sum() + torch.log_softmax(logits, -1)[mask].sum()).backward()  # type: ignore[no-untyped-call]  # torch's
    assert all(bool(torch.isfinite(p.grad).all()) for p in head.parameters() if p.grad is not None)


def test_gate_figures_of_weights_made_by_hand() -> None:
    rows = 4
    ignoring = torch.full((rows, 2), 0.5)
    switching = torch.tensor([[1.0, 0.0], [0.0, 1.0]] * 2)
    collapsed = torch.tensor([[1.0, 0.0]] * 4)
    figures = gate_figures(torch.stack([ignoring, switching, collapsed], 1))
    assert figures["gate_usage"].tolist() == [[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]
    assert figures["gate_entropy"].tolist() == pytest.approx([math.log(2), 0.0, 0.0])
    assert figures["gate_information"].tolist() == pytest.approx([0.0, math.log(2), 0.0])
    assert gate_collapsed(figures["gate_usage"]).tolist() == [False, False, True]
    assert gate_collapsed(torch.tensor([[0.9, 0.1], [0.96, 0.04]])).tolist() == [False, True]


@pytest.mark.parametrize("count", [2, 20, 51])
@pytest.mark.parametrize("level", [0.05, 0.3, 1.0])
def test_tails_are_those_of_the_piecewise_constant_distribution(count: int, level: float) -> None:
    quantiles = np.random.default_rng(count).normal(size=(7, count))
    ordered = np.sort(quantiles, axis=1)
    edges = np.arange(count + 1) / count
    share = (np.minimum(edges[1:], level) - edges[:-1]).clip(min=0.0)  # of the probability, below the level
    tail = conditional_value_at_risk(torch.from_numpy(quantiles), level)
    np.testing.assert_allclose(tail, ordered @ share / level, rtol=0, atol=1e-12)
    at = value_at_risk(torch.from_numpy(quantiles), level)
    np.testing.assert_array_equal(at, ordered[:, np.searchsorted(edges[1:], level - 1e-12)])


@pytest.mark.parametrize(("count", "tolerance"), [(51, 0.06), (2001, 5e-3)])
def test_the_tail_of_a_normal_distribution(count: int, tolerance: float) -> None:
    quantiles = torch.special.ndtri(quantile_levels(count))
    density = math.exp(-0.5 * 1.6448536**2) / math.sqrt(2 * math.pi)
    assert conditional_value_at_risk(quantiles).item() == pytest.approx(-density / 0.05, abs=tolerance)
    assert value_at_risk(quantiles).item() == pytest.approx(-1.6449, abs=tolerance)
