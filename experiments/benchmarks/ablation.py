"""What each feature, and each part of the recipe, is worth: skill at 122,880 decisions with one of them changed.

Arms are configs/maskable.yaml with other keys, or with columns of the tape set to 0, on three planted markets, paired
over market, fold and seed with the shipped one. On a market without an edge, trades a day. Each finished arm is kept
under work/.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import common
import markets
import numpy as np
import ray
import torch
from learning import EDGE, MARKETS, interval, part, settings_of, train_sentio

from sentio_rllib.evidence.pairing import paired_difference
from sentio_rllib.market.feature_set import CLASSIC, MULTISCALE
from sentio_rllib.market.tape import build_tape
from sentio_rllib.ppo.settings import TrialSettings

PROGRAM = "ablation"
STEPS = 122_880
SHIPPED = "shipped"
ARMS: dict[str, tuple[str, ...]] = {
    SHIPPED: (),
    "classic features": ("features.set=classic",),
    "sampled advantages": ("ppo.advantages=sampled",),
    "sampled, classic features": ("ppo.advantages=sampled", "features.set=classic"),
    "stochastic target": ("ppo.target_policy=stochastic",),
    "4 epochs": ("ppo.epochs=4",),
    "entropy weight 0": ("ppo.entropy_weight=0.0",),
    "entropy weight 0.1": ("ppo.entropy_weight=0.1",),
    "constant learning rate": ("ppo.schedule=constant",),
    "learning rate 1e-3": ("ppo.learning_rate=1e-3",),
    "gamma 0.98": ("ppo.gamma=0.98",),
    "lambda 0.8": ("ppo.lambda=0.8",),
    "lambda 1": ("ppo.lambda=1.0",),
}
GROUPS: dict[str, tuple[str, ...]] = {
    **{f"without {name}": (name,) for name in MULTISCALE.names[len(CLASSIC) :]},
    "without returns": tuple(name for name in CLASSIC.names if name.startswith("return")),
    "without volatility_level, _ratio": ("volatility_level", "volatility_ratio"),
    "without volume_z": ("volume_z",),
    "without minute_sin, _cos": ("minute_sin", "minute_cos"),
    "without the rest": ("close_location", "rsi_14", "sma_12_26", "bollinger_20"),
}
"""Columns that are set to 0."""


def arm(args: Any, seed: int, name: str, edge: float) -> dict[str, Any]:
    """Train one arm on one market, or take it from work/."""
    label = name.replace(" ", "_").replace(",", "")
    return part(f"{label}-{seed}-{edge:g}", args, partial(_trained, args, seed, name, edge), PROGRAM)


def _trained(args: Any, seed: int, name: str, edge: float) -> dict[str, Any]:
    found = markets.market(args.bars, edge, seed)
    settings: TrialSettings = settings_of(found, STEPS, STEPS, "float32", ARMS.get(name, ()))
    if settings.policy.features != found.tape.feature_set.name:
        made = markets.synthetic(args.bars, edge, seed, found.splits)
        found = found._replace(tape=build_tape(made.bars, settings.policy.features).cut(found.tape.n))
    if name in GROUPS:
        features = found.tape.features.copy()
        features[:, [found.tape.feature_set.names.index(column) for column in GROUPS[name]]] = 0.0
        found = found._replace(tape=replace(found.tape, features=features))
    return train_sentio(found, settings, planted=edge > 0.0)


def main() -> None:
    """Run all arms on all markets, print the table, write the result."""
    parser = common.parser(__doc__)
    parser.add_argument("--bars", type=int, default=440_000)
    parser.add_argument("--market-seed", type=int, nargs="+", default=list(MARKETS))
    parser.add_argument("--only", default="", help="arms with this in their names; no result is written")
    parser.add_argument("--fresh", action="store_true", help="forget finished arms")
    args = parser.parse_args()
    args.precision = "float32"
    torch.set_num_threads(1)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    rows: dict[str, Any] = {}
    cells: dict[str, dict[tuple[int, int], float]] = {}
    for name in [each for each in (*ARMS, *GROUPS) if args.only in each or each == SHIPPED]:
        runs = {seed: arm(args, seed, name, EDGE) for seed in args.market_seed}
        cells[name] = {
            (seed, member): each["skill"] for seed in runs for member, each in enumerate(runs[seed]["members"])
        }
        null = arm(args, 0, name, 0.0)["curve"][-1] if name in ARMS else None
        difference = paired_difference(cells[name], cells[SHIPPED])
        values = list(cells[name].values())
        rows[name] = {
            "skill": float(np.mean(values)),
            "skill_interval": interval(values),
            "difference": difference.mean,
            "difference_interval": [difference.low, difference.high],
            "null_trades_per_day": None if null is None else null["trades_per_day"],
            "null_sharpe": None if null is None else null["sharpe"],
        }
        traded = "" if null is None else f"  null: {null['trades_per_day']:.2f} trades a day"
        print(
            f"{name:34s} {rows[name]['skill']:.3f}  {difference.mean:+.3f} [{difference.low:+.3f}, "
            f"{difference.high:+.3f}]{traded}",
            flush=True,
        )
    if not args.only:
        print(common.write_result(PROGRAM, {"settings": vars(args), "edge_per_bar": EDGE, "arms": rows}))
    ray.shutdown()


if __name__ == "__main__":
    main()
