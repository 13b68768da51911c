"""The shape of a trial's networks, and the three PPO variants as one table. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sentio_rllib.market.feature_set import DEFAULT_SET, feature_set

VariantName = Literal["standard", "maskable", "enhanced-maskable"]
Encoder = Literal["mlp", "transformer"]
Head = Literal["categorical", "gated"]
Critic = Literal["scalar", "quantile"]
Mixture = Literal["distributions", "logits"]


@dataclass(frozen=True)
class Variant:
    """What sets a variant apart: the masks it trades under and the parts its networks have by default."""

    masks: Literal["none", "state", "risk"]
    encoder: Encoder
    head: Head
    critic: Critic


VARIANTS: dict[str, Variant] = {
    "standard": Variant(masks="none", encoder="mlp", head="categorical", critic="scalar"),
    "maskable": Variant(masks="state", encoder="mlp", head="categorical", critic="scalar"),
    "enhanced-maskable": Variant(masks="risk", encoder="transformer", head="gated", critic="quantile"),
}


@dataclass(frozen=True)
class PolicySpec:
    """Shape of the networks of one trial; see the `policy` section of a configuration for ranges and meaning.

    `encoder`, `head` and `critic` left None are those of the variant. `patch` is the decision interval in bars.
    """

    variant: VariantName = "maskable"
    encoder: Encoder | None = None
    head: Head | None = None
    critic: Critic | None = None
    features: str = DEFAULT_SET
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    dropout: float = 0.0
    shared: bool = False
    hold_bias: float = 0.0
    experts: int = 2
    mixture: Mixture = "distributions"
    quantiles: int = 51
    patch: int = 15
    d_model: int = 64
    heads: int = 4
    layers: int = 2
    band: int = 32
    gated_residual: bool = False
    neck: int = 4

    def __post_init__(self) -> None:
        variant = VARIANTS.get(self.variant)
        if variant is None:
            raise ValueError(f"unknown variant {self.variant!r}; choose one of {', '.join(VARIANTS)}")
        for part in ("encoder", "head", "critic"):
            if getattr(self, part) is None:
                object.__setattr__(self, part, getattr(variant, part))
        if self.encoder == "transformer" and self.variant != "enhanced-maskable":
            raise ValueError(f"a transformer reads windows, which {self.variant} does not show; use enhanced-maskable")

    @property
    def market_features(self) -> int:
        """Market features of a bar."""
        return len(feature_set(self.features))

    @property
    def receptive_patches(self) -> int:
        """Patches that a decision reads; 0 where nothing but the decision's own bar is read."""
        return receptive_patches(self.layers, self.band) if self.encoder == "transformer" else 0

    @property
    def receptive_field(self) -> int:
        """Bars of features that a decision reads."""
        return max(1, self.receptive_patches * self.patch)


def receptive_patches(layers: int, band: int) -> int:
    """Return how many patches a decision reads: its own, and ``band - 1`` more in each layer."""
    return layers * (band - 1) + 1
