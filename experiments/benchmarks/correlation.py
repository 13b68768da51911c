"""How alike are the trials of a sweep, and the evaluations of one trial, on a market without an edge?

Eight trials of configs/placebo.yaml, learning rate and entropy weight drawn, eight evaluations each; correlations of
their out-of-sample session returns, of those that trade. It takes two minutes on one core.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import common
import numpy as np
import ray
import torch

from sentio_rllib.config.loading import load_config
from sentio_rllib.ppo.algorithm import build_algorithm
from sentio_rllib.search.prepare import prepare, trial_settings
from sentio_rllib.statistics.metrics import cv_score, sharpe

PROGRAM = "correlation"
CONFIG = Path(__file__).parents[2] / "configs" / "placebo.yaml"
TRIALS, EVALUATIONS = 8, 8


def returns_of_trials(seed: int) -> np.ndarray:
    """Session returns float64[trials, evaluations, S], seeds and folds as a sweep lays them out."""
    config = load_config(CONFIG, [f"seed={seed}", "data.synthetic.edge=0.0", f"data.synthetic.seed={seed}"])
    prepared, random = prepare(config), np.random.default_rng(seed)
    found = []
    for trial in range(TRIALS):
        rate, weight = float(np.exp(random.uniform(*np.log([3e-4, 3e-3])))), float(random.uniform(0.0, 0.03))
        params = {} if trial == 0 else {"ppo.learning_rate": rate, "ppo.entropy_weight": weight}
        settings = trial_settings(config, prepared.splits, params)
        algorithm, rows = build_algorithm(settings, prepared.tape), []
        for evaluation in range(1, EVALUATIONS + 1):
            while algorithm.env_steps < evaluation * config.search.env_steps // EVALUATIONS:
                algorithm.training_step()
            rows.append(np.concatenate([each.session_returns for each in algorithm.score().evaluation.greedy]))
        algorithm.stop()
        found.append(rows)
        print(f"trial {trial}", flush=True)
    return np.array(found)


def alike(pairs: Any) -> float | None:
    """Mean correlation of pairs of returns that both vary; None without any."""
    found = [np.corrcoef(one, other)[0, 1] for one, other in pairs if np.ptp(one) and np.ptp(other)]
    return float(np.mean(found)) if found else None


def main() -> None:
    """Measure and write the result."""
    parser = common.parser(__doc__)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
    try:
        returns = returns_of_trials(args.seed)
    finally:
        ray.shutdown()
    best = [max(trial, key=lambda row: cv_score(np.array([[sharpe(row, 252)]]))) for trial in returns]
    apart = {
        str(lag): alike((row[step], row[step + lag]) for row in returns for step in range(EVALUATIONS - lag))
        for lag in range(1, EVALUATIONS)
    }
    figures = {
        "settings": vars(args),
        "evaluations_apart": apart,
        "trials_at_an_evaluation": [alike(itertools.combinations(returns[:, step], 2)) for step in range(EVALUATIONS)],
        "trials_at_their_best": alike(itertools.combinations(best, 2)),
    }
    print(figures)
    print(common.write_result(PROGRAM, figures))


if __name__ == "__main__":
    main()
