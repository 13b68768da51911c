"""The folds that all trials of a sweep share, and in terms of the configuration why they cannot be had."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from sentio_rllib.config.schema import Validation
from sentio_rllib.config.tree import SweepConfig, over_trials
from sentio_rllib.errors import SplitError
from sentio_rllib.policy.variants import receptive_patches
from sentio_rllib.validation.splits import Footprint, Splits, make_splits

_LEAST_BAND = 2


def make_folds(config: SweepConfig, n: int, cuts: Sequence[int] = (), session_minutes: int | None = None) -> Splits:
    """Return the folds of a tape, computed with the largest footprint of any trial.

    Parameters
    ----------
    config
        Of the sweep.
    n
        Bars of the tape.
    cuts
        Ascending bar indices at which a new stretch starts.
    session_minutes
        Minutes of the longest session; by default what the calendar is known to have.

    Raises
    ------
    SplitError
        The bars do not suffice, or a transformer reads more of them than a fold trains on; a line names its key.
    """
    too_far = over_trials(config, partial(_too_far, n=n, cuts=cuts, session_minutes=session_minutes))
    if too_far:
        raise SplitError(*too_far)
    try:
        return _split(config, n, cuts, config.footprint(session_minutes))
    except SplitError as error:
        raise SplitError(*map(_with_key, error.lines)) from error


def _split(config: SweepConfig, n: int, cuts: Sequence[int], footprint: Footprint) -> Splits:
    return make_splits(
        n,
        cuts=cuts,
        footprint=footprint,
        episode_length=int(config.largest("trading.episode_length")),
        **config.validation.model_dump(exclude={"seeds", "fold_penalty", "phases"}),
    )


def _with_key(line: str) -> str:
    return f"validation.{line}" if line.partition(":")[0] in Validation.model_fields else f"validation: {line}"


def _too_far(config: SweepConfig, *, n: int, cuts: Sequence[int], session_minutes: int | None) -> list[str]:
    """Say where the receptive field of a transformer leaves too little to train on; other lacks are not told."""
    if not config.may_have("encoder", "transformer"):
        return []
    footprint = config.footprint(session_minutes)
    interval, layers = footprint.decision_interval, int(config.largest("policy.layers"))
    band = int(config.largest("policy.band"))

    def segment(bars: int) -> int:
        """Bars of the longest training segment in the fold where it is shortest; 0 where folds cannot be had."""
        try:
            splits = _split(config, n, cuts, replace(footprint, receptive_field=bars))
        except SplitError:
            return 0
        return min(max(map(len, fold.train)) for fold in splits.folds)

    def reaches_too_far(band: int) -> bool:
        bars = receptive_patches(layers, band) * interval
        return bars > segment(bars)

    available = segment(1)
    if available == 0 or not reaches_too_far(band):
        return []
    most = bisect.bisect_left(range(band), True, lo=_LEAST_BAND, key=reaches_too_far) - 1
    advice = f"lower it to at most {most}" if most >= _LEAST_BAND else "lower policy.layers or the interval"
    where = "search.space.policy.band" if "policy.band" in config.search.space else "policy.band"
    reads = f"{receptive_patches(layers, band) * interval} bars ({layers} layers, band {band}, interval {interval})"
    message = (
        f"{where}: a decision reads {reads}, which training also keeps away from every validation block; before that "
        f"the shortest training segment has {available}; {advice}"
    )
    return [message]
