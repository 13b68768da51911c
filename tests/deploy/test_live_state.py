"""The state of a live policy: saved, restored, and refused where it does not fit."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentio_rllib.deploy.account import Portfolio
from sentio_rllib.deploy.cache import EncoderCache
from sentio_rllib.deploy.export import DecisionModel
from sentio_rllib.deploy.live import TradingPolicy
from sentio_rllib.errors import CheckpointError
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.tape import build_tape
from sentio_rllib.policy.variants import PolicySpec
from tests.deploy.replay import SMALL, bar_at, bundle_of, busy_network, small_bars
from tests.deploy.warm import NEEDED, RULES, SPEC, fresh, same, told, warm

# --- decisions ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bars() -> Bars:
    return small_bars()


def trade_on(policy: TradingPolicy, bars: Bars, first: int, stop: int) -> list[list[Any]]:
    """Feed bars and decide with an account that changes; return all that was told."""
    found = []
    for index in range(first, stop):
        policy.update(bar_at(bars, index))
        if policy.decision_due:
            shares = float(index // 15 % 3) * 100.0
            found.append(told(policy.decide(Portfolio(100_000.0 - 290.0 * shares, shares))))
    return found


def test_a_restored_policy_goes_on_as_if_it_had_never_stopped(bars: Bars, tmp_path: Path) -> None:
    policy = warm(bars)
    trade_on(policy, bars, NEEDED + 101, NEEDED + 208)
    path = policy.save_state(tmp_path / "state.npz")
    assert [each.name for each in tmp_path.iterdir()] == ["state.npz"]
    restored, plain = fresh(), fresh()
    restored.load_state(path)
    plain.set_state(policy.get_state())
    assert same(restored.get_state(), policy.get_state())
    wanted = trade_on(policy, bars, NEEDED + 208, NEEDED + 700)
    assert len(wanted) > 30
    found = trade_on(restored, bars, NEEDED + 208, NEEDED + 700)
    assert trade_on(plain, bars, NEEDED + 208, NEEDED + 700) == found
    for one, other in zip(found, wanted, strict=True):  # the encoder reads its window anew: equal up to rounding
        assert one[:1] + one[2:4] == other[:1] + other[2:4]
        for values, others in zip([one[1], *one[4:]], [other[1], *other[4:]], strict=True):
            np.testing.assert_allclose(values, others, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"layers": 1}, {"layers": 3, "gated_residual": True}, {"shared": True}])
def test_what_was_encoded_goes_on_as_whole_windows(bars: Bars, changes: dict[str, Any]) -> None:
    network = busy_network(PolicySpec(variant="enhanced-maskable", **(SMALL | changes)))
    model = DecisionModel(network)
    cache = EncoderCache(model)
    features = torch.from_numpy(build_tape(bars).features)
    with torch.no_grad():
        for number, stop in enumerate(range(700, 1_000, 15)):
            window = features[stop - model.bars : stop]
            found = cache.advance(window) if number else cache.fill(window)
            torch.testing.assert_close(found, model.contexts(window.unsqueeze(0)), atol=2e-6, rtol=0.0)


@pytest.mark.parametrize("seen", [0, 1, 300])
def test_a_policy_that_is_not_ready_is_restored_as_well(bars: Bars, seen: int) -> None:
    policy, restored = fresh(), fresh()
    for index in range(seen):
        policy.update(bar_at(bars, index))
    restored.set_state(policy.get_state())
    wanted = trade_on(policy, bars, seen, NEEDED + 40)
    assert trade_on(restored, bars, seen, NEEDED + 40) == wanted


def test_states_that_do_not_fit_are_refused(bars: Bars, tmp_path: Path) -> None:
    state = warm(bars).get_state()
    policy = warm(bars, NEEDED + 5)
    before = policy.get_state()
    other = TradingPolicy(bundle_of(busy_network(SPEC), RULES.replace(episode_length=200)))
    with pytest.raises(CheckpointError, match="episode_length is 100, this policy has 200"):
        other.set_state(state)
    with pytest.raises(CheckpointError, match=r"account\.peak, bars missing"):
        policy.set_state({key: value for key, value in state.items() if key not in ("bars", "account.peak")})
    for change, match in (
        ({"bars": np.zeros_like(state["bars"])}, "a price is not positive"),
        ({"stamps": state["stamps"][::-1]}, "stamps do not ascend"),
        ({"stamps": state["stamps"][1:]}, "bars is of shape"),
        ({"account.marks": np.ones(5)}, r"account\.marks is of shape \(5,\)"),
        ({"account.closes": state["account.closes"] * np.nan}, r"account\.closes is not finite"),
        ({"account.peak": "x"}, r"account\.peak holds"),
        ({"account.reported": 7}, r"account\.reported is 7, account\.bar 0"),
        ({"since_start": np.array([1, 2])}, "since_start holds int64 of 1 dimensions"),
        ({"calendar": np.array(["XNYS", "XNYS"])}, "calendar is"),
    ):
        with pytest.raises(CheckpointError, match=match):
            policy.set_state(state | change)
    path = policy.save_state(tmp_path / "state.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    for name, damaged in {"flipped": bytes(content), "cut": bytes(content[:500]), "empty": b""}.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match="no state of a policy can be read"):
            policy.load_state(tmp_path / name)
    np.savez(tmp_path / "pickled.npz", stamps=np.array([{}], dtype=object))
    for name in ("none.npz", "pickled.npz"):
        with pytest.raises(CheckpointError, match="no state of a policy can be read"):
            policy.load_state(tmp_path / name)
    assert same(before, policy.get_state())


def test_flipped_bits_of_a_state_are_one_kind_of_error(bars: Bars, tmp_path: Path) -> None:
    policy = warm(bars)
    content = policy.save_state(tmp_path / "state.npz").read_bytes()
    before = policy.get_state()
    with zipfile.ZipFile(tmp_path / "state.npz") as archive:
        heads = [info.header_offset + at for info in archive.infolist() for at in (0, 4, 8, 26)]
        heads += range(archive.start_dir, len(content), 41)
    refused = 0
    for place_of in heads:
        damaged = bytearray(content)
        damaged[place_of] ^= 1 << place_of % 8
        (tmp_path / "flipped").write_bytes(damaged)
        try:
            policy.load_state(tmp_path / "flipped")
        except CheckpointError:
            refused += 1
        assert same(before, policy.get_state())  # flips that zip does not read change nothing
    assert refused > 50
