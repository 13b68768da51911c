"""From the options of a single run to what is to be trained, everything checked that can be without reading bars."""

from __future__ import annotations

from dataclasses import dataclass

from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.config.yaml_files import read_yaml
from sentio_rllib.errors import TrainError
from sentio_rllib.sweep.folder import CONFIG
from sentio_rllib.train.arguments import Options, budget, configure, episodes_limit, start_values
from sentio_rllib.train.output import LIMITS, Output, check_free, check_resumable, output_of, read_json

_MAY_CHANGE = (
    "name",
    "storage_path",
    "search.minutes",
    "search.env_steps",
    "search.patience",
    "resources.cpu",
    "resources.gpu",
    "evidence.ledger",
)
"""Keys that may differ when a run goes on."""


@dataclass(frozen=True)
class Plan:
    """What is to be trained.

    Attributes
    ----------
    config
        Of the run; its limit in minutes is `search.minutes`.
    output
        Where it writes.
    episodes
        Limit in episodes, None for none.
    resume
        Whether it goes on.
    named
        Whether the user named the output.
    """

    config: SweepConfig
    output: Output
    episodes: int | None
    resume: bool
    named: bool


def plan_of(options: Options) -> Plan:
    """Return what is to be trained, everything checked that can be without reading bars; nothing is written.

    Raises
    ------
    SentioError
        One line for every mistake.
    """
    episodes = episodes_limit(options)
    if options.resume:
        output, config, before = _going_on(options)
        episodes = before if episodes is None else episodes
    else:
        output = output_of(options.output, options.variant)
        check_free(output)
        config = configure(start_values(options), options)
    budget(config, episodes)
    named = options.output is not None
    return Plan(config=config, output=output, episodes=episodes, resume=options.resume, named=named)


def _going_on(options: Options) -> tuple[Output, SweepConfig, int | None]:
    """Return output, configuration and limit in episodes of the run that goes on."""
    if options.output is None:
        raise TrainError("--resume: which run is to go on? pass --output with its name")
    output = output_of(options.output, "")
    check_resumable(output)
    before = configure(read_yaml(output.folder / CONFIG), Options())
    config = configure(read_yaml(output.folder / CONFIG), options)
    changed = [key for key in config.changed_keys(before) if key not in _MAY_CHANGE]
    if changed:
        raise TrainError(
            *(
                f"{key}: was {before.value(key)!r} when the run was started, is {config.value(key)!r}; put it back or "
                "start a new run with another --output"
                for key in changed
            )
        )
    limits = read_json(output.folder / LIMITS) if (output.folder / LIMITS).is_file() else {"episodes": None}
    return output, config, limits["episodes"]
