"""Room for one replica with host parts: the node on which the cheapest attempts make it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from domain.eviction import NODES_A_UNIT, Eligible, Plan
from domain.nodes import WHOLE, allows

if TYPE_CHECKING:
    from domain.nodes import Node
    from domain.runs import Run
    from domain.shapes import Need
    from domain.turn import Turn


class Parts(NamedTuple):
    """Of one node: whole slots, thousandths of CPU, MiB of memory."""

    slots: int
    cpu_milli: int
    memory_mib: int

    def less(self, other: Parts) -> Parts:
        return Parts(*(mine - its for mine, its in zip(self, other, strict=True)))

    @property
    def enough(self) -> bool:
        return min(self) >= 0


def may_claim(need: Need) -> bool:
    """True iff the need is one replica that asks for whole slots, and parts of its host."""
    group = need.groups[0]
    return need.part and group.slots > 0 and group.share_milli == WHOLE


def plan(turn: Turn, need: Need, eligible: Eligible) -> Plan | None:
    """The cheapest victims on one node, or None if no node's are enough."""
    group = need.groups[0]
    asked = Parts(group.slots, group.host_cpu_milli, group.host_memory_mib)
    classes = {c.id for c in need.classes(turn.cell)}
    found: list[tuple[int, int, Node, list[Run]]] = []
    rows = eligible.by_node()
    turn.work -= 1 + len(rows) // NODES_A_UNIT
    for id_, runs in rows.items():
        node = turn.cell.nodes[id_]
        if node.class_.id in classes and node.schedulable and allows(need.placement, node):
            victims = _victims(node, asked, [run for _, _, run in runs])
            if victims is not None:
                found.append((sum(eligible.cost[r] for r in victims), node.index, node, victims))
    if not found:
        return None
    found.sort(key=lambda f: f[:2])
    cost, _, node, victims = found[0]
    second = found[1][0] if len(found) > 1 else None
    victims.sort(key=lambda r: r.job.number)
    now_ms = turn.header.now_ms
    return Plan(cost, node.rack, [(node, 1, 0)], victims, now_ms, len(found), second)


def _victims(node: Node, asked: Parts, cheapest_first: list[Run]) -> list[Run] | None:
    """Of the attempts those that make room, less what dearer ones made unnecessary."""
    free = Parts(node.available, node.free_cpu_milli, node.free_memory_mib).less(asked)
    taken: dict[Run, Parts] = {}
    for run in cheapest_first:
        if free.enough:
            break
        own = held(node, run)
        if any(own) and not run.stop_by_ms and run not in taken:
            taken[run] = own
            free = Parts(*(a + b for a, b in zip(free, own, strict=True)))
    if not free.enough:
        return None
    for run in reversed(list(taken)):
        if free.less(taken[run]).enough:
            free = free.less(taken.pop(run))
    return list(taken)


def held(node: Node, run: Run) -> Parts:
    """What becomes free on the node for sure when the attempt ends."""
    groups = run.job.shape.spec.groups
    cpu_milli = memory_mib = 0
    for id_, replicas, index, _ in run.nodes:
        if id_ == node.id:
            cpu_milli += replicas * groups[index].host_cpu_milli
            memory_mib += replicas * groups[index].host_memory_mib
    whole = all(device < 0 for id_, _, _, device in run.nodes if id_ == node.id)
    return Parts(node.runs[run] if whole else 0, cpu_milli, memory_mib)
