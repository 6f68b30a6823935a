"""Gates: what has to hold while a version is on trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.policies import controllers
from domain.policies.state import Policy, Trial
from domain.policies.validation import gate_of

if TYPE_CHECKING:
    from domain.cell import Cell


def baseline(cell: Cell, policy: Policy, version: int) -> dict[str, int]:
    """By gate: what it watches, now."""
    known = policy.versions[version]
    return {
        gate.gate: controllers.watched(cell, known.trees[gate_of(gate.gate)])
        for gate in sorted(known.document.gates, key=lambda g: g.gate)
    }


def broken(cell: Cell, policy: Policy, trial: Trial) -> tuple[str, int] | None:
    """The first gate that does not hold, and what it found."""
    found = baseline(cell, policy, trial.version)
    for gate in sorted(policy.versions[trial.version].document.gates, key=lambda g: g.gate):
        value = found[gate.gate]
        most = gate.at_most
        if gate.worse_by is not None:
            most = trial.baseline[gate.gate] + gate.worse_by
        if (most is not None and value > most) or (
            gate.at_least is not None and value < gate.at_least
        ):
            return gate.gate, value
    return None


def next_ms(cell: Cell) -> int | None:
    """When a trial ends."""
    ends = [p.trial.until_ms for p in cell.policies.values() if p.trial is not None]
    return min(ends, default=None)
