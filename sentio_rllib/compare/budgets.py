"""Equal compute for the arms of a configuration: what may be compared, and budgets of equal time."""

from __future__ import annotations

from collections.abc import Mapping

from sentio_rllib.config.arms import BUDGET
from sentio_rllib.config.loading import build_config
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import ConfigError

COMPARISON = "comparison.json"
EQUAL = ("steps", "seconds")


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


def budgets_of_equal_time(config: SweepConfig, rates: Mapping[str, float]) -> dict[str, int]:
    """Return the env steps that each arm trains, so that all train as long as the baseline does.

    Parameters
    ----------
    config
        With arms, of which the first is the baseline; it trains for `search.env_steps`.
    rates
        Env steps per second of each arm, > 0.

    Returns
    -------
    dict
        Whole evaluations of at least one, as trials end at evaluations only: half a one more or less than the
        baseline's time.
    """
    arms = config.arms()
    baseline = next(iter(arms))
    between = {name: _between_evaluations(arm) for name, arm in arms.items()}
    seconds = -(-config.search.env_steps // between[baseline]) * between[baseline] / rates[baseline]
    return {name: max(1, round(seconds * rates[name] / each)) * each for name, each in between.items()}


def _between_evaluations(config: SweepConfig) -> int:
    """Return the env steps from one evaluation to the next: whole iterations, `search.evaluate_every` or more."""
    rows = config.ppo.environments * config.ppo.rollout_steps
    return -(-config.search.evaluate_every // rows) * rows
