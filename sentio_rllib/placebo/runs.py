"""Runs the sweeps of a placebo, one after the other in one Ray, and keeps what each says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import SweepError
from sentio_rllib.placebo.kinds import Kind
from sentio_rllib.placebo.markets import LEDGERS, Market, plan_markets, write_bootstrap
from sentio_rllib.placebo.rates import Figures, market_figures, report
from sentio_rllib.search.cluster import cluster
from sentio_rllib.search.durable import write_json
from sentio_rllib.search.prepare import prepare
from sentio_rllib.sweep.folder import CONFIG, claim_folder, hold
from sentio_rllib.sweep.outcome import SUMMARY
from sentio_rllib.sweep.run import run_sweep

REPORT = "placebo.json"
INTERRUPTED = "interrupted"


def run_placebo(
    config: SweepConfig,
    counts: Mapping[Kind, int],
    *,
    edge: float | None,
    mean_block: int,
    resume: bool,
    address: str | None = None,
) -> Figures:
    """Run the same sweep on every market and return the report, which is also written.

    Parameters
    ----------
    config, counts, edge, mean_block
        See :func:`~sentio_rllib.placebo.markets.plan_markets`.
    resume
        Keep finished markets, go on with one that was cut off, and start those that are not there yet.
    address
        Of a running Ray cluster, as for a sweep.

    Returns
    -------
    dict
        See :func:`~sentio_rllib.placebo.rates.report`, with ``name, state, edge, mean_block``; `state` is
        ``interrupted`` where the user ended it.

    Raises
    ------
    SentioError
        If the name is used, there is nothing to resume, or keys, data or the cluster do not allow it.
    """
    markets = plan_markets(config, counts, edge=edge, mean_block=mean_block)
    folder = config.folder
    if resume and not folder.is_dir():
        raise SweepError(f"{folder}: there is no placebo run to resume; start it without --resume")
    begun = {market.name for market in markets if _begun(market, resume=resume)}
    finished = {market.name: summary for market in markets if (summary := _finished(market)) is not None}
    told = {
        "name": config.name,
        "edge": config.data.synthetic.edge if edge is None else edge,
        "mean_block": mean_block,
    }
    left = [market for market in markets if market.name not in finished]
    (folder / LEDGERS).mkdir(parents=True, exist_ok=True)
    with hold(folder):
        if any(market.kind == "bootstrap" for market in left):
            _write_bars(config, left, mean_block)
        state = "completed"
        if left:
            with cluster(address):
                state = _run(markets, begun, finished)
        figures = _figures(markets, finished)
        content = {**told, "state": state, **report(figures)}
        write_json(folder / REPORT, content)
    return content


def _begun(market: Market, *, resume: bool) -> bool:
    """Whether the market's sweep was started before; refuses one that was, or was started otherwise."""
    begun = (market.config.folder / CONFIG).is_file()
    claim_folder(market.config, resume=begun and resume)
    return begun


def _finished(market: Market) -> dict[str, Any] | None:
    """The summary of a sweep that ran to its end."""
    path = market.config.folder / SUMMARY
    if not path.is_file():
        return None
    summary: dict[str, Any] = json.loads(path.read_text())
    return None if summary["state"] == INTERRUPTED else summary


def _write_bars(config: SweepConfig, markets: Sequence[Market], mean_block: int) -> None:
    """Write the bars of all bootstrapped markets; those of a sweep that goes on are checked by it."""
    prepared = prepare(config)
    for note in prepared.notes:
        print(note)
    for market in markets:
        if market.kind == "bootstrap":
            write_bootstrap(market, prepared.bars, mean_block)


def _run(markets: Sequence[Market], begun: set[str], finished: dict[str, dict[str, Any]]) -> str:
    """Run what is left, adding summaries to `finished`; return the state."""
    for position, market in enumerate(markets, start=1):
        if market.name in finished:
            continue
        print(f"{market.name} ({position} of {len(markets)})", flush=True)
        summary = run_sweep(market.config, resume=market.name in begun)
        if summary["state"] == INTERRUPTED:
            return INTERRUPTED
        finished[market.name] = summary
        figures = market_figures(market, summary)
        print(f"{market.name}: {figures['verdict']} after {figures['seconds']:,.0f} s", flush=True)
    return "completed"


def _figures(markets: Sequence[Market], finished: Mapping[str, dict[str, Any]]) -> list[Figures]:
    return [market_figures(market, finished[market.name]) for market in markets if market.name in finished]
