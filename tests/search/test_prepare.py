"""What a sweep runs on: the embedded market as configured, and cautions about markets that masks do not fit."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentio_rllib.config.loading import build_config
from sentio_rllib.errors import BarsError, ConfigError
from sentio_rllib.market.bars import write_bars
from sentio_rllib.market.synthetic import synthetic_market
from sentio_rllib.search.prepare import Prepared, prepare

BARS = 12_000


def prepared(synthetic: dict[str, Any], **sections: Any) -> Prepared:
    """What a sweep of an embedded market of these laws runs on."""
    shared: dict[str, Any] = {"trading": {"episode_length": 300}, "validation": {"folds": 2}}
    return prepare(build_config({"data": {"synthetic": {"bars": BARS, **synthetic}}} | shared | sections))


def cautions(found: Prepared) -> list[str]:
    return [note for note in found.notes if note.startswith("caution: risk masks")]


def test_masks_that_would_forbid_most_buys_are_told_before_the_sweep() -> None:
    found = prepared({"volatility": 3.0}, variant="enhanced-maskable")
    (line,) = cautions(found)
    bars, tape = found.bars, found.tape
    steps, session = np.diff(np.log(bars.close)), bars.sessions.session
    days = [steps[(session[1:] == day) & (session[:-1] == day)] for day in np.unique(session)]
    usual = np.median([np.sqrt(np.mean(day**2)) for day in days])
    assert 7e-4 < usual < 2.2e-3
    share = np.mean(tape.volatility[tape.warmup :] > 3.0 * 5e-4)
    assert 0.2 < share < 0.8
    assert f"forbid every Buy at {share:.0%} of the bars" in line
    assert "the volatility of a minute exceeds 1.5e-03" in line
    # to this market what 5e-4 is to QQQ, whose minutes have 3e-4
    assert f"features.reference_volatility={usual * 5 / 3:.1e} suits this market" in line
    # what is suggested helps
    suggested = float(re.findall(r"reference_volatility=(\S+)", line)[0])
    features = {"reference_volatility": suggested}
    assert cautions(prepared({"volatility": 3.0}, variant="enhanced-maskable", features=features)) == []
    loose = {"episode_length": 300, "risk_volatility": 9.0}
    assert cautions(prepared({"volatility": 3.0}, variant="enhanced-maskable", trading=loose)) == []


@pytest.mark.parametrize(
    ("volatility", "sections"),
    [
        (1.0, {"variant": "enhanced-maskable"}),
        (3.0, {"variant": "maskable"}),
        (3.0, {"variant": "enhanced-maskable", "trading": {"episode_length": 300, "masks": "state"}}),
    ],
    ids=["a usual market", "a variant without risk masks", "masks that are not of risk"],
)
def test_no_caution_where_masks_fit_or_are_not_there(volatility: float, sections: dict[str, Any]) -> None:
    assert cautions(prepared({"volatility": volatility}, **sections)) == []


@pytest.mark.parametrize("law", [{"drift": 2e-6}, {"volatility": 2.0}, {"recentre": False}, {}])
def test_the_laws_of_the_embedded_market_are_those_of_the_configuration(law: dict[str, Any]) -> None:
    found = prepared({"seed": 4, "edge": 1e-4, **law})
    shared: dict[str, Any] = {"seed": 4, "edge": 1e-4, "boundaries": found.splits.boundaries()}
    assert found.bars.fingerprint == synthetic_market(BARS, **shared, **law).bars.fingerprint
    plain = synthetic_market(BARS, **shared).bars.fingerprint
    assert (found.bars.fingerprint == plain) == (not law)


def test_what_trials_receive_ends_before_the_holdout() -> None:
    found = prepared({})
    assert found.tape.n == found.splits.development.stop < found.bars.n == BARS


@pytest.mark.parametrize(("key", "value"), [("max_participation", 0.01), ("impact", 0.5)])
def test_limits_by_volume_need_volume(tmp_path: Path, key: str, value: float) -> None:
    bars = synthetic_market(BARS, seed=0).bars
    path = write_bars(dataclasses.replace(bars, volume=np.zeros(bars.n)), tmp_path / "SPX.feather")
    trading = {"episode_length": 300, key: value}
    raw: dict[str, Any] = {"data": {"path": str(path)}, "trading": trading, "validation": {"folds": 2}}
    with pytest.raises(
        BarsError, match=rf"no bar has volume, and trading\.{key}: {value:g} cannot be simulated"
    ) as caught:
        prepare(build_config(raw))
    assert len(caught.value.lines) == 1
    told = raw | {"data": {"path": str(path), "volume": "none"}}
    with pytest.raises(ConfigError, match=rf"trading\.{key}: {value:g} needs volume, and data\.volume is none"):
        build_config(told)
    assert not prepare(build_config(told | {"trading": {"episode_length": 300}})).bars.volume.any()


def test_a_refusal_of_a_file_names_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,open,high,low,close\n1709821800,1.1,1.2,1.0,1.1\n")
    config = build_config({"data": {"path": str(path)}})
    with pytest.raises(BarsError, match=r"\(here --set data\.columns=\.\.\., --set data\.volume=\.\.\.\)"):
        prepare(config)
