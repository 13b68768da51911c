"""Columnar rollouts: a stack of members steps its environments together into preallocated columns.

Environment e of member m is row ``e * M + m`` of the simulator; columns are ``[T, environments, M, ...]``.
Rows store the bar index, not the features; the learner gathers features per minibatch. Knows no Ray.

A rollout's bars are known before it is stepped: they are encoded in one pass (`_Lookahead`), and an environment that a
drawdown stop takes elsewhere is planned again. Values are computed in one pass after stepping, so stepping runs the
policy trunk alone. First episodes are cut at random lengths, so that environments do not end together for ever after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from sentio_rllib.errors import SplitError
from sentio_rllib.market.tape import TapeTensors
from sentio_rllib.policy.actor_critic import ActorCritic, TapeReader
from sentio_rllib.policy.encoders import Line
from sentio_rllib.policy.heads import conditional_value_at_risk, gate_figures
from sentio_rllib.ppo.gae import (
    RewardScale,
    generalized_advantages,
    standardize_per_member,
    subtract_path_group_mean,
    tail_advantages,
)
from sentio_rllib.ppo.precision import autocast, compute_dtype, resolve_precision
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.seeding import stream
from sentio_rllib.trading.simulator import Simulator, StepResult
from sentio_rllib.validation.splits import Range


class StartSampler:
    """Uniform random episode starts inside each member's training segments.

    An episode holds ``span // interval`` whole decision intervals and never leaves its segment.

    Parameters
    ----------
    segments
        Training segments of each member.
    episode_bars
        Bars of an episode; `interval` bars lie between two decisions.

    Raises
    ------
    SplitError
        If a member has no segment that holds an episode.
    """

    def __init__(self, segments: Sequence[Sequence[Range]], episode_bars: int, interval: int) -> None:
        self.decisions = max(1, episode_bars // interval)
        self.interval = interval
        needed = self.decisions * interval + 2
        width = max(len(each) for each in segments)
        self.first = torch.zeros(len(segments), width, dtype=torch.int64)
        counts = torch.zeros(len(segments), width, dtype=torch.int64)
        for member, ranges in enumerate(segments):
            for column, segment in enumerate(ranges):
                self.first[member, column] = segment.start
                counts[member, column] = max(0, segment.stop - segment.start - needed + 1)
        if bool((counts.sum(1) == 0).any()):
            longest = max(each.stop - each.start for ranges in segments for each in ranges)
            raise SplitError(
                f"no training segment holds an episode of {episode_bars} bars: {needed} bars are needed, the "
                f"longest segment has {longest}; lower trading.episode_length or use more bars"
            )
        self.ends = counts.cumsum(1)
        self.counts = counts

    def starts(self, uniform: torch.Tensor) -> torch.Tensor:
        """Map draws ``[..., M]`` from [0, 1) to first decision bars, int64 of that shape."""
        total = self.ends[:, -1]
        position = (uniform * total).long().clamp(max=total - 1)
        flat = position.reshape(-1, len(total)).T.contiguous()
        segment = torch.searchsorted(self.ends, flat, right=True)
        offset = flat - (self.ends.gather(1, segment) - self.counts.gather(1, segment))
        return (self.first.gather(1, segment) + offset).T.reshape(position.shape)

    def stops(self, starts: torch.Tensor, decisions: int | torch.Tensor | None = None) -> torch.Tensor:
        """Return the exclusive last bar that lets an episode from `starts` make `decisions` (default: all)."""
        return starts + (self.decisions if decisions is None else decisions) * self.interval + 2


@dataclass
class Rollout:
    """What one rollout yields: columns of ``T * environments`` rows, and figures per member.

    Attributes
    ----------
    columns
        ``bar`` int64 [rows, M]; ``portfolio`` [rows, M, 6]; ``action_mask`` bool [rows, M, 3];
        ``actions`` int64 [rows, M]; ``log_prob``, ``advantages``, ``value_targets`` [rows, M].
    figures
        ``[M]`` each: ``reward`` (mean, 1 is the target pace), ``log_return`` (per decision), ``trades`` (per
        decision), ``invalid`` and ``entropy`` (means), ``drawdown_stops`` and ``episodes`` that ended (counts); with a
        quantile critic ``value_cvar`` (mean of the predicted 5% conditional value at risk of the discounted reward);
        with a gated head those of :func:`~sentio_rllib.policy.heads.gate_figures`.
    """

    columns: dict[str, torch.Tensor]
    figures: dict[str, torch.Tensor]


class _Lookahead:
    """Contexts of the decisions to come, encoded before they are made.

    The tape, the weights and the next starts are known, so are the bars of every decision, but where a
    drawdown stop starts an episode anew: such an environment is planned again from there.
    """

    def __init__(self, sampler: RolloutSampler, new_starts: torch.Tensor, new_stops: torch.Tensor) -> None:
        self.reader, self.simulator = sampler.reader, sampler.simulator
        self.context_of = sampler.network.policy_context
        self.steps, self.shape = len(new_starts), sampler.shape
        self.interval = sampler.settings.rules.decision_interval
        self.new_starts = new_starts.view(self.steps, *self.shape)
        self.new_lasts = new_stops.view(self.steps, *self.shape) - (self.interval + 2)
        environments = torch.arange(self.shape[0], device=new_starts.device)
        self.bars = new_starts.new_empty(self.shape[0], self.steps, self.shape[1])
        self.contexts = self._plan(0, environments)

    def context(self, step: int, bar: torch.Tensor) -> torch.Tensor:
        """Return the contexts ``[environments, M, C]`` of the decisions at `bar` (int64 ``[environments, M]``)."""
        elsewhere = (self.bars[:, step] != bar).any(1).nonzero().squeeze(1)
        if len(elsewhere):
            self.contexts[elsewhere, step:] = self._plan(step, elsewhere)
        return self.contexts[:, step]

    def _plan(self, first: int, environments: torch.Tensor) -> torch.Tensor:
        """Contexts ``[environments, steps - first, M, C]`` if no drawdown stop comes."""
        bar = self.simulator.bar.view(self.shape)[environments]
        last = self.simulator.last_decision.view(self.shape)[environments]
        for step in range(first, self.steps):
            self.bars[environments, step] = bar
            bar = bar + self.interval
            ends = bar > last
            bar = torch.where(ends, self.new_starts[step, environments], bar)
            last = torch.where(ends, self.new_lasts[step, environments], last)
        paths = self.bars[environments, first:]
        return self.reader.contexts(self.context_of, paths.flatten(0, 1)).view(*paths.shape, -1)


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
        self.simulator = Simulator(tape, settings.rules, ppo.environments * len(settings.members), horizon=None)
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
        everywhere = torch.ones(self.simulator.n, dtype=torch.bool, device=self.device)
        self.simulator.reset(everywhere, starts.flatten().to(self.device), self.stop)

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
        steps, n = ppo.rollout_steps, self.simulator.n
        new_starts = self.start_sampler.starts(self._start_draws(iteration, steps)).flatten(1)
        new_stops = self.start_sampler.stops(new_starts).to(self.device)
        new_starts = new_starts.to(self.device)
        noise = self._draws("actions", iteration, steps, self.shape[0], 3)
        gumbel = -torch.log(-torch.log(noise)).to(self.device, self.dtype)
        buffers = self._buffers(steps, n)
        finals: list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]] = []
        gates: list[torch.Tensor] = []
        observation = self.simulator.observe()
        self.network.eval()
        ahead = _Lookahead(self, new_starts, new_stops) if self.reader.encodes else None
        for step in range(steps):
            bar = observation.bar.view(self.shape)
            context = self.reader.market(bar) if ahead is None else ahead.context(step, bar)
            portfolio = observation.portfolio.to(self.dtype)
            output = self.network.policy(
                context, portfolio.view(*self.shape, -1), observation.mask.view(*self.shape, -1)
            )
            if output.gate is not None:
                gates.append(output.gate)
            actions = (output.logits + gumbel[step]).argmax(-1)
            buffers["bar"][step] = observation.bar
            buffers["portfolio"][step] = portfolio
            buffers["action_mask"][step] = observation.mask
            buffers["actions"][step] = actions.reshape(-1)
            buffers["logits"][step] = output.logits.reshape(n, -1)
            drawdown = self._log_drawdown()
            result = self.simulator.step(actions.reshape(-1))
            after = self._log_drawdown()
            if drawdown is not None and after is not None:
                buffers["penalty"][step] = (after - drawdown).clamp_(min=0.0)
            for key in ("reward", "log_return", "terminated", "traded", "invalid"):
                buffers[key][step] = getattr(result, key)
            buffers["truncated"][step] = result.truncated & ~result.terminated
            observation = self.simulator.observe()
            done = result.terminated | result.truncated
            if bool(done.any()):
                cut = buffers["truncated"][step]
                finals.append((step, cut, observation.bar[cut], observation.portfolio[cut].to(self.dtype)))
                self._restart(result, observation.bar, new_starts[step], new_stops[step])
                observation = self.simulator.observe()
        return self._finish(buffers, finals, observation.bar, observation.portfolio.to(self.dtype), gates)

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
        self.simulator.reset(done, new_starts, self.stop)

    def _buffers(self, steps: int, n: int) -> dict[str, torch.Tensor]:
        def new(*shape: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.empty(steps, n, *shape, dtype=dtype, device=self.device)

        return {
            "bar": new(dtype=torch.int64),
            "portfolio": new(6, dtype=self.dtype),
            "action_mask": new(3, dtype=torch.bool),
            "actions": new(dtype=torch.int64),
            "logits": new(3, dtype=self.dtype),
            "reward": new(dtype=self.dtype),
            "penalty": new(dtype=self.dtype),
            "log_return": new(dtype=torch.float64),
            "terminated": new(dtype=torch.bool),
            "truncated": new(dtype=torch.bool),
            "traded": new(dtype=torch.bool),
            "invalid": new(dtype=torch.bool),
        }

    def _log_drawdown(self) -> torch.Tensor | None:
        """Log of the episodes' peaks over their equity, ``[n]``; None where it has no weight."""
        if self.settings.ppo.drawdown_weight == 0.0:
            return None
        return torch.log(self.simulator.peak / self.simulator.equity)

    def _finish(
        self,
        buffers: dict[str, torch.Tensor],
        finals: list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]],
        last_bar: torch.Tensor,
        last_portfolio: torch.Tensor,
        gates: list[torch.Tensor],
    ) -> Rollout:
        """Values, advantages and figures of a filled set of buffers."""
        ppo, rules = self.settings.ppo, self.settings.rules
        columns = {key: value.view(ppo.rollout_steps, *self.shape, *value.shape[2:]) for key, value in buffers.items()}
        rows = {key: columns[key].flatten(0, 1) for key in ("bar", "portfolio", "action_mask", "actions")}
        bars = torch.cat([columns["bar"], last_bar.view(1, *self.shape)])
        contexts = self._contexts(self.network.value_context, bars)
        quantiles = self._quantiles(contexts[:-1].flatten(0, 1), rows["portfolio"])
        logits = columns["logits"].flatten(0, 1)
        if self.precision == "bfloat16":  # steps ran in float32; the update's ratios compare like with like
            policy_contexts = self._contexts(self.network.policy_context, columns["bar"])
            logits = self._logits(policy_contexts.flatten(0, 1), rows["portfolio"], rows["action_mask"])
        values = quantiles.mean(-1).reshape(ppo.rollout_steps, *self.shape)
        next_values = torch.empty(values.shape, dtype=values.dtype, device=self.device)
        next_values[:-1] = values[1:]
        next_values[-1] = self._quantiles(contexts[-1], last_portfolio.view(*self.shape, -1)).mean(-1)
        self._bootstrap_truncated(next_values, finals)
        terminated, truncated = columns["terminated"], columns["truncated"]
        reward = columns["reward"]
        if ppo.drawdown_weight > 0.0:
            pace = rules.target_return_per_bar * rules.decision_interval
            reward = reward - ppo.drawdown_weight / pace * columns["penalty"]
        deviation = self.reward_scale.update(reward, terminated | truncated)
        advantages = generalized_advantages(
            reward / deviation,
            values,
            next_values,
            terminated,
            truncated,
            gamma=ppo.gamma,
            lambda_=ppo.lambda_,
        )
        targets = advantages + values
        if ppo.cvar_weight > 0.0:
            tail = tail_advantages(targets.flatten(0, 1), quantiles).view_as(advantages)
            advantages = advantages + ppo.cvar_weight * tail
        advantages = subtract_path_group_mean(advantages, ppo.path_group)
        log_probs = torch.log_softmax(logits, -1)
        figures = self._figures(columns, log_probs)
        if quantiles.shape[-1] > 1:
            figures["value_cvar"] = (conditional_value_at_risk(quantiles).mean(0) * deviation).to(values)
        if gates:
            figures |= gate_figures(torch.cat(gates))
        return Rollout(
            columns=rows
            | {
                "log_prob": log_probs.gather(-1, rows["actions"].unsqueeze(-1)).squeeze(-1),
                "advantages": standardize_per_member(advantages.flatten(0, 1)),
                "value_targets": targets.flatten(0, 1),
            },
            figures=figures,
        )

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
            parts = zip(*(torch.split(each, size) for each in (context, portfolio, mask)), strict=True)
            return torch.cat([self.network.policy(*part).logits for part in parts])

    def _bootstrap_truncated(
        self,
        next_values: torch.Tensor,
        finals: list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]],
    ) -> None:
        """Put the value of each truncated episode's final observation where its last step is."""
        if not finals:
            return
        members = self.shape[1]
        cells = torch.cat([step * self.simulator.n + cut.nonzero().squeeze(1) for step, cut, _, _ in finals])
        bars = torch.cat([bar for _, _, bar, _ in finals])
        portfolios = torch.cat([portfolio for _, _, _, portfolio in finals])
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
