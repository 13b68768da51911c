"""By which score should weak trials be stopped? Regret of ASHA's rungs, simulated over recorded learning curves.

`--record`: trials with parameters drawn from the space of configs/maskable.yaml are trained to their full budget, on a
planted market, on one with a weak edge and on one without any; curves of the greedy and of the sampled score are kept
in results/. Simulated: the same trials in random orders under asynchronous successive halving, by the greedy score, the
sampled one, the higher of the two, or the mean of the greedy one over the last three evaluations. Regret is what the
best trial has at full budget less what the trial that is selected has where it was stopped, in annual Sharpe ratios.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import common
import markets
import numpy as np
import optuna
import ray
import torch
from learning import MASKABLE, part
from numpy.typing import NDArray
from optuna.samplers import RandomSampler

from sentio_rllib.config.loading import load_config
from sentio_rllib.config.space import decode_params
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.ppo.algorithm import build_algorithm
from sentio_rllib.search.distributions import distribution
from sentio_rllib.search.prepare import trial_settings

PROGRAM = "stopping"
CURVES = Path(__file__).parent / "results" / "stopping_curves.json"
EDGES = {"planted": 2e-5, "weak": 6e-6, "none": 0.0}
BARS, TRIALS, ORDERS = 120_000, 10, 2_000
GRACE, FACTOR = 3, 3
"""Evaluations before the first rung, and of how many one passes; as in the configuration."""

Curve = NDArray[np.float64]
"""Greedy and sampled score of each evaluation, float64[2, E]."""
SCORES: dict[str, Callable[[Curve, int], float]] = {
    "greedy": lambda curve, at: float(curve[0, at]),
    "sampled": lambda curve, at: float(curve[1, at]),
    "higher of both": lambda curve, at: float(curve[:, at].max()),
    "mean of three": lambda curve, at: float(curve[0, max(0, at - 2) : at + 1].mean()),
    "best greedy so far": lambda curve, at: float(curve[0, : at + 1].max()),
}


def recorded(market: str, trial: int) -> dict[str, Any]:
    """Train one trial to its full budget and return its curve."""
    config = load_config(MASKABLE, ["search.patience=0", "search.scheduler=none", "validation.phases=1"])
    found = markets.market(BARS, EDGES[market], 1)
    drawn = parameters(config, trial)
    drawn["trading.decision_interval"] = 15  # the folds here are for it
    settings = trial_settings(config, found.splits, drawn)
    algorithm, curve = build_algorithm(settings, found.tape), []
    while True:
        result = algorithm.train()
        curve.append([result["cv_score"], result["sampled_score"]])
        if result["stop_reason"]:
            break
    algorithm.stop()
    print(f"{market} {trial}: {curve[-1][0]:.2f}", flush=True)
    return {"params": drawn, "curve": curve}


def parameters(config: SweepConfig, trial: int) -> dict[str, Any]:
    """Return the parameters of a trial: the configuration's own, then draws from its space."""
    space = config.parameters()
    if trial == 0:
        return config.default_params()
    study = optuna.create_study(sampler=RandomSampler(seed=trial))
    drawn = study.ask(fixed_distributions={key: distribution(each) for key, each in space.items()})
    return decode_params(space, drawn.params)


def simulated(
    curves: Sequence[Curve], score: Callable[[Curve, int], float], random: np.random.Generator
) -> tuple[float, float]:
    """Return regret and share of the full budgets that was trained, of one order of the trials."""
    evaluations = curves[0].shape[1]
    rungs = [GRACE * FACTOR**level - 1 for level in range(10) if GRACE * FACTOR**level <= evaluations]
    seen: dict[int, list[float]] = {rung: [] for rung in rungs}
    best, spent = [], 0
    for index in random.permutation(len(curves)):
        stopped = evaluations - 1
        for rung in rungs:
            value, before = score(curves[index], rung), seen[rung]
            below = bool(before) and value < np.percentile(before, 100.0 * (1.0 - 1.0 / FACTOR))
            before.append(value)
            if below:
                stopped = rung
                break
        spent += stopped + 1
        best.append(curves[index][0, : stopped + 1].max())
    full = max(curve[0].max() for curve in curves)
    return float(full - max(best)), spent / (evaluations * len(curves))


def main() -> None:
    """Record what is missing, simulate, print the table, write the result."""
    parser = common.parser(__doc__)
    parser.add_argument("--record", action="store_true", help="train the trials anew, instead of reading their curves")
    parser.add_argument("--fresh", action="store_true", help="forget finished trials")
    args = parser.parse_args()
    args.bars, args.precision = BARS, "float32"
    if args.record:
        torch.set_num_threads(1)
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
        found = {
            market: [
                part(f"{market}-{trial}", args, partial(recorded, market, trial), PROGRAM) for trial in range(TRIALS)
            ]
            for market in EDGES
        }
        ray.shutdown()
        CURVES.write_text(json.dumps(found) + "\n")
    if not CURVES.is_file():
        sys.exit(f"{CURVES.name}: no curves have been recorded; pass --record")
    held = json.loads(CURVES.read_text())
    rows: dict[str, Any] = {}
    for name, score in SCORES.items():
        rows[name] = {}
        for market, trials in held.items():
            curves = [np.asarray(trial["curve"], dtype=np.float64).T for trial in trials]
            random = np.random.default_rng(0)
            regret, spent = np.mean([simulated(curves, score, random) for _ in range(ORDERS)], axis=0)
            rows[name][market] = {"regret": float(regret), "spent": float(spent)}
        told = "  ".join(f"{market} {each['regret']:.3f} ({each['spent']:.0%})" for market, each in rows[name].items())
        print(f"{name:20s} regret (share of steps): {told}")
    print(common.write_result(PROGRAM, {"trials": TRIALS, "orders": ORDERS, "scores": rows}))


if __name__ == "__main__":
    main()
