"""From a checked tree to a function of rows: of one row, or of columns of many at once.

A row has an integer for each attribute of its subject (domain.policies.attributes): strings, lists
and maps stand as numbers that a table gave them. The same function takes a row of a shape, and a
list of numpy columns with one entry for each shape; it then answers with a column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import add, eq, floordiv, ge, gt, le, lt, mod, mul, ne, sub
from typing import Any, Final

import numpy as np

from domain.policies.attributes import INDEX, SUBJECTS
from domain.policies.syntax import Node

Value = Any
"""An integer or boolean, or a numpy column of them."""
Row = Sequence[Value]
Function = Callable[[Row, Row], Value]
"""Of the row of the phase's subject, and of the row of what it is tried with."""
Item = str | tuple[str, ...] | tuple[tuple[str, str], ...]

NUMBER_DIGITS: Final = 9


class Names:
    """Numbers for strings, lists of strings, and maps; they mean nothing but equality."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._number: dict[Item, int] = {}
        self.lookups: dict[tuple[object, ...], _Lookup] = {}
        """By what they look for: rules that look for the same share one."""
        self.of("")
        self.of(())

    def of(self, item: Item) -> int:
        number = self._number.get(item)
        if number is None:
            number = self._number[item] = len(self.items)
            self.items.append(item)
        return number

    def lookup(self, key: tuple[object, ...], of: Callable[[Any], int]) -> _Lookup:
        found = self.lookups.get(key)
        if found is None:
            found = self.lookups[key] = _Lookup(self, of)
        return found


class _Lookup:
    """A function of named items, found once for each of them."""

    def __init__(self, names: Names, of: Callable[[Any], int]) -> None:
        self._names = names
        self._of = of
        self._known: dict[int, int] = {}
        self._column: Any = np.zeros(0, dtype=np.int64)

    def __call__(self, number: Value) -> Value:
        if isinstance(number, int):
            found = self._known.get(number)
            if found is None:
                found = self._known[number] = self._of(self._names.items[number])
            return found
        items = self._names.items
        if len(self._column) < len(items):
            self._column = np.array([self._of(items[at]) for at in range(len(items))])
        return self._column[number]


def compile(node: Node, names: Names, first: str) -> Function:
    """`first` is the subject of the function's first row. Signals and parameters are literals."""
    return _Compiler(names, first).of(node)


_BINARY: Final[dict[str, Callable[[Value, Value], Value]]] = {
    "==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge,
    "+": add, "-": sub, "*": mul, "/": floordiv, "%": mod,
}  # fmt: skip


class _Compiler:
    def __init__(self, names: Names, first: str) -> None:
        self._names = names
        self._first = first

    def of(self, node: Node) -> Function:
        op, args = node.op, node.args
        if op == "literal":
            value = self._names.of(node.value) if isinstance(node.value, str) else node.value
            return lambda a, b: value
        if op == "attr":
            return self._attribute(node)
        if op in ("in", "has", "size", "int", "startsWith", "endsWith", "contains"):
            return self._over_names(node)
        parts = [self.of(arg) for arg in args]
        if op == "?:":
            condition, yes, no = parts
            return lambda a, b: _choose(condition(a, b), yes(a, b), no(a, b))
        one = parts[0]
        if op == "!":
            return lambda a, b: one(a, b) ^ True
        if op == "neg":
            return lambda a, b: -one(a, b)
        two = parts[1]
        if op == "&&":
            return lambda a, b: one(a, b) & two(a, b)
        if op == "||":
            return lambda a, b: one(a, b) | two(a, b)
        return _binary(_BINARY[op], one, two, args[1])

    def _attribute(self, node: Node) -> Function:
        name = str(node.value)
        at = INDEX[name]
        if name.partition(".")[0] == self._first:
            found: Function = lambda a, b: a[at]  # noqa: E731
        else:
            found = lambda a, b: b[at]  # noqa: E731
        if _type_of(node) == "bool":
            return lambda a, b: found(a, b) != 0
        if not node.args:
            return found
        key = node.args[0].value
        names = self._names
        entry = names.lookup(("entry", key), lambda item: names.of(_entry(item, key)))
        return lambda a, b: entry(found(a, b))

    def _over_names(self, node: Node) -> Function:
        op, (subject, *rest) = node.op, node.args
        if op == "in" and rest[0].op == "list":
            return self._in_list(subject, rest[0])
        if op == "in":
            wanted = subject.value
            return self._looked_up(
                self.of(rest[0]), ("holds", wanted), lambda item: _holds(item, wanted)
            )
        found = self.of(subject)
        if op == "has" and subject.op == "literal":
            return lambda a, b: found(a, b) != 0
        if op == "has":
            if _type_of(subject) in ("int", "bool"):
                return lambda a, b: found(a, b) != 0
            return self._looked_up(found, ("has",), bool)
        if op == "size":
            return self._looked_up(found, ("size",), _size)
        text = rest[0].value
        if op == "int":
            return self._looked_up(found, ("int", text), lambda item: _number(item, text))
        return self._looked_up(found, (op, text), lambda item: _METHODS[op](item, text))

    def _looked_up(
        self, found: Function, key: tuple[object, ...], of: Callable[[Any], int]
    ) -> Function:
        lookup = self._names.lookup(key, of)
        return lambda a, b: lookup(found(a, b))

    def _in_list(self, subject: Node, listed: Node) -> Function:
        found = self.of(subject)
        values = [
            self._names.of(v.value) if isinstance(v.value, str) else v.value for v in listed.args
        ]
        members, column = set(values), np.array(values)

        def is_in(a: Row, b: Row) -> Value:
            value = found(a, b)
            return value in members if isinstance(value, int) else np.isin(value, column)

        return is_in


def _binary(
    of: Callable[[Value, Value], Value], one: Function, two: Function, right: Node
) -> Function:
    if right.op == "literal":  # the usual form of a comparison
        constant = two((), ())
        return lambda a, b: of(one(a, b), constant)
    return lambda a, b: of(one(a, b), two(a, b))


def _choose(condition: Value, yes: Value, no: Value) -> Value:
    if isinstance(condition, bool):
        return yes if condition else no
    return np.where(condition, yes, no)


def _type_of(attribute: Node) -> str:
    name = str(attribute.value)
    return "string" if attribute.args else SUBJECTS[name.partition(".")[0]][name].type


def _entry(item: Item, key: Any) -> str:
    if not isinstance(item, tuple):
        return ""
    return next((pair[1] for pair in item if isinstance(pair, tuple) and pair[0] == key), "")


def _holds(item: Item, wanted: Any) -> bool:
    if not isinstance(item, tuple):
        return False
    return any((p[0] if isinstance(p, tuple) else p) == wanted for p in item)


def _size(item: Item) -> int:
    return len(item) if isinstance(item, tuple) else 0


def _number(item: Item, otherwise: Any) -> int:
    if not isinstance(item, str) or not 0 < len(item) <= NUMBER_DIGITS:
        return int(otherwise)
    return int(item) if item.isascii() and item.isdigit() else int(otherwise)


_METHODS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "startsWith": lambda item, text: isinstance(item, str) and item.startswith(text),
    "endsWith": lambda item, text: isinstance(item, str) and item.endswith(text),
    "contains": lambda item, text: isinstance(item, str) and text in item,
}
