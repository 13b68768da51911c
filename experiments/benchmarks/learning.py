"""Does it learn, and how fast? Skill on planted markets with the settings of configs/maskable.yaml.

Skill is 1 for the oracle that knows the regimes and 0 for holding as much as the agent does on average, net of
fees, out of sample (4 folds x 2 seeds). Beside it stand sb3-contrib's MaskablePPO on the same features, with the same
networks, at equal steps and at equal seconds, and what the features can say at best (`ceilings.py`). `null`: trades and
Sharpe ratio on a market without an edge. Seconds are of training, on one thread, of all eight networks. Each finished
part is kept under work/, so that a stopped run goes on where it was; `--fresh` starts over.

The last line of a market is `skill 0.904 at 122880 decisions, market seed 7`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import common
import markets
import numpy as np
import peers
import ray
import torch
from ceilings import ceilings

from sentio_rllib.config.loading import load_config
from sentio_rllib.market.oracle import skill
from sentio_rllib.ppo.algorithm import SentioPPO, build_algorithm
from sentio_rllib.ppo.settings import PPOSettings, TrialSettings
from sentio_rllib.search.prepare import trial_settings
from sentio_rllib.validation.baselines import table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator, Evaluation, Record, fold_score
from sentio_rllib.validation.schemes import training_stretch

PROGRAM = "learning"
FOLDS, SEEDS = 4, 2
EDGE = 2e-5
MARKETS = (0, 7, 23)
MASKABLE = Path(__file__).parents[2] / "configs" / "maskable.yaml"
BUDGETS = {122_880: 0.90, 245_760: 0.915}
"""Decisions of a network in a full trial, and the skill that is asked for."""
EVERY, SELDOM = 8_192, 24_576
REACHED, TIMES_FASTER = 0.85, 10.0
"""A skill, and how many times as long MaskablePPO is to take to it."""
PEER_STEPS, PEER_EVERY = 491_520, 24_576
PARTS = ("planted", "peer", "ceiling", "null")


def settings_of(
    found: markets.Market, env_steps: int, every: int, precision: str, overrides: Sequence[str] = ()
) -> TrialSettings:
    """Return the settings of the first trial of configs/maskable.yaml, with these folds and members."""
    sizes = [f"search.env_steps={env_steps}", f"search.evaluate_every={every}", "search.patience=0"]
    plain = [f"ppo.precision={precision}", "validation.phases=1", "search.space={}"]
    config = load_config(MASKABLE, [*sizes, *plain, *overrides])
    return replace(
        trial_settings(config, found.splits, {}), folds=found.splits.folds, members=markets.members(SEEDS, FOLDS)
    )


def peer_settings(settings: TrialSettings) -> TrialSettings:
    """Return the peer's: the same rules and networks, and PPO as it has been used here with networks of this size."""
    return replace(
        settings,
        ppo=PPOSettings(
            advantages="sampled",
            learning_rate=1e-3,
            entropy_weight=0.01,
            rollout_steps=256,
            minibatch_rows=1024,
            epochs=4,
        ),
        env_steps=PEER_STEPS,
        evaluate_every=PEER_EVERY,
    )


def references(found: markets.Market, settings: TrialSettings) -> dict[str, Evaluation]:
    """Return what the oracle and always-long do on every member's blocks and training stretch."""
    policies = {
        "oracle": table_policy(found.oracle),
        "hold": table_policy(np.ones(found.tape.n, dtype=np.int64)),
    }
    evaluator = block_evaluator(found, replace(settings, rules=settings.rules.replace(masks="state")))
    return {name: evaluator.evaluate(policy) for name, policy in policies.items()}


def block_evaluator(found: markets.Market, settings: TrialSettings) -> BlockEvaluator:
    """Return the evaluator of all members under the rules that references and peers are measured with."""
    folds = [settings.folds[fold] for _, fold in settings.members]
    blocks, stretches = [fold.validation for fold in folds], [training_stretch(fold) for fold in folds]
    return BlockEvaluator(found.tape.tensors(), settings.rules, blocks, settings.members, beside=stretches)


def describe(agent: Record, oracle: Record | None = None, hold: Record | None = None) -> dict[str, float]:
    """Return the figures of one member out of sample; without references there is no skill."""
    figures = {
        "mean_return": agent.mean_return,
        "exposure": agent.exposure,
        "trades": agent.trades,
        "trades_per_day": agent.trades / len(agent.session),
        "sharpe": fold_score(agent, 252),
    }
    if oracle is not None and hold is not None:
        figures["skill"] = _skill(agent, oracle, hold)
    return figures


def _skill(agent: Record, oracle: Record, hold: Record) -> float:
    return skill(agent.mean_return, oracle.mean_return, hold.mean_return, agent.exposure)


def train_sentio(found: markets.Market, settings: TrialSettings, planted: bool) -> dict[str, Any]:
    """Train all members as one stack and return the curve of their figures, with seconds of training."""
    known = references(found, settings) if planted else None
    algorithm: SentioPPO = build_algorithm(settings, found.tape)
    curve, seconds = [], 0.0
    while True:
        result = algorithm.train()
        assert algorithm.scores is not None
        seconds += result["train_seconds"]
        evaluation = algorithm.scores.evaluation
        if known is None:
            members = [describe(record) for record in evaluation.greedy]
        else:
            oracle, hold = known["oracle"], known["hold"]
            members = list(map(describe, evaluation.greedy, oracle.greedy, hold.greedy))
            for member, *row in zip(members, evaluation.beside, oracle.beside, hold.beside, strict=True):
                member["train_skill"] = _skill(*row)
        point = {key: float(np.mean([member[key] for member in members])) for key in members[0]}
        point |= {key: result[key] for key in _TOLD if key in result} | {"seconds": seconds}
        curve.append(point)
        print(f"  sentio: {_line(point)}", flush=True)
        if result["stop_reason"]:
            break
    algorithm.stop()
    return {"members": members, "curve": curve}


_TOLD = ("env_steps", "cv_score", "sampled_score", "train_score", "entropy", "approximate_kl", "clip_fraction")


def _line(point: dict[str, Any]) -> str:
    return "  ".join(f"{key} {value:.4g}" for key, value in point.items())


def train_peer(found: markets.Market, settings: TrialSettings) -> dict[str, Any]:
    """Train sb3-contrib's MaskablePPO, one member after the other; seconds are of all of them."""
    known = references(found, settings)
    curves = []
    for index, (seed, fold) in enumerate(settings.members):
        part_ = replace(settings, members=((seed, fold),))
        evaluator = block_evaluator(found, part_)
        model = peers.maskable_ppo(found, part_)
        points, seconds = [], 0.0
        for target in range(settings.evaluate_every, settings.env_steps + 1, settings.evaluate_every):
            started = time.perf_counter()
            model.learn(target - model.num_timesteps, reset_num_timesteps=False)
            seconds += time.perf_counter() - started
            record = evaluator.evaluate(peers.peer_policy(model, found.tape)).greedy[0]
            figures = describe(record, known["oracle"].greedy[index], known["hold"].greedy[index])
            points.append({"env_steps": float(model.num_timesteps), "seconds": seconds, **figures})
        print(f"  maskable_ppo fold {fold}: {_line(points[-1])}", flush=True)
        model.env.close()
        curves.append(points)
    curve = []
    for step in zip(*curves, strict=True):
        point = {key: float(np.mean([each[key] for each in step])) for key in step[0]}
        curve.append(point | {"seconds": float(sum(each["seconds"] for each in step))})
    return {"members": [points[-1] for points in curves], "curve": curve}


def seconds_to(curve: Sequence[dict[str, Any]], wanted: float) -> float | None:
    """Return the seconds of training after which the mean skill first is `wanted`; None where it never is."""
    return next((point["seconds"] for point in curve if point["skill"] >= wanted), None)


def at_seconds(curve: Sequence[dict[str, Any]], seconds: float) -> float:
    """Return the mean skill that was reached within `seconds`; 0 before the first evaluation."""
    return max([point["skill"] for point in curve if point["seconds"] <= seconds], default=0.0)


def part(name: str, args: Any, make: Callable[[], dict[str, Any]], program: str = PROGRAM) -> dict[str, Any]:
    """Return a part that the code as it is has finished, from work/, or make it and keep it."""
    path = common.WORK / program / f"{name}-{args.bars}-{args.precision}-{common.code()}.json"
    if path.is_file() and not args.fresh:
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept
    print(f"{name}:", flush=True)
    figures = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures))
    return figures


def interval(values: list[float]) -> list[float]:
    """Return the 95% percentile-bootstrap interval of the mean over members."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, size=(10_000, len(values))).mean(1)
    return [float(x) for x in np.percentile(means, [2.5, 97.5])]


def one_market(args: Any, seed: int) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
    """Run the parts that are asked for on one market; return figures and floors."""
    found = markets.market(args.bars, EDGE, seed)
    figures: dict[str, Any] = {}
    floors: dict[str, tuple[float, float]] = {}
    told = []
    if "ceiling" in args.parts:
        settings = settings_of(found, max(BUDGETS), EVERY, args.precision)
        figures["ceiling"] = part(f"ceiling-{seed}", args, partial(ceilings, found, settings))
        told.append("ceiling: " + ", ".join(f"{name} {value:.3f}" for name, value in figures["ceiling"].items()))
    if "peer" in args.parts:
        settings = peer_settings(settings_of(found, max(BUDGETS), EVERY, args.precision))
        figures["peer"] = part(f"peer-{seed}", args, partial(train_peer, found, settings))
    for budget, floor in BUDGETS.items() if "planted" in args.parts else ():
        settings = settings_of(found, budget, EVERY if budget == min(BUDGETS) else SELDOM, args.precision)
        run = part(f"planted-{seed}-{budget}", args, partial(train_sentio, found, settings, planted=True))
        skills = [member["skill"] for member in run["members"]]
        run |= {"skill": float(np.mean(skills)), "skill_interval": interval(skills)}
        run["seconds_to"] = seconds_to(run["curve"], REACHED)
        figures[f"planted_{budget}"] = run
        floors[f"skill at {budget} decisions, market {seed}"] = (run["skill"], floor)
        told += _beside(run, figures.get("peer"), budget)
        told.append(f"skill on training stretches {run['curve'][-1]['train_skill']:.3f}")
        told.append(f"skill {run['skill']:.3f} at {budget} decisions, market seed {seed}")
    if {"peer", "planted"} <= set(args.parts):
        ours = figures[f"planted_{min(BUDGETS)}"]["seconds_to"]
        theirs = seconds_to(figures["peer"]["curve"], REACHED) or figures["peer"]["curve"][-1]["seconds"]
        faster = 0.0 if ours is None else theirs / ours
        floors[f"times faster than MaskablePPO to a skill of {REACHED}, market {seed}"] = (faster, TIMES_FASTER)
    print("\n".join(told), flush=True)
    return figures, floors


def _beside(run: dict[str, Any], peer: dict[str, Any] | None, budget: int) -> list[str]:
    """Say what MaskablePPO reached at equal steps and at equal seconds."""
    if peer is None:
        return []
    seconds = run["curve"][-1]["seconds"]
    steps = next(point["skill"] for point in peer["curve"] if point["env_steps"] >= budget)
    within = at_seconds(peer["curve"], seconds)
    return [f"MaskablePPO at {budget} decisions {steps:.3f}, within {seconds:.0f} s {within:.3f}"]


def null_market(args: Any) -> dict[str, Any]:
    """Train on a market without an edge."""
    found = markets.market(args.bars, 0.0)
    settings = settings_of(found, min(BUDGETS), EVERY, args.precision)
    run = part("null", args, partial(train_sentio, found, settings, planted=False))
    last = run["curve"][-1]
    print(f"null market: Sharpe {last['sharpe']:.2f}, {last['trades_per_day']:.2f} trades a day (no edge exists)")
    return run


def main() -> None:
    """Run the parts that are asked for, print the figures, write the result where all were run."""
    parser = common.parser(__doc__)
    parser.add_argument("--bars", type=int, default=440_000)
    parser.add_argument("--market-seed", type=int, nargs="+", default=list(MARKETS), help="seeds of planted markets")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--fresh", action="store_true", help="forget finished parts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    results, floors = {}, {}
    for seed in args.market_seed:
        results[str(seed)], held = one_market(args, seed)
        floors |= held
    null = null_market(args) if "null" in args.parts else None
    if set(args.parts) == set(PARTS) and tuple(args.market_seed) == MARKETS:
        figures = {"settings": vars(args), "edge_per_bar": EDGE, "markets": results, "null": null}
        print(common.write_result(PROGRAM, figures))
    ray.shutdown()
    common.finish(floors, args.check)


if __name__ == "__main__":
    main()
