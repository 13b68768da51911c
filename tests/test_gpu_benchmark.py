"""The GPU benchmark runs where there is neither a GPU nor Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "experiments" / "benchmarks"
WITHOUT_RAY = """
import runpy, sys
sys.modules["ray"] = sys.modules["gymnasium"] = None
sys.path.insert(0, sys.argv[1])
sys.argv = ["gpu.py", *sys.argv[2:]]
runpy.run_path(sys.path[0] + "/gpu.py", run_name="__main__")
"""


def test_gpu_benchmark_on_a_cpu_without_ray_writes_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    small = ["--members", "4", "--bars", "60000", "--environments", "4", "--rollout-steps", "8", "--times", "1"]
    options = ["--device", "cpu", "--matrix", "64", "--precision", "float32", "--out", str(out), "--check"]
    subprocess.run([sys.executable, "-c", WITHOUT_RAY, str(BENCHMARKS), *small, *options], check=True, timeout=120)

    figures = json.loads(out.read_text())["figures"]

    assert max(figures["agreement"].values()) == 0.0
    speeds = figures["members"]["4"]["float32"]["decisions_per_s"]
    assert set(speeds) == {"rollout", "update", "end_to_end"}
    assert speeds["end_to_end"] < min(speeds["rollout"], speeds["update"])
