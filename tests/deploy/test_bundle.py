"""Bundles: read as written, refused where anything differs, and nothing that they hold is ever run."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from sentio_rllib.deploy.bundle import MarketHours, load_bundle, write_bundle
from sentio_rllib.errors import CheckpointError
from sentio_rllib.market.feature_set import CLASSIC, MULTISCALE
from sentio_rllib.policy.actor_critic import ActorCritic
from sentio_rllib.policy.checkpoint import sha256_of, write_manifest
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.trading.rules import TradingRules
from tests.tiny_sweep import environment

SPEC = PolicySpec(variant="maskable", hidden=(8, 4))
MEMBERS = [(5, 0), (6, 1)]
RULES = TradingRules(fee_rate=0.0005, reference_volatility=3e-4, max_participation=0.1)
MARKET: MarketHours = {"calendar": "XNYS", "hours": "all", "session_minutes": 960}
FILES = ["model.safetensors", "m.pth", "m_metadata.json", "model.onnx", "MODEL_CARD.md"]
METADATA: dict[str, Any] = {
    "trial_id": "trial_0002",
    "combine": "refit",
    "env_steps": 4096,
    "params": {"ppo.learning_rate": 0.00123456},
    "cv_score": 1.5,
    "data": {
        "source": "QQQ.feather",
        "symbol": "QQQ",
        "first": "2020-01-02T14:30Z",
        "last": "2020-08-11T18:59Z",
        "bars": 60000,
        "fingerprint": "f" * 64,
    },
    "folds": [{"fold": 0, "part": "train", "first": "2020-01-03T14:30Z", "last": "2020-06-26T13:59Z", "bars": 35025}],
    "cv": {"metrics": {"sharpe": 0.71, "win_rate": None}, "baselines": {"hold": {"sharpe": 0.42}}},
    "holdout": {"opened": True, "why": "", "metrics": {"sharpe": -0.3}, "baselines": {"hold": {"sharpe": 0.2}}},
    "evidence": {"verdict": "not supported", "reasons": ["deflated Sharpe ratio 0.4, needed 0.95 or more"]},
}


def write(folder: Path, **changes: Any) -> Path:
    weights = ActorCritic(SPEC, MEMBERS).state_dict()
    write_bundle(folder, "m", weights, SPEC, MEMBERS, RULES, market=MARKET, metadata=METADATA | changes)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("models") / "m")


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    shutil.copytree(written, tmp_path / "m")
    return tmp_path / "m"


def change_metadata(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the metadata and write a manifest that matches, as somebody would who knows how."""
    path = folder / "m_metadata.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    write_manifest(folder)


def test_a_bundle_is_read_as_it_was_written(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == sorted([*FILES, "manifest.json"])
    assert len({path.stat().st_mode for path in written.iterdir()}) == 1  # who may read one may read all
    bundle = load_bundle(written)
    assert (bundle.name, bundle.rules, bundle.reference_volatility) == ("m", RULES, 3e-4)
    assert (bundle.calendar, bundle.hours, bundle.session_minutes) == ("XNYS", "all", 960)
    assert bundle.network.spec == SPEC
    assert bundle.network.members == MEMBERS
    assert not bundle.network.training
    expected = ActorCritic(SPEC, MEMBERS).state_dict()
    for name, value in bundle.network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name])


def test_a_bundle_of_before_is_read_with_the_features_and_without_the_neck_that_it_had(tmp_path: Path) -> None:
    spec = PolicySpec(
        variant="enhanced-maskable", hidden=(8,), features="classic", d_model=8, heads=2, layers=1, band=3, neck=0
    )
    weights = ActorCritic(spec, MEMBERS).state_dict()
    write_bundle(tmp_path / "m", "m", weights, spec, MEMBERS, RULES, market=MARKET, metadata=METADATA)

    def as_before(told: dict[str, Any]) -> None:
        del told["spec"]["features"], told["spec"]["neck"], told["features"]["set"]

    change_metadata(tmp_path / "m", as_before)
    bundle = load_bundle(tmp_path / "m")
    assert bundle.network.spec == spec
    assert all(torch.equal(value, weights[name]) for name, value in bundle.network.state_dict().items())


def test_the_metadata_say_what_it_is_made_of(written: Path) -> None:
    told = load_bundle(written).metadata
    assert {key: told[key] for key in METADATA} == METADATA
    assert told["features"] == MULTISCALE.description()
    assert set(told["versions"]) == {"sentio_rllib", "torch", "python"}
    assert told["sha256"] == {name: sha256_of(written / name) for name in ("m.pth", "model.onnx", "model.safetensors")}


def test_the_pth_file_holds_the_same_tensors_and_nothing_else(written: Path) -> None:
    tensors = torch.load(written / "m.pth", weights_only=True)
    expected = load_file(written / "model.safetensors")
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_other_weights_are_written_as_float32_and_those_that_do_not_fit_not_at_all(tmp_path: Path) -> None:
    weights = {name: value.double() for name, value in ActorCritic(SPEC, MEMBERS).state_dict().items()}
    with pytest.raises(CheckpointError, match="do not fit"):
        write_bundle(tmp_path / "n", "n", weights, SPEC, MEMBERS[:1], RULES, market=MARKET, metadata={})
    assert not list(tmp_path.iterdir())
    write_bundle(tmp_path / "n", "n", weights, SPEC, MEMBERS, RULES, market=MARKET, metadata={})
    assert load_bundle(tmp_path / "n").network.dtype == torch.float32
    card = (tmp_path / "n" / "MODEL_CARD.md").read_text()
    assert "**No verdict was reached about this model: it was not selected by a sweep." in card
    with pytest.raises(CheckpointError, match="exists already"):
        write_bundle(tmp_path / "n", "n", weights, SPEC, MEMBERS, RULES, market=MARKET, metadata={})


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_or_a_missing_file_is_named(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=rf"{name} is not what was written \(SHA-256 differs\)"):
        load_bundle(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load_bundle(folder)
    write_manifest(folder)  # a manifest of what is left
    with pytest.raises(CheckpointError, match=rf"does not list {name}|lists 0 files NAME_metadata\.json"):
        load_bundle(folder)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"sha256": []}', "{}"])
def test_without_a_whole_manifest_it_is_no_bundle(folder: Path, content: str | None) -> None:
    (folder / "manifest.json").unlink()
    if content is not None:
        (folder / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json.* (is missing|cannot be read|not an object|no files)"):
        load_bundle(folder)


@pytest.mark.parametrize("outside", ["../secret", "/etc/hostname", "a/../../secret", "..", "sub/file", "..\\secret"])
def test_a_manifest_that_names_files_outside_is_refused_before_they_are_read(
    folder: Path, outside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "secret").write_text("x")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][outside] = sha256_of(folder.parent / "secret")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    hashed: list[Path] = []
    monkeypatch.setattr("sentio_rllib.policy.checkpoint.sha256_of", hashed.append)
    with pytest.raises(CheckpointError, match="is no file of the folder itself"):
        load_bundle(folder)
    assert hashed == []


def test_a_name_that_no_file_can_have_is_told(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["a" * 300] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"aaa cannot be read \(File name too long\); copy the folder whole"):
        load_bundle(folder)


@pytest.mark.parametrize(("key", "other"), [("version", "features/v0"), ("hash", "0" * 64)])
def test_other_features_are_refused_and_both_named(folder: Path, key: str, other: str) -> None:
    change_metadata(folder, lambda told: told["features"].update({key: other}))
    with pytest.raises(CheckpointError) as caught:
        load_bundle(folder)
    then = {"version": MULTISCALE.version, "hash": MULTISCALE.digest} | {key: other}
    assert f"made with features {then['version']} ({then['hash'][:12]})" in str(caught.value)
    known = f"this version has features/v1 ({CLASSIC.digest[:12]}), features/v2 ({MULTISCALE.digest[:12]})"
    assert f"{known}; install sentio_rllib 0.1.0" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told.pop("format"), "its format is None"),
        (lambda told: told.pop("features"), "made with features None"),
        (lambda told: told.pop("rules"), "m_metadata.json has no 'rules'"),
        (lambda told: told["rules"].update(fee_rate=-1.0), "fee_rate: -1.0 is out of range"),
        (lambda told: told["rules"].update(leverage=2.0), "unexpected keyword argument 'leverage'"),
        (lambda told: told["spec"].update(variant="dqn"), "unknown variant 'dqn'"),
        (lambda told: told["spec"].update(hidden=[9, 4]), "weights do not fit"),
        (lambda told: told["spec"].update(hidden=[-9, 4]), "cannot be used"),
        (lambda told: told.update(members=[[5, 0]]), "weights do not fit"),
        (lambda told: told.update(members=[[5]]), "cannot be used"),
        (lambda told: told["market"].update(session_minutes=float("inf")), "cannot be used"),
        (lambda told: told["market"].update(session_minutes=0), "session_minutes 0, from 1"),
        (lambda told: told["market"].update(hours="night"), "hours 'night', allowed regular and all"),
        (lambda told: told["market"].update(calendar="XNYC"), "did you mean 'XNYS'"),
        (lambda told: told.update(name="n"), "m_metadata.json is of 'n'"),
        (lambda told: told.pop("name"), "m_metadata.json is of None"),
    ],
)
def test_metadata_that_make_no_policy_are_told(
    folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    change_metadata(folder, change)
    with pytest.raises(CheckpointError) as caught:
        load_bundle(folder)
    assert message in str(caught.value)


class _Malicious:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def _pickled(bomb: _Malicious, path: Path) -> None:
    path.write_bytes(pickle.dumps(bomb, protocol=2))


def _run(path: Path) -> None:
    pickle.loads(path.read_bytes())


def _run_in_torch(path: Path) -> None:
    torch.load(path, weights_only=False)


@pytest.mark.parametrize(
    ("plant", "run"), [(_pickled, _run), (torch.save, _run_in_torch)], ids=["bare pickle", "torch's container"]
)
def test_a_planted_pickle_never_runs(
    folder: Path,
    tmp_path: Path,
    plant: Callable[[_Malicious, Path], object],
    run: Callable[[Path], None],
) -> None:
    mark = tmp_path / "ran"
    bomb = _Malicious(mark)
    plant(bomb, folder / "extra.pkl")
    run(folder / "extra.pkl")
    assert mark.exists()  # it does what it is planted for
    mark.unlink()

    plant(bomb, folder / "m.pth")
    with pytest.raises(CheckpointError, match=r"m\.pth is not what was written"):
        load_bundle(folder)
    write_manifest(folder)
    assert load_bundle(folder).name == "m"  # the .pth is hashed, not opened
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(folder / "m.pth", weights_only=True)
    plant(bomb, folder / "model.safetensors")
    write_manifest(folder)
    with pytest.raises(CheckpointError, match=r"model\.safetensors holds no tensors"):
        load_bundle(folder)
    assert not mark.exists()


def test_files_that_the_manifest_does_not_name_are_not_opened(folder: Path) -> None:
    (folder / "extra.pkl").mkdir()  # opening it would fail
    assert load_bundle(folder).name == "m"


def test_a_safetensors_file_without_tensors_is_refused(folder: Path) -> None:
    save_file({}, folder / "model.safetensors")
    write_manifest(folder)
    with pytest.raises(CheckpointError, match="weights do not fit"):
        load_bundle(folder)


PROBE = """
import sys
from pathlib import Path
from sentio_rllib.deploy import load_bundle
print(load_bundle(Path(sys.argv[1])).name)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmRSS"].split()[0]) / 1024)
print(sorted({name.partition(".")[0] for name in sys.modules} & {"ray", "onnx", "huggingface_hub", "optuna"}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the memory that Linux reports")
def test_loading_takes_no_ray_and_at_most_400_megabytes(written: Path) -> None:
    command = [sys.executable, "-c", PROBE, str(written)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment())
    name, megabytes, heavy = ran.stdout.splitlines()
    assert (name, heavy) == ("m", "[]")
    assert float(megabytes) <= 400.0


def test_the_card_says_plainly_that_the_evidence_does_not_support_it(written: Path) -> None:
    card = ModelCard.load(written / "MODEL_CARD.md")
    assert card.data.library_name == "sentio_rllib"
    assert "verdict: not supported" in (card.data.tags or [])
    text = card.text
    assert text.strip().startswith("# m\n\n**THE EVIDENCE DOES NOT SUPPORT THIS MODEL.")
    told = load_bundle(written).metadata
    for part in (
        "- deflated Sharpe ratio 0.4, needed 0.95 or more",
        "QQQ.feather (QQQ): 60,000 one-minute bars, 2020-01-02T14:30Z to 2020-08-11T18:59Z",
        "Fee 0.0500% of the notional",
        "orders up to 10.0% of the volume",
        "| 0 | train | 2020-01-03T14:30Z | 2020-06-26T13:59Z | 35025 |",
        "|  | validation | buy-and-hold there | holdout | buy-and-hold on the holdout |",
        "| Sharpe ratio | 0.71 | 0.42 | -0.30 | 0.20 |",
        "`ppo.learning_rate` 0.001235",
        "## Limits",
        told["sha256"]["model.safetensors"],
        MULTISCALE.digest,
        "f" * 64,
    ):
        assert part in text


@pytest.mark.parametrize(
    ("verdict", "claim"),
    [
        ("supported", "**The evidence supports that the way this model was selected has an edge on its bars.**"),
        ("not enough data", "**THE EVIDENCE DOES NOT SUPPORT THIS MODEL: there is not enough data to tell.**"),
    ],
)
def test_the_card_claims_what_the_verdict_says(written: Path, verdict: str, claim: str) -> None:
    from sentio_rllib.deploy.card import model_card  # noqa: PLC0415  # as write_bundle does

    told = load_bundle(written).metadata
    evidence = {"verdict": verdict, "reasons": ["so it is"]}
    card = model_card(told | {"evidence": evidence, "evidence_note": "It was measured elsewhere"})
    assert f"# m\n\n{claim}\n\n- so it is\n\nIt was measured elsewhere.\n" in card
    assert "Holdout: not opened for this model." in model_card(told | {"holdout": None})
