"""Which rules hold for a shape, what each does, and which of them counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from domain.policies import cases
from domain.policies.attributes import Phase
from domain.policies.live import Live, clamped, resolve

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.policies.state import Policy
    from domain.shapes import Shape

Told = dict[str, Any]


def rules_of(cell: Cell, shape: Shape) -> list[Told]:
    """Rules in force that hold for the shape, by phase and name.

    `counts` is false where another rule sets the same and comes first; what depends on the place is
    told for each class of nodes that it would be asked for.
    """
    held = cell.rulebook.held(shape)
    found: list[Told] = []
    for phase in Phase:
        rules = [rule for rule in held if rule.phase == phase]
        row = cell.rulebook.row(shape)
        values = [(r, clamped(r, r.value(row, ()))) for r in rules if not r.varies]
        _, why = resolve(values)
        for rule, value in values:
            counts = rule.name in [name for name, _ in why.get(rule.slot, ())]
            found.append(_told(rule, cases.said(rule.slot, value), counts))
        for rule in rules:
            if rule.varies:
                found.append(
                    {**_told(rule, None, True), "places": list(_places(cell, shape, rule))}
                )
    return found


def _told(rule: Live, value: object, counts: bool) -> Told:
    return {
        "rule": rule.name,
        "version": rule.version,
        "phase": rule.phase.value,
        "effect": rule.slot,
        "value": value,
        "counts": counts,
        "reason": rule.reason,
        "when": rule.when,
    }


def _places(cell: Cell, shape: Shape, rule: Live) -> Iterator[Told]:
    """Classes of nodes for which the rule holds, and what it does there."""
    if rule.phase == Phase.HANDOFF:
        return
    row, asked = cell.rulebook.row(shape), {f.accelerator for f in shape.spec.flavours}
    for _, class_ in sorted(cell.fabric.classes.items()):
        other = cell.rulebook.class_row(class_)
        if class_.accelerator in asked and (rule.rest is None or rule.rest(row, other)):
            value = cases.said(rule.slot, clamped(rule, rule.value(row, other)))
            labels = dict(sorted(class_.labels.items()))
            yield {"accelerator": class_.accelerator, "labels": labels, "value": value}


def policy(entity: Policy) -> Told:
    """A policy with its versions, for people."""
    trial = entity.trial
    shown = entity.active or (trial.version if trial else max(entity.versions, default=0))
    document = entity.versions[shown].document if shown else None
    return {
        "active": entity.active,
        "trial": None if trial is None else trial._asdict(),
        "params": entity.params(shown) if shown else {},
        "versions": [
            {
                "version": number,
                "status": version.status,
                "author": version.author,
                "replayed": version.replayed,
            }
            for number, version in sorted(entity.versions.items())
        ],
        "document": document.model_dump(mode="json", exclude_defaults=True) if document else None,
    }
