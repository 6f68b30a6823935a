"""Nodes: they appear, report, are cordoned, drain, are lost, return, and leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from domain.commands import CordonNode, DrainNode, RegisterNode, RemoveNode, ReportNode
from domain.fabric import RACK, Domain, Fabric, NodeClass, is_local, matches
from domain.facts import (
    NodeCordoned,
    NodeDrained,
    NodeDraining,
    NodeLost,
    NodeRegistered,
    NodeRemoved,
    NodeReported,
)
from domain.refusals import Refused
from domain.specs import LEVELS, Placement

if TYPE_CHECKING:
    from domain.accounting import Entry
    from domain.cell import Cell
    from domain.reservations import Reservation
    from domain.runs import Run
    from domain.turn import Turn

MAX_NODES: Final = 200_000
WHOLE: Final = 1000


class Node:
    """One machine with its accelerator slots, and who holds them."""

    __slots__ = (
        "available",
        "booked",
        "class_",
        "cordoned",
        "draining",
        "free_cpu_milli",
        "free_memory_mib",
        "healthy",
        "held",
        "host_cpu_milli",
        "id",
        "index",
        "kept",
        "lease_ms",
        "lease_until_ms",
        "lost",
        "mark",
        "partial",
        "rack",
        "runs",
        "spec",
        "spec_json",
        "used",
        "waiting",
    )
    kind = "node"

    def __init__(self, index: int, spec: RegisterNode, class_: NodeClass, rack: Domain) -> None:
        self.id = spec.node
        self.index = index
        self.describe(spec)
        self.class_ = class_
        self.rack = rack
        self.cordoned = False
        self.draining = False
        self.healthy = True
        self.lost = False
        self.lease_ms = spec.lease_s * 1000
        self.lease_until_ms = 0
        self.used = 0
        """Slots that runs, claims and reservations hold; a shared device counts as one."""
        self.partial: dict[int, int] = {}
        """Shared devices by number: thousandths in use."""
        self.free_cpu_milli = spec.host_cpu_milli
        self.free_memory_mib = spec.host_memory_mib
        self.runs: dict[Run, int] = {}
        """Attempts (also claims) with a part on this node, and the slots of it that are theirs."""
        self.held: dict[Reservation, int] = {}
        """Slots of reservations."""
        self.waiting: list[Run | Reservation] = []
        """Claims that take slots here as they become free, first come first served."""
        self.kept = False
        """Hidden from all but the gang that gathers; false between rounds."""
        self.available = self.count_available()
        self.booked: Entry | None = None
        self.mark = 0

    def describe(self, spec: RegisterNode) -> None:
        """Take over what the node says of itself."""
        self.spec = spec
        self.host_cpu_milli = spec.host_cpu_milli
        self.spec_json = spec.model_dump_json(exclude_defaults=True)

    @property
    def schedulable(self) -> bool:
        return not (self.cordoned or self.draining or self.lost) and self.healthy

    @property
    def leaves_ms(self) -> int:
        """When it is drained because its lease from its owner ends; 0: it stays."""
        spec = self.spec
        return max(1, spec.until_ms - 1000 * spec.lead_s) if spec.until_ms else 0

    def must_leave(self, now_ms: int) -> bool:
        return 0 < self.leaves_ms <= now_ms

    @property
    def status(self) -> str:
        if self.lost:
            return "lost"
        if self.draining:
            return "draining" if self.runs or self.held else "drained"
        if self.cordoned:
            return "cordoned"
        return "ready" if self.healthy else "unhealthy"

    def count_available(self) -> int:
        """Whole free slots that new work may take."""
        return self.class_.slots - self.used if self.schedulable and not self.kept else 0

    def state(self) -> tuple[object, ...]:
        return (
            self.id,
            self.index,
            self.spec_json,
            self.cordoned,
            self.draining,
            self.healthy,
            self.lost,
            self.lease_until_ms,
        )


def path_of(spec: RegisterNode) -> tuple[str, ...]:
    return (spec.path.region, spec.path.cluster, spec.path.block, spec.path.rack)


def labels_of(node: Node) -> dict[str, str]:
    """All labels that a selector may name."""
    path = dict(zip([level.value for level in LEVELS[: RACK + 1]], node.rack.path, strict=True))
    return {**node.spec.labels, **path, "node": node.id}


def allows(placement: Placement, node: Node) -> bool:
    """True iff the selectors that speak of places below a cluster let the node be chosen."""
    local = [s for s in (*placement.require, *placement.forbid) if is_local(s)]
    if not local:
        return True
    labels = labels_of(node)
    return all(matches(s, labels) for s in placement.require if is_local(s)) and not any(
        matches(s, labels) for s in placement.forbid if is_local(s)
    )


def make(fabric: Fabric, index: int, spec: RegisterNode) -> Node:
    path = path_of(spec)
    class_ = fabric.class_for(spec.accelerator, spec.slots, path, spec.labels)
    return Node(index, spec, class_, fabric.rack_of(path))


# --- decide ---------------------------------------------------------------------------------------


def register_node(turn: Turn, command: RegisterNode, at: int) -> None:
    cell = turn.cell
    node = cell.nodes.get(command.node)
    if node is None:
        if len(cell.nodes) >= MAX_NODES:
            raise Refused("too_many_nodes", "node", f"a cell holds at most {MAX_NODES} nodes")
    elif (node.runs or node.held) and not _same_machine(node, command):
        raise Refused("node_in_use", "node", "it has work on it and comes back as another machine")
    turn.emit(NodeRegistered(at))


def _same_machine(node: Node, command: RegisterNode) -> bool:
    old = node.spec
    return (
        old.accelerator == command.accelerator
        and old.slots == command.slots
        and old.path == command.path
        and old.labels == command.labels
        and old.host_cpu_milli == command.host_cpu_milli
        and old.host_memory_mib == command.host_memory_mib
    )


def report_node(turn: Turn, command: ReportNode, at: int) -> None:
    node = _known(turn, command.node)
    lease = turn.header.now_ms + node.lease_ms if node.lease_ms else 0
    turn.emit(NodeReported(node.id, lease, command.healthy))


def cordon_node(turn: Turn, command: CordonNode, at: int) -> None:
    node = _known(turn, command.node)
    if node.draining and not command.cordoned and (node.runs or node.held):
        raise Refused("node_draining", "node", "it is draining; uncordon it when it is drained")
    turn.emit(NodeCordoned(node.id, command.cordoned))


def drain_node(turn: Turn, command: DrainNode, at: int) -> None:
    node = _known(turn, command.node)
    if node.draining:
        raise Refused("node_draining", "node", "it is draining or drained already")
    drain(turn, node)


def drain(turn: Turn, node: Node) -> None:
    turn.emit(NodeDraining(node.id))
    for run in sorted(node.runs, key=lambda r: r.order):
        turn.stop(run, "drained")
    for reservation in sorted(node.held, key=lambda r: r.id):
        turn.unbind(reservation, node)
    if not node.runs:
        turn.emit(NodeDrained(node.id))


def remove_node(turn: Turn, command: RemoveNode, at: int) -> None:
    node = _known(turn, command.node)
    if not node.lost:
        lose(turn, node, "removed")
    turn.emit(NodeRemoved(node.id))


def lose(turn: Turn, node: Node, reason: str) -> None:
    """The node is gone for now: whole gangs with a part on it end and are requeued."""
    for run in sorted(node.runs, key=lambda r: r.order):
        turn.end(run, "node_lost")
    for reservation in sorted(node.held, key=lambda r: r.id):
        turn.unbind(reservation, node)
    turn.emit(NodeLost(node.id, reason))


def expire_leases(turn: Turn) -> None:
    """A whole cluster may fall silent at once: what is beyond the round's work stays due."""
    timers = turn.cell.timers
    for node in timers.silent_nodes(turn.header.now_ms):
        if turn.work <= 0:
            timers.lease(node)
            continue
        turn.work -= 1 + len(node.runs)
        lose(turn, node, "lease_expired")


def _known(turn: Turn, id_: str) -> Node:
    node = turn.cell.nodes.get(id_)
    if node is None:
        raise Refused("unknown_node", "node", f"no node {id_!r} is registered")
    return node


# --- evolve ---------------------------------------------------------------------------------------


def apply_registered(cell: Cell, fact: NodeRegistered) -> None:
    spec = cell.command(fact.command, RegisterNode)
    node = cell.nodes.get(spec.node)
    if node is None:
        node = make(cell.fabric, cell.next_node, spec)
        cell.next_node += 1
        cell.add_node(node)
    elif not _same_machine(node, spec):
        node = _other_machine(cell, node, spec)
    node.describe(spec)
    node.lease_ms = spec.lease_s * 1000
    node.lease_until_ms = cell.now_ms + node.lease_ms if node.lease_ms else 0
    node.lost = False  # a cordon stays: an operator set it, and an agent only came back
    node.healthy = True
    cell.timers.lease(node)
    cell.timers.leave(node)
    cell.changed_node(node)


def _other_machine(cell: Cell, old: Node, spec: RegisterNode) -> Node:
    """The node has become another machine, in the place of the old one."""
    cell.drop_node(old)
    node = make(cell.fabric, old.index, spec)
    node.cordoned, node.draining, node.mark = old.cordoned, old.draining, old.mark
    node.booked = old.booked
    cell.add_node(node)
    return node


def apply_reported(cell: Cell, fact: NodeReported) -> None:
    node = cell.nodes[fact.node]
    node.lease_until_ms = fact.lease_until_ms
    node.lost = False
    node.healthy = fact.healthy
    cell.timers.lease(node)
    cell.changed_node(node)


def apply_cordoned(cell: Cell, fact: NodeCordoned) -> None:
    node = cell.nodes[fact.node]
    node.cordoned = fact.cordoned
    if not fact.cordoned:
        node.draining = False
    cell.changed_node(node)


def apply_draining(cell: Cell, fact: NodeDraining) -> None:
    node = cell.nodes[fact.node]
    node.cordoned = node.draining = True
    cell.changed_node(node)


def apply_drained(cell: Cell, fact: NodeDrained) -> None:
    cell.touch(cell.nodes[fact.node])


def apply_lost(cell: Cell, fact: NodeLost) -> None:
    node = cell.nodes[fact.node]
    node.lost = True
    cell.timers.no_lease(node)
    cell.changed_node(node)


def apply_removed(cell: Cell, fact: NodeRemoved) -> None:
    node = cell.nodes[fact.node]
    cell.drop_node(node)
    cell.left(node)
