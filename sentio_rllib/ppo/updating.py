"""What an update is made of, apart from RLlib: which rows in which order, and the loss of a minibatch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from sentio_rllib.ppo.losses import PPOLoss, ppo_loss
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.seeding import stream

LOSS_COLUMNS = ("actions", "log_prob", "advantages", "value_targets")


def minibatch_rows(settings: TrialSettings, rows: int, iteration: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Yield the rows of each minibatch, int64, in an order keyed (trial seed, iteration, pass), the same for any M.

    An epoch is as many rows as decisions were made; of K accounts, K epochs pass over every row once. With a
    transformer, stretches of ``sequence_length`` decisions of an account stay together.

    Parameters
    ----------
    settings
        Of the trial.
    rows
        Of the rollout's columns, ``T * K * environments``.
    iteration
        Number of the training iteration.
    device
        Where rows are to lie.
    """
    chunk, accounts, ppo = settings.chunk, settings.accounts, settings.ppo
    decisions = rows // accounts
    size = min(ppo.minibatch_rows, decisions)
    stretches = torch.arange(rows, device=device).view(-1, chunk, accounts * ppo.environments)
    stretches = stretches.transpose(1, 2).reshape(-1, chunk)  # rows are time-major
    for epoch in range(ppo.epochs):
        if epoch % accounts == 0:
            key = ("minibatches", settings.trial_seed, iteration, epoch // accounts)
            order = torch.randperm(len(stretches), generator=stream(*key)).to(device)
            order = stretches.index_select(0, order).flatten()
        begin = epoch % accounts * decisions
        for first in range(begin, begin + decisions - size + 1, size):
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
