"""What each feature, and each part of the recipe, is worth: skill at 122,880 decisions with one of them changed.

Arms are configs/maskable.yaml with other keys, or with columns of the tape set to 0, on three planted markets, paired
over market, fold and seed with the shipped one. Beside it the difference on a memory market, where features tell
little, and the trades a day on a market without an edge. Each finished arm is kept under work/.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Literal

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
    "sampled, a recipe of its own": (
        *("ppo.advantages=sampled", "ppo.learning_rate=1e-3", "ppo.entropy_weight=0.01", "ppo.epochs=4"),
    ),
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


Kind = Literal["planted", "null", "memory"]
EDGES: dict[Kind, float] = {"planted": EDGE, "null": 0.0, "memory": markets.MEMORY_EDGE}


def arm(args: Any, kind: Kind, seed: int, name: str) -> dict[str, Any]:
    """Train one arm on one market, or take it from work/."""
    label = name.replace(" ", "_").replace(",", "")
    return part(f"{label}-{kind}-{seed}", args, partial(_trained, args, kind, seed, name), PROGRAM)


def _trained(args: Any, kind: Kind, seed: int, name: str) -> dict[str, Any]:
    made = args.bars, EDGES[kind], seed
    law = markets.MEMORY if kind == "memory" else markets.PLAIN
    found = markets.market(*made, law=law)
    settings: TrialSettings = settings_of(found, STEPS, STEPS, "float32", ARMS.get(name, ()))
    if settings.policy.features != found.tape.feature_set.name:
        bars = markets.synthetic(*made, found.splits, law).bars
        found = found._replace(tape=build_tape(bars, settings.policy.features).cut(found.tape.n))
    if name in GROUPS:
        features = found.tape.features.copy()
        features[:, [found.tape.feature_set.names.index(column) for column in GROUPS[name]]] = 0.0
        found = found._replace(tape=replace(found.tape, features=features))
    return train_sentio(found, settings, planted=kind != "null")


def skills(args: Any, kind: Kind, seeds: list[int], name: str) -> dict[tuple[int, int], float]:
    """Return the skill of an arm in every cell of (market, member)."""
    runs = {seed: arm(args, kind, seed, name) for seed in seeds}
    return {(seed, member): each["skill"] for seed in runs for member, each in enumerate(runs[seed]["members"])}


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
    shipped = skills(args, "planted", args.market_seed, SHIPPED), skills(args, "memory", [0], SHIPPED)
    for name in [each for each in (*ARMS, *GROUPS) if args.only in each or each == SHIPPED]:
        cells = skills(args, "planted", args.market_seed, name), skills(args, "memory", [0], name)
        planted, memory = (paired_difference(own, of) for own, of in zip(cells, shipped, strict=True))
        null = arm(args, "null", 0, name)["curve"][-1] if name in ARMS else None
        values = list(cells[0].values())
        rows[name] = {
            "skill": float(np.mean(values)),
            "skill_interval": interval(values),
            "difference": planted.mean,
            "difference_interval": [planted.low, planted.high],
            "memory_skill": float(np.mean(list(cells[1].values()))),
            "memory_difference": memory.mean,
            "memory_difference_interval": [memory.low, memory.high],
            "null_trades_per_day": None if null is None else null["trades_per_day"],
            "null_sharpe": None if null is None else null["sharpe"],
        }
        traded = "" if null is None else f"  null: {null['trades_per_day']:.2f} trades a day"
        print(
            f"{name:34s} {rows[name]['skill']:.3f}  {planted.mean:+.3f} [{planted.low:+.3f}, {planted.high:+.3f}]  "
            f"memory {memory.mean:+.3f} [{memory.low:+.3f}, {memory.high:+.3f}]{traded}",
            flush=True,
        )
    if not args.only:
        print(common.write_result(PROGRAM, {"settings": vars(args), "edge_per_bar": EDGES, "arms": rows}))
    ray.shutdown()


if __name__ == "__main__":
    main()
