"""Rules in force: signals and parameters put in, split into what each row can answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from domain.policies import effects
from domain.policies.attributes import INDEX, READS, SCOPED_BY, SLICED_BY, Phase
from domain.policies.compiler import Function, Names, Row, compile
from domain.policies.documents import Rule
from domain.policies.effects import FORMS, PPM, Form, Standing
from domain.policies.syntax import Node, attribute, attributes, both, conjuncts, literal, substitute
from domain.policies.validation import Trees, slot_of, value_of, when_of
from domain.specs import TIERS

Outcome = dict[str, int]
"""By slot: what is set, added or multiplied; 1 for what is denied. A tier is its rank."""
Resolved = tuple[Outcome, dict[str, list[tuple[str, int]]]]
"""An outcome, and by slot which rules counted, with what."""
TRUE: Final = literal(True)


class Live:
    """One rule in force."""

    __slots__ = (
        "bound",
        "first",
        "form",
        "name",
        "number",
        "per_job",
        "phase",
        "reason",
        "rest",
        "slot",
        "standing",
        "static",
        "token",
        "value",
        "varies",
        "version",
        "when",
    )

    def __init__(
        self, name: str, rule: Rule, standing: Standing, when: Node, value: Node, names: Names
    ) -> None:
        self.name = name
        self.phase = rule.phase
        self.slot = slot_of(rule.phase, rule.then)
        self.form: Form = FORMS[rule.phase][rule.then.do]
        self.reason = rule.then.reason
        self.when = rule.when
        """As its author wrote it."""
        self.version = 0
        self.standing = standing
        subject, other = READS[rule.phase]
        first: list[Node] = []
        second: list[Node] = []
        for part in conjuncts(when):
            reads = {str(a.value).partition(".")[0] for a in attributes(part)}
            (second if other is not None and other in reads else first).append(part)
        self.first = first
        self.static: Function = compile(_all(first), names, subject)
        """Whether the rule holds, as far as its subject alone tells."""
        self.rest: Function | None = compile(_all(second), names, subject) if second else None
        """Whether it holds for what the subject is tried with."""
        self.value: Function = compile(value, names, subject)
        needed = [*(a for part in second for a in attributes(part)), *attributes(value)]
        own = {str(a.value) for a in needed if str(a.value).partition(".")[0] == subject}
        self.bound = sorted(INDEX[n] for n in sorted(own))
        """Columns of the subject that the rest and the value read."""
        others = {str(a.value).partition(".")[0] for a in needed}
        self.varies = self.rest is not None or (other is not None and other in others)
        """It depends on what the subject is tried with."""
        known = [str(a.value) for a in (*attributes(when), *attributes(value))]
        self.per_job = any(INDEX[n] >= _SHAPE and n.startswith("job.") for n in known)
        self.token = (name, self.slot, standing, tuple(second), value)
        """Rules of equal tokens do the same to what the subject is tried with."""
        self.number = 0
        """Stands for the token."""


_SHAPE: Final = INDEX["job.name"]


def _all(parts: Sequence[Node]) -> Node:
    found = TRUE
    for part in parts:
        found = part if found is TRUE else both(found, part)
    return found


class Scoped:
    """Where a version counts: what its scope and its trial add to each condition."""

    def __init__(self, account: str | None, specific: int, slice_ppm: tuple[int, int]) -> None:
        self.account = account
        self.specific = specific
        self.slice_ppm = slice_ppm
        """From, and below: which part of all queues it is for."""

    def around(self, when: Node, phase: Phase) -> Node:
        subject = READS[phase][0]
        if self.account is not None:
            own = Node("in", (literal(self.account), attribute(SCOPED_BY[subject])))
            when = both(own, when)
        low, below = self.slice_ppm
        if low > 0:
            when = both(Node(">=", (attribute(SLICED_BY[subject]), literal(low))), when)
        if below < PPM:
            when = both(Node("<", (attribute(SLICED_BY[subject]), literal(below))), when)
        return when


def live_rule(
    policy: str,
    rule: Rule,
    trees: Trees,
    scoped: Scoped,
    values: Mapping[str, int],
    names: Names,
) -> Live:
    """The rule with these signals and parameters."""
    known = dict(values)
    when = scoped.around(substitute(trees[when_of(rule.rule)], known), rule.phase)
    if rule.then.do == "tier":
        value = literal(TIERS.index(str(rule.then.value)))
    elif rule.then.value is None:
        value = literal(1)
    else:
        value = substitute(trees[value_of(rule.rule)], known)
    name = f"{policy}/{rule.rule}"
    standing = Standing(scoped.specific, rule.priority, rule.locked, name)
    return Live(name, rule, standing, when, value, names)


def clamped(rule: Live, value: int) -> int:
    return max(rule.form.low, min(rule.form.high, int(value)))


def resolve(found: Sequence[tuple[Live, int]]) -> Resolved:
    """What rules that hold do together."""
    slots: dict[str, list[tuple[Live, int]]] = {}
    for rule, value in found:
        slots.setdefault(rule.slot, []).append((rule, value))
    outcome: Outcome = {}
    why: dict[str, list[tuple[str, int]]] = {}
    for slot, rules in sorted(slots.items()):
        rules.sort(key=lambda r: r[0].standing.order())
        form = rules[0][0].form
        if form.kind in ("deny", "scalar"):
            rule, value = rules[0]
            outcome[slot] = value
            why[slot] = [(rule.name, value)]
            continue
        rules.sort(key=lambda r: r[0].name)
        values = [value for _, value in rules]
        sums = form.kind == "sum"
        outcome[slot] = effects.total(values, form) if sums else effects.product(values, form)
        why[slot] = [(r.name, v) for r, v in rules if v != (0 if sums else PPM)]
    return outcome, why


def holding(rules: Sequence[Live], row: Row, other: Row) -> list[tuple[Live, int]]:
    """Of these rules, those that hold for the rows, with their values."""
    return [
        (rule, clamped(rule, rule.value(row, other)))
        for rule in rules
        if rule.static(row, other) and (rule.rest is None or rule.rest(row, other))
    ]
