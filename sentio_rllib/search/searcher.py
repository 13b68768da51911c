"""A Tune searcher over an Optuna study that is told the truth.

Ray's own OptunaSearch tells a trial that a scheduler stopped as complete, with its truncated score, which
then trains the sampler. Here a trial ends as what it was:

==============================================  =========
how it ended                                    told as
==============================================  =========
`stop_reason` budget or converged               COMPLETE, with its score
stopped by a scheduler, the clock or by hand    PRUNED, with its rungs
non-finite, error, without any result           FAIL
==============================================  =========

The study in the database is the only state: a suggestion is a function of the seed, of how many were made
before and of what the study holds, so a sweep that is resumed goes on as one that was never broken.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from ray.tune.search.searcher import Searcher

from sentio_rllib.config.space import Space, decode_params, encode_params, grid, grid_size
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import SweepError
from sentio_rllib.search.distributions import distribution
from sentio_rllib.seeding import stream_seed

SamplerName = Literal["tpe", "gp", "random", "cmaes", "grid"]

COMPLETED_BY = ("budget", "converged")
STARTUP_TRIALS = 5
"""Trials that are drawn at random before a model proposes; sweeps here are small."""

_TUNE_ID, REASON, _ORPHAN, LABEL = "tune_id", "reason", "orphan", "label"
_BUSY_SECONDS = 60


class HonestSearcher(Searcher):  # type: ignore[misc]  # Ray ships no types
    """Suggest parameters from a study, and tell the study how each trial ended.

    Parameters
    ----------
    space
        Dotted keys and what they range over; a suggestion is ``{"params": {key: value}, "label": ...,
        "continue_from": ...}``: a trial that was cut off keeps its label and goes on from its checkpoint.
    defaults
        The parameters of trial 0.
    storage
        URL of the study's database, as ``sqlite:////folder/study.db``.
    study_name
        Name of the study; made where it does not exist, continued where it does.
    sampler
        Who proposes.
    trials
        Suggestions in all, those of an earlier run of the study included.
    seed
        Of the sampler.
    checkpoint_of
        From a label to the folder of its last checkpoint, None where there is none.
    score, rung_score, time
        Keys of a result: what complete trials are told with, what rungs hold, and the rungs' step.
    """

    def __init__(
        self,
        space: Space,
        defaults: Mapping[str, Any],
        *,
        storage: str,
        study_name: str,
        sampler: SamplerName = "tpe",
        trials: int = 16,
        seed: int = 0,
        checkpoint_of: Callable[[str], str | None] = lambda _: None,
        score: str = "best_cv_score",
        rung_score: str = "rung_score",
        time: str = "env_steps",
    ) -> None:
        super().__init__(metric=score, mode="max")
        self.space, self.defaults = dict(space), dict(defaults)
        self.storage, self.study_name = storage, study_name
        self.sampler: SamplerName = sampler
        self.trials, self.seed = trials, seed
        self.checkpoint_of = checkpoint_of
        self.rung_score, self.time = rung_score, time
        self._study: optuna.Study | None = None

    @property
    def study(self) -> optuna.Study:
        """The study, opened at first use in each process."""
        if self._study is None:
            self._study = open_study(self.storage, self.study_name)
        return self._study

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the parameters of a new Tune trial, or FINISHED once all were made."""
        ordinal, continued = self._next()
        if not continued and (ordinal >= self.trials or not self._enqueue(ordinal)):
            return str(Searcher.FINISHED)
        self.study.sampler = build_sampler(self.sampler, stream_seed("sampler", self.seed, ordinal))
        distributions = {key: distribution(parameter) for key, parameter in self.space.items()}
        trial = self.study.ask(fixed_distributions=distributions)
        trial.set_user_attr(_TUNE_ID, trial_id)
        label = trial_label(ordinal)
        trial.set_user_attr(LABEL, label)
        return {
            "params": decode_params(self.space, trial.params),
            "label": label,
            "continue_from": self.checkpoint_of(label) if continued else None,
        }

    def _next(self) -> tuple[int, bool]:
        """Return the place in the sweep of the next suggestion, and whether a trial there was cut off."""
        trials = self._all_trials()
        for trial in trials:
            if trial.state is TrialState.WAITING and LABEL in trial.user_attrs:
                return int(trial.user_attrs[LABEL].rpartition("_")[2]), True
        labels = {trial.user_attrs[LABEL] for trial in trials if LABEL in trial.user_attrs}
        return len(labels), False

    def _enqueue(self, ordinal: int) -> bool:
        """Queue what comes next where that is fixed; False once a grid is used up."""
        if self.sampler == "grid":
            point = next(islice(grid(self.space, self.defaults), ordinal, None), None)
        else:
            point = self.defaults if ordinal == 0 else {}
        if point is None:
            return False
        if ordinal == 0 or self.sampler == "grid":
            named = {LABEL: trial_label(ordinal)}  # a driver killed before the draw finds it by this
            self.study.enqueue_trial(encode_params(self.space, point), user_attrs=named)
        return True

    def remaining(self) -> int:
        """Return how many suggestions are left: new trials, and queued ones that were cut off."""
        trials = self._all_trials()
        cut_off = sum(trial.state is TrialState.WAITING and LABEL in trial.user_attrs for trial in trials)
        labels = {trial.user_attrs[LABEL] for trial in trials if LABEL in trial.user_attrs}
        asked = min(self.trials, grid_size(self.space)) if self.sampler == "grid" else self.trials
        return cut_off + max(0, asked - len(labels))

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Note a rung of a trial that goes on."""
        trial = self._find(trial_id)
        if trial is not None and trial.state is TrialState.RUNNING:
            self._report(trial, result)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell how a trial ended; a second telling of the same trial changes nothing."""
        frozen = self._find(trial_id)
        if frozen is None or frozen.state is not TrialState.RUNNING:
            return
        state, score, reason = outcome(result, error=error, score=self.metric)
        if result is not None and state is not TrialState.FAIL:
            self._report(frozen, result)
        self._open(frozen).set_user_attr(REASON, reason)
        self.study.tell(frozen.number, score, state=state)

    def reconcile(self, reason: str = "driver ended") -> list[int]:
        """Fail the trials that a driver left running, and queue their parameters again under their labels.

        Parameters
        ----------
        reason
            Why they were cut off: a killed driver, the time budget, the user.

        Returns
        -------
        list of int
            Numbers of the orphans. They do not count towards `trials`.
        """
        orphans = [trial for trial in self._all_trials() if trial.state is TrialState.RUNNING]
        for frozen in orphans:
            trial = self._open(frozen)
            trial.set_user_attr(_ORPHAN, True)
            trial.set_user_attr(REASON, reason)
            params = frozen.system_attrs.get("fixed_params", {}) | frozen.params
            if params.keys() == self.space.keys() and LABEL in frozen.user_attrs:
                self.study.enqueue_trial(params, user_attrs={LABEL: frozen.user_attrs[LABEL]})
            self.study.tell(frozen.number, state=TrialState.FAIL)
        return [frozen.number for frozen in orphans]

    def save(self, checkpoint_path: str) -> None:
        """Write which study this is; its trials are in the database already."""
        Path(checkpoint_path).write_text(json.dumps(self._identity()), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Check that the checkpoint is of this study.

        Raises
        ------
        SweepError
            If it is of another one.
        """
        saved = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        if saved != self._identity():
            raise SweepError(
                f"{checkpoint_path}: is of study {saved['study_name']} in {saved['storage']}, not of "
                f"{self.study_name} in {self.storage}; resume under the name it was started with"
            )

    def _identity(self) -> dict[str, str]:
        return {"storage": self.storage, "study_name": self.study_name}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_study": None}

    def _all_trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _find(self, trial_id: str) -> FrozenTrial | None:
        matches = (trial for trial in self._all_trials() if trial.user_attrs.get(_TUNE_ID) == trial_id)
        return next((trial for trial in matches if not trial.user_attrs.get(_ORPHAN)), None)

    def _open(self, frozen: FrozenTrial) -> Trial:
        return Trial(self.study, frozen._trial_id)

    def _report(self, frozen: FrozenTrial, result: Mapping[str, Any]) -> None:
        """Note a rung, unless it is not finite or, after a restore, known already."""
        value, step = result.get(self.rung_score), result.get(self.time)
        if value is None or step is None or not math.isfinite(value) or step in frozen.intermediate_values:
            return
        self._open(frozen).report(float(value), int(step))


def outcome(
    result: Mapping[str, Any] | None, *, error: bool = False, score: str = "best_cv_score"
) -> tuple[TrialState, float | None, str]:
    """Return what a trial's last result says about its end: state, score if complete, and the reason."""
    reason = None if result is None else result.get("stop_reason")
    if error or result is None or (reason is None and score not in result):  # Tune may hand over a bare result
        return TrialState.FAIL, None, "error" if error else "no result"
    if reason is None:
        return TrialState.PRUNED, None, "stopped early"
    if reason not in COMPLETED_BY:
        return TrialState.FAIL, None, str(reason)
    value = result.get(score)
    if value is None or not math.isfinite(value):
        return TrialState.FAIL, None, "nonfinite"
    return TrialState.COMPLETE, float(value), str(reason)


def trial_label(ordinal: int) -> str:
    """Return the name of the trial at a place in the sweep, and of its folder."""
    return f"trial_{ordinal:04d}"


def counted_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count towards the number asked for: all but queued ones and orphans."""
    trials: Iterator[FrozenTrial] = iter(study.get_trials(deepcopy=False))
    return [trial for trial in trials if trial.state is not TrialState.WAITING and not trial.user_attrs.get(_ORPHAN)]


def open_study(storage: str, study_name: str) -> optuna.Study:
    """Open a study that maximises, or make it.

    A relational database: a journal file breaks on one torn line.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    connect = {"timeout": _BUSY_SECONDS} if storage.startswith("sqlite") else {}
    database = RDBStorage(storage, engine_kwargs={"connect_args": connect})
    return optuna.create_study(storage=database, study_name=study_name, direction="maximize", load_if_exists=True)


def build_sampler(name: SamplerName, seed: int) -> BaseSampler:
    """Return a sampler for one suggestion; a grid is queued, so that its sampler draws nothing."""
    seed %= 2**32
    if name == "tpe":
        return TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # its interface may move; versions are pinned
        if name == "gp":
            return GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False)
        if name == "cmaes":
            return CmaEsSampler(seed=seed, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False)
    return RandomSampler(seed=seed)


def build_searcher(
    config: SweepConfig, storage: str, checkpoint_of: Callable[[str], str | None] = lambda _: None
) -> HonestSearcher:
    """Return the searcher of a sweep; its study bears the sweep's name."""
    search = config.search
    return HonestSearcher(
        config.parameters(),
        config.default_params(),
        storage=storage,
        study_name=config.name,
        sampler=search.sampler,
        trials=search.trials,
        seed=config.seed,
        checkpoint_of=checkpoint_of,
    )
