"""GAE and per-member statistics against RLlib's implementation and hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ray.rllib.utils.postprocessing.value_predictions import compute_value_targets

from sentio_rllib.policy.heads import quantile_levels
from sentio_rllib.ppo.gae import (
    RewardScale,
    generalized_advantages,
    standardize_per_member,
    subtract_path_group_mean,
    tail_advantages,
)


@given(
    seed=st.integers(0, 2**31),
    steps=st.integers(1, 40),
    rows=st.integers(1, 5),
    gamma=st.floats(0.0, 1.0),
    lambda_=st.floats(0.0, 1.0),
)
@settings(max_examples=60, deadline=None)
def test_advantages_equal_rllibs_on_mixed_ends(seed: int, steps: int, rows: int, gamma: float, lambda_: float) -> None:
    rng = np.random.default_rng(seed)
    rewards, values, finals = (rng.normal(size=(steps, rows)) for _ in range(3))
    ends = rng.choice(3, p=[0.7, 0.15, 0.15], size=(steps, rows))
    terminated, truncated = ends == 1, ends == 2
    last = rng.normal(size=rows)
    following = np.vstack([values[1:], last])
    next_values = np.where(truncated, finals, following)
    ours = generalized_advantages(
        *map(torch.tensor, (rewards, values, next_values, terminated, truncated)),
        gamma=gamma,
        lambda_=lambda_,
    ).numpy()
    for row in range(rows):
        expected = _rllib_advantages(rewards[:, row], values[:, row], next_values[:, row], ends[:, row], gamma, lambda_)
        np.testing.assert_allclose(ours[:, row], expected, rtol=1e-4, atol=1e-5)  # RLlib's are float32


def _rllib_advantages(  # noqa: PLR0917  # RLlib's own order
    rewards: NDArray[np.float64],
    values: NDArray[np.float64],
    next_values: NDArray[np.float64],
    ends: NDArray[np.int64],
    gamma: float,
    lambda_: float,
) -> NDArray[np.float64]:
    """Per episode, RLlib wants one artificial step that holds the bootstrap value."""
    advantages = []
    start = 0
    for stop in [*(np.flatnonzero(ends) + 1), len(rewards)]:
        if stop <= start:
            continue
        final = ends[stop - 1] == 1
        targets = compute_value_targets(
            values=np.append(values[start:stop], next_values[stop - 1]).astype(np.float32),
            rewards=np.append(rewards[start:stop], 0.0).astype(np.float32),
            terminateds=np.append(np.zeros(stop - start - 1), [float(final), 0.0]).astype(np.float32),
            truncateds=np.append(np.zeros(stop - start - 1), [float(not final), 1.0]).astype(np.float32),
            gamma=gamma,
            lambda_=lambda_,
        )
        advantages.append(targets[: stop - start] - values[start:stop])
        start = stop
    return np.concatenate(advantages)


def test_advantages_by_hand() -> None:
    def column(*values: float) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64).unsqueeze(1)

    def flags(*values: bool) -> torch.Tensor:
        return torch.tensor(values).unsqueeze(1)

    advantages = generalized_advantages(
        column(1.0, 2.0, 3.0),
        column(0.5, 0.5, 0.5),
        column(0.5, 4.0, 9.0),
        flags(False, False, True),
        flags(False, True, False),
        gamma=0.5,
        lambda_=0.5,
    )
    # last: 3 - 0.5; middle: 2 + 0.5*4 - 0.5, cut; first: 1 + 0.25 - 0.5 + 0.25*3.5
    assert advantages.squeeze(1).tolist() == pytest.approx([1.625, 3.5, 2.5])


def test_shapes_must_agree() -> None:
    a, b = torch.zeros(3, 2), torch.zeros(3, 1)
    flags = torch.zeros(3, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="one shape"):
        generalized_advantages(a, b, a, flags, flags, gamma=0.9, lambda_=0.9)


def test_path_group_takes_the_mean_of_the_others() -> None:
    advantages = torch.tensor([1.0, 2.0, 6.0, 10.0]).view(1, 4, 1)
    left = subtract_path_group_mean(advantages, 2).flatten().tolist()
    assert left == [1.0 - 2.0, 2.0 - 1.0, 6.0 - 10.0, 10.0 - 6.0]
    assert subtract_path_group_mean(advantages, 1) is advantages


def test_standardized_columns_do_not_depend_on_each_other() -> None:
    rows = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 7 + 3
    together = standardize_per_member(rows)
    alone = standardize_per_member(rows[:, 1:2])
    assert torch.equal(together[:, 1:2], alone)
    assert together.mean(0).abs().max() < 1e-12
    assert (together.square().mean(0) - 1).abs().max() < 1e-6


def test_reward_scale_is_the_deviation_of_all_returns_so_far() -> None:
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randn(3, 20, 4, 2, dtype=torch.float64, generator=generator)
    done = torch.rand(3, 20, 4, 2, generator=generator) < 0.1
    scale = RewardScale(4, 2, gamma=0.9, dtype=torch.float64)
    for rollout in range(3):
        deviation = scale.update(rewards[rollout], done[rollout])
    returns, running = [], torch.zeros(4, 2, dtype=torch.float64)
    for reward, end in zip(rewards.flatten(0, 1), done.flatten(0, 1), strict=True):
        running = 0.9 * running + reward
        returns.append(running)
        running = torch.where(end, 0.0, running)
    expected = torch.stack(returns).flatten(0, 1).std(0, correction=0)
    torch.testing.assert_close(deviation, expected, rtol=1e-12, atol=0)


def test_reward_scale_goes_on_from_its_state_and_never_divides_by_zero() -> None:
    scale = RewardScale(2, 1, gamma=0.9, dtype=torch.float64)
    assert scale.update(torch.zeros(5, 2, 1), torch.zeros(5, 2, 1, dtype=torch.bool)).item() == 1.0
    other = RewardScale(2, 1, gamma=0.9, dtype=torch.float64)
    other.set_state(scale.get_state())
    rewards, done = torch.randn(5, 2, 1), torch.zeros(5, 2, 1, dtype=torch.bool)
    assert torch.equal(scale.update(rewards, done), other.update(rewards, done))


@pytest.mark.parametrize(("count", "tolerance"), [(20, 0.25), (51, 0.12), (201, 0.05)])
def test_tail_advantages_are_centred_where_the_prediction_is_right_and_negative_in_the_tail(
    count: int, tolerance: float
) -> None:
    normal = torch.special.ndtri(quantile_levels(count))
    exact = tail_advantages(normal.unsqueeze(1), normal.expand(count, 1, count))  # each quantile comes true once
    assert exact.mean().item() == pytest.approx(0.0, abs=1e-12)
    targets = torch.special.ndtri(quantile_levels(20_000)).unsqueeze(1)  # a normal without noise
    tail = tail_advantages(targets, normal.expand(20_000, 1, count))
    assert tail.mean().item() == pytest.approx(0.0, abs=tolerance)  # the tail of a normal is longer than its quantiles'
    assert tail[targets < -2.5].max() < 0
    above = tail[targets > -1.6]
    assert 0 <= above.min() == above.max()  # what is not in the tail is all the same to it
    worse = tail_advantages(targets - 0.5, normal.expand(20_000, 1, count))
    assert worse.mean() < -0.5


def test_tail_advantages_by_hand() -> None:
    quantiles = torch.tensor([[[4.0, -2.0, 0.0, -1.0]]], dtype=torch.float64).expand(3, 1, 4)
    targets = torch.tensor([[-4.0], [-1.0], [9.0]], dtype=torch.float64)
    # the worst half is -2 and -1: at risk -1, on average -1.5; a sample is -1 + min(0, target + 1) / 0.5
    assert tail_advantages(targets, quantiles, 0.5).flatten().tolist() == pytest.approx([-5.5, 0.5, 0.5])
