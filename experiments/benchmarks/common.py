"""What the benchmark programs share: where results go, what they ran on, and how a missed floor is told."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sentio_rllib

RESULTS = Path(__file__).parent / "results"
WORK = Path(__file__).parent / "work"
_PACKAGES = ("ray", "torch", "gymnasium", "optuna", "numpy", "pandas", "stable-baselines3", "sb3-contrib")


def processor() -> str:
    """Return the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@cache
def code() -> str:
    """Return a digest of the package's and the programs' sources: what other code has finished is made anew."""
    digest = hashlib.sha256()
    for path in sorted([*Path(sentio_rllib.__file__).parent.rglob("*.py"), *Path(__file__).parent.glob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_result(program: str, figures: dict[str, Any], path: str | Path | None = None) -> Path:
    """Write `figures` with versions and processor to `path`, or else to ``results/PROGRAM.json``."""
    versions = {name: found for name in _PACKAGES if (found := _version(name))}
    content = {
        "program": program,
        "processor": processor(),
        "python": platform.python_version(),
        "versions": versions,
        "figures": figures,
    }
    written = Path(path) if path else RESULTS / f"{program}.json"
    written.parent.mkdir(exist_ok=True)
    written.write_text(json.dumps(content, indent=1) + "\n")
    return written


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all programs have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--check", action="store_true", help="exit 1 where a floor is missed")
    return made


def finish(floors: dict[str, tuple[float, float]], check: bool) -> None:
    """Print each floor with the figure reached; with `check`, exit 1 where one is missed."""
    missed = False
    for name, (reached, floor) in floors.items():
        held = reached >= floor
        missed |= not held
        print(f"{'held  ' if held else 'MISSED'}  {name}: {reached:.3f} (floor {floor:.3f})")
    if check and missed:
        sys.exit(1)
