"""How fast does it train? Member-steps per second against plain RLlib and sb3-contrib's MaskablePPO.

One thread, the same market, decision interval, networks (two trunks), batch, minibatch and epochs. All systems
take turns in one process, so that whatever else the machine does falls on all of them; ratios are taken within
a round, then the median over rounds. Training only: sampling, advantages, update and each system's own metrics.
Advantages are sampled, as the others' are; what counterfactual ones cost besides is a row of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import common
import markets
import numpy as np
import peers
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from sentio_rllib.policy.rl_module import rl_module_spec
from sentio_rllib.policy.variants import VARIANTS, PolicySpec
from sentio_rllib.ppo.algorithm import SentioPPO, SentioPPOConfig
from sentio_rllib.ppo.env_runner import TapeHandle
from sentio_rllib.ppo.precision import resolve_precision
from sentio_rllib.ppo.settings import PPOSettings, Precision, TrialSettings
from sentio_rllib.trading.environment import ENV_ID, register
from sentio_rllib.trading.rules import TradingRules

PROGRAM = "throughput"
MEMBERS = 4
RLLIB_FLOOR, PEER_FLOOR = 2.0, 1.4
SENTIO: dict[Precision, str] = {
    "float32": f"Sentio, {MEMBERS} members, float32",
    "bfloat16": f"Sentio, {MEMBERS} members, bfloat16",
}
SENTIO_ALONE = "Sentio, 1 member"
COUNTERFACTUAL = f"Sentio, {MEMBERS} members, counterfactual"
COST = 1.25
"""How much more of a second a member-step with counterfactual advantages may take."""
RLLIB = {"vector_entry_point": "RLlib PPO, vector_entry_point", "sync": "RLlib PPO, single environments"}
PEER = "MaskablePPO"


class Training(NamedTuple):
    """What one turn did: decisions of all members together, and how long it took."""

    member_steps: int
    seconds: float


Turn = Callable[[], Training]


def trial_settings(found: markets.Market, args: Any) -> TrialSettings:
    """Return the defaults of DESIGN for the standard variant; one result spans a turn."""
    ppo = PPOSettings(advantages="sampled", epochs=args.epochs, rollout_steps=256, minibatch_rows=1024)
    return TrialSettings(
        TradingRules(masks=VARIANTS["standard"].masks),
        PolicySpec(variant="standard", hidden=tuple(args.hidden)),
        ppo,
        found.splits.folds,
        markets.members(1, MEMBERS),
        env_steps=10**9,
        evaluate_every=args.iterations * ppo.environments * ppo.rollout_steps,
    )


def sentio(found: markets.Market, settings: TrialSettings) -> Turn:
    """Return turns of SentioPPO; its evaluation out of sample, which the others do not have, is not counted."""
    algorithm: SentioPPO = SentioPPOConfig().trading(settings, TapeHandle(found.tape)).build_algo()

    def turn() -> Training:
        result = algorithm.train()
        return Training(settings.evaluate_every * len(settings.members), result["train_seconds"])

    return turn


def plain_rllib(found: markets.Market, settings: TrialSettings, vectorize_mode: str) -> Turn:
    """Return turns of RLlib's PPO as it comes, on ``sentio/Trading-v0`` and with the same networks."""
    ppo, (_, fold) = settings.ppo, settings.members[0]
    environment = {
        "tape": found.tape,
        "ranges": settings.folds[fold].train,
        "rules": settings.rules,
        "variant": settings.policy.variant,
    }
    config = (
        PPOConfig()
        .environment(ENV_ID, env_config=environment, disable_env_checking=True)
        .env_runners(
            num_env_runners=0,
            create_local_env_runner=True,
            num_envs_per_env_runner=ppo.environments,
            gym_env_vectorize_mode=vectorize_mode,
        )
        .learners(num_learners=0)
        .rl_module(rl_module_spec=rl_module_spec(settings.policy))
        .training(
            lr=ppo.learning_rate,
            gamma=ppo.gamma,
            lambda_=ppo.lambda_,
            clip_param=ppo.clip,
            use_kl_loss=False,
            vf_loss_coeff=ppo.value_weight,
            entropy_coeff=ppo.entropy_weight,
            grad_clip=ppo.max_grad_norm,
            train_batch_size_per_learner=settings.rows_per_iteration,
            minibatch_size=ppo.minibatch_rows,
            num_epochs=ppo.epochs,
        )
        .reporting(min_sample_timesteps_per_iteration=settings.evaluate_every, min_time_s_per_iteration=0)
        .debugging(seed=0, log_level="ERROR")
    )
    algorithm = config.build_algo()
    steps = 0

    def turn() -> Training:
        nonlocal steps
        started = time.perf_counter()
        result = algorithm.train()
        seconds = time.perf_counter() - started
        before, steps = steps, int(result[ENV_RUNNER_RESULTS][NUM_ENV_STEPS_SAMPLED_LIFETIME])
        return Training(steps - before, seconds)

    return turn


def maskable_ppo(found: markets.Market, settings: TrialSettings) -> Turn:
    """Return turns of MaskablePPO; the standard variant has no masks, so it is spared asking for them."""
    model = peers.maskable_ppo(found, settings)
    masked = settings.rules.masks != "none"

    def turn() -> Training:
        before, started = model.num_timesteps, time.perf_counter()
        model.learn(settings.evaluate_every, reset_num_timesteps=False, use_masking=masked)
        return Training(model.num_timesteps - before, time.perf_counter() - started)

    return turn


def systems(found: markets.Market, settings: TrialSettings) -> dict[str, Turn]:
    """Build all systems."""
    alone = replace(settings, members=settings.members[:1])
    valued = replace(settings, ppo=replace(settings.ppo, advantages="counterfactual", precision="float32"))
    stacks = {precision: replace(settings, ppo=replace(settings.ppo, precision=precision)) for precision in SENTIO}
    return {
        PEER: maskable_ppo(found, alone),
        **{SENTIO[precision]: sentio(found, stack) for precision, stack in stacks.items()},
        **{name: plain_rllib(found, alone, mode) for mode, name in RLLIB.items()},
        SENTIO_ALONE: sentio(found, alone),
        COUNTERFACTUAL: sentio(found, valued),
    }


def measure(turns: dict[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Return member-steps per second of every round, after one turn each to warm up."""
    speeds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, turn in turns.items():
            torch.set_num_threads(1)
            done = turn()
            if number > 0:
                speeds[name].append(done.member_steps / done.seconds)
        print(f"round {number} of {rounds}" + (" (warm-up)" if number == 0 else ""), flush=True)
    return speeds


def ratios(speeds: dict[str, list[float]], name: str) -> dict[str, list[float]]:
    """Return, round by round, how much faster system `name` is than RLlib at its faster and than MaskablePPO."""
    own, peer = np.array(speeds[name]), np.array(speeds[PEER])
    rllib = np.max([speeds[each] for each in RLLIB.values()], axis=0)
    return {"rllib": (own / rllib).tolist(), "maskable_ppo": (own / peer).tolist()}


def main() -> None:
    """Measure, print the table, write the result."""
    parser = common.parser(__doc__)
    parser.add_argument("--bars", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--iterations", type=int, default=2, help="of 8,192 decisions per member, in one turn")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256, 128])
    args = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    register()
    found = markets.market(args.bars, edge=2e-5)
    speeds = measure(systems(found, trial_settings(found, args)), args.rounds)
    ray.shutdown()
    compared = {name: ratios(speeds, name) for name in (*SENTIO.values(), SENTIO_ALONE)}
    medians = {name: {key: float(np.median(each)) for key, each in taken.items()} for name, taken in compared.items()}
    print(f"\n{'system':32}{'member-steps/s':>15}{'/ RLlib':>10}{'/ MaskablePPO':>15}")
    for name, values in speeds.items():
        own = medians.get(name)
        told = f"{own['rllib']:10.2f}{own['maskable_ppo']:15.2f}" if own else ""
        print(f"{name:32}{np.median(values):15,.0f}{told}")
    chosen = SENTIO[resolve_precision("auto", torch.device("cpu"), args.hidden)]
    print(f"precision: auto means '{chosen}' here")
    cost = float(np.median(np.array(speeds[SENTIO["float32"]]) / np.array(speeds[COUNTERFACTUAL])))
    print(f"a member-step with counterfactual advantages takes {cost:.2f} times as long as with sampled ones")
    figures = {
        "settings": vars(args),
        "counterfactual_cost": cost,
        "auto": chosen,
        "member_steps_per_s": speeds,
        "ratios": compared,
        "median_ratios": medians,
    }
    print(common.write_result(PROGRAM, figures))
    floors = {
        f"{chosen}: times as fast as the faster RLlib": (medians[chosen]["rllib"], RLLIB_FLOOR),
        f"{chosen}: times as fast as MaskablePPO": (medians[chosen]["maskable_ppo"], PEER_FLOOR),
        f"what is left of {COST} times the cost, with counterfactual advantages": (COST - cost, 0.0),
    }
    common.finish(floors, args.check)


if __name__ == "__main__":
    main()
