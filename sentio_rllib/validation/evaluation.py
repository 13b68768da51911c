"""Out-of-sample evaluation: every member walks each of its validation blocks as one long episode.

All members and blocks go in one batch, greedily and once more sampled with fixed noise, from flat to a
liquidation at the block's last close. After a drawdown stop a row stays flat to the end of its block.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
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
    session_returns,
    sharpe,
)
from sentio_rllib.trading.masks import risk_causes
from sentio_rllib.trading.portfolio import DRAWDOWN
from sentio_rllib.trading.simulator import Observation, Simulator, StepResult, TradingRules
from sentio_rllib.validation.regimes import attribute
from sentio_rllib.validation.splits import Range

ROUNDING = 1e-9
"""Differences of returns below this share of them are none."""
Decide = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(bar int64 [rows, M], portfolio [rows, M, 6], mask bool [rows, M, 3]) -> masked logits [rows, M, 3]."""


@dataclass(frozen=True)
class Record:
    """What one member did out of sample, its blocks concatenated in time.

    Attributes
    ----------
    session_returns
        float64[S], net: equity at the session's last mark over equity at the last mark before it, less 1. What blocks
        divide of a session multiplies.
    session
        int64[S], ordinals of the sessions on the tape.
    cash_growth
        What a dollar of idle cash has become after a bar; Sharpe ratios and timing are of returns beyond it.
    session_exposure
        float64[S], mean share of equity held over the session's bars: shares over a bar at the close before it, so a
        little above 1 where much was bought below it. What is held over a bar is known before the bar.
    session_bars
        float64[S], bars of each session in the blocks.
    bars, decisions, trades, drawdown_stops
        Counts.
    exposure
        Mean share of equity held over a bar.
    opening_exposure
        The same over the first bar, which the first decision alone has made.
    mean_return
        Net return per bar, compounded: the geometric mean.
    turnover_usd, fees_usd
        Sums over all blocks, each block starting with ``initial_cash``.
    trips, winning_trips
        Closed round trips, from flat to flat, and those with a positive net result.
    max_drawdown
        Greatest fall from a peak, 0 .. 1, marked at every close, the blocks' equity chained.
    longest_drawdown
        Most consecutive bars below a peak, likewise.
    could_buy, masked_volatility, masked_clock, masked_drawdown
        Decisions at which the account had room for a Buy, and how many of them the risk masks forbade for each cause;
        one may have several. 0 without risk masks.
    cuts_held, cuts_return
        How often something was held over a cut of the tape, and the net return of all bars that opened behind one so,
        compounded.
    regime_bars, regime_return, regime_trades, regime_drawdown
        float64[R], as in :class:`~sentio_rllib.validation.regimes.Attribution`: bar returns (count), the sum of their
        logarithms, trades and share of the maximum drawdown of the chained blocks by regime; empty without labels.
    """

    session_returns: NDArray[np.float64]
    session: NDArray[np.int64]
    session_exposure: NDArray[np.float64]
    session_bars: NDArray[np.float64]
    bars: int
    decisions: int
    trades: int
    drawdown_stops: int
    exposure: float
    opening_exposure: float
    mean_return: float
    turnover_usd: float
    fees_usd: float
    trips: int = 0
    winning_trips: int = 0
    max_drawdown: float = 0.0
    longest_drawdown: int = 0
    cash_growth: float = 1.0
    could_buy: int = 0
    masked_volatility: int = 0
    masked_clock: int = 0
    masked_drawdown: int = 0
    cuts_held: int = 0
    cuts_return: float = 0.0
    regime_bars: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    regime_return: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    regime_trades: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    regime_drawdown: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def excess_returns(self) -> NDArray[np.float64]:
        """Session returns less what idle cash earns, float64[S]; exactly 0 where nothing else was held."""
        return beyond_cash(self.session_returns, self.cash_growth, self.session_bars)


def beyond_cash(returns: NDArray[np.float64], growth: float, bars: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return session `returns` less what idle cash earns in as many `bars`, float64[S] all; rounding is nothing."""
    excess = returns - (growth**bars - 1.0)
    return np.where(np.abs(excess) <= ROUNDING * np.abs(returns), 0.0, excess)


@dataclass(frozen=True)
class Evaluation:
    """Records of all members.

    Attributes
    ----------
    greedy, sampled
        Decided from each block's first bar on: what the evidence is made of, and what says who goes on.
    phases
        Greedy records of every phase of the decision grid, `greedy` first: their scores' mean is what selects.
    beside
        Greedy records of the blocks that are walked beside; empty where there are none.
    """

    greedy: tuple[Record, ...]
    sampled: tuple[Record, ...]
    phases: tuple[tuple[Record, ...], ...]
    beside: tuple[Record, ...]


class _BlockWalk(NamedTuple):
    """All rows' way through their blocks.

    `equity` float64[n, steps * I], marks of the decisions' bars; `over` float64 and `after` bool, alike, what was held
    (:class:`~sentio_rllib.trading.simulator.Holdings`); `tails`, the same three float64[n, I] from the last decision's
    bars to the block's end; `traded` bool[n, steps]; `sold` bool[n], a trade on the tail; `totals` float64[3, n] of
    :func:`_figures`; `masked` int64[4, n], decisions with room for a Buy and those forbidden by each cause; `decisions`
    int64[n].
    """

    equity: NDArray[np.float64]
    over: NDArray[np.float64]
    after: NDArray[np.bool_]
    tails: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]
    traded: NDArray[np.bool_]
    sold: NDArray[np.bool_]
    totals: NDArray[np.float64]
    masked: NDArray[np.int64]
    decisions: NDArray[np.int64]

    def of_row(
        self, row: int, bars: int, held: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Marks, holdings over and after the `bars` of a row, of which `held` belong to decisions."""
        equity, over, after = (tail[row, : bars - held] for tail in self.tails)
        return (
            np.concatenate([self.equity[row, :held], equity]),
            np.concatenate([self.over[row, :held], over]),
            np.concatenate([self.after[row, :held], after]),
        )


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
    phases
        Phases of the decision grid that are walked greedily, evenly spread over the interval, 1 to its bars.
    beside
        One block more of each member, walked in the same steps and told apart from the others.
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
        phases: int = 1,
        beside: Sequence[Range] = (),
    ) -> None:
        self.tape, self.rules, self.blocks, self.members, self.dtype = tape, rules, blocks, members, dtype
        self.beside = [(block,) for block in beside]
        self.regimes = regimes
        self.regime_count = 0 if regimes is None else max(int(labels.max()) for labels in regimes) + 1
        self.session, self.close = tape.session.cpu().numpy(), tape.close.cpu().numpy()
        self.cuts = tape.cuts.cpu().numpy()
        self.device = tape.open.device
        interval = rules.decision_interval
        self.phases = [phase * interval // phases for phase in range(phases)]
        self.longest = max(len(each) for each in blocks)
        self.width = self.longest * phases + bool(beside)
        self.shape = (2 * self.width, len(members))
        self.simulator = Simulator(tape, rules, self.shape[0] * self.shape[1], horizon=None)
        start = torch.zeros(self.width, len(members), dtype=torch.int64)
        stop = torch.zeros_like(start)
        decisions = torch.zeros_like(start)
        for row, member, first, last in self._cells():
            start[row, member], stop[row, member] = first, last
            decisions[row, member] = (last - 2 - first) // interval
        used = decisions > 0
        fallback = start[used][0]  # unused cells idle on a valid bar
        start = torch.where(used, start, fallback)
        stop = torch.where(used, stop, fallback + 2 * interval + 2)
        self.start, self.stop, self.decisions = (
            torch.cat([each, each]).flatten().to(self.device) for each in (start, stop, decisions)
        )
        self.causes = None
        if rules.masks == "risk":
            self.causes = risk_causes(rules, tape.volatility, tape.minute, tape.minutes_left)
        self.gumbel = self._noise()

    def _cells(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield row, member, first bar and end of every block that is walked greedily."""
        for member, (number, phase) in itertools.product(range(len(self.members)), enumerate(self.phases)):
            for row, block in enumerate(self.blocks[member], start=number * self.longest):
                yield row, member, block.start + phase, block.stop
        for member, (block,) in enumerate(self.beside):
            yield self.width - 1, member, block.start, block.stop

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
        cash = simulator.cash
        equity, over = cash.new_empty(steps, n, interval), cash.new_empty(steps, n, interval)
        after = torch.empty(steps, n, interval, dtype=torch.bool, device=self.device)
        tails = [cash.new_full((n, interval), self.rules.initial_cash), over[0].clone(), after[0].clone()]
        totals, masked = cash.new_zeros(3, n), torch.zeros(4, n, dtype=torch.int64, device=self.device)
        traded = torch.empty(steps, n, dtype=torch.bool, device=self.device)
        sold = torch.zeros(n, dtype=torch.bool, device=self.device)
        stopped = torch.zeros(n, dtype=torch.bool, device=self.device)
        for step in range(steps):
            live = self.decisions > step
            observation = simulator.observe()
            if self.causes is not None:
                masked += self._masked(observation, self.causes) & live & ~stopped
            logits = decide(
                observation.bar.view(self.shape),
                observation.portfolio.to(self.dtype).view(*self.shape, -1),
                observation.mask.view(*self.shape, -1),
            )
            actions = (logits + self.gumbel[step]).argmax(-1).reshape(-1)
            result = simulator.step(torch.where(live & ~stopped, actions, 0))
            equity[step], traded[step] = result.equity_path, result.traded & live
            over[step], after[step] = simulator.holdings()
            stops = result.terminated & live & ~stopped
            stopped |= stops
            totals += _figures(result, stops) * live
            ending = self.decisions == step + 1
            if bool(ending.any()):
                end = simulator.liquidate(ending, self.stop - 1)
                ways = zip((end.equity_path, *simulator.holdings()), tails, strict=True)
                tails = [torch.where(ending.unsqueeze(1), way, tail) for way, tail in ways]
                sold |= end.traded & ending
                totals += _figures(end, end.terminated & ~stopped) * ending
                simulator.reset(ending, self.start, self.stop)
        marks, shares, left = (each.cpu().numpy() for each in tails)
        walk = _BlockWalk(
            equity=equity.transpose(0, 1).flatten(1).cpu().numpy(),
            over=over.transpose(0, 1).flatten(1).cpu().numpy(),
            after=after.transpose(0, 1).flatten(1).cpu().numpy(),
            tails=(marks, shares, left),
            traded=traded.t().cpu().numpy(),
            sold=sold.cpu().numpy(),
            totals=totals.cpu().numpy(),
            masked=masked.cpu().numpy(),
            decisions=self.decisions.cpu().numpy(),
        )
        return self._records(walk)

    def _masked(self, seen: Observation, causes: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Whether there is room for a Buy, and whether risk masks forbid it by each cause, bool[4, n]."""
        rules, portfolio = self.rules, seen.portfolio
        room = portfolio[:, 0] <= rules.max_position - rules.min_trade
        by_drawdown = portfolio[:, DRAWDOWN] >= rules.risk_drawdown
        forbidden = [*(cause.index_select(0, seen.bar) for cause in causes), by_drawdown]
        return torch.stack([room, *(room & each for each in forbidden)])

    def _records(self, walk: _BlockWalk) -> Evaluation:
        def records(row: int, phase: int, blocks: Sequence[Sequence[Range]]) -> tuple[Record, ...]:
            return tuple(self._record(walk, row, member, phase, each) for member, each in enumerate(blocks))

        first, blocks = self.phases[0], self.blocks
        phases = tuple(records(number * self.longest, phase, blocks) for number, phase in enumerate(self.phases))
        beside = records(self.width - 1, first, self.beside)
        return Evaluation(phases[0], records(self.width, first, blocks), phases, beside)

    def _record(self, walk: _BlockWalk, offset: int, member: int, phase: int, blocks: Sequence[Range]) -> Record:
        """Concatenate blocks of one member, which are the rows of the batch from `offset` on."""
        interval, count = self.rules.decision_interval, self.shape[1]
        rows, returns, held, bars, trade_bars, trips, over_cuts = [], [], [], [], [], [], []
        for index, whole in enumerate(blocks):
            block, row = Range(whole.start + phase, whole.stop), (offset + index) * count + member
            marks, over, after = walk.of_row(row, len(block) - 1, int(walk.decisions[row]) * interval)
            path = np.concatenate([[self.rules.initial_cash], marks])
            rows.append(row)
            returns.append(path[1:] / path[:-1] - 1.0)
            held.append(over * self.close[block.start : block.stop - 1] / path[:-1])
            trips.append(round_trips(path, over, after))
            bars.append(np.arange(block.start + 1, block.stop))
            kept = np.isin(bars[-1], self.cuts) & np.concatenate([[False], after[:-1]])
            over_cuts.append(returns[-1][kept])
            decided = block.start + interval * np.flatnonzero(walk.traded[row])
            # what is sold at the block's end belongs to the bar before it
            trade_bars.append(np.append(decided, block.stop - 2) if walk.sold[row] else decided)
        bar_returns, exposure = np.concatenate(returns), np.concatenate(held)
        bar, trade_bar = np.concatenate(bars), np.concatenate(trade_bars)
        labels, index_of_bar = np.unique(self.session[bar], return_inverse=True)
        session_bars = np.bincount(index_of_bar).astype(np.float64)
        could, volatile, late, fallen = (int(each) for each in walk.masked[:, rows].sum(1))
        turnover, fees, stops = walk.totals[:, rows].sum(1)
        chained, closed = equity_curve(bar_returns), np.concatenate(trips)
        growth = float(chained[-1])
        return Record(
            session_returns=session_returns(bar_returns, self.session[bar]),
            session=labels.astype(np.int64),
            session_exposure=np.bincount(index_of_bar, exposure) / session_bars,
            session_bars=session_bars,
            bars=len(bar_returns),
            decisions=int(walk.decisions[rows].sum()),
            trades=len(trade_bar),
            drawdown_stops=int(stops),
            exposure=float(exposure.mean()),
            opening_exposure=float(exposure[0]),
            mean_return=growth ** (1.0 / len(bar_returns)) - 1.0,
            turnover_usd=float(turnover),
            fees_usd=float(fees),
            trips=len(closed),
            winning_trips=int(np.count_nonzero(closed > 0.0)),
            max_drawdown=max_drawdown(chained),
            longest_drawdown=longest_drawdown(chained),
            could_buy=could,
            masked_volatility=volatile,
            masked_clock=late,
            masked_drawdown=fallen,
            cash_growth=self.simulator.cash_growth,
            cuts_held=sum(map(len, over_cuts)),
            cuts_return=float(np.prod(1.0 + np.concatenate(over_cuts)) - 1.0),
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
            "regime_return": found.log_return,
            "regime_trades": found.trades,
            "regime_drawdown": found.drawdown_share,
        }


def _figures(result: StepResult, stops: torch.Tensor) -> torch.Tensor:
    """Turnover, fees and drawdown stops of one step, float64[3, n]."""
    return torch.stack([result.turnover, result.fee, stops]).double()


def fold_score(record: Record, sessions_per_year: int) -> float:
    """Return the annualised Sharpe ratio of the session returns beyond idle cash; 0 when nothing was traded."""
    if record.trades == 0:
        return 0.0
    return sharpe(record.excess_returns, sessions_per_year)


def score_members(
    scores: Sequence[float], members: Sequence[Member], fold_penalty: float
) -> tuple[float, NDArray[np.float64]]:
    """Return the score over folds and the fold scores ``[folds, seeds]`` it is made of.

    Parameters
    ----------
    scores, members
        One each per member; every fold has every seed.
    fold_penalty
        Weight of the spread over folds, >= 0.
    """
    folds = sorted({fold for _, fold in members})
    seeds = sorted({seed for seed, _ in members})
    by_fold = np.zeros((len(folds), len(seeds)))
    for score, (seed, fold) in zip(scores, members, strict=True):
        by_fold[folds.index(fold), seeds.index(seed)] = score
    return cv_score(by_fold, fold_penalty), by_fold
