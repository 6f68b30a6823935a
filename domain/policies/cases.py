"""The tests that travel with a policy: its rules in a situation that the test describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domain.policies.attributes import READS, SUBJECTS
from domain.policies.compiler import Item, Names, compile
from domain.policies.documents import Case, PolicyDocument
from domain.policies.effects import FORMS, PPM
from domain.policies.live import Scoped, holding, live_rule, resolve
from domain.policies.syntax import attributes, substitute
from domain.policies.validation import WHEN, Invalid, Trees
from domain.specs import TIERS

ANYWHERE = Scoped(None, 0, (0, PPM))


def run(document: PolicyDocument, trees: Trees) -> None:
    """Raise Invalid if a test of the document fails."""
    for case in document.tests:
        found = outcome_of(document, trees, case)
        for slot, expected in case.expect.items():
            if slot.partition(".")[0] not in FORMS[case.phase]:
                known = ", ".join(FORMS[case.phase])
                raise Invalid(f"tests.{case.test}", f"the {case.phase} phase has {known}")
            if not as_expected(found.get(slot), expected):
                got = found.get(slot, "nothing")
                raise Invalid(f"tests.{case.test}", f"{slot}: expected {expected}, found {got}")


def outcome_of(document: PolicyDocument, trees: Trees, case: Case) -> dict[str, int | bool | str]:
    """What the document's rules do in the situation, by effect. Raises Invalid."""
    names = Names()
    values = situation(document, trees, case.given)
    known = {name for subject in READS[case.phase] if subject for name in SUBJECTS[subject]}
    known |= values.keys() | SUBJECTS["signal"].keys()
    for name in sorted(case.given.keys() - known):
        raise Invalid(f"tests.{case.test}", f"the {case.phase} phase reads no {name}")
    if not compile(substitute(trees[WHEN], values), names, "signal")((), ()):
        return {}
    rules = [
        live_rule(document.policy, rule, trees, ANYWHERE, values, names)
        for rule in document.rules
        if rule.phase == case.phase
    ]
    subject, other = READS[case.phase]
    row, with_ = (row_of(s, case.given, names) if s else () for s in (subject, other))
    outcome, _ = resolve(holding(rules, row, with_))
    return {slot: said(slot, value) for slot, value in outcome.items()}


def as_expected(found: int | bool | str | None, expected: int | bool | str) -> bool:
    """False is expected where no rule does anything, and is not the number 0."""
    if expected is False:
        return found is None or found is False
    return type(found) is type(expected) and found == expected


def said(slot: str, value: int) -> int | bool | str:
    """An outcome as people write it."""
    if slot in ("deny", "protect"):
        return bool(value)
    return str(TIERS[value]) if slot == "tier" else value


def situation(document: PolicyDocument, trees: Trees, given: Mapping[str, Any]) -> dict[str, int]:
    """Signals and parameters by name: those given, else as the document has them, else 0."""
    values = {f"param.{p.param}": p.value for p in document.params}
    values.update((n, int(v)) for n, v in given.items() if n in values)
    for tree in trees.values():
        for node in attributes(tree):
            name = str(node.value)
            if name.startswith("signal."):
                entries = given.get(name, 0)
                if node.args:
                    key = str(node.args[0].value)
                    one = entries.get(key, 0) if isinstance(entries, dict) else 0
                    values[f"{name}[{key}]"] = int(one)
                else:
                    values[name] = int(entries)
    return values


def row_of(subject: str, given: Mapping[str, Any], names: Names) -> tuple[int, ...]:
    """The row of a subject; what is not given is as unset."""
    row = []
    for name, known in SUBJECTS[subject].items():
        value = given.get(name)
        if known.type in ("int", "bool"):
            row.append(int(value or 0))
        elif known.type == "string":
            row.append(names.of(value or ""))
        else:
            row.append(names.of(_item(value)))
    return tuple(row)


def _item(value: Any) -> Item:
    if isinstance(value, dict):
        return tuple(sorted((str(k), str(v)) for k, v in value.items()))
    return tuple(str(v) for v in value or ())
