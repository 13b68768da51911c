"""What does reading the tape once save? The tape pass against a window per decision, and the price of a variant.

The tape pass encodes consecutive decisions on one line. A window per decision runs the same layers over its own
tokens, once over the W tokens of a band and once over the whole receptive field, which is what gives the same
embeddings (verified here before anything is timed). Windows are batched over 32 environments, as in a rollout.

End to end: enhanced-maskable against standard and maskable as their shipped configurations train them, and at
the default sizes. Systems take turns in one process on one thread; ratios are taken within a round, then the
median over rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import numpy as np
import ray
import torch
import torch.nn.functional as F

from sentio_rllib.config.loading import load_config
from sentio_rllib.policy.encoders import BandedAttention, Line, TapeTransformer, TransformerLayer
from sentio_rllib.policy.variants import receptive_patches
from sentio_rllib.ppo.algorithm import SentioPPO, SentioPPOConfig
from sentio_rllib.ppo.env_runner import TapeHandle
from sentio_rllib.search.prepare import prepare, trial_settings

PROGRAM = "encoder"
TAPE_FLOOR, END_TO_END_FLOOR = 20.0, 0.2
WIDTH, HEADS, LAYERS, BAND, INTERVAL, FEATURES = 64, 4, 2, 64, 15, 14
STEPS, ENVIRONMENTS = 1024, 32
CONFIGS = Path(__file__).parents[2] / "configs"
_DEFAULT = "policy.hidden=[256,256,128]"
SYSTEMS = {
    "standard": ("standard.yaml", ()),
    "maskable": ("maskable.yaml", ()),
    "enhanced": ("enhanced.yaml", ()),
    "standard, default sizes": ("standard.yaml", (_DEFAULT,)),
    "enhanced, default sizes": (
        "enhanced.yaml",
        (_DEFAULT, "policy.d_model=64", "policy.heads=4", "policy.layers=2", "policy.band=32"),
    ),
}


def attend_windows(attention: BandedAttention, windows: torch.Tensor) -> torch.Tensor:
    """Return the attention of every token of windows ``[n, tokens, d]``, dense with a mask, weights of member 0."""
    tokens, width = windows.shape[1:]
    projected = windows @ attention.inputs.weight[0] + attention.inputs.bias[0]
    split = projected.unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    distance = torch.arange(tokens).unsqueeze(1) - torch.arange(tokens)
    inside = (distance >= 0) & (distance < attention.band)
    bias = attention.distance[0][:, distance.clamp(0, attention.band - 1)].masked_fill(~inside, float("-inf"))
    mixed = F.scaled_dot_product_attention(split[0], split[1], split[2], attn_mask=bias)
    flat = mixed.transpose(1, 2).reshape(-1, tokens, width)
    return flat @ attention.outputs.weight[0] + attention.outputs.bias[0]


def encode_windows(encoder: TapeTransformer, windows: torch.Tensor) -> torch.Tensor:
    """Return the embedding ``[n, d]`` of the last token of windows ``[n, tokens, patch]``."""

    def norm(stream: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(stream, stream.shape[-1:])

    stream = windows @ encoder.project.weight[0] + encoder.project.bias[0]
    for layer in encoder.layers:
        assert isinstance(layer, TransformerLayer)
        stream = stream + attend_windows(layer.attention, norm(stream))
        wide = F.gelu(norm(stream) @ layer.widen.weight[0] + layer.widen.bias[0])
        stream = stream + (wide @ layer.narrow.weight[0] + layer.narrow.bias[0])
    return norm(stream[:, -1])


@torch.no_grad()
def tape_pass(rounds: int) -> dict[str, Any]:
    """Time both ways over the same decisions; all environments' decisions lie on one line."""
    encoder = TapeTransformer(
        [(0, 0)],
        INTERVAL * FEATURES,
        d_model=WIDTH,
        heads=HEADS,
        layers=LAYERS,
        band=BAND,
        dropout=0.0,
        gated=False,
        name="benchmark",
    ).eval()
    field = receptive_patches(LAYERS, BAND)
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(field - 1 + STEPS, INTERVAL * FEATURES, generator=generator)
    line = Line(patches.unsqueeze(0), torch.arange(field - 1, field - 1 + STEPS).unsqueeze(0))

    def windows(tokens: int) -> torch.Tensor:
        ends = patches[field - tokens :].unfold(0, tokens, 1).transpose(1, 2)
        batches = ends.split(ENVIRONMENTS)
        return torch.cat([encode_windows(encoder, each.contiguous()) for each in batches])

    difference = float((windows(field) - encoder(line)[0]).abs().max())
    assert difference < 1e-4, f"the two ways disagree by {difference}"
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "tape": lambda: encoder(line),
        "window": lambda: windows(BAND),
        "field": lambda: windows(field),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if number > 0:
                seconds[name].append(time.perf_counter() - started)
    milliseconds = {name: 1e3 * float(np.median(each)) for name, each in seconds.items()}
    ratio = {name: float(np.median(np.divide(seconds[name], seconds["tape"]))) for name in ("window", "field")}
    return {"milliseconds": milliseconds, "ratio": ratio, "largest_difference": difference, "tokens": field}


def build(name: str, bars: int, iterations: int) -> SentioPPO:
    """Return an algorithm as a sweep of the configuration builds it; one result spans `iterations` rollouts."""
    file, overrides = SYSTEMS[name]
    config = load_config(CONFIGS / file, [f"data.synthetic.bars={bars}", "search.patience=0", *overrides])
    prepared = prepare(config)
    settings = trial_settings(config, prepared.splits, {})
    settings = replace(settings, env_steps=10**9, evaluate_every=iterations * settings.rows_per_iteration)
    algorithm: SentioPPO = SentioPPOConfig().trading(settings, TapeHandle(prepared.tape)).build_algo()
    return algorithm


def end_to_end(bars: int, rounds: int, iterations: int) -> dict[str, list[float]]:
    """Return member-steps per second of training of every round, after one to warm up."""
    algorithms = {name: build(name, bars, iterations) for name in SYSTEMS}
    speeds: dict[str, list[float]] = {name: [] for name in algorithms}
    for number in range(rounds + 1):
        for name, algorithm in algorithms.items():
            torch.set_num_threads(1)
            result = algorithm.train()
            if number > 0:
                members = len(algorithm.settings.members)
                speeds[name].append(algorithm.settings.evaluate_every * members / result["train_seconds"])
        print(f"round {number} of {rounds}" + (" (warm-up)" if number == 0 else ""), flush=True)
    return speeds


def ratio_of(speeds: Mapping[str, list[float]], name: str, other: str) -> float:
    """Return the median over rounds of one speed over another."""
    return float(np.median(np.divide(speeds[name], speeds[other])))


def main() -> None:
    """Measure, print the table, write the result."""
    parser = common.parser(__doc__)
    parser.add_argument("--bars", type=int, default=120_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=2, help="of 8,192 decisions per member, in one turn")
    args = parser.parse_args()
    torch.set_num_threads(1)
    read = tape_pass(args.rounds)
    print(f"{STEPS} decisions, {WIDTH} wide, {LAYERS} layers, band {BAND}:")
    for name, told in (("tape", "one tape pass"), ("window", f"{BAND}-token windows"), ("field", "whole fields")):
        print(f"  {told:18} {read['milliseconds'][name]:9.1f} ms  x{read['ratio'].get(name, 1.0):.1f}")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    speeds = end_to_end(args.bars, args.rounds, args.iterations)
    ray.shutdown()
    ratios = {
        "enhanced / standard": ratio_of(speeds, "enhanced", "standard"),
        "enhanced / maskable": ratio_of(speeds, "enhanced", "maskable"),
        "enhanced / standard, default sizes": ratio_of(speeds, "enhanced, default sizes", "standard, default sizes"),
    }
    for name, values in speeds.items():
        print(f"{name:26}{np.median(values):12,.0f} member-steps/s")
    for name, ratio in ratios.items():
        print(f"{name:36}{ratio:6.3f}")
    figures = {"settings": vars(args), "tape_pass": read, "member_steps_per_s": speeds, "ratios": ratios}
    print(common.write_result(PROGRAM, figures))
    floors = {
        f"tape pass, times cheaper than {BAND}-token windows": (read["ratio"]["window"], TAPE_FLOOR),
        "enhanced / standard, member-steps/s": (ratios["enhanced / standard"], END_TO_END_FLOOR),
    }
    common.finish(floors, args.check)


if __name__ == "__main__":
    main()
