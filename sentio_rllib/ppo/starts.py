"""Where training episodes start: uniformly at random inside each member's training segments."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sentio_rllib.errors import SplitError
from sentio_rllib.validation.splits import Range


class StartSampler:
    """Uniform random episode starts inside each member's training segments.

    An episode holds ``span // interval`` whole decision intervals and never leaves its segment.

    Parameters
    ----------
    segments
        Training segments of each member.
    episode_bars
        Bars of an episode; `interval` bars lie between two decisions.

    Raises
    ------
    SplitError
        If a member has no segment that holds an episode.
    """

    def __init__(self, segments: Sequence[Sequence[Range]], episode_bars: int, interval: int) -> None:
        self.decisions = max(1, episode_bars // interval)
        self.interval = interval
        needed = self.decisions * interval + 2
        width = max(len(each) for each in segments)
        self.first = torch.zeros(len(segments), width, dtype=torch.int64)
        counts = torch.zeros(len(segments), width, dtype=torch.int64)
        for member, ranges in enumerate(segments):
            for column, segment in enumerate(ranges):
                self.first[member, column] = segment.start
                counts[member, column] = max(0, segment.stop - segment.start - needed + 1)
        if bool((counts.sum(1) == 0).any()):
            longest = max(each.stop - each.start for ranges in segments for each in ranges)
            raise SplitError(
                f"no training segment holds an episode of {episode_bars} bars: {needed} bars are needed, the "
                f"longest segment has {longest}; lower trading.episode_length or use more bars"
            )
        self.ends = counts.cumsum(1)
        self.counts = counts

    def starts(self, uniform: torch.Tensor) -> torch.Tensor:
        """Map draws ``[..., M]`` from [0, 1) to first decision bars, int64 of that shape."""
        total = self.ends[:, -1]
        position = (uniform * total).long().clamp(max=total - 1)
        flat = position.reshape(-1, len(total)).T.contiguous()
        segment = torch.searchsorted(self.ends, flat, right=True)
        offset = flat - (self.ends.gather(1, segment) - self.counts.gather(1, segment))
        return (self.first.gather(1, segment) + offset).T.reshape(position.shape)

    def stops(self, starts: torch.Tensor, decisions: int | torch.Tensor | None = None) -> torch.Tensor:
        """Return the exclusive last bar that lets an episode from `starts` make `decisions` (default: all)."""
        return starts + (self.decisions if decisions is None else decisions) * self.interval + 2
