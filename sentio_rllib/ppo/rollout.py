"""Columnar rollouts: a stack of members steps its environments together into preallocated columns.

Environment e of member m is row ``e * M + m`` of the simulator; columns are ``[T, environments, M, ...]``.
Rows store the bar index, not the features; the learner gathers features per minibatch. Knows no Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from sentio_rllib.errors import SplitError
from sentio_rllib.market.tape import TapeTensors
from sentio_rllib.policy.variants import ActorCritic
from sentio_rllib.ppo.gae import (
    RewardScale,
    generalized_advantages,
    standardize_per_member,
    subtract_path_group_mean,
)
from sentio_rllib.ppo.settings import Precision, TrialSettings
from sentio_rllib.seeding import stream
from sentio_rllib.trading.simulator import Simulator
from sentio_rllib.validation.splits import Range


def resolve_precision(precision: Precision, device: torch.device, hidden: Sequence[int]) -> Precision:
    """Return what `auto` means on this device for networks of these widths.

    bfloat16 on a GPU, and on a CPU that multiplies it faster than float32 where layers are wide enough to pay
    for the casts; else float32.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if max(hidden) >= 256 and _cpu_prefers_bfloat16() else "float32"


@cache
def _cpu_prefers_bfloat16() -> bool:
    """Whether bfloat16 products are faster than float32 ones: with AMX, or with AVX512-BF16 on AMD.

    Intel's VDPBF16PS issues on one port and float32's FMA on two, so without AMX passes in bfloat16 took half
    as long again as in float32 (D4).
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    cpuinfo = Path("/proc/cpuinfo")
    amd = cpuinfo.is_file() and "AuthenticAMD" in cpuinfo.read_text()
    return amd and torch.cpu._is_avx512_bf16_supported()


def compute_dtype(precision: Precision) -> torch.dtype:
    """Return the dtype of master weights and columns."""
    return torch.float64 if precision == "float64" else torch.float32


@contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run network passes in bfloat16 where `precision` says so; master weights stay float32."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        yield


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
        decision), ``invalid`` and ``entropy`` (means), ``drawdown_stops`` (count).
    """

    columns: dict[str, torch.Tensor]
    figures: dict[str, torch.Tensor]


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
        self.features = tape.features.to(self.dtype)
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
        observation = self.simulator.observe()
        self.network.eval()
        for step in range(steps):
            market = self.features[observation.bar].view(*self.shape, -1)
            portfolio = observation.portfolio.to(self.dtype)
            output = self.network.policy(
                market, portfolio.view(*self.shape, -1), observation.mask.view(*self.shape, -1)
            )
            actions = (output.logits + gumbel[step]).argmax(-1)
            buffers["bar"][step] = observation.bar
            buffers["portfolio"][step] = portfolio
            buffers["action_mask"][step] = observation.mask
            buffers["actions"][step] = actions.view(-1)
            buffers["logits"][step] = output.logits.view(n, -1)
            result = self.simulator.step(actions.view(-1))
            buffers["reward"][step] = result.reward
            buffers["log_return"][step] = result.log_return
            buffers["terminated"][step] = result.terminated
            buffers["truncated"][step] = result.truncated & ~result.terminated
            buffers["traded"][step] = result.traded
            buffers["invalid"][step] = result.invalid
            observation = self.simulator.observe()
            done = result.terminated | result.truncated
            if bool(done.any()):
                cut = buffers["truncated"][step]
                finals.append((step, cut, observation.bar[cut], observation.portfolio[cut].to(self.dtype)))
                starts, stops = new_starts[step], new_stops[step]
                if ppo.path_group > 1:  # a drawdown stop restarts flat on the same path, to stay in step
                    stay = result.terminated & ~result.truncated
                    starts = torch.where(stay, observation.bar, starts)
                    stops = torch.where(stay, self.stop, stops)
                self.stop = torch.where(done, stops, self.stop)
                self.simulator.reset(done, starts, self.stop)
                observation = self.simulator.observe()
        return self._finish(buffers, finals, observation.bar, observation.portfolio.to(self.dtype))

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
            "log_return": new(dtype=torch.float64),
            "terminated": new(dtype=torch.bool),
            "truncated": new(dtype=torch.bool),
            "traded": new(dtype=torch.bool),
            "invalid": new(dtype=torch.bool),
        }

    def _finish(
        self,
        buffers: dict[str, torch.Tensor],
        finals: list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]],
        last_bar: torch.Tensor,
        last_portfolio: torch.Tensor,
    ) -> Rollout:
        """Values, advantages and figures of a filled set of buffers."""
        ppo, members = self.settings.ppo, self.shape[1]
        columns = {key: value.view(ppo.rollout_steps, *self.shape, *value.shape[2:]) for key, value in buffers.items()}
        rows_bar = columns["bar"].flatten(0, 1)
        rows_portfolio = columns["portfolio"].flatten(0, 1)
        rows_mask = columns["action_mask"].flatten(0, 1)
        split_rows = (torch.split(each, ppo.minibatch_rows) for each in (rows_bar, rows_portfolio, rows_mask))
        minibatches = list(zip(*split_rows, strict=True))  # in one pass, activations would leave the caches
        row_values = torch.cat([self._values(bar, portfolio) for bar, portfolio, _ in minibatches])
        logits = columns["logits"].flatten(0, 1)
        if self.precision == "bfloat16":  # steps ran in float32; the update's ratios compare like with like
            logits = torch.cat([self._logits(*minibatch) for minibatch in minibatches])
        values = row_values.reshape(ppo.rollout_steps, *self.shape)
        next_values = torch.empty(values.shape, dtype=values.dtype, device=self.device)
        next_values[:-1] = values[1:]
        next_values[-1] = self._values(last_bar.view(self.shape), last_portfolio.view(*self.shape, -1))
        self._bootstrap_truncated(next_values, finals)
        terminated, truncated = columns["terminated"], columns["truncated"]
        deviation = self.reward_scale.update(columns["reward"], terminated | truncated)
        advantages = generalized_advantages(
            columns["reward"] / deviation,
            values,
            next_values,
            terminated,
            truncated,
            gamma=ppo.gamma,
            lambda_=ppo.lambda_,
        )
        targets = advantages + values
        advantages = subtract_path_group_mean(advantages, ppo.path_group)
        actions = columns["actions"].flatten(0, 1)
        log_probs = torch.log_softmax(logits, -1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return Rollout(
            columns={
                "bar": rows_bar,
                "portfolio": rows_portfolio,
                "action_mask": rows_mask,
                "actions": actions,
                "log_prob": log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1),
                "advantages": standardize_per_member(advantages.flatten(0, 1)),
                "value_targets": targets.flatten(0, 1),
            },
            figures={
                "reward": columns["reward"].flatten(0, 1).mean(0),
                "log_return": columns["log_return"].flatten(0, 1).mean(0),
                "trades": columns["traded"].flatten(0, 1).double().mean(0),
                "invalid": columns["invalid"].flatten(0, 1).double().mean(0),
                "entropy": entropy.mean(0),
                "drawdown_stops": terminated.reshape(-1, members).sum(0),
            },
        )

    def _values(self, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        with autocast(self.precision, self.device):
            return self.network.value(self.features[bar], portfolio)

    def _logits(self, bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with autocast(self.precision, self.device):
            return self.network.policy(self.features[bar], portfolio, mask).logits

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
        padded_bar = bars.new_zeros(depth, members)
        padded_portfolio = portfolios.new_zeros(depth, members, portfolios.shape[1])
        padded_bar[row, member[order]] = bars[order]
        padded_portfolio[row, member[order]] = portfolios[order]
        final_values = self._values(padded_bar, padded_portfolio)
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
