"""Planned absence of nodes: maintenance windows, and the end of a rented node's lease.

A node is drained `lead_s` before: its work has its grace periods, and is requeued. At the end of a
maintenance the nodes that it drained take work again; a node that leaves stays drained until its
owner takes it away, or registers it with a later end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from domain import calendar
from domain.facts import MaintenanceBegan, MaintenanceEnded, MaintenancePlanned, NodeCordoned
from domain.maintenance_commands import CancelMaintenance, PlanMaintenance
from domain.nodes import drain
from domain.refusals import Refused

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.turn import Turn

MAX_MAINTENANCES: Final = 1000


class Maintenance:
    __slots__ = ("drained", "id", "mark", "on", "spec", "window")
    kind = "maintenance"

    def __init__(self, spec: PlanMaintenance) -> None:
        self.id = spec.maintenance
        self.spec = spec
        self.window = calendar.window_of(spec)
        """The one that is on, or comes next."""
        self.on = False
        self.drained: list[str] = []
        """Nodes that were drained for it, and take work again at its end."""
        self.mark = 0

    @property
    def lead_ms(self) -> int:
        return 1000 * self.spec.lead_s

    def next_ms(self) -> int:
        return self.window.end_ms if self.on else self.window.start_ms - self.lead_ms

    def state(self) -> tuple[object, ...]:
        spec = self.spec.model_dump_json(exclude_defaults=True)
        return (self.id, spec, self.window.start_ms, self.on, self.drained)


# --- decide ---------------------------------------------------------------------------------------


def plan_maintenance(turn: Turn, command: PlanMaintenance, at: int) -> None:
    cell = turn.cell
    if command.maintenance in cell.maintenances:
        raise Refused("maintenance_exists", "maintenance", "a planned one has this name")
    if len(cell.maintenances) >= MAX_MAINTENANCES:
        raise Refused("too_many_maintenances", "maintenance", f"at most {MAX_MAINTENANCES}")
    for node in command.nodes:
        if node not in cell.nodes:
            raise Refused("unknown_node", "nodes", f"no node {node!r} is registered")
    if command.end_ms <= turn.header.now_ms:
        raise Refused("window_is_over", "end_ms", "the window lies in the past")
    turn.emit(MaintenancePlanned(at))


def cancel_maintenance(turn: Turn, command: CancelMaintenance, at: int) -> None:
    if command.maintenance not in turn.cell.maintenances:
        raise Refused("unknown_maintenance", "maintenance", "no planned one has this name")
    _end(turn, turn.cell.maintenances[command.maintenance], "cancelled")


def keep(turn: Turn) -> None:
    """Begin and end what is due, and drain nodes that leave."""
    now_ms = turn.header.now_ms
    for one in sorted(turn.cell.maintenances.values(), key=lambda m: m.id):
        if one.on and one.window.end_ms <= now_ms:
            _end(turn, one, "ended")
        if not one.on and one.id in turn.cell.maintenances and one.next_ms() <= now_ms:
            _begin(turn, one)
    for node in turn.cell.timers.leaving_nodes(now_ms):
        if turn.cell.nodes.get(node.id) is node and not node.draining:  # else it was removed
            drain(turn, node)


def _begin(turn: Turn, one: Maintenance) -> None:
    nodes = [turn.cell.nodes[n] for n in one.spec.nodes if n in turn.cell.nodes]
    nodes = [n for n in nodes if not n.draining]
    turn.emit(MaintenanceBegan(one.id, [n.id for n in nodes]))
    for node in nodes:
        drain(turn, node)


def _end(turn: Turn, one: Maintenance, reason: str) -> None:
    cell, then = turn.cell, None
    for id_ in one.drained:
        node = cell.nodes.get(id_)
        if node is not None and node.draining and not node.must_leave(cell.now_ms):
            turn.emit(NodeCordoned(id_, False))
    if reason == "ended":
        then = one.window.after(cell.now_ms)
    turn.emit(MaintenanceEnded(one.id, reason, then[0] if then is not None else 0))


# --- evolve ---------------------------------------------------------------------------------------


def apply_planned(cell: Cell, fact: MaintenancePlanned) -> None:
    one = Maintenance(cell.command(fact.command, PlanMaintenance))
    cell.maintenances[one.id] = one
    cell.touch(one)


def apply_began(cell: Cell, fact: MaintenanceBegan) -> None:
    one = cell.maintenances[fact.maintenance]
    one.on, one.drained = True, list(fact.nodes)
    cell.touch(one)


def apply_ended(cell: Cell, fact: MaintenanceEnded) -> None:
    one = cell.maintenances[fact.maintenance]
    if not fact.next_start_ms:
        cell.left(cell.maintenances.pop(fact.maintenance))
        return
    one.on, one.drained = False, []
    one.window = calendar.moved(one.window, fact.next_start_ms)
    cell.touch(one)


# --- snapshots ------------------------------------------------------------------------------------


def load(state: list[Any]) -> Maintenance:
    _, spec, start_ms, on, drained = state
    one = Maintenance(PlanMaintenance.model_validate_json(spec))
    one.window = calendar.moved(one.window, start_ms)
    one.on, one.drained = on, list(drained)
    return one
