"""What came of a single run: why it ended, what its best evaluation is, and all that is written and told of it."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from sentio_rllib import __version__
from sentio_rllib.config.keys import is_tunable, leaves
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.evidence.bars_used import bars_used
from sentio_rllib.evidence.examiner import Examiner
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.search.prepare import Prepared
from sentio_rllib.search.selection import Outcome, record_of
from sentio_rllib.sweep.folder import FINGERPRINT
from sentio_rllib.train.finding import UNDEFLATED, Finding, examine_run, projected
from sentio_rllib.train.output import Output
from sentio_rllib.validation.performance import describe
from sentio_rllib.validation.series import Series

TRIAL = "run"
"""The name of the one trial in the ledger."""

ENDED_BY_ITSELF = ("converged", "collapsed")

_SWEEPS = {"standard": "standard", "maskable": "maskable", "enhanced-maskable": "enhanced"}
_PACKAGES = ("torch", "ray", "numpy", "gymnasium")


@dataclass(frozen=True)
class Subject:
    """What is trained, on which bars, and where it writes.

    Attributes
    ----------
    config, settings
        Of the run; its limit in minutes is `search.minutes`.
    prepared
        With the one fold.
    output
        Where it writes.
    episodes
        Limit in episodes, None for none.
    """

    config: SweepConfig
    settings: TrialSettings
    prepared: Prepared
    output: Output
    episodes: int | None


@dataclass
class Course:
    """How far a run has come, over all its starts.

    Attributes
    ----------
    episodes
        Training episodes that have ended.
    seconds
        Of training and evaluating.
    evaluated_at
        Env steps at the last evaluation.
    curve
        Flat figures of all evaluations.
    """

    episodes: int = 0
    seconds: float = 0.0
    evaluated_at: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)

    @property
    def evaluations(self) -> int:
        """Evaluations that traded, so that one of them could be chosen."""
        return sum(each["validation_trades"] > 0 for each in self.curve)


@dataclass(frozen=True)
class Result:
    """How a run stands or has ended.

    Attributes
    ----------
    reason, told
        Why it ended, in one word and in a sentence.
    series
        Session returns of the best evaluation on validation.
    finding
        What they show.
    metrics
        Of :func:`~sentio_rllib.validation.performance.describe`.
    best
        Metadata of the best evaluation.
    """

    reason: str
    told: str
    series: Series
    finding: Finding
    metrics: dict[str, Any]
    best: dict[str, Any]


class Judge:
    """Makes results of a run's best evaluation.

    Parameters
    ----------
    subject
        What is trained.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        # every key that a search could vary, so that the ledger knows an equal configuration
        self.params = {key: subject.config.value(key) for key, info in leaves(SweepConfig) if is_tunable(info)}
        self._examiner = Examiner(subject.config, subject.prepared)

    def outcome(self, course: Course, best: dict[str, Any], state: str = "completed") -> Outcome:
        """Return the run as a trial of a sweep."""
        return Outcome(0, TRIAL, state, "", self.params, list(course.curve), best)

    def result(self, reason: str, course: Course, best: dict[str, Any]) -> Result:
        """Return how the run stands, or has ended for `reason`."""
        config = self.subject.config
        series = self._examiner.series(self.outcome(course, best))
        year = self.subject.prepared.tape.sessions_per_year
        records = [record_of(values) for values in best["records"]]
        cash = config.trading.initial_cash
        shared = {"sessions_per_year": year, "count": 1}
        metrics = describe(series.raw, series.timing, records, initial_cash=cash, excess=series.excess, **shared)
        return Result(
            reason=reason,
            told=told_reason(reason, self.subject, course),
            series=series,
            finding=examine_run(
                series,
                float(best["validation_trades"]),
                float(metrics["trips"]),
                course.evaluations,
                sessions_per_year=year,
                needed=config.evidence.confidence,
            ),
            metrics=metrics,
            best=best,
        )


def told_reason(reason: str, subject: Subject, course: Course) -> str:
    """Say why a run ended."""
    search, settings, last = subject.config.search, subject.settings, course.curve[-1]
    told = {
        "running": "not ended yet",
        "nonfinite": (
            "a loss, gradient or score was not finite; the networks are those of the best evaluation before; a smaller "
            "--learning-rate may help"
        ),
        "interrupted": "interrupted; goes on with --resume",
        "converged": (
            f"converged: neither cv_score nor sampled_score has risen by {search.min_delta:g} in {search.patience} "
            f"evaluations after {search.grace_steps:,} env steps"
        ),
        "collapsed": (
            "collapsed to no trading: at the last evaluation the policy makes no trade (entropy "
            f"{last['entropy']:.4f}); a larger ppo.entropy_weight or another --learning-rate may keep it trying"
        ),
        "episodes": (
            f"{course.episodes:,} episodes have ended, the limit is {subject.episodes or 0:,}; rollouts of "
            f"{settings.rows_per_iteration:,} decisions are trained whole"
        ),
        "minutes": f"{course.seconds / 60:,.1f} minutes are over, the limit is {search.minutes or 0:g}",
        "budget": f"{last['env_steps']:,} env steps are made, the budget is {settings.env_steps:,}",
    }
    if reason == "collapsed" or last["validation_trades"] > 0 or last["sampled_trades"] > 0:
        return told[reason]
    return f"{told[reason]}; at the last evaluation, {last['env_steps']:,} env steps, the policy makes no trade at all"


def metadata_of(result: Result, subject: Subject, course: Course) -> dict[str, Any]:
    """Return what is written beside the networks, plain values that JSON takes."""
    config, settings, best = subject.config, subject.settings, result.best
    bars, splits = subject.prepared.bars, subject.prepared.splits
    return {
        "name": subject.output.base.name,
        "sentio_version": __version__,
        "variant": config.variant,
        "seed": config.seed,
        "config": config.model_dump(mode="json", by_alias=True),
        "config_hash": config.fingerprint(),
        "policy": asdict(settings.policy),
        "rules": asdict(settings.rules),
        "members": best["members"],
        "features": subject.prepared.tape.feature_set.description(),
        "data": {
            "symbol": bars.symbol,
            "path": config.data.path,
            "embedded": config.data.path is None,
            "fingerprint": bars.fingerprint,
            "calendar": bars.sessions.calendar,
            "session_minutes": int(bars.sessions.length.max()),
            "bars": bars.n,
            "first": bars.first,
            "last": bars.last,
        },
        "bars_used": bars_used(bars, splits, splits.folds),
        "sweep_id": json.loads((subject.output.folder / FINGERPRINT).read_text())["sweep"],
        "ledger": str(Path(config.evidence.ledger).absolute()),
        "splits": splits.describe(bars.timestamp),
        "ended": {"reason": result.reason, "told": result.told},
        "training": {key: value for key, value in asdict(course).items() if key != "curve"},
        "best": {
            "env_steps": best["env_steps"],
            "rung_score": best["rung_score"],
            "projected": projected(result.series.raw),
        },
        "validation": result.metrics,
        "finding": result.finding.summary(),
        "curve": course.curve,
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
    }


def told_at_end(result: Result, subject: Subject) -> list[str]:
    """Return the lines at the end of a run: no Sharpe ratio without what it is worth."""
    finding, metrics, config, output = result.finding, result.metrics, subject.config, subject.output
    shows = finding.why()
    if result.reason not in ENDED_BY_ITSELF:
        shows = f"{shows}, so far: the run has not converged"
    elif not finding.shown:
        shows = f"nothing to learn here: {shows}"
    trips = f"{metrics['trips']:.0f} closed"
    wins = trips if metrics["win_rate"] is None else f"{trips}, {metrics['win_rate']:.0%} with a gain"
    data = "" if config.data.path is None else f" --set data.path={config.data.path}"
    best = (
        f"best evaluation, at {result.best['env_steps']:,} env steps: {projected(result.series.raw)}; "
        f"{metrics['trades_per_day']:.2f} trades a day ({wins}), drawdown {metrics['max_drawdown']:.1%}, Sharpe "
        f"{finding.sharpe:.2f} net and {finding.timing_sharpe:.2f} as timing"
    )
    return [
        f"ended: {result.told}",
        shows,
        best,
        f"all {UNDEFLATED}: python -m sentio_rllib.sweep configs/{_SWEEPS[config.variant]}.yaml{data}",
        f"wrote {output.weights} and {output.metadata}; --resume goes on from {output.folder}",
    ]
