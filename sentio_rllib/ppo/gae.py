"""Generalised advantage estimation over columns, and the statistics kept per member.

Arrays are time-major ``[T, environments, M]``; a pass of T steps is one loop of elementwise operations.
"""

from __future__ import annotations

import torch

from sentio_rllib.policy.heads import conditional_value_at_risk, value_at_risk


def generalized_advantages(
    rewards: torch.Tensor,
    values: torch.Tensor,
    next_values: torch.Tensor,
    terminated: torch.Tensor,
    truncated: torch.Tensor,
    *,
    gamma: float,
    lambda_: float,
) -> torch.Tensor:
    """Return the advantages of every step.

    Parameters
    ----------
    rewards, values
        Float ``[T, ...]``: reward of the step, value of the observation it was decided on.
    next_values
        Float ``[T, ...]``: value of the observation the step led to; at a truncation that of the final
        observation, not of the next episode's first. Not read where `terminated`.
    terminated, truncated
        Bool ``[T, ...]``: the episode ended, with value zero or cut off.
    gamma, lambda_
        Discount per decision and trace decay, both in [0, 1].

    Returns
    -------
    torch.Tensor
        Float ``[T, ...]``; the value targets are this plus `values`.

    Raises
    ------
    ValueError
        If the shapes differ.

    Notes
    -----
    Schulman et al. 2016, equation 16; a trace ends at both kinds of episode end.
    """
    shapes = {tuple(x.shape) for x in (rewards, values, next_values, terminated, truncated)}
    if len(shapes) != 1:
        raise ValueError(f"all arguments must have one shape [T, ...], got {sorted(shapes)}")
    deltas = torch.where(terminated, rewards, rewards + gamma * next_values) - values
    decay = gamma * lambda_ * (~(terminated | truncated)).to(values.dtype)
    advantages = torch.empty_like(deltas)
    running = torch.zeros_like(deltas[0])
    for step in range(deltas.shape[0] - 1, -1, -1):
        running = deltas[step] + decay[step] * running
        advantages[step] = running
    return advantages


def subtract_path_group_mean(advantages: torch.Tensor, path_group: int) -> torch.Tensor:
    """Take from each advantage the mean of the others on the same path at that moment (leave one out).

    Parameters
    ----------
    advantages
        Float ``[T, environments, M]``; consecutive runs of `path_group` environments share their bars.
    path_group
        Size of a group; 1 returns `advantages` as it is.

    Notes
    -----
    An input-driven baseline (Mao et al. 2018): the bars to come do not depend on the action, so a baseline
    that depends on them leaves the policy gradient unbiased.
    """
    if path_group == 1:
        return advantages
    steps, environments, members = advantages.shape
    grouped = advantages.reshape(steps, environments // path_group, path_group, members)
    others = (grouped.sum(2, keepdim=True) - grouped) / (path_group - 1)
    return (grouped - others).flatten(1, 2)


def tail_advantages(targets: torch.Tensor, quantiles: torch.Tensor, level: float = 0.05) -> torch.Tensor:
    """Return how much each return moved the conditional value at risk that was predicted, ``[rows, M]``.

    Parameters
    ----------
    targets
        Float ``[rows, M]``, returns as the critic is trained on.
    quantiles
        Float ``[rows, M, N]``, predicted before.
    level
        Share of the worst outcomes.

    Notes
    -----
    With the predicted quantile q at `level`, ``q + min(0, target - q) / level`` is a sample of the conditional
    value at risk (Rockafellar & Uryasev 2000, theorem 1); the predicted one is its baseline. Its policy
    gradient is that of Tamar et al. 2015. GAE's targets are part prediction, so tails are understated.
    """
    at_level = value_at_risk(quantiles, level)
    sample = at_level + (targets - at_level).clamp(max=0.0) / level
    return sample - conditional_value_at_risk(quantiles, level)


def standardize_per_member(advantages: torch.Tensor) -> torch.Tensor:
    """Return `advantages` ``[rows, M]`` with mean 0 and standard deviation 1 in every member's column."""
    centred = advantages - advantages.mean(0)
    deviation = centred.square().mean(0).sqrt()
    return centred / (deviation + 1e-8)


class RewardScale:
    """Running standard deviation of discounted returns, one per member; rewards are divided by it.

    Parameters
    ----------
    environments, members
        Shape of a step's rewards.
    gamma
        Discount of the returns.

    Notes
    -----
    Engstrom et al. 2020, "reward scaling". Statistics are updated once a rollout and apply to the whole of
    it, so that all its rewards are in one unit. Moments are merged as in Chan et al. 1983.
    """

    def __init__(self, environments: int, members: int, *, gamma: float, dtype: torch.dtype) -> None:
        self.gamma = gamma
        self.returns = torch.zeros(environments, members, dtype=torch.float64)
        self.count = 0
        self.mean = torch.zeros(members, dtype=torch.float64)
        self.sum_squares = torch.zeros(members, dtype=torch.float64)
        self.dtype = dtype

    def update(self, rewards: torch.Tensor, done: torch.Tensor) -> torch.Tensor:
        """Take in a rollout and return the deviation ``[M]`` to divide its rewards by.

        Parameters
        ----------
        rewards
            Float ``[T, environments, M]``, not divided.
        done
            Bool of that shape: the return starts again after the step.
        """
        rewards_cpu, done_cpu = rewards.detach().cpu().double(), done.cpu()
        history = torch.empty_like(rewards_cpu)
        for step in range(len(rewards_cpu)):
            self.returns = self.gamma * self.returns + rewards_cpu[step]
            history[step] = self.returns
            self.returns = self.returns.masked_fill(done_cpu[step], 0.0)
        rows = history.flatten(0, 1)
        count, mean = len(rows), rows.mean(0)
        shift = mean - self.mean
        total = self.count + count
        self.sum_squares = (
            self.sum_squares + (rows - mean).square().sum(0) + shift.square() * (self.count * count / total)
        )
        self.mean = self.mean + shift * (count / total)
        self.count = total
        return self.deviation().to(rewards)

    def deviation(self) -> torch.Tensor:
        """Return the standard deviation ``[M]``, 1 where returns have not varied yet."""
        if self.count == 0:
            return torch.ones_like(self.mean)
        deviation = (self.sum_squares / self.count).sqrt()
        return torch.where(deviation > 1e-8, deviation, torch.ones_like(deviation))

    def get_state(self) -> dict[str, torch.Tensor | int]:
        """Return everything that :meth:`set_state` needs."""
        return {
            "returns": self.returns.clone(),
            "count": self.count,
            "mean": self.mean.clone(),
            "sum_squares": self.sum_squares.clone(),
        }

    def set_state(self, state: dict[str, torch.Tensor | int]) -> None:
        """Go on from `state`."""
        returns, mean, sum_squares = state["returns"], state["mean"], state["sum_squares"]
        assert isinstance(returns, torch.Tensor)
        assert isinstance(mean, torch.Tensor)
        assert isinstance(sum_squares, torch.Tensor)
        self.returns, self.mean, self.sum_squares = returns.clone(), mean.clone(), sum_squares.clone()
        self.count = int(state["count"])
