"""Trains one agent: iterations, evaluations, checkpoints and the end, on the parts of a sweep."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import LEARNER_RESULTS

from sentio_rllib.errors import NonFiniteError, SweepError, TrainError
from sentio_rllib.evidence.ledger import Ledger
from sentio_rllib.evidence.tally import Tally, open_tally
from sentio_rllib.ppo.algorithm import SentioPPO, build_algorithm
from sentio_rllib.search.cluster import local_ray
from sentio_rllib.search.durable import write_json
from sentio_rllib.search.interruption import Interruption
from sentio_rllib.search.prepare import Prepared, prepare, probe, trial_settings
from sentio_rllib.statistics.metrics import sharpe
from sentio_rllib.sweep.folder import hold, record
from sentio_rllib.train.arguments import budget
from sentio_rllib.train.checkpoints import check_same, drop_newer, newest_checkpoint, save_checkpoint, write_model
from sentio_rllib.train.display import Progress
from sentio_rllib.train.finding import end_of, projected
from sentio_rllib.train.output import LIMITS, Output, check_free, make_folder
from sentio_rllib.train.plan import Plan
from sentio_rllib.train.result import TRIAL, Course, Judge, Result, Subject, metadata_of, told_at_end, told_reason

ENDING = "ending: this iteration is finished and what was reached is written; a second signal kills"


def train(plan: Plan, progress: Progress) -> Result:
    """Train to the end, write what was reached, and tell it.

    Parameters
    ----------
    plan
        Of a new run or one that goes on.
    progress
        Shows how it goes.

    Raises
    ------
    SentioError
        If the data, the folds, the output, the ledger or a leak do not allow it, or a limit is reached already.
    NonFiniteError
        If a loss, gradient or score is NaN or infinite; the best evaluation stays, and its metadata say why it ended.
    """
    config = plan.config
    if config.resources.gpu > 0 and not torch.cuda.is_available():
        raise TrainError(
            f"resources.gpu {config.resources.gpu:g}: PyTorch finds no GPU here; leave it out to train on the CPU"
        )
    prepared = _prepare(plan, progress)
    probe(config, prepared)
    ledger = Ledger(config.evidence.ledger)
    with ExitStack() as stack:
        interruption = stack.enter_context(Interruption(ENDING))
        stack.enter_context(local_ray())
        interruption.listen()  # ray.init() takes the termination signal for itself
        output = plan.output if plan.resume else make_folder(plan.output, named=plan.named)
        _hold(stack, output)
        if not plan.resume:
            check_free(output)  # held now, so that what another run of this name wrote meanwhile is seen
        config = config.model_copy(update={"name": output.base.name, "storage_path": str(output.base.parent)})
        settings = trial_settings(config, prepared.splits, {})
        settings = replace(settings, env_steps=budget(config, plan.episodes))
        subject = Subject(config, settings, prepared, output, plan.episodes)
        write_json(output.folder / LIMITS, {"episodes": plan.episodes})
        uid = record(output.folder, config, prepared)  # last the configuration: from there on it can be resumed
        tally = open_tally(ledger, uid, config.name, len(settings.members), prepared)
        algorithm = build_algorithm(settings, prepared.tape)
        stack.callback(algorithm.stop)
        run = Run(subject, tally, algorithm, progress)
        if plan.resume:
            run.go_on()
        progress.told(f"{_parts(prepared)}; writes {output.weights}")
        try:
            with progress:
                reason = run.train(lambda: interruption.seen)
        except NonFiniteError:
            if algorithm.best is not None:
                run.finish("nonfinite")
            raise
        result = run.finish(reason)
    for line in told_at_end(result, subject):
        progress.told(line)
    return result


def _prepare(plan: Plan, progress: Progress) -> Prepared:
    """Prepare bars and the one fold, the same as before where the run goes on, and tell what was found in them."""
    prepared = last_fold(prepare(plan.config))
    if plan.resume:
        check_same(plan.output, prepared)
    for note in prepared.notes:
        progress.told(note)
    return prepared


def last_fold(prepared: Prepared) -> Prepared:
    """Return the bars with the last fold alone, the one that validates on the end of the development."""
    fold = replace(prepared.splits.folds[-1], index=0)
    return replace(prepared, splits=replace(prepared.splits, folds=(fold,)))


def _hold(stack: ExitStack, output: Output) -> None:
    try:
        stack.enter_context(hold(output.folder))
    except SweepError as error:
        raise TrainError(f"{output.base}: another process trains it; wait for it, or end it with Ctrl-C") from error


def _parts(prepared: Prepared) -> str:
    """Say which bars do what."""
    rows = prepared.splits.describe(prepared.bars.timestamp)
    told = [f"{row['part']} {row['first']} .. {row['last']} ({row['bars']:,} bars)" for row in rows]
    return ", ".join(told) + (" stays sealed" if prepared.splits.holdout is not None else "")


class Run:
    """One agent in training.

    Parameters
    ----------
    subject
        What is trained, on which bars.
    tally
        Counts the run in the ledger, as a sweep of one trial.
    algorithm
        Trains and scores.
    progress
        Shows how it goes.
    """

    def __init__(self, subject: Subject, tally: Tally, algorithm: SentioPPO, progress: Progress) -> None:
        self.subject, self.tally, self.algorithm, self.progress = subject, tally, algorithm, progress
        self.judge = Judge(subject)
        self.course = Course()

    def go_on(self) -> None:
        """Take up the newest whole checkpoint, or begin anew where there is none yet.

        Networks and metadata are written anew from it: a kill may have left those of two evaluations.

        Raises
        ------
        TrainError
            If there is nothing left to do.
        """
        output, patience = self.subject.output, self.subject.settings.patience
        checkpoint, course, note = newest_checkpoint(output)
        if note:
            self.progress.told(note)
        drop_newer(output, checkpoint)
        if checkpoint is None:
            self.progress.told("there is no whole checkpoint; the run begins anew")
            return
        self.algorithm.load_checkpoint(str(checkpoint))
        self.course = Course(**course)
        if 0 < patience <= self.algorithm.convergence.waited:
            raise TrainError(
                f"{output.base}: the run has converged; to go on all the same pass --set search.patience={2 * patience}"
            )
        limit = self._limit()
        if limit is not None:
            reached = told_reason(limit, self.subject, self.course)
            raise TrainError(f"{output.base}: nothing is left to do: {reached}; pass a higher limit")
        self._write("running")
        self.progress.told(f"goes on at {self.algorithm.env_steps:,} steps, {self.course.episodes:,} episodes")

    def train(self, interrupted: Callable[[], bool]) -> str:
        """Train and evaluate until something ends it, and return what: one word."""
        while True:
            figures = self._iterate()
            limit = "interrupted" if interrupted() else self._limit()
            if limit == "interrupted" and self.algorithm.best is not None:
                self._save()  # without an evaluation: an end that was asked for is not kept waiting
                return limit
            due = self.algorithm.env_steps - self.course.evaluated_at >= self.subject.settings.evaluate_every
            if limit is None and not due:
                continue
            reason = self._evaluate(figures)
            if limit is not None or reason is not None:
                return limit or str(reason)

    def finish(self, reason: str) -> Result:
        """Write networks and metadata as they stand, close its tally, and return what came of it."""
        result = self._write(reason)
        state = {"interrupted": "unfinished", "nonfinite": "failed"}.get(reason, "completed")
        sharpes = (sharpe(result.series.raw, 1), sharpe(result.series.timing, 1))
        self.tally.close(self.judge.outcome(self.course, result.best, state), sharpes)
        return result

    def _iterate(self) -> dict[str, Any]:
        """Train on one rollout and show its figures."""
        algorithm, settings, started = self.algorithm, self.subject.settings, time.perf_counter()
        algorithm.training_step()
        seconds = time.perf_counter() - started
        figures = {key: float(value.sum()) for key, value in algorithm.rollout_figures.items() if value.numel() == 1}
        self.course.episodes += round(figures["episodes"])
        self.course.seconds += seconds
        shown = {
            "seconds": self.course.seconds,
            "episodes": self.course.episodes,
            "env_steps": algorithm.env_steps,
            "reward": figures["reward"],
            "trades_per_episode": figures["trades"] * settings.decisions_per_episode,
            "entropy": figures["entropy"],
            "env_steps_per_s": settings.rows_per_iteration / seconds,
            **_of_learner(algorithm, "policy_loss", "value_loss", "learning_rate"),
        }
        self.progress.iteration(shown)
        return shown

    def _evaluate(self, figures: Mapping[str, Any]) -> str | None:
        """Score, save and show; return why the run ends by itself, None where it does not."""
        algorithm, started = self.algorithm, time.perf_counter()
        scored = algorithm.assess()
        assert algorithm.scores is not None
        evaluation = algorithm.scores.evaluation
        greedy, sampled = evaluation.greedy[0], evaluation.sampled[0]
        self.course.seconds += time.perf_counter() - started
        self.course.evaluated_at = algorithm.env_steps
        shown = {**figures, "drawdown": greedy.max_drawdown, "projected": projected(greedy.session_returns)}
        kept = {key: scored[key] for key in ("cv_score", "rung_score", "validation_trades")}
        self.course.curve.append(shown | kept | {"sampled_trades": sampled.trades})
        self.tally.count(TRIAL, self.judge.params, self.course.curve)
        self._save()
        self._write("running")
        self.progress.evaluation(shown)
        late = algorithm.env_steps >= self.subject.settings.grace_steps
        return end_of(self.course.curve[-1], scored["stop_reason"], late=late)

    def _limit(self) -> str | None:
        """Return the limit that is reached."""
        minutes, episodes = self.subject.config.search.minutes, self.subject.episodes
        if episodes is not None and self.course.episodes >= episodes:
            return "episodes"
        if minutes is not None and self.course.seconds >= 60.0 * minutes:
            return "minutes"
        return "budget" if self.algorithm.env_steps >= self.subject.settings.env_steps else None

    def _save(self) -> None:
        algorithm = self.algorithm
        save_checkpoint(self.subject.output, algorithm.env_steps, asdict(self.course), algorithm.save_checkpoint)

    def _write(self, reason: str) -> Result:
        assert self.algorithm.best is not None
        result = self.judge.result(reason, self.course, self.algorithm.best)
        metadata = metadata_of(result, self.subject, self.course)
        write_model(self.subject.output, self.algorithm.best_weights, metadata)
        return result


def _of_learner(algorithm: SentioPPO, *names: str) -> dict[str, float]:
    """Return what the learner logged in the last update, and empty the log, which else would be of all updates."""
    logged = algorithm.metrics.reduce(compile=True)[LEARNER_RESULTS][DEFAULT_MODULE_ID]
    return {name: float(logged[name]) for name in names}
