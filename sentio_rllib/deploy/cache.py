"""What an encoder has read stays read: one new patch a decision, instead of the whole receptive field."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sentio_rllib.deploy.export import Contexts
from sentio_rllib.policy.encoders import TapeTransformer
from sentio_rllib.policy.heads import full_precision
from sentio_rllib.policy.variants import ActorCritic


class _Stream:
    """The last `band` tokens that each layer of one encoder has been given, float ``[M, band, d]`` each.

    A token's way through a layer depends on the `band` tokens that end with it, so these are all that the next one
    needs, and its embedding is that of the isolated receptive field.
    """

    def __init__(self, encoder: TapeTransformer, members: int, band: int) -> None:
        self.encoder, self.band = encoder, band
        self.layers: list[nn.Module] = list(encoder.layers)
        self.newest = torch.full((members, 1), band - 1)
        self.tokens: list[torch.Tensor] = []

    def fill(self, patches: torch.Tensor) -> torch.Tensor:
        """Read a receptive field, float ``[M, patches, width]``; return its embedding ``[M, 1, d]``."""
        tokens: torch.Tensor = self.encoder.project(patches)
        self.tokens = []
        for layer in self.layers[:-1]:
            self.tokens.append(tokens[:, -self.band :])
            tokens = layer(tokens)
        self.tokens.append(tokens[:, -self.band :])
        return _norm(self.layers[-1](self.tokens[-1], self.newest))

    def advance(self, patch: torch.Tensor) -> torch.Tensor:
        """Read the next patch, float ``[M, 1, width]``; return its embedding ``[M, 1, d]``."""
        token: torch.Tensor = self.encoder.project(patch)
        for index, layer in enumerate(self.layers):
            self.tokens[index] = torch.cat([self.tokens[index][:, 1:], token], 1)
            token = layer(self.tokens[index], self.newest)
        return _norm(token)


class EncoderCache:
    """The contexts of decisions that follow each other one patch apart, as of ``DecisionModel.contexts``.

    Parameters
    ----------
    network
        M networks, in eval mode, with a transformer.
    """

    def __init__(self, network: ActorCritic) -> None:
        spec, members = network.spec, len(network.members)
        assert network.policy_encoder is not None
        self.members, self.patch, self.patches = members, spec.patch, spec.receptive_patches
        self.policy = _Stream(network.policy_encoder, members, spec.band)
        own = network.value_encoder
        self.value = None if own is None else _Stream(own, members, spec.band)
        self.contexts: Contexts | None = None

    def forget(self) -> None:
        """Make the next decision read its whole receptive field."""
        self.contexts = None

    def fill(self, window: torch.Tensor) -> Contexts:
        """Read the receptive field of a decision, float ``[bars, 14]``."""
        patches = window.reshape(1, self.patches, -1).expand(self.members, -1, -1)
        value = None if self.value is None else self.value.fill(patches)
        return self._joined(window[-1], self.policy.fill(patches), value)

    def advance(self, window: torch.Tensor) -> Contexts:
        """Go on to the decision one patch later; of `window`, as in :meth:`fill`, the last patch is read."""
        patch = window[-self.patch :].reshape(1, 1, -1).expand(self.members, -1, -1)
        value = None if self.value is None else self.value.advance(patch)
        return self._joined(window[-1], self.policy.advance(patch), value)

    def _joined(self, now: torch.Tensor, policy: torch.Tensor, value: torch.Tensor | None) -> Contexts:
        market = now.expand(1, self.members, -1)
        of_policy, of_value = (
            None if embedding is None else torch.cat([market, full_precision(embedding).transpose(0, 1)], -1)
            for embedding in (policy, value)
        )
        assert of_policy is not None
        self.contexts = Contexts(of_policy, of_policy if of_value is None else of_value)
        return self.contexts


def _norm(tokens: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:])
