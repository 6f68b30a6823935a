"""Where a gang goes: best fit on single nodes, the narrowest sufficient domain for gangs.

All or nothing, and no side effects: a choice is made on the counts as they are, and takes effect by
its fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from domain import rules
from domain.fabric import NODE, RACK, REGION, Domain, NodeClass
from domain.fact import Placed
from domain.laying import Ask, choose
from domain.nodes import WHOLE, allows
from domain.quota import MILLI
from domain.rules import MANY
from domain.specs import LEVELS, ReplicaGroup

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.nodes import Node
    from domain.reservations import Reservation
    from domain.shapes import Need

DOMAINS_TRIED: Final = 16
"""Domains of one level in which a gang of several groups is tried."""


class Choice(NamedTuple):
    """Where a gang goes, and what it was compared with."""

    nodes: list[Placed]
    candidates: int
    chosen: str
    score: tuple[int, ...]
    runner_up: str | None = None
    runner_up_score: tuple[int, ...] | None = None


class Blocked(NamedTuple):
    """Why a need cannot be placed now: a reason, what it needs, and what there is."""

    reason: str
    needed_milli: int = 0
    available_milli: int = 0
    where: str = ""


def place(cell: Cell, need: Need) -> Choice | Blocked:
    """A place for the need on slots that nobody holds."""
    classes = need.classes(cell)
    if not classes and need.denied:
        return Blocked("held_by_policy", need.size_milli, 0, need.denied)
    if not classes:
        return Blocked("no_matching_nodes", need.size_milli, 0, need.accelerator)
    group = need.groups[0]
    if need.plain and len(need.groups) == 1 and group.count == 1:
        return _single(cell, need, classes, group.slots)
    if need.part:
        return _part(cell, need, classes)
    return _gang(cell, need, classes)


def _single(cell: Cell, need: Need, classes: list[NodeClass], slots: int) -> Choice | Blocked:
    """Best fit: the most preferred class, then the fewest slots left over, then the first node."""
    if need.prefers:
        by_rank: dict[int, list[NodeClass]] = {}
        for class_ in classes:
            by_rank.setdefault(-need.preference(class_), []).append(class_)
        ranks = sorted(by_rank.items())
    else:
        ranks = [(0, classes)]
    best: tuple[tuple[int, int, int], Node] | None = None
    second: tuple[tuple[int, int, int], Node] | None = None
    for rank, members in ranks:
        widest = max(c.slots for c in members)
        for k in range(slots, widest + 1):
            for class_ in members:
                if k > class_.slots or not class_.counts[k]:
                    continue
                for node in cell.fabric.smallest_two(class_, k):
                    scored = ((rank, k - slots, node.index), node)
                    if best is None or scored[0] < best[0]:
                        second = best
                        best = scored
                    elif second is None or scored[0] < second[0]:
                        second = scored
            if second is not None:
                break
        if second is not None:
            break
    if best is None:
        return _short(cell, need, classes)
    candidates = sum(sum(c.counts[slots:]) for c in classes)
    score, node = best
    nodes: list[Placed] = [(node.id, 1, 0, -1)]
    if second is None:
        return Choice(nodes, candidates, node.id, score[:2])
    return Choice(nodes, candidates, node.id, score[:2], second[1].id, second[0][:2])


def _part(cell: Cell, need: Need, classes: list[NodeClass]) -> Choice | Blocked:
    """The place that takes the least worth from the workload mix, then the best fit."""
    spots, compared = cell.parts.find(need)
    if not spots:
        return _short(cell, need, classes)
    best, group = spots[0], need.groups[0]
    device = -1
    if group.share_milli < WHOLE:
        partial = best.node.partial
        if best.free_milli == WHOLE:
            device = next(d for d in range(len(partial) + 1) if d not in partial)
        else:
            device = min(d for d, used in partial.items() if WHOLE - used == best.free_milli)
    nodes: list[Placed] = [(best.node.id, 1, 0, device)]
    if len(spots) == 1:
        return Choice(nodes, compared, best.node.id, best[:2])
    return Choice(nodes, compared, best.node.id, best[:2], spots[1].node.id, spots[1][:2])


def _short(cell: Cell, need: Need, classes: Sequence[NodeClass]) -> Blocked:
    """Too few slots in all, or enough of them in pieces that are too small, or no such place."""
    if need.largest_epoch != cell.fabric.epoch:
        need.largest_epoch = cell.fabric.epoch
        need.fits_when_empty = all(
            empty_capacity(cell, classes, g.slots, need.required, g.max_per_node or MANY)[0]
            >= g.count
            for g in need.groups
            if g.slots
        )
    free = sum(c.free for c in classes)
    if not need.fits_when_empty:
        return Blocked("never_fits", need.size_milli, free * MILLI, LEVELS[need.required].value)
    reason = "no_capacity" if free < need.slots else "rules" if need.ruled else "fragmented"
    return Blocked(reason, need.size_milli, free * MILLI)


def _levels(need: Need) -> Iterable[int]:
    """Levels to try: from the preferred one (or the narrowest) up to the required one."""
    widest = min(need.required, RACK)
    narrowest = RACK if need.preferred is None else min(need.preferred, RACK)
    return range(max(narrowest, widest), widest - 1, -1)


def _gang(cell: Cell, need: Need, classes: list[NodeClass]) -> Choice | Blocked:
    counted = [g for g in need.groups if g.slots and g.share_milli == WHOLE]
    want = sum(g.count * g.slots for g in counted)
    lying = rules.lying(cell, need) if need.uniform else ()
    asks = [(_ask(need, classes, group, lying), group.count) for group in counted]
    any_ = Ask(classes, 1)
    for level in _levels(need):
        feasible = [
            (free, domain)
            for free, domain in any_.roomy(cell.fabric.domains[REGION], level, want)
            if all(ask.most(domain) >= count for ask, count in asks)
        ]
        feasible.sort(key=lambda f: (_rank(need, classes, f[1]), f[0], f[1].path))
        tried = feasible if need.ruled else feasible[:DOMAINS_TRIED]
        for position, (free, domain) in enumerate(tried):
            lay = _laid(domain, *asks[0]) if need.uniform else None
            nodes = lay or _fill(cell, need, classes, domain)
            if nodes is None:
                continue
            left = free - need.slots
            rest = feasible[position + 1 : position + 2]
            up = (LEVELS[level].value + " " + rest[0][1].name, rest[0][0]) if rest else None
            return Choice(
                nodes,
                len(feasible),
                LEVELS[level].value + " " + domain.name,
                (REGION - level, left),
                up[0] if up else None,
                (REGION - level, up[1] - need.slots) if up else None,
            )
    return _short(cell, need, classes)


def _ask(
    need: Need, classes: Sequence[NodeClass], group: ReplicaGroup, lying: Sequence[rules.Lying]
) -> Ask:
    if need.uniform:
        return Ask(classes, group.slots, group.max_per_node, group, lying)
    return Ask(classes, group.slots, group.max_per_node)


def _laid(domain: Domain, ask: Ask, count: int) -> list[Placed]:
    chosen = choose(domain, ask, count)
    assert chosen is not None, "the domain holds as many"
    return [(node.id, n, 0, -1) for node, n in chosen]


def _rank(need: Need, classes: Sequence[NodeClass], domain: Domain) -> int:
    """Preference of a domain: that of its best class, negative so that less is better."""
    if not need.prefers:
        return 0
    known = (need.preference(c) for c in classes if c.id in domain.counts)
    return -max(known, default=0)


def _fill(
    cell: Cell, need: Need, classes: Sequence[NodeClass], domain: Domain
) -> list[Placed] | None:
    """Nodes of the domain for all groups of the need; None if they do not fit together."""
    one_node = need.required == NODE
    nodes = [n for n in nodes_of(domain) if n.class_ in classes and n.schedulable]
    if need.local:
        nodes = [n for n in nodes if allows(need.placement, n)]
    if need.placement.affinity:
        where = rules.lying(cell, need)
        nodes = [n for n in nodes if rules.obeys(where, n)]
    if not one_node:
        return pack(need, [Room(n, n.available) for n in nodes])
    for node in sorted(nodes, key=lambda n: (n.available, n.index)):
        placed = pack(need, [Room(node, node.available)])
        if placed is not None:
            return placed
    return None


class Room:
    """What a node has left while a gang is being put together."""

    __slots__ = ("cpu", "free", "memory", "node", "partial")

    def __init__(self, node: Node, free: int) -> None:
        self.node = node
        self.free = free
        self.cpu = node.free_cpu_milli
        self.memory = node.free_memory_mib
        self.partial = dict(node.partial)

    def replicas(self, group: ReplicaGroup) -> int:
        """How many more replicas of the group fit."""
        most = group.max_per_node or MANY
        if group.host_cpu_milli:
            most = min(most, self.cpu // group.host_cpu_milli)
        if group.host_memory_mib:
            most = min(most, self.memory // group.host_memory_mib)
        if group.share_milli < WHOLE:
            share = group.share_milli
            fits = sum((WHOLE - used) // share for used in self.partial.values())
            return max(0, min(most, fits + self.free * (WHOLE // share)))
        return max(0, min(most, self.free // group.slots if group.slots else MANY))

    def take(self, group: ReplicaGroup, index: int, count: int) -> list[Placed]:
        self.cpu -= count * group.host_cpu_milli
        self.memory -= count * group.host_memory_mib
        if group.share_milli == WHOLE:
            self.free -= count * group.slots
            return [(self.node.id, count, index, -1)]
        return [(self.node.id, 1, index, self._device(group.share_milli)) for _ in range(count)]

    def _device(self, share: int) -> int:
        """Best fit among the shared devices; a new one if there is none."""
        fits = [(WHOLE - used, d) for d, used in self.partial.items() if WHOLE - used >= share]
        if fits:
            device = min(fits)[1]
        else:
            device = next(d for d in range(len(self.partial) + 1) if d not in self.partial)
            self.free -= 1
        self.partial[device] = self.partial.get(device, 0) + share
        return device


def pack(need: Need, rooms: Sequence[Room]) -> list[Placed] | None:
    """Rooms for all groups of the need, taken from what the rooms have left; None if they lack."""
    placed: list[Placed] = []
    for index, group in enumerate(need.groups):
        if rules.ruled(group):
            chosen = rules.choose(group, rooms)
        else:
            items = [(r.replicas(group), (r.free, r.cpu, r.node.index), r) for r in rooms]
            chosen = rules.greedy([i for i in items if i[0]], group.count)
        if chosen is None:
            return None
        for room, count in chosen:
            placed.extend(room.take(group, index, count))
    return placed


def roomiest(
    domain: Domain, classes: Sequence[NodeClass], group: ReplicaGroup, most: int
) -> list[Node]:
    """The fewest nodes of the domain for as many replicas as there is room for, at most so many."""
    ask = Ask(classes, group.slots, group.max_per_node)
    count = min(most, ask.holds(domain))
    if not count:
        return []
    chosen = choose(domain, ask, count)
    return [node for node, _ in chosen or ()]


def nodes_of(domain: Domain) -> Iterable[Node]:
    if domain.level == RACK:
        yield from domain.nodes
    for child in domain.children:
        yield from nodes_of(child)


# --- for reservations ----------------------------------------------------------------------------


def inside(reservation: Reservation, cell: Cell, need: Need) -> Choice | Blocked:
    """A place for the need on the slots of its reservation."""
    if not reservation.active or reservation.closing:
        return Blocked("reservation_not_active", need.size_milli, 0, reservation.id)
    classes = need.classes(cell)
    parts: dict[tuple[str, ...], list[Room]] = {}
    where = rules.lying(cell, need)
    for id_ in sorted(reservation.nodes):
        node = cell.nodes[id_]
        allowed = allows(need.placement, node) and rules.obeys(where, node)
        if node.class_ in classes and allowed:
            part = (*node.rack.path, id_)[: need.required + 1]
            parts.setdefault(part, []).append(Room(node, reservation.free_on(id_)))
    if not parts:
        return Blocked("no_matching_nodes", need.size_milli, 0, reservation.id)
    sized = sorted((sum(r.free for r in rooms), part) for part, rooms in parts.items())
    for free, part in sized:
        nodes = pack(need, parts[part]) if free >= need.slots else None
        if nodes is not None:
            return Choice(nodes, len(parts), reservation.id, (0, free - need.slots))
    total = sum(free for free, _ in sized)
    reason = "reservation_full" if total < need.slots else "fragmented"
    return Blocked(reason, need.size_milli, total * MILLI, reservation.id)


def replicas(
    cell: Cell,
    classes: Sequence[NodeClass],
    count: int,
    slots: int,
    level: int,
    within: Domain | None,
) -> list[tuple[Node, int]] | None:
    """Nodes with room for `count` replicas in one domain of a level; None if there is none."""
    domains = [within] if within is not None else cell.fabric.domains[REGION]
    deep = within.level if within is not None else min(level, RACK)
    ask = Ask(classes, slots)
    sized = [(ask.holds(d), d.path, d) for _, d in ask.roomy(domains, deep, count * slots)]
    for _, _, domain in sorted(s for s in sized if s[0] >= count):
        return choose(domain, ask, count)
    return None


def domain_of_nodes(cell: Cell, nodes: Iterable[str], level: int) -> Domain | None:
    """The domain of a level in which these nodes are; None if there are none."""
    for id_ in nodes:
        domain = cell.nodes[id_].rack
        while domain.level > level and domain.parent is not None:
            domain = domain.parent
        return domain
    return None


def empty_capacity(
    cell: Cell, classes: Sequence[NodeClass], slots: int, level: int, per_node: int = MANY
) -> tuple[int, int]:
    """If nothing ran: replicas in the domain of a level that holds most, and slots in all."""
    if level == NODE:
        widest = max((c.slots for c in classes if any(c.counts)), default=0)
        return min(widest // slots, per_node), sum(c.slots * sum(c.counts) for c in classes)
    largest = total = 0
    for domain in cell.fabric.domains[level]:
        held = 0
        for class_ in classes:
            nodes = sum(domain.counts.get(class_.id, ()))
            held += nodes * min(class_.slots // slots, per_node)
            total += nodes * class_.slots
        largest = max(largest, held)
    return largest, total
