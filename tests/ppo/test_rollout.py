"""Rollouts: starts stay inside their segments, the mask shown is the mask used, groups share their path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentio_rllib.errors import SplitError
from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.actor_critic import ActorCritic, PolicyOutput
from sentio_rllib.policy.deciding import network_policy
from sentio_rllib.policy.encoders import Line
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.ppo.gae import standardize_per_member, tail_advantages
from sentio_rllib.ppo.learner import learning_rate_at
from sentio_rllib.ppo.lookahead import Lookahead
from sentio_rllib.ppo.precision import autocast, compute_dtype
from sentio_rllib.ppo.rollout import RolloutSampler
from sentio_rllib.ppo.scoring import Scorer
from sentio_rllib.ppo.settings import PPOSettings, Precision, TrialSettings
from sentio_rllib.ppo.starts import StartSampler
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.trading.simulator import StepResult
from sentio_rllib.validation.splits import Range, Splits

MEMBERS = ((1, 0), (1, 1), (2, 1))


def _sampler(splits: Splits, tape: Tape, *, masks: str = "state", **ppo: Any) -> RolloutSampler:
    given: dict[str, Any] = {"advantages": "sampled", "environments": 8, "rollout_steps": 40, **ppo}
    settings = TrialSettings(
        TradingRules(masks=masks, episode_length=300),  # type: ignore[arg-type]  # a name of the three
        PolicySpec(hidden=(8,)),
        PPOSettings(precision="float32", **given),
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
    values, counts = torch.unique(starts, return_counts=True)
    assert values.tolist() == [10, 11, 12, 13, 100, 101, 102, 103, 104, 105]
    assert set(counts.tolist()) == {100}


def test_segments_without_room_for_an_episode_are_refused() -> None:
    with pytest.raises(SplitError, match="302 bars are needed, the longest segment has 301"):
        StartSampler([[Range(0, 301)]], 300, 15)


@pytest.mark.parametrize("advantages", ["sampled", "counterfactual"])
@pytest.mark.parametrize("masks", ["none", "state", "risk"])
def test_the_mask_shown_is_the_mask_used(small_splits: Splits, small_tape: Tape, masks: str, advantages: str) -> None:
    sampler = _sampler(small_splits, small_tape, masks=masks, advantages=advantages)
    rollout = sampler.sample(0)
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


@pytest.mark.parametrize("advantages", ["sampled", "counterfactual"])
def test_a_rollout_depends_on_its_iteration_and_state_alone(
    small_splits: Splits, small_tape: Tape, advantages: str
) -> None:
    one, other = (_sampler(small_splits, small_tape, advantages=advantages) for _ in range(2))
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
    assert len(set(restarts.tolist())) > 5


@pytest.mark.parametrize("changes", [{}, {"max_drawdown": 0.01}, {"drawdown_weight": 0.5}], ids=str)
def test_counterfactual_rollouts_walk_the_same_bars_with_advantages_of_all_actions(
    small_splits: Splits, small_tape: Tape, changes: dict[str, float]
) -> None:
    sampled = _enhanced(small_splits, small_tape, **changes)
    counterfactual = _enhanced(
        small_splits, small_tape, advantages="counterfactual", target_policy="stochastic", **changes
    )
    for iteration in range(3):
        wanted, found = sampled.sample(iteration), counterfactual.sample(iteration)
        rows = found.columns
        for key in ("bar", "portfolio", "action_mask", "actions"):
            assert torch.equal(wanted.columns[key], rows[key])
        for key, figure in wanted.figures.items():
            torch.testing.assert_close(found.figures[key], figure, rtol=1e-12, atol=0.0)
        taken = rows["log_prob"].gather(-1, rows["actions"].unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(taken, wanted.columns["log_prob"], rtol=0, atol=1e-12)
        advantages, allowed = rows["advantages"], rows["action_mask"]
        assert (rows["log_prob"].exp() * advantages).sum(-1).abs().max() < 1e-9
        assert bool((advantages[~allowed] == 0.0).all())
        for member in range(len(MEMBERS)):
            of_member = advantages[:, member][allowed[:, member]]
            assert of_member.square().mean().item() == pytest.approx(1.0, abs=1e-6)
        # both estimate the same returns, one with the noise of the actions that happened to be sampled
        pairs = torch.stack([rows["value_targets"].flatten(), wanted.columns["value_targets"].flatten()])
        assert torch.corrcoef(pairs)[0, 1] > 0.5
        assert not torch.equal(*pairs)


def test_learning_rate_schedules() -> None:
    base = PPOSettings(learning_rate=0.4)
    points = (0.0, 0.25, 0.5, 1.0, 1.5)
    expected = {
        "constant": [0.4] * 5,
        "linear": [0.4, 0.3, 0.2, 0.0, 0.0],
        "cosine": [0.4, 0.4 * 0.8535533905932737, 0.2, 0.0, 0.0],
    }
    for schedule, values in expected.items():
        settings_ = replace(base, schedule=schedule)  # type: ignore[arg-type]  # a name of the four
        assert [learning_rate_at(settings_, point) for point in points] == pytest.approx(values)
        assert [learning_rate_at(settings_, point, 0.25) for point in points] == pytest.approx(values)
    plateau = replace(base, schedule="plateau")
    assert [learning_rate_at(plateau, point, factor) for point, factor in ((0.0, 1.0), (0.9, 0.25))] == [0.4, 0.1]


def _enhanced(splits: Splits, tape: Tape, max_drawdown: float = 0.2, **ppo: Any) -> RolloutSampler:
    policy = PolicySpec(variant="enhanced-maskable", hidden=(8,), d_model=8, heads=2, layers=2, band=3, quantiles=7)
    given: dict[str, Any] = {"advantages": "sampled", "environments": 8, "rollout_steps": 40, **ppo}
    settings = TrialSettings(
        TradingRules(masks="risk", episode_length=300, max_drawdown=max_drawdown),
        policy,
        PPOSettings(precision="float64", **given),
        splits.folds,
        MEMBERS,
    )
    return RolloutSampler(tape.tensors(), settings, ActorCritic(policy, MEMBERS).double())


def _isolated_contexts(sampler: RolloutSampler, bars: torch.Tensor) -> torch.Tensor:
    """Contexts of decisions at `bars` [rows, M], each from a line of its own receptive field alone."""
    field = sampler.settings.policy.receptive_field
    offsets = torch.arange(1 - field, 1)
    windows = sampler.reader.features[bars.T.unsqueeze(-1) + offsets]  # [M, rows, field, 14]
    patches = windows.flatten(2).view(*bars.T.shape, sampler.settings.policy.receptive_patches, -1)
    last = torch.full((len(bars.T), 1), patches.shape[2] - 1)
    with torch.no_grad():
        rows = [
            sampler.network.policy_context(sampler.reader.market(bar.unsqueeze(0)), Line(patches[:, row], last))
            for row, bar in enumerate(bars)
        ]
    return torch.cat(rows)


@pytest.mark.parametrize(
    ("path_group", "max_drawdown", "plans_again"), [(1, 0.2, False), (1, 0.01, True), (4, 0.01, False)]
)
def test_decisions_are_made_on_the_embeddings_of_their_own_bars(
    small_splits: Splits,
    small_tape: Tape,
    monkeypatch: pytest.MonkeyPatch,
    *,
    path_group: int,
    max_drawdown: float,
    plans_again: bool,
) -> None:
    sampler = _enhanced(small_splits, small_tape, max_drawdown, path_group=path_group)
    network, plan = sampler.network, Lookahead._plan
    decide = network.policy
    contexts: list[torch.Tensor] = []
    plans: list[int] = []

    def policy(context: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> PolicyOutput:
        contexts.append(context.clone())
        return decide(context, portfolio, mask)

    def counted(self: Lookahead, first: int, environments: torch.Tensor) -> torch.Tensor:
        plans.append(first)
        return plan(self, first, environments)

    monkeypatch.setattr(network, "policy", policy)
    monkeypatch.setattr(Lookahead, "_plan", counted)
    stops = 0.0
    for iteration in range(3):
        contexts.clear()
        rollout = sampler.sample(iteration)
        stops += float(rollout.figures["drawdown_stops"].sum())
        columns = rollout.columns
        expected = _isolated_contexts(sampler, columns["bar"])
        torch.testing.assert_close(torch.cat(contexts), expected, rtol=0, atol=1e-12)
        logits = decide(expected, columns["portfolio"], columns["action_mask"]).logits.detach()
        log_prob = torch.log_softmax(logits, -1).gather(-1, columns["actions"].unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(log_prob, columns["log_prob"], rtol=0, atol=1e-12)
    assert (stops > 0) == (max_drawdown < 0.2)
    # a group stays on its path after a stop, so its plan holds
    assert (max(plans) > 0) == plans_again


def test_block_evaluation_decides_on_the_isolated_window_of_each_decision(
    small_splits: Splits, small_tape: Tape
) -> None:
    sampler = _enhanced(small_splits, small_tape)
    network, reader = sampler.network, sampler.reader
    first, second = small_splits.folds
    *whole, block = second.validation
    ends_early = replace(second, validation=(*whole, Range(block.start, block.stop - 400)))
    settings = replace(sampler.settings, folds=(first, ends_early))
    scorer = Scorer(small_tape.tensors(), settings, 252, torch.float64)
    decide = network_policy(network, reader, scorer.evaluator.bars())
    seen: list[tuple[torch.Tensor, ...]] = []

    def recorded(bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        logits = decide(bar, portfolio, mask)
        seen.append((bar.clone(), portfolio.clone(), mask.clone(), logits))
        return logits

    evaluation = scorer.evaluator.evaluate(recorded)
    assert any(record.trades > 0 for record in evaluation.sampled)
    live = scorer.evaluator.decisions.view(scorer.evaluator.shape)
    assert int(live.min()) < int(live.max())  # blocks end apart
    for step in (0, 1, 17, int(live.min()), len(seen) - 1):
        bar, portfolio, mask, logits = seen[step]
        with torch.no_grad():
            expected = network.policy(_isolated_contexts(sampler, bar), portfolio, mask).logits
        decided = live > step  # a block that has ended waits for the others, and what it decides is not read
        torch.testing.assert_close(logits[decided], expected[decided], rtol=0, atol=1e-12)
        assert bool(decided.any())


def test_drawdowns_cost_reward_that_is_learned_from_and_not_reported(
    small_splits: Splits, small_tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = _enhanced(small_splits, small_tape, drawdown_weight=0.5, gamma=0.0, lambda_=0.0)
    simulator, step = sampler.simulator, sampler.simulator.step
    deeper: list[torch.Tensor] = []
    rewards: list[torch.Tensor] = []

    def recorded(actions: torch.Tensor) -> StepResult:
        before = torch.log(simulator.peak / simulator.equity)
        result = step(actions)
        deeper.append((torch.log(simulator.peak / simulator.equity) - before).clamp(min=0.0))
        rewards.append(result.reward.double())
        return result

    monkeypatch.setattr(simulator, "step", recorded)
    rollout = sampler.sample(0)
    reported, fall = (torch.cat(each).view(-1, len(MEMBERS)) for each in (rewards, deeper))
    # with gamma 0 a target is the reward of its step alone, in units of the deviation
    learned = rollout.columns["value_targets"] * sampler.reward_scale.deviation()
    rules = sampler.settings.rules
    pace = rules.target_return_per_bar * rules.decision_interval
    torch.testing.assert_close(learned, reported - 0.5 * fall / pace, rtol=0, atol=1e-9)
    assert bool((fall > 0).any())
    torch.testing.assert_close(rollout.figures["reward"], reported.mean(0), rtol=0, atol=1e-9)
    plain = _enhanced(small_splits, small_tape, gamma=0.0, lambda_=0.0).sample(0)
    assert torch.equal(plain.figures["reward"], rollout.figures["reward"])
    assert torch.equal(plain.columns["actions"], rollout.columns["actions"])


def test_tails_weigh_in_the_advantages_and_not_in_the_targets(small_splits: Splits, small_tape: Tape) -> None:
    plain = _enhanced(small_splits, small_tape).sample(0).columns
    sampler = _enhanced(small_splits, small_tape, cvar_weight=0.5)
    averse = sampler.sample(0).columns
    assert all(torch.equal(plain[key], averse[key]) for key in plain if key != "advantages")
    assert (averse["advantages"] - plain["advantages"]).abs().max() > 1e-3
    with torch.no_grad():
        context = sampler.reader.contexts(sampler.network.value_context, averse["bar"])
        quantiles = sampler.network.quantiles(context, averse["portfolio"])
    targets = averse["value_targets"]
    expected = targets - quantiles.mean(-1) + 0.5 * tail_advantages(targets, quantiles)
    torch.testing.assert_close(averse["advantages"], standardize_per_member(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
@pytest.mark.parametrize("shape", [{"variant": "maskable"}, {"shared": True}, {"encoder": "mlp"}, {}], ids=str)
def test_under_dropout_old_and_new_probabilities_are_of_one_policy(
    small_splits: Splits, small_tape: Tape, shape: dict[str, Any], precision: Precision
) -> None:
    given: dict[str, Any] = {
        "variant": "enhanced-maskable",
        "hidden": (32,),
        "d_model": 8,
        "heads": 2,
        "layers": 1,
        "band": 3,
    }
    policy = PolicySpec(**given | {"dropout": 0.3, "quantiles": 7} | shape)
    ppo = PPOSettings(environments=8, rollout_steps=40, precision=precision)
    settings = TrialSettings(TradingRules(masks="risk", episode_length=300), policy, ppo, small_splits.folds, MEMBERS)
    network = ActorCritic(policy, MEMBERS).to(compute_dtype(precision))
    with torch.no_grad():
        for weights in network.policy_head.parameters():
            weights.add_(0.5 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)))
    sampler = RolloutSampler(small_tape.tensors(), settings, network)
    for iteration in (0, 1):
        columns = sampler.sample(iteration).columns
        network.begin_iteration(iteration, 8)
        network.train()
        network.of_environments(torch.arange(320) % 8)
        with torch.no_grad(), autocast(precision, torch.device("cpu")):
            # as a stretch of an environment's decisions, so that a transformer's tokens are shared as in an update
            rows = torch.arange(320).view(40, 8).T.flatten()
            network.of_environments(rows % 8)
            output, _ = network.both(
                sampler.reader.market(columns["bar"][rows]),
                sampler.reader.line(columns["bar"][rows]),
                columns["portfolio"][rows],
                columns["action_mask"][rows],
            )
        now = torch.log_softmax(output.logits, -1)
        allowed = columns["action_mask"][rows]
        tolerance = 1e-9 if precision == "float64" else 0.05
        torch.testing.assert_close(now[allowed], columns["log_prob"][rows][allowed].to(now), atol=tolerance, rtol=0.0)
        network.eval()
        plain, _ = network.both(
            sampler.reader.market(columns["bar"]),
            sampler.reader.line(columns["bar"]),
            columns["portfolio"],
            columns["action_mask"],
        )
        assert (torch.log_softmax(plain.logits, -1) - columns["log_prob"])[columns["action_mask"]].abs().max() > 0.1
