"""The search for room: which attempts have to end so that a gang fits, at least cost."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from domain.fabric import NODE, RACK, Domain, NodeClass
from domain.fact import Held
from domain.facts import Victim
from domain.placement import nodes_of

if TYPE_CHECKING:
    from domain.nodes import Node
    from domain.quota import Account
    from domain.runs import Run
    from domain.turn import Turn

STEPS: Final = (256, 1024, 4096, 1 << 62)
"""So many attempts are looked at for victims, and if they are not enough, the next so many."""

NODES_A_UNIT: Final = 32
"""Nodes that are searched for victims at the cost of one unit of work."""


def cost_of(run: Run, now_ms: int) -> int:
    """Slot-seconds lost: since the last checkpoint, plus the time to restore it."""
    if run.part:
        return 0  # its attempt goes on with all that the part has done
    return run.lost_slot_s(now_ms) + run.slots * run.job.shape.restore_ms // 1000


class Wanted(NamedTuple):
    """What room is wanted: groups of (count, slots, most on one node) in one domain."""

    classes: Sequence[NodeClass]
    groups: tuple[tuple[int, int, int], ...]
    level: int
    within: Domain | None = None


class Plan(NamedTuple):
    """Victims, and where the claim goes when they are gone."""

    cost: int
    domain: Domain
    placed: list[tuple[Node, int, int]]
    """(node, replicas, index of the group)"""
    runs: list[Run]
    """Victims, in the order of their jobs."""
    now_ms: int
    candidates: int = 1
    runner_up_cost: int | None = None
    cause: str = ""
    """Empty: as the tiers of claim and victims say."""

    @property
    def victims(self) -> list[Victim]:
        return [Victim(r.job.id, r.attempt, cost_of(r, self.now_ms), r.part) for r in self.runs]

    def waits_for(self, *slots: int) -> list[Held]:
        """Slots by node that are not free yet; `slots` by group of the claim."""
        wanted: dict[Node, int] = {}
        for node, replicas, group in self.placed:
            wanted[node] = wanted.get(node, 0) + replicas * slots[group]
        return [(n.id, w - n.available) for n, w in wanted.items() if w > n.available]


Room = tuple[int, int, int, "Node"]
"""(cost of a replica's room in thousandths, free slots, index of the node, node)"""

Row = tuple[int, int, int, "Run"]
"""(cost of a slot in thousandths; number of the job, part; attempt)"""


class Eligible:
    """Attempts that may be preempted, with their cost in slot-seconds."""

    __slots__ = ("_by_cost", "_by_node", "_nodes", "_slots", "cost", "ordered", "rooms")

    def __init__(self, cost: dict[Run, int]) -> None:
        self.cost = cost
        self.rooms: dict[tuple[object, ...], list[Room]] = {}
        """Heaps of nodes by what room for one replica costs there; entries may be stale."""
        self.ordered: dict[int, list[tuple[Domain, list[Node]]]] = {}
        """By need with rules: the nodes of each domain, the cheapest first."""
        self._by_cost: list[Run] | None = None
        self._by_node: dict[str, list[Row]] | None = None
        self._slots: dict[str, int] = {}
        self._nodes: list[Node] | None = None

    def by_cost(self) -> list[Run]:
        """Cheapest first."""
        if self._by_cost is None:
            self._by_cost = sorted(self.cost, key=lambda r: (self.cost[r], r.order))
        return self._by_cost

    def on(self, node: Node) -> Iterable[Row]:
        """Those on the node, cheapest first."""
        return self.by_node().get(node.id, ())

    def by_node(self) -> dict[str, list[Row]]:
        """All of them by node, cheapest first."""
        found = self._by_node
        if found is None:
            found = self._by_node = {}
            slots = self._slots
            for run, cost in self.cost.items():
                each = cost * 1000 // max(1, run.slots)
                row = (each, run.job.number, run.part, run)  # no two are equal up to the attempt
                for id_, own in run.slots_by_node().items():
                    rows = found.get(id_)
                    if rows is None:
                        found[id_], slots[id_] = [row], own
                    else:
                        rows.append(row)
                        slots[id_] += own
            for rows in found.values():
                if len(rows) > 1:
                    rows.sort()
        return found

    def slots_on(self, node: Node) -> int:
        """No more than so many may become free there."""
        self.by_node()
        return self._slots.get(node.id, 0)

    def nodes(self, turn: Turn, classes: set[int]) -> list[Node]:
        """Those of the classes that would take new work and have attempts that may be evicted."""
        if self._nodes is None:
            known = (turn.cell.nodes[id_] for id_ in self.by_node())
            self._nodes = [node for node in known if node.schedulable]
        return [node for node in self._nodes if node.class_.id in classes]


class Candidates:
    """Attempts that may be preempted, those that lose least for a slot first.

    On a large cell there are tens of thousands, and a search among all takes a round's time, so it
    goes on to more of them only if few are not enough.
    """

    __slots__ = ("_all", "_cost", "_found", "_steps", "held")

    def __init__(
        self, runs: Iterable[Run], cost: Callable[[Run], int], held: dict[Account, int]
    ) -> None:
        self._all = iter(runs)
        self._cost = cost
        self._found: dict[Run, int] = {}
        self._steps: list[Eligible] = []
        self.held = held
        """By account: thousandths of slots that they hold at most."""

    def first(self) -> Run | None:
        if not self._found:
            self._look_at(1)
        return next(iter(self._found), None)

    def widening(self) -> Iterator[Eligible]:
        """First a few, at last all of them; each one's searches are remembered for the round."""
        for step, most in enumerate(STEPS):
            if step == len(self._steps):
                before = len(self._found)
                self._look_at(most - before)
                if step and len(self._found) == before:
                    return
                self._steps.append(Eligible(dict(self._found)))
            yield self._steps[step]

    def _look_at(self, more: int) -> None:
        self._found |= {run: self._cost(run) for run in islice(self._all, more)}


def plan(turn: Turn, wanted: Wanted, eligible: Eligible) -> Plan | None:
    """The cheapest set of victims that makes room, or None if there is none."""
    if not eligible.cost:
        return None
    if wanted.level == NODE and wanted.within is None:
        return _on_one_node(turn, wanted, eligible)
    if len(wanted.groups) == 1 and wanted.groups[0][0] == 1 and wanted.within is None:
        return _plan_one(turn, wanted, eligible)
    classes = {c.id for c in wanted.classes}
    level = min(wanted.level, RACK)
    evictable: dict[Domain, list[Node]] = {}
    for node in eligible.nodes(turn, classes):
        domain = domain_of(node, level)
        if wanted.within is None or domain is wanted.within:
            evictable.setdefault(domain, []).append(node)
    plans = []
    slots = sum(count * each for count, each, _ in wanted.groups)
    for domain in sorted(evictable, key=lambda d: d.path):
        nodes = evictable[domain]
        turn.work -= 1 + len(nodes) // NODES_A_UNIT
        free = sum(domain.free.get(id_, 0) for id_ in classes)
        if free + sum(eligible.slots_on(node) for node in nodes) >= slots:
            plans.append(_Search(turn, domain, classes, nodes, eligible).plan(wanted))
    return cheapest(plans)


def cheapest(plans: Iterable[Plan | None]) -> Plan | None:
    """The plan that costs least, with how many there were and what the second one costs."""
    found = [p for p in plans if p is not None]
    if not found:
        return None
    found.sort(key=lambda p: (p.cost, len(p.runs), p.domain.path))
    second = found[1].cost if len(found) > 1 else None
    return found[0]._replace(candidates=len(found), runner_up_cost=second)


def domain_of(node: Node, level: int) -> Domain:
    domain = node.rack
    while domain.level > level and domain.parent is not None:
        domain = domain.parent
    return domain


def _on_one_node(turn: Turn, wanted: Wanted, eligible: Eligible) -> Plan | None:
    """All replicas on one node: they ask of it what one of all their slots would."""
    if any(count > per_node for count, _, per_node in wanted.groups):
        return None
    slots = sum(count * each for count, each, _ in wanted.groups)
    found = _plan_one(turn, wanted._replace(groups=((1, slots, 1),)), eligible)
    if found is None:
        return None
    ((node, _, _),) = found.placed
    return found._replace(placed=[(node, g[0], i) for i, g in enumerate(wanted.groups)])


def _plan_one(turn: Turn, wanted: Wanted, eligible: Eligible) -> Plan | None:
    """One replica: the cheapest node. The nodes are ranked once a round for all who ask alike."""
    slots = wanted.groups[0][1]
    classes = {c.id for c in wanted.classes}
    key = (slots, *sorted(classes))
    heap = eligible.rooms.get(key)
    if heap is None:
        nodes = dict.fromkeys(eligible.nodes(turn, classes))
        for class_ in wanted.classes:
            for k in range(slots, class_.slots + 1):
                free = turn.cell.fabric.smallest(class_, k)
                if free is not None:
                    nodes[free] = None
        turn.work -= 1 + len(nodes) // NODES_A_UNIT
        heap = []
        for node in nodes:
            room = _room(node, node.available, slots, eligible.on(node), ())
            if room is not None:
                heap.append((room[0], node.available, node.index, node))
        heapify(heap)
        eligible.rooms[key] = heap
    while heap:
        cost, free_, index, node = heap[0]
        room = _room(node, node.available, slots, eligible.on(node), ())
        if room is None:
            heappop(heap)
        elif (room[0], node.available) != (cost, free_):
            heapreplace(heap, (room[0], node.available, index, node))
        else:
            return _plan_at(turn, wanted, eligible, node, room[1], heap)
    return None


def _plan_at(
    turn: Turn, wanted: Wanted, eligible: Eligible, node: Node, killed: list[Run], heap: list[Room]
) -> Plan:
    short = wanted.groups[0][1] - node.available
    own = {r: node.runs[r] for r in killed}
    for run in sorted(killed, key=lambda r: (-eligible.cost[r], r.order)):
        if sum(own.values()) - own[run] >= short:
            del own[run]  # a dearer victim made it unnecessary
    runs = sorted(own, key=lambda r: r.order)
    cost = sum(eligible.cost[r] for r in runs)
    placed = [(node, 1, 0)]
    domain = domain_of(node, min(wanted.level, RACK))
    second = min((room[0] // 1000 for room in heap[1:3]), default=None)
    return Plan(cost, domain, placed, runs, turn.header.now_ms, len(heap), second)


def _room(
    node: Node, free: int, slots: int, row: Iterable[Row], gone: Container[Run]
) -> tuple[int, list[Run]] | None:
    """Cost (thousandths) and victims that make room for a replica on a node with `free` slots.

    Attempts in `gone` were evicted already. None if there is no room to be made.
    """
    cost = 0
    killed: list[Run] = []
    for each, _, _, run in row:
        if free >= slots:
            break
        own = node.runs.get(run, 0)
        if own and not run.stop_by_ms and run not in gone:
            free += own
            cost += each * own
            killed.append(run)
    return (cost, killed) if free >= slots else None


class _Search:
    """A greedy search for room in one domain: the cheapest node for each replica."""

    def __init__(
        self, turn: Turn, domain: Domain, classes: set[int], nodes: list[Node], eligible: Eligible
    ) -> None:
        self.turn = turn
        self.domain = domain
        self.classes = classes
        self.eligible = eligible
        self.nodes = nodes
        self.free: dict[Node, int] = {}
        """Free slots of nodes that were touched."""
        self.victims: dict[Run, None] = {}
        self.placed: list[tuple[Node, int, int]] = []

    def plan(self, wanted: Wanted) -> Plan | None:
        for index, (count, slots, per_node) in enumerate(wanted.groups):
            if not self._group(index, count, slots, per_node):
                return None
        self._spare()
        runs = sorted(self.victims, key=lambda r: r.order)
        cost = sum(self.eligible.cost[r] for r in runs)
        return Plan(cost, self.domain, self.placed, runs, self.turn.header.now_ms)

    def _candidates(self, slots: int) -> list[Node]:
        """Nodes with room, or with attempts that may be evicted."""
        domain = self.domain
        roomy = any(
            any(counts[slots:]) for id_, counts in domain.counts.items() if id_ in self.classes
        )
        if not roomy:
            return self.nodes
        nodes = dict.fromkeys(self.nodes)
        for node in nodes_of(domain):
            if node.available >= slots and node.class_.id in self.classes:
                nodes[node] = None
        return list(nodes)

    def _group(self, index: int, count: int, slots: int, per_node: int) -> bool:
        heap: list[tuple[int, int, int, Node]] = []
        for node in self._candidates(slots):
            room = self._room(node, slots)
            if room is not None:
                heap.append((room[0], self._free(node), node.index, node))
        heapify(heap)
        full: set[Node] = set()
        while count and heap:
            cost, _, _, node = heappop(heap)
            if node in full:
                continue
            room = self._room(node, slots)
            if room is None:
                continue
            if room[0] != cost:
                heappush(heap, (room[0], self._free(node), node.index, node))
                continue
            for other in self._evict(room[1]):
                again = self._room(other, slots)
                if again is not None and other is not node:
                    heappush(heap, (again[0], self._free(other), other.index, other))
            replicas = min(self._free(node) // slots, per_node, count) if slots else count
            self.free[node] = self._free(node) - replicas * slots
            count -= replicas
            self.placed.append((node, replicas, index))
            if replicas == per_node:
                full.add(node)
            else:
                again = self._room(node, slots)
                if again is not None:
                    heappush(heap, (again[0], self._free(node), node.index, node))
        return not count

    def _free(self, node: Node) -> int:
        return self.free.get(node, node.available)

    def _room(self, node: Node, slots: int) -> tuple[int, list[Run]] | None:
        return _room(node, self._free(node), slots, self.eligible.on(node), self.victims)

    def _evict(self, killed: list[Run]) -> list[Node]:
        """Count the slots of new victims as free; returns the nodes of the domain they were on."""
        touched: list[Node] = []
        for run in killed:
            self.victims[run] = None
            for id_, held in run.slots_by_node().items():
                node = self.turn.cell.nodes[id_]
                if node.schedulable:
                    self.free[node] = self._free(node) + held
                    touched.append(node)
        return touched

    def _spare(self) -> None:
        """Let those victims live, the dearest first, whose slots turned out not to be needed."""
        costs = self.eligible.cost
        for run in sorted(self.victims, key=lambda r: (-costs[r], r.order)):
            parts = [(self.turn.cell.nodes[i], n) for i, n in run.slots_by_node().items()]
            if all(self.free.get(node, held) >= held for node, held in parts):
                for node, held in parts:
                    if node in self.free:
                        self.free[node] -= held
                del self.victims[run]
