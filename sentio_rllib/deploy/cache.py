"""What an encoder has read stays read: one new patch a decision, instead of the whole receptive field."""

from __future__ import annotations

from typing import cast

import torch

from sentio_rllib.deploy.export import DecisionModel
from sentio_rllib.policy.encoders import BandedAttention, TransformerLayer, norm


class _Attended:
    """Keys and values of the last `band` tokens of one layer, in a ring: all that the next token attends to.

    A token's way through a layer depends on the `band` tokens that end with it, so its embedding is that of the
    isolated receptive field. The token written last stands at `slot`, the one before it at ``slot - 1``, and so on
    round the ring; where it stands changes nothing but the weights of the distances, which are turned with it.
    """

    def __init__(self, attention: BandedAttention) -> None:
        self.attention, self.band = attention, attention.band
        self.slot = 0
        nearest_last = attention.distance.detach().flip(-1)  # [K, heads, band]
        self.distances = torch.cat([nearest_last, nearest_last], -1).flatten(0, 1).unsqueeze(1)
        self.keys = self.values = torch.empty(0)  # [K, heads, band, d / heads]

    def fill(self, tokens: torch.Tensor) -> None:
        """Take what the layer is given, float ``[K, tokens, d]``, at least `band` tokens of it."""
        packed = self.attention.inputs(norm(tokens[:, -self.band :]))
        _, keys, values = self.attention.by_head(packed)
        self.keys, self.values = keys.contiguous(), values.contiguous()
        self.slot = self.band - 1

    def attend(self, token: torch.Tensor) -> torch.Tensor:
        """Take the next token, float ``[K, 1, d]``; return what attention makes of it, likewise."""
        attention, band = self.attention, self.band
        query, key, value = attention.by_head(attention.inputs(norm(token)))
        self.slot = (self.slot + 1) % band
        self.keys[:, :, self.slot], self.values[:, :, self.slot] = key[:, :, 0], value[:, :, 0]
        distances = self.distances[:, :, band - 1 - self.slot : 2 * band - 1 - self.slot]
        keys, values = self.keys.flatten(0, 1), self.values.flatten(0, 1)
        scores = torch.baddbmm(distances, query.flatten(0, 1), keys.transpose(1, 2), alpha=attention.scale)
        mixed = torch.bmm(torch.softmax(scores, -1), values)
        attended: torch.Tensor = attention.outputs(mixed.view(len(token), 1, -1))
        return attended


class EncoderCache:
    """The contexts of decisions that follow each other one patch apart, as of :meth:`DecisionModel.contexts`.

    Parameters
    ----------
    model
        With a transformer.

    Attributes
    ----------
    contexts
        Float ``[K, 1, C]``, at the last bar where a decision was due; None where the next one has to read its whole
        receptive field.
    """

    def __init__(self, model: DecisionModel) -> None:
        encoder = model.encoder
        assert encoder is not None
        self.model, self.encoder = model, encoder
        layers = cast("list[TransformerLayer]", list(encoder.layers))
        self.layers = [(layer, _Attended(layer.attention)) for layer in layers]
        self.contexts: torch.Tensor | None = None

    def forget(self) -> None:
        """Make the next decision read its whole receptive field."""
        self.contexts = None

    def fill(self, window: torch.Tensor) -> torch.Tensor:
        """Read the receptive field of a decision, float ``[bars, F]``; return its contexts."""
        model = self.model
        tokens = self.encoder.project(window.reshape(1, model.patches, -1).expand(model.stacked, -1, -1))
        for layer, attended in self.layers:
            attended.fill(tokens)
            tokens = layer(tokens)
        return self._joined(window, tokens[:, -1:])

    def advance(self, window: torch.Tensor) -> torch.Tensor:
        """Go on to the decision one patch later; of `window`, as in :meth:`fill`, the last patch is read."""
        model = self.model
        token = self.encoder.project(window[-model.spec.patch :].reshape(1, 1, -1).expand(model.stacked, -1, -1))
        for layer, attended in self.layers:
            token = layer.after_attention(token, attended.attend(token))
        return self._joined(window, token)

    def _joined(self, window: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        self.contexts = self.model.joined(window[-1:], self.encoder.embedding(token))
        return self.contexts
