"""Out-of-sample evaluation: every member walks each of its validation blocks as one long episode.

All members and blocks go in one batch, greedily and once more sampled with fixed noise, from flat to a
liquidation at the block's last close. After a drawdown stop a row stays flat to the end of its block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sentio_rllib.market.tape import TapeTensors
from sentio_rllib.seeding import Member, stream
from sentio_rllib.statistics.metrics import (
    cv_score,
    equity_curve,
    longest_drawdown,
    max_drawdown,
    round_trips,
    sharpe,
    total_return,
)
from sentio_rllib.trading.simulator import Simulator, StepResult, TradingRules
from sentio_rllib.validation.regimes import attribute
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
    trips, winning_trips
        Closed round trips, from flat to flat as seen at the decisions, and those with a positive net result.
    max_drawdown
        Greatest fall from a peak, 0 .. 1, marked at every close, the blocks' equity chained.
    longest_drawdown
        Most consecutive bars below a peak, likewise.
    total_return
        Of the blocks' equity chained, bar by bar; None in records of before it was kept.
    regime_bars, regime_return, regime_trades, regime_drawdown
        float64[R], as in :class:`~sentio_rllib.validation.regimes.Attribution`: bar returns (count), their
        sum, trades and share of the maximum drawdown of the chained blocks by regime; empty without labels.
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
    trips: int = 0
    winning_trips: int = 0
    max_drawdown: float = 0.0
    longest_drawdown: int = 0
    total_return: float | None = None
    regime_bars: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    regime_return: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    regime_trades: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    regime_drawdown: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Evaluation:
    """Records of all members: `greedy` decides which configuration is selected, `sampled` who goes on."""

    greedy: tuple[Record, ...]
    sampled: tuple[Record, ...]


class _BlockWalk(NamedTuple):
    """All rows' way through their blocks.

    `equity` float64[n, steps * I], marks of the decisions' bars; `tails` float64[n, I], marks from the last
    decision's bars to the block's end; `shares` float64[n, steps], held after the walk from each decision; `traded`
    bool[n, steps]; `sold` bool[n], a trade on the tail; `totals` float64[4, n] of :func:`_figures`; `decisions`
    int64[n].
    """

    equity: NDArray[np.float64]
    tails: NDArray[np.float64]
    shares: NDArray[np.float64]
    traded: NDArray[np.bool_]
    sold: NDArray[np.bool_]
    totals: NDArray[np.float64]
    decisions: NDArray[np.int64]


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
    regimes
        Labels int8[T] of each member, of which R is the highest plus 1; records then say what fell into each
        regime. No score depends on them.
    """

    def __init__(
        self,
        tape: TapeTensors,
        rules: TradingRules,
        blocks: Sequence[Sequence[Range]],
        members: Sequence[Member],
        *,
        dtype: torch.dtype = torch.float32,
        regimes: Sequence[NDArray[np.int8]] | None = None,
    ) -> None:
        self.tape, self.rules, self.blocks, self.members, self.dtype = tape, rules, blocks, members, dtype
        self.regimes = regimes
        self.regime_count = 0 if regimes is None else max(int(labels.max()) for labels in regimes) + 1
        self.session = tape.session.cpu().numpy()
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

    def bars(self) -> torch.Tensor:
        """Return the bars of all decisions, int64 ``[steps, blocks, M]``; past a block's last decision they stay."""
        shape = (self.width, self.shape[1])
        start = self.start.view(self.shape)[: self.width]
        last = (self.decisions.view(self.shape)[: self.width] - 1).clamp(min=0)
        steps = torch.arange(int(self.decisions.max()), device=self.device).view(-1, 1, 1).expand(-1, *shape)
        return start + torch.minimum(steps, last) * self.rules.decision_interval

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
        totals = torch.zeros(4, n, dtype=torch.float64, device=self.device)
        shares = torch.empty(steps, n, dtype=torch.float64, device=self.device)
        traded = torch.empty(steps, n, dtype=torch.bool, device=self.device)
        sold = torch.zeros(n, dtype=torch.bool, device=self.device)
        stopped = torch.zeros(n, dtype=torch.bool, device=self.device)
        for step in range(steps):
            live = self.decisions > step
            observation = simulator.observe()
            logits = decide(
                observation.bar.view(self.shape),
                observation.portfolio.to(self.dtype).view(*self.shape, -1),
                observation.mask.view(*self.shape, -1),
            )
            actions = (logits + self.gumbel[step]).argmax(-1).reshape(-1)
            result = simulator.step(torch.where(live & ~stopped, actions, 0))
            equity[step], traded[step] = result.equity_path, result.traded & live
            shares[step] = simulator.shares
            stops = result.terminated & live & ~stopped
            stopped |= stops
            totals += _figures(result, observation.portfolio[:, 0], stops) * live
            ending = self.decisions == step + 1
            if bool(ending.any()):
                end = simulator.liquidate(ending, self.stop - 1)
                tails = torch.where(ending.unsqueeze(1), end.equity_path, tails)
                sold |= end.traded & ending
                totals += _figures(end, torch.zeros_like(self.start), end.terminated & ~stopped) * ending
                simulator.reset(ending, self.start, self.stop)
        walk = (equity.transpose(0, 1).flatten(1), tails, shares.t(), traded.t(), sold, totals, self.decisions)
        return self._records(_BlockWalk(*(each.cpu().numpy() for each in walk)))

    def _records(self, walk: _BlockWalk) -> Evaluation:
        columns = range(self.shape[1])
        return Evaluation(
            greedy=tuple(self._record(walk, 0, member) for member in columns),
            sampled=tuple(self._record(walk, self.width, member) for member in columns),
        )

    def _record(self, walk: _BlockWalk, offset: int, member: int) -> Record:
        """Concatenate the blocks of one member, which are the rows of the batch from `offset` on."""
        interval, count = self.rules.decision_interval, self.shape[1]
        rows, returns, bars, trade_bars, trips = [], [], [], [], []
        for index, block in enumerate(self.blocks[member]):
            row = (offset + index) * count + member
            held = int(walk.decisions[row]) * interval
            tail = walk.tails[row, : len(block) - 1 - held]
            path = np.concatenate([[self.rules.initial_cash], walk.equity[row, :held], tail])
            rows.append(row)
            returns.append(path[1:] / path[:-1] - 1.0)
            marks = np.append(path[: held + 1 : interval], path[-1])
            trips.append(round_trips(marks, np.concatenate([[0.0], walk.shares[row, : held // interval], [0.0]])))
            bars.append(np.arange(block.start + 1, block.stop))
            decided = block.start + interval * np.flatnonzero(walk.traded[row])
            # what is sold at the block's end belongs to the bar before it
            trade_bars.append(np.append(decided, block.stop - 2) if walk.sold[row] else decided)
        bar_returns, bar, trade_bar = np.concatenate(returns), np.concatenate(bars), np.concatenate(trade_bars)
        labels, index_of_bar = np.unique(self.session[bar], return_inverse=True)
        decisions = int(walk.decisions[rows].sum())
        exposure, turnover, fees, stops = walk.totals[:, rows].sum(1)
        chained, closed = equity_curve(bar_returns), np.concatenate(trips)
        return Record(
            session_returns=np.asarray(np.bincount(index_of_bar, weights=bar_returns), dtype=np.float64),
            session=labels.astype(np.int64),
            bars=len(bar_returns),
            decisions=decisions,
            trades=len(trade_bar),
            drawdown_stops=int(stops),
            exposure=float(exposure / decisions),
            mean_return=float(bar_returns.mean()),
            turnover_usd=float(turnover),
            fees_usd=float(fees),
            trips=len(closed),
            winning_trips=int(np.count_nonzero(closed > 0.0)),
            max_drawdown=max_drawdown(chained),
            longest_drawdown=longest_drawdown(chained),
            total_return=total_return(chained),
            **self._by_regime(member, bar_returns, bar, trade_bar),
        )

    def _by_regime(
        self, member: int, bar_returns: NDArray[np.float64], bar: NDArray[np.int64], trade_bar: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        if self.regimes is None:
            return {}
        found = attribute(bar_returns, bar, trade_bar, self.regimes[member], self.regime_count)
        return {
            "regime_bars": found.bars,
            "regime_return": found.net_return,
            "regime_trades": found.trades,
            "regime_drawdown": found.drawdown_share,
        }


def _figures(result: StepResult, exposure: torch.Tensor, stops: torch.Tensor) -> torch.Tensor:
    """Exposure, turnover, fees and drawdown stops of one step, float64[4, n]."""
    return torch.stack([exposure, result.turnover, result.fee, stops]).double()


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
