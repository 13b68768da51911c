"""What a policy did on blocks, fill by fill and bar by bar: the batch evaluation with a record kept beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sentio_rllib.market.sessions import MINUTE_NS
from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.actor_critic import ActorCritic, TapeReader
from sentio_rllib.policy.deciding import ensemble_policy
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.trading.simulator import Simulator, StepResult
from sentio_rllib.validation.evaluation import BlockEvaluator, Record
from sentio_rllib.validation.schemes import Range

ORDER, SESSION_CLOSE, DRAWDOWN_STOP, END = "order", "session close", "drawdown stop", "end"


class _Fills(NamedTuple):
    """One walk of all rows, from `bar` on, float64[n] unless said otherwise.

    `held`, `peak`: before it. `cash`, `shares`, `notional`: after the order at its first open. `sold`, `sold_at_close`:
    dollars of forced sales, all of them and those at a close. `path` float64[I, n].
    """

    bar: NDArray[np.int64]
    action: NDArray[np.int64]
    held: NDArray[np.float64]
    peak: NDArray[np.float64]
    cash: NDArray[np.float64]
    shares: NDArray[np.float64]
    notional: NDArray[np.float64]
    sold: NDArray[np.float64]
    sold_at_close: NDArray[np.float64]
    path: NDArray[np.float64]


class RecordingSimulator(Simulator):
    """A simulator that keeps what every step filled, in :attr:`steps`, and every liquidation, in :attr:`ends`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.steps: list[_Fills] = []
        self.ends: list[_Fills] = []
        self._order: Any = None
        self._walked: Any = None

    def _fill(self, side: torch.Tensor, ceiling: torch.Tensor) -> Any:
        self._order = super()._fill(side, ceiling)
        return self._order

    def _walk(self, *arguments: Any) -> Any:
        self._walked = super()._walk(*arguments)
        return self._walked

    def step(self, action: torch.Tensor) -> StepResult:
        bar, shares, peak = self.bar, self.shares, self.peak
        result = super().step(action)
        order = self._order
        self.steps.append(self._fills(bar, action, shares, peak, (order.cash, order.shares, order.notional)))
        return result

    def liquidate(self, rows: torch.Tensor, bar: torch.Tensor) -> StepResult:
        at, cash, shares, peak = self.bar, self.cash, self.shares, self.peak
        result = super().liquidate(rows, bar)
        self.ends.append(self._fills(at, torch.zeros_like(at), shares, peak, (cash, shares, torch.zeros_like(cash))))
        return result

    def _fills(
        self,
        bar: torch.Tensor,
        action: torch.Tensor,
        held: torch.Tensor,
        peak: torch.Tensor,
        order: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> _Fills:
        way = self._walked
        at_close = torch.zeros_like(way.sold) if way.sold_at_close is None else way.sold_at_close
        kept = (bar, action, held, peak, *order, way.sold, at_close, way.path)
        return _Fills(*(each.cpu().numpy().copy() for each in kept))


@dataclass(frozen=True)
class Walked:
    """A policy's way through blocks, each of which starts flat with ``initial_cash``.

    Attributes
    ----------
    record
        As :class:`BlockEvaluator` gives it, of the greedy policy.
    actions
        Of each block, int64[decisions]; after a drawdown stop 0.
    equity
        One row a bar: ``time`` (end of the minute, UTC), ``block``, ``equity_usd`` marked there, and ``growth``, the
        blocks chained, 1 at the beginning.
    trades
        One row a fill: ``block``, ``decided`` and ``filled`` (UTC; forced exits were decided at no decision: NaT),
        ``side``, ``reason``, ``price``, ``shares``, ``notional_usd``, ``fee_usd``, ``equity_usd`` after it.
    """

    record: Record
    actions: tuple[NDArray[np.int64], ...]
    equity: pd.DataFrame
    trades: pd.DataFrame


def walk_blocks(network: ActorCritic, tape: Tape, rules: TradingRules, blocks: Sequence[Range]) -> Walked:
    """Walk `blocks` with the mean of the members' distributions, greedily.

    Parameters
    ----------
    network, tape, rules
        Whose distributions, on what and how; `rules` give the costs.
    blocks
        In time order, each past the tape's warm-up and the networks' receptive field, and with one decision at least.
    """
    tensors = tape.tensors()
    dtype = network.dtype
    evaluator = BlockEvaluator(tensors, rules, [blocks], [(0, 0)], dtype=dtype)
    recording = RecordingSimulator(tensors, rules, evaluator.simulator.n, horizon=None)
    evaluator.simulator = recording
    reader = TapeReader(tensors.features.to(dtype), network.spec)
    decide = ensemble_policy(network, reader, evaluator.bars())
    record = evaluator.evaluate(decide).greedy[0]
    decisions = evaluator.decisions.cpu().numpy()[: len(blocks)]
    ends = _ends_of(recording.ends, decisions)
    actions, equities, trades = [], [], []
    for row, block in enumerate(blocks):
        steps = recording.steps[: decisions[row]]
        actions.append(np.array([int(step.action[row]) for step in steps], dtype=np.int64))
        equities.append(_equity(tape, rules, block, row, [*steps, ends[row]]))
        ledger = _Ledger(tape, rules, row)
        trades += [trade for step in steps for trade in ledger.fills(step)]
        trades += ledger.fills(ends[row], last=block.stop - 1)
    equity = pd.concat(equities, ignore_index=True)
    equity["growth"] = _chained(equity, rules.initial_cash)
    return Walked(record, tuple(actions), equity, _frame(trades))


def _ends_of(ends: Sequence[_Fills], decisions: NDArray[np.int64]) -> list[_Fills]:
    """The liquidation of each row: they happen in the order of how many decisions a row has, equal ones together."""
    order = {count: number for number, count in enumerate(np.unique(decisions))}
    return [ends[order[count]] for count in decisions]


def _equity(tape: Tape, rules: TradingRules, block: Range, row: int, walks: Sequence[_Fills]) -> pd.DataFrame:
    path = np.concatenate([[rules.initial_cash], *(walk.path[:, row] for walk in walks)])[: len(block)]
    times = _utc(tape.timestamp[block.start : block.stop] + MINUTE_NS)
    return pd.DataFrame({"time": times, "block": row, "equity_usd": path})


def _chained(equity: pd.DataFrame, initial_cash: float) -> NDArray[np.float64]:
    """Growth of an account that goes from block to block."""
    growth = equity["equity_usd"].to_numpy() / initial_cash
    block = equity["block"].to_numpy()
    last = np.append(block[1:] != block[:-1], True)
    factors = np.concatenate([[1.0], np.cumprod(growth[last])[:-1]])
    return np.asarray(growth * factors[block], dtype=np.float64)


_NEVER = int(np.iinfo(np.int64).min)  # NaT
_KINDS = {"block": "int64", "side": "str", "reason": "str"}


class _Trade(NamedTuple):
    """A fill; instants in ns UTC, `decided` :data:`_NEVER` for a forced one."""

    block: int
    decided: int
    filled: int
    side: str
    reason: str
    price: float
    shares: float
    notional_usd: float
    fee_usd: float
    equity_usd: float


def _frame(trades: Sequence[_Trade]) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for index, name in enumerate(_Trade._fields):
        values = [trade[index] for trade in trades]
        if name in ("decided", "filled"):
            columns[name] = _utc(np.array(values, dtype=np.int64))
        else:
            columns[name] = pd.Series(values, dtype=_KINDS.get(name, "float64"))
    return pd.DataFrame(columns)


def _utc(instants: NDArray[np.int64]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(instants.view("datetime64[ns]")).tz_localize("UTC")


class _Ledger:
    """Tells the fills of one row of the simulator, whose block it is."""

    def __init__(self, tape: Tape, rules: TradingRules, block: int) -> None:
        self.tape, self.rules, self.block = tape, rules, block
        self.closing = np.flatnonzero(tape.session_last)

    def fills(self, walk: _Fills, last: int | None = None) -> Iterator[_Trade]:
        """Yield what a walk filled; `last`: the bar at whose close it was to be liquidated at the latest."""
        row, bar = self.block, int(walk.bar[self.block])
        held, shares, cash = float(walk.held[row]), float(walk.shares[row]), float(walk.cash[row])
        if walk.notional[row] > 0.0:
            side, traded = ("buy", shares - held) if shares > held else ("sell", held - shares)
            price = float(walk.notional[row]) / traded
            told = {"decided": self._close_of(bar), "filled": self._open_of(bar + 1), "side": side, "reason": ORDER}
            yield self._trade(price, traded, equity_usd=cash + shares * price, **told)
        sold = float(walk.sold[row])
        if sold == 0.0:
            return
        if walk.sold_at_close[row] > 0.0:
            at = self._closing_bar(bar, last)
            filled, reason = self._close_of(at), END if at == last else SESSION_CLOSE
        else:
            filled, reason = self._open_of(bar + 2 + self._stop_mark(walk)), DRAWDOWN_STOP
        told = {"decided": _NEVER, "filled": filled, "side": "sell", "reason": reason}
        yield self._trade(sold / shares, shares, equity_usd=cash + sold * (1.0 - self.rules.fee_rate), **told)

    def _trade(self, price: float, shares: float, **told: Any) -> _Trade:
        notional = price * shares
        fee = notional * self.rules.fee_rate
        return _Trade(block=self.block, price=price, shares=shares, notional_usd=notional, fee_usd=fee, **told)

    def _closing_bar(self, bar: int, last: int | None) -> int:
        """The bar at whose close a position of `bar` was sold."""
        if last is not None and not self.rules.flat_by_close:
            return last
        ending = int(self.closing[np.searchsorted(self.closing, bar, side="right")])
        return ending if last is None else min(ending, last)

    def _stop_mark(self, walk: _Fills) -> int:
        """Marks before the one that reached the drawdown stop; where it is the last, that shows the cash after."""
        path = walk.path[:, self.block]
        peaks = np.maximum(np.maximum.accumulate(path), walk.peak[self.block])
        reached = np.flatnonzero(path <= peaks * (1.0 - self.rules.max_drawdown))
        return int(min([*reached[:1], path.size - 1]))

    def _open_of(self, bar: int) -> int:
        return int(self.tape.timestamp[bar])

    def _close_of(self, bar: int) -> int:
        return int(self.tape.timestamp[bar]) + MINUTE_NS
