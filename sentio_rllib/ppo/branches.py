"""Accounts on a rollout's path, and what every action would have brought them.

The market does not answer, so what another action would have earned on the same bars is known. At each decision every
action is tried in copies of the account, by the simulator itself: fees, slippage, forced exits and stops included. One
copy goes on as the account. Of the others the one whose position is farthest from it is kept beside it for one
decision (two with partial positions: the one farthest above and the one farthest below), so that the value of holding
another position is known all along the path.

Where the account's own action ends in a drawdown stop and another does not, the one that lives is kept.

What remains approximate: what an account leads to is valued by the accounts kept there, by how much is held. These
differ from it in when they traded and what they have lost. Where accounts are either flat or full, that is all. With
partial positions a position beyond the kept ones is valued as the nearest of them, and the error is not small.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from sentio_rllib.market.tape import TapeTensors
from sentio_rllib.policy.heads import N_ACTIONS
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.trading.simulator import Simulator, StepResult

OFF_PATH = 0.4
"""How a distance counts of an account that is two actions from the path, where one that is one away will do."""


class Tried(NamedTuple):
    """What each action brought, for A actions, K kept accounts (the first is the account itself) and n paths.

    Attributes
    ----------
    log_return
        float64 ``[A, K, n]``.
    deeper
        float64 ``[A, K, n]``, rise of the log drawdown, or None where it is not asked for.
    terminated
        bool ``[A, K, n]``, a drawdown stop was reached.
    toward
        float64 ``[K - 1, A, K, n]``: how near the position is to that of the k-th other kept account, 0 .. 1; what
        is left is how near it is to that of the account itself.
    """

    log_return: torch.Tensor
    deeper: torch.Tensor | None
    terminated: torch.Tensor
    toward: torch.Tensor


def kept_accounts(rules: TradingRules) -> int:
    """Return how many accounts are kept on each path: the path's own, and one on either side of what it can hold."""
    return 2 if rules.position_step >= rules.max_position else 3


class Branches:
    """n accounts, each with K - 1 that took another action.

    Parameters
    ----------
    tape, rules
        Of the market.
    n
        Accounts.
    drawdowns
        Whether the rise of drawdowns is told.

    Attributes
    ----------
    kept
        Simulator of ``K * n`` rows: first the n accounts themselves.
    """

    def __init__(self, tape: TapeTensors, rules: TradingRules, n: int, *, drawdowns: bool = False) -> None:
        self.n, self.kept_accounts = n, kept_accounts(rules)
        self.drawdowns = drawdowns
        rows = self.kept_accounts * n
        self.kept = Simulator(tape, rules, rows, horizon=None)
        self._tried = Simulator(tape, rules, N_ACTIONS * rows, horizon=None)
        self._sources = torch.arange(rows, device=tape.device).repeat(N_ACTIONS)
        self._actions = torch.arange(N_ACTIONS, device=tape.device).repeat_interleave(rows)
        self._paths = torch.arange(n, device=tape.device)
        weight = torch.full((self.kept_accounts, 1), OFF_PATH, dtype=torch.float64, device=tape.device)
        weight[0] = 1.0
        self._weight = weight

    def reset(self, paths: torch.Tensor, start: torch.Tensor, stop: torch.Tensor) -> None:
        """Start the chosen paths flat; arguments ``[n]`` as in :meth:`Simulator.reset`."""
        times = self.kept_accounts
        self.kept.reset(paths.repeat(times), start.repeat(times), stop.repeat(times))

    def step(self, action: torch.Tensor) -> tuple[StepResult, Tried]:
        """Try every action in every kept account, and go on with `action` (int64[n]) in the first of each."""
        tried, shape = self._tried, (N_ACTIONS, self.kept_accounts, self.n)
        self.kept.observe()  # the tried accounts take what was seen
        tried.take(self.kept, self._sources)
        before = tried.equity / tried.peak
        result = tried.step(self._actions)
        terminated, log_return = result.terminated.view(shape), result.log_return.view(shape)
        fraction = (1.0 - tried.cash / tried.equity).view(shape)
        chosen = action * (self.kept_accounts * self.n) + self._paths
        gap = fraction - fraction.view(-1).index_select(0, chosen)
        outlives = terminated.view(-1).index_select(0, chosen) & ~terminated
        rows = [chosen]
        toward: list[torch.Tensor] = []
        sides = [gap.abs()] if self.kept_accounts == 2 else [gap, -gap]
        sides[0] = torch.where(outlives, 1.0 + gap.abs(), sides[0])
        for side in sides:
            score = torch.where(terminated, -1.0, side * self._weight).flatten(0, 1)
            best, index = score.max(0)
            row = torch.where(best > 0.0, index * self.n + self._paths, chosen)
            apart = gap.view(-1).index_select(0, row)
            share = torch.where(apart == 0.0, 0.0, gap / apart).clamp_(0.0, 1.0)
            toward.append(torch.where(outlives, 0.0 if toward else 1.0, share))
            rows.append(row)
        deeper = None
        if self.drawdowns:
            deeper = torch.log(before * tried.peak / tried.equity).clamp_(min=0.0).view(shape)
        self._keep(torch.cat(rows))
        own = StepResult(*(each.index_select(0, chosen) for each in result))
        return own, Tried(log_return, deeper, terminated, torch.stack(toward))

    def _keep(self, rows: torch.Tensor) -> None:
        """Go on with these of the tried accounts; the first n come from themselves."""
        kept, tried = self.kept, self._tried
        others = self._sources.index_select(0, rows[self.n :])
        peaks = kept.interval_peaks
        kept.interval_peaks = torch.cat([peaks[:, : self.n], peaks.index_select(1, others)], 1)
        kept.take(tried, rows)
        kept.last_peaks.copy_(tried.last_peaks.index_select(0, rows))
