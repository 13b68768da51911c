"""Baselines: what simple strategies earn on a policy's own bars, blocks and costs.

All of them trade by the rules they are given, position limit and drawdown stop included, but with
``masks="state"``: risk masks are part of the enhanced variant, not of the market, and would keep a baseline from
trades that its strategy makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sentio_rllib.market.oracle import oracle_actions
from sentio_rllib.market.tape import TapeTensors
from sentio_rllib.seeding import stream
from sentio_rllib.statistics.inputs import Floats, check_returns
from sentio_rllib.trading.masks import BUY, HOLD, SELL
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.evaluation import BlockEvaluator, Decide, Record
from sentio_rllib.validation.schemes import Range

_WANTED, _SECOND, _MASKED = 1e6, 1e5, -1e9
"""Logits of the chosen action, of Hold where that is masked, and of masked ones: no noise gets across."""
_EQUITY_BYTES = 2**26
"""Size of the evaluator's largest buffer, by which random draws are divided into batches."""


@dataclass(frozen=True)
class Baselines:
    """Records of the baselines on the same blocks.

    Attributes
    ----------
    flat, hold, sma
        Never in the market, bought at each block's first decision and kept, and a crossover of moving averages.
    random
        Draws that trade as often and are as long in the market as the agent; empty where no agent was given.
    oracle
        What the planted regimes allow, **known from the future**; ``None`` where the market is not synthetic.
    """

    flat: Record
    hold: Record
    sma: Record
    random: tuple[Record, ...]
    oracle: Record | None


NO_STOP = 0.999_999
"""`max_drawdown` of who keeps whatever happens, as buy-and-hold does."""


class Switching(NamedTuple):
    """Probabilities of a random trader's actions at a decision.

    `enter`: Buy at the first decision of a stretch, to which every account comes flat; `buy`: Buy at a later
    one when flat; `sell`: Sell when long.
    """

    enter: float
    buy: float
    sell: float


def table_policy(actions: NDArray[np.int64], *, device: str | torch.device = "cpu") -> Decide:
    """Return the policy that takes ``actions[bar]``, whatever is held; where that is masked it holds.

    Parameters
    ----------
    actions
        int64[T], 0 Hold, 1 Buy, 2 Sell at each bar's close, the same for all members; or int64[T, M], one
        column for each. **Whatever the table was made from is known to the policy**; look-ahead is not checked.
    device
        Of the tape.

    Raises
    ------
    TypeError, ValueError
        `actions` is no such array.
    """
    if not isinstance(actions, np.ndarray) or actions.dtype != np.int64:
        raise TypeError("actions must be an int64 array")
    if actions.ndim not in (1, 2):
        raise ValueError(f"actions has rank {actions.ndim}, needed 1 (bars) or 2 (bars, members)")
    if actions.size == 0 or not HOLD <= actions.min() <= actions.max() <= SELL:
        raise ValueError("actions must be 0 (Hold), 1 (Buy) or 2 (Sell), one at least")
    table = torch.tensor(actions if actions.ndim == 2 else actions[:, None], device=device)
    columns = torch.arange(table.shape[1], device=device)

    def decide(bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        del portfolio
        return _logits(table[bar, columns], mask)

    return decide


def _logits(action: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return logits float32[..., 3] that leave no doubt about `action` int64[...], and Hold where it is masked."""
    logits = torch.zeros(mask.shape, device=mask.device)
    logits[..., HOLD] = _SECOND
    return logits.scatter_(-1, action.unsqueeze(-1), _WANTED).masked_fill_(~mask, _MASKED)


def sma_crossover(close: Floats, fast: int = 390, slow: int = 1950) -> NDArray[np.int64]:
    """Return the actions of a crossover: long while the fast simple moving average is above the slow one.

    Causal: the action at bar t reads closes up to t. Until `slow` closes exist it is flat.

    Parameters
    ----------
    close
        float64[T], closes.
    fast, slow
        Bars of the two averages, 1 <= `fast` < `slow`; by default one session and five of XNYS in minutes.

    Returns
    -------
    NDArray
        int64[T], 1 (Buy) or 2 (Sell).

    Raises
    ------
    ValueError
        Lengths out of range.
    """
    check_returns("close", close, rank=1)
    if not 1 <= fast < slow:
        raise ValueError(f"fast is {fast} bars and slow is {slow}, allowed 1 <= fast < slow")
    actions = np.full(close.size, SELL, dtype=np.int64)
    if close.size >= slow:
        # from the first close on, so that a constant price has no crossings made of rounding
        sums = np.concatenate(([0.0], np.cumsum(close - close[0])))
        ends = np.arange(slow, close.size + 1)
        above = (sums[ends] - sums[ends - fast]) / fast > (sums[ends] - sums[ends - slow]) / slow
        actions[slow - 1 :][above] = BUY
    return actions


def switching(agent: Sequence[Record], rules: TradingRules, *, decisions: int, stretches: int) -> Switching:
    """Return the random trader whose expected trades and exposure per decision are those of the agent.

    Flat at the start of a stretch, a two-state Markov chain enters at once with its stationary probability w of
    being long, so that it is stationary from then on; what it holds at the end is liquidated. With D decisions,
    S stretches and a position of L = ``max_position``, exposure is ``w L``, and there are ``2 w S + 2 f (D - S)``
    trades, f being the flow ``(1 - w) buy = w sell`` per later decision. Both are solved for w and f.

    What no such chain can do is clipped: an exposure above the limit (a position grows with its price) is always
    long, and a probability above 1 is 1, which leaves fewer trades than the agent's. Drifts of the position, Buys
    that a rule forbids near a close, and drawdown stops are not in the formula.

    Parameters
    ----------
    agent
        Records of one or several members on the same blocks, pooled.
    rules
        Of the agent. A trade of it moves at most ``position_step`` of the equity; a random one always
        `max_position`, so there are accordingly fewer: turnover is what is alike.
    decisions, stretches
        Decisions of the blocks, and the stretches that begin flat: the blocks, or with ``flat_by_close`` the
        sessions within them; 1 <= `stretches` <= `decisions`.
    """
    if not 1 <= stretches <= decisions:
        raise ValueError(f"stretches is {stretches}, allowed 1 .. {decisions} (decisions)")
    made = sum(record.decisions for record in agent)
    size = min(1.0, rules.position_step / rules.max_position)
    trades = size * sum(record.trades for record in agent) / made * decisions
    bars = sum(record.bars for record in agent)
    long = min(1.0, sum(record.exposure * record.bars for record in agent) / bars / rules.max_position)
    later = decisions - stretches
    if later == 0:
        return Switching(min(1.0, trades / (2.0 * stretches)), 0.0, 0.0)
    flow = max(0.0, (trades - 2.0 * long * stretches) / (2.0 * later))
    buy = min(1.0, flow / (1.0 - long)) if long < 1.0 else 1.0
    sell = min(1.0, flow / long) if long > 0.0 else 1.0
    return Switching(buy / (buy + sell) if flow > 0.0 else long, buy, sell)


def random_policy(
    chances: Switching,
    first: NDArray[np.int64],
    bars: int,
    draws: Sequence[int],
    *,
    seed: int,
    device: str | torch.device = "cpu",
) -> Decide:
    """Return independent random traders, one per member.

    Whether one is long is read from its position fraction. Draw d at bar t depends on `seed`, d and t alone, and
    on nothing of the market.

    Parameters
    ----------
    chances
        Of its actions, :func:`switching`.
    first
        int64[S], bars of the first decisions of stretches.
    bars
        Length T of the tape.
    draws
        Number of the draw of each member, >= 0.
    seed
        Of all draws.
    device
        Of the tape.
    """
    fresh = torch.zeros(bars, dtype=torch.bool)
    fresh[torch.from_numpy(first)] = True
    fresh = fresh.to(device)
    streams = (stream("random baseline", seed, draw) for draw in draws)
    uniform = torch.stack([torch.rand(bars, generator=own) for own in streams], 1).to(device)
    columns = torch.arange(len(draws), device=device)

    def decide(bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        long = portfolio[..., 0] > 0.0
        chance = torch.where(fresh[bar], chances.enter, chances.buy).masked_fill_(long, chances.sell)
        action = torch.where(long, SELL, BUY)
        return _logits(torch.where(uniform[bar, columns] < chance, action, HOLD), mask)

    return decide


def run_baselines(
    tape: TapeTensors,
    rules: TradingRules,
    blocks: Sequence[Range],
    *,
    agent: Sequence[Record] = (),
    regime: NDArray[np.int8] | None = None,
    draws: int = 32,
    seed: int = 0,
) -> Baselines:
    """Walk all baselines through `blocks`, flat at the start of each and liquidated at its end, as a policy is.

    Parameters
    ----------
    tape
        Holds every block.
    rules
        Of the policy, costs included; the masks become ``state``. A drawdown stop ends a baseline's block as it
        ends a policy's, buy-and-hold's too; with ``max_drawdown`` out of reach it is kept whatever it loses.
    blocks
        In time order; each holds at least one decision.
    agent
        Records of the policy's members on these blocks, for the random draws' turnover; none: no random draws.
    regime
        int8[>= T], planted regimes of a synthetic market, for the oracle. **This is the future.**
    draws
        Random traders, >= 1.
    seed
        Of the random traders.

    Raises
    ------
    ValueError
        No block, one without a decision, no draw, or labels for fewer bars than the tape has.
    """
    _check(tape, rules, blocks, regime, draws)
    open_rules = rules.replace(masks="state")
    tables = [np.full(tape.n, HOLD), np.full(tape.n, BUY), sma_crossover(tape.close.cpu().numpy())]
    if regime is not None:
        tables.append(_oracle(regime, tape.n))
    decide = table_policy(np.stack(tables, 1).astype(np.int64), device=tape.device)
    flat, hold, sma, *oracle = _walk(tape, open_rules, blocks, len(tables), decide)
    random = _random(tape, open_rules, blocks, agent, draws=draws, seed=seed) if agent else ()
    return Baselines(flat, hold, sma, random, oracle[0] if oracle else None)


def _check(
    tape: TapeTensors, rules: TradingRules, blocks: Sequence[Range], regime: NDArray[np.int8] | None, draws: int
) -> None:
    least = rules.decision_interval + 2
    short = [block for block in blocks if len(block) < least]
    if not blocks or short:
        what = f"{short[0]} has {len(short[0])} bars" if short else "there is none"
        raise ValueError(f"blocks: {what}, needed one or more of at least {least} bars (decision_interval + 2)")
    if draws < 1:
        raise ValueError(f"draws is {draws}, allowed 1 or more")
    if regime is not None and len(regime) < tape.n:
        raise ValueError(f"regime has {len(regime)} labels, needed one for each of {tape.n} bars")


def _walk(
    tape: TapeTensors, rules: TradingRules, blocks: Sequence[Range], count: int, decide: Decide
) -> tuple[Record, ...]:
    """Return the records of `count` members that all walk the same blocks."""
    members = [(member, 0) for member in range(count)]
    return BlockEvaluator(tape, rules, [blocks] * count, members).evaluate(decide).greedy


def _oracle(regime: NDArray[np.int8], bars: int) -> NDArray[np.int64]:
    """Return the oracle's actions int64[T]; Sell at a last bar after which no order can fill."""
    actions = np.full(bars, SELL, dtype=np.int64)
    known = min(bars, len(regime) - 1)
    actions[:known] = oracle_actions(regime, np.arange(known))
    return actions


def _random(
    tape: TapeTensors, rules: TradingRules, blocks: Sequence[Range], agent: Sequence[Record], *, draws: int, seed: int
) -> tuple[Record, ...]:
    decisions, first = _stretches(tape.session.cpu().numpy(), rules, blocks)
    chances = switching(agent, rules, decisions=decisions, stretches=len(first))
    whole = rules.replace(position_step=1.0)  # one Buy goes to the limit, one Sell closes: two states
    row = 8 * max(len(block) for block in blocks)
    size = max(1, _EQUITY_BYTES // (2 * len(blocks) * row))
    records: tuple[Record, ...] = ()
    for start in range(0, draws, size):
        numbers = range(start, min(start + size, draws))
        decide = random_policy(chances, first, tape.n, numbers, seed=seed, device=tape.device)
        records += _walk(tape, whole, blocks, len(numbers), decide)
    return records


def _stretches(
    session: NDArray[np.int32], rules: TradingRules, blocks: Sequence[Range]
) -> tuple[int, NDArray[np.int64]]:
    """Return how many decisions the blocks hold, and the bars int64[S] of those that begin a stretch."""
    interval, count = rules.decision_interval, 0
    first = []
    for block in blocks:
        bars = np.arange(block.start, block.stop - 1 - interval, interval)
        begins = np.zeros(bars.size, dtype=np.bool_)
        begins[0] = True
        if rules.flat_by_close:
            begins[1:] = session[bars[1:]] != session[bars[:-1]]
        count += bars.size
        first.append(bars[begins])
    return count, np.concatenate(first).astype(np.int64)
