"""Does it learn? Skill on the planted market against sb3-contrib's MaskablePPO, and what the null market shows.

Skill is 1 for the oracle that knows the regimes and 0 for holding as much as the agent does on average, net of
fees, out of sample (4 folds x 2 seeds). The part `variants` trains the three variants, and the enhanced one with
each of its parts taken out, at equal env steps with the sizes of configs/enhanced.yaml, on the planted market and
on the bars of `--data`. Each finished part is kept under work/, so that a stopped run goes on where it was;
`--fresh` starts over.
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

from sentio_rllib.config.loading import load_config
from sentio_rllib.config.tree import SweepConfig
from sentio_rllib.evidence.pairing import paired_difference
from sentio_rllib.market.oracle import oracle_actions, skill
from sentio_rllib.policy.variants import VARIANTS, PolicySpec
from sentio_rllib.ppo.algorithm import SentioPPO, SentioPPOConfig
from sentio_rllib.ppo.env_runner import TapeHandle
from sentio_rllib.ppo.settings import PPOSettings, TrialSettings
from sentio_rllib.search.prepare import Prepared, embedded_market, prepare
from sentio_rllib.search.prepare import trial_settings as trial_settings_of
from sentio_rllib.trading.rules import TradingRules
from sentio_rllib.validation.baselines import table_policy
from sentio_rllib.validation.evaluation import BlockEvaluator, Record, fold_score
from sentio_rllib.validation.splits import Splits

PROGRAM = "learning"
FOLDS, SEEDS = 4, 2
EDGE = 2e-5
SKILL_FLOOR = 0.70
ENHANCED = Path(__file__).parents[2] / "configs" / "enhanced.yaml"
PARTS = ("planted", "peer", "null")
VARIANTS_PART = "variants"
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


def trial_settings(found: markets.Market, args: Any, variant: str = "maskable") -> TrialSettings:
    """Return the defaults of DESIGN: 256-256-128, separate trunks, a decision every 15 bars."""
    rules = TradingRules(masks=VARIANTS[variant].masks)
    policy = PolicySpec(variant=variant, hidden=tuple(args.hidden))  # type: ignore[arg-type]
    return TrialSettings(
        rules,
        policy,
        PPOSettings(precision=args.precision),
        found.splits.folds,
        markets.members(SEEDS, FOLDS),
        env_steps=args.env_steps,
        evaluate_every=args.evaluate_every,
    )


def references(found: markets.Market, settings: TrialSettings) -> dict[str, list[Record]]:
    """Return the records of the oracle and of always-long on every member's blocks."""
    policies = {
        "oracle": table_policy(found.oracle),
        "hold": table_policy(np.ones(found.tape.n, dtype=np.int64)),
    }
    evaluator = block_evaluator(found, settings)
    return {name: list(evaluator.evaluate(policy).greedy) for name, policy in policies.items()}


def block_evaluator(found: markets.Market, settings: TrialSettings) -> BlockEvaluator:
    """Return the evaluator of all members under the rules that references and peers are measured with."""
    blocks = [settings.folds[fold].validation for _, fold in settings.members]
    return BlockEvaluator(found.tape.tensors(), settings.rules, blocks, settings.members)


def describe(agent: Record, oracle: Record | None, hold: Record | None, planted: bool) -> dict[str, float]:
    """Return the figures of one member out of sample."""
    figures = {
        "mean_return": agent.mean_return,
        "exposure": agent.exposure,
        "trades": agent.trades,
        "trades_per_day": agent.trades / len(agent.session),
        "sharpe": fold_score(agent, 252),
    }
    if planted and oracle is not None and hold is not None:
        figures["skill"] = skill(agent.mean_return, oracle.mean_return, hold.mean_return, agent.exposure)
    return figures


def train_sentio(found: markets.Market, settings: TrialSettings, planted: bool) -> dict[str, Any]:
    """Train all members as one stack and return the curve of their figures."""
    known = references(found, settings) if planted or found.oracle is not None else {}
    nothing = [None] * len(settings.members)
    rows = list(zip(known.get("oracle", nothing), known.get("hold", nothing), strict=True))
    algorithm: SentioPPO = SentioPPOConfig().trading(settings, TapeHandle(found.tape)).build_algo()
    curve, started = [], time.perf_counter()
    while True:
        result = algorithm.train()
        records = algorithm.scores.evaluation.greedy
        members = [describe(record, *row, planted) for record, row in zip(records, rows, strict=True)]
        point = {key: float(np.mean([member[key] for member in members])) for key in members[0]}
        point |= {key: result[key] for key in ("env_steps", "cv_score", "rung_score", "entropy")}
        point |= {key: result[key] for key in ("env_steps_per_s", "trades_per_decision")}
        curve.append(point)
        print(f"  sentio {settings.policy.variant}: {_line(point)}", flush=True)
        if result["stop_reason"]:
            break
    algorithm.stop()
    return {"members": members, "curve": curve, "seconds": time.perf_counter() - started}


def _line(point: dict[str, Any]) -> str:
    return "  ".join(f"{key} {value:.4g}" for key, value in point.items())


def train_peer(found: markets.Market, settings: TrialSettings, planted: bool) -> dict[str, Any]:
    """Train sb3-contrib's MaskablePPO, one member after the other, with the same networks and defaults."""
    known = references(found, settings)
    curves: dict[int, list[dict[str, float]]] = {}
    started = time.perf_counter()
    for index, (seed, fold) in enumerate(settings.members):
        part = replace(settings, members=((seed, fold),))
        evaluator = block_evaluator(found, part)
        model = peers.maskable_ppo(found, part)
        points = []
        for target in range(settings.evaluate_every, settings.env_steps + 1, settings.evaluate_every):
            model.learn(target - model.num_timesteps, reset_num_timesteps=False)
            record = evaluator.evaluate(peers.peer_policy(model, found.tape)).greedy[0]
            row = known["oracle"][index], known["hold"][index]
            points.append({"env_steps": float(model.num_timesteps), **describe(record, *row, planted)})
            print(f"  maskable_ppo fold {fold}: {_line(points[-1])}", flush=True)
        model.env.close()
        curves[index] = points
    last = [points[-1] for points in curves.values()]
    curve = [
        {key: float(np.mean([point[key] for point in step])) for key in step[0]}
        for step in zip(*curves.values(), strict=True)
    ]
    return {"members": last, "curve": curve, "seconds": time.perf_counter() - started}


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


def compare_variants(args: Any, data: str | None) -> dict[str, Any]:
    """Train every arm on one market and return its figures with the differences to the enhanced variant."""
    market = [f"data.path={data}"] if data else [f"data.synthetic.bars={args.bars}", f"data.synthetic.edge={EDGE}"]
    name = Path(data).stem if data else "planted"
    config, prepared, _ = variant_settings(market, args)
    oracle = None if data else planted_oracle(config, prepared)
    arms: dict[str, Any] = {}
    for arm, overrides in ARMS.items():
        _, _, settings = variant_settings([*market, *overrides], args, prepared.splits)
        found = markets.Market(prepared.tape, prepared.splits, oracle)
        label = f"{name}-{arm.replace(' ', '_')}"
        arms[arm] = part(label, args, partial(train_sentio, found, settings, oracle is not None))
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
            "env_steps_per_s": float(np.median([point["env_steps_per_s"] for point in figures["curve"]])),
        }
        low, high = figures["difference_interval"]
        last = figures["curve"][-1]
        print(
            f"  {arm:22s} {figures['mean']:7.3f} [{figures['interval'][0]:.3f}, {figures['interval'][1]:.3f}]  "
            f"{figures['difference']:+.3f} [{low:+.3f}, {high:+.3f}]  {last['trades_per_day']:.2f} trades a day  "
            f"{figures['env_steps_per_s']:,.0f} env steps/s"
        )
    return {"bars": prepared.tape.n, "measure": measure, "arms": arms}


def _by_cell(cells: Sequence[tuple[int, int]], figures: dict[str, Any], measure: str) -> dict[tuple[int, int], float]:
    return {cell: member[measure] for cell, member in zip(cells, figures["members"], strict=True)}


def planted_oracle(config: SweepConfig, prepared: Prepared) -> Any:
    """Return the oracle's action at every bar of the tape that trials receive."""
    market = embedded_market(config, prepared.splits)
    return oracle_actions(market.regime, np.arange(prepared.tape.n)).astype(np.int64)


def part(name: str, args: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a finished part from work/, or make it and keep it."""
    path = common.WORK / PROGRAM / f"{name}-{args.bars}-{args.env_steps}-{args.precision}.json"
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


def learn(args: Any, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Run the parts that compare with the peer, write their result where all were run, and return the floors."""
    results: dict[str, Any] = {}
    for name in names:
        found = markets.market(args.bars, 0.0 if name == "null" else EDGE)
        train = train_peer if name == "peer" else train_sentio
        settings = trial_settings(found, args)
        results[name] = part(name, args, partial(train, found, settings, name != "null"))
    floors = {}
    for name in ("planted", "peer"):
        if name in results:
            skills = [member["skill"] for member in results[name]["members"]]
            results[name] |= {"skill": float(np.mean(skills)), "skill_interval": interval(skills)}
            print(f"{name}: skill {np.mean(skills):.3f}, 95% interval {interval(skills)}")
    if "planted" in results:
        floors["skill on the planted market"] = (results["planted"]["skill"], SKILL_FLOOR)
    if {"planted", "peer"} <= set(results):
        floors["no less than MaskablePPO"] = (results["planted"]["skill"], results["peer"]["skill"])
    if "null" in results:
        last = results["null"]["curve"][-1]
        print(f"null market: Sharpe {last['sharpe']:.2f}, {last['trades_per_day']:.2f} trades a day (no edge exists)")
    if len(results) == len(PARTS):
        print(common.write_result(PROGRAM, {"settings": vars(args), "edge_per_bar": EDGE, **results}))
    return floors


def main() -> None:
    """Run the parts that are asked for, print the table, write the result."""
    parser = common.parser(__doc__)
    parser.add_argument("--bars", type=int, default=440_000)
    parser.add_argument("--env-steps", type=int, default=491_520, help="per member")
    parser.add_argument("--evaluate-every", type=int, default=98_304)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256, 128], help="not of the part `variants`")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, VARIANTS_PART], default=PARTS)
    parser.add_argument("--data", nargs="*", default=[], help="files of bars for the part `variants`")
    parser.add_argument("--fresh", action="store_true", help="forget finished parts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    floors = learn(args, [name for name in args.parts if name != VARIANTS_PART])
    if VARIANTS_PART in args.parts:
        compared = {Path(data).stem if data else "planted": compare_variants(args, data) for data in (None, *args.data)}
        settings = vars(args) | {"data": [Path(data).name for data in args.data]}
        figures = {"settings": settings, "edge_per_bar": EDGE, "markets": compared}
        print(common.write_result(f"{PROGRAM}_{VARIANTS_PART}", figures))
    ray.shutdown()
    common.finish(floors, args.check)


if __name__ == "__main__":
    main()
