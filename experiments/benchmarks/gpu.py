"""What does a GPU make of it? Member-steps per second of rollout, update and evaluation for stacks of several sizes.

Needs torch and the package's core, no Ray: columns, losses and scores are the package's, the loop around them is plain.
First the same rollout and update on the CPU and on the device are compared; then come the machine's own ceilings, and
the same update once more as a CUDA graph, to say what the time between kernels costs. `--device cpu` runs it all on a
CPU, where it tells nothing of a GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import common
import markets
import torch

from sentio_rllib.market.tape import TapeTensors
from sentio_rllib.policy.actor_critic import ActorCritic, TapeReader
from sentio_rllib.policy.variants import VARIANTS, PolicySpec
from sentio_rllib.ppo.losses import clip_gradients_per_member
from sentio_rllib.ppo.precision import autocast, resolve_precision
from sentio_rllib.ppo.rollout import RolloutSampler
from sentio_rllib.ppo.scoring import Scorer
from sentio_rllib.ppo.settings import PPOSettings, Precision, TrialSettings
from sentio_rllib.ppo.updating import LOSS_COLUMNS, minibatch_loss, minibatch_rows
from sentio_rllib.trading.rules import TradingRules

PROGRAM = "gpu"
FOLDS = 4
AGREE = 1e-3
"""Largest relative difference between a CPU and the device, in float32."""
GOALS = {"update": 7e6, "end_to_end": 5e6}
"""Decisions a second that are asked for on an H100, of all members together, in the largest stack."""


class Loop:
    """One trial of M members on one device, as a plain loop over the package's parts."""

    def __init__(self, tape: TapeTensors, settings: TrialSettings) -> None:
        self.settings, self.device = settings, tape.open.device
        self.precision: Precision = resolve_precision(settings.ppo.precision, self.device, settings.policy.hidden)
        self.network = ActorCritic(settings.policy, settings.members).to(self.device)
        self.reader = TapeReader(tape.features.float(), settings.policy)
        self.sampler = RolloutSampler(tape, settings, self.network)
        fused = {"fused": True, "capturable": self.device.type == "cuda"}
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=3e-4, eps=1e-5, **fused)
        self.iteration = 0

    def rollout(self) -> dict[str, torch.Tensor]:
        """Sample the columns of the next iteration."""
        self.iteration += 1
        return self.sampler.sample(self.iteration - 1).columns

    def update(self, columns: dict[str, torch.Tensor], *, check: bool = True) -> None:
        """Make all gradient steps of an iteration; `check` looks at losses and gradients as the learner does."""
        self.network.train()
        for rows in minibatch_rows(self.settings, len(columns["bar"]), self.iteration, self.device):
            self.step(columns, rows, check=check)

    def step(self, columns: dict[str, torch.Tensor], rows: torch.Tensor, *, check: bool = True) -> torch.Tensor:
        """Make one gradient step on these rows and return the members' losses."""
        taken = {key: column.index_select(0, rows) for key, column in columns.items()}
        with autocast(self.precision, self.device):
            output, quantiles = self.network.both(
                self.reader.market(taken["bar"]), None, taken["portfolio"], taken["action_mask"]
            )
        batch = {key: taken[key] for key in LOSS_COLUMNS}
        total = minibatch_loss(self.settings, output.logits, quantiles, output.gate, batch).total
        if check and not bool(torch.isfinite(total.detach()).all()):
            raise SystemExit("a loss is not finite")
        self.optimizer.zero_grad()
        total.sum().backward()
        gradients = [each.grad for each in self.network.parameters() if each.grad is not None]
        clip_gradients_per_member(gradients, self.settings.ppo.max_grad_norm, check=check)
        self.optimizer.step()
        return total.detach()

    def graphed(self, columns: dict[str, torch.Tensor]) -> Callable[[], None]:
        """Return an update whose gradient step is captured once and replayed; it looks at no loss."""
        order = list(minibatch_rows(self.settings, len(columns["bar"]), self.iteration, self.device))
        rows = order[0].clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step(columns, rows, check=False)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            self.step(columns, rows, check=False)

        def update() -> None:
            for each in order:
                rows.copy_(each)
                graph.replay()

        return update


def settings_of(found: markets.Market, members: int, args: Any, precision: Precision = "auto") -> TrialSettings:
    """Return the defaults of the maskable variant with M members over four folds."""
    minibatch = min(512, args.environments * args.rollout_steps)
    ppo = PPOSettings(
        environments=args.environments,
        rollout_steps=args.rollout_steps,
        minibatch_rows=minibatch,
        precision=precision,
    )
    return TrialSettings(
        TradingRules(masks=VARIANTS["maskable"].masks),
        PolicySpec(variant="maskable"),
        ppo,
        found.splits.folds,
        markets.members(max(1, members // FOLDS), FOLDS)[:members],
    )


def agreement(found: markets.Market, args: Any, device: str) -> dict[str, float]:
    """Return the relative differences of a rollout's columns, and of what its update changes of the weights.

    Networks, noise and starts are the same; both run in float32, without TF32.
    """
    settings = settings_of(found, FOLDS, args, "float32")
    ppo = replace(settings.ppo, environments=4, rollout_steps=16, minibatch_rows=32)
    settings = replace(settings, ppo=ppo)
    loops = [Loop(found.tape.tensors(where), settings) for where in ("cpu", device)]
    loops[1].network.load_state_dict(loops[0].network.state_dict())
    before = weights_of(loops[0])
    columns = [loop.rollout() for loop in loops]
    same = {key: columns[0][key] == columns[1][key].cpu() for key in ("bar", "actions", "action_mask")}
    figures = {f"{key}_unequal": float((~equal).double().mean()) for key, equal in same.items()}
    for key in ("portfolio", "log_prob", "advantages", "value_targets"):
        figures[key] = _apart(columns[0][key], columns[1][key])
    for loop, each in zip(loops, columns, strict=True):
        loop.update(each)
    return figures | {"update": _apart(*(weights_of(loop) - before for loop in loops))}


def weights_of(loop: Loop) -> torch.Tensor:
    """Return all weights in one row, on the CPU."""
    return torch.cat([each.detach().cpu().flatten() for each in loop.network.parameters()])


def _apart(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Norm of the difference over the norm of the reference; infinite where they are not finite in the same places."""
    reference, other = reference.double().cpu(), other.double().cpu()
    finite = reference.isfinite()
    if not torch.equal(finite, other.isfinite()):
        return float("inf")
    return float((other - reference)[finite].norm() / reference[finite].norm().clamp(min=1e-12))


class Clock:
    """Seconds of work on a device."""

    def __init__(self, device: str) -> None:
        self.wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def seconds(self, work: Callable[[], Any], times: int) -> float:
        """Return the median seconds of `work` over `times` runs, after one to warm up."""
        work()
        return statistics.median(self.once(work) for _ in range(times))

    def once(self, work: Callable[[], Any]) -> float:
        """Return the seconds of `work`."""
        self.wait()
        started = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - started


def kernels(work: Callable[[], Any], device: str) -> int | None:
    """Return how many kernels and copies `work` launches; None where nothing is launched."""
    if not device.startswith("cuda"):
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    return sum(each.count for each in profile.key_averages() if each.device_type.name == "CUDA")


def ceilings(device: str, clock: Clock, size: int) -> dict[str, float]:
    """Return the bandwidth of a copy (GB/s, read and written) and matrix rates (TFLOP/s) of `size`^3 products."""
    source = torch.randn(size * size * 4, device=device)
    target = torch.empty_like(source)
    figures = {"copy_gb_per_s": 2 * source.nbytes / clock.seconds(lambda: target.copy_(source), 10) / 1e9}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        seconds = clock.seconds(lambda left=left, right=right: left @ right, 10)
        figures[f"{str(dtype).removeprefix('torch.')}_tflop_per_s"] = 2 * size**3 / seconds / 1e12
    return figures


def evaluation_seconds(found: markets.Market, members: int, args: Any, clock: Clock) -> float:
    """Return the seconds of one evaluation of M members."""
    settings = settings_of(found, members, args)
    tape = found.tape.tensors(args.device)
    scorer = Scorer(tape, settings, found.tape.sessions_per_year, torch.float32)
    network = ActorCritic(settings.policy, settings.members).to(args.device)
    return clock.once(lambda: scorer.score(network))


def measure(
    found: markets.Market, members: int, precision: Precision, *, evaluation: float, args: Any, clock: Clock
) -> dict[str, Any]:
    """Time the parts of a trial with M members, of which an evaluation takes `evaluation` seconds."""
    settings = settings_of(found, members, args, precision)
    tape = found.tape.tensors(args.device)
    if args.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    loop = Loop(tape, settings)
    decisions = settings.rows_per_iteration * members
    columns = loop.rollout()
    seconds = {
        "rollout": clock.seconds(loop.rollout, args.times),
        "update": clock.seconds(lambda: loop.update(columns), args.times),
        "evaluation": evaluation,
    }
    every = -(-settings.evaluate_every // settings.rows_per_iteration)  # iterations between two evaluations
    training = every * (seconds["rollout"] + seconds["update"])
    steps = settings.ppo.rollout_steps
    figures: dict[str, Any] = {
        "precision": loop.precision,
        "seconds": seconds,
        "decisions_per_s": {
            "rollout": decisions / seconds["rollout"],
            "update": decisions / seconds["update"],
            "end_to_end": every * decisions / (training + seconds["evaluation"]),
        },
        "evaluation_share_of_training": seconds["evaluation"] / training,
    }
    launched = kernels(loop.rollout, args.device), kernels(lambda: loop.update(columns), args.device)
    if launched[0] is not None and launched[1] is not None:
        minibatches = len(list(minibatch_rows(settings, len(columns["bar"]), 0, tape.device)))
        figures["kernels"] = {"a_rollout_step": launched[0] / steps, "a_gradient_step": launched[1] / minibatches}
        figures["seconds"]["update_unchecked"] = clock.seconds(lambda: loop.update(columns, check=False), args.times)
        figures["seconds"]["update_graph"] = clock.seconds(loop.graphed(columns), args.times)
        figures["decisions_per_s"]["update_graph"] = decisions / figures["seconds"]["update_graph"]
        figures["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return figures


def told(members: int, figures: dict[str, Any]) -> str:
    """Return one line."""
    speeds = "  ".join(f"{key} {value:,.0f}/s" for key, value in figures["decisions_per_s"].items())
    seconds = "  ".join(f"{key} {value:.3f} s" for key, value in figures["seconds"].items())
    launched = "  ".join(f"{key} {value:,.0f} kernels" for key, value in figures.get("kernels", {}).items())
    return f"M = {members} ({figures['precision']}): {speeds}; {seconds}; {launched}"


def main() -> None:
    """Compare, measure, print, write the result."""
    parser = common.parser(__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--members", type=int, nargs="+", default=[4, 32, 256])
    parser.add_argument("--bars", type=int, default=440_000)
    parser.add_argument("--environments", type=int, default=32)
    parser.add_argument("--rollout-steps", type=int, default=128)
    parser.add_argument("--precision", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--times", type=int, default=5, help="runs of each part that the median is taken of")
    parser.add_argument("--matrix", type=int, default=8192, help="size of the products that tell the matrix rate")
    parser.add_argument("--minutes", type=float, default=4.0, help="begin no larger stack after this long")
    parser.add_argument("--out", help="where the result goes, if not to results/")
    args = parser.parse_args()
    started = time.perf_counter()
    found = markets.market(args.bars, edge=2e-5, folds=FOLDS)
    print(f"a market of {found.tape.n:,} bars after {time.perf_counter() - started:.0f} s", flush=True)
    clock = Clock(args.device)
    apart = agreement(found, args, args.device)
    print("CPU against device: " + "  ".join(f"{key} {value:.1e}" for key, value in apart.items()), flush=True)
    limits = ceilings(args.device, clock, args.matrix)
    print("ceilings: " + "  ".join(f"{key} {value:,.1f}" for key, value in limits.items()), flush=True)
    figures: dict[str, Any] = {
        "settings": {key: value for key, value in vars(args).items() if key not in {"device", "out"}},
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu",
        "agreement": apart,
        "ceilings": limits,
        "members": {},
    }
    stacks = figures["members"]
    for members in args.members:
        if time.perf_counter() - started > args.minutes * 60:
            print(f"M = {members}: not begun, {args.minutes} minutes are over")
            break
        evaluation = evaluation_seconds(found, members, args, clock)
        stacks[str(members)] = {
            each: measure(found, members, each, evaluation=evaluation, args=args, clock=clock)
            for each in args.precision
        }
        for each in stacks[str(members)].values():
            print(told(members, each), flush=True)
        print(common.write_result(PROGRAM, figures, args.out), flush=True)
    floors = {f"{AGREE} less the largest difference from a CPU": (AGREE - max(apart.values()), 0.0)}
    if args.device.startswith("cuda"):
        speeds = [each["decisions_per_s"] for each in stacks.get(str(args.members[-1]), {}).values()]
        for key, goal in GOALS.items():
            floors[f"decisions a second, {key}"] = max((each[key] for each in speeds), default=0.0), goal
    common.finish(floors, args.check)


if __name__ == "__main__":
    main()
