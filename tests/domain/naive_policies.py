"""A reference of what policies mean: every rule is read anew for every shape and class."""

from __future__ import annotations

from typing import Any

from domain.policies.attributes import READS, SUBJECTS, Phase
from domain.policies.documents import PolicyDocument, Rule
from domain.policies.effects import FORMS, SCORE_MAX
from domain.policies.syntax import Node, parse
from domain.specs import TIERS

World = dict[str, Any]
"""By attribute, signal or parameter: its value as Python has it."""
ZERO: dict[str, Any] = {"int": 0, "bool": False, "string": "", "strings": (), "map": {}}


def read(node: Node, world: World) -> Any:
    op, args = node.op, node.args
    if op == "literal":
        return node.value
    if op == "list":
        return tuple(a.value for a in args)
    if op == "attr":
        name = str(node.value)
        if args:
            return world.get(name, {}).get(args[0].value, 0 if name.startswith("signal") else "")
        subject = name.partition(".")[0]
        zero = 0 if subject == "param" else ZERO[SUBJECTS[subject][name].type]
        return world.get(name, zero)
    if op == "&&":
        return read(args[0], world) and read(args[1], world)
    if op == "||":
        return read(args[0], world) or read(args[1], world)
    if op == "?:":
        return read(args[1] if read(args[0], world) else args[2], world)
    values = [read(a, world) for a in args]
    return OPERATORS[op](*values)


OPERATORS: dict[str, Any] = {
    "!": lambda a: not a,
    "neg": lambda a: -a,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "in": lambda a, b: a in b,
    "has": bool,
    "size": len,
    "int": lambda text, other: int(text) if text.isdigit() and len(text) < 10 else other,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": lambda text, part: part in text,
}

Found = list[tuple[tuple[Any, ...], str, str, Any, Rule]]
"""(standing, name, slot, value, rule) of rules that hold."""


def holding(
    documents: list[PolicyDocument], phase: Phase, world: World, lineage: tuple[str, ...]
) -> Found:
    """`lineage`: the account and all above it, the root last."""
    found: Found = []
    for document in documents:
        kind, _, where = document.scope.partition("/")
        if (kind == "region" and where != "test") or (kind == "account" and where not in lineage):
            continue
        depth = {"global": 0, "region": 1}.get(kind, 0)
        if kind == "account":
            depth = 1 + len(lineage) - lineage.index(where)
        here = {**world, **{f"param.{p.param}": p.value for p in document.params}}
        for rule in document.rules:
            if rule.phase != phase or not (
                read(parse(document.when), here) and read(parse(rule.when), here)
            ):
                continue
            name = f"{document.policy}/{rule.rule}"
            locked = (0, depth) if rule.locked else (1, -depth)
            standing = (*locked, -rule.priority, name)
            found.append((standing, name, _slot(rule), _value(rule, here), rule))
    return found


def _slot(rule: Rule) -> str:
    if rule.then.do == "prefer":
        return f"prefer.{rule.then.band}"
    return f"after_wait.{rule.then.accelerator}" if rule.then.accelerator else rule.then.do


def _value(rule: Rule, world: World) -> Any:
    given, form = rule.then.value, FORMS[rule.phase][rule.then.do]
    if given is None:
        return 1
    if rule.then.do == "tier":
        return TIERS.index(given)
    value = given if isinstance(given, int) else read(parse(given), world)
    return max(form.low, min(form.high, value))


def outcome(found: Found) -> dict[str, Any]:
    """What they do together, by slot."""
    result: dict[str, Any] = {}
    for slot in {f[2] for f in found}:
        rules = [f for f in found if f[2] == slot]
        form = FORMS[rules[0][4].phase][rules[0][4].then.do]
        if form.kind in ("deny", "scalar"):
            result[slot] = min(rules, key=lambda f: f[0])[3]
        elif form.kind == "sum":
            result[slot] = max(form.low, min(form.high, sum(f[3] for f in rules)))
        else:
            whole = 1_000_000
            for one in sorted(rules, key=lambda f: f[1]):
                whole = max(form.low, min(form.high, whole * one[3] // 1_000_000))
            result[slot] = whole
    return result


def reads_places(rule: Rule) -> bool:
    """True iff the rule says something else for other places."""
    other = READS[rule.phase][1]
    text = f"{rule.when} {rule.then.value}"
    return other is not None and f"{other}." in text


assert SCORE_MAX > 4 * 4 * 1000, "sums of the tests do not meet the bound"
