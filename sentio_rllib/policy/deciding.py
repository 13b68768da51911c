"""Networks as policies over known bars: each member for itself, or all as one ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from sentio_rllib.errors import CheckpointError
from sentio_rllib.policy.actor_critic import ActorCritic, TapeReader
from sentio_rllib.policy.variants import PolicySpec
from sentio_rllib.seeding import Member

Decide = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(bar int64 [rows, M], portfolio [rows, M, 6], mask bool [rows, M, 3]) -> masked logits [rows, M, 3]."""


def with_weights(spec: PolicySpec, members: Sequence[Member], weights: Mapping[str, torch.Tensor]) -> ActorCritic:
    """Return networks of a shape with `weights`, in their dtype and ready to decide.

    Raises
    ------
    CheckpointError
        If the weights are of another shape.
    """
    network = ActorCritic(spec, members)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise CheckpointError(
            f"weights do not fit the networks: {lines[-1].strip()}; take those of the same spec"
        ) from error
    network.to(next(iter(weights.values())).dtype).eval()
    return network


def network_policy(network: ActorCritic, reader: TapeReader, bars: torch.Tensor) -> Decide:
    """Return `network` as a policy over the bars of blocks.

    Parameters
    ----------
    network, reader
        Networks and the tape they read.
    bars
        int64 ``[steps, blocks, M]``, of every decision in every block; a transformer encodes each once.
    """
    if not reader.encodes:
        return lambda bar, portfolio, mask: network.policy(reader.market(bar), portfolio, mask).logits
    blocks = bars.transpose(0, 1)
    contexts = reader.contexts(network.policy_context, blocks.flatten(0, 1)).view(*blocks.shape, -1)
    first, interval, last = bars[0], reader.patch, len(bars) - 1
    block, member = (torch.arange(size, device=bars.device) for size in bars.shape[1:])

    def decide(bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        passes = len(bar) // len(block)  # greedy and sampled walk the same bars
        step = torch.div(bar - first.repeat(passes, 1), interval, rounding_mode="floor").clamp_(0, last)
        context = contexts[block.repeat(passes).unsqueeze(1), step, member]
        return network.policy(context, portfolio, mask).logits

    return decide


def ensemble_policy(network: ActorCritic, reader: TapeReader, bars: torch.Tensor) -> Decide:
    """Return the members of `network` as one policy, the mean of their distributions.

    Parameters
    ----------
    network, reader
        M networks and the tape they read.
    bars
        int64 ``[steps, blocks, 1]``, of every decision in every block.
    """
    count = len(network.members)
    each = network_policy(network, reader, bars.expand(-1, -1, count))

    def decide(bar: torch.Tensor, portfolio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rows = len(bar)
        logits = each(bar.expand(rows, count), portfolio.expand(rows, count, -1), mask.expand(rows, count, -1))
        # a masked action has probability 0 with every member, and stays the least of all logits
        return torch.log(torch.softmax(logits, -1).mean(1, keepdim=True).clamp_(min=torch.finfo(logits.dtype).tiny))

    return decide
