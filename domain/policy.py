"""The cell's policy: parameters that an operator may change while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain import promises, quota, replays
from domain.commands import SetPolicy
from domain.facts import PolicySet
from domain.refusals import Refused
from domain.slots import recharge

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.turn import Turn


def set_policy(turn: Turn, command: SetPolicy, at: int) -> None:
    cell = turn.cell
    if cell.policy.require_replay:
        replays.require(command.replay, command.parameters, cell.policy_version, cell.head.round)
    members = [m.accelerator for g in command.parameters.groups for m in g.members]
    names = [g.group for g in command.parameters.groups]
    if len({*members, *names}) != len(members) + len(names):
        rule = "groups have different names, and a type is in one group at most"
        raise Refused("groups_overlap", "parameters.groups", rule)
    turn.emit(PolicySet(at, turn.cell.policy_version + 1))


def apply_set(cell: Cell, fact: PolicySet) -> None:
    cell.policy = cell.command(fact.command, SetPolicy).parameters
    cell.pool.time_tombstones(cell)
    cell.policy_version = fact.version
    rates = quota.rates_of(cell.policy)
    if rates != cell.rates:
        cell.rates.clear()
        cell.rates.update(rates)
        recharge(cell)
    cell.reorder()
    promises.reconsider(cell)
