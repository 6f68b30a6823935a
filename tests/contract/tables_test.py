"""The tables in the documents are those of the code: nothing is missing, nothing is made up."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from aquifer.settings import PREFIX, Settings
from domain.bundles import BUNDLES
from domain.specs import PolicyParameters

ROOT = Path(__file__).parents[2]
SCHEDULING = ROOT / "docs" / "scheduling.md"
ORDERS = PolicyParameters.model_fields["order"].annotation
OPERATIONS = ROOT / "docs" / "operations.md"


def first_column(document: Path, heading: str) -> list[str]:
    """What stands in backticks in the first column of the table below a heading."""
    _, found, rest = document.read_text().partition(f"\n{heading}\n")
    assert found, f"{document.name} has no {heading!r}"
    section = rest.split("\n## ", 1)[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def words(folder: str, callee: str) -> set[str]:
    """The first argument of each call of `callee`, as far as it is written in the code."""
    found: set[str] = set()
    for file in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if _is_call(node, callee):
                assert isinstance(node, ast.Call)
                if node.args:
                    found |= _texts(node.args[0], tree)
    return found


def _is_call(node: ast.AST, callee: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == callee


def _texts(value: ast.expr, tree: ast.AST) -> set[str]:
    match value:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp():
            return _texts(value.body, tree) | _texts(value.orelse, tree)
        case ast.Call(args=[_, default]):
            return _texts(default, tree)
        case ast.Name(id=name):
            given = (_given(node, name) for node in ast.walk(tree))
            return set().union(*(_texts(value, tree) for value in given if value is not None))
    return set()


def _given(node: ast.AST, name: str) -> ast.expr | None:
    """What the node assigns to the name, if it does."""
    match node:
        case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
            return value
        case ast.AnnAssign(target=ast.Name(id=target), value=value) if target == name:
            return value
    return None


def test_every_reason_to_wait_is_explained() -> None:
    listed = first_column(SCHEDULING, "## Why jobs wait")
    assert len(listed) == len(set(listed))
    assert set(listed) == words("domain", "Blocked")


def test_every_refusal_is_explained() -> None:
    listed = first_column(SCHEDULING, "## Why commands are refused")
    assert len(listed) == len(set(listed))
    assert set(listed) == words("domain", "Refused")


def test_every_code_of_a_dead_letter_is_explained() -> None:
    from streams import intake

    listed = first_column(OPERATIONS, "## Dead letters")
    made = words("streams", "Malformed") | set(intake._PYDANTIC.values())
    assert set(listed) == made


def test_every_order_and_bundle_is_explained() -> None:
    orders, bundles = get_args(ORDERS), list(BUNDLES)
    assert first_column(SCHEDULING, "## Who comes next") == ["order", *orders, *bundles]


def test_every_setting_is_explained() -> None:
    listed = first_column(OPERATIONS, "## Settings")
    assert listed == [PREFIX + name.upper() for name in Settings.model_fields]


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`(tests/[^`]+)::(test_[^`]+)`", OPERATIONS.read_text())
    assert len(named) > 10
    for file, test in named:
        functions = [
            node.name
            for node in ast.walk(ast.parse((ROOT / file).read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        assert test in functions, f"{file} has no {test}"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("Blocked('a', 1)", {"a"}),
        ("Blocked('a' if x else 'b')", {"a", "b"}),
        ("reason = 'a' if x else 'b'\nBlocked(reason)", {"a", "b"}),
        ("code = TABLE.get(x, 'a')\nif y: code = 'b'\nBlocked(code)", {"a", "b"}),
        ("A: Final = 'a'\nBlocked(A)", {"a"}),
        ("Other('a')", set()),
    ],
)
def test_words_are_found(tmp_path: Path, code: str, expected: set[str]) -> None:
    (tmp_path / "x.py").write_text(code)
    assert words(str(tmp_path), "Blocked") == expected


def test_a_missing_section_is_noticed() -> None:
    with pytest.raises(AssertionError):
        first_column(SCHEDULING, "## No such heading")
