"""The tape transformer: a decision's embedding is that of its isolated receptive field, and reads nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentio_rllib.market.feature_set import MULTISCALE
from sentio_rllib.policy.actor_critic import ActorCritic, TapeReader
from sentio_rllib.policy.encoders import (
    BandedAttention,
    GatedResidual,
    Line,
    TapeTransformer,
    pack,
)
from sentio_rllib.policy.variants import PolicySpec, receptive_patches

INTERVAL, BARS = 3, 260
# layers, band, heads, gated
SHAPES = [(1, 4, 1, True), (1, 4, 2, False), (2, 3, 4, False), (2, 5, 2, True), (3, 2, 2, False), (3, 2, 2, True)]
MEMBERS = [(0, 0), (3, 1)]


def _features(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(BARS, len(MULTISCALE), generator=torch.Generator().manual_seed(1), dtype=dtype)


def _network(
    shape: tuple[int, int, int, bool],
    dtype: torch.dtype = torch.float64,
    *,
    dropout: float = 0.0,
    members: Any = MEMBERS,
) -> ActorCritic:
    layers, band, heads, gated = shape
    spec = PolicySpec(
        variant="enhanced-maskable",
        hidden=(8,),
        patch=INTERVAL,
        d_model=8,
        heads=heads,
        layers=layers,
        band=band,
        gated_residual=gated,
        dropout=dropout,
    )
    network = ActorCritic(spec, members).to(dtype)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("distance", "bias", "neck.weight")):  # zero at the start, which would hide a wrong one
                for index, (seed, fold) in enumerate(members):
                    generator = torch.Generator().manual_seed(100 * seed + fold)
                    parameter[index] = torch.randn(parameter.shape[1:], generator=generator)
    return network


def _embeddings(network: ActorCritic, features: torch.Tensor, bars: torch.Tensor) -> torch.Tensor:
    return TapeReader(features, network.spec).contexts(network.policy_context, bars)[..., len(MULTISCALE) :].detach()


def _isolated(network: ActorCritic, features: torch.Tensor, bar: int) -> torch.Tensor:
    """Embeddings ``[M, d]`` of one decision, from its own receptive field and nothing else."""
    field = network.spec.receptive_patches
    patches = features[bar - field * INTERVAL + 1 : bar + 1].reshape(1, field, -1)
    line = Line(patches.expand(len(MEMBERS), -1, -1), torch.full((len(MEMBERS), 1), field - 1))
    assert network.policy_encoder is not None
    embedding: torch.Tensor = network.policy_encoder(line).detach()[:, 0]
    return embedding


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_every_decision_stands_behind_exactly_the_patches_it_may_read(data: st.DataObject) -> None:
    rows, members = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 3))
    interval, context = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 6))
    steps = st.sampled_from([interval, interval, interval, 0, 2 * interval, 9 * interval, -interval, -7, 1, 50])
    columns = [
        torch.tensor([1000, *data.draw(st.lists(steps, min_size=rows - 1, max_size=rows - 1))]).cumsum(0)
        for _ in range(members)
    ]
    bars = torch.stack(columns, 1)
    ends, positions = pack(bars, interval, context)
    for member in range(members):
        for row in range(rows):
            at = int(positions[member, row])
            own = ends[member, at - context : at + 1].tolist()
            bar = int(bars[row, member])
            assert own == [bar - (context - index) * interval for index in range(context + 1)]
    together = (bars.diff(dim=0) == interval).sum(0).min()
    assert ends.shape[1] <= rows * (context + 1) - int(together) * context


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("phase", range(INTERVAL))
def test_the_tape_encoding_equals_that_of_the_isolated_receptive_field(
    shape: tuple[int, int, int, bool], phase: int
) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        network, features = _network(shape, dtype), _features(dtype)
        first = network.spec.receptive_field - 1 + phase
        decisions = torch.arange(first, BARS, INTERVAL)[:29]
        bars = torch.stack([decisions, decisions.flip(0)], 1)  # one run, and as many as there are decisions
        alone = {bar: _isolated(network, features, bar) for bar in decisions.tolist()}
        expected = torch.stack([torch.stack([alone[bar][m] for m, bar in enumerate(row)]) for row in bars.tolist()])
        for chunk in range(1, 8):
            parts = [bars[start : start + chunk] for start in range(0, len(bars), chunk)]
            encoded = torch.cat([_embeddings(network, features, rows) for rows in parts])
            torch.testing.assert_close(encoded, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_reads_its_receptive_field_whole_and_no_bar_after_or_before(shape: tuple[int, int, int, bool]) -> None:
    network, features = _network(shape), _features()
    field, bar = network.spec.receptive_field, 150
    bars = torch.arange(60, 200, INTERVAL).unsqueeze(1).expand(-1, 2)
    row = (bar - 60) // INTERVAL
    before = _embeddings(network, features, bars)[row]
    outside = features.clone()
    outside[bar + 1 :] += 3.0
    outside[: bar - field + 1] -= 3.0
    assert torch.equal(_embeddings(network, outside, bars)[row], before)
    for edge in (bar, bar - field + 1):
        inside = features.clone()
        inside[edge] += 3.0
        assert bool(((_embeddings(network, inside, bars)[row] - before).abs().amax(-1) > 1e-6).all())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stacked_encoder_drops_and_encodes_what_it_would_alone(shape: tuple[int, int, int, bool]) -> None:
    members = [(0, 0), (3, 1), (3, 0)]
    rows = 60 + INTERVAL * torch.arange(24)
    broken = rows + torch.tensor([0, 40, 1, 80] * 6)  # a line much longer than the others, which are padded to it
    bars = torch.stack([rows, broken, rows.roll(7)], 1)
    together = _network(shape, dropout=0.3, members=members)
    reader = TapeReader(_features(), together.spec)
    line = reader.line(bars)
    assert line is not None
    together.begin_iteration(4)
    encoded = together.policy_context(reader.market(bars), line)
    encoded.square().sum().backward()  # type: ignore[no-untyped-call]  # torch's
    again = together.policy_context(reader.market(bars), line)
    assert torch.equal(again, encoded)  # the next pass of the iteration drops the same
    together.begin_iteration(5)
    assert not torch.equal(together.policy_context(reader.market(bars), line), encoded)
    for index, member in enumerate(members):
        alone = _network(shape, dropout=0.3, members=[member])
        one = bars[:, index : index + 1]
        own_line = reader.line(one)
        assert own_line is not None
        assert (own_line.patches.shape[1] < line.patches.shape[1]) == (index != 1)
        alone.begin_iteration(4)
        own = alone.policy_context(reader.market(one), own_line)
        own.square().sum().backward()  # type: ignore[no-untyped-call]  # torch's
        torch.testing.assert_close(encoded[:, index : index + 1], own, rtol=0, atol=1e-12)
        assert together.policy_encoder is not None
        assert alone.policy_encoder is not None
        parameters = zip(together.policy_encoder.parameters(), alone.policy_encoder.parameters(), strict=True)
        for stacked, single in parameters:
            assert stacked.grad is not None
            assert single.grad is not None
            torch.testing.assert_close(stacked.grad[index : index + 1], single.grad, rtol=1e-9, atol=1e-9)


def test_banded_attention_is_dense_attention_with_a_mask() -> None:
    attention = BandedAttention(MEMBERS, 6, heads=3, band=4, name="a").double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        attention.distance.copy_(torch.randn(attention.distance.shape, generator=generator))
    tokens = torch.randn(2, 23, 6, generator=generator, dtype=torch.float64)
    found = attention(tokens)
    for member in range(2):
        weight, bias = attention.inputs.weight[member], attention.inputs.bias[member]
        projected = (tokens[member] @ weight + bias).view(23, 3, 3, 2)  # token, (query, key, value), head, width
        for query in range(3, 23):  # before that, the band reaches past the line's begin, which nothing may read
            mixed = []
            for head in range(3):
                near = range(query - 3, query + 1)
                scores = [
                    projected[query, 0, head] @ projected[key, 1, head] / math.sqrt(2)
                    + attention.distance[member, head, query - key]
                    for key in near
                ]
                weights = torch.softmax(torch.stack(scores), 0)
                mixed.append(sum(w * projected[key, 2, head] for w, key in zip(weights, near, strict=True)))
            expected = torch.cat(mixed) @ attention.outputs.weight[member] + attention.outputs.bias[member, 0]
            torch.testing.assert_close(found[member, query], expected, rtol=0, atol=1e-10)


def test_a_gate_starts_near_the_identity() -> None:
    gate = GatedResidual(MEMBERS, 16, name="g").double()
    generator = torch.Generator().manual_seed(0)
    stream, update = (torch.randn(2, 400, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    moved = (gate(stream, update).detach() - stream).square().mean().sqrt()
    assert 0.05 < float(moved) < 0.5
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.zero_()
    kept = 1.0 - 1.0 / (1.0 + math.exp(2.0))  # what the bias alone keeps
    torch.testing.assert_close(gate(stream, update), kept * stream, rtol=0, atol=1e-12)


def test_receptive_patches_grow_with_each_layer() -> None:
    assert [receptive_patches(layers, 32) for layers in (1, 2, 3)] == [32, 63, 94]
    encoder = TapeTransformer(
        MEMBERS, 4, d_model=4, heads=1, layers=2, band=3, dropout=0.0, gated=False, neck=3, name="x"
    ).double()
    patches = torch.randn(2, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert encoder.neck is not None
    with torch.no_grad():
        encoder.neck.weight.fill_(0.5).mul_(torch.arange(12.0).view(1, 4, 3))
    encoder(Line(patches, torch.full((2, 1), 8)))[0, 0, 0].backward()
    assert patches.grad is not None
    reached = patches.grad[0].abs().amax(-1) > 0
    assert reached.tolist() == [False] * 4 + [True] * receptive_patches(2, 3)
    assert patches.grad[1].abs().max() == 0


def test_a_neck_hands_on_few_numbers_that_are_0_at_first_and_learn() -> None:
    shared: dict[str, Any] = {"d_model": 8, "heads": 2, "layers": 1, "band": 3, "dropout": 0.0, "gated": False}
    narrow = TapeTransformer(MEMBERS, 4, **shared, neck=4, name="x").double()
    wide = TapeTransformer(MEMBERS, 4, **shared, neck=0, name="x").double()
    line = Line(torch.randn(2, 9, 4, dtype=torch.float64), torch.arange(3, 9).expand(2, -1))
    assert (narrow.out_features, wide.out_features) == (4, 8)
    found, unbounded = narrow(line), wide(line)
    assert found.shape == (2, 6, 4)
    assert bool((found == 0.0).all())
    torch.testing.assert_close(unbounded.square().mean(-1), torch.ones(2, 6, dtype=torch.float64), atol=1e-4, rtol=0.0)
    found.sum().backward()
    assert narrow.neck is not None
    assert narrow.neck.weight.grad is not None
    assert bool((narrow.neck.weight.grad.abs().amax((1, 2)) > 0.0).all())
    with torch.no_grad():
        narrow.neck.weight.add_(5.0 * torch.randn(narrow.neck.weight.shape, dtype=torch.float64))
    assert 0.5 < float(narrow(line).detach().abs().max()) <= 1.0
