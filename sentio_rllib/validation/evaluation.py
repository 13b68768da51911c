"""Out-of-sample evaluation: every member walks each of its validation blocks as one long episode.

All members and blocks go in one batch, greedily and once more sampled with fixed noise, from flat to a
liquidation at the block's last close. After a drawdown stop a row stays flat to the end of its block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sentio_rllib.market.tape import TapeTensors
from sentio_rllib.seeding import Member, stream
from sentio_rllib.trading.simulator import Simulator, StepResult, TradingRules
from sentio_rllib.validation.metrics import cv_score, sharpe
from sentio_rllib.validation.splits import Range

Decide = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(bar int64 [rows, M], portfolio [rows, M, 6], mask bool [rows, M, 3]) -> masked logits [rows, M, 3]."""


@dataclass(frozen=True)
class Record:
    """What one member did out of sample, its blocks concatenated in time.

    Attributes
    ----------
    session_returns
        float64[S], net simple returns of the bars summed by session.
    session
        int64[S], ordinals of the sessions on the tape.
    bars, decisions, trades, drawdown_stops
        Counts.
    exposure
        Mean position fraction at the decisions, 0 .. 1.
    mean_return
        Net simple return per bar.
    turnover_usd, fees_usd
        Sums over all blocks, each block starting with ``initial_cash``.
    """

    session_returns: NDArray[np.float64]
    session: NDArray[np.int64]
    bars: int
    decisions: int
    trades: int
    drawdown_stops: int
    exposure: float
    mean_return: float
    turnover_usd: float
    fees_usd: float


@dataclass(frozen=True)
class Evaluation:
    """Records of all members: `greedy` decides which configuration is selected, `sampled` who goes on."""

    greedy: tuple[Record, ...]
    sampled: tuple[Record, ...]


class BlockEvaluator:
    """Evaluates policies on fixed blocks.

    Parameters
    ----------
    tape
        Holds every block.
    rules
        Of the market. ``rules.episode_length`` is the window of the portfolio features, not a limit.
    blocks
        Validation blocks of each member, in time order.
    members
        (seed, fold) of each; keys the noise of the sampled pass, which never changes.
    dtype
        Of the portfolio features handed to the policy.
    """

    def __init__(
        self,
        tape: TapeTensors,
        rules: TradingRules,
        blocks: Sequence[Sequence[Range]],
        members: Sequence[Member],
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.tape, self.rules, self.blocks, self.members, self.dtype = tape, rules, blocks, members, dtype
        self.device = tape.open.device
        self.width = max(len(each) for each in blocks)
        self.shape = (2 * self.width, len(members))
        self.simulator = Simulator(tape, rules, self.shape[0] * self.shape[1], horizon=None)
        start = torch.zeros(self.width, len(members), dtype=torch.int64)
        stop = torch.zeros_like(start)
        decisions = torch.zeros_like(start)
        interval = rules.decision_interval
        for member, ranges in enumerate(blocks):
            for row, block in enumerate(ranges):
                start[row, member], stop[row, member] = block.start, block.stop
                decisions[row, member] = (block.stop - 2 - interval - block.start) // interval + 1
        used = decisions > 0
        fallback = start[used][0]  # unused cells idle on a valid bar
        start = torch.where(used, start, fallback)
        stop = torch.where(used, stop, fallback + 2 * interval + 2)
        self.start, self.stop, self.decisions = (
            torch.cat([each, each]).flatten().to(self.device) for each in (start, stop, decisions)
        )
        self.gumbel = self._noise()

    def _noise(self) -> torch.Tensor:
        steps = int(self.decisions.max())
        decisions = self.decisions.view(self.shape)[: self.width].cpu()
        noise = torch.zeros(steps, *self.shape, 3, dtype=self.dtype)
        for column, (seed, fold) in enumerate(self.members):
            own = int(decisions[:, column].max()), len(self.blocks[column])
            draws = torch.rand(*own, 3, generator=stream("validation", seed, fold), dtype=torch.float64)
            gumbel = -torch.log(-torch.log(draws))
            noise[: own[0], self.width : self.width + own[1], column] = gumbel.to(self.dtype)
        return noise.to(self.device)

    @torch.no_grad()
    def evaluate(self, decide: Decide) -> Evaluation:
        """Walk all blocks with the policy `decide` and return what came of it."""
        simulator, n = self.simulator, self.simulator.n
        everywhere = torch.ones(n, dtype=torch.bool, device=self.device)
        simulator.reset(everywhere, self.start, self.stop)
        steps = int(self.decisions.max())
        interval = self.rules.decision_interval
        equity = torch.empty(steps, n, interval, dtype=torch.float64, device=self.device)
        tails = torch.full((n, interval), self.rules.initial_cash, dtype=torch.float64, device=self.device)
        totals = torch.zeros(5, n, dtype=torch.float64, device=self.device)
        stopped = torch.zeros(n, dtype=torch.bool, device=self.device)
        for step in range(steps):
            live = self.decisions > step
            observation = simulator.observe()
            logits = decide(
                observation.bar.view(self.shape),
                observation.portfolio.to(self.dtype).view(*self.shape, -1),
                observation.mask.view(*self.shape, -1),
            )
            actions = (logits + self.gumbel[step]).argmax(-1).view(-1)
            result = simulator.step(torch.where(live & ~stopped, actions, 0))
            equity[step] = result.equity_path
            stops = result.terminated & live & ~stopped
            stopped |= stops
            totals += _figures(result, observation.portfolio[:, 0], stops) * live
            ending = self.decisions == step + 1
            if bool(ending.any()):
                end = simulator.liquidate(ending, self.stop - 1)
                tails = torch.where(ending.unsqueeze(1), end.equity_path, tails)
                totals += _figures(end, torch.zeros_like(self.start), end.terminated & ~stopped) * ending
                simulator.reset(ending, self.start, self.stop)
        return self._records(equity, tails, totals)

    def _records(self, equity: torch.Tensor, tails: torch.Tensor, totals: torch.Tensor) -> Evaluation:
        paths = equity.transpose(0, 1).flatten(1).cpu().numpy()
        ends = tails.cpu().numpy()
        sums = totals.cpu().numpy()
        decisions = self.decisions.cpu().numpy()
        session = self.tape.session.cpu().numpy()
        count, interval = self.shape[1], self.rules.decision_interval
        found: list[tuple[Record, ...]] = []
        for offset in (0, self.width):
            records = []
            for member, ranges in enumerate(self.blocks):
                rows = [(offset + index) * count + member for index in range(len(ranges))]
                returns, sessions = [], []
                for row, block in zip(rows, ranges, strict=True):
                    held = decisions[row] * interval
                    tail = ends[row, : len(block) - 1 - held]
                    path = np.concatenate([[self.rules.initial_cash], paths[row, :held], tail])
                    returns.append(path[1:] / path[:-1] - 1.0)
                    sessions.append(session[block.start + 1 : block.stop])
                records.append(_record(returns, sessions, sums[:, rows], int(decisions[rows].sum())))
            found.append(tuple(records))
        return Evaluation(greedy=found[0], sampled=found[1])


def _figures(result: StepResult, exposure: torch.Tensor, stops: torch.Tensor) -> torch.Tensor:
    """Trades, exposure, turnover, fees and drawdown stops of one step, float64[5, n]."""
    return torch.stack([result.traded, exposure, result.turnover, result.fee, stops]).double()


def _record(
    returns: list[NDArray[np.float64]],
    sessions: list[NDArray[np.int32]],
    sums: NDArray[np.float64],
    decisions: int,
) -> Record:
    by_bar, session_of_bar = np.concatenate(returns), np.concatenate(sessions)
    labels, index = np.unique(session_of_bar, return_inverse=True)
    trades, exposure, turnover, fees, stops = sums.sum(1)
    return Record(
        session_returns=np.asarray(np.bincount(index, weights=by_bar), dtype=np.float64),
        session=labels.astype(np.int64),
        bars=len(by_bar),
        decisions=decisions,
        trades=int(trades),
        drawdown_stops=int(stops),
        exposure=float(exposure / decisions),
        mean_return=float(by_bar.mean()),
        turnover_usd=float(turnover),
        fees_usd=float(fees),
    )


def fold_score(record: Record, sessions_per_year: int) -> float:
    """Return the annualised Sharpe ratio of the session returns; 0 when nothing was traded."""
    if record.trades == 0:
        return 0.0
    return sharpe(record.session_returns, sessions_per_year)


def score_members(
    records: Sequence[Record], members: Sequence[Member], sessions_per_year: int, fold_penalty: float
) -> tuple[float, NDArray[np.float64]]:
    """Return the score over folds and the fold scores ``[folds, seeds]`` it is made of.

    Parameters
    ----------
    records, members
        One each per member; every fold has every seed.
    sessions_per_year
        Annualises the Sharpe ratio.
    fold_penalty
        Weight of the spread over folds, >= 0.
    """
    folds = sorted({fold for _, fold in members})
    seeds = sorted({seed for seed, _ in members})
    scores = np.zeros((len(folds), len(seeds)))
    for record, (seed, fold) in zip(records, members, strict=True):
        scores[folds.index(fold), seeds.index(seed)] = fold_score(record, sessions_per_year)
    return cv_score(scores, fold_penalty), scores
