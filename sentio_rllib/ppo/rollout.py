"""Columnar rollouts: a stack of members steps its environments together into preallocated columns.

Environment e of member m is row ``e * M + m`` of the simulator; columns are ``[T, environments, M, ...]``.
Rows store the bar index, not the features; the learner gathers features per minibatch. Knows no Ray.

A rollout's bars are known before it is stepped: they are encoded in one pass (`lookahead.py`), and an environment that
a drawdown stop takes elsewhere is planned again. Values are computed in one pass after stepping, so stepping runs the
policy trunk alone. First episodes are cut at random lengths, so that environments do not end together for ever after.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from sentio_rllib.market.tape import TapeTensors
from sentio_rllib.policy.actor_critic import ActorCritic, TapeReader
from sentio_rllib.policy.encoders import Line
from sentio_rllib.policy.heads import N_ACTIONS, conditional_value_at_risk, gate_figures
from sentio_rllib.ppo.branches import Branches
from sentio_rllib.ppo.columns import Finals, Rollout
from sentio_rllib.ppo.counterfactual import counterfactual_values, scaled_advantages, target_probabilities
from sentio_rllib.ppo.gae import (
    RewardScale,
    generalized_advantages,
    standardize_per_member,
    subtract_path_group_mean,
    tail_advantages,
)
from sentio_rllib.ppo.lookahead import Lookahead
from sentio_rllib.ppo.precision import autocast, compute_dtype, resolve_precision
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.ppo.starts import StartSampler
from sentio_rllib.seeding import stream
from sentio_rllib.trading.simulator import Observation, Simulator, StepResult


class RolloutSampler:
    """Steps ``environments x M`` environments and returns ready training columns.

    Parameters
    ----------
    tape
        The tape that trials receive (the holdout is not on it).
    settings
        Of the trial.
    network
        The stack of members; read, not changed.
    """

    def __init__(self, tape: TapeTensors, settings: TrialSettings, network: ActorCritic) -> None:
        self.settings = settings
        self.network = network
        self.device = tape.open.device
        ppo = settings.ppo
        self.precision = resolve_precision(ppo.precision, self.device, settings.policy.hidden)
        self.dtype = compute_dtype(self.precision)
        self.reader = TapeReader(tape.features.to(self.dtype), settings.policy)
        self.shape = (ppo.environments, len(settings.members))
        self.n = ppo.environments * len(settings.members)
        self.branches: Branches | None = None
        if ppo.advantages == "counterfactual":
            self.branches = Branches(tape, settings.rules, self.n, drawdowns=ppo.drawdown_weight > 0.0)
            self.simulator, self.kept = self.branches.kept, self.branches.kept_accounts
        else:
            self.simulator, self.kept = Simulator(tape, settings.rules, self.n, horizon=None), 1
        self.start_sampler = StartSampler(
            [settings.folds[fold].train for _, fold in settings.members],
            settings.rules.episode_length,
            settings.rules.decision_interval,
        )
        self.reward_scale = RewardScale(*self.shape, gamma=ppo.gamma, dtype=self.dtype)
        self.stop: torch.Tensor | None = None

    def _draws(self, purpose: str, iteration: int, *shape: int) -> torch.Tensor:
        """Uniform draws ``[shape[0], shape[1], M, *rest]``, one stream per member."""
        columns = [
            torch.rand(*shape, generator=stream(purpose, seed, fold, iteration), dtype=torch.float64)
            for seed, fold in self.settings.members
        ]
        return torch.stack(columns, 2)

    def _start_draws(self, iteration: int, steps: int) -> torch.Tensor:
        group = self.settings.ppo.path_group
        draws = self._draws("starts", iteration, steps, self.shape[0] // group)
        return draws.repeat_interleave(group, 1)

    def _first_reset(self) -> None:
        """Start every environment, with first episodes cut at random lengths so that ends do not coincide."""
        starts = self.start_sampler.starts(self._start_draws(-1, 1))[0]
        share = self._start_draws(-2, 1)[0]
        decisions = 1 + (share * self.start_sampler.decisions).long()
        self.stop = self.start_sampler.stops(starts, decisions).flatten().to(self.device)
        everywhere = torch.ones(self.n, dtype=torch.bool, device=self.device)
        self._reset(everywhere, starts.flatten().to(self.device))

    def _reset(self, paths: torch.Tensor, starts: torch.Tensor) -> None:
        assert self.stop is not None
        (self.branches or self.simulator).reset(paths, starts, self.stop)

    @torch.no_grad()
    def sample(self, iteration: int) -> Rollout:
        """Make ``rollout_steps`` decisions in every environment.

        Parameters
        ----------
        iteration
            Number of the training iteration; keys every draw.
        """
        ppo = self.settings.ppo
        if self.stop is None:
            self._first_reset()
        assert self.stop is not None
        steps = ppo.rollout_steps
        new_starts = self.start_sampler.starts(self._start_draws(iteration, steps)).flatten(1)
        new_stops = self.start_sampler.stops(new_starts).to(self.device)
        new_starts = new_starts.to(self.device)
        noise = self._draws("actions", iteration, steps, self.shape[0], 3)
        gumbel = -torch.log(-torch.log(noise)).to(self.device, self.dtype)
        buffers = self._buffers(steps)
        finals: list[Finals] = []
        gates: list[torch.Tensor] = []
        observation = self.simulator.observe()
        self.network.begin_iteration(iteration, self.shape[0])
        self.network.train(self.settings.policy.dropout > 0.0)
        environments = torch.arange(self.shape[0], device=self.device)
        self.network.of_environments(environments.repeat(self.kept))
        ahead = None
        if self.reader.encodes:
            ahead = Lookahead(self.reader, self.network, self.simulator, self.shape, starts=new_starts, stops=new_stops)
        for step in range(steps):
            bar = observation.bar[: self.n].view(self.shape)
            context = self.reader.market(bar) if ahead is None else ahead.context(step, bar)
            portfolio = observation.portfolio.to(self.dtype)
            output = self.network.policy(
                context.repeat(self.kept, 1, 1), self._rows(portfolio), self._rows(observation.mask)
            )
            if output.gate is not None:
                gates.append(output.gate[: self.shape[0]])
            actions = (output.logits[: self.shape[0]] + gumbel[step]).argmax(-1)
            buffers["bar"][step] = bar
            buffers["portfolio"][step] = portfolio.view(buffers["portfolio"][step].shape)
            buffers["action_mask"][step] = observation.mask.view(buffers["action_mask"][step].shape)
            buffers["actions"][step] = actions
            buffers["logits"][step] = output.logits.view(buffers["logits"][step].shape)
            result = self._step(buffers, step, actions.reshape(-1))
            observation = self.simulator.observe()
            done = result.terminated | result.truncated
            if bool(done.any()):
                cut = done if self.branches is not None else result.truncated & ~result.terminated
                finals.append(self._finals(step, cut, observation))
                self._restart(result, observation.bar[: self.n], new_starts[step], new_stops[step])
                observation = self.simulator.observe()
        return self._finish(buffers, finals, observation, gates)

    def _rows(self, values: torch.Tensor) -> torch.Tensor:
        """View what accounts see, ``[kept * n, ...]``, as rows of the networks, ``[kept * environments, M, ...]``."""
        return values.view(self.kept * self.shape[0], self.shape[1], -1)

    def _step(self, buffers: dict[str, torch.Tensor], step: int, actions: torch.Tensor) -> StepResult:
        """Make one decision everywhere and write down what it brought."""
        drawdown = self._log_drawdown()
        if self.branches is None:
            result = self.simulator.step(actions)
        else:
            result, tried = self.branches.step(actions)
            for key, value in tried._asdict().items():
                if value is not None:
                    buffers[f"tried_{key}"][step] = value.view(buffers[f"tried_{key}"][step].shape)
        after = self._log_drawdown()
        if drawdown is not None and after is not None:
            buffers["penalty"][step] = (after - drawdown).clamp_(min=0.0).view(self.shape)
        for key in ("reward", "log_return", "terminated", "traded", "invalid"):
            buffers[key][step] = getattr(result, key).view(self.shape)
        buffers["truncated"][step] = (result.truncated & ~result.terminated).view(self.shape)
        return result

    def _restart(
        self, result: StepResult, bar: torch.Tensor, new_starts: torch.Tensor, new_stops: torch.Tensor
    ) -> None:
        """Begin a new episode where one has ended; with path groups a drawdown stop stays on its path, in step."""
        assert self.stop is not None
        done = result.terminated | result.truncated
        if self.settings.ppo.path_group > 1:
            stay = result.terminated & ~result.truncated
            new_starts = torch.where(stay, bar, new_starts)
            new_stops = torch.where(stay, self.stop, new_stops)
        self.stop = torch.where(done, new_stops, self.stop)
        self._reset(done, new_starts)

    def _buffers(self, steps: int) -> dict[str, torch.Tensor]:
        def new(*shape: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.empty(steps, *shape, dtype=dtype, device=self.device)

        one, kept = self.shape, (self.kept, *self.shape)
        buffers = {
            "bar": new(*one, dtype=torch.int64),
            "portfolio": new(*kept, 6, dtype=self.dtype),
            "action_mask": new(*kept, N_ACTIONS, dtype=torch.bool),
            "actions": new(*one, dtype=torch.int64),
            "logits": new(*kept, N_ACTIONS, dtype=self.dtype),
            "reward": new(*one, dtype=self.dtype),
            "penalty": new(*one, dtype=self.dtype),
            "log_return": new(*one, dtype=torch.float64),
            "terminated": new(*one, dtype=torch.bool),
            "truncated": new(*one, dtype=torch.bool),
            "traded": new(*one, dtype=torch.bool),
            "invalid": new(*one, dtype=torch.bool),
        }
        if self.branches is not None:
            buffers |= {
                "tried_log_return": new(N_ACTIONS, *kept, dtype=torch.float64),
                "tried_terminated": new(N_ACTIONS, *kept, dtype=torch.bool),
                "tried_toward": new(self.kept - 1, N_ACTIONS, *kept, dtype=torch.float64),
            }
            if self.branches.drawdowns:
                buffers["tried_deeper"] = new(N_ACTIONS, *kept, dtype=torch.float64)
        return buffers

    def _finals(self, step: int, cut: torch.Tensor, observation: Observation) -> Finals:
        """What is seen last, before a new episode, where `cut` (bool[n]) by all accounts that are kept there."""
        rows = cut.nonzero().squeeze(1)
        rows = torch.cat([rows + account * self.n for account in range(self.kept)])
        return Finals(
            step * self.kept * self.n + rows, observation.bar[rows], observation.portfolio[rows].to(self.dtype)
        )

    def _log_drawdown(self) -> torch.Tensor | None:
        """Log of the episodes' peaks over their equity, ``[n]``; None where it has no weight."""
        if self.settings.ppo.drawdown_weight == 0.0:
            return None
        return torch.log(self.simulator.peak[: self.n] / self.simulator.equity[: self.n])

    def _finish(
        self,
        columns: dict[str, torch.Tensor],
        finals: list[Finals],
        last: Observation,
        gates: list[torch.Tensor],
    ) -> Rollout:
        """Values, advantages and figures of filled columns, ``[T, environments, M, ...]``, [T, kept, ...] some."""
        ppo = self.settings.ppo
        final_logits = self._final_logits(columns)
        self.network.eval()
        quantiles, values, next_values = self._values(columns, finals, last)
        log_probs = torch.log_softmax(final_logits, -1)
        reward = columns["reward"] - self._drawdown_charge(columns["penalty"])
        ended = columns["terminated"] | columns["truncated"]
        deviation = self.reward_scale.update(reward, ended)
        own = log_probs[:, 0].flatten(0, 1)
        rows = {key: columns[key].flatten(0, 1) for key in ("bar", "actions")}
        rows |= {key: columns[key][:, 0].flatten(0, 1) for key in ("portfolio", "action_mask")}
        if self.branches is None:
            advantages, targets = self._sampled(columns, reward / deviation, values, next_values)
            if ppo.cvar_weight > 0.0:
                advantages = advantages + ppo.cvar_weight * tail_advantages(targets, quantiles)
            group = advantages.view(-1, *self.shape)
            rows["log_prob"] = own.gather(-1, rows["actions"].unsqueeze(-1)).squeeze(-1)
            rows["advantages"] = standardize_per_member(subtract_path_group_mean(group, ppo.path_group).flatten(0, 1))
        else:
            of_actions, targets = self._counterfactual(columns, log_probs, deviation, next_values)
            if ppo.cvar_weight > 0.0:
                of_tails = [tail_advantages(each, quantiles) for each in of_actions.unbind(-1)]
                of_actions = of_actions + ppo.cvar_weight * torch.stack(of_tails, -1)
            rows["log_prob"] = own
            rows["advantages"] = scaled_advantages(of_actions, own, rows["action_mask"])
        figures = self._figures(columns, own)
        if quantiles.shape[-1] > 1:
            figures["value_cvar"] = (conditional_value_at_risk(quantiles).mean(0) * deviation).to(values)
        if gates:
            figures |= gate_figures(torch.cat(gates))
        return Rollout(columns=rows | {"value_targets": targets}, figures=figures)

    def _values(
        self, columns: dict[str, torch.Tensor], finals: list[Finals], last: Observation
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The critic's quantiles ``[rows, M, N]`` and values ``[T, ...]`` now, and values next ``[T, kept, ...]``."""
        bars = torch.cat([columns["bar"], last.bar[: self.n].view(1, *self.shape)])
        portfolio = torch.cat([columns["portfolio"], last.portfolio.to(self.dtype).view(1, self.kept, *self.shape, -1)])
        context = self._contexts(self.network.value_context, bars).flatten(0, 1)
        by_account = [self._quantiles(context, each.flatten(0, 1)) for each in portfolio.unbind(1)]
        quantiles = torch.stack([each.view(-1, *self.shape, each.shape[-1]) for each in by_account], 1)
        values = quantiles.mean(-1)
        next_values = values[1:].clone()
        self._bootstrap(next_values, finals)
        return quantiles[:-1, 0].flatten(0, 1), values[:-1, 0], next_values

    def _final_logits(self, columns: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits as an update takes them: steps run in float32, ratios compare like with like."""
        if self.precision != "bfloat16":
            return columns["logits"]
        context = self._contexts(self.network.policy_context, columns["bar"]).flatten(0, 1)
        accounts = zip(columns["portfolio"].unbind(1), columns["action_mask"].unbind(1), strict=True)
        logits = [self._logits(context, *(part.flatten(0, 1) for part in account)) for account in accounts]
        return torch.stack([each.view(-1, *self.shape, N_ACTIONS) for each in logits], 1)

    def _drawdown_charge(self, deeper: torch.Tensor) -> torch.Tensor | float:
        """What deeper drawdowns cost of the reward that is learned from."""
        weight, rules = self.settings.ppo.drawdown_weight, self.settings.rules
        if weight == 0.0:
            return 0.0
        return (weight / (rules.target_return_per_bar * rules.decision_interval) * deeper).to(self.dtype)

    def _sampled(
        self, columns: dict[str, torch.Tensor], reward: torch.Tensor, values: torch.Tensor, next_values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages of the actions that were taken, and value targets, ``[rows, M]``."""
        ppo = self.settings.ppo
        advantages = generalized_advantages(
            reward,
            values,
            next_values[:, 0],
            columns["terminated"],
            columns["truncated"],
            gamma=ppo.gamma,
            lambda_=ppo.lambda_,
        )
        return advantages.flatten(0, 1), (advantages + values).flatten(0, 1)

    def _counterfactual(
        self,
        columns: dict[str, torch.Tensor],
        log_probs: torch.Tensor,
        deviation: torch.Tensor,
        next_values: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Values of all actions of the paths' own accounts ``[rows, M, 3]``, and value targets ``[rows, M]``."""
        ppo, rules = self.settings.ppo, self.settings.rules
        reward = columns["tried_log_return"] / (rules.target_return_per_bar * rules.decision_interval)
        if ppo.drawdown_weight > 0.0:
            reward = reward - self._drawdown_charge(columns["tried_deeper"])
        of_actions, of_policy = counterfactual_values(
            (reward / deviation).to(self.dtype),
            target_probabilities(log_probs, ppo.target_policy).movedim(-1, 1),
            next_values,
            toward=columns["tried_toward"].to(self.dtype),
            terminated=columns["tried_terminated"],
            cut=columns["terminated"] | columns["truncated"],
            gamma=ppo.gamma,
            lambda_=ppo.lambda_,
        )
        return of_actions[:, :, 0].movedim(1, -1).flatten(0, 1), of_policy[:, 0].flatten(0, 1)

    def _figures(self, columns: dict[str, torch.Tensor], log_probs: torch.Tensor) -> dict[str, torch.Tensor]:
        """What a rollout went like, for each member: means over its rows, and counts of stops and episodes."""
        terminated, truncated = columns["terminated"], columns["truncated"]
        return {
            "reward": columns["reward"].flatten(0, 1).mean(0),
            "log_return": columns["log_return"].flatten(0, 1).mean(0),
            "trades": columns["traded"].flatten(0, 1).double().mean(0),
            "invalid": columns["invalid"].flatten(0, 1).double().mean(0),
            "entropy": -(log_probs.exp() * log_probs).sum(-1).mean(0),
            "drawdown_stops": terminated.reshape(-1, self.shape[1]).sum(0),
            "episodes": (terminated | truncated).reshape(-1, self.shape[1]).sum(0),
        }

    def _contexts(
        self, context_of: Callable[[torch.Tensor, Line | None], torch.Tensor], bars: torch.Tensor
    ) -> torch.Tensor:
        """Contexts ``[steps, environments, M, C]`` of time-major bars, encoded path by path."""
        paths = bars.transpose(0, 1)
        with autocast(self.precision, self.device):
            contexts = self.reader.contexts(context_of, paths.flatten(0, 1))
        return contexts.view(*paths.shape, -1).transpose(0, 1)

    def _quantiles(self, context: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        size = self.settings.ppo.minibatch_rows  # in one pass, activations would leave the caches
        with autocast(self.precision, self.device):
            parts = zip(torch.split(context, size), torch.split(portfolio, size), strict=True)
            return torch.cat([self.network.quantiles(*part) for part in parts])

    def _logits(self, context: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        size = self.settings.ppo.minibatch_rows
        with autocast(self.precision, self.device):
            environments = torch.arange(len(context), device=self.device) % self.shape[0]
            parts = zip(*(torch.split(each, size) for each in (environments, context, portfolio, mask)), strict=True)
            logits = []
            for rows, *part in parts:
                self.network.of_environments(rows)
                logits.append(self.network.policy(*part).logits)
            return torch.cat(logits)

    def _bootstrap(self, next_values: torch.Tensor, finals: list[Finals]) -> None:
        """Put the values of what ended episodes saw last where their last steps are."""
        if not finals:
            return
        members = self.shape[1]
        cells, bars, portfolios = (torch.cat(each) for each in zip(*finals, strict=True))
        member = cells % members
        order = torch.argsort(member, stable=True)
        counts = torch.bincount(member, minlength=members)
        depth = int(counts.max())
        row = torch.arange(len(order), device=self.device) - (counts.cumsum(0) - counts)[member[order]]
        padded_bar = bars[0].repeat(depth, members)
        padded_portfolio = portfolios.new_zeros(depth, members, portfolios.shape[1])
        padded_bar[row, member[order]] = bars[order]
        padded_portfolio[row, member[order]] = portfolios[order]
        with autocast(self.precision, self.device):
            contexts = self.reader.contexts(self.network.value_context, padded_bar)
        final_values = self._quantiles(contexts, padded_portfolio).mean(-1)
        next_values.view(-1)[cells[order]] = final_values[row, member[order]]

    def get_state(self) -> dict[str, object]:
        """Return the simulator's and the reward scale's state; empty before the first rollout."""
        if self.stop is None:
            return {}
        return {
            "stop": self.stop.clone(),
            "simulator": self.simulator.get_state(),
            "reward_scale": self.reward_scale.get_state(),
        }

    def set_state(self, state: dict[str, object]) -> None:
        """Go on from `state`, as :meth:`get_state` returned it."""
        if not state:
            self.stop = None
            return
        stop = state["stop"]
        assert isinstance(stop, torch.Tensor)
        self.stop = stop.to(self.device)
        self.simulator.set_state(state["simulator"])  # type: ignore[arg-type]  # as get_state made it
        self.reward_scale.set_state(state["reward_scale"])  # type: ignore[arg-type]  # as get_state made it
