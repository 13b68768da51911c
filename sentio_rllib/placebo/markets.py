"""The markets of a placebo run: the same sweep on many, each with a seed, bars and a ledger of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentio_rllib.config.loading import build_config
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import ConfigError
from sentio_rllib.market.bars import write_bars
from sentio_rllib.market.bootstrap import block_bootstrap
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.synthetic import MAX_EDGE
from sentio_rllib.placebo.kinds import Kind
from sentio_rllib.seeding import stream_seed

BARS, LEDGERS = "bars", "ledgers"


@dataclass(frozen=True)
class Market:
    """One market with the sweep on it.

    Attributes
    ----------
    kind, index
        Which it is, counted from 0 within its kind.
    seed
        Of the market and of the sweep on it.
    config
        Of the sweep: its folder, bars and ledger lie in the placebo's folder.
    """

    kind: Kind
    index: int
    seed: int
    config: SweepConfig

    @property
    def name(self) -> str:
        """Of the sweep and its folder."""
        return self.config.name


def plan_markets(
    config: SweepConfig, counts: Mapping[Kind, int], *, edge: float | None = None, mean_block: int
) -> list[Market]:
    """Return the markets of a placebo run, one of each kind in turn, so that a part of them is a balanced part.

    ``bootstrap`` is the configuration's own bars, see :func:`~sentio_rllib.market.bootstrap.block_bootstrap`;
    ``random-walk`` the embedded market without an edge and ``planted`` with one, both of `data.synthetic.bars`.

    Parameters
    ----------
    config
        Of the sweep that is put to the test.
    counts
        Markets of each kind, at least one kind.
    edge
        Planted drift in log return per bar, above 0; None: `data.synthetic.edge`.
    mean_block
        Mean block of the bootstrap in bars.

    Raises
    ------
    ConfigError
        A count, the edge or the block is out of range, or the configuration does not suit an embedded market.
    """
    edge = config.data.synthetic.edge if edge is None else edge
    _check(counts, edge, mean_block)
    return [
        _market(config, kind, index, edge, mean_block)
        for index in range(max(counts.values()))
        for kind, count in counts.items()
        if index < count
    ]


def write_bootstrap(market: Market, original: Bars, mean_block: int) -> None:
    """Write the bars of a market of the kind ``bootstrap`` to the file that its sweep reads."""
    assert market.config.data.path is not None
    path = Path(market.config.data.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bars(block_bootstrap(original, seed=market.seed, mean_block=mean_block), path)


def _check(counts: Mapping[Kind, int], edge: float, mean_block: int) -> None:
    mistakes = []
    mistakes += [f"--markets {count}: allowed whole numbers >= 1" for count in set(counts.values()) if count < 1]
    if "planted" in counts and not 0 < edge <= MAX_EDGE:
        mistakes.append(
            f"--edge {edge:g}: allowed above 0 to {MAX_EDGE:g} log return per bar for planted markets; "
            "leave planted out of --kinds to plant none"
        )
    if mean_block < 1:
        mistakes.append(f"--block {mean_block}: allowed whole numbers of bars >= 1")
    if mistakes:
        raise ConfigError(*mistakes)


def _market(config: SweepConfig, kind: Kind, index: int, edge: float, mean_block: int) -> Market:
    folder, name = config.folder, f"{kind}_{index:03d}"
    seed = stream_seed("placebo", config.seed, kind, index)
    values = config.model_dump(by_alias=True)
    values |= {"name": name, "seed": seed, "storage_path": str(folder)}
    values["evidence"]["ledger"] = str(folder / LEDGERS / f"{name}.sqlite")
    if kind == "bootstrap":
        values["data"] = _of_file(config, folder / BARS / f"{name}_block{mean_block}.feather")
    else:
        values["data"] = _embedded(config, seed, edge if kind == "planted" else 0.0)
    return Market(kind, index, seed, build_config(values))


def _of_file(config: SweepConfig, path: Path) -> dict[str, Any]:
    """`data` for a file of :func:`write_bars`; its missing minutes are the original's and were judged there."""
    kept = config.data.model_dump(include={"calendar", "hours", "synthetic"})
    return {**kept, "path": str(path), "symbol": "PLACEBO", "max_missing": 1.0}


def _embedded(config: SweepConfig, seed: int, edge: float) -> dict[str, Any]:
    synthetic = config.data.synthetic.model_dump() | {"seed": seed, "edge": edge}
    return {"calendar": config.data.calendar, "synthetic": synthetic}
