"""Counterfactual values: against a tree of all actions walked by a scalar account, against GAE, and by its mean."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from sentio_rllib.ppo.branches import Branches, Tried
from sentio_rllib.ppo.counterfactual import counterfactual_values, scaled_advantages, target_probabilities
from sentio_rllib.ppo.gae import generalized_advantages
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.trading.simulator import Simulator
from tests.trading.scalar_simulator import ScalarSimulator
from tests.trading.tapes import bars_of, make_tape, random_tape, whole

INTERVAL, DECISIONS, START = 2, 6, 3


def exact_rules(**changes: Any) -> TradingRules:
    """Rules under which an account is either flat or all in, so that nothing else of its past matters."""
    given: dict[str, Any] = {"fee_rate": 0.002, "max_position": 1.0, "max_drawdown": 0.99, "half_spread_bps": 3.0}
    return TradingRules(**given | {"decision_interval": INTERVAL, "episode_length": 40} | changes)


def probabilities(bar: int, held: torch.Tensor) -> torch.Tensor:
    """float64[3, n], a policy that is a table of the bar and whether something is `held` (bool[n])."""
    generator = np.random.default_rng(bar)
    tables = torch.from_numpy(generator.dirichlet(np.ones(3), size=2))
    return tables[held.long()].T


def critic(bar: int, held: torch.Tensor) -> torch.Tensor:
    """float64[n], a table as well."""
    return torch.from_numpy(np.random.default_rng([bar, 1]).normal(size=2))[held.long()]


def walked(branches: Branches, actions: torch.Tensor) -> tuple[list[Tried], list[torch.Tensor], list[torch.Tensor]]:
    """Walk `actions` int64[T, n]; what was tried, and what the kept accounts held before each step and at the end."""
    tried, held, cuts = [], [branches.kept.observe().portfolio[:, 0] > 0.0], []
    for action in actions:
        step, brought = branches.step(action)
        tried.append(brought)
        cuts.append(step.terminated | step.truncated)
        held.append(branches.kept.observe().portfolio[:, 0] > 0.0)
    return tried, held, cuts


def values_of(branches: Branches, actions: torch.Tensor, gamma: float, lambda_: float, *, guessed: bool) -> Any:
    """Values by the module, with a policy and a critic (0 unless `guessed`) that are tables."""
    shape = (branches.kept_accounts, branches.n)
    tried, held, cuts = walked(branches, actions)
    bars = [START + INTERVAL * step for step in range(len(held))]
    policy = torch.stack([probabilities(bar, each).view(3, *shape) for bar, each in zip(bars, held[:-1], strict=False)])
    values = torch.stack([critic(bar, each).view(shape) for bar, each in zip(bars, held, strict=True)])
    values = values if guessed else torch.zeros_like(values)
    return counterfactual_values(
        torch.stack([each.log_return for each in tried]),
        policy,
        values[1:],
        toward=torch.stack([each.toward for each in tried]),
        terminated=torch.stack([each.terminated for each in tried]),
        cut=torch.stack(cuts),
        gamma=gamma,
        lambda_=lambda_,
    )


def copy_of(account: ScalarSimulator) -> ScalarSimulator:
    """An account that goes its own way from here."""
    other = copy.copy(account)
    other.marks, other.fills, other.trips = dict(account.marks), list(account.fills), list(account.trips)
    return other


def after(account: ScalarSimulator, action: int) -> ScalarSimulator:
    """What `account` would be after `action`, without taking it."""
    other = copy_of(account)
    other.step(action)
    return other


def by_enumeration(account: ScalarSimulator, left: int) -> tuple[list[float], float]:
    """Values of the three actions and of the policy, over every sequence of actions that is left."""
    if left == 0:
        return [], 0.0
    weights = probabilities(account.bar, torch.tensor([account.shares > 0.0]))[:, 0].tolist()
    values = []
    for action in range(3):
        other = copy_of(account)
        step = other.step(action)
        values.append(step.log_return + (0.0 if step.terminated else by_enumeration(other, left - 1)[1]))
    return values, math.fsum(weight * value for weight, value in zip(weights, values, strict=True))


@pytest.mark.parametrize(
    "changes",
    [{}, {"flat_by_close": True, "close_minutes": 1}, {"fee_rate": 0.0}, {"cash_rate": 0.3}, {"masks": "none"}],
    ids=str,
)
@pytest.mark.parametrize("seed", range(2))
def test_they_are_the_exact_ones_over_every_sequence_of_actions(seed: int, changes: dict[str, Any]) -> None:
    rules, tape = exact_rules(**changes), random_tape(seed, 40)
    stop = START + DECISIONS * INTERVAL + 2
    generator = np.random.default_rng(seed)
    actions = torch.from_numpy(generator.integers(0, 3, (DECISIONS, 4)))
    branches = Branches(tape.tensors(), rules, 4)
    branches.reset(whole(4), bars_of(4, START), bars_of(4, stop))
    of_actions, of_policy = values_of(branches, actions, 1.0, 1.0, guessed=False)
    for row in range(4):
        account = ScalarSimulator(tape, rules, START, stop, None)
        other = account
        for step in range(DECISIONS):
            for kept, each in enumerate((account, other)):
                wanted, value = by_enumeration(each, DECISIONS - step)
                np.testing.assert_allclose(of_actions[step, :, kept, row].numpy(), wanted, atol=1e-9, rtol=0)
                np.testing.assert_allclose(of_policy[step, kept, row].item(), value, atol=1e-9, rtol=0)
            led_to = [after(each, action) for each in (account, other) for action in range(3)]
            account.step(int(actions[step, row]))
            apart = [each for each in led_to if (each.shares > 0.0) != (account.shares > 0.0)]
            other = apart[0] if apart else account


def test_their_mean_over_sampled_actions_is_that_of_gae() -> None:
    """With a critic, a discount and lambda below 1: what GAE finds on average is what they are at once."""
    rules, tape, n, gamma, lambda_ = exact_rules(), random_tape(5, 40), 60_000, 0.9, 0.8
    stop = START + DECISIONS * INTERVAL + 2
    simulator = Simulator(tape.tensors(), rules, n, horizon=None)
    simulator.reset(whole(n), bars_of(n, START), bars_of(n, stop))
    generator = torch.Generator().manual_seed(0)
    rewards, values, actions = [], [], []
    for step in range(DECISIONS):
        held, bar = simulator.shares > 0.0, START + INTERVAL * step
        action = torch.multinomial(probabilities(bar, held).T, 1, generator=generator).squeeze(1)
        values.append(critic(bar, held))
        rewards.append(simulator.step(action).log_return)
        actions.append(action)
    values.append(critic(START + INTERVAL * DECISIONS, simulator.shares > 0.0))
    ended = torch.zeros(DECISIONS, n, dtype=torch.bool)
    ended[-1] = True
    value = torch.stack(values)
    found = generalized_advantages(
        torch.stack(rewards), value[:-1], value[1:], ended & False, ended, gamma=gamma, lambda_=lambda_
    )
    branches = Branches(tape.tensors(), rules, 3)
    branches.reset(whole(3), bars_of(3, START), bars_of(3, stop))
    of_actions, of_policy = values_of(
        branches, torch.zeros(DECISIONS, 3, dtype=torch.int64), gamma, lambda_, guessed=True
    )
    for action in range(3):
        sampled = found[0][actions[0] == action] + value[0, 0]
        error = sampled.std() / math.sqrt(len(sampled))
        assert (sampled.mean() - of_actions[0, action, 0, 0]).abs() < 4.0 * error
    everyone = found[0] + value[0, 0]
    assert (everyone.mean() - of_policy[0, 0, 0]).abs() < 4.0 * everyone.std() / math.sqrt(n)
    assert of_actions[0, :, 0, 0].max() - of_actions[0, :, 0, 0].min() > 20.0 * everyone.std() / math.sqrt(n)


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_with_one_action_they_are_gae(lambda_: float) -> None:
    generator = torch.Generator().manual_seed(1)
    steps, rows = 40, 30
    rewards, values, next_values = (torch.randn(steps, rows, generator=generator).double() for _ in range(3))
    terminated, truncated = (torch.rand(steps, rows, generator=generator) < 0.1 for _ in range(2))
    truncated &= ~terminated
    next_values[:-1] = torch.where((terminated | truncated)[:-1], next_values[:-1], values[1:])
    expected = generalized_advantages(rewards, values, next_values, terminated, truncated, gamma=0.9, lambda_=lambda_)
    _, of_policy = counterfactual_values(
        rewards.view(steps, 1, 1, rows),
        torch.ones(steps, 1, 1, rows, dtype=torch.float64),
        next_values.unsqueeze(1),
        toward=torch.zeros(steps, 0, 1, 1, rows, dtype=torch.float64),
        terminated=terminated.view(steps, 1, 1, rows),
        cut=terminated | truncated,
        gamma=0.9,
        lambda_=lambda_,
    )
    torch.testing.assert_close(of_policy[:, 0] - values, expected, atol=1e-12, rtol=0.0)


@pytest.mark.parametrize(
    "changes", [{}, {"position_step": 0.25}, {"max_drawdown": 0.01}, {"max_position": 0.6}], ids=str
)
def test_an_account_goes_on_as_a_simulator_alone(changes: dict[str, Any]) -> None:
    rules, tape = exact_rules(**changes), random_tape(7, 160)
    n, steps, stop = 20, 60, 150
    branches, alone = Branches(tape.tensors(), rules, n), Simulator(tape.tensors(), rules, n, horizon=None)
    for each in (branches, alone):
        each.reset(whole(n), bars_of(n, START), bars_of(n, stop))
    generator, stops = torch.Generator().manual_seed(2), 0
    for _ in range(steps):
        action = torch.randint(0, 3, (n,), generator=generator)
        step, tried = branches.step(action)
        wanted = alone.step(action)
        for name in step._fields:
            assert torch.equal(getattr(step, name), getattr(wanted, name)), name
        seen, expected = branches.kept.observe(), alone.observe()
        assert torch.equal(seen.portfolio[:n], expected.portfolio)
        assert torch.equal(seen.mask[:n], expected.mask)
        assert torch.equal(tried.log_return[:, 0].gather(0, action.unsqueeze(0))[0], wanted.log_return)
        assert bool(((tried.toward >= 0.0) & (tried.toward <= 1.0)).all())
        assert bool((tried.toward.sum(0) <= 1.0 + 1e-12).all())
        done = step.terminated | step.truncated
        stops += int(step.terminated.sum())
        for each in (branches, alone):
            each.reset(done, bars_of(n, START), bars_of(n, stop))
    assert (stops > 0) == (rules.max_drawdown < 0.5)


def test_each_other_account_is_what_another_action_would_have_led_to() -> None:
    rules, tape, n = exact_rules(max_position=0.9, fill_without_volume=True), random_tape(11, 160), 12
    branches = Branches(tape.tensors(), rules, n)
    branches.reset(whole(n), bars_of(n, START), bars_of(n, 150))
    generator = torch.Generator().manual_seed(4)
    for _ in range(30):
        before = branches.kept.get_state()
        _, tried = branches.step(torch.randint(0, 3, (n,), generator=generator))
        held = branches.kept.shares.view(2, n) > 0.0
        assert bool((held[0] != held[1]).all())  # flat beside long, long beside flat
        led_to = []
        for action in range(3):
            other = Simulator(tape.tensors(), rules, n, horizon=None)
            other.set_state({key: value[..., :n] if value.ndim else value for key, value in before.items()})
            other.step(bars_of(n, action))
            led_to.append(torch.cat([torch.stack([other.cash, other.shares, other.peak]), other.observe().portfolio.T]))
        kept = torch.stack([branches.kept.cash, branches.kept.shares, branches.kept.peak])[:, n:]
        kept = torch.cat([kept, branches.kept.observe().portfolio[n:].T])
        assert bool((torch.stack(led_to) == kept).all(1).any(0).all())
        assert bool((tried.toward[0, :, 0].amax(0) == 1.0).all())


def test_of_partial_positions_the_nearest_on_both_sides_are_kept() -> None:
    rules, tape = exact_rules(position_step=0.25), make_tape(np.full(60, 10.0), np.full(60, 10.0))
    branches = Branches(tape.tensors(), rules, 1)
    branches.reset(whole(1), bars_of(1, START), bars_of(1, 50))
    for action, fractions in ((1, (0.25, 0.25, 0.0)), (1, (0.5, 0.5, 0.0)), (0, (0.5, 0.75, 0.25))):
        branches.step(torch.tensor([action]))
        found = (branches.kept.shares * 10.0 / branches.kept.equity).tolist()
        assert found == pytest.approx(fractions, abs=1e-3)


@pytest.mark.parametrize("step", [1.0, 0.5])
def test_of_what_a_stop_ends_the_account_that_escapes_is_kept(step: float) -> None:
    prices = np.full(60, 10.0)
    prices[START + 2 * INTERVAL :] = 8.0  # over the second decision, behind the open at which a Sell is filled
    opens = np.concatenate([prices[:1], prices[:-1]])
    rules, tape = exact_rules(position_step=step, max_drawdown=0.05), make_tape(opens, prices)
    branches = Branches(tape.tensors(), rules, 1)
    branches.reset(whole(1), bars_of(1, START), bars_of(1, 50))
    branches.step(torch.tensor([1]))
    own, tried = branches.step(torch.tensor([0]))
    assert bool(own.terminated)
    assert tried.terminated[:, 0, 0].tolist() == [True, True, False]
    assert branches.kept.shares[1] == 0.0
    assert branches.kept.equity[1] > 0.98 * rules.initial_cash
    assert tried.toward[:, 2, 0, 0].tolist() == [1.0, 0.0][: len(tried.toward)]


def test_scaled_advantages_are_centred_under_the_policy_and_of_one_size() -> None:
    generator = torch.Generator().manual_seed(3)
    values = 7.0 + torch.randn(500, 2, 3, generator=generator) * torch.tensor([1.0, 50.0]).view(1, 2, 1)
    allowed = torch.rand(500, 2, 3, generator=generator) < 0.7
    allowed[..., 0] = True
    logits = torch.randn(500, 2, 3, generator=generator).masked_fill(~allowed, -1e9)
    log_probs = torch.log_softmax(logits, -1)
    scaled = scaled_advantages(values, log_probs, allowed)
    assert bool((scaled[~allowed] == 0.0).all())
    assert (log_probs.exp() * scaled).sum(-1).abs().max() < 1e-5
    for member in range(2):
        assert scaled[:, member][allowed[:, member]].square().mean().item() == pytest.approx(1.0, abs=1e-4)


def test_a_greedy_target_takes_what_the_evaluation_takes() -> None:
    log_probs = torch.log_softmax(torch.tensor([[0.1, 0.3, -1e9], [2.0, 2.0, 1.0]]), -1)
    assert target_probabilities(log_probs, "greedy").tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    assert torch.equal(target_probabilities(log_probs, "stochastic"), log_probs.exp())
