"""Comparing arms: what is refused, equal compute, every pair by hand, the verdict, and one sweep from end to end."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentio_rllib.compare.__main__ import main
from sentio_rllib.compare.budgets import COMPARISON, budgets_of_equal_time, check_comparable
from sentio_rllib.compare.comparison import Last, comparison, corrected_level, last_evaluation, overall, pairwise
from sentio_rllib.compare.comparison_tables import print_comparison
from sentio_rllib.config.arms import BUDGET
from sentio_rllib.config.contradictions import cautions
from sentio_rllib.config.loading import build_config, load_config
from sentio_rllib.config.space import ARM
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import ConfigError
from sentio_rllib.evidence.pairing import paired_difference
from sentio_rllib.search.pace import Pace
from sentio_rllib.search.prepare import prepare
from sentio_rllib.search.selection import Outcome
from sentio_rllib.search.trials import read_outcomes
from sentio_rllib.sweep.folder import CONFIG
from tests.tiny_sweep import EVALUATE_EVERY, tiny_values, write_config

SEEDS = (7, 9)
SHIPPED = Path(__file__).parents[2] / "configs" / "variants.yaml"
ARMS: dict[str, Any] = {"standard": {"variant": "standard"}, "maskable": {}}
EQUAL: dict[str, Any] = {"sampler": "grid", "scheduler": "none", "patience": 0}

Cells = dict[tuple[int, int], float]


def cells(values: list[float]) -> Cells:
    """Scores by (fold, seed): the seeds of fold 0, then those of fold 1, ..."""
    return {(index // 2, SEEDS[index % 2]): value for index, value in enumerate(values)}


def noisy(mean: float, key: int, deviation: float = 0.1) -> Cells:
    return cells(list(np.random.default_rng(key).normal(mean, deviation, 8)))


def armed(arms: dict[str, Any] = ARMS, **search: Any) -> SweepConfig:
    return build_config({"search": {**EQUAL, "arms": arms, **search}})


def told(scores: dict[str, Cells]) -> tuple[str, str | None, tuple[str, ...]]:
    verdict = overall(scores, pairwise(scores), {})
    return verdict.state, verdict.best, verdict.tied


def test_the_level_is_bonferronis_for_all_pairs_of_arms() -> None:
    assert corrected_level(2) == pytest.approx(0.95)
    assert corrected_level(3) == pytest.approx(1 - 0.05 / 3)
    assert corrected_level(6) == pytest.approx(1 - 0.05 / 15)
    with pytest.raises(ValueError, match="1 arms have no pairs"):
        corrected_level(1)


def test_every_two_arms_are_paired_by_hand() -> None:
    scores = {"a": cells([1.0, 2.0]), "b": cells([2.0, 5.0]), "c": cells([0.0, 0.0])}
    pairs = {(pair.first, pair.second): pair for pair in pairwise(scores)}
    assert list(pairs) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair.alone.mean for pair in pairs.values()] == [2.0, -1.5, -3.5]
    # two differences, 1 and 3: their mean has the standard error 1, and Student's t with one degree of freedom is
    # the tangent: tan(pi * 0.95 / 2) = 12.706 alone, tan(pi * (1 - 0.05 / 3) / 2) = 38.188 for three pairs
    found = pairs["a", "b"]
    assert (found.alone.low, found.alone.high) == (pytest.approx(2 - 12.7062, abs=1e-4), pytest.approx(14.7062))
    assert found.corrected.high == pytest.approx(2 + np.tan(np.pi / 2 * (1 - 0.05 / 3)))
    assert found.corrected.high == pytest.approx(40.188, abs=1e-3)
    assert found.higher is None


def test_a_difference_that_only_one_comparison_would_show_is_not_shown() -> None:
    # five differences of mean 1 and deviation 0.7: t = 1 / (0.7 / sqrt(5)) = 3.19; needed are 2.78 for one pair and
    # 3.96 for three
    drift = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    change = 1.0 + 0.7 * drift / drift.std(ddof=1)
    base = {(fold, 7): 0.0 for fold in range(5)}
    better = {(fold, 7): float(each) for fold, each in enumerate(change)}
    [single] = pairwise({"a": base, "b": better})
    assert single.higher == "b"
    among_three = pairwise({"a": base, "b": better, "c": base})[0]
    assert among_three.alone == single.alone
    assert (among_three.alone.verdict, among_three.higher) == ("higher", None)
    assert told({"a": base, "b": better, "c": base}) == ("no difference", None, ("a", "b", "c"))


def test_intervals_of_high_levels_cover_what_they_say() -> None:
    """Eight resampled pairs reach 1 - 2 / 2**8 = 99.2%; beyond it the interval must not come out too narrow."""
    level = corrected_level(6)
    draws = np.random.default_rng(3).normal(size=(600, 8))
    found = [paired_difference(cells(list(row)), cells([0.0] * 8), level=level) for row in draws]
    assert np.mean([each.verdict == "no difference shown" for each in found]) >= 0.99


def test_a_planted_winner_is_found_wherever_it_stands() -> None:
    winner, others = noisy(3.0, 0), {"low": noisy(0.0, 1), "middle": noisy(1.0, 2)}
    for names in (["win", "low", "middle"], ["low", "win", "middle"], ["middle", "low", "win"]):
        scores = {name: {"win": winner, **others}[name] for name in names}
        assert told(scores) == ("best", "win", ())
        assert {pair.higher for pair in pairwise(scores)} == {"win", "middle"}


def test_ties_are_no_difference_and_are_named() -> None:
    same = noisy(1.0, 4)
    scores = {"a": same, "b": dict(same), "c": noisy(-2.0, 5)}
    verdict = overall(scores, pairwise(scores), {})
    assert (verdict.state, verdict.best, verdict.tied) == ("no difference", None, ("a", "b"))
    assert verdict.line == "no difference: a, b cannot be told apart; shown to score lower than a: c"
    alike = {name: noisy(0.0, key, 1.0) for key, name in enumerate(("x", "y", "z"))}
    assert told(alike) == ("no difference", None, ("x", "y", "z"))


def test_arms_without_scores_or_pairs_leave_nothing_to_claim() -> None:
    scores: dict[str, Cells] = {"a": noisy(3.0, 0), "b": noisy(0.0, 1), "c": {}}
    verdict = overall(scores, pairwise(scores), {"c": "not finite at 256 env steps"})
    assert (verdict.state, verdict.best, verdict.tied) == ("not comparable", None, ())
    assert verdict.line == "not comparable: no scores of c: not finite at 256 env steps"
    single = {"a": {(0, 7): 3.0}, "b": {(0, 7): 1.0}}
    verdict = overall(single, pairwise(single), {})
    assert verdict.line.startswith("not comparable: too few pairs of a and b (1); an interval needs two or more")


def outcome(name: str, slot: int, steps: int = 256, seconds: float = 2.0, state: str = "completed") -> Outcome:
    rows = [{"env_steps": steps * part // 2, "train_seconds": seconds / 2, "env_steps_per_s": 1.0} for part in (1, 2)]
    return Outcome(slot, f"trial_{slot:04d}", state, f"budget at {steps} env steps", {ARM: name}, rows)


def test_a_comparison_tells_compute_missing_cells_and_who_does_not_trade() -> None:
    scores = noisy(3.0, 0)
    trades = dict.fromkeys(scores, 5) | {(0, 7): 0}
    part = {cell: score - 3.0 for cell, score in scores.items() if cell != (3, 9)}
    zero = dict.fromkeys(scores, 0.0)
    last = {
        "good": Last(scores, trades),
        "[part]": Last(part, dict.fromkeys(part, 4)),
        "idle": Last(zero, dict.fromkeys(zero, 0)),
    }
    outcomes = [outcome("idle", 2, steps=512, seconds=2.5), outcome("good", 0), outcome("[part]", 1, seconds=1.0)]
    arms = {"good": {}, "[part]": {"ppo.gamma": 0.9}, "idle": {}}
    found = comparison(arms, outcomes, last, equal="seconds")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    good, partial, idle = found["arms"]
    assert (good["score"], good["trades"], good["idle_members"]) == (
        pytest.approx(np.mean(list(scores.values()))),
        5,
        1,
    )
    assert (good["env_steps"], good["train_seconds"], good["env_steps_per_s"], good["evaluations"]) == (256, 2, 128, 2)
    assert (partial["changes"], len(partial["cells"])) == ({"ppo.gamma": 0.9}, 7)
    assert idle["env_steps_per_s"] == pytest.approx(204.8)
    assert found["compute"] == {"env_steps": 2.0, "train_seconds": 2.5}
    pair = found["pairs"][0]
    assert (pair["first"], pair["second"], pair["pairs"], pair["missing"]) == ("good", "[part]", 7, 1)
    assert (pair["mean"], pair["higher"], pair["verdict"]) == (pytest.approx(-3.0), "good", "good higher")
    assert found["notes"] == [
        "good: 1 of 8 members never trade and score 0",
        "idle never trades: its scores of 0 are those of doing nothing",
    ]
    assert found["verdict"]["best"] == "good"


def test_a_comparison_of_arms_that_failed_or_never_started_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    failed = outcome("[b]broken", 1, state="failed")
    last: dict[str, Last | str] = {
        "fine": Last(noisy(1.0, 0), dict.fromkeys(noisy(1.0, 0), 3)),
        "[b]broken": "not finite",
    }
    found = comparison({"fine": {}, "[b]broken": {}, "late": {}}, [outcome("fine", 0), failed], last, equal="steps")
    assert [arm["state"] for arm in found["arms"]] == ["completed", "failed", "not started"]
    assert {pair["verdict"] for pair in found["pairs"]} == {"not enough pairs"}
    assert found["pairs"][0]["missing"] == 8
    assert found["verdict"]["state"] == "not comparable"
    print_comparison(found, {"verdict": "not enough data"})
    said = capsys.readouterr().out
    assert "deflated Sharpe ratio of the best trial: unknown, not enough data" in said
    for part in ("[b]broken has no scores: not finite", "late has no scores: not started", "[b]broken less fine"):
        assert part in said
    assert said.splitlines()[-1].startswith("not comparable: no scores of [b]broken: not finite; late: not started")


def test_budgets_of_equal_time_are_whole_evaluations() -> None:
    config = armed(
        {"base": {}, "slow": {}, "fast": {}, "snail": {}}, env_steps=1000, evaluate_every=100, grace_steps=100
    )
    config = config.model_copy(update={"ppo": config.ppo.model_copy(update={"environments": 1, "rollout_steps": 50})})
    rates = {"base": 10.0, "slow": 3.6, "fast": 20.0, "snail": 0.1}
    # 1000 steps at 10 a second are 100 s
    assert budgets_of_equal_time(config, rates) == {"base": 1000, "slow": 400, "fast": 2000, "snail": 100}
    arms = {"base": {}, "large": {"ppo.rollout_steps": 75, "ppo.minibatch_rows": 75}}
    config = build_config(
        {
            "ppo": {"environments": 1, "rollout_steps": 50, "minibatch_rows": 50},
            "search": {**EQUAL, "arms": arms, "env_steps": 1010, "evaluate_every": 100, "grace_steps": 100},
        }
    )
    # the baseline ends with the evaluation at 1100; iterations of 75 put evaluations 150 apart
    assert budgets_of_equal_time(config, {"base": 10.0, "large": 10.0}) == {"base": 1100, "large": 1050}


def test_a_full_trial_takes_its_training_and_its_evaluations() -> None:
    config = armed(env_steps=1000, evaluate_every=300, grace_steps=300)
    assert Pace(rate=100.0, evaluation=2.0).seconds(config) == pytest.approx(1000 / 100 + 4 * 2)


def test_configurations_without_equal_compute_are_refused() -> None:
    check_comparable(armed())
    with pytest.raises(
        ConfigError, match=r"search\.arms: the configuration has none.*configs/variants\.yaml"
    ) as caught:
        check_comparable(build_config({}))
    assert len(caught.value.lines) == 1
    own = {"standard": {}, "long": {BUDGET: 600_000}}
    with pytest.raises(ConfigError) as caught:
        check_comparable(armed(own, scheduler="median", patience=3))
    starts = [
        "search.arms.long: search.env_steps: 600000 is a budget of its own",
        "search.scheduler: median stops arms early",
        "search.patience: 3 ends an arm",
    ]
    assert [line.startswith(start) for line, start in zip(caught.value.lines, starts, strict=True)] == [True] * 3


def test_the_shipped_configuration_compares_the_three_variants() -> None:
    config = load_config(SHIPPED)
    check_comparable(config)
    assert cautions(config) == []
    assert [arm.variant for arm in config.arms().values()] == list(config.search.arms)
    assert list(config.search.arms) == ["standard", "maskable", "enhanced-maskable"]
    assert (config.validation.folds, config.validation.seeds) == (4, 2)


def values_of(bars: Path, storage: Path, **changes: Any) -> dict[str, Any]:
    values = tiny_values(
        bars,
        storage,
        **{f"search__{key}": value for key, value in EQUAL.items()},
        search__arms=ARMS,
        search__space={},
        search__env_steps=2 * EVALUATE_EVERY,
        validation__seeds=2,
        evidence={"ledger": str(storage / "ledger.sqlite"), "probes": False, "stress": False},
        **changes,
    )
    del values["search"]["trials"]
    return values


@pytest.fixture(scope="module")
def compared(bars_file: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """The folder of a comparison of two arms at equal seconds, begun with one of them."""
    storage = tmp_path_factory.mktemp("compared")
    config = write_config(values_of(bars_file, storage), storage / "tiny.yaml")
    begun = main([str(config), "--equal", "seconds", "--set", "search.trials=1"])
    assert begun == 0
    assert json.loads((storage / "tiny" / COMPARISON).read_text())["arms"][1]["state"] == "not started"
    budgets = load_config(storage / "tiny" / CONFIG).search.arms
    assert main([str(config), "--resume"]) == 0
    assert load_config(storage / "tiny" / CONFIG).search.arms == budgets
    return storage / "tiny"


def test_a_comparison_runs_its_arms_and_goes_on_with_its_budgets(compared: Path) -> None:
    found = json.loads((compared / COMPARISON).read_text())
    config = load_config(compared / CONFIG)
    assert (found["name"], found["equal"], found["baseline"]) == ("tiny", "seconds", "standard")
    assert [arm["state"] for arm in found["arms"]] == ["completed", "completed"]
    assert config.search.arms["standard"][BUDGET] == 2 * EVALUATE_EVERY
    for arm in found["arms"]:
        assert arm["env_steps"] == config.search.arms[arm["name"]][BUDGET]
        assert arm["env_steps"] == arm["evaluations"] * EVALUATE_EVERY
        assert arm["env_steps_per_s"] == pytest.approx(arm["env_steps"] / arm["train_seconds"])
    first, second = ({(cell["fold"], cell["seed"]): cell["score"] for cell in arm["cells"]} for arm in found["arms"])
    [pair] = found["pairs"]
    assert (pair["pairs"], pair["missing"]) == (4, 0)
    assert pair["mean"] == pytest.approx(np.mean([second[cell] - first[cell] for cell in first]))
    assert found["corrected_level"] == pytest.approx(0.95)


def test_arms_are_scored_as_at_their_last_evaluation(compared: Path) -> None:
    config = load_config(compared / CONFIG)
    prepared = prepare(config)
    found = {arm["name"]: arm for arm in json.loads((compared / COMPARISON).read_text())["arms"]}
    for trial in read_outcomes(compared, config):
        last = last_evaluation(trial, config, prepared)
        assert isinstance(last, Last)
        assert found[trial.params[ARM]]["score"] == pytest.approx(np.mean(list(last.scores.values())))
        by_fold = np.array([[last.scores[cell] for cell in sorted(last.scores) if cell[0] == fold] for fold in (0, 1)])
        medians = np.median(by_fold, axis=1)
        expected = medians.mean() - config.validation.fold_penalty * medians.std(ddof=1)
        assert trial.curve[-1]["cv_score"] == pytest.approx(expected, abs=1e-9)
        assert trial.curve[-1]["validation_trades"] == np.median(list(last.trades.values()))


def test_an_arm_whose_last_checkpoint_is_damaged_has_no_scores(compared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(compared, folder)
    config = load_config(folder / CONFIG)
    prepared = prepare(config)
    newest = sorted(folder.glob("trials/run_000/trial_0000/checkpoint_*"))[-1]
    (newest / "training_state.pt").write_bytes(b"torn")
    trial = read_outcomes(folder, config)[0]
    assert last_evaluation(trial, config, prepared) == (
        f"the checkpoint of its last evaluation is not intact, only that at {EVALUATE_EVERY} env steps"
    )
    shutil.rmtree(folder / "trials" / "run_000" / "trial_0000" / newest.name)
    for checkpoint in folder.glob("trials/run_000/trial_0000/checkpoint_*"):
        shutil.rmtree(checkpoint)
    assert last_evaluation(read_outcomes(folder, config)[0], config, prepared) == "it has no intact checkpoint"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--resume", "--equal", "steps"],
            "--equal steps: .* was started with --equal seconds; leave it out or choose",
        ),
        (["--equal", "seconds"], "the name is used; pass --resume"),
        ([], "the name is used; pass --resume"),
        (["--resume", "--name", "other"], "there is no sweep to resume"),
        (["--resume", "--set", "search.arms.third={ppo.gamma: 0.9}"], r"search\.arms: was "),
        (["--name", "new", "--set", "search.arms={}"], r"search\.arms: the configuration has none"),
        (["--name", "new", "--set", "search.scheduler=asha"], r"search\.scheduler: asha stops arms early"),
    ],
)
def test_mistakes_are_told_in_one_line(
    compared: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([str(compared.parent / "tiny.yaml"), *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)
    assert not (compared.parent / "new").exists()
