"""The type checker: which expressions are total, bounded, and as cheap as shapes.

Each integer has bounds that follow from those of what it is made of (interval arithmetic), so that
no sum overflows, no divisor is zero, and a comparison that is never true is found. Division and
remainder are of what is not negative, where all conventions agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from domain.policies.attributes import (
    BELONGS_TO_A_JOB,
    NOT_OFFERED,
    PER_JOB,
    READS,
    SUBJECTS,
    Attribute,
    Phase,
    Type,
    Unit,
)
from domain.policies.syntax import METHODS, Fault, Node

LIMIT: Final = 1 << 60
"""No integer in an expression may grow beyond this."""


class Kind(NamedTuple):
    """What is known of an expression's value."""

    type: Type
    low: int = 0
    high: int = 0
    unit: Unit = ""

    @property
    def constant(self) -> int | None:
        return self.low if self.type in ("int", "bool") and self.low == self.high else None


TRUE_OR_FALSE: Final = Kind("bool", 0, 1)


def truth(value: bool | None) -> Kind:
    return TRUE_OR_FALSE if value is None else Kind("bool", int(value), int(value))


class Scope:
    """What an expression may read: its phase's subjects, signals, and parameters."""

    def __init__(
        self, phase: Phase | None, params: Mapping[str, Kind], over: str | None = None
    ) -> None:
        """No phase: signals and parameters alone. `over`: the one subject that may be read."""
        self.phase = phase
        subjects = READS[phase] if phase is not None else ()
        self.subjects = [s for s in subjects if s is not None and over in (None, s)]
        self.over = over if phase is not None and READS[phase][1] is not None else None
        self.params = params

    def names(self) -> list[str]:
        """All that may be read."""
        found = [n for s in (*self.subjects, "signal") for n, a in SUBJECTS[s].items()]
        return [n for n in found if self._obstacle(n) is None] + [f"param.{p}" for p in self.params]

    def _obstacle(self, name: str) -> str | None:
        subject = name.partition(".")[0]
        if self.over is not None and subject not in (self.over, "signal"):
            return f"what this effect sets is the same for every {subject}"
        if subject not in (*self.subjects, "signal"):
            return f"the {self.phase} phase reads no {subject}" if self.phase else "not read here"
        if SUBJECTS[subject][name].per_job and self.phase not in PER_JOB:
            return BELONGS_TO_A_JOB
        return None

    def find(self, node: Node) -> Kind:
        name = str(node.value)
        subject, _, field = name.partition(".")
        if subject == "param":
            if field in self.params:
                return self.params[field]
            raise Fault(node.at, f"no parameter {field!r}{_meant(field, list(self.params))}")
        known: Attribute | None = SUBJECTS.get(subject, {}).get(name)
        if known is None:
            if name in NOT_OFFERED:
                raise Fault(node.at, f"{name} may not be read: {NOT_OFFERED[name]}")
            raise Fault(node.at, f"unknown attribute {name}{_meant(name, self.names())}")
        obstacle = self._obstacle(name)
        if obstacle is not None:
            raise Fault(node.at, f"{name} may not be read: {obstacle}")
        if known.type != "map":
            if node.args:
                raise Fault(node.at, f"{name} has no entries")
            high = 1 if known.type == "bool" else known.high
            return Kind(known.type, known.low, high, known.unit)
        if not node.args:
            if subject == "signal":
                raise Fault(node.at, f"{name} is read by its entries: {name}['name']")
            return Kind("map")
        return Kind("int", 0, 1 << 40) if subject == "signal" else Kind("string")


def _meant(name: str, known: list[str]) -> str:
    close = min(((_edits(name, k), k) for k in known), default=(len(name), ""))
    return f": did you mean {close[1]}?" if 3 * close[0] <= len(name) else ""


def _edits(one: str, two: str) -> int:
    """Letters to put in, leave out or change (Levenshtein)."""
    row = list(range(len(two) + 1))
    for i, letter in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(two, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return row[-1]


def check(node: Node, scope: Scope) -> Kind:
    """The kind of the expression. Raises Fault at the first place that breaks a rule."""
    if node.op == "literal":
        value = node.value
        if isinstance(value, str):
            return Kind("string")
        assert value is not None, "a literal has a value"
        return truth(value) if isinstance(value, bool) else Kind("int", value, value)
    if node.op == "attr":
        return scope.find(node)
    if node.op == "list":
        return _list(node, scope)
    kinds = [check(arg, scope) for arg in node.args]
    if node.op in ("&&", "||", "!", "?:"):
        return _logic(node, kinds)
    if node.op in ("+", "-", "*", "/", "%", "neg"):
        return _arithmetic(node, kinds)
    if node.op in ("==", "!=", "<", "<=", ">", ">=", "in"):
        return _comparison(node, kinds)
    return _function(node, kinds)


def _need(node: Node, kind: Kind, *types: Type) -> None:
    if kind.type not in types:
        wanted = " or ".join(_PLAIN[t] for t in types)
        raise Fault(node.at, f"expected {wanted}, found {_PLAIN[kind.type]}")


_PLAIN: Final[dict[Type, str]] = {
    "int": "an integer",
    "bool": "true or false",
    "string": "a string",
    "strings": "a list of strings",
    "ints": "a list of integers",
    "map": "a map, whose entries are read as name['key']",
}


def _list(node: Node, scope: Scope) -> Kind:
    if not node.args or any(a.op != "literal" for a in node.args):
        raise Fault(node.at, "a list holds one literal or more")
    kinds = [check(a, scope) for a in node.args]
    for arg, kind in zip(node.args, kinds, strict=True):
        _need(arg, kind, "string", "int")
        if kind.type != kinds[0].type:
            raise Fault(arg.at, "a list holds strings or integers, not both")
    return Kind("strings" if kinds[0].type == "string" else "ints")


def _logic(node: Node, kinds: list[Kind]) -> Kind:
    if node.op == "?:":
        condition, yes, no = kinds
        _need(node.args[0], condition, "bool")
        _need(node.args[1], yes, "int", "bool")
        _need(node.args[2], no, yes.type)
        unit = _same_unit(node, yes, no)
        return Kind(yes.type, min(yes.low, no.low), max(yes.high, no.high), unit)
    for arg, kind in zip(node.args, kinds, strict=True):
        _need(arg, kind, "bool")
    if node.op == "!":
        return Kind("bool", 1 - kinds[0].high, 1 - kinds[0].low)
    one, two = kinds
    if node.op == "&&":
        return Kind("bool", min(one.low, two.low), min(one.high, two.high))
    return Kind("bool", max(one.low, two.low), max(one.high, two.high))


def _same_unit(node: Node, one: Kind, two: Kind) -> Unit:
    if one.unit and two.unit and one.unit != two.unit:
        raise Fault(node.at, f"{one.unit} on the left, {two.unit} on the right")
    return one.unit or two.unit


def _arithmetic(node: Node, kinds: list[Kind]) -> Kind:
    for arg, kind in zip(node.args, kinds, strict=True):
        _need(arg, kind, "int")
    if node.op == "neg":
        return Kind("int", -kinds[0].high, -kinds[0].low, kinds[0].unit)
    one, two = kinds
    if node.op in ("+", "-"):
        unit = _same_unit(node, one, two)
        low, high = (two.low, two.high) if node.op == "+" else (-two.high, -two.low)
        return _bounded(node, (one.low + low, one.high + high), unit)
    if node.op == "*":
        if one.unit and two.unit and "ppm" not in (one.unit, two.unit):
            raise Fault(node.at, f"{one.unit} times {two.unit} has no meaning here")
        corners = [x * y for x in (one.low, one.high) for y in (two.low, two.high)]
        return _bounded(node, corners, one.unit or two.unit)
    if two.low <= 0:
        raise Fault(node.args[1].at, "the divisor must be known to be above 0")
    if one.low < 0:
        raise Fault(node.args[0].at, "what is divided must be known to be 0 or more")
    if node.op == "/":
        unit = "" if one.unit == two.unit else one.unit
        return Kind("int", one.low // two.high, one.high // two.low, unit)
    return Kind("int", 0, min(one.high, two.high - 1), one.unit)


def _bounded(node: Node, values: list[int] | tuple[int, int], unit: Unit) -> Kind:
    low, high = min(values), max(values)
    if low < -LIMIT or high > LIMIT:
        raise Fault(node.at, "the result may grow beyond 2^60")
    return Kind("int", low, high, unit)


def _comparison(node: Node, kinds: list[Kind]) -> Kind:
    one, two = kinds
    if node.op == "in":
        _need(node.args[0], one, "string", "int")
        wanted: Type = "strings" if one.type == "string" else "ints"
        _need(node.args[1], two, *((wanted, "map") if one.type == "string" else (wanted,)))
        if node.args[1].op == "attr" and node.args[0].op != "literal":
            raise Fault(node.args[0].at, "what is looked for in an attribute is a literal")
        return TRUE_OR_FALSE
    _need(node.args[1], two, one.type)
    if node.op in ("==", "!="):
        _need(node.args[0], one, "int", "bool", "string")
        if one.type == "string":
            return TRUE_OR_FALSE
    else:
        _need(node.args[0], one, "int")
    _same_unit(node, one, two)
    return truth(_known(node.op, one, two))


def _known(op: str, one: Kind, two: Kind) -> bool | None:
    """Whether the comparison holds, if the bounds alone tell it."""
    if op in (">", ">="):
        one, two, op = two, one, "<" if op == ">" else "<="
    if op in ("<", "<="):
        gap = 1 if op == "<" else 0
        if one.high + gap <= two.low:
            return True
        return False if one.low + gap > two.high else None
    equal: bool | None = None
    if one.high < two.low or two.high < one.low:
        equal = False
    elif one.constant is not None and one.constant == two.constant:
        equal = True
    return equal if op == "==" or equal is None else not equal


def _function(node: Node, kinds: list[Kind]) -> Kind:
    if node.op == "has":
        if node.args[0].op != "attr":
            raise Fault(node.args[0].at, "has() asks for an attribute")
        return TRUE_OR_FALSE
    if node.op == "size":
        _need(node.args[0], kinds[0], "strings", "map")
        return Kind("int", 0, 1000)
    if node.op == "int":
        _need(node.args[0], kinds[0], "string")
        if node.args[1].op != "literal":
            raise Fault(node.args[1].at, "what stands for a text that is no integer is a literal")
        _need(node.args[1], kinds[1], "int")
        return Kind("int", min(0, kinds[1].low), 999_999_999)
    assert node.op in METHODS, f"{node.op} was parsed"
    _need(node.args[0], kinds[0], "string")
    _need(node.args[1], kinds[1], "string")
    if node.args[1].op != "literal":
        raise Fault(node.args[1].at, f"{node.op} takes a literal")
    return TRUE_OR_FALSE
