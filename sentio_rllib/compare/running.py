"""Runs the arms of a configuration with equal compute and compares them."""

from __future__ import annotations

from typing import Any

from sentio_rllib.compare.budgets import COMPARISON, budgets_of_equal_time, check_comparable, with_budgets
from sentio_rllib.compare.comparison import comparison, last_evaluation
from sentio_rllib.config.arms import BUDGET
from sentio_rllib.config.loading import load_config
from sentio_rllib.config.space import ARM
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import SweepError
from sentio_rllib.search.durable import write_json
from sentio_rllib.search.pace import measure
from sentio_rllib.search.prepare import prepare
from sentio_rllib.search.trials import read_outcomes
from sentio_rllib.sweep.folder import CONFIG, claim_folder
from sentio_rllib.sweep.run import run_sweep

_MEASURED_ITERATIONS = 3


def measured_budgets(config: SweepConfig) -> SweepConfig:
    """Measure how fast each arm trains, and return `config` with budgets of equal time.

    Each arm is measured by itself on this machine; budgets follow the ratios of the rates, so arms that then train
    side by side may all be slower.
    """
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
    path = config.folder / CONFIG
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
    summary = run_sweep(config, resume=resume, address=address)
    folder, prepared = config.folder, prepare(config)
    outcomes = read_outcomes(folder, config)
    last = {outcome.params[ARM]: last_evaluation(outcome, config, prepared) for outcome in outcomes}
    found = {"name": config.name, **comparison(config.search.arms, outcomes, last, equal=equal or "steps")}
    write_json(folder / COMPARISON, found)
    return found, summary
