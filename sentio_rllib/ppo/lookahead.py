"""What a transformer makes of the tape at decisions that are still to be made."""

from __future__ import annotations

import torch

from sentio_rllib.policy.actor_critic import ActorCritic, TapeReader
from sentio_rllib.trading.simulator import Simulator


class Lookahead:
    """Contexts of the decisions to come, encoded before they are made.

    The tape, the weights and the next starts are known, so are the bars of every decision, but where a
    drawdown stop starts an episode anew: such an environment is planned again from there.

    Parameters
    ----------
    reader, network
        The tape, and whose policy reads it.
    simulator
        Its first ``environments * M`` rows are the accounts that decide.
    shape
        (environments, M).
    starts, stops
        int64 ``[steps, environments * M]``: where an episode that ends at a step is followed by the next.
    """

    def __init__(
        self,
        reader: TapeReader,
        network: ActorCritic,
        simulator: Simulator,
        shape: tuple[int, int],
        *,
        starts: torch.Tensor,
        stops: torch.Tensor,
    ) -> None:
        self.reader, self.simulator = reader, simulator
        self.context_of = network.policy_context
        self.steps, self.shape = len(starts), shape
        self.interval, self.rows = simulator.interval, shape[0] * shape[1]
        self.new_starts = starts.view(self.steps, *self.shape)
        self.new_lasts = stops.view(self.steps, *self.shape) - (self.interval + 2)
        environments = torch.arange(self.shape[0], device=starts.device)
        self.bars = starts.new_empty(self.shape[0], self.steps, self.shape[1])
        self.contexts = self._plan(0, environments)

    def context(self, step: int, bar: torch.Tensor) -> torch.Tensor:
        """Return the contexts ``[environments, M, C]`` of the decisions at `bar` (int64 ``[environments, M]``)."""
        elsewhere = (self.bars[:, step] != bar).any(1).nonzero().squeeze(1)
        if len(elsewhere):
            self.contexts[elsewhere, step:] = self._plan(step, elsewhere)
        return self.contexts[:, step]

    def _plan(self, first: int, environments: torch.Tensor) -> torch.Tensor:
        """Contexts ``[environments, steps - first, M, C]`` if no drawdown stop comes."""
        bar = self.simulator.bar[: self.rows].view(self.shape)[environments]
        last = self.simulator.last_decision[: self.rows].view(self.shape)[environments]
        for step in range(first, self.steps):
            self.bars[environments, step] = bar
            bar = bar + self.interval
            ends = bar > last
            bar = torch.where(ends, self.new_starts[step, environments], bar)
            last = torch.where(ends, self.new_lasts[step, environments], last)
        paths = self.bars[environments, first:]
        return self.reader.contexts(self.context_of, paths.flatten(0, 1)).view(*paths.shape, -1)
