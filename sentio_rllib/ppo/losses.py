"""The clipped PPO objective over a stack of members, and gradient clipping member by member.

The loss of a stack is the sum over members of each one's mean over rows: no term couples two members,
so a stacked member's gradient is what it would be alone.

Quantiles turn towards expectiles as their Huber widens, so it is narrow (`ppo.huber`, 0.1 deviations of the return).
Their loss is the mean over quantiles, so that its gradient stays of the size of a scalar critic's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from sentio_rllib.errors import NonFiniteError
from sentio_rllib.policy.heads import load_balance_loss, quantile_levels


class PPOLoss(NamedTuple):
    """All ``[M]``, means over rows: what is minimised and the terms it is made of."""

    total: torch.Tensor
    policy: torch.Tensor
    value: torch.Tensor
    entropy: torch.Tensor
    clip_fraction: torch.Tensor
    approximate_kl: torch.Tensor


def ppo_loss(
    logits: torch.Tensor,
    quantiles: torch.Tensor,
    gate: torch.Tensor | None,
    *,
    actions: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    value_targets: torch.Tensor,
    clip: float,
    value_weight: float,
    entropy_weight: float,
    load_balance: float,
    huber: float,
) -> PPOLoss:
    """Return the clipped surrogate loss of every member.

    Parameters
    ----------
    logits
        Masked, float ``[rows, M, 3]``.
    quantiles
        Of the predicted return, float ``[rows, M, N]``; N = 1 is a scalar critic.
    gate
        Gate weights ``[rows, M, R]``, or None.
    actions
        Int64 ``[rows, M]``.
    old_log_prob, advantages
        Float ``[rows, M]``, of `actions`; or ``[rows, M, 3]``, of all actions, whose expectation is taken then.
    value_targets
        Float ``[rows, M]``.
    clip, value_weight, entropy_weight, load_balance
        Clipping range of the probability ratio and the weights of the terms, all >= 0.
    huber
        As in :func:`quantile_huber_loss`; not read with N = 1.

    Raises
    ------
    ValueError
        If `logits` is not ``[rows, M, 3]``.

    Notes
    -----
    Schulman et al. 2017, equations 7 and 9; values are not clipped.
    """
    if logits.ndim != 3:
        raise ValueError(f"logits must be [rows, M, 3], got shape {tuple(logits.shape)}")
    log_probs = torch.log_softmax(logits, -1)
    terms = _sampled_terms if advantages.ndim < logits.ndim else _all_action_terms
    policy_loss, clip_fraction, approximate_kl = terms(log_probs, actions, old_log_prob, advantages, clip)
    value_loss = _value_loss(quantiles, value_targets, huber)
    entropy = -(log_probs.exp() * log_probs).sum(-1).mean(0)
    total = policy_loss + value_weight * value_loss - entropy_weight * entropy
    if gate is not None and load_balance > 0.0:
        total = total + load_balance * load_balance_loss(gate)
    return PPOLoss(total, policy_loss, value_loss, entropy, clip_fraction, approximate_kl)


def _sampled_terms(
    log_probs: torch.Tensor, actions: torch.Tensor, old_log_prob: torch.Tensor, advantages: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clipped surrogate of the actions taken, with its sign turned; share that is clipped; divergence; ``[M]`` each."""
    log_ratio = log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1) - old_log_prob
    ratio = log_ratio.exp()
    surrogate = torch.minimum(advantages * ratio, advantages * ratio.clamp(1.0 - clip, 1.0 + clip))
    with torch.no_grad():
        clip_fraction = ((ratio - 1.0).abs() > clip).to(ratio.dtype).mean(0)
        approximate_kl = (ratio - 1.0 - log_ratio).mean(0)  # Schulman's k3 estimator
    return -surrogate.mean(0), clip_fraction, approximate_kl


def _all_action_terms(
    log_probs: torch.Tensor, _: torch.Tensor, old_log_prob: torch.Tensor, advantages: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same in expectation over all actions under the old policy, `old_log_prob` and `advantages` ``[rows, M, 3]``.

    Where the old policy never does something, nothing is learned of it, as no sample would be.
    """
    new, old = log_probs.exp(), old_log_prob.exp()
    bounded = torch.minimum(torch.maximum(new, (1.0 - clip) * old), (1.0 + clip) * old)
    surrogate = torch.minimum(advantages * new, advantages * bounded).sum(-1)
    with torch.no_grad():
        clip_fraction = (old * ((new - old).abs() > clip * old)).sum(-1).mean(0)
        divergence = (old * (old_log_prob - log_probs)).masked_fill(old == 0.0, 0.0)
    return -surrogate.mean(0), clip_fraction, divergence.sum(-1).mean(0)


def _value_loss(quantiles: torch.Tensor, targets: torch.Tensor, huber: float) -> torch.Tensor:
    """Squared error of a scalar critic, quantile Huber loss of one with quantiles; float ``[M]``."""
    if quantiles.shape[-1] == 1:
        return (quantiles.squeeze(-1) - targets).square().mean(0)
    return quantile_huber_loss(quantiles, targets, huber)


def quantile_huber_loss(quantiles: torch.Tensor, targets: torch.Tensor, huber: float) -> torch.Tensor:
    """Return the quantile regression loss ``[M]``, the mean over rows and quantiles.

    Parameters
    ----------
    quantiles
        Float ``[rows, M, N]``, predictions at the levels of :func:`~sentio_rllib.policy.heads.quantile_levels`.
    targets
        Float ``[rows, M]``, one sample of the distribution each.
    huber
        Error below which the loss is quadratic, > 0, in the unit of `targets`; quantiles turn towards
        expectiles as it grows.

    Notes
    -----
    Dabney et al. 2018, equations 9 and 10, divided by `huber`, so that far from the target it is the
    absolute error.
    """
    error = targets.unsqueeze(-1) - quantiles
    with torch.no_grad():  # the loss is linear in the error around its slope, which spares a long graph
        levels = quantile_levels(quantiles.shape[-1]).to(quantiles)
        bent = (error / huber).clamp_(-1.0, 1.0)
        slope = torch.where(error < 0, 1.0 - levels, levels) * bent
        offset = slope * bent * (0.5 * huber)
    return (slope * error - offset).mean(-1).mean(0)


def clip_gradients_per_member(
    gradients: Iterable[torch.Tensor], max_norm: float, *, check: bool = True
) -> torch.Tensor:
    """Scale every member's gradient in place to a Euclidean norm of at most `max_norm`.

    Parameters
    ----------
    gradients
        Tensors with a leading member dimension, together the gradient of all members.
    max_norm
        The bound, > 0.
    check
        Whether to look at the norms, for which a GPU must be waited for; else the caller does.

    Returns
    -------
    torch.Tensor
        Norms before clipping, ``[M]``.

    Raises
    ------
    NonFiniteError
        If a norm is NaN or infinite; no gradient has been changed then.
    """
    gradients = list(gradients)
    squares = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients])
    norms = squares.sum(0).sqrt()
    if check and not bool(torch.isfinite(norms).all()):
        raise NonFiniteError(f"the gradient norm of a member is not finite: {norms.tolist()}")
    scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))
    return norms
