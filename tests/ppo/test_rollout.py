"""Rollouts: starts stay inside their segments, the mask shown is the mask used, groups share their path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentio_rllib.errors import SplitError
from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.variants import ActorCritic, PolicySpec
from sentio_rllib.ppo.learner import learning_rate_at
from sentio_rllib.ppo.rollout import RolloutSampler, StartSampler
from sentio_rllib.ppo.settings import PPOSettings, TrialSettings
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.splits import Range, Splits

MEMBERS = ((1, 0), (1, 1), (2, 1))


def _sampler(splits: Splits, tape: Tape, *, masks: str = "state", **ppo: int) -> RolloutSampler:
    settings = TrialSettings(
        TradingRules(masks=masks, episode_length=300),  # type: ignore[arg-type]  # a name of the three
        PolicySpec(hidden=(8,)),
        PPOSettings(precision="float32", **{"environments": 8, "rollout_steps": 40, **ppo}),  # type: ignore[arg-type]
        splits.folds,
        MEMBERS,
    )
    return RolloutSampler(tape.tensors(), settings, ActorCritic(settings.policy, settings.members))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_episodes_never_leave_their_segment(data: st.DataObject) -> None:
    interval, episode = data.draw(st.integers(1, 20)), data.draw(st.integers(20, 60))
    segments = []
    for _ in range(2):
        edges = sorted(data.draw(st.lists(st.integers(0, 1000), min_size=4, max_size=4, unique=True)))
        segments.append([Range(edges[0], edges[1] + 80), Range(edges[2] + 90, edges[3] + 170)])
    sampler = StartSampler(segments, episode, interval)
    uniform = torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    uniform[0], uniform[1] = 0.0, 1.0 - 1e-16
    starts = sampler.starts(uniform)
    stops = sampler.stops(starts)
    for member, ranges in enumerate(segments):
        for start, stop in zip(starts[:, member].tolist(), stops[:, member].tolist(), strict=True):
            assert any(each.start <= start and stop <= each.stop for each in ranges)


def test_all_admissible_starts_are_equally_likely() -> None:
    sampler = StartSampler([[Range(10, 25), Range(100, 117)]], episode_bars=10, interval=5)
    # an episode needs 12 bars: 4 starts in the first segment, 6 in the second
    starts = sampler.starts(((torch.arange(1000) + 0.5) / 1000).double().unsqueeze(1)).squeeze(1)
    values, counts = starts.unique(return_counts=True)
    assert values.tolist() == [10, 11, 12, 13, 100, 101, 102, 103, 104, 105]
    assert set(counts.tolist()) == {100}


def test_segments_without_room_for_an_episode_are_refused() -> None:
    with pytest.raises(SplitError, match="302 bars are needed, the longest segment has 301"):
        StartSampler([[Range(0, 301)]], 300, 15)


@pytest.mark.parametrize("masks", ["none", "state", "risk"])
def test_the_mask_shown_is_the_mask_used(small_splits: Splits, small_tape: Tape, masks: str) -> None:
    rollout = _sampler(small_splits, small_tape, masks=masks).sample(0)
    shown, actions = rollout.columns["action_mask"], rollout.columns["actions"]
    chosen = shown.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    assert bool(chosen.all())
    assert bool(shown[..., 0].all())
    # what was allowed was executed: only without masks can an action turn out invalid
    assert bool((rollout.figures["invalid"] > 0).all()) == (masks == "none")
    assert bool((~shown).any()) == (masks != "none")


def test_a_path_group_shares_its_bars_to_the_end(small_splits: Splits, small_tape: Tape) -> None:
    sampler = _sampler(small_splits, small_tape, path_group=4)
    sampler.simulator.rules = sampler.simulator.rules.replace(max_drawdown=0.002)  # stops happen all the time
    for iteration in range(3):
        rollout = sampler.sample(iteration)
        bars = rollout.columns["bar"].view(40, 2, 4, len(MEMBERS))
        assert bool((bars == bars[:, :, :1]).all())
        assert not bool((bars[:, 0] == bars[:, 1]).all())


def test_a_rollout_depends_on_its_iteration_and_state_alone(small_splits: Splits, small_tape: Tape) -> None:
    one, other = _sampler(small_splits, small_tape), _sampler(small_splits, small_tape)
    one.sample(0)
    other.set_state(one.get_state())
    first, second = one.sample(1).columns, other.sample(1).columns
    assert all(torch.equal(first[key], second[key]) for key in first)
    third = one.sample(2).columns
    assert not torch.equal(first["actions"], third["actions"])


def test_advantages_are_standardised_and_episodes_end_apart(small_splits: Splits, small_tape: Tape) -> None:
    rollout = _sampler(small_splits, small_tape).sample(0)
    advantages = rollout.columns["advantages"]
    assert advantages.mean(0).abs().max() < 1e-5
    assert (advantages.std(0, correction=0) - 1).abs().max() < 1e-3
    bars = rollout.columns["bar"].view(40, 8, len(MEMBERS))
    restarts = (bars[1:] - bars[:-1] != 15).nonzero()[:, 0]
    assert len(restarts.unique()) > 5


def test_learning_rate_schedules() -> None:
    base = PPOSettings(learning_rate=0.4)
    points = (0.0, 0.25, 0.5, 1.0, 1.5)
    expected = {
        "constant": [0.4] * 5,
        "linear": [0.4, 0.3, 0.2, 0.0, 0.0],
        "cosine": [0.4, 0.4 * 0.8535533905932737, 0.2, 0.0, 0.0],
    }
    for schedule, values in expected.items():
        settings_ = replace(base, schedule=schedule)  # type: ignore[arg-type]  # a name of the three
        assert [learning_rate_at(settings_, point) for point in points] == pytest.approx(values)
