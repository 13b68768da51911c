"""Values of every action along a path, rolled backwards from what each of them is known to have brought.

The market is an input that no action changes (Sinclair et al. 2022), so on the bars of a rollout the value of a
position under the present policy is an expectation over actions that can be taken in full: nothing is left of the
noise of sampled actions, and the noise of the market is the same for all actions of a decision and cancels in their
differences (Mao et al. 2018, input-driven baselines).
"""

from __future__ import annotations

from typing import Literal

import torch

TargetPolicy = Literal["greedy", "stochastic"]


def counterfactual_values(
    rewards: torch.Tensor,
    probabilities: torch.Tensor,
    next_values: torch.Tensor,
    *,
    toward: torch.Tensor,
    terminated: torch.Tensor,
    cut: torch.Tensor,
    gamma: float,
    lambda_: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the value of every action, and of the policy, at every decision of every path.

    K accounts stand at each decision, the first of them the path's own; A actions lead from each to a mixture of the
    K accounts at the next decision.

    Parameters
    ----------
    rewards
        Float ``[T, A, K, ...]``.
    probabilities
        Float ``[T, A, K, ...]``, of the policy whose values are asked for; sums to 1 over A.
    next_values
        Float ``[T, K, ...]``, the critic's at what the K accounts see after the step, before any new episode.
    toward
        Float ``[T, K - 1, A, K, ...]``, share of each other account in what an action leads to.
    terminated
        Bool ``[T, A, K, ...]``: the action ends the episode, with value zero.
    cut
        Bool ``[T, ...]``: the path's episode ends with the step, so that the critic alone tells what follows.
    gamma, lambda_
        Discount per decision; weight of what follows on the path against the critic, as in GAE.

    Returns
    -------
    tuple of torch.Tensor
        Float ``[T, A, K, ...]`` and ``[T, K, ...]``. With one action the second less the critic's value is the
        advantage of :func:`~sentio_rllib.ppo.gae.generalized_advantages`.
    """
    of_actions = torch.empty_like(rewards)
    of_policy = torch.empty_like(rewards[:, 0])
    following, trust = next_values[-1], torch.where(cut, 0.0, rewards.new_tensor(lambda_))
    for step in range(len(rewards) - 1, -1, -1):
        critic = next_values[step]
        value = torch.lerp(critic, following, trust[step])
        own, others = value[0], value[1:]
        mixed = own + (toward[step] * (others - own).unsqueeze(1).unsqueeze(1)).sum(0)
        action_values = rewards[step] + gamma * mixed.masked_fill(terminated[step], 0.0)
        following = (probabilities[step] * action_values).sum(0)
        of_actions[step], of_policy[step] = action_values, following
    return of_actions, of_policy


def target_probabilities(log_probs: torch.Tensor, target: TargetPolicy) -> torch.Tensor:
    """Return the probabilities of the target policy, shaped like `log_probs` ``[..., A]`` of the one that acts."""
    if target == "stochastic":
        return log_probs.exp()
    return torch.zeros_like(log_probs).scatter_(-1, log_probs.argmax(-1, keepdim=True), 1.0)


def scaled_advantages(values: torch.Tensor, log_probs: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Return the advantages ``[rows, M, A]`` of actions over what the policy expects, on one scale.

    Parameters
    ----------
    values, log_probs
        Float ``[rows, M, A]``, of every action; log-probabilities are those of the policy that acts.
    allowed
        Bool ``[rows, M, A]``.

    Returns
    -------
    torch.Tensor
        Their mean under the policy is 0 in every row, their root mean square over each member's allowed actions 1.
    """
    advantages = values - (log_probs.exp() * values).sum(-1, keepdim=True)
    masked = advantages * allowed
    mean_square = masked.square().sum((0, 2)) / allowed.sum((0, 2))
    return masked / (mean_square.sqrt() + 1e-8).unsqueeze(-1)
