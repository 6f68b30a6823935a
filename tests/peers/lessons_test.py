"""The list of lessons names tests that exist, and all tests here are on it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LESSONS = (ROOT / "docs" / "peers-lessons.md").read_text()


def names_in(file: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = (n.name for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, functions))
    return {name for name in names if name.startswith("test_")}


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`(tests/[^`:]+)::(test_[^`]+)`", LESSONS)
    assert len(named) > 50
    missing = [f"{file}::{test}" for file, test in named if test not in names_in(ROOT / file)]
    assert not missing


def test_every_test_of_a_lesson_is_named() -> None:
    here = Path(__file__)
    for file in sorted(here.parent.glob("*_test.py")):
        if file != here:
            unnamed = [t for t in sorted(names_in(file)) if f"{file.name}::{t}`" not in LESSONS]
            assert not unnamed, file.name


def test_every_row_says_what_holds() -> None:
    rows = [line for line in LESSONS.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| seen at")]
    assert len(rows) > 45
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 3, row
        assert all(cells), row
