"""The tape: its fields, cuts that equal a tape of fewer bars, sharing without copies, fingerprints."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.feather
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentio_rllib.errors import ConfigError
from sentio_rllib.market.feature_set import MULTISCALE
from sentio_rllib.market.features import compute_market_features, volatility
from sentio_rllib.market.ohlcv import Bars
from sentio_rllib.market.sessions import assign_sessions
from sentio_rllib.market.tape import Tape, TapeTensors, build_tape
from tests.strategies import irregular_bars, make_bars, session_minutes

REAL_BARS = Path(__file__).parents[3] / "shared/data/TQQQ_1m_2025-04_2025-10.feather"
ARRAYS = [field.name for field in fields(Tape) if field.name not in {"warmup", "sessions_per_year"}]


@pytest.fixture(scope="module")
def bars() -> Bars:
    """A full day, a half day (2024-11-29) and a full day, with a hole of 90 minutes in the last."""
    grid = session_minutes("2024-11-27", "2024-12-02")
    return make_bars(np.delete(grid, slice(700, 790)), seed=1)


@pytest.fixture(scope="module")
def tape(bars: Bars) -> Tape:
    return build_tape(bars, reference_volatility=5e-4)


def assert_equal(one: Tape, other: Tape) -> None:
    for field in fields(Tape):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if field.name == "features":
            np.testing.assert_allclose(first, second, rtol=0, atol=1e-7)
        elif field.name in {"volatility", "dollar_volume"}:
            np.testing.assert_allclose(first, second, rtol=1e-12)
        else:
            np.testing.assert_array_equal(first, second, err_msg=field.name)
            assert np.asarray(first).dtype == np.asarray(second).dtype


def read_only(tape: Tape) -> Tape:
    """The tape as an object store hands it out: unpickled around read-only buffers."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(tape, protocol=5, buffer_callback=buffers.append)
    stored = [bytes(buffer.raw()) for buffer in buffers]
    restored: Tape = pickle.loads(data, buffers=stored)
    return restored


def test_fields(bars: Bars, tape: Tape) -> None:
    assert tape.n == len(tape) == bars.n == 900
    dtypes: dict[str, Any] = dict.fromkeys(("open", "close", "volatility", "dollar_volume"), np.float64)
    dtypes |= dict.fromkeys(("session", "minute", "minutes_left"), np.int32)
    dtypes |= {"timestamp": np.int64, "cuts": np.int64, "features": np.float32, "session_last": np.bool_}
    assert {name: getattr(tape, name).dtype for name in dtypes} == dtypes
    assert tape.features.shape == (900, len(MULTISCALE))
    np.testing.assert_array_equal(tape.features, compute_market_features(bars))
    np.testing.assert_array_equal(tape.volatility, volatility(bars.close))
    np.testing.assert_array_equal(tape.session_labels.astype(str), ["2024-11-27", "2024-11-29", "2024-12-02"])
    assert (tape.warmup, tape.sessions_per_year) == (390, 252)
    assert tape.cuts.tolist() == [700]


def test_minutes_left_and_last_bars_follow_the_sessions(tape: Tape) -> None:
    assert tape.minutes_left[[0, 389, 390, 599, 600, 899]].tolist() == [389, 0, 209, 0, 389, 0]
    assert np.flatnonzero(tape.session_last).tolist() == [389, 599, 899]


def test_reference_volatility_is_checked(bars: Bars) -> None:
    with pytest.raises(ConfigError, match="reference_volatility is 0"):
        build_tape(bars, reference_volatility=0.0)


@settings(max_examples=25, deadline=None)
@given(bars=irregular_bars(), data=st.data())
def test_a_cut_equals_the_tape_of_fewer_bars(bars: Bars, data: st.DataObject) -> None:
    stop = data.draw(st.integers(1, bars.n))
    cut = build_tape(bars, reference_volatility=5e-4).cut(stop)
    alone = build_tape(bars.slice(0, stop), reference_volatility=5e-4)
    assert_equal(cut, alone)
    assert cut.session_last[-1]


@pytest.mark.parametrize(
    ("stop", "last", "sessions", "cuts"),
    [
        (900, [389, 599, 899], 3, [700]),
        (701, [389, 599, 700], 3, [700]),
        (700, [389, 599, 699], 3, []),
        (600, [389, 599], 2, []),
        (100, [99], 1, []),
    ],
)
def test_the_ends_of_a_cut(tape: Tape, stop: int, last: list[int], sessions: int, cuts: list[int]) -> None:
    cut = tape.cut(stop)
    assert cut.n == stop
    assert np.flatnonzero(cut.session_last).tolist() == last
    assert cut.session_labels.size == sessions
    assert cut.cuts.tolist() == cuts
    assert np.flatnonzero(tape.session_last).tolist() == [389, 599, 899]


def test_a_cut_shares_memory_but_does_not_carry_what_it_cut_off(tape: Tape) -> None:
    cut = tape.cut(400)
    assert np.shares_memory(cut.features, tape.features)
    assert cut.features.flags.c_contiguous
    assert len(pickle.dumps(cut)) < 0.5 * len(pickle.dumps(tape))


@pytest.mark.parametrize("stop", [0, -1, 901])
def test_a_cut_outside_the_tape_is_refused(tape: Tape, stop: int) -> None:
    with pytest.raises(IndexError, match=r"must be 1 \.\. 900"):
        tape.cut(stop)


def test_tensors_have_the_same_names_and_values(tape: Tape) -> None:
    tensors = tape.tensors()
    assert tensors.n == tape.n
    assert tensors.device == torch.device("cpu")
    for field in fields(TapeTensors):
        np.testing.assert_array_equal(getattr(tensors, field.name), getattr(tape, field.name))
    assert {field.name for field in fields(Tape)} - {field.name for field in fields(TapeTensors)} == {"session_labels"}
    assert tape.tensors("meta").features.device.type == "meta"


def test_tensors_of_read_only_arrays_neither_warn_nor_copy(tape: Tape) -> None:
    shared = read_only(tape)
    assert not shared.features.flags.writeable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensors = shared.tensors()
    for name in ARRAYS[:-1]:
        assert getattr(tensors, name).data_ptr() == getattr(shared, name).__array_interface__["data"][0]


def test_other_warnings_are_not_swallowed(tape: Tape) -> None:
    before = list(warnings.filters)
    tape.tensors()
    assert warnings.filters == before


def test_pickling_keeps_everything(tape: Tape) -> None:
    for restored in (pickle.loads(pickle.dumps(tape)), read_only(tape), read_only(tape.cut(tape.n))):
        assert_equal(restored, tape)
        assert restored.fingerprint == tape.fingerprint


def test_the_fingerprint_sees_every_field(tape: Tape) -> None:
    prints = {tape.fingerprint, replace(tape, warmup=391).fingerprint}
    prints.add(replace(tape, sessions_per_year=365).fingerprint)
    for name in ARRAYS:
        values = getattr(tape, name).copy()
        values[0] = values[0] ^ True if values.dtype == np.bool_ else values[0] + 1
        prints.add(replace(tape, **{name: values}).fingerprint)
    prints.add(tape.cut(899).fingerprint)
    assert len(prints) == len(ARRAYS) + 4
    assert replace(tape, features=np.asfortranarray(tape.features)).fingerprint == tape.fingerprint


@pytest.mark.skipif(not REAL_BARS.exists(), reason="the real TQQQ bars lie beside the project, not in it")
def test_real_bars_make_a_finite_tape() -> None:
    table = pyarrow.feather.read_table(REAL_BARS).to_pandas()
    timestamp = table["timestamp"].dt.tz_convert(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    _, regular = assign_sessions(timestamp)
    sessions, _ = assign_sessions(timestamp[regular])
    prices = (table[name].to_numpy()[regular] for name in ("open", "high", "low", "close", "volume"))
    tape = build_tape(Bars("TQQQ", timestamp[regular], *prices, sessions), reference_volatility=5e-4)
    assert tape.n == 53_640
    assert np.isfinite(tape.features).all()
    warm = tape.features[tape.warmup :]
    assert (warm.std(axis=0) > 0.25).all()
    assert (warm.std(axis=0) < 1.0).all()
