"""What `auto` means."""

from __future__ import annotations

import pytest
import torch

from sentio_rllib.ppo import precision
from sentio_rllib.ppo.precision import resolve_precision


@pytest.mark.parametrize(
    ("device", "hidden", "wanted"),
    [
        ("cuda", (64, 64), "float32"),
        ("cuda", (256, 128), "bfloat16"),
        ("cpu", (64, 64), "float32"),
        ("cpu", (128, 256), "bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_a_layer_is_wide_and_products_are_faster(
    monkeypatch: pytest.MonkeyPatch, device: str, hidden: tuple[int, ...], wanted: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(precision, "_cpu_prefers_bfloat16", lambda: True)

    assert resolve_precision("auto", torch.device(device), hidden) == wanted


def test_auto_is_float32_where_products_are_not_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(precision, "_cpu_prefers_bfloat16", lambda: False)

    assert resolve_precision("auto", torch.device("cuda"), (256,)) == "float32"
    assert resolve_precision("auto", torch.device("cpu"), (256,)) == "float32"
