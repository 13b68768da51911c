"""The configuration: what a file means, and that every mistake in it is told at once."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sentio_rllib.config.contradictions import cautions
from sentio_rllib.config.keys import find_leaf, leaves
from sentio_rllib.config.loading import build_config, load_config, resolve
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.errors import ConfigError
from sentio_rllib.trading.rules import TradingRules

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def mistakes_of(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_config(raw)
    return list(caught.value.lines)


def nested(key: str, value: Any) -> dict[str, Any]:
    raw = value
    for part in reversed(key.split(".")):
        raw = {part: raw}
    return raw


def enhanced(**sections: Any) -> dict[str, Any]:
    return {"variant": "enhanced-maskable", **sections}


SMALL: dict[str, Any] = {"data": {"synthetic": {"bars": 60_000}}}
KEYS = [key for key, _ in leaves(SweepConfig)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_load_and_survive_their_own_yaml(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert cautions(config) == []
    assert next(iter(config.parameters())) == ("search.arm" if config.search.arms else "ppo.learning_rate")
    again = load_config(write(tmp_path, config.to_yaml()))
    assert again == config
    assert again.fingerprint() == config.fingerprint()
    assert again.changed_keys(config) == []


def test_all_configurations_are_shipped() -> None:
    assert [path.stem for path in CONFIGS] == [
        *("ablation", "enhanced", "maskable", "placebo", "quickstart", "standard", "variants")
    ]


def test_an_empty_file_is_the_default_configuration_named_after_the_file(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")) == SweepConfig(name="mine")
    assert load_config(write(tmp_path, "name: null\ntrading:\n")).name == "mine"


def test_every_key_is_described() -> None:
    undescribed = [key for key, info in leaves(SweepConfig) if not info.description]
    assert undescribed == []


def test_yaml_is_read_as_version_1_2(tmp_path: Path) -> None:
    text = "ppo: {learning_rate: 3e-4, clip: .1}\ndata: {symbol: no, tz: UTC}\nstorage_path: 16:00\n"
    config = load_config(write(tmp_path, text))
    assert config.ppo.learning_rate == 3e-4
    assert config.data.symbol == "no"
    assert config.storage_path == "16:00"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: 1\nseed: 2\n", "line 2.*duplicate key"),
        ("seed: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("seed: [1\n", "line 2"),
        ("- 1\n", r"holds \[1\]"),
        ("seed: 1\n---\nseed: 2\n", "document"),
    ],
)
def test_what_is_no_mapping_in_yaml_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load_config(write(tmp_path, text))
    assert len(caught.value.lines) == 1
    assert "\n" not in caught.value.lines[0]


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "binary.yaml")


def test_every_mistake_is_told_at_once() -> None:
    lines = mistakes_of(
        {
            "seeed": 1,
            "learning_rate": 1e-3,
            "name": "../up",
            "ppo": {"lamda": 0.9, "learning_rate": 0, "epochs": True, "minibatch_rows": 5000},
            "policy": {"encoder": "transformer", "hidden": [64, 0]},
            "data": {"calendar": "XNYZ", "tz": "Mars/Base"},
            "resources": 5,
            "search": {"scheduler": "pbt", "space": {"ppo.gama": {"uniform": [0, 1]}}},
            "validation": {"folds": 1000},
        }
    )
    told = dict(line.split(": ", 1) for line in lines)
    assert set(told) == {
        "seeed",
        "learning_rate",
        "name",
        "ppo.lamda",
        "ppo.learning_rate",
        "ppo.epochs",
        "ppo.minibatch_rows",
        "policy.encoder",
        "policy.hidden",
        "data.calendar",
        "data.tz",
        "resources",
        "search.scheduler",
        "search.space.ppo.gama",
        "validation.folds",
    }
    assert len(lines) == len(told)
    assert "did you mean seed?" in told["seeed"]
    assert "did you mean ppo.learning_rate?" in told["learning_rate"]
    assert "did you mean ppo.lambda?" in told["ppo.lamda"]
    assert "did you mean ppo.gamma?" in told["search.space.ppo.gama"]
    assert "which variant maskable does not show" in told["policy.encoder"]
    assert "not available yet" in told["search.scheduler"]
    assert "above 0 up to 1" in told["ppo.learning_rate"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ppo.learning_rate", float("inf")),
        ("ppo.learning_rate", float("nan")),
        ("ppo.learning_rate", -1e-4),
        ("ppo.learning_rate", True),
        ("ppo.learning_rate", "3e-4"),
        ("ppo.epochs", True),
        ("ppo.epochs", 2.5),
        ("ppo.epochs", None),
        ("trading.fee_rate", float("inf")),
        ("trading.flat_by_close", "no"),
        ("trading.masks", "risky"),
        ("validation.holdout", 0.6),
        ("search.minutes", float("inf")),
        ("search.scheduler", "hyperband"),
        ("policy.critic", "median"),
        ("policy.quantiles", 1),
        ("policy.band", 1),
        ("policy.encoder", "transformer"),
        ("policy.hidden", []),
        ("policy.hidden", 64),
        ("policy.experts", 1),
        ("data.columns", [1, 2]),
        ("data.stamp", "middle"),
        ("resources.gpu", -0.5),
        ("resources.gpu", 1.5),
        ("search.space", [1]),
        ("search.arms", [1]),
        ("variant", "enhanced"),
        *(("name", bad) for bad in ("../x", "/x", "a/b", "..", ".x", "", "a b", "x" * 101, "x\n", 3)),
    ],
)
def test_values_out_of_range_are_refused_with_their_key(key: str, value: Any) -> None:
    [line] = mistakes_of(nested(key, value))
    assert line.startswith(f"{key}: ")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("raw", "key", "says"),
    [
        ({"ppo": {"minibatch_rows": 16384}}, "ppo.minibatch_rows", "exceed the batch of 4096"),
        ({"ppo": {"minibatch_rows": 1000}}, "ppo.minibatch_rows", "does not divide"),
        ({"ppo": {"path_group": 5, "advantages": "sampled"}}, "ppo.path_group", "does not divide environments 32"),
        ({"ppo": {"path_group": 4}}, "ppo.path_group", "set it to 1, or ppo.advantages=sampled"),
        ({"trading": {"min_trade": 0.4, "position_step": 0.2}}, "trading.min_trade", "exceeds"),
        ({"trading": {"episode_length": 10}}, "trading.episode_length", "decision interval"),
        ({"search": {"env_steps": 1000}}, "search.evaluate_every", "exceeds the budget of 1000"),
        ({"data": {"bars": 50000}}, "data.bars", "data.path is not set"),
        ({"validation": {"embargo": 100_000}}, "validation", "embargo"),
        ({"data": {"synthetic": {"bars": 3000}}}, "validation", "needed [0-9]+, available 3000"),
        ({"validation": {"scheme": "combinatorial", "test_groups": 6}}, "validation.test_groups", "6"),
        ({"data": {"path": "x.csv", "bars": 3000}}, "validation", "available 3000"),
        ({"policy": {"encoder": "transformer"}}, "policy.encoder", "variant maskable does not show.*set it to mlp"),
        (enhanced(policy={"heads": 3}), "policy.heads", "does not divide d_model 64; set it to one of 1, 2, 4, 8, 16"),
        (enhanced(ppo={"sequence_length": 48}), "ppo.sequence_length", "rollout_steps 128 .* for instance to 32"),
        (enhanced(ppo={"minibatch_rows": 32}), "ppo.sequence_length", "minibatch_rows 32; set it for instance to 32"),
        (
            enhanced(data={"path": "x.csv", "bars": 9000}),
            "policy.band",
            "945 bars .* has 2820; lower it to at most 30",
        ),
        (enhanced(policy={"band": 4096}, **SMALL), "policy.band", "the shortest training segment has 23220; lower"),
        (enhanced(policy={"layers": 64}, data={"synthetic": {"bars": 9000}}), "policy.band", "lower policy.layers"),
    ],
)
def test_contradictions_between_keys_are_refused(raw: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        build_config(raw)
    assert caught.value.lines[0].startswith(f"{key}: ")


def test_what_only_a_transformer_reads_is_not_checked_without_one() -> None:
    sizes = {"heads": 3, "band": 4096, "layers": 64}
    config = build_config({"policy": sizes, "ppo": {"sequence_length": 7}})
    assert config.footprint().receptive_field == 1
    keys = ("policy.band", "policy.heads", "policy.layers", "ppo.sequence_length")
    assert [line.partition(":")[0] for line in cautions(config)][-4:] == sorted(keys, key=KEYS.index)


def test_the_longest_band_that_is_told_fits_and_the_next_does_not() -> None:
    def built(band: int) -> SweepConfig:
        return build_config(enhanced(policy={"band": band}, data={"synthetic": {"bars": 9000}}))

    [line] = mistakes_of(enhanced(data={"synthetic": {"bars": 9000}}))
    most = int(line.rpartition(" ")[2])
    assert built(most).footprint().receptive_field == (2 * (most - 1) + 1) * 15
    with pytest.raises(ConfigError, match=r"policy\.band"):
        built(most + 1)


def test_a_file_of_unknown_length_is_left_to_the_reader() -> None:
    assert build_config({"data": {"path": "bars.csv"}, "validation": {"embargo": 100_000}}).data.bars is None


def test_a_key_wrong_by_itself_is_told_once() -> None:
    assert len(mistakes_of({"ppo": {"environments": 0, "path_group": 5}})) == 1


def test_overrides_replace_values_in_their_order(tmp_path: Path) -> None:
    path = write(tmp_path, "ppo: {gamma: 0.9}\nsearch: {space: {ppo.clip: {uniform: [0.1, 0.3]}}}\n")
    config = load_config(
        path,
        [
            "ppo.gamma=0.95",
            "ppo.gamma=0.99",
            "policy.hidden=[32, 32]",
            "name=other",
            "search.space.ppo.learning_rate={loguniform: [1e-4, 1e-2]}",
            "search.space.ppo.clip=null",
            "data.path=a=b.csv",
        ],
    )
    assert config.ppo.gamma == 0.99
    assert config.policy.hidden == (32, 32)
    assert config.name == "other"
    assert list(config.parameters()) == ["ppo.learning_rate"]
    assert config.data.path == "a=b.csv"


def test_wrong_overrides_are_told_with_the_mistakes_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "sead: 1\ndata: {path: x.csv}\n")
    overrides = ["ppo.gamma", "=3", "ppo.clip=[1", "ppo.gamma=2", "data.path.x=1", "seed.x.y=1"]
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    lines = caught.value.lines
    starts = (
        "--set ppo.gamma:",
        "--set =3:",
        "--set ppo.clip=[1:",
        "--set data.path.x=1:",
        "sead:",
        "ppo.gamma:",
    )
    assert all(any(line.startswith(start) for line in lines) for start in starts)


def test_resolve_gives_the_configuration_of_a_trial() -> None:
    config = build_config({"search": {"space": {"ppo.lambda": {"uniform": [0.9, 0.97]}}}})
    trial = resolve(config, {"ppo.lambda": 0.93, "policy.hidden": [32], "trading.decision_interval": 5})
    assert trial.ppo.lambda_ == 0.93
    assert trial.policy.hidden == (32,)
    assert trial.trading_rules().decision_interval == 5
    assert config.ppo.lambda_ == 0.95
    assert trial.changed_keys(config) == ["trading.decision_interval", "policy.hidden", "ppo.lambda"]
    assert resolve(config, {}) == config


def test_resolve_refuses_what_no_trial_may_change() -> None:
    config = build_config({})
    with pytest.raises(ConfigError) as caught:
        resolve(
            config, {"ppo.gama": 0.9, "trading.fee_rate": 0.0, "ppo.gamma": 2.0, "data.bars": 5, "ppo.path_group": 3}
        )
    starts = [line.partition(":")[0] for line in caught.value.lines]
    assert sorted(starts) == ["data.bars", "ppo.gama", "ppo.gamma", "ppo.path_group", "trading.fee_rate"]


def test_trading_keys_are_the_rules_of_the_simulator() -> None:
    config = SweepConfig()
    assert config.trading_rules() == TradingRules()
    held = set(config.trading.model_dump()) | {"reference_volatility"}
    assert held == set(TradingRules.__dataclass_fields__)


@pytest.mark.parametrize("name", [name for name in SweepConfig().trading.model_dump() if name != "masks"])
def test_trading_ranges_agree_with_the_rules(name: str) -> None:
    """A value that one of the two refuses, the other refuses too."""
    info = find_leaf(SweepConfig, f"trading.{name}")
    assert info is not None
    limits = [value for each in info.metadata for value in vars_of(each)]
    for value in [*limits, *(value * 2 + 1 for value in limits), *(value - 1 for value in limits), True]:
        held = int(value) if info.annotation is int and not isinstance(value, bool) else value
        assert accepts(lambda held=held: type(SweepConfig().trading)(**{name: held}), ValidationError) == accepts(
            lambda held=held: TradingRules(**{name: held}), ConfigError, other_than=f"trading.{name}: "
        )


def vars_of(limit: Any) -> list[float]:
    return [getattr(limit, side) for side in ("ge", "gt", "le", "lt") if hasattr(limit, side)]


def accepts(build: Any, refusal: type[Exception], other_than: str = "") -> bool:
    try:
        build()
    except refusal as error:
        text = str(error)
        return bool(other_than) and "range" not in text and "not a" not in text
    return True


@pytest.mark.parametrize(
    ("raw", "masks"),
    [
        ({"variant": "standard"}, "none"),
        ({"variant": "maskable"}, "state"),
        ({"variant": "enhanced-maskable"}, "risk"),
        ({"variant": "enhanced-maskable", "trading": {"masks": "none"}}, "none"),
    ],
)
def test_the_variant_decides_the_masks_unless_they_are_set(raw: dict[str, Any], masks: str) -> None:
    assert build_config(raw).trading_rules().masks == masks


def test_the_footprint_is_the_largest_of_the_search_space() -> None:
    raw = {"search": {"space": {"trading.decision_interval": {"choice": [5, 60, 15]}}}}
    config = build_config(raw)
    assert config.footprint().decision_interval == 60
    assert config.footprint().lookback == 390
    assert config.footprint(session_minutes=1440).lookback == 1439
    assert config.largest("trading.episode_length") == 1000
    assert build_config({**raw, "data": {"calendar": "24/7"}}).footprint().lookback == 1439


def test_the_fingerprint_follows_every_key_and_the_order_of_the_space() -> None:
    first = {"ppo.clip": {"uniform": [0.1, 0.3]}, "ppo.gamma": {"uniform": [0.9, 0.99]}}
    swapped = dict(reversed(first.items()))
    config, other = (build_config({"search": {"space": space}}) for space in (first, swapped))
    assert config.fingerprint() != other.fingerprint()
    assert config.changed_keys(other) == ["search.space"]
    assert build_config({"seed": 1}).fingerprint() != build_config({}).fingerprint()
    assert build_config({"ppo": {"max_grad_norm": 1}}).fingerprint() == (
        build_config({"ppo": {"max_grad_norm": 1.0}}).fingerprint()
    )


def test_doubtful_choices_are_cautioned() -> None:
    space = {"ppo.clip": {"uniform": [0.1, 0.3]}}
    gp = build_config({"search": {"sampler": "gp", "space": space}})
    assert any("asha" in line for line in cautions(gp))
    assert cautions(build_config({"search": {"sampler": "gp", "scheduler": "none", "space": space}})) == []
    unused = build_config({"policy": {"experts": 4}, "search": {"space": space}})
    assert any(line.startswith("policy.experts: ") for line in cautions(unused))
    assert any("the same" in line for line in cautions(build_config({})))


def test_a_configuration_is_frozen_and_travels() -> None:
    config = load_config(CONFIGS[0])
    with pytest.raises(ValidationError):
        config.seed = 3
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config
    assert copy.parameters() == config.parameters()
    assert SweepConfig.model_validate(config.model_dump(mode="json")) == config


def test_reading_a_configuration_does_not_import_ray() -> None:
    program = (
        "import sys; from sentio_rllib.config.loading import load_config; "
        f"load_config({str(CONFIGS[0])!r}); assert 'ray' not in sys.modules"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
