"""Trials: gates are watched, one that breaks rolls the version back, and a trial has an end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.policies import gates, lifecycle
from domain.policies.facts import PolicyActivated, PolicyRolledBack, PolicyShadowed

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.policies.state import Policy, Trial
    from domain.turn import Turn


def watch(turn: Turn) -> None:
    """Roll back what breaks a gate; let what has held them count, or stop it."""
    cell = turn.cell
    for _, policy in sorted(cell.policies.items()):
        trial = policy.trial
        if trial is None:
            continue
        broken = gates.broken(cell, policy, trial)
        if broken is not None:
            lifecycle.roll_back(turn, policy, f"gate/{broken[0]}", "gate", broken[1])
        elif trial.until_ms <= cell.now_ms:
            _ended(turn, policy, trial)


def _ended(turn: Turn, policy: Policy, trial: Trial) -> None:
    if trial.mode == "shadow":
        shapes, differing = _shadow(turn.cell, policy)
        turn.emit(PolicyShadowed(policy.id, trial.version, shapes, differing))
    if trial.mode == "all":
        turn.emit(PolicyActivated(policy.id, trial.version, "canary"))
    elif trial.then_activate:
        lifecycle.activate(turn, policy, trial.version, "canary", 0)
    else:
        to = policy.active
        turn.emit(PolicyRolledBack(policy.id, trial.version, to, "canary", "the trial is over"))


def _shadow(cell: Cell, policy: Policy) -> tuple[int, int]:
    """Shapes, and those of them that the version on trial would treat otherwise."""
    rulings = cell.rulebook.supposed(cell, policy)
    pairs = zip(cell.shapes.values(), rulings, strict=True)
    return len(rulings), sum(shape.ruling != ruling for shape, ruling in pairs)
