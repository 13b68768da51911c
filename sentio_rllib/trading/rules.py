"""The rules of trading: costs, position limits, forced exits, masks and pace, validated together."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from sentio_rllib.errors import ConfigError

MaskKind = Literal["none", "state", "risk"]

_RANGES: dict[str, tuple[float, float, str]] = {
    "fee_rate": (0.0, 0.05, "[]"),
    "half_spread_bps": (0.0, 1000.0, "[]"),
    "impact": (0.0, 100.0, "[]"),
    "max_participation": (0.0, 1.0, "(]"),
    "position_step": (0.0, 1.0, "(]"),
    "max_position": (0.0, 1.0, "(]"),
    "min_trade": (0.0, 0.5, "(]"),
    "close_minutes": (0, 1440, "[]"),
    "target_return_per_bar": (0.0, 0.01, "(]"),
    "max_drawdown": (0.0, 1.0, "()"),
    "decision_interval": (1, 1440, "[]"),
    "episode_length": (1, 10_000_000, "[]"),
    "initial_cash": (0.0, 1e15, "(]"),
    "cash_rate": (0.0, 1.0, "[]"),
    "risk_volatility": (0.0, 1e6, "(]"),
    "reference_volatility": (0.0, 1.0, "(]"),
    "risk_first_minutes": (0, 1440, "[]"),
    "risk_last_minutes": (0, 1440, "[]"),
    "risk_drawdown": (0.0, 1.0, "(]"),
}
_WHOLE = {"close_minutes", "decision_interval", "episode_length", "risk_first_minutes", "risk_last_minutes"}


@dataclass(frozen=True)
class TradingRules:
    """How orders are filled, limited, masked and rewarded. Positions are long or flat; nothing is sold short.

    Attributes
    ----------
    fee_rate
        Fee as a share of the traded notional, on buys and sells alike.
    half_spread_bps
        Half of the bid-ask spread in basis points, paid on every fill.
    impact
        Weight of market impact: a fill moves by ``impact * volatility * sqrt(notional / dollar volume)``.
    max_participation
        Largest notional of an order as a share of the trailing dollar volume of a bar; the remainder is
        cancelled. Forced exits are not limited. ``None``: no limit.
    position_step
        Share of equity that one Buy adds and one Sell takes off.
    max_position
        Largest share of equity in the market right after a fill.
    min_trade
        Smallest share of equity that a Buy may add; a Sell may always close what is left.
    flat_by_close
        Liquidate at the close of a session's last bar.
    close_minutes
        With `flat_by_close`, Buy is masked when fewer minutes than this are left in the session.
    target_return_per_bar
        Log return per bar that a mean reward of 1.0 stands for.
    max_drawdown
        Loss from the episode's peak equity at which the position is liquidated and the episode ends.
    decision_interval
        Bars from one decision to the next.
    episode_length
        Bars of a training episode; also the window of the portfolio features.
    fill_without_volume
        Whether an order is filled at the open of a bar in which nothing was traded; else it is cancelled. Forced exits
        are filled all the same, and so is everything before the first bar with volume: files may tell none.
    initial_cash
        Cash in dollars at the start of an episode.
    cash_rate
        Interest a year on what is not invested, compounded by bars; Sharpe ratios are in excess of it.
    masks
        ``none``: all actions are shown as valid; ``state``: what the account cannot do is masked;
        ``risk``: new risk is masked as well where a risk layer forbids it.
    risk_volatility
        No new risk while trailing volatility exceeds this multiple of `reference_volatility`.
    reference_volatility
        One-bar volatility (RMS of log returns) that counts as normal.
    risk_first_minutes, risk_last_minutes
        No new risk in the first and the last minutes of a session.
    risk_drawdown
        No new risk from this share of `max_drawdown` on, measured on the local drawdown.

    Raises
    ------
    ConfigError
        One line for every value out of its range.
    """

    fee_rate: float = 0.001
    half_spread_bps: float = 0.0
    impact: float = 0.0
    max_participation: float | None = None
    position_step: float = 1.0
    max_position: float = 0.95
    min_trade: float = 0.01
    flat_by_close: bool = False
    close_minutes: int = 15
    target_return_per_bar: float = 1e-5
    max_drawdown: float = 0.20
    decision_interval: int = 15
    episode_length: int = 1000
    fill_without_volume: bool = False
    initial_cash: float = 100_000.0
    cash_rate: float = 0.0
    masks: MaskKind = "state"
    risk_volatility: float = 3.0
    reference_volatility: float = 5e-4
    risk_first_minutes: int = 5
    risk_last_minutes: int = 15
    risk_drawdown: float = 0.75

    def __post_init__(self) -> None:
        lines = [line for name in _RANGES for line in self._range_mistakes(name)]
        if self.masks not in get_args(MaskKind):
            lines.append(f"trading.masks: {self.masks!r} is unknown; choose one of none, state, risk")
        lines += [
            f"trading.{name}: {getattr(self, name)!r} is not a truth value; use true or false"
            for name in ("flat_by_close", "fill_without_volume")
            if not isinstance(getattr(self, name), bool)
        ]
        lines = lines or self._contradictions()
        if lines:
            raise ConfigError(*lines)

    def _range_mistakes(self, name: str) -> list[str]:
        low, high, ends = _RANGES[name]
        value: Any = getattr(self, name)
        allowed = f"{ends[0]}{low:g}, {high:g}{ends[1]}"
        if name == "max_participation" and value is None:
            return []
        kind = int if name in _WHOLE else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
            wanted = "a whole number" if name in _WHOLE else "a finite number"
            return [f"trading.{name}: {value!r} is not {wanted}; set it within {allowed}"]
        above = value >= low if ends[0] == "[" else value > low
        below = value <= high if ends[1] == "]" else value < high
        return [] if above and below else [f"trading.{name}: {value!r} is out of range; set it within {allowed}"]

    def _contradictions(self) -> list[str]:
        lines = []
        largest = min(self.position_step, self.max_position)
        if self.min_trade > largest:
            lines.append(
                f"trading.min_trade: {self.min_trade!r} exceeds what an action can trade; set it to at most "
                f"{largest:g} (position_step, max_position) or raise those"
            )
        if self.episode_length < self.decision_interval:
            lines.append(
                f"trading.episode_length: {self.episode_length} bars hold no decision interval; set it to at "
                f"least {self.decision_interval} or lower trading.decision_interval"
            )
        return lines

    def cash_return(self, sessions_per_year: int) -> float:
        """Return what idle cash earns in a session."""
        return math.expm1(math.log1p(self.cash_rate) / sessions_per_year)

    def replace(self, **changes: Any) -> TradingRules:
        """Return these rules with `changes`, validated again.

        Raises
        ------
        ConfigError
            If a changed value is out of its range or the name is unknown.
        """
        known = [field.name for field in fields(self)]
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise ConfigError(*(f"trading.{name}: unknown; known are {', '.join(known)}" for name in unknown))
        return replace(self, **changes)
