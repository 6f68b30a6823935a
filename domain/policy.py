"""The cell's policy: parameters that an operator may change while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain import replays
from domain.commands import SetPolicy
from domain.facts import PolicySet

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.turn import Turn


def set_policy(turn: Turn, command: SetPolicy, at: int) -> None:
    cell = turn.cell
    if cell.policy.require_replay:
        replays.require(command.replay, command.parameters, cell.policy_version, cell.head.round)
    turn.emit(PolicySet(at, turn.cell.policy_version + 1))


def apply_set(cell: Cell, fact: PolicySet) -> None:
    cell.policy = cell.command(fact.command, SetPolicy).parameters
    cell.policy_version = fact.version
    cell.reorder()
