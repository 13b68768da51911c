"""What a comparison of arms says: every arm against every other, over the same folds and seeds.

Arms are compared at their **last** evaluation. The best of several evaluations is picked by the very scores that are
compared; an arm whose scores scatter more, or that is evaluated more often in the same time, gains more from the
pick. The last one is picked by the budget alone, so no arm gains, and it is what the compute has bought.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sentio_rllib.config.space import ARM
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.evidence.pairing import COMPARED, Cell, Difference, by_cell, cell_scores, paired_difference
from sentio_rllib.policy.deciding import with_weights
from sentio_rllib.ppo.scoring import Scorer
from sentio_rllib.search.prepare import Prepared, trial_settings
from sentio_rllib.search.selection import Outcome

LEVEL = 0.95
"""Coverage of an interval by itself, and of all corrected intervals together."""

Scores = Mapping[Cell, float]


@dataclass(frozen=True)
class Last:
    """A trial's members at its last evaluation.

    Attributes
    ----------
    scores, trades
        Fold score and closed trades of each (fold, seed).
    """

    scores: dict[Cell, float]
    trades: dict[Cell, int]

    @property
    def idle(self) -> int:
        """Members that never trade; they score 0."""
        return sum(trades == 0 for trades in self.trades.values())


def last_evaluation(outcome: Outcome, config: SweepConfig, prepared: Prepared) -> Last | str:
    """Score the weights that a trial ended with once more, or say why that cannot be.

    The trial reported one figure per fold then; its last checkpoint, written after that evaluation, has the members.

    Parameters
    ----------
    outcome
        The trial.
    config, prepared
        The sweep, and what its trials ran on.
    """
    if outcome.state not in COMPARED or not outcome.curve:
        return outcome.ended
    if outcome.checkpoint is None:
        return "it has no intact checkpoint"
    state = torch.load(outcome.checkpoint / "training_state.pt", weights_only=True, map_location="cpu")
    if state["env_steps"] != outcome.env_steps:
        return f"the checkpoint of its last evaluation is not intact, only that at {state['env_steps']:,} env steps"
    settings = trial_settings(config, prepared.splits, outcome.params)
    network = with_weights(settings.policy, settings.members, state["weights"])
    scorer = Scorer(prepared.tape.tensors(), settings, prepared.tape.sessions_per_year, network.dtype)
    scored = scorer.score(network)
    return Last(
        by_cell(settings.members, scored.fold_scores),
        {
            (fold, seed): int(record.trades)
            for (seed, fold), record in zip(settings.members, scored.evaluation.greedy, strict=True)
        },
    )


@dataclass(frozen=True)
class Pair:
    """Two arms against each other.

    Attributes
    ----------
    first, second
        Their names; differences are those of the second less the first.
    alone
        With its own 95% interval.
    corrected
        With the interval whose level is Bonferroni's for all pairs of the comparison.
    """

    first: str
    second: str
    alone: Difference
    corrected: Difference

    @property
    def higher(self) -> str | None:
        """The arm that is shown to score higher, by the corrected interval; None where neither is."""
        return {"higher": self.second, "lower": self.first}.get(self.corrected.verdict)


def corrected_level(arms: int) -> float:
    """Return Bonferroni's level for all pairs of so many arms: together they cover 95% or more.

    Raises
    ------
    ValueError
        With fewer than two arms.
    """
    if arms < 2:
        raise ValueError(f"{arms} arms have no pairs; needed are two or more")
    return 1 - (1 - LEVEL) / (arms * (arms - 1) // 2)


def pairwise(scores: Mapping[str, Scores]) -> list[Pair]:
    """Return every two arms against each other, in the order of the arms.

    Parameters
    ----------
    scores
        Of each arm by (fold, seed); empty where it has none.
    """
    level = corrected_level(len(scores))
    pairs = []
    for first, second in itertools.combinations(scores, 2):
        alone, corrected = (paired_difference(scores[second], scores[first], level=each) for each in (LEVEL, level))
        pairs.append(Pair(first, second, alone, corrected))
    return pairs


@dataclass(frozen=True)
class Verdict:
    """What can be said of all arms.

    Attributes
    ----------
    state
        ``best``, ``no difference`` or ``not comparable``.
    best
        The arm that is shown to score higher than every other, or None.
    tied
        The arm with the highest mean, and those that are not shown to score lower; empty where one is best.
    line
        The same in words.
    """

    state: str
    best: str | None
    tied: tuple[str, ...]
    line: str


def overall(scores: Mapping[str, Scores], pairs: Sequence[Pair], missing: Mapping[str, str]) -> Verdict:
    """Return the verdict over all arms.

    Parameters
    ----------
    scores, pairs
        Of the arms, and :func:`pairwise` of them.
    missing
        Why arms have no scores, by name. With any of them nothing can be best: it has not been compared to all.
    """
    if missing:
        told = "; ".join(f"{name}: {why}" for name, why in missing.items())
        return Verdict("not comparable", None, (), f"not comparable: no scores of {told}")
    few = [pair for pair in pairs if pair.corrected.low is None]
    if few:
        told = ", ".join(f"{pair.first} and {pair.second} ({pair.alone.pairs})" for pair in few)
        needed = "an interval needs two or more; raise validation.folds or validation.seeds"
        return Verdict("not comparable", None, (), f"not comparable: too few pairs of {told}; {needed}")
    means = {name: float(np.mean(list(each.values()))) for name, each in scores.items()}
    leader = max(means, key=lambda name: means[name])
    beaten = {pair.first if pair.higher == pair.second else pair.second for pair in pairs if pair.higher == leader}
    tied = tuple(name for name in scores if name not in beaten)
    if len(tied) == 1:
        return Verdict("best", leader, (), f"best: {leader}; its difference to every other arm is shown")
    rest = [name for name in scores if name in beaten]
    lower = f"; shown to score lower than {leader}: {', '.join(rest)}" if rest else ""
    return Verdict("no difference", None, tied, f"no difference: {', '.join(tied)} cannot be told apart{lower}")


def comparison(
    arms: Mapping[str, Mapping[str, Any]],
    outcomes: Sequence[Outcome],
    last: Mapping[str, Last | str],
    *,
    equal: str,
) -> dict[str, Any]:
    """Return everything that a comparison says, as ``comparison.json`` holds it.

    Parameters
    ----------
    arms
        Name to the keys that the arm sets; the first is the baseline.
    outcomes
        Of the trials; an arm without one has not been started.
    last
        :func:`last_evaluation` of each trial by the name of its arm.
    equal
        ``steps`` or ``seconds``: what all arms were given the same of.

    Returns
    -------
    dict
        ``equal, baseline, scored_at, level, corrected_level, correction, arms, pairs, compute, verdict, notes``.
        Each of ``arms`` has ``name, changes, trial_id, state, ended, score`` (mean over fold x seed),
        ``score_at_best, trades`` (median), ``idle_members, cells, env_steps, train_seconds, env_steps_per_s,
        evaluations``; each of ``pairs`` ``first, second, pairs, missing, mean`` (second less first), ``low, high,
        corrected_low, corrected_high, higher, verdict``. ``compute`` is the largest over the smallest of the arms
        with scores. What there is not is None.
    """
    by_arm = {outcome.params.get(ARM): outcome for outcome in outcomes}
    found = {name: last.get(name, "not started") for name in arms}
    missing = {name: why for name, why in found.items() if isinstance(why, str)}
    scores = {name: each.scores if isinstance(each, Last) else {} for name, each in found.items()}
    pairs = pairwise(scores)
    verdict = overall(scores, pairs, missing)
    results = [_arm(name, changes, by_arm.get(name), found[name]) for name, changes in arms.items()]
    scored = [result for result in results if result["score"] is not None]
    return {
        "equal": equal,
        "baseline": next(iter(arms)),
        "scored_at": "last evaluation",
        "level": LEVEL,
        "corrected_level": corrected_level(len(arms)),
        "correction": f"Bonferroni over {len(pairs)} pairs of arms",
        "arms": results,
        "pairs": [_pair(pair) for pair in pairs],
        "compute": {key: _spread(scored, key) for key in ("env_steps", "train_seconds")},
        "verdict": {"state": verdict.state, "best": verdict.best, "tied": list(verdict.tied), "line": verdict.line},
        "notes": _notes(results),
    }


def _arm(name: str, changes: Mapping[str, Any], outcome: Outcome | None, found: Last | str) -> dict[str, Any]:
    curve = outcome.curve if outcome else []
    steps = outcome.env_steps if outcome else 0
    seconds = float(sum(row["train_seconds"] for row in curve))
    scored = found if isinstance(found, Last) else None
    at_best = cell_scores(outcome) if outcome else {}
    return {
        "name": name,
        "changes": dict(changes),
        "trial_id": outcome.trial_id if outcome else None,
        "state": outcome.state if outcome else "not started",
        "ended": found if isinstance(found, str) else outcome.ended if outcome else None,
        "score": _mean(scored.scores) if scored else None,
        "score_at_best": _mean(at_best) if at_best else None,
        "trades": float(np.median(list(scored.trades.values()))) if scored else None,
        "idle_members": scored.idle if scored else None,
        "cells": [
            {"fold": cell[0], "seed": cell[1], "score": scored.scores[cell], "trades": scored.trades[cell]}
            for cell in sorted(scored.scores)
        ]
        if scored
        else [],
        "env_steps": steps,
        "train_seconds": seconds,
        "env_steps_per_s": steps / seconds if seconds > 0 else None,
        "evaluations": len(curve),
    }


def _mean(scores: Scores) -> float:
    return float(np.mean(list(scores.values())))


def _pair(pair: Pair) -> dict[str, Any]:
    alone, corrected = pair.alone, pair.corrected
    shown = "not enough pairs" if corrected.low is None else "no difference shown"
    return {
        "first": pair.first,
        "second": pair.second,
        "pairs": alone.pairs,
        "missing": alone.missing,
        "mean": alone.mean,
        "low": alone.low,
        "high": alone.high,
        "corrected_low": corrected.low,
        "corrected_high": corrected.high,
        "higher": pair.higher,
        "verdict": shown if pair.higher is None else f"{pair.higher} higher",
    }


def _spread(results: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [result[key] for result in results]
    return max(values) / min(values) if values and min(values) > 0 else None


def _notes(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the arms without scores and those that do not trade."""
    notes = []
    for result in results:
        name, idle, members = result["name"], result["idle_members"], len(result["cells"])
        if result["score"] is None:
            notes.append(f"{name} has no scores: {result['ended']}")
        elif idle == members:
            notes.append(f"{name} never trades: its scores of 0 are those of doing nothing")
        elif idle:
            notes.append(f"{name}: {idle} of {members} members never trade and score 0")
    return notes
