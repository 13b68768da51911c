"""In which precision networks run: what `auto` means on a processor, and autocast.

bfloat16 passes of wide layers are faster on a GPU, with AMX, and on AMD's AVX512-BF16; on an Intel Xeon without AMX
they took 1.6 times as long as float32 (`experiments/benchmarks/results/throughput.json`), so `auto` is float32 there.
Of layers of 64 an update in bfloat16 took 1.6 times as long on an H100 (`gpu.json` beside it): casts are kernels too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from sentio_rllib.ppo.settings import Precision

WIDE = 256
"""Width of the widest layer from which casts to bfloat16 pay."""


def resolve_precision(precision: Precision, device: torch.device, hidden: Sequence[int]) -> Precision:
    """Return what `auto` means on this device for networks of these widths.

    bfloat16 where layers are wide enough to pay for the casts, on a GPU and on a CPU that multiplies it faster than
    float32; else float32.
    """
    if precision != "auto":
        return precision
    if max(hidden) < WIDE:
        return "float32"
    faster = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_prefers_bfloat16()
    return "bfloat16" if faster else "float32"


@cache
def _cpu_prefers_bfloat16() -> bool:
    """Whether bfloat16 products are faster than float32 ones: with AMX, or with AVX512-BF16 on AMD.

    Intel's VDPBF16PS issues on one port and float32's FMA on two, so without AMX passes in bfloat16 took half
    as long again as in float32 (D4).
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    cpuinfo = Path("/proc/cpuinfo")
    amd = cpuinfo.is_file() and "AuthenticAMD" in cpuinfo.read_text()
    return amd and torch.cpu._is_avx512_bf16_supported()


def compute_dtype(precision: Precision) -> torch.dtype:
    """Return the dtype of master weights and columns."""
    return torch.float64 if precision == "float64" else torch.float32


@contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run network passes in bfloat16 where `precision` says so; master weights stay float32."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        yield
