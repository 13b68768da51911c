"""A decision of plain tensors is the one that validation makes, in PyTorch and in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from sentio_rllib.deploy.export import DecisionModel, export_onnx
from sentio_rllib.market.tape import Tape
from sentio_rllib.policy.actor_critic import ActorCritic, TapeReader
from sentio_rllib.policy.deciding import ensemble_policy
from sentio_rllib.policy.variants import PolicySpec

MEMBERS = [(1, 0), (2, 0), (3, 1)]
SHAPE: dict[str, Any] = {"hidden": (8,), "patch": 5, "d_model": 8, "heads": 2, "quantiles": 5, "experts": 2}
SPECS = {
    "standard": PolicySpec(variant="standard", **SHAPE),
    "maskable": PolicySpec(variant="maskable", shared=True, **SHAPE),
    "enhanced": PolicySpec(variant="enhanced-maskable", layers=2, band=3, shared=True, **SHAPE),
    "gated residuals": PolicySpec(variant="enhanced-maskable", layers=1, band=4, gated_residual=True, **SHAPE),
    "mixed logits": PolicySpec(variant="enhanced-maskable", layers=2, band=2, mixture="logits", **SHAPE),
}
EXPORTED = ["standard", "maskable", "enhanced", "gated residuals"]


def network_of(spec: PolicySpec) -> ActorCritic:
    """Networks that are far from uniform and from each other, as initial ones are not."""
    network = ActorCritic(spec, MEMBERS)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network.eval()


def windows(tape: Tape, spec: PolicySpec, bars: torch.Tensor) -> torch.Tensor:
    """The bars that end with each of `bars`, cut from the tape one by one."""
    features = tape.tensors().features
    return torch.stack([features[bar - spec.receptive_field + 1 : bar + 1] for bar in bars.tolist()])


def inputs(tape: Tape, spec: PolicySpec, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bars, windows, portfolios and masks of `count` decisions that follow each other on the tape."""
    bars = 800 + spec.patch * torch.arange(count)
    generator = torch.Generator().manual_seed(count)
    portfolio = torch.rand(count, 6, generator=generator) * 2.0 - 1.0
    mask = torch.rand(count, 3, generator=generator) > 0.3
    mask[:, 0] = True
    return bars, windows(tape, spec, bars), portfolio, mask


@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_it_decides_as_the_ensemble_on_the_tape(small_tape: Tape, name: str) -> None:
    spec, count = SPECS[name], 150
    network = network_of(spec)
    reader = TapeReader(small_tape.tensors().features, spec)
    bars, market, portfolio, mask = inputs(small_tape, spec, count)
    column = bars.view(-1, 1, 1)  # one block of `count` steps
    decide = ensemble_policy(network, reader, column)
    steps = range(count)
    logits = torch.cat([decide(column[i], portfolio[i].view(1, 1, 6), mask[i].view(1, 1, 3)) for i in steps]).squeeze(1)
    found = DecisionModel(network)(market, portfolio, mask)
    torch.testing.assert_close(found.probabilities, logits.exp() * mask, rtol=0, atol=1e-6)
    assert torch.equal(found.logits.argmax(-1), logits.argmax(-1))
    assert len(set(logits.argmax(-1).tolist())) > 1
    assert float(found.probabilities[~mask].abs().max()) == 0.0
    assert bool(found.logits.isfinite().all())

    spread = bars.unsqueeze(1).expand(-1, len(MEMBERS))
    contexts = reader.contexts(network.value_context, spread)
    quantiles = network.quantiles(contexts, portfolio.unsqueeze(1).expand(-1, len(MEMBERS), -1)).mean(1)
    torch.testing.assert_close(found.value, quantiles.mean(-1), rtol=0, atol=1e-5)
    assert (found.quantiles is None) == (found.regime_weights is None) == (spec.variant != "enhanced-maskable")
    if found.quantiles is not None and found.regime_weights is not None:
        torch.testing.assert_close(found.quantiles, quantiles, rtol=0, atol=1e-5)
        assert found.regime_weights.shape == (count, 2)
        torch.testing.assert_close(found.regime_weights.sum(-1), torch.ones(count))


@torch.no_grad()
def test_a_decision_does_not_depend_on_its_batch(small_tape: Tape) -> None:
    spec = SPECS["enhanced"]
    model = DecisionModel(network_of(spec))
    _, market, portfolio, mask = inputs(small_tape, spec, 7)
    together = model(market, portfolio, mask).probabilities
    for row in range(7):
        alone = model(market[row : row + 1], portfolio[row : row + 1], mask[row : row + 1]).probabilities
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-6)


def test_a_window_of_another_length_is_refused() -> None:
    model = DecisionModel(network_of(SPECS["enhanced"]))
    assert model.bars == 25  # 2 layers of a band of 3 patches of 5 bars
    with pytest.raises(ValueError, match=r"\(4, 24, 20\); pass \[batch, 25, 20\]"):
        model(torch.zeros(4, 24, 20), torch.zeros(4, 6), torch.ones(4, 3, dtype=torch.bool))


@pytest.mark.parametrize("name", EXPORTED)
def test_onnx_decides_as_pytorch(small_tape: Tape, tmp_path: Path, name: str) -> None:
    spec = SPECS[name]
    model = DecisionModel(network_of(spec))
    export_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [(each.name, each.type) for each in session.get_inputs()] == [
        ("market", "tensor(float)"),
        ("portfolio", "tensor(float)"),
        ("action_mask", "tensor(bool)"),
    ]
    names = [each.name for each in session.get_outputs()]
    of_variant = ["quantiles", "regime_weights"] if spec.variant == "enhanced-maskable" else []
    assert names == ["probabilities", "value", *of_variant]
    for count in (1, 2, 64):
        _, market, portfolio, mask = inputs(small_tape, spec, count)
        feed = {"market": market.numpy(), "portfolio": portfolio.numpy(), "action_mask": mask.numpy()}
        found = dict(zip(names, session.run(names, feed), strict=True))
        with torch.no_grad():
            expected = model(market, portfolio, mask)
        for each in names:
            np.testing.assert_allclose(found[each], getattr(expected, each).numpy(), rtol=0, atol=1e-5, err_msg=each)
        assert found["probabilities"].argmax(-1).tolist() == expected.logits.argmax(-1).tolist()


def test_the_same_weights_make_the_same_file(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        export_onnx(DecisionModel(network_of(SPECS["maskable"])), tmp_path / name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert b".py" not in files[0]  # no traces of where it was exported
