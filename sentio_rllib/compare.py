"""Compares arms at equal compute: ``python -m sentio_rllib.compare configs/variants.yaml``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sentio_rllib.errors import ConfigError, SentioError, SweepError, tell
from sentio_rllib.sweep.arms import BUDGET
from sentio_rllib.sweep.claim import CONFIG, claim_folder, sweep_folder
from sentio_rllib.sweep.config import SweepConfig, build_config, load_config
from sentio_rllib.sweep.files import write_json
from sentio_rllib.sweep.options import read_config, sweep_parser
from sentio_rllib.sweep.prepare import prepare
from sentio_rllib.sweep.space import ARM

COMPARISON = "comparison.json"
EQUAL = ("steps", "seconds")

_MEASURED_ITERATIONS = 3


def check_comparable(config: SweepConfig) -> None:
    """Refuse a configuration whose arms would not train with equal compute.

    Raises
    ------
    ConfigError
        There are no arms, arms have budgets of their own, or something may end one early.
    """
    search = config.search
    if not search.arms:
        raise ConfigError(
            "search.arms: the configuration has none, so there is nothing to compare; name two or more, as "
            "configs/variants.yaml does"
        )
    lines = [
        f"search.arms.{name}: {BUDGET}: {changes[BUDGET]} is a budget of its own, and compute is to be equal; take "
        "it out, and pass --equal seconds for budgets of equal time"
        for name, changes in search.arms.items()
        if BUDGET in changes
    ]
    if search.scheduler != "none":
        lines.append(
            f"search.scheduler: {search.scheduler} stops arms early, and compute is to be equal; set "
            "search.scheduler=none"
        )
    if search.patience > 0:
        lines.append(
            f"search.patience: {search.patience} ends an arm that converges early, and compute is to be equal; set "
            "search.patience=0"
        )
    if lines:
        raise ConfigError(*lines)


def with_budgets(config: SweepConfig, budgets: dict[str, int], grace_steps: int) -> SweepConfig:
    """Return `config` with env steps of its own for each arm, by name, and a grace period that none falls short of."""
    values = config.model_dump(by_alias=True)
    arms = values["search"]["arms"]
    values["search"]["arms"] = {name: {**arms[name], BUDGET: budgets[name]} for name in arms}
    values["search"]["grace_steps"] = grace_steps
    return build_config(values)


def measured_budgets(config: SweepConfig) -> SweepConfig:
    """Measure how fast each arm trains, and return `config` with budgets of equal time.

    Each arm is measured by itself on this machine; budgets follow the ratios of the rates, so arms that then train
    side by side may all be slower.
    """
    from sentio_rllib.sweep.measuring import budgets_of_equal_time, measure  # noqa: PLC0415  # brings Ray

    prepared = prepare(config)
    rates = {
        name: measure(prepared, config, {ARM: name}, iterations=_MEASURED_ITERATIONS).rate
        for name in config.search.arms
    }
    budgets = budgets_of_equal_time(config, rates)
    for name, steps in budgets.items():
        print(f"{name}: measured {rates[name]:,.0f} env steps/s; trains {steps:,}, {steps / rates[name]:,.0f} s")
    return with_budgets(config, budgets, min(config.search.grace_steps, *budgets.values()))


def as_started(config: SweepConfig, equal: str | None) -> tuple[SweepConfig, str]:
    """Return the configuration of a comparison that goes on, with the budgets it was started with.

    Parameters
    ----------
    config
        As the file has it.
    equal
        What was asked for, None where nothing was.

    Returns
    -------
    tuple
        The configuration, and what was equal at the start.

    Raises
    ------
    SweepError
        Something else is asked for than what it was started with.
    """
    path = sweep_folder(config) / CONFIG
    if not path.is_file():
        return config, equal or "steps"  # the sweep says that there is nothing to resume
    before = load_config(path)
    budgets = {name: changes[BUDGET] for name, changes in before.search.arms.items() if BUDGET in changes}
    started = "seconds" if budgets else "steps"
    if equal not in (None, started):
        raise SweepError(
            f"--equal {equal}: {path.parent} was started with --equal {started}; leave it out or choose another --name"
        )
    if budgets and set(budgets) == set(config.search.arms):
        config = with_budgets(config, budgets, before.search.grace_steps)
    return config, started


def compare(
    config: SweepConfig, *, equal: str | None = None, resume: bool = False, address: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the arms of `config` with equal compute and compare them.

    Parameters
    ----------
    config
        With arms.
    equal
        ``steps`` (where it is None) or ``seconds``: what all arms get the same of. The rates for ``seconds`` are
        measured first.
    resume
        Go on with a comparison, with the budgets it was started with.
    address
        Of a running Ray cluster; None starts a local one.

    Returns
    -------
    tuple
        What is said of the arms, as written to ``comparison.json``, and the summary of the sweep.

    Raises
    ------
    SentioError
        If the configuration, the data, the name or the cluster do not allow it; nothing was started then.
    """
    check_comparable(config)
    if resume:
        config, equal = as_started(config, equal)
    elif equal == "seconds":
        claim_folder(config, resume=False)  # before minutes are spent on measuring
        config = measured_budgets(config)
    from sentio_rllib.sweep.comparison import comparison, last_evaluation  # noqa: PLC0415  # brings Ray
    from sentio_rllib.sweep.run import run_sweep  # noqa: PLC0415  # brings Ray
    from sentio_rllib.sweep.trials import read_outcomes  # noqa: PLC0415  # brings Ray

    summary = run_sweep(config, resume=resume, address=address)
    folder, prepared = sweep_folder(config), prepare(config)
    outcomes = read_outcomes(folder, config)
    last = {outcome.params[ARM]: last_evaluation(outcome, config, prepared) for outcome in outcomes}
    found = {"name": config.name, **comparison(config.search.arms, outcomes, last, equal=equal or "steps")}
    write_json(folder / COMPARISON, found)
    return found, summary


def print_comparison(found: Mapping[str, Any], evidence: Mapping[str, Any]) -> None:
    """Print the arms with their compute, every pair of them, and the verdict.

    Parameters
    ----------
    found
        What ``comparison.json`` holds.
    evidence
        Of the sweep's summary, for the deflated form of the Sharpe ratios.
    """
    console = Console(width=None if Console().is_terminal else 160)
    console.print(_arms_table(found))
    console.print(_pairs_table(found))
    console.print(
        "score: mean over fold x seed of the annual Sharpe ratio out of sample at the last evaluation; at the best "
        "evaluation it is too good by selection. Differences are of the same fold and seed, the second arm less the "
        f"first. Shown: the {found['corrected_level']:.2%} interval leaves out 0 ({found['correction']}, together "
        f"{found['level']:.0%}). Seeds of a fold share its market, so intervals are rather too narrow"
    )
    deflated = _number(evidence.get("dsr"), ".3f") or "unknown"
    console.print(
        f"scores are raw and compare arms only; deflated Sharpe ratio of the best trial: {deflated}, "
        f"{evidence['verdict']} (report.html)"
    )
    ratios = {key: value for key, value in found["compute"].items() if value is not None}
    if ratios:
        steps, seconds = ratios["env_steps"], ratios["train_seconds"]
        console.print(
            f"equal {found['equal']}: of the arms with scores, the most env steps are {steps:.2f} times the fewest, "
            f"the longest training time {seconds:.2f} times the shortest"
        )
    for note in found["notes"]:
        console.print(note, markup=False)
    console.print(found["verdict"]["line"], markup=False)


def _arms_table(found: Mapping[str, Any]) -> Table:
    table = Table(title=f"arms, at equal {found['equal']}")
    columns = ("arm", "score", "at best", "trades", "env steps", "training s", "env steps/s", "evaluations", "ended")
    for column in columns:
        table.add_column(column)
    for arm in found["arms"]:
        table.add_row(
            escape(arm["name"]),
            _number(arm["score"], ".3f"),
            _number(arm["score_at_best"], ".3f"),
            _number(arm["trades"], ".0f"),
            f"{arm['env_steps']:,}",
            f"{arm['train_seconds']:,.0f}",
            _number(arm["env_steps_per_s"], ",.0f"),
            str(arm["evaluations"]),
            escape(arm["ended"]),
        )
    return table


def _pairs_table(found: Mapping[str, Any]) -> Table:
    table = Table(title="every arm against every other")
    corrected = f"{found['corrected_level']:.2%} interval"
    for column in ("second less first", "difference", "95% interval", corrected, "pairs", "shown"):
        table.add_column(column)
    for pair in found["pairs"]:
        unpaired = f"; {pair['missing']} fold x seed have no partner" if pair["missing"] else ""
        table.add_row(
            escape(f"{pair['second']} less {pair['first']}"),
            _number(pair["mean"], "+.3f"),
            _interval(pair["low"], pair["high"]),
            _interval(pair["corrected_low"], pair["corrected_high"]),
            str(pair["pairs"]),
            escape(pair["verdict"] + unpaired),
        )
    return table


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:+.3f} .. {high:+.3f}"


def _parser() -> argparse.ArgumentParser:
    parser = sweep_parser(
        "sentio_rllib.compare",
        "Train the arms of a configuration with equal compute and say whether they differ.",
        example="configs/variants.yaml",
        resume="go on with a comparison, with the budgets it began with",
    )
    parser.add_argument(
        "--equal",
        choices=EQUAL,
        help="steps: every arm trains for search.env_steps (default); seconds: as long as the first arm does, by "
        "rates that are measured first",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 2 the user's mistake, 1 otherwise (interrupted, no arm scored)."""
    args = _parser().parse_args(arguments)
    try:
        config = read_config(args)
        check_comparable(config)
        for line in config.cautions():
            print(f"caution: {line}")
        found, summary = compare(config, equal=args.equal, resume=args.resume, address=args.address)
    except (SentioError, OSError) as error:
        return tell(error)
    except KeyboardInterrupt:  # before the sweep takes it as a request to end
        print("ended before an arm was started", file=sys.stderr)
        return 1
    print_comparison(found, summary["evidence"])
    print(f"written to {sweep_folder(config) / COMPARISON}")
    finished = summary["state"] != "interrupted"
    return 0 if finished and summary["trials"]["total"] > summary["trials"]["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
