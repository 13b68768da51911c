"""Measures trials, champion and baselines of a sweep on its bars, all by the same figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.actor_critic import TapeReader
from sentio_rllib.policy.checkpoint import load_model
from sentio_rllib.policy.deciding import network_policy, with_weights
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.search.prepare import Prepared, embedded_market, trial_settings
from sentio_rllib.search.selection import Outcome, record_of
from sentio_rllib.seeding import stream_seed
from sentio_rllib.statistics.deflation import Looks, Panel, deflate
from sentio_rllib.statistics.inputs import Floats
from sentio_rllib.statistics.targets import IntervalFigures, Targets, measure
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.baselines import NO_STOP, run_baselines, table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator, Record
from sentio_rllib.validation.performance import describe, describe_baselines
from sentio_rllib.validation.schemes import Range
from sentio_rllib.validation.series import (
    Series,
    combine,
    coverage,
    market_means,
    timing_returns,
    usual_exposure,
)
from sentio_rllib.validation.stress import cost_stress, delayed


@dataclass(frozen=True)
class Measured:
    """The champion on one part of the bars.

    Attributes
    ----------
    told
        ``metrics`` and ``baselines``, for the summary.
    reached
        What the targets' measures come to.
    hold
        Buy-and-hold's excess returns by session, float64[S].
    equity
        Columns ``part, session, champion, hold``, simple session returns.
    series
        Of the champion.
    """

    told: dict[str, Any]
    reached: dict[str, IntervalFigures]
    hold: Floats
    equity: pd.DataFrame
    series: Series


@dataclass(frozen=True)
class _Part:
    """Bars that something is measured on, and the market's mean return a bar elsewhere, one or one a session."""

    name: str
    tape: Tape
    blocks: Sequence[Range]
    market: Floats | float


class Examiner:
    """Measures what came of a sweep.

    Parameters
    ----------
    config, prepared
        Of the sweep.
    """

    def __init__(self, config: SweepConfig, prepared: Prepared) -> None:
        self.config, self.prepared = config, prepared
        self.year = prepared.tape.sessions_per_year
        self.seed = stream_seed("evidence", config.seed)
        self.coverage = coverage(prepared.splits.folds)
        self.tensors = prepared.tape.tensors()
        self._holds: dict[TradingRules, tuple[Record, ...]] = {}

    def series(self, outcome: Outcome) -> Series:
        """Return the session returns of a trial at its best evaluation."""
        settings = self._settings_of(outcome)
        hold = dict(enumerate(self._hold_of(settings)))
        return combine(_records_of(outcome), hold, settings.members, self.coverage, self._elsewhere(settings))

    def deflate(
        self, outcomes: Sequence[Outcome], best: Outcome, series: Mapping[str, Series], hold: Floats, looks: Looks
    ) -> dict[str, Any]:
        """Return the deflated statistics of the selected trial among all that were scored."""
        aims, scored = self.config.evidence, [outcome for outcome in outcomes if outcome.trial_id in series]
        panel = Panel(
            tuple(outcome.trial_id for outcome in scored),
            np.stack([series[outcome.trial_id].excess for outcome in scored], 1),
            np.stack([series[outcome.trial_id].timing for outcome in scored], 1),
            hold,
            tuple(outcome.env_steps for outcome in scored),
        )
        return deflate(
            panel,
            best.trial_id,
            looks,
            sessions_per_year=self.year,
            confidence=aims.confidence,
            resamples=aims.resamples,
            seed=self.seed,
        )

    def cross_validation(self, best: Outcome, series: Series) -> Measured:
        """Measure the selected trial on the validation blocks of its folds."""
        settings, records = self._settings_of(best), _records_of(best)
        blocks = _union(block for fold in settings.folds for block in fold.validation)
        count = self.coverage * len({seed for seed, _ in settings.members})
        hold = dict(enumerate(self._hold_of(settings)))
        means = market_means(hold, self.coverage, self._elsewhere(settings))
        market = np.zeros(series.session.size)
        for fold, record in hold.items():
            market[np.searchsorted(series.session, record.session)] = means[fold]
        part = _Part("cv", self.prepared.tape, blocks, market)
        found = self._measure(part, settings.rules, series, records, count=count)
        told = found.told | {"market_mean": self._market_mean(settings)}
        return replace(found, told=told)

    def holdout(self, best: Outcome, record: Record, tape: Tape) -> Measured:
        """Measure the champion on the holdout, from its record there on the whole `tape`."""
        settings, blocks = self._settings_of(best), self.prepared.splits.holdout_blocks
        hold = self._walk_hold(tape, settings, [blocks])[0]
        # what is usual and what the market earns come from different folds, or they would go together
        spare = [place for place, (_, fold) in enumerate(settings.members) if fold % 2 == 0]
        usual = None
        if len(settings.folds) > 1:
            records, of_folds = _records_of(best), self._hold_of(settings)
            usual = usual_exposure(
                [records[place] for place in spare], [of_folds[settings.members[place][1]] for place in spare]
            )
        market = self._market_mean(settings, odd=usual is not None)
        timing = timing_returns(record, hold, market, usual)
        series = Series(record.session, record.session_returns, timing, record.excess_returns)
        return self._measure(_Part("holdout", tape, blocks, market), settings.rules, series, [record], count=1)

    def targets(self) -> Targets:
        """Return what is aimed at."""
        trading, aims = self.config.trading, self.config.evidence
        minutes = int(np.median(self.prepared.bars.sessions.length))
        drawdown, wins = aims.target_drawdown, aims.target_win_rate
        return Targets(trading.target_return_per_bar, minutes, aims.target_sharpe, drawdown, wins)

    def stress(self, best: Outcome) -> dict[str, Any]:
        """Score the members of the selected trial once more under higher costs and later decisions."""
        assert best.checkpoint is not None
        settings = self._settings_of(best)
        weights, _ = load_model(best.checkpoint / "best")
        network = with_weights(settings.policy, settings.members, weights)
        dtype = network.dtype
        reader = TapeReader(self.tensors.features.to(dtype), settings.policy)
        blocks = [settings.folds[fold].validation for _, fold in settings.members]

        @torch.no_grad()
        def evaluate(rules: TradingRules, late: int) -> Sequence[Record]:
            evaluator = BlockEvaluator(self.tensors, rules, blocks, settings.members, dtype=dtype)
            decide = network_policy(network, reader, evaluator.bars() - late)
            return evaluator.evaluate(delayed(decide, late)).greedy

        shared = {"sessions_per_year": self.year, "count": self.coverage}
        found = cost_stress(evaluate, settings.rules, settings.members, **shared)
        rows = [row._asdict() for row in found.rows]
        return {"measured_on": "cv", "rows": rows, "breakeven_fee": found.breakeven_fee, "note": found.note}

    def _settings_of(self, outcome: Outcome) -> TrialSettings:
        return trial_settings(self.config, self.prepared.splits, outcome.params)

    def _hold_of(self, settings: TrialSettings) -> tuple[Record, ...]:
        """Buy-and-hold's record on each fold's blocks, at the trial's pace and costs."""
        if settings.rules not in self._holds:
            blocks = [fold.validation for fold in settings.folds]
            self._holds[settings.rules] = self._walk_hold(self.prepared.tape, settings, blocks)
        return self._holds[settings.rules]

    def _market_mean(self, settings: TrialSettings, *, odd: bool = False) -> float:
        """Buy-and-hold's mean excess return a bar over all folds, or over the odd ones alone."""
        hold = [record for fold, record in enumerate(self._hold_of(settings)) if not odd or fold % 2]
        excess = sum(float(record.excess_returns.sum()) for record in hold)
        return excess / sum(record.bars for record in hold)

    def _elsewhere(self, settings: TrialSettings) -> float | None:
        """Of a single fold, the market's mean excess return a bar where it trains; None where there are others."""
        if len(settings.folds) > 1:
            return None
        hold = self._walk_hold(self.prepared.tape, settings, [settings.folds[0].train])[0]
        return float(hold.excess_returns.sum()) / hold.bars

    def _walk_hold(self, tape: Tape, settings: TrialSettings, blocks: Sequence[Sequence[Range]]) -> tuple[Record, ...]:
        rules = settings.rules.replace(masks="state", max_drawdown=NO_STOP)
        members = [(0, index) for index in range(len(blocks))]
        always = table_policy(np.ones(tape.n, dtype=np.int64))
        return BlockEvaluator(tape.tensors(), rules, blocks, members).evaluate(always).greedy

    def _measure(
        self, part: _Part, rules: TradingRules, series: Series, records: Sequence[Record], *, count: int
    ) -> Measured:
        cash = self.config.trading.initial_cash
        metrics = describe(
            series.raw,
            series.timing,
            records,
            sessions_per_year=self.year,
            initial_cash=cash,
            count=count,
            excess=series.excess,
        )
        baselines, hold = self._baselines(part, rules, records)
        aims = self.config.evidence
        reached = measure(
            series.raw,
            metrics,
            excess=series.excess,
            sessions_per_year=self.year,
            level=aims.confidence,
            resamples=aims.resamples,
            seed=self.seed,
        )
        dates = self.prepared.bars.sessions.labels[series.session].astype(str)
        returns = {"champion": series.raw, "hold": hold.session_returns}
        equity = pd.DataFrame({"part": part.name, "session": dates, **returns})
        return Measured({"metrics": metrics, "baselines": baselines}, reached, hold.excess_returns, equity, series)

    def _baselines(self, part: _Part, rules: TradingRules, agent: Sequence[Record]) -> tuple[dict[str, Any], Record]:
        """Figures of all baselines, and buy-and-hold's record; none of them is stopped by a drawdown."""
        found = run_baselines(
            part.tape.tensors(),
            rules.replace(max_drawdown=NO_STOP),
            part.blocks,
            agent=agent,
            regime=self._regime(),
            seed=self.seed,
        )
        cash = self.config.trading.initial_cash
        told = describe_baselines(found, sessions_per_year=self.year, initial_cash=cash, market=part.market)
        return told, found.hold

    def _regime(self) -> NDArray[np.int8] | None:
        """The planted regimes, for the oracle; None where nothing is planted."""
        if self.config.data.path is not None or self.config.data.synthetic.edge == 0.0:
            return None
        return embedded_market(self.config, self.prepared.splits).regime


def _records_of(outcome: Outcome) -> list[Record]:
    return [record_of(values) for values in outcome.best["records"]]


def _union(ranges: Iterable[Range]) -> list[Range]:
    """Ranges in time order, those that overlap made one."""
    merged: list[Range] = []
    for each in sorted(ranges):
        if merged and each.start < merged[-1].stop:
            merged[-1] = Range(merged[-1].start, max(merged[-1].stop, each.stop))
        else:
            merged.append(each)
    return merged
