"""The model card of a bundle: what the model is, what it was made of, what is known of it, and what is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

COMBINED = {
    "final": "trained on all bars, the holdout included, after the verdict, as the champion was that it repeats",
    "refit": "trained anew, with fresh seeds, on all bars but the holdout, for as long as the best trial",
    "mean": "of all folds and seeds of a trial at its best evaluation",
    "best": "the one of a trial with the best score on its own fold, which flatters it",
}
"""What the members of a bundle are, by how they were combined."""

_FIGURES = (
    ("Sharpe ratio", "sharpe", "{:.2f}"),
    ("Sharpe ratio of the timing", "timing_sharpe", "{:.2f}"),
    ("total return", "total_return", "{:.1%}"),
    ("mean return per bar", "mean_return", "{:.2e}"),
    ("month of 21 sessions", "monthly_return_21", "{:.1%}"),
    ("maximum drawdown", "max_drawdown", "{:.1%}"),
    ("round trips with a gain", "win_rate", "{:.1%}"),
    ("trades per session", "trades_per_day", "{:.2f}"),
    ("mean exposure", "exposure", "{:.1%}"),
    ("sessions", "sessions", "{:,.0f}"),
)
_LIMITS = (
    "Long or flat, one instrument. Nothing is known of other instruments, calendars, bar lengths or paces.",
    "Figures are net of the costs above and of no others: no taxes, no interest, no outages.",
    "An order is filled at the open of the bar after its decision.",
    "Past bars say nothing about a market that changes.",
    "It decides on features of this version alone; a bundle made with others is refused.",
    "This is no advice to trade.",
)


def model_card(metadata: Mapping[str, Any]) -> str:
    """Return the card as Markdown behind a YAML header.

    Parameters
    ----------
    metadata
        Of the bundle. Read where they are there: `trial_id`, `combine` (a key of :data:`COMBINED`), `env_steps`,
        `params`, `data` (``source, symbol, first, last, bars, fingerprint``), `folds` (rows ``fold, part, first,
        last, bars``), `cv` and `holdout` (with ``metrics`` and ``baselines``), `evidence` (``verdict, reasons``), and
        `evidence_note`, which says why there is none or what it is not about.
    """
    verdict = (metadata.get("evidence") or {}).get("verdict", "none")
    header = ModelCardData(
        library_name="sentio_rllib",
        pipeline_tag="reinforcement-learning",
        tags=["reinforcement-learning", "ppo", "trading", metadata["variant"], f"verdict: {verdict}"],
    )
    parts = [
        f"# {metadata['name']}",
        _claim(metadata),
        _section("What it is", _lines(_what(metadata))),
        _section("Data", _lines(_data(metadata))),
        _section("Costs and rules", _lines(_costs(metadata["rules"]))),
        _section("Folds", _folds(metadata.get("folds") or [])),
        _section("Evidence", _evidence(metadata)),
        _section("Limits", _lines(_LIMITS)),
        _section("Hashes", _hashes(metadata)),
    ]
    return str(ModelCard(f"---\n{header.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"))


def _claim(metadata: Mapping[str, Any]) -> str:
    evidence = metadata.get("evidence")
    if not evidence:
        why = metadata.get("evidence_note") or "it was not selected by a sweep"
        return f"**No verdict was reached about this model: {why}. Take it to have no edge.**"
    told = {
        "supported": "**The evidence supports that the way this model was selected has an edge on its bars.**",
        "not enough data": "**THE EVIDENCE DOES NOT SUPPORT THIS MODEL: there is not enough data to tell.**",
    }
    head = told.get(
        evidence["verdict"], "**THE EVIDENCE DOES NOT SUPPORT THIS MODEL. Take what it gained to be luck.**"
    )
    note = metadata.get("evidence_note")
    return "\n\n".join([head, _lines(evidence["reasons"]), *([f"{note}."] if note else [])])


def _what(metadata: Mapping[str, Any]) -> Iterable[str]:
    spec, count = metadata["spec"], len(metadata["members"])
    parts = f"{spec['encoder']} encoder, {spec['head']} head, {spec['critic']} critic"
    yield f"PPO, variant `{metadata['variant']}`: {parts}"
    networks = f"{count} networks, whose distributions are averaged" if count > 1 else "1 network"
    combined = COMBINED.get(str(metadata.get("combine")))
    yield f"{networks}; the likeliest action is taken" + (f". Networks: {combined}" if combined else "")
    if metadata.get("trial_id"):
        yield f"Trial `{metadata['trial_id']}`, {metadata['env_steps']:,} env steps a network"
    if metadata.get("params"):
        yield "Searched: " + ", ".join(f"`{key}` {_short(value)}" for key, value in metadata["params"].items())
    yield f"A decision every {metadata['rules']['decision_interval']} bars: Hold, Buy or Sell"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _data(metadata: Mapping[str, Any]) -> Iterable[str]:
    data, market = metadata.get("data") or {}, metadata["market"]
    if data:
        symbol = f" ({data['symbol']})" if data.get("symbol") else ""
        yield f"{data['source']}{symbol}: {data['bars']:,} one-minute bars, {data['first']} to {data['last']}"
    yield f"Calendar {market['calendar']}, hours: {market['hours']}"
    yield f"Features {metadata['features']['version']}: {', '.join(metadata['features']['market'])}"


def _costs(rules: Mapping[str, Any]) -> Iterable[str]:
    yield f"Fee {rules['fee_rate']:.4%} of the notional, half spread {rules['half_spread_bps']:g} bp, on every fill"
    limit = rules["max_participation"]
    yield f"Market impact {rules['impact']:g}, " + (
        "no limit on an order's share of the volume" if limit is None else f"orders up to {limit:.1%} of the volume"
    )
    yield f"At most {rules['max_position']:.0%} in the market, {rules['position_step']:.0%} of equity a step"
    yield f"Position closed at a drawdown of {rules['max_drawdown']:.0%}" + (
        ", and at each session's close" if rules["flat_by_close"] else ""
    )
    yield f"Masks: {rules['masks']}"


def _folds(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "None are known."
    keys = ("fold", "part", "first", "last", "bars")
    return _table(keys, ([str(row[key]) for key in keys] for row in rows))


def _evidence(metadata: Mapping[str, Any]) -> str:
    cv, holdout = metadata.get("cv") or {}, metadata.get("holdout") or {}
    columns = {
        "validation": cv.get("metrics"),
        "buy-and-hold there": (cv.get("baselines") or {}).get("hold"),
        "holdout": holdout.get("metrics"),
        "buy-and-hold on the holdout": (holdout.get("baselines") or {}).get("hold"),
    }
    known = {name: figures for name, figures in columns.items() if figures}
    told = []
    if "cv_score" in metadata:
        told.append(f"Score over the folds: {metadata['cv_score']:.4f} (median annual Sharpe ratio less a spread).")
    if known:
        told.append(_table(["", *known], _figures(known)))
    if not holdout.get("metrics"):
        told.append(f"Holdout: {holdout.get('why') or 'not opened for this model'}.")
    return "\n\n".join(told)


def _figures(known: Mapping[str, Mapping[str, Any]]) -> Iterable[list[str]]:
    for label, key, form in _FIGURES:
        values = (figures.get(key) for figures in known.values())
        yield [label, *("-" if value is None else form.format(value) for value in values)]


def _hashes(metadata: Mapping[str, Any]) -> str:
    rows = [[f"`{file}`", f"`{digest}`"] for file, digest in metadata["sha256"].items()]
    rows.append([f"features `{metadata['features']['version']}`", f"`{metadata['features']['hash']}`"])
    if metadata.get("data"):
        rows.append(["bars", f"`{metadata['data']['fingerprint']}`"])
    versions = ", ".join(f"{name} {version}" for name, version in metadata["versions"].items())
    return _table(("what", "SHA-256"), rows) + f"\n\nMade with {versions}."


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
