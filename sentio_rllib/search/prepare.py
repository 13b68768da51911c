"""From a configuration to what trials run on: bars, folds, tape, and the settings of each trial."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sentio_rllib.config.contradictions import needs_volume
from sentio_rllib.config.folds import make_folds
from sentio_rllib.config.loading import resolve
from sentio_rllib.config.tree import SweepConfig, over_trials
from sentio_rllib.errors import BarsError
from sentio_rllib.market.bars import load_bars
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.report import suitable_reference, usual_volatility
from sentio_rllib.market.sessions import assign_sessions
from sentio_rllib.market.synthetic import SyntheticMarket, session_grid, synthetic_market
from sentio_rllib.market.tape import Tape, build_tape
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.ppo.settings import PPOSettings, TrialSettings
from sentio_rllib.seeding import Member, stream_seed
from sentio_rllib.statistics.significance import expected_maximum_sharpe_ratio, minimum_backtest_length
from sentio_rllib.validation.probes import check_leaks
from sentio_rllib.validation.splits import Splits

MANY_MASKED = 0.2
"""Share of the bars from which masked Buys are worth a caution."""


@dataclass(frozen=True)
class Prepared:
    """What every trial of a sweep shares.

    Attributes
    ----------
    bars
        All bars, the holdout included.
    notes
        What was found in the data, for people.
    splits
        Folds and holdout, computed once with the largest footprint in the search space.
    tape
        The tape cut before the holdout; trials receive nothing else.
    """

    bars: Bars
    notes: tuple[str, ...]
    splits: Splits
    tape: Tape


def prepare(config: SweepConfig) -> Prepared:
    """Read or make the bars, compute the folds, build the tape.

    Raises
    ------
    BarsError
        If the file is missing or wrong.
    SplitError
        If the bars do not suffice for the folds.
    """
    if config.data.path is None:
        bars, notes, splits = _embedded_market(config)
    else:
        bars, notes = _bars_of_file(config)
        splits = _splits(config, bars)
    tape = tape_of(config, bars).cut(splits.development.stop)
    told = (*notes, *_masked_buys(config, bars.slice(0, tape.n), tape), *_too_many_trials(config, tape))
    return Prepared(bars, told, splits, tape)


def _masked_buys(config: SweepConfig, bars: Bars, tape: Tape) -> list[str]:
    """Warn where the risk masks forbid Buys at more bars than caution would, because of the market's volatility."""
    rules = config.trading_rules()
    limit = rules.risk_volatility * rules.reference_volatility
    share = float((tape.volatility[tape.warmup :] > limit).mean())
    if rules.masks != "risk" or share <= MANY_MASKED:
        return []
    suits = suitable_reference(usual_volatility(bars))
    told = (
        f"caution: risk masks forbid every Buy at {share:.0%} of the bars, where the volatility of a minute exceeds "
        f"{limit:.1e}; features.reference_volatility={suits:.1e} suits this market, or raise trading.risk_volatility"
    )
    return [told]


def _too_many_trials(config: SweepConfig, tape: Tape) -> list[str]:
    """Warn where the best of the trials asked for would look good by luck alone on so few bars."""
    trials, years = config.asked_trials(), len(tape.session_labels) / tape.sessions_per_year
    needed = minimum_backtest_length(trials)
    if needed <= years:
        return []
    luck = expected_maximum_sharpe_ratio(trials, 1.0 / years)
    told = (
        f"caution: by luck alone the best of {trials} independent trials without any edge reaches a Sharpe ratio of "
        f"{luck:.1f} in the {years:.2f} years of these bars ({needed:.1f} years keep it below 1); use more bars or "
        "fewer search.trials"
    )
    return [told]


def _bars_of_file(config: SweepConfig) -> tuple[Bars, tuple[str, ...]]:
    data = config.data
    assert data.path is not None
    options = data.model_dump(exclude={"path", "bars", "synthetic"})
    try:
        bars, report = load_bars(data.path, **options)
    except BarsError as error:
        raise BarsError(*(_with_keys(line, options) for line in error.lines)) from error
    _refuse_without_volume(config, bars)
    notes = tuple(report.lines())
    if data.bars is not None and data.bars < bars.n:
        notes = (*notes, f"data.bars: the last {data.bars:,} of {bars.n:,} bars are used")
        bars = bars.slice(bars.n - data.bars, bars.n)
    return bars, notes


def _refuse_without_volume(config: SweepConfig, bars: Bars) -> None:
    """Refuse limits and costs by volume where no bar has any: no order would fill, or none would cost anything."""
    if not np.any(bars.volume):
        lines = over_trials(config, lambda trial: [f"{key}: {value:g}" for key, value in needs_volume(trial)])
        if lines:
            raise BarsError(
                f"{bars.symbol}: no bar has volume, and {', '.join(lines)} cannot be simulated without: leave it out, "
                "or bring bars with volume"
            )


def _with_keys(line: str, options: Mapping[str, Any]) -> str:
    """Add the keys of the configuration for the options of the reader that a message tells to pass."""
    _, told, advice = line.partition("pass ")
    advice = re.sub(r"='[^']*'", "=", advice)  # names of columns may be those of options
    keys = [f"--set data.{option}=..." for option in options if re.search(rf"\b{option}\b", advice)]
    return f"{line} (here {', '.join(keys)})" if told and keys else line


def _embedded_market(config: SweepConfig) -> tuple[Bars, tuple[str, ...], Splits]:
    """The embedded synthetic market, planted between the very edges that the folds have."""
    synthetic = config.data.synthetic
    timestamps = session_grid(synthetic.bars, calendar=config.data.calendar)
    sessions, _ = assign_sessions(timestamps, config.data.calendar)
    splits = _make_splits(config, len(timestamps), sessions.cuts, int(sessions.length.max()))
    market = embedded_market(config, splits)
    what = f"a planted edge of {synthetic.edge:g} a bar" if synthetic.edge else "no edge"
    note = (
        f"the embedded synthetic market: {market.bars.n:,} bars, seed {synthetic.seed}, {what}; "
        "set data.path to use your own bars"
    )
    return market.bars, (note,), splits


def embedded_market(config: SweepConfig, splits: Splits) -> SyntheticMarket:
    """Return the embedded market of `config` with its regimes, made for the edges of `splits`."""
    synthetic = config.data.synthetic
    return synthetic_market(
        synthetic.bars,
        seed=synthetic.seed,
        edge=synthetic.edge,
        regime_bars=synthetic.regime_bars,
        drift=synthetic.drift,
        volatility=synthetic.volatility,
        recentre=synthetic.recentre,
        memory=synthetic.memory,
        calendar=config.data.calendar,
        boundaries=splits.boundaries(),
    )


def _splits(config: SweepConfig, bars: Bars) -> Splits:
    return _make_splits(config, bars.n, bars.sessions.cuts, int(bars.sessions.length.max()))


def _make_splits(config: SweepConfig, n: int, cuts: Any, session_minutes: int) -> Splits:
    return make_folds(config, n, [int(cut) for cut in cuts], session_minutes)


def tape_of(config: SweepConfig, bars: Bars) -> Tape:
    """Return the tape that networks of `config` read, of all of `bars`."""
    features = config.features
    return build_tape(bars, features.set_, reference_volatility=features.reference_volatility)


def policy_spec(config: SweepConfig) -> PolicySpec:
    """Return the shape of the networks of `config`."""
    shape = config.policy.model_dump(exclude={"load_balance"})
    return PolicySpec(
        variant=config.variant, patch=config.trading.decision_interval, features=config.features.set_, **shape
    )


def members_of(config: SweepConfig, splits: Splits) -> tuple[Member, ...]:
    """Return (seed, fold) of every member: tuning seeds are drawn from the sweep's seed."""
    seeds = [stream_seed("tuning", config.seed, index) % 2**31 for index in range(config.validation.seeds)]
    return tuple((seed, fold.index) for fold in splits.folds for seed in seeds)


def trial_settings(config: SweepConfig, splits: Splits, params: Mapping[str, Any]) -> TrialSettings:
    """Return the settings of the trial with the searched `params` (dotted keys).

    A trial's randomness depends on the sweep's seed only, never on when or where it runs.
    """
    resolved = resolve(config, params)
    search, ppo = resolved.search, resolved.ppo
    return TrialSettings(
        rules=resolved.trading_rules(),
        policy=policy_spec(resolved),
        ppo=PPOSettings(**ppo.model_dump(), **resolved.risk.model_dump(), load_balance=resolved.policy.load_balance),
        folds=splits.folds,
        members=members_of(resolved, splits),
        trial_seed=config.seed,
        env_steps=search.env_steps,
        evaluate_every=search.evaluate_every,
        fold_penalty=resolved.validation.fold_penalty,
        score=search.score,
        phases=min(resolved.validation.phases, resolved.trading.decision_interval),
        grace_steps=search.grace_steps,
        patience=search.patience,
        min_delta=search.min_delta,
        threads=max(1, int(resolved.resources.cpu)),
        gpu=resolved.resources.gpu,
    )


def probe(config: SweepConfig, prepared: Prepared) -> None:
    """Probe features and simulator for leaks on the very bars of the sweep, the holdout's left out.

    Does nothing where `evidence.probes` is off.

    Raises
    ------
    LeakError
        If a probe finds one.
    """
    if not config.evidence.probes:
        return
    check_leaks(
        prepared.bars.slice(0, prepared.splits.development.stop),
        config.trading_rules(),
        reference_volatility=config.features.reference_volatility,
        seed=stream_seed("probes", config.seed),
    )
