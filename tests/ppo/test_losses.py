"""The stacked PPO loss and per-member gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sentio_rllib.errors import NonFiniteError
from sentio_rllib.policy.heads import conditional_value_at_risk, load_balance_loss, mask_logits, quantile_levels
from sentio_rllib.ppo.losses import clip_gradients_per_member, ppo_loss, quantile_huber_loss

WEIGHTS = {"clip": 0.2, "value_weight": 0.5, "entropy_weight": 0.01, "load_balance": 0.0, "huber": 0.1}


def test_loss_by_hand() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25]], [[0.2, 0.2, 0.6]]], dtype=torch.float64))
    loss = ppo_loss(
        logits,
        torch.tensor([[[1.0]], [[2.0]]], dtype=torch.float64),
        None,
        actions=torch.tensor([[0], [2]]),
        old_log_prob=torch.log(torch.tensor([[0.25], [0.5]], dtype=torch.float64)),
        advantages=torch.tensor([[1.0], [-1.0]], dtype=torch.float64),
        value_targets=torch.tensor([[0.0], [4.0]], dtype=torch.float64),
        **WEIGHTS,
    )
    # ratios 2 and 1.2: min(2, 1.2) = 1.2 and min(-1.2, -1.2) = -1.2
    entropies = [-sum(p * math.log(p) for p in row) for row in ((0.5, 0.25, 0.25), (0.2, 0.2, 0.6))]
    assert loss.policy.item() == pytest.approx(0.0)
    assert loss.value.item() == pytest.approx((1.0 + 4.0) / 2)
    assert loss.entropy.item() == pytest.approx(sum(entropies) / 2)
    assert loss.total.item() == pytest.approx(0.5 * 2.5 - 0.01 * sum(entropies) / 2)


def test_over_all_actions_it_is_the_mean_of_what_samples_would_give() -> None:
    generator = torch.Generator().manual_seed(2)
    rows, members = 40, 2
    logits, before, advantages = (torch.randn(rows, members, 3, generator=generator).double() for _ in range(3))
    allowed = torch.rand(rows, members, 3, generator=generator) < 0.7
    allowed[..., 0] = True
    logits, before = mask_logits(logits, allowed), mask_logits(before, allowed)
    old, advantages = torch.log_softmax(before, -1), 2.0 * advantages * allowed
    logits.requires_grad_()
    quantiles, targets = torch.zeros(rows, members, 1).double(), torch.zeros(rows, members).double()
    taken = torch.zeros(rows, members, dtype=torch.int64)
    given: dict[str, Any] = {"old_log_prob": old, "advantages": advantages, "value_targets": targets, "actions": taken}
    whole = ppo_loss(logits, quantiles, None, **given, **WEIGHTS)
    expected, clipped = torch.zeros(members).double(), torch.zeros(members).double()
    for row in range(rows):
        for action in range(3):
            given = {
                "actions": torch.full((1, members), action),
                "old_log_prob": old[row : row + 1, :, action],
                "advantages": advantages[row : row + 1, :, action],
                "value_targets": targets[:1],
            }
            one = ppo_loss(logits[row : row + 1], quantiles[:1], None, **given, **WEIGHTS)
            weight = old[row, :, action].exp() / rows
            expected = expected + weight * one.policy
            clipped = clipped + weight * one.clip_fraction
    torch.testing.assert_close(whole.policy, expected, atol=1e-12, rtol=0.0)
    torch.testing.assert_close(whole.clip_fraction, clipped, atol=1e-12, rtol=0.0)
    divergence = (old.exp() * (old - torch.log_softmax(logits, -1))).masked_fill(~allowed, 0.0).sum(-1).mean(0)
    torch.testing.assert_close(whole.approximate_kl, divergence.detach(), atol=1e-12, rtol=0.0)
    (found,) = torch.autograd.grad(whole.policy.sum(), logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0.0)


def test_over_all_actions_it_stays_finite_where_the_old_policy_was_sure() -> None:
    old = torch.log_softmax(torch.tensor([[[0.0, -90.0, -1e9]]]), -1)
    logits = torch.tensor([[[-50.0, 50.0, -1e9]]], requires_grad=True)
    given: dict[str, Any] = {
        "actions": torch.zeros(1, 1, dtype=torch.int64),
        "advantages": torch.tensor([[[1.0, -3.0, 0.0]]]),
    }
    loss = ppo_loss(
        logits, torch.zeros(1, 1, 1), None, old_log_prob=old, value_targets=torch.zeros(1, 1), **given, **WEIGHTS
    )
    torch.autograd.backward(loss.total.sum())
    assert all(bool(torch.isfinite(term).all()) for term in loss)
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_masked_actions_have_probability_zero_and_no_part_in_the_entropy() -> None:
    logits = mask_logits(torch.zeros(1, 1, 3, requires_grad=True), torch.tensor([[[True, False, True]]]))
    log_probs = torch.log_softmax(logits, -1)
    assert log_probs.exp().tolist() == [[[0.5, 0.0, 0.5]]]
    entropy = -(log_probs.exp() * log_probs).sum()
    assert entropy.item() == pytest.approx(math.log(2))
    entropy.backward()  # type: ignore[no-untyped-call]  # torch's


def test_gradients_are_clipped_member_by_member() -> None:
    first, second = torch.zeros(2, 3, 1), torch.zeros(2, 1, 1)
    first[0], second[0], first[1] = 3.0, 4.0, 0.01
    norms = clip_gradients_per_member([first, second], 0.5)
    assert norms.tolist() == pytest.approx([math.sqrt(27 + 16), math.sqrt(3) * 0.01])
    assert torch.cat([first[0].flatten(), second[0].flatten()]).norm().item() == pytest.approx(0.5, rel=1e-5)
    assert first[1].flatten().tolist() == pytest.approx([0.01] * 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_refused_untouched(bad: float) -> None:
    gradient = torch.ones(2, 3)
    gradient[1, 1] = bad
    before = gradient.clone()
    with pytest.raises(NonFiniteError, match="not finite"):
        clip_gradients_per_member([gradient], 0.5)
    torch.testing.assert_close(gradient, before, rtol=0, atol=0, equal_nan=True)


def test_load_balance_is_zero_for_equal_shares_and_grows_to_r_minus_one() -> None:
    equal = torch.full((10, 2, 4), 0.25)
    collapsed = torch.zeros(10, 2, 4)
    collapsed[..., 1] = 1.0
    assert load_balance_loss(equal).tolist() == pytest.approx([0.0, 0.0])
    assert load_balance_loss(collapsed).tolist() == pytest.approx([3.0, 3.0])


def test_logits_without_a_member_dimension_are_refused() -> None:
    column = torch.zeros(4)
    with pytest.raises(ValueError, match=r"\[rows, M, 3\]"):
        ppo_loss(
            torch.zeros(4, 3),
            column,
            None,
            actions=column.long(),
            old_log_prob=column,
            advantages=column,
            value_targets=column,
            **WEIGHTS,
        )


@pytest.mark.parametrize("huber", [0.05, 1.0])
def test_the_quantile_loss_and_its_gradient_are_those_of_the_formula(huber: float) -> None:
    generator = torch.Generator().manual_seed(2)
    quantiles = torch.randn(6, 2, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    plain = torch.zeros(2, dtype=torch.float64)
    for row in range(6):
        for member in range(2):
            for index in range(5):
                error = targets[row, member] - quantiles[row, member, index]
                size = error.abs()
                bent = 0.5 * error**2 if size <= huber else huber * (size - 0.5 * huber)
                level = (index + 0.5) / 5
                weight = abs(level - float(error < 0))
                plain = plain + torch.eye(2, dtype=torch.float64)[member] * weight * bent / huber / (6 * 5)
    loss = quantile_huber_loss(quantiles, targets, huber)
    torch.testing.assert_close(loss, plain, rtol=0, atol=1e-12)
    scale = torch.tensor([1.0, -3.0], dtype=torch.float64)
    (expected,) = torch.autograd.grad(plain @ scale, quantiles)
    (gradient,) = torch.autograd.grad(loss @ scale, quantiles)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def _exponential(levels: torch.Tensor) -> torch.Tensor:
    return -torch.log1p(-levels)


def _falls(levels: torch.Tensor) -> torch.Tensor:
    """Quantiles of a lognormal loss: a long lower tail."""
    return -torch.exp(-0.5 * torch.special.ndtri(levels))


@pytest.mark.parametrize("distribution", [_exponential, _falls])
def test_the_quantile_critic_finds_the_quantiles_of_a_known_distribution(
    distribution: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    generator = torch.Generator().manual_seed(4)
    quantiles = torch.zeros(1, 1, 51, requires_grad=True)
    optimizer = torch.optim.Adam([quantiles], lr=0.05)
    for step in range(1000):
        optimizer.param_groups[0]["lr"] = 0.05 * (1.0 - step / 1000)
        samples = distribution(torch.rand(512, 1, generator=generator).clamp(1e-6, 1.0 - 1e-6))
        optimizer.zero_grad()
        quantile_huber_loss(quantiles.expand(512, 1, 51), samples, 0.02).sum().backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    found, exact = quantiles[0, 0].detach(), distribution(quantile_levels(51)).float()
    assert bool(((found - exact).abs() < 0.04 + 0.08 * exact.abs()).all())
    assert found.mean().item() == pytest.approx(exact.mean().item(), abs=0.03)
    tail = conditional_value_at_risk(exact).item()
    assert conditional_value_at_risk(found).item() == pytest.approx(tail, rel=0.08, abs=0.02)
