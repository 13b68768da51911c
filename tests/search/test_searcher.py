"""The searcher: what Optuna is told about every end of a trial, and that a resumed study goes on unbroken."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray import cloudpickle, tune
from ray.tune.search import ConcurrencyLimiter

from sentio_rllib.config.loading import build_config, resolve
from sentio_rllib.config.space import grid
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import SweepError
from sentio_rllib.search.searcher import HonestSearcher, build_searcher, counted_trials, outcome, trial_label
from sentio_rllib.search.stopping import build_scheduler

CONTINUOUS = {
    "ppo.learning_rate": {"loguniform": [1e-5, 1e-2]},
    "ppo.clip": {"uniform": [0.1, 0.3]},
    "ppo.epochs": {"int": [1, 8]},
}
MIXED = CONTINUOUS | {"policy.hidden": {"choice": [[256, 256, 128], [64, 64]]}}
GRID = {
    "ppo.gamma": {"choice": [0.95, 0.98, 0.99]},
    "policy.hidden": {"choice": [[64, 64], [256, 256, 128]]},
}
SAMPLERS = ("tpe", "gp", "random", "cmaes", "grid")

Build = Callable[..., HonestSearcher]


def configured(sampler: str = "tpe", trials: int = 7, seed: int = 3) -> SweepConfig:
    space = GRID if sampler == "grid" else MIXED
    return build_config({"seed": seed, "search": {"space": space, "sampler": sampler, "trials": trials}})


def sqlite(folder: Path, name: str = "study.db") -> str:
    return f"sqlite:///{folder / name}"


def close(searcher: HonestSearcher) -> None:
    searcher.study._storage._backend.engine.dispose()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def empty_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with an empty study: making its tables takes longer than a test."""
    folder = tmp_path_factory.mktemp("empty")
    close(build_searcher(configured(), sqlite(folder)))
    return folder / "study.db"


@pytest.fixture
def build(tmp_path: Path, empty_study: Path) -> Iterator[Build]:
    """Build searchers over databases in a temporary folder, and close those afterwards."""
    opened: list[HonestSearcher] = []

    def make(config: SweepConfig | None = None, name: str = "study.db", **options: Any) -> HonestSearcher:
        if not (tmp_path / name).exists():
            shutil.copy(empty_study, tmp_path / name)
        opened.append(build_searcher(config or configured(), sqlite(tmp_path, name), **options))
        return opened[-1]

    yield make
    for searcher in opened:
        close(searcher)


def score_of(params: dict[str, Any]) -> float:
    rate = params.get("ppo.learning_rate", 1e-3)
    return -abs(math.log10(rate) + 3) + params.get("ppo.gamma", 0.98)


def result(step: int, score: float, reason: str | None = None) -> dict[str, Any]:
    return {"env_steps": step, "rung_score": score - 0.5, "best_cv_score": score, "stop_reason": reason}


def run_trial(searcher: HonestSearcher, trial_id: str, reason: str | None = "budget") -> dict[str, Any] | None:
    """Suggest, report two rungs, and end as `reason` says; None once the searcher has finished."""
    suggestion = searcher.suggest(trial_id)
    if suggestion == searcher.FINISHED:
        return None
    assert isinstance(suggestion, dict)
    params: dict[str, Any] = suggestion["params"]
    score = score_of(params)
    searcher.on_trial_result(trial_id, result(100, score - 1))
    searcher.on_trial_complete(trial_id, result(200, score, reason))
    return params


def run_all(searcher: HonestSearcher, first: int = 0) -> list[dict[str, Any]]:
    seen = []
    while (params := run_trial(searcher, f"t{first + len(seen)}")) is not None:
        seen.append(params)
    return seen


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestEverySampler:
    def test_begins_with_the_default_and_ends_after_the_trials_asked_for(self, build: Build, sampler: str) -> None:
        config = configured(sampler)
        searcher = build(config)
        seen = run_all(searcher)
        assert seen[0] == config.default_params()
        assert len(seen) == (6 if sampler == "grid" else 7)
        assert searcher.suggest("late") == searcher.FINISHED
        states = [trial.state for trial in searcher.study.trials]
        assert states == [TrialState.COMPLETE] * len(seen)
        for params in seen:
            assert resolve(resolve(config, params), {}) is not None

    def test_the_same_seed_suggests_the_same_and_another_seed_does_not(self, build: Build, sampler: str) -> None:
        first, again = (run_all(build(configured(sampler), name)) for name in ("a.db", "b.db"))
        assert first == again
        other = run_all(build(configured(sampler, seed=4), "c.db"))
        assert (other == first) == (sampler == "grid")

    def test_a_new_process_goes_on_where_the_first_left(self, build: Build, sampler: str) -> None:
        unbroken = run_all(build(configured(sampler), "unbroken.db"))
        before = build(configured(sampler), "broken.db")
        seen = [run_trial(before, f"t{index}") for index in range(3)]
        after = build(configured(sampler), "broken.db")
        assert seen + run_all(after, first=3) == unbroken

    def test_an_orphan_is_tried_again_and_the_rest_is_unchanged(self, build: Build, sampler: str) -> None:
        unbroken = run_all(build(configured(sampler), "unbroken.db"))
        killed = build(configured(sampler), "killed.db")
        run_trial(killed, "t0")
        orphan = killed.suggest("t1")
        after = build(configured(sampler), "killed.db")
        assert after.reconcile() == [1]
        assert after.study.trials[1].state is TrialState.FAIL
        seen = run_all(after, first=2)
        assert isinstance(orphan, dict)
        assert seen[0] == orphan["params"]
        labels = [trial.user_attrs["label"] for trial in counted_trials(after.study)]
        assert sorted(labels) == [trial_label(ordinal) for ordinal in range(len(unbroken))]
        assert len(seen) == len(unbroken) - 1
        if sampler != "cmaes":  # it also seeds by Optuna's own number of a trial
            assert seen == unbroken[1:]

    def test_pruned_and_failed_trials_are_survived(self, build: Build, sampler: str) -> None:
        searcher = build(configured(sampler))
        for index in range(6):
            run_trial(searcher, f"t{index}", ("budget", None, "nonfinite")[index % 3])
        counts = {state: len(searcher.study.get_trials(states=[state])) for state in TrialState}
        assert counts[TrialState.COMPLETE] == counts[TrialState.PRUNED] == counts[TrialState.FAIL] == 2


@pytest.mark.parametrize("reason", ["budget", "converged"])
def test_a_trial_that_ends_itself_is_complete_with_its_score(build: Build, reason: str) -> None:
    searcher = build()
    searcher.suggest("a")
    searcher.on_trial_result("a", result(100, 0.7))
    searcher.on_trial_complete("a", result(200, 1.25, reason))
    [trial] = searcher.study.trials
    assert trial.state is TrialState.COMPLETE
    assert trial.value == 1.25
    assert trial.intermediate_values == {100: pytest.approx(0.2), 200: 0.75}
    assert trial.user_attrs == {"tune_id": "a", "reason": reason, "label": "trial_0000"}


def test_a_trial_that_was_stopped_is_pruned_at_its_last_rung(build: Build) -> None:
    """Tune does not report the result at which a scheduler stops; it comes with the end."""
    searcher = build()
    searcher.suggest("a")
    searcher.on_trial_result("a", result(100, 0.7))
    searcher.on_trial_complete("a", result(200, 9.0))
    [trial] = searcher.study.trials
    assert trial.state is TrialState.PRUNED
    assert trial.last_step == 200
    assert trial.value == 8.5
    assert searcher.study.get_trials(states=[TrialState.COMPLETE]) == []


@pytest.mark.parametrize(
    ("last", "error", "reason"),
    [
        (result(200, -1e6, "nonfinite"), False, "nonfinite"),
        (result(200, math.nan, "budget"), False, "nonfinite"),
        (result(200, math.inf, "converged"), False, "nonfinite"),
        ({"env_steps": 200, "stop_reason": "budget"}, False, "nonfinite"),
        (result(200, 3.0, "elsewhere"), False, "elsewhere"),
        (result(200, 3.0, "budget"), True, "error"),
        (None, True, "error"),
        (None, False, "no result"),
        ({"trial_id": "a", "pid": 1}, False, "no result"),
    ],
)
def test_a_trial_that_failed_is_told_without_a_value(
    build: Build, last: dict[str, Any] | None, error: bool, reason: str
) -> None:
    searcher = build()
    searcher.suggest("a")
    searcher.on_trial_complete("a", last, error=error)
    [trial] = searcher.study.trials
    assert trial.state is TrialState.FAIL
    assert trial.value is None
    assert trial.intermediate_values == {}
    assert trial.user_attrs["reason"] == reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_rung_that_is_not_finite_is_not_told(build: Build, value: float) -> None:
    searcher = build()
    searcher.suggest("a")
    searcher.on_trial_result("a", result(100, value))
    searcher.on_trial_complete("a", result(200, 1.0))
    assert searcher.study.trials[0].intermediate_values == {200: 0.5}


def test_a_second_end_and_repeated_rungs_change_nothing(build: Build) -> None:
    """A trial that Tune restores from a checkpoint reports some results twice."""
    searcher = build()
    searcher.suggest("a")
    for _ in range(2):
        searcher.on_trial_result("a", result(100, 0.7))
    for score in (1.0, 5.0):
        searcher.on_trial_complete("a", result(200, score, "budget"))
        searcher.on_trial_result("a", result(300, score))
    [trial] = searcher.study.trials
    assert trial.value == 1.0
    assert set(trial.intermediate_values) == {100, 200}


def test_results_of_an_unknown_trial_are_ignored(build: Build) -> None:
    searcher = build()
    searcher.on_trial_result("stranger", result(100, 1.0))
    searcher.on_trial_complete("stranger", result(100, 1.0, "budget"))
    assert searcher.study.trials == []


def test_the_best_trial_is_never_a_stopped_or_failed_one(build: Build) -> None:
    searcher = build()
    for trial_id, score, reason in (("a", 1.0, "budget"), ("b", 50.0, None), ("c", math.inf, "budget")):
        searcher.suggest(trial_id)
        searcher.on_trial_complete(trial_id, result(100, score, reason))
    assert searcher.study.best_trial.user_attrs["tune_id"] == "a"


def test_orphans_go_on_from_their_checkpoints_under_their_labels(build: Build) -> None:
    before = build()
    run_trial(before, "t0")
    lost = [before.suggest("t1"), before.suggest("t2")]
    before.on_trial_result("t2", result(100, 0.5))
    checkpoints = {"trial_0002": "folder/of/trial_0002"}
    after = build(checkpoint_of=checkpoints.get)
    assert after.reconcile("time budget") == [1, 2]
    assert after.reconcile() == []
    assert [trial.user_attrs["reason"] for trial in after.study.trials[1:3]] == ["time budget"] * 2
    assert len(counted_trials(after.study)) == 1
    for suggestion, earlier, label in zip(
        (after.suggest("t3"), after.suggest("t4")), lost, ("trial_0001", "trial_0002"), strict=True
    ):
        assert isinstance(suggestion, dict)
        assert isinstance(earlier, dict)
        assert suggestion == earlier | {"label": label, "continue_from": checkpoints.get(label)}
    fresh = after.suggest("t5")
    assert isinstance(fresh, dict)
    assert (fresh["label"], fresh["continue_from"]) == ("trial_0003", None)


def test_orphans_are_continued_even_where_fewer_trials_are_asked_for(build: Build) -> None:
    before = build()
    run_trial(before, "t0")
    before.suggest("t1")
    after = build(configured(trials=1))
    after.reconcile()
    assert len(run_all(after, first=2)) == 1


@pytest.mark.parametrize("drawn", [False, True])
def test_a_driver_killed_around_a_draw_loses_no_point_of_a_grid(build: Build, drawn: bool) -> None:
    config = configured("grid")
    searcher = build(config)
    run_trial(searcher, "t0")
    assert searcher._enqueue(1)
    if drawn:
        searcher.study.ask()  # running, but without parameters and without the id of a Tune trial
    after = build(config)
    assert after.reconcile() == ([1] if drawn else [])
    points = list(grid(config.parameters(), config.default_params()))
    assert run_all(after, first=1) == points[1:]


def test_a_finished_study_can_be_extended(build: Build) -> None:
    short = run_all(build(configured(trials=4)))
    longer = run_all(build(configured(trials=7)), first=4)
    whole = run_all(build(configured(trials=7), "whole.db"))
    assert short + longer == whole


def test_a_checkpoint_names_its_study(build: Build, tmp_path: Path) -> None:
    searcher, other = build(), build(name="other.db")
    searcher.suggest("a")
    searcher.save_to_dir(str(tmp_path), "session")
    again = build()
    again.restore_from_dir(str(tmp_path))
    again.on_trial_complete("a", result(100, 1.0, "budget"))
    assert again.study.trials[0].value == 1.0
    with pytest.raises(SweepError, match="not of"):
        other.restore_from_dir(str(tmp_path))


def test_a_searcher_travels_without_its_connection(build: Build) -> None:
    searcher = build()
    searcher.suggest("a")
    copy = cloudpickle.loads(cloudpickle.dumps(searcher))
    assert copy._study is None
    copy.on_trial_complete("a", result(100, 1.0, "budget"))
    assert searcher.study.trials[0].value == 1.0
    close(copy)


def test_a_limit_on_concurrency_wraps_it(build: Build) -> None:
    limited = ConcurrencyLimiter(build(), max_concurrent=1)
    assert limited.suggest("a") is not None
    assert limited.suggest("b") is None
    limited.on_trial_complete("a", result(100, 1.0, "budget"))
    assert limited.suggest("b") is not None


def test_a_space_without_keys_repeats_the_default(build: Build) -> None:
    searcher = build(build_config({"search": {"trials": 2}}))
    assert run_all(searcher) == [{}, {}]


def test_a_good_sampler_learns_from_what_it_is_told(build: Build) -> None:
    """TPE comes to draw learning rates nearer to the best one than chance does."""

    def distances(sampler: str) -> float:
        space = {"ppo.learning_rate": CONTINUOUS["ppo.learning_rate"]}
        config = build_config({"search": {"space": space, "sampler": sampler, "trials": 24}})
        seen = run_all(build(config, f"{sampler}.db"))[12:]
        return sum(abs(math.log10(params["ppo.learning_rate"]) + 3) for params in seen) / len(seen)

    assert distances("tpe") < 0.7 * distances("random")


def test_outcome_reads_a_flat_result() -> None:
    assert outcome({"stop_reason": "budget", "best_cv_score": 1}) == (TrialState.COMPLETE, 1.0, "budget")
    assert outcome({"best_cv_score": 1})[0] is TrialState.PRUNED


def test_the_study_maximises(build: Build) -> None:
    assert build().study.direction is optuna.study.StudyDirection.MAXIMIZE


class Climb(tune.Trainable):  # type: ignore[misc]  # Ray ships no types
    """Reports like a trial: a score that depends on one parameter, and its reason at the end."""

    def setup(self, config: dict[str, Any]) -> None:
        self.level = config["params"]["ppo.gamma"]

    def step(self) -> dict[str, Any]:
        steps = self.iteration + 1
        reason = "budget" if steps == 9 else "nonfinite" if self.level == 0.5 and steps == 2 else None
        return {
            "env_steps": steps,
            "rung_score": self.level,
            "best_cv_score": self.level,
            "stop_reason": reason,
            "done": reason is not None,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        pass


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_states_are_honest_after_tune_and_asha(build: Build, tmp_path: Path) -> None:
    values = [0.99, 0.9, 0.5, 0.995, 0.8]
    config = build_config(
        {
            "search": {
                "space": {"ppo.gamma": {"choice": values}},
                "sampler": "grid",
                "env_steps": 9,
                "evaluate_every": 1,
                "grace_steps": 3,
            }
        }
    )
    searcher = build(config)
    tune.Tuner(
        Climb,
        param_space={"params": {}},
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=build_scheduler(config),
            num_samples=-1,
            max_concurrent_trials=1,
            reuse_actors=False,
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    told = {trial.params["ppo.gamma"]: trial for trial in searcher.study.trials}
    assert {value: trial.state for value, trial in told.items()} == {
        0.99: TrialState.COMPLETE,
        0.9: TrialState.PRUNED,
        0.5: TrialState.FAIL,
        0.995: TrialState.COMPLETE,
        0.8: TrialState.PRUNED,
    }
    assert [told[value].last_step for value in values] == [9, 3, 1, 9, 3]
    assert searcher.study.best_value == 0.995
