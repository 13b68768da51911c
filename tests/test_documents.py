"""The documents: links lead somewhere; commands, options, keys, files and imports exist; lines are short."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from sentio_rllib.config.keys import leaves
from sentio_rllib.config.tree import SweepConfig

ROOT = Path(__file__).parents[1]
PACKAGE = "sentio_rllib"
LINE_LENGTH = 120
MOST_LINES = {"README.md": 150, "ARCHITECTURE.md": 149}
PLACES = ("*.md", "docs/*.md", "data/*.md", "experiments/*.md")
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for place in PLACES for path in ROOT.glob(place))

_FENCE = re.compile(r"^```.*?^```\s*$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}.*\n(?:[ \t]*\n(?= {4}))*)+")
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)|\b(?:src|href)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#* *$", re.MULTILINE)
_COMMAND = re.compile(rf"\bpython -m ({PACKAGE}(?:\.[a-z_]+)+)([^#|\n]*)")
_PROGRAM = re.compile(r"\bpython ((?:docs|experiments)/[\w/]+\.py)([^#|\n]*)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_TARGET = re.compile(r"\bmake ([a-z]+)")
_SET = re.compile(r"--set[ =]([\w.]+)=")
_KEY = re.compile(r"([a-z_]+(?:\.(?!(?:json|md|py)\b)[a-z_]+)+)(?::? .*|=.*)?")
_FILE = re.compile(rf"(?<![\w./])(?:configs|docs|tests|experiments|{PACKAGE})/[\w./-]+\.(?:json|md|png|py|yaml)\b")
_MODULE = re.compile(r"\w+(?:/\w+)+\.py")
_DOTTED = re.compile(rf"\b{PACKAGE}(?:\.\w+)+(?::\w+)?")
_PLACEHOLDERS = {"key", "data.KEY", f"{PACKAGE}.NAME"}
"""What stands for a key or a command where a form is told."""


class Command(NamedTuple):
    """A command of the package as a document has it: ``sentio_rllib.market check`` and the options behind it."""

    name: str
    options: frozenset[str]
    document: str


@cache
def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


@cache
def blocks_of(document: str) -> tuple[str, ...]:
    """Return the blocks of code, fenced or indented, without their indentation; continued lines are joined."""
    text = text_of(document)
    fenced = ["\n".join(block.splitlines()[1:-1]) + "\n" for block in _FENCE.findall(text)]
    indented = [textwrap.dedent(block) for block in _INDENTED.findall(_FENCE.sub("", text))]
    return tuple(re.sub(r"\\\n\s*", "", block) for block in fenced + indented)


@cache
def spans_of(document: str) -> tuple[str, ...]:
    """Return what stands in backquotes inside of prose and tables."""
    prose = _INDENTED.sub("", _FENCE.sub("", text_of(document)))
    return tuple(" ".join(span.split()) for span in _SPAN.findall(prose))


def code_of(document: str) -> str:
    """Return all code of a document, a span a line."""
    return "\n".join((*blocks_of(document), *spans_of(document)))


@cache
def anchors_of(document: str) -> frozenset[str]:
    """Return the anchors of a document's headings as GitHub makes them, of equal ones the second with -1 behind it."""
    anchors: list[str] = []
    for heading in _HEADING.findall(_FENCE.sub("", text_of(document))):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        times = sum(each == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", each) is not None for each in anchors)
        anchors.append(f"{slug}-{times}" if times else slug)
    return frozenset(anchors)


def dead_links(document: str) -> Iterator[str]:
    """Yield the links and images of a document that lead nowhere in the repository."""
    prose = _SPAN.sub("", _INDENTED.sub("", _FENCE.sub("", text_of(document))))
    for found in _LINK.findall(prose):
        link = "".join(found)
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / document).parent / file if file else ROOT / document
        if not target.exists() or (anchor and anchor not in anchors_of(str(target.resolve().relative_to(ROOT)))):
            yield link


def commands_of(document: str) -> Iterator[Command]:
    """Yield the commands of the package that a document names."""
    for module, rest in _COMMAND.findall(code_of(document)):
        words = rest.split()
        subcommand = words[0] if module == f"{PACKAGE}.market" and words and words[0].isalpha() else ""
        yield Command(f"{module} {subcommand}".strip(), frozenset(_OPTION.findall(rest)), document)


@cache
def help_of(command: str) -> str:
    """Return what ``python -m COMMAND --help`` prints."""
    words = [sys.executable, "-m", *command.split(), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 0, f"python -m {command} --help: {done.stderr}"
    return done.stdout


def options_of_program(path: str) -> frozenset[str]:
    """Return the options that a program beside the package adds, by itself or with what it shares with others."""
    sources = [ROOT / path, ROOT / path.replace(Path(path).name, "common.py")]
    return frozenset(
        option for source in sources if source.is_file() for option in re.findall(r'"(--[a-z-]+)"', source.read_text())
    )


@cache
def names_in(module: str) -> frozenset[str]:
    """Return what can be imported from a module of the package, read without importing it; empty if there is none."""
    place = ROOT.joinpath(*module.split("."))
    source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not source.is_file():
        return frozenset()
    names = {"__version__"} | {each.stem for each in place.glob("*") if place.is_dir()}
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return frozenset(names)


def exists(dotted: str) -> bool:
    """Whether ``sentio_rllib.room.module.name`` is a module or a name in one; a colon may stand before the name."""
    module, _, name = dotted.replace(":", ".").rpartition(".")
    return bool(names_in(dotted)) or name in names_in(module)


def imported_by(block: str) -> Iterator[str]:
    """Yield the dotted names of the package that a block of Python imports or reads from ``sentio_rllib``.

    Raises
    ------
    SyntaxError
        The block is no Python.
    """
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(f"{PACKAGE}."))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == PACKAGE:
            yield f"{PACKAGE}.{node.attr}"


_ROOMS = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__main__.py")}
EVERY_COMMAND = {f"{PACKAGE}.{room}" for room in _ROOMS - {"market"} | {"market check", "market import"}}
COMMANDS = [command for document in DOCUMENTS for command in commands_of(document)]
KEYS = frozenset(key for key, _ in leaves(SweepConfig))
SECTIONS = frozenset(key.rpartition(".")[0] for key in KEYS)
PYTHON = [
    (document, block)
    for document in DOCUMENTS
    for block in blocks_of(document)
    if re.search(rf"^\s*(?:from|import) {PACKAGE}\b", block, re.MULTILINE)
]

each_document = pytest.mark.parametrize("document", DOCUMENTS)


def test_all_documents_are_read() -> None:
    assert {"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "data/README.md", "docs/sweeps.md"} < set(DOCUMENTS)
    assert len(PYTHON) > 2


def test_every_command_has_an_example() -> None:
    assert EVERY_COMMAND - {command.name for command in COMMANDS} == set()


@each_document
def test_links_and_images_lead_somewhere(document: str) -> None:
    assert list(dead_links(document)) == []


@each_document
def test_lines_are_short(document: str) -> None:
    lines = text_of(document).splitlines()
    assert [f"line {number}" for number, line in enumerate(lines, 1) if len(line) > LINE_LENGTH] == []
    assert len(lines) <= MOST_LINES.get(document, 10_000)


@pytest.mark.parametrize("name", sorted({command.name for command in COMMANDS}))
def test_commands_have_the_options_that_documents_give_them(name: str) -> None:
    known = set(_OPTION.findall(help_of(name)))
    assert [command for command in COMMANDS if command.name == name and not command.options <= known] == []


@each_document
def test_options_in_prose_and_tables_are_those_of_some_command(document: str) -> None:
    known = {option for command in EVERY_COMMAND for option in _OPTION.findall(help_of(command))}
    for path in (ROOT / "experiments/benchmarks").glob("*.py"):
        known |= options_of_program(str(path.relative_to(ROOT)))
    assert set(_OPTION.findall("\n".join(spans_of(document)))) - known == set()


@each_document
def test_programs_have_the_options_that_documents_give_them(document: str) -> None:
    for path, rest in _PROGRAM.findall(code_of(document)):
        assert (ROOT / path).is_file(), path
        assert set(_OPTION.findall(rest)) <= options_of_program(path), path


@each_document
def test_targets_of_make_and_files_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(_TARGET.findall(code_of(document))) - targets == set()
    assert [path for path in _FILE.findall(text_of(document)) if not (ROOT / path).is_file()] == []
    modules = [span for span in spans_of(document) if _MODULE.fullmatch(span)]
    assert [path for path in modules if not any((root / path).is_file() for root in (ROOT, ROOT / PACKAGE))] == []


@each_document
def test_keys_are_those_of_the_configuration(document: str) -> None:
    assert set(_SET.findall(code_of(document))) - KEYS - _PLACEHOLDERS == set()
    named = [found[1] for span in spans_of(document) if (found := _KEY.fullmatch(span))]
    ours = {key for key in named if key.partition(".")[0] in SECTIONS}
    assert ours - KEYS - SECTIONS == set()


@pytest.mark.parametrize(("document", "block"), PYTHON, ids=[document for document, _ in PYTHON])
def test_blocks_of_python_import_what_there_is(document: str, block: str) -> None:
    assert [name for name in imported_by(block) if not exists(name)] == []


@each_document
def test_dotted_names_of_the_package_exist(document: str) -> None:
    named = set(_DOTTED.findall(code_of(document)))
    assert [name for name in sorted(named - _PLACEHOLDERS) if not exists(name)] == []
