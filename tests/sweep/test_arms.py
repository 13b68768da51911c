"""Arms: what is refused, what their trials run with, and how they compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentio_rllib.errors import ConfigError, SweepError
from sentio_rllib.policy.checkpoint import load_model
from sentio_rllib.policy.encoders import receptive_patches
from sentio_rllib.sweep.arms import BUDGET, MAX_NAME
from sentio_rllib.sweep.claim import CONFIG
from sentio_rllib.sweep.config import SweepConfig, build_config, load_config
from sentio_rllib.sweep.dry_run import dry_run
from sentio_rllib.sweep.folds import make_folds
from sentio_rllib.sweep.outcome import CHAMPION
from sentio_rllib.sweep.pairing import Difference, cell_scores, compare_arms, paired_difference
from sentio_rllib.sweep.prepare import trial_settings
from sentio_rllib.sweep.results import print_summary
from sentio_rllib.sweep.run import run_sweep
from sentio_rllib.sweep.selection import Outcome
from sentio_rllib.sweep.space import ARM, asked_trials, default_params, grid
from tests.sweep.checks import board_of, labels, study_of
from tests.sweep.tiny import EVALUATE_EVERY, tiny_config, tiny_values, write_config

COMPARED: dict[str, Any] = {"sampler": "grid", "scheduler": "none", "patience": 0}
PARTS: dict[str, Any] = {
    "enhanced": {},
    "no transformer": {"policy.encoder": "mlp"},
    "maskable": {"variant": "maskable"},
}


def armed(arms: dict[Any, Any], variant: str = "enhanced-maskable", **sections: Any) -> SweepConfig:
    return build_config({"variant": variant, "search": {**COMPARED, "arms": arms}, **sections})


def mistakes_of(arms: Any, **sections: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        armed(arms, **sections)
    return list(caught.value.lines)


def test_arms_are_a_grid_whose_first_point_is_the_baseline() -> None:
    config = armed(PARTS)
    assert config.cautions() == []
    assert default_params(config) == {ARM: "enhanced"}
    points = list(grid(config.parameters(), default_params(config)))
    assert points == [{ARM: name} for name in PARTS]
    assert config.search.trials == asked_trials(config) == 3


def test_the_number_of_trials_is_that_of_the_arms_unless_it_is_set() -> None:
    many = {f"clip {index}": {"ppo.clip": 0.1 + index / 1000} for index in range(20)}
    assert armed(many).search.trials == 20
    some = build_config({"search": {**COMPARED, "arms": many, "trials": 3}})
    assert some.search.trials == asked_trials(some) == 3
    assert some.cautions() == ["search.trials: 3 of the 20 arms are tried"]
    more = build_config({"search": {**COMPARED, "arms": many, "trials": 30}})
    assert asked_trials(more) == 20


def test_an_arm_resolves_to_the_configuration_with_its_keys() -> None:
    config = armed({**PARTS, "both": {"policy.hidden": [32], "ppo.lambda": 0.9, "policy.critic": None}})
    resolved = {name: config.resolve({ARM: name}) for name in config.search.arms}
    assert resolved == config.arms()
    assert [config.resolve({ARM: name}).part("encoder") for name in PARTS] == ["transformer", "mlp", "mlp"]
    assert [resolved[name].trading_masks() for name in PARTS] == ["risk", "risk", "state"]
    assert [resolved["maskable"].part(part) for part in ("head", "critic")] == ["categorical", "scalar"]
    assert resolved["both"].policy.hidden == (32,)
    assert resolved["both"].ppo.lambda_ == 0.9
    assert all(each.search.arms == {} for each in resolved.values())
    assert config.resolve({}) == config
    assert config.resolve({ARM: "enhanced", "ppo.gamma": 0.9}).ppo.gamma == 0.9
    with pytest.raises(ConfigError, match=r"search\.arm: 'maskabel' is unknown; did you mean maskable\?"):
        config.resolve({ARM: "maskabel"})
    with pytest.raises(ConfigError, match="the configuration has no arms"):
        build_config({}).resolve({ARM: "enhanced"})


def test_an_arm_may_have_a_budget_of_its_own() -> None:
    config = armed({"base": {}, "slow": {BUDGET: 200_000}})
    splits = make_folds(config, config.data.synthetic.bars)
    budgets = [trial_settings(config, splits, {ARM: name}).env_steps for name in config.search.arms]
    assert budgets == [config.search.env_steps, 200_000]
    assert config.largest(BUDGET) == config.search.env_steps
    [line] = mistakes_of({"base": {}, "short": {BUDGET: 100_000}})
    assert line.startswith("search.arms.short: search.grace_steps: 131072 exceeds the budget of 100000 env_steps")


def test_every_mistake_in_arms_is_told_at_once() -> None:
    lines = mistakes_of(
        {
            "base": None,
            "typo": {"policy.encodr": "mlp", "ppo.gamma": 1.5, "ppo.epochs": 2.0},
            "shared": {"trading.fee_rate": 0.0, "validation.folds": 3},
            "nested": {"policy": {"encoder": "mlp"}},
            "list": ["policy.encoder"],
            7: {},
            "x" * (MAX_NAME + 1): {},
            "two\nlines": {},
            "contradicts": {"variant": "maskable", "policy.encoder": "transformer"},
            "heads": {"policy.heads": 5},
            "alone": {"trading.min_trade": 0.4, "trading.position_step": 0.2},
            "variant": {"variant": "enhanced"},
        },
        ppo={"minibatch_rows": 1000},
    )
    starts = [
        "search.arms.typo: policy.encodr: unknown key; did you mean policy.encoder?",
        "search.arms.typo: ppo.gamma: 1.5 is not allowed; set it to a number from 0 up to 1",
        "search.arms.typo: ppo.epochs: 2.0 is not allowed; set it to a whole number from 1 up to 100; write 2",
        "search.arms.shared: trading.fee_rate: all arms share it; ",
        "search.arms.shared: validation.folds: all arms share it; ",
        "search.arms.nested: policy: is a section; write its keys with their dots, as policy.KEY: VALUE",
        "search.arms.list: ['policy.encoder'] is no mapping; ",
        "search.arms.7: the name 7 is no text; ",
        f"search.arms.{'x' * (MAX_NAME + 1)}: a name has 1 to 60 printable characters",
        "search.arms.'two\\nlines': a name has 1 to 60 printable characters",
        "search.arms.variant: variant: 'enhanced' is not allowed; set it to one of standard, ",
        "search.arms.alone: trading.min_trade: ",
        "ppo.minibatch_rows: 1000 does not divide",
        "search.arms.contradicts: policy.encoder: a transformer reads windows of bars",
        "search.arms.heads: policy.heads: 5 does not divide d_model 64; ",
    ]
    for start in starts:
        assert sum(line.startswith(start) for line in lines) == 1, (start, lines)
    assert len(lines) == len(starts)


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ({"arms": {"one": {}}}, "search.arms: holds one arm"),
        ({"arms": [1]}, "search.arms: .* set it to a mapping from names to mappings"),
        (
            {"arms": PARTS, "sampler": "tpe"},
            "search.sampler: tpe draws from search.space; arms need search.sampler=grid",
        ),
        (
            {"arms": PARTS, "space": {"ppo.gamma": {"choice": [0.98, 0.9]}}},
            "search.arms: arms are compared as they stand, so nothing is searched; take out ppo.gamma",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(search: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        build_config({"variant": "enhanced-maskable", "search": {**COMPARED, **search}})
    assert len(caught.value.lines) == 1


def test_a_mistake_of_no_arm_is_none_and_one_of_all_is_told_once() -> None:
    mlp = {"small": {"policy.encoder": "mlp"}, "large": {"policy.encoder": "mlp", "policy.hidden": [512]}}
    assert armed(mlp, policy={"heads": 3}).search.trials == 2
    [line] = mistakes_of(PARTS, policy={"heads": 3})
    assert line.startswith("policy.heads: 3 does not divide d_model 64")
    lines = mistakes_of({"a": {"policy.heads": 3}, "b": {"policy.heads": 3, "policy.experts": 3}})
    assert [line.partition(": ")[0] for line in lines] == ["search.arms.a", "search.arms.b"]


def test_the_footprint_covers_every_arm() -> None:
    sizes = {"policy.layers": 3, "policy.band": 8}
    config = armed(
        {
            "narrow": {"policy.layers": 1, "policy.band": 4},
            "deep": sizes,
            "slow": {"policy.encoder": "mlp", "trading.decision_interval": 60, "trading.episode_length": 500},
        }
    )
    assert config.receptive_patches() == receptive_patches(3, 8) == 22
    assert config.footprint().receptive_field == 22 * 15
    assert config.footprint().decision_interval == 60
    assert config.largest("trading.episode_length") == 1000
    assert config.largest("policy.layers") == 3
    assert config.may_have("encoder", "mlp")
    assert config.choices("masks") == ["risk"]
    assert armed(PARTS).choices("masks") == ["risk", "state"]
    flat = armed({"a": {"policy.encoder": "mlp"}, "b": {"variant": "maskable"}})
    assert flat.footprint().receptive_field == 1


def test_an_arm_that_reads_too_far_is_named() -> None:
    arms = {"near": {"policy.band": 8}, "far": {"policy.band": 4096}}
    [line] = mistakes_of(arms, data={"synthetic": {"bars": 60_000}})
    assert line.startswith("search.arms.far: policy.band: a decision reads ")


def test_arms_that_are_not_what_they_seem_are_cautioned() -> None:
    config = armed(
        {"base": {}, "same": {"policy.encoder": None}, "idle": {"policy.encoder": "mlp", "policy.band": 8}},
        policy={"quantiles": 11},
    )
    assert config.cautions() == [
        "search.arms: 'base', 'same' are the same configuration; keep one of them",
        "search.arms.idle: policy.band has no effect with policy.encoder=mlp",
    ]
    config = build_config({"search": {"sampler": "grid", "arms": {"a": {}, "b": {"ppo.gamma": 0.9}}}})
    assert [line.partition(": ")[0] for line in config.cautions()] == ["search.scheduler", "search.patience"]


def test_a_key_that_one_arm_reads_has_an_effect() -> None:
    unread = armed({"a": {"policy.critic": "scalar"}, "b": {"variant": "maskable"}}, policy={"quantiles": 11})
    assert unread.cautions() == ["policy.quantiles: 11 has no effect with policy.critic=scalar (default 51)"]
    masks = {"trading": {"risk_volatility": 2.0, "close_minutes": 30}}
    read = armed({"a": {}, "b": {"variant": "maskable"}, "c": {"trading.flat_by_close": True}}, **masks)
    assert read.cautions() == []
    none = armed({"a": {"trading.masks": "none"}, "b": {"trading.masks": "state"}}, **masks)
    assert none.cautions() == [
        "trading.close_minutes: 30 has no effect without trading.flat_by_close (default 15)",
        "trading.risk_volatility: 2.0 has no effect with trading.masks=none and state (default 3.0)",
    ]


def test_arms_survive_their_own_yaml_and_their_order_counts(tmp_path: Path) -> None:
    config = armed(PARTS)
    path = tmp_path / "arms.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    again = load_config(path)
    assert again == config
    assert list(again.search.arms) == list(PARTS)
    turned = armed(dict(reversed(PARTS.items())))
    assert turned.fingerprint() != config.fingerprint()
    assert turned.changed_keys(config) == ["search.arms"]
    taken = load_config(path, ["search.arms.no transformer=null", "search.arms.v1.5={ppo.gamma: 0.9}"])
    assert list(taken.search.arms) == ["enhanced", "maskable", "v1.5"]


def scored(name: str, scores: list[list[float]], slot: int = 0, state: str = "completed", steps: int = 256) -> Outcome:
    """A trial of an arm with scores [folds, seeds]; seeds 7 and 9."""
    members = [[seed, fold] for fold in range(len(scores)) for seed in (9, 7)[: len(scores[0])]]
    best = {
        "cv_score": float(np.mean(scores)),
        "members": members,
        "fold_scores": scores,
        "env_steps": 128,
        "validation_trades": 12.0,
    }
    curve = [{"env_steps": steps, "env_steps_per_s": 100.0}]
    return Outcome(slot, f"trial_{slot:04d}", state, f"budget at {steps} env steps", {ARM: name}, curve, best)


def cells(values: list[float]) -> dict[tuple[int, int], float]:
    return {(index // 2, index % 2): value for index, value in enumerate(values)}


def test_scores_are_paired_by_fold_and_seed() -> None:
    assert cell_scores(scored("a", [[1.0, 2.0], [3.0, 4.0]])) == {(0, 7): 1.0, (0, 9): 2.0, (1, 7): 3.0, (1, 9): 4.0}
    assert cell_scores(scored("a", [[1.0]], state="failed")) == {}
    assert cell_scores(scored("a", [[1.0]], state="unfinished")) == {}


def test_a_difference_of_two_pairs_has_students_interval() -> None:
    found = paired_difference(cells([1.0, 3.0]), cells([0.0, 0.0]))
    margin = 12.706204736 * np.sqrt(2.0) / np.sqrt(2.0)
    assert (found.pairs, found.missing, found.mean) == (2, 0, 2.0)
    assert (found.low, found.high) == (pytest.approx(2 - margin), pytest.approx(2 + margin))
    assert found.verdict == "no difference shown"


def test_a_difference_of_many_pairs_is_resampled_and_repeats() -> None:
    generator = np.random.default_rng(0)
    base, change = generator.normal(size=40), generator.normal(1.0, 0.5, size=40)
    found = paired_difference(cells(list(base + change)), cells(list(base)))
    assert found == paired_difference(cells(list(base + change)), cells(list(base)))
    assert found.mean == pytest.approx(change.mean())
    margin = 2.0227 * change.std(ddof=1) / np.sqrt(40)  # Student's t with 39 degrees of freedom
    assert found.low == pytest.approx(change.mean() - margin, abs=0.15 * margin)
    assert found.high == pytest.approx(change.mean() + margin, abs=0.15 * margin)
    assert found.verdict == "higher"
    assert paired_difference(cells(list(base)), cells(list(base + change))).verdict == "lower"


def test_intervals_of_eight_pairs_cover_what_they_say() -> None:
    draws = np.random.default_rng(1).normal(size=(300, 8))
    found = [paired_difference(cells(list(row)), cells([0.0] * 8)) for row in draws]
    covered = np.mean([each.verdict == "no difference shown" for each in found])
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize("pairs", [2, 5, 6, 8])
def test_identical_and_constant_differences_have_no_width(pairs: int) -> None:
    values = list(np.linspace(-1.0, 2.0, pairs))
    assert paired_difference(cells(values), cells(values)) == Difference(pairs, 0, 0.0, 0.0, 0.0)
    shifted = paired_difference(cells([0.5] * pairs), cells([0.0] * pairs))
    assert (shifted.mean, shifted.low, shifted.high, shifted.verdict) == (0.5, 0.5, 0.5, "higher")


def test_cells_without_a_partner_are_left_out_and_counted() -> None:
    found = paired_difference({(0, 1): 1.0, (1, 1): 2.0, (2, 1): 9.0}, {(0, 1): 0.0, (1, 1): 1.0, (3, 1): 9.0})
    assert (found.pairs, found.missing, found.mean) == (2, 2, 1.0)
    single = paired_difference({(0, 1): 1.0}, {(0, 1): 0.0})
    assert (single, single.verdict) == (Difference(1, 0), "not enough pairs")
    assert paired_difference({}, {(0, 1): 0.0}) == Difference(0, 1)
    with pytest.raises(ValueError, match="finite"):
        paired_difference({(0, 1): np.nan}, {(0, 1): 0.0})


def test_the_comparison_tells_what_is_missing_and_unequal() -> None:
    arms: dict[str, dict[str, Any]] = {"[b] base": {}, "up": {"ppo.gamma": 0.9}, "failed": {}, "late": {}, "short": {}}
    base = scored("[b] base", [[1.0, 2.0], [3.0, 4.0]])
    up = scored("up", [[1.5, 2.5], [3.5, 4.5]], 1)
    failed = scored("failed", [[1.0, 2.0], [3.0, 4.0]], 2, state="failed")
    short = scored("short", [[1.0, 2.0], [3.0, 4.0]], 4, state="pruned", steps=128)
    found = compare_arms(arms, [up, failed, base, short])
    assert found is not None
    assert (found["baseline"], found["equal_steps"]) == ("[b] base", False)
    results = {result["name"]: result for result in found["results"]}
    assert list(results) == list(arms)
    assert results["[b] base"]["difference"] is None
    assert (results["[b] base"]["score"], results["[b] base"]["trades"]) == (2.5, 12.0)
    assert results["up"]["changes"] == {"ppo.gamma": 0.9}
    assert results["up"]["difference"] == {
        "pairs": 4, "missing": 0, "mean": 0.5, "low": 0.5, "high": 0.5, "verdict": "higher",
    }  # fmt: skip
    assert (results["failed"]["state"], results["failed"]["score"]) == ("failed", None)
    assert results["failed"]["difference"]["verdict"] == "not enough pairs"
    assert results["failed"]["difference"]["missing"] == 4
    assert (results["late"]["state"], results["late"]["trial_id"]) == ("not started", None)
    assert results["short"]["difference"]["verdict"] == "no difference shown"
    json.dumps(found, allow_nan=False)
    assert compare_arms({}, [base]) is None
    assert compare_arms(arms, [up])["results"][1]["difference"]["verdict"] == "not enough pairs"  # type: ignore[index]


ENHANCED: dict[str, Any] = {
    "variant": "enhanced-maskable",
    "policy": {"hidden": [8], "d_model": 8, "heads": 2, "layers": 1, "band": 4, "quantiles": 5},
    "ppo__sequence_length": 16,
    **{f"search__{key}": value for key, value in COMPARED.items()},
    "search__space": {},
    "search__env_steps": 2 * EVALUATE_EVERY,
    "search__arms": PARTS,
    "validation__seeds": 2,
}


def without_trials(values: dict[str, Any]) -> dict[str, Any]:
    del values["search"]["trials"]
    return values


@pytest.fixture(scope="module")
def compared(bars_file: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """A sweep of three arms, the third of which was added by a resume."""
    storage = tmp_path_factory.mktemp("compared")
    first = run_sweep(tiny_config(bars_file, storage, **ENHANCED, search__trials=2))
    assert [result["state"] for result in first["arms"]["results"]] == ["completed", "completed", "not started"]
    values = without_trials(tiny_values(bars_file, storage, **ENHANCED))
    run_sweep(load_config(write_config(values, storage / "tiny.yaml")), resume=True)
    return storage / "tiny"


def test_a_sweep_of_arms_trains_and_compares_them(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((compared / "summary.json").read_text())
    assert (summary["state"], summary["trials"]["asked"], summary["trials"]["completed"]) == ("completed", 3, 3)
    arms = summary["arms"]
    assert (arms["baseline"], arms["equal_steps"]) == ("enhanced", True)
    board = board_of(compared)
    assert board.groupby("trial_id")[ARM].unique().map(list).to_dict() == dict(
        zip(labels(3), ([name] for name in PARTS), strict=True)
    )
    base = board[board[ARM] == "enhanced"].set_index(["fold", "seed"])["fold_score"]
    for result in arms["results"]:
        rows = board[board[ARM] == result["name"]].set_index(["fold", "seed"])
        assert len(rows) == 4
        assert result["score"] == pytest.approx(rows["fold_score"].mean())
        assert result["env_steps"] == 2 * EVALUATE_EVERY
        assert result["changes"] == PARTS[result["name"]]
        if result["difference"] is not None:
            assert (result["difference"]["pairs"], result["difference"]["missing"]) == (4, 0)
            assert result["difference"]["mean"] == pytest.approx((rows["fold_score"] - base).mean())
    print_summary(summary, compared)
    said = capsys.readouterr().out
    assert "arms, each at its best evaluation, and paired differences to enhanced" in said
    assert all(name in said for name in PARTS)


def test_the_trials_of_arms_have_their_networks(compared: Path) -> None:
    config = load_config(compared / CONFIG)
    assert list(config.search.arms) == list(PARTS)
    assert [trial.params for trial in study_of(compared)] == [{ARM: name} for name in PARTS]
    weights: dict[str, set[str]] = {}
    for label, name in zip(labels(3), PARTS, strict=True):
        last = sorted(compared.glob(f"trials/run_*/{label}/checkpoint_*"))[-1]
        if (last / "best").is_dir():
            found, metadata = load_model(last / "best")
            assert metadata["params"] == {ARM: name}
            weights[name] = {key.partition(".")[0] for key in found}
    assert "policy_encoder" in weights["enhanced"]
    assert "policy_encoder" not in weights["no transformer"] | weights["maskable"]
    assert (compared / CHAMPION).exists() == (json.loads((compared / "summary.json").read_text())["best"] is not None)


def test_a_sweep_is_not_resumed_with_other_arms(compared: Path, bars_file: Path) -> None:
    others = {**PARTS, "maskable": {"trading.masks": "state"}}
    with pytest.raises(SweepError, match=r"search\.arms: was .* put it back or choose another --name"):
        run_sweep(tiny_config(bars_file, compared.parent, **{**ENHANCED, "search__arms": others}), resume=True)


def test_a_dry_run_measures_each_arm(bars_file: Path, tmp_path: Path, ray_cluster: None, capsys: Any) -> None:
    values = without_trials(tiny_values(bars_file, tmp_path, **ENHANCED))
    dry_run(load_config(write_config(values, tmp_path / "tiny.yaml")))
    said = capsys.readouterr().out
    assert "3 trials x 4 members (2 folds x 2 seeds), at most 256 env steps each" in said
    assert all(f"arm {name}: measured: " in said for name in PARTS)
