"""Which part of the enhanced variant earns its cost? Variants, and enhanced without each of its parts, at equal steps.

With the sizes of configs/enhanced.yaml, on two planted markets, on a memory market and on the bars of `--data`; paired
over fold and seed. On the memory market the regimes are told by bars that no feature reaches: there the transformers
look back far enough to read them, and the others have but the drift to go by. Each finished arm is kept under work/.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import common
import markets
import numpy as np
import ray
import torch
from ceilings import ceilings
from learning import EDGE, interval, part, train_sentio

from sentio_rllib.config.loading import load_config
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.evidence.pairing import paired_difference
from sentio_rllib.market.bars import load_bars
from sentio_rllib.market.oracle import oracle_actions
from sentio_rllib.market.report import suitable_reference, usual_volatility
from sentio_rllib.ppo.settings import TrialSettings
from sentio_rllib.search.prepare import Prepared, embedded_market, prepare
from sentio_rllib.search.prepare import trial_settings as trial_settings_of
from sentio_rllib.validation.splits import Splits

PROGRAM = "variants"
SEEDS = 2
ENHANCED = Path(__file__).parents[2] / "configs" / "enhanced.yaml"
BASELINE = "enhanced"
_PLAIN = ("policy.encoder=mlp", "policy.head=categorical", "policy.critic=scalar")
ARMS: dict[str, tuple[str, ...]] = {
    "enhanced": (),
    "no transformer": ("policy.encoder=mlp",),
    "no gated head": ("policy.head=categorical",),
    "no quantile critic": ("policy.critic=scalar",),
    "no risk masks": ("trading.masks=state",),
    "mixture of logits": ("policy.mixture=logits",),
    "maskable": (*_PLAIN, "trading.masks=state"),
    "standard": (*_PLAIN, "trading.masks=none"),
}


_PLANTED = (f"data.synthetic.edge={EDGE}",)
MARKETS: dict[str, tuple[str, ...]] = {
    "planted": _PLANTED,
    "planted 7": (*_PLANTED, "data.synthetic.seed=7"),
    "memory": (
        f"data.synthetic.edge={markets.MEMORY_EDGE}",
        f"data.synthetic.memory={markets.MEMORY.memory}",
        f"data.synthetic.regime_bars={markets.MEMORY.regime_bars}",
        "policy.band=48",  # 48 patches of 15 bars: what tells a regime lies 520 to 640 bars back
    ),
}


def variant_settings(
    overrides: Sequence[str], args: Any, splits: Splits | None = None
) -> tuple[SweepConfig, Prepared, TrialSettings]:
    """Return configs/enhanced.yaml with `overrides` on the bars asked for; arms share the folds of the first."""
    everywhere = [
        f"validation.seeds={SEEDS}",
        f"search.env_steps={args.env_steps}",
        f"search.evaluate_every={args.evaluate_every}",
        f"ppo.precision={args.precision}",
        "search.space={}",
        "search.patience=0",
    ]
    config = load_config(ENHANCED, [*everywhere, *overrides])
    prepared = prepare(config)
    return config, prepared, trial_settings_of(config, splits or prepared.splits, {})


def _of_file(path: str) -> tuple[str, ...]:
    """Return the settings for a file of bars, with the reference volatility that suits them."""
    bars, _ = load_bars(path)
    return (f"data.path={path}", f"features.reference_volatility={suitable_reference(usual_volatility(bars)):.2g}")


def compare_variants(args: Any, name: str, market: Sequence[str], arms_of: Sequence[str]) -> dict[str, Any]:
    """Train these arms on one market and return their figures with the differences to the enhanced variant."""
    config, prepared, _ = variant_settings(market, args)
    oracle = None if config.data.path else planted_oracle(config, prepared)
    arms: dict[str, Any] = {}
    for arm in arms_of:
        _, _, settings = variant_settings([*market, *ARMS[arm]], args, prepared.splits)
        found = markets.Market(prepared.tape, prepared.splits, oracle)
        label = f"{name}-{arm}-{args.env_steps}-{args.evaluate_every}".replace(" ", "_")
        arms[arm] = part(label, args, partial(train_sentio, found, settings, oracle is not None), PROGRAM)
    measure = "sharpe" if oracle is None else "skill"
    cells = [(fold, seed) for seed, fold in trial_settings_of(config, prepared.splits, {}).members]
    baseline = _by_cell(cells, arms[BASELINE], measure)
    print(f"{name}: {measure} after {args.env_steps:,} env steps, {len(baseline)} members; difference to {BASELINE}")
    for arm, figures in arms.items():
        scores = _by_cell(cells, figures, measure)
        values = list(scores.values())
        difference = paired_difference(scores, baseline)
        figures |= {
            "measure": measure,
            "mean": float(np.mean(values)),
            "interval": interval(values),
            "difference": difference.mean,
            "difference_interval": [difference.low, difference.high],
        }
        low, high = figures["difference_interval"]
        last = figures["curve"][-1]
        figures["env_steps_per_s"] = last["env_steps"] / last["seconds"]
        print(
            f"  {arm:22s} {figures['mean']:7.3f} [{figures['interval'][0]:.3f}, {figures['interval'][1]:.3f}]  "
            f"{figures['difference']:+.3f} [{low:+.3f}, {high:+.3f}]  {last['trades_per_day']:.2f} trades a day  "
            f"{figures['env_steps_per_s']:,.0f} env steps/s"
        )
    made = {"bars": prepared.tape.n, "measure": measure, "arms": arms}
    if oracle is None:
        return made
    plain = variant_settings([*market, *ARMS["maskable"]], args, prepared.splits)[2]
    found = markets.Market(prepared.tape, prepared.splits, oracle)
    made["ceilings"] = part(f"{name}-ceilings".replace(" ", "_"), args, partial(ceilings, found, plain), PROGRAM)
    print("  " + ", ".join(f"{key} {value:.3f}" for key, value in made["ceilings"].items()))
    return made


def _by_cell(cells: Sequence[tuple[int, int]], figures: dict[str, Any], measure: str) -> dict[tuple[int, int], float]:
    return {cell: member[measure] for cell, member in zip(cells, figures["members"], strict=True)}


def planted_oracle(config: SweepConfig, prepared: Prepared) -> Any:
    """Return the oracle's action at every bar of the tape that trials receive."""
    market = embedded_market(config, prepared.splits)
    return oracle_actions(market.regime, np.arange(prepared.tape.n)).astype(np.int64)


def main() -> None:
    """Compare the arms on every market that is asked for, and write the result."""
    parser = common.parser(__doc__)
    parser.add_argument("--bars", type=int, default=440_000)
    parser.add_argument("--env-steps", type=int, default=294_912, help="per member")
    parser.add_argument("--evaluate-every", type=int, default=49_152)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--data", nargs="*", default=[], help="files of bars, beside the made markets")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="enhanced is always one")
    parser.add_argument("--markets", nargs="*", choices=list(MARKETS), default=list(MARKETS))
    parser.add_argument("--fresh", action="store_true", help="forget finished arms")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    args.arms = list(dict.fromkeys([BASELINE, *args.arms]))
    made = {name: (f"data.synthetic.bars={args.bars}", *MARKETS[name]) for name in args.markets}
    files = {Path(data).stem: _of_file(data) for data in args.data}
    compared = {name: compare_variants(args, name, market, args.arms) for name, market in (made | files).items()}
    settings = vars(args) | {"data": [Path(data).name for data in args.data]}
    print(common.write_result(PROGRAM, {"settings": settings, "markets": compared}))
    ray.shutdown()


if __name__ == "__main__":
    main()
