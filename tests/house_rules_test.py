"""The house rules that a machine can check, each shown to find what it forbids."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("domain", "streams", "projections", "aquifer", "infra", "tests", "benchmarks")
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".html", ".css", ".js", ".cql", ".json", ".sh"}

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
COLUMNS_MAX = 100

# What could make two runs of the same rounds differ, or do I/O.
CLOCK_AND_CHANCE = {"datetime", "random", "secrets", "time", "uuid"}
IO = {"asyncio", "logging", "multiprocessing", "os", "pathlib", "socket", "sqlite3"}
NOT_IN_DOMAIN = CLOCK_AND_CHANCE | IO | {"subprocess", "sys", "threading"}
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


def size_faults(source: str) -> list[str]:
    """Lines, functions and files that are too long."""
    lines = source.splitlines()
    wide = [i for i, line in enumerate(lines, 1) if len(line) > COLUMNS_MAX]
    faults = [f"{i}: more than {COLUMNS_MAX} columns" for i in wide]
    if len(lines) > FILE_LINES_MAX:
        faults.append(f"{len(lines)} lines in the file")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                faults.append(f"{node.lineno}: {node.name} has {length} lines")
    return faults


def domain_faults(source: str) -> list[str]:
    """What the pure domain must not contain: floats, hash(), clocks, chance, I/O, set order."""
    tree = ast.parse(source)
    return [
        f"{node.lineno}: {fault}"
        for node in ast.walk(tree)
        if isinstance(node, ast.expr | ast.stmt)
        for fault in _faults_of(node)
    ] + [f"{loop.iter.lineno}: order of a set" for loop in _loops(tree) if _is_set(loop.iter)]


def _faults_of(node: ast.expr | ast.stmt) -> Iterator[str]:
    match node:
        case ast.Constant(value=float() | complex() as value):
            yield f"float {value}"
        case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
            yield "true division"
        case ast.Call(func=ast.Name(id="hash" | "float" | "open" | "input" | "print" as name)):
            yield f"call of {name}()"
        case ast.Import():
            yield from (f"import of {alias.name}" for alias in node.names if _banned(alias.name))
        case ast.ImportFrom(level=0, module=str(module)) if _banned(module):
            yield f"import of {module}"


def _banned(module: str) -> bool:
    return module.split(".")[0] in NOT_IN_DOMAIN


def _loops(tree: ast.AST) -> Iterator[ast.For | ast.comprehension]:
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.comprehension):
            yield node


def _is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in {"set", "frozenset"}
    return isinstance(node, ast.Set | ast.SetComp)


def _code(folders: tuple[str, ...]) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def _texts() -> list[Path]:
    places = [ROOT, *(ROOT / name for name in (*CODE, "docs"))]
    top = [file for file in places[0].iterdir() if file.is_file()]
    deep = [file for place in places[1:] for file in place.rglob("*") if file.is_file()]
    return sorted(file for file in top + deep if file.suffix in TEXT or file.name == "Makefile")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_sizes() -> None:
    found = {_name(file): size_faults(file.read_text()) for file in _code(CODE)}
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_the_domain_is_pure() -> None:
    found = {_name(file): domain_faults(file.read_text()) for file in _code(("domain",))}
    assert "domain/__init__.py" in found
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_nothing_is_left_unfinished() -> None:
    found = [_name(file) for file in _texts() if UNFINISHED.search(file.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "x = 1.0",
        "x = 2e3",
        "x = a / b",
        "x /= 2",
        "x = hash('a')",
        "x = float(3)",
        "import time",
        "import os.path",
        "import json, random",
        "from datetime import datetime",
        "def f():\n    from uuid import uuid4",
        "for x in {1, 2}: pass",
        "y = [x for x in set(z)]",
    ],
)
def test_the_domain_rules_find(source: str) -> None:
    assert len(domain_faults(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "x = a // b",
        "x = 'a/b 1.0 hash(x)'",
        "x = self.hash(1)",
        "from domain.time import now",
        "from .time import now",
        "ok = isinstance(x, float)",
        "for x in sorted({1, 2}): pass",
        "ok = x in {1, 2}",
    ],
)
def test_the_domain_rules_allow(source: str) -> None:
    assert domain_faults(source) == []


def _function(lines: int) -> str:
    return "def f():\n" + "    pass\n" * (lines - 1)


@pytest.mark.parametrize(
    ("at_the_bound", "past_it"),
    [
        (_function(FUNCTION_LINES_MAX), _function(FUNCTION_LINES_MAX + 1)),
        ("x = 1\n" * FILE_LINES_MAX, "x = 1\n" * (FILE_LINES_MAX + 1)),
        ("#" * COLUMNS_MAX, "#" * (COLUMNS_MAX + 1)),
    ],
    ids=["function", "file", "line"],
)
def test_the_size_rules_find(at_the_bound: str, past_it: str) -> None:
    assert size_faults(at_the_bound) == []
    assert len(size_faults(past_it)) == 1
