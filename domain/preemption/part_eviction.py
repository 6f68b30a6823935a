"""Room for replicas with host parts: the nodes on which the cheapest attempts make it."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from domain.fabric import NODE, RACK, Domain
from domain.nodes import allows
from domain.preemption.eviction import NODES_A_UNIT, Eligible, Plan, cheapest, domain_of

if TYPE_CHECKING:
    from domain.nodes import Node
    from domain.runs import Run
    from domain.shapes import Need
    from domain.specs import ReplicaGroup
    from domain.turn import Turn


class Parts(NamedTuple):
    """Of one node: whole slots, thousandths of CPU, MiB of memory."""

    slots: int
    cpu_milli: int
    memory_mib: int

    @staticmethod
    def of(group: ReplicaGroup) -> Parts:
        """What one replica asks for."""
        return Parts(group.slots, group.host_cpu_milli, group.host_memory_mib)

    def less(self, other: Parts) -> Parts:
        return Parts(*(mine - its for mine, its in zip(self, other, strict=True)))

    def plus(self, other: Parts) -> Parts:
        return Parts(*(mine + its for mine, its in zip(self, other, strict=True)))

    @property
    def enough(self) -> bool:
        return min(self) >= 0


def plan(turn: Turn, need: Need, eligible: Eligible) -> Plan | None:
    """The cheapest victims found that make room in one domain, or None if none are enough."""
    if not eligible.cost:
        return None
    plans = []
    for domain, nodes in domains(turn, need, eligible):
        turn.work -= 1 + len(nodes) // NODES_A_UNIT
        plans.append(_Search(turn, domain, nodes, eligible).plan(need.groups))
    return cheapest(p for p in plans if p is not None and p.runs)


def domains(turn: Turn, need: Need, eligible: Eligible) -> list[tuple[Domain, list[Node]]]:
    """Nodes that may take a replica, by the domain in which all have to lie, if any may be evicted.

    What is free is enough for none alone: a single replica needs a node with victims. Where all
    have to lie on one node, each is listed by itself.
    """
    level = min(need.required, RACK)
    classes = {c.id for c in need.classes(turn.cell)}
    known, rows = turn.cell.nodes, eligible.by_node()
    found: dict[Domain, list[Node]] = {domain_of(known[id_], level): [] for id_ in rows}
    least = min(g.slots for g in need.groups)
    roomy = not need.part and any(any(c.counts[least:]) for c in need.classes(turn.cell))
    nodes: Iterable[Node] = known.values()
    if not roomy:  # only where somebody's end makes room
        nodes = sorted((known[id_] for id_ in rows), key=lambda n: n.index)
    for node in nodes:
        if node.class_.id not in classes or (node.available < least and node.id not in rows):
            continue
        domain = domain_of(node, level)
        if domain in found and node.schedulable and allows(need.placement, node):
            found[domain].append(node)
    listed = sorted(((d, nodes) for d, nodes in found.items() if nodes), key=lambda d: d[0].path)
    if need.required == NODE and not need.part:
        return [(domain, [node]) for domain, nodes in listed for node in nodes]
    return listed


class _Search:
    """A greedy search in one domain: the cheapest node for each replica."""

    def __init__(self, turn: Turn, domain: Domain, nodes: list[Node], eligible: Eligible) -> None:
        self.turn, self.domain, self.nodes, self.eligible = turn, domain, nodes, eligible
        self.free = {n: free_on(n) for n in self.nodes}
        self.victims: dict[Run, None] = {}
        self.placed: list[tuple[Node, int, int]] = []

    def plan(self, groups: Iterable[ReplicaGroup]) -> Plan | None:
        for index, group in enumerate(groups):
            if not self._group(index, group):
                return None
        self._spare()
        runs = sorted(self.victims, key=lambda r: r.order)
        return Plan(self._cost(runs), self.domain, self.placed, runs, self.turn.header.now_ms)

    def _group(self, index: int, group: ReplicaGroup) -> bool:
        asked = Parts.of(group)
        most, here = group.max_per_node or group.count, dict.fromkeys(self.nodes, 0)
        rooms = ((self._room(node, asked), node) for node in self.nodes)
        heap = [(self._cost(runs), n.index, n) for runs, n in rooms if runs is not None]
        heapify(heap)
        left = group.count
        while left and heap:
            cost, _, node = heappop(heap)
            runs = self._room(node, asked) if here[node] < most else None
            if runs is not None and self._cost(runs) == cost:
                self._take(node, asked, runs)
                here[node] += 1
                left -= 1
                runs = self._room(node, asked)
            if runs is not None:
                heappush(heap, (self._cost(runs), node.index, node))
        self.placed += [(node, replicas, index) for node, replicas in here.items() if replicas]
        return not left

    def _cost(self, runs: Iterable[Run]) -> int:
        return sum(self.eligible.cost[run] for run in runs)

    def _room(self, node: Node, asked: Parts) -> Collection[Run] | None:
        return room(node, self.free[node].less(asked), self.eligible, self.victims)

    def _take(self, node: Node, asked: Parts, runs: Iterable[Run]) -> None:
        for run in runs:
            self.victims[run] = None
            for place in self._places(run):
                self.free[place] = self.free[place].plus(held(place, run))
        self.free[node] = self.free[node].less(asked)

    def _places(self, run: Run) -> list[Node]:
        """Nodes of the domain that the attempt is on."""
        ids = dict.fromkeys(placed[0] for placed in run.nodes)
        nodes = (self.turn.cell.nodes[id_] for id_ in ids)
        return [node for node in nodes if node in self.free]

    def _spare(self) -> None:
        """Let those victims live, the dearest first, whose room turned out not to be needed."""
        costs = self.eligible.cost
        for run in sorted(self.victims, key=lambda r: (-costs[r], r.order)):
            without = {n: self.free[n].less(held(n, run)) for n in self._places(run)}
            if all(free.enough for free in without.values()):
                self.free.update(without)
                del self.victims[run]


def room(
    node: Node, free: Parts, eligible: Eligible, gone: Container[Run] = ()
) -> Collection[Run] | None:
    """Attempts that make room on a node where `free` is left; None if there is none to be made.

    Cheapest first, less what dearer ones made unnecessary. Those in `gone` were evicted already.
    """
    taken: dict[Run, Parts] = {}
    slots, cpu_milli, memory_mib = free  # counted one by one: on a large cell this is asked often
    for *_, run in eligible.on(node):
        if slots >= 0 and cpu_milli >= 0 and memory_mib >= 0:
            break
        own = held(node, run)
        if any(own) and not run.stop_by_ms and run not in taken and run not in gone:
            taken[run] = own
            slots += own.slots
            cpu_milli += own.cpu_milli
            memory_mib += own.memory_mib
    free = Parts(slots, cpu_milli, memory_mib)
    if not free.enough:
        return None
    for run in reversed(list(taken)):
        if free.less(taken[run]).enough:
            free = free.less(taken.pop(run))
    return taken


def free_on(node: Node) -> Parts:
    return Parts(node.available, node.free_cpu_milli, node.free_memory_mib)


def held(node: Node, run: Run) -> Parts:
    """What becomes free on the node for sure when the attempt ends."""
    if run.job.shape.plain:
        return Parts(node.runs[run], 0, 0)
    groups = run.job.shape.spec.groups
    cpu_milli = memory_mib = 0
    for id_, replicas, index, _ in run.nodes:
        if id_ == node.id:
            cpu_milli += replicas * groups[index].host_cpu_milli
            memory_mib += replicas * groups[index].host_memory_mib
    whole = all(device < 0 for id_, _, _, device in run.nodes if id_ == node.id)
    return Parts(node.runs[run] if whole else 0, cpu_milli, memory_mib)
