"""What an update is made of, apart from RLlib: which rows in which order, and the loss of a minibatch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from sentio_rllib.ppo.losses import PPOLoss, ppo_loss
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.seeding import stream

LOSS_COLUMNS = ("actions", "log_prob", "advantages", "value_targets")


def minibatch_rows(settings: TrialSettings, rows: int, iteration: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Yield the rows of each minibatch, int64, in an order keyed (trial seed, iteration, epoch), the same for any M.

    With a transformer, stretches of ``sequence_length`` decisions of an environment stay together.

    Parameters
    ----------
    settings
        Of the trial.
    rows
        Of the rollout's columns, ``T * environments``.
    iteration
        Number of the training iteration.
    device
        Where rows are to lie.
    """
    chunk, ppo = settings.chunk, settings.ppo
    size = min(ppo.minibatch_rows, rows)
    stretches = torch.arange(rows, device=device).view(-1, chunk, ppo.environments)
    stretches = stretches.transpose(1, 2).reshape(-1, chunk)  # rows are time-major
    for epoch in range(ppo.epochs):
        generator = stream("minibatches", settings.trial_seed, iteration, epoch)
        order = stretches.index_select(0, torch.randperm(len(stretches), generator=generator).to(device)).flatten()
        for first in range(0, rows - size + 1, size):
            yield order[first : first + size]


def minibatch_loss(
    settings: TrialSettings,
    logits: torch.Tensor,
    quantiles: torch.Tensor,
    gate: torch.Tensor | None,
    batch: Mapping[str, torch.Tensor],
) -> PPOLoss:
    """Return :func:`~sentio_rllib.ppo.losses.ppo_loss` of a trial, with `batch` of :data:`LOSS_COLUMNS`."""
    ppo = settings.ppo
    return ppo_loss(
        logits,
        quantiles,
        gate,
        **{key: batch[key] for key in ("actions", "advantages", "value_targets")},
        old_log_prob=batch["log_prob"],
        clip=ppo.clip,
        value_weight=ppo.value_weight,
        entropy_weight=ppo.entropy_weight,
        load_balance=ppo.load_balance,
        huber=ppo.huber,
    )
