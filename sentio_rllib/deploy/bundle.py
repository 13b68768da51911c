"""A bundle: the folder that a trained policy is handed on in, written whole and read only as it was written.

It holds tensors, text and an ONNX graph. Reading it opens no pickle: weights come from safetensors alone, and
``{name}.pth`` is there for programs that want it (``torch.load(..., weights_only=True)``).
"""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from sentio_rllib import __version__
from sentio_rllib.errors import BarsError, CheckpointError, ConfigError
from sentio_rllib.market.calendars import check_calendar
from sentio_rllib.market.feature_set import (
    FEATURE_SETS,
    FeatureSet,
    feature_set,
    set_of_digest,
)
from sentio_rllib.policy.actor_critic import ActorCritic
from sentio_rllib.policy.checkpoint import MANIFEST, WEIGHTS, sha256_of, verify_manifest, write_manifest
from sentio_rllib.policy.deciding import with_weights
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.seeding import Member
from sentio_rllib.trading.rules import TradingRules

FORMAT = "sentio-bundle/v1"
ONNX = "model.onnx"
CARD = "MODEL_CARD.md"
_METADATA = "_metadata.json"


class MarketHours(TypedDict):
    """Which bars a policy reads: `calendar` (XNYS, 24/7), `hours` (regular, all), and its longest session."""

    calendar: str
    hours: str
    session_minutes: int


@dataclass(frozen=True)
class Bundle:
    """A policy and everything that it decides by.

    Attributes
    ----------
    name
        Of the model; its files are ``{name}.pth`` and ``{name}_metadata.json``.
    network
        M members, in eval mode, float32. Their policy is the mean of their distributions.
    rules
        That training and validation used.
    reference_volatility
        That the market features are measured against.
    calendar
        Exchange calendar of the bars.
    hours
        ``regular`` or ``all``.
    session_minutes
        Minutes of the calendar's longest session.
    metadata
        The whole of ``{name}_metadata.json``.
    """

    name: str
    network: ActorCritic
    rules: TradingRules
    reference_volatility: float
    calendar: str
    hours: str
    session_minutes: int
    metadata: dict[str, Any]

    @property
    def bars_needed(self) -> int:
        """Bars that a decision reads, those its features look back on included."""
        spec = self.network.spec
        return feature_set(spec.features).lookback(self.session_minutes) + spec.receptive_field


def write_bundle(  # noqa: PLR0917  # the parts of a bundle, each of a type of its own
    folder: Path,
    name: str,
    weights: Mapping[str, torch.Tensor],
    spec: PolicySpec,
    members: Sequence[Member],
    rules: TradingRules,
    *,
    market: MarketHours,
    metadata: Mapping[str, Any],
) -> None:
    """Write a bundle; `folder` appears once all of it is there.

    Parameters
    ----------
    folder
        To make; must not exist.
    name
        Of the model.
    weights
        Of `members` networks of the shape `spec`, each tensor ``[M, ...]``; written as float32.
    spec, members, rules
        Shape of the networks, (seed, fold) of each, and the rules that they were trained under.
    market
        Which bars they read.
    metadata
        Where the policy comes from and what is known of it, plain JSON values without NaN; what
        :func:`sentio_rllib.deploy.card.model_card` reads of it is told there. Keys that the bundle itself writes
        (`spec`, `members`, `rules`, `market`, `features`, `versions`, ...) win.

    Raises
    ------
    CheckpointError
        `folder` exists, or the weights do not fit `spec`.
    OSError
        It cannot be written.
    """
    # both are heavy, and a program that only loads bundles need not have them installed
    from sentio_rllib.deploy.card import model_card  # noqa: PLC0415  # loading needs none of it
    from sentio_rllib.deploy.export import DecisionModel, export_onnx  # noqa: PLC0415  # loading needs none of it

    if folder.exists():
        raise CheckpointError(f"{folder}: exists already; choose another folder or remove it")
    tensors = {key: value.detach().cpu().float().contiguous().clone() for key, value in weights.items()}
    network = with_weights(spec, members, tensors)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
        made = Path(place) / "bundle"
        made.mkdir()
        (made / WEIGHTS).write_bytes(save(tensors))  # `save_file` makes files that only their owner reads
        torch.save(tensors, made / f"{name}.pth")
        export_onnx(DecisionModel(network), made / ONNX)
        written = dict(metadata) | _own_metadata(name, spec, members, rules, market)
        written["sha256"] = {path.name: sha256_of(path) for path in sorted(made.iterdir())}
        text = json.dumps(written, indent=1, sort_keys=True, allow_nan=False)
        (made / f"{name}{_METADATA}").write_text(text + "\n", encoding="utf-8")
        (made / CARD).write_text(model_card(written), encoding="utf-8")
        write_manifest(made)
        made.rename(folder)


def _own_metadata(
    name: str, spec: PolicySpec, members: Sequence[Member], rules: TradingRules, market: MarketHours
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": name,
        "variant": spec.variant,
        "spec": asdict(spec) | {"hidden": list(spec.hidden)},
        "members": [list(member) for member in members],
        "rules": asdict(rules),
        "reference_volatility": rules.reference_volatility,
        "market": dict(market),
        "features": feature_set(spec.features).description(),
        "versions": {
            "sentio_rllib": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }


def load_bundle(folder: Path) -> Bundle:
    """Return a bundle that is what was written, for the features of this version.

    Every file of the manifest is compared with its SHA-256 before anything is read. Files that the manifest does
    not name are not opened.

    Raises
    ------
    CheckpointError
        Something is missing or altered, the manifest names files outside the folder, the features are of another
        version, the market is none that is known, or the weights do not fit; says what differs.
    """
    name = _named_in(folder)
    verify_manifest(folder)
    metadata = _read_object(folder / f"{name}{_METADATA}")
    told = metadata.get("format")
    if told != FORMAT:
        raise CheckpointError(f"{folder}: its format is {told!r}, this version reads {FORMAT!r}; pull it again")
    if metadata.get("name") != name:
        raise CheckpointError(f"{folder}: {name}{_METADATA} is of {metadata.get('name')!r}; do not rename its files")
    features = check_features(folder, metadata)
    try:
        shape, market = {"neck": 0} | metadata["spec"], metadata["market"]  # before there were necks
        spec = PolicySpec(**shape | {"hidden": tuple(shape["hidden"]), "features": features.name})
        members = [(int(seed), int(fold)) for seed, fold in metadata["members"]]
        rules = TradingRules(**metadata["rules"])
        fields = (float(metadata["reference_volatility"]), *_market_of(market))
        weights = load_file(folder / WEIGHTS)
        network = with_weights(spec, members, weights)
    except SafetensorError as error:
        raise CheckpointError(f"{folder}: {WEIGHTS} holds no tensors ({error}); pull the model again") from error
    except (
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
        StopIteration,
        ConfigError,
        BarsError,
    ) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"cannot be used ({error})"
        raise CheckpointError(f"{folder}: {name}{_METADATA} {what}; {_way_out(metadata)}") from error
    return Bundle(name, network, rules, *fields, metadata)


def _market_of(market: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return calendar, hours and session minutes, which a feed goes by."""
    calendar, hours, minutes = str(market["calendar"]), str(market["hours"]), int(market["session_minutes"])
    check_calendar(calendar)
    if hours not in {"regular", "all"} or minutes < 1:
        raise ValueError(f"market: hours {hours!r}, allowed regular and all; session_minutes {minutes}, from 1")
    return calendar, hours, minutes


def check_features(folder: Path, metadata: Mapping[str, Any]) -> FeatureSet:
    """Return the features that something was made with, refusing those that this version does not have.

    Raises
    ------
    CheckpointError
        Names what it was made with, and what there is.
    """
    then = metadata.get("features")
    then = then if isinstance(then, Mapping) else {}
    version, digest = str(then.get("version")), str(then.get("hash"))
    found = set_of_digest(digest)
    if found is None or found.version != version:
        known = ", ".join(f"{each.version} ({each.digest[:12]})" for each in FEATURE_SETS.values())
        raise CheckpointError(
            f"{folder}: made with features {version} ({digest[:12]}), this version has {known}; {_way_out(metadata)}"
        )
    return found


def _way_out(metadata: Mapping[str, Any]) -> str:
    versions = metadata.get("versions")
    made_by = versions.get("sentio_rllib") if isinstance(versions, Mapping) else None
    return f"install sentio_rllib {made_by or '(the version that made it)'}, or pull the model again"


def _named_in(folder: Path) -> str:
    """Return the name of the model whose files a manifest lists, having checked that it lists nothing else's place."""
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: {MANIFEST} is missing; this is no bundle, or not all of it was copied; pull "
            "makes bundles, of sweeps alone"
        )
    listed = _read_object(path).get("sha256")
    if not isinstance(listed, dict):
        raise CheckpointError(f"{path}: lists no files; copy the folder whole")
    outside = [file for file in listed if not _is_plain(file)]
    if outside:
        raise CheckpointError(f"{path}: {outside[0]!r} is no file of the folder itself; do not trust this bundle")
    names: list[str] = [file.removesuffix(_METADATA) for file in listed if file.endswith(_METADATA)]
    if len(names) != 1:
        raise CheckpointError(
            f"{path}: lists {len(names)} files NAME{_METADATA}, a bundle has one; pull the model again"
        )
    missing = [file for file in (WEIGHTS, f"{names[0]}.pth", ONNX, CARD) if file not in listed]
    if missing:
        raise CheckpointError(f"{path}: does not list {', '.join(missing)}; this is no whole bundle")
    return names[0]


def _is_plain(file: str) -> bool:
    return file not in {"", ".", ".."} and not set(file) & set("/\\\0")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds {type(content).__name__}, not an object; copy it again")
    return content
