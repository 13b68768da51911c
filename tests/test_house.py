"""The structure of the package: no circles, one name for one thing, files of a readable size, light doors."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sentio_rllib"
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_LINES_OF_THE_RUN = 450, 60, 40

HEAVY = ("ray", "torch", "pandas", "pyarrow", "optuna", "scipy", "matplotlib", "rich", "exchange_calendars")
PROGRAM = """
import json, runpy, sys
room, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(f"sentio_rllib.{room}", run_name="__main__")
except SystemExit as end:
    status = end.code
print(json.dumps([status, sorted(set(HEAVY) & set(sys.modules))]))
""".replace("HEAVY", repr(HEAVY))


def imports_of(name: str) -> set[str]:
    """Files of the package that a file imports, anywhere in it: late imports and those for types count."""
    found: set[str] = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each in FILES else node.module for each in inner}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & FILES.keys() - {name}


def definitions(kind: type[ast.ClassDef] | tuple[type[ast.stmt], ...]) -> Iterator[tuple[str, ast.stmt]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield name, node


def lines_of(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_no_circle_of_files() -> None:
    # rooms import one way (import-linter), and files inside a room do as well
    graph = {name: imports_of(name) for name in FILES}
    assert sum(map(len, graph.values())) > 400, "the imports are not seen any more"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


def test_a_circle_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "sentio_rllib.errors"
    late = "def late():\n    from sentio_rllib.sweep.run import run_sweep\n    return run_sweep"
    monkeypatch.setitem(TREES, name, ast.parse(late))
    with pytest.raises(CycleError):
        TopologicalSorter({each: imports_of(each) for each in FILES}).prepare()


def test_a_file_name_occurs_once() -> None:
    places = defaultdict(list)
    for path in FILES.values():
        if path.stem not in {"__init__", "__main__"}:
            places[path.stem].append(str(path.relative_to(PACKAGE)))
    assert {stem: held for stem, held in places.items() if len(held) > 1} == {}


def test_a_class_name_occurs_once() -> None:
    places = defaultdict(list)
    for name, node in definitions(ast.ClassDef):
        assert isinstance(node, ast.ClassDef)
        places[node.name].append(name)
    assert {name: held for name, held in places.items() if len(held) > 1} == {}


def test_files_and_functions_are_of_a_readable_size() -> None:
    long = {name: lines for name, path in FILES.items() if (lines := len(path.read_text().splitlines())) > MOST_LINES}
    functions = {
        f"{name}.{node.name}": lines_of(node)
        for name, node in definitions((ast.FunctionDef, ast.AsyncFunctionDef))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_of(node) > MOST_LINES_OF_A_FUNCTION
    }
    assert (long, functions) == ({}, {})


def test_the_run_reads_top_to_bottom() -> None:
    [run] = [
        node
        for name, node in definitions((ast.FunctionDef,))
        if name == "sentio_rllib.sweep.run" and isinstance(node, ast.FunctionDef) and node.name == "run_sweep"
    ]
    assert lines_of(run) <= MOST_LINES_OF_THE_RUN
    called = [ast.unparse(node.func).strip("_") for node in ast.walk(run) if isinstance(node, ast.Call)]
    steps = ["prepare", "probe", "search", "select", "refit", "open_holdout", "judge", "write_outcome"]
    assert [name for name in called if name in steps] == steps


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_says_what_it_is_for(room: Path) -> None:
    told = ast.get_docstring(TREES[f"sentio_rllib.{room.name}"])
    assert told is not None
    assert "may import" in " ".join(told.lower().split()), "what it may import"
    begin = " ".join(told.split()).rpartition("Begin with `")[2].partition("`")[0]
    assert (room / begin).is_file(), "where to begin reading"


def run_light(folder: Path, *arguments: str | Path) -> tuple[int, list[str], list[str]]:
    """Exit status, heavy modules that were imported, and lines of standard error of a command run in `folder`."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=folder)
    status, heavy = json.loads(answer.stdout.splitlines()[-1])
    return int(status), list(heavy), answer.stderr.splitlines()


COMMANDS = sorted(path.parent.name for path in PACKAGE.glob("*/__main__.py"))


@pytest.mark.parametrize("room", COMMANDS)
def test_help_waits_for_no_heavy_import(room: str, tmp_path: Path) -> None:
    assert run_light(tmp_path, room, "--help") == (0, [], [])


@pytest.mark.parametrize("mistake", ["ppo.gama=1", "validation.embargo=1000000"])
@pytest.mark.parametrize(
    ("room", "more"), [("sweep", ()), ("sweep", ("--dry-run",)), ("compare", ()), ("placebo", ("--markets", "1"))]
)
def test_a_mistake_in_the_configuration_waits_for_no_heavy_import(
    room: str, more: tuple[str, ...], mistake: str, tmp_path: Path
) -> None:
    # the second one is found by laying out folds, which is the last check of all
    configuration = PACKAGE.parent / "configs" / ("variants.yaml" if room == "compare" else "enhanced.yaml")
    overrides = ("--set", mistake, "--set", "data.tz=America/New_York")
    status, heavy, told = run_light(tmp_path, room, configuration, *more, *overrides)
    assert (status, heavy) == (2, [])
    assert told[0].startswith("error: ")


def test_a_mistake_in_an_option_of_a_run_waits_for_no_heavy_import(tmp_path: Path) -> None:
    status, heavy, told = run_light(tmp_path, "train", "--learning-rate", "-1", "--output", "first")
    assert (status, heavy, len(told)) == (2, [], 1)
    assert "--learning-rate" in told[0]
