"""Capacity: nodes in the fabric tree, and how many of them have how many free slots.

Counts are kept up to date by each change of a node, so that a question about a domain reads a few
integers instead of its nodes. Everything here is derived from the nodes: it is rebuilt, equal in
every answer, from a snapshot.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from domain.specs import LEVELS, Selector

if TYPE_CHECKING:
    from domain.nodes import Node

REGION, CLUSTER, BLOCK, RACK, NODE = range(len(LEVELS))
"""Levels of the fabric tree by their depth; the narrowest last."""


class NodeClass:
    """Nodes that differ only in place below their cluster: same type, slots and labels."""

    __slots__ = ("accelerator", "counts", "free", "heaps", "id", "key", "labels", "size", "slots")

    def __init__(
        self,
        id_: int,
        key: tuple[object, ...],
        accelerator: str,
        slots: int,
        labels: Mapping[str, str],
    ) -> None:
        self.id = id_
        self.key = key
        self.size = 0
        """Nodes of the class."""
        self.accelerator = accelerator
        self.slots = slots
        self.labels = dict(labels)
        """Labels of the nodes, with `region` and `cluster`."""
        self.counts = [0] * (slots + 1)
        """counts[k]: nodes with exactly k free slots."""
        self.free = 0
        self.heaps: list[list[int]] = [[] for _ in range(slots + 1)]
        """heaps[k]: indexes of nodes that have, or once had, k free slots."""


class Domain:
    """A place in the fabric: a region, cluster, block, or rack (its children are then nodes)."""

    __slots__ = ("children", "counts", "free", "level", "nodes", "parent", "path", "size")

    def __init__(self, level: int, path: tuple[str, ...], parent: Domain | None) -> None:
        self.level = level
        self.path = path
        self.parent = parent
        self.size = 0
        """Nodes in it."""
        self.children: list[Domain] = []
        """In the order of their paths."""
        self.nodes: list[Node] = []
        """In the order of their indexes; only of a rack."""
        self.counts: dict[int, list[int]] = {}
        """By node class: counts[k] nodes with exactly k free slots."""
        self.free: dict[int, int] = {}
        """By node class: free slots."""

    @property
    def name(self) -> str:
        return "/".join(self.path)


class Fabric:
    """All nodes of a cell by class and by domain."""

    def __init__(self) -> None:
        self.classes: dict[int, NodeClass] = {}
        """Those that have nodes, by id; ids are in the order of appearance and mean nothing."""
        self.domains: list[list[Domain]] = [[] for _ in range(RACK + 1)]
        """By level, in the order of their paths."""
        self.by_index: dict[int, Node] = {}
        self.changed: dict[Node, None] = {}
        """Nodes that changed since the index of their parts was last brought up to date."""
        self.epoch = 0
        """Grows with each node that comes or goes."""
        self._next_class = 0
        self._class_of: dict[tuple[object, ...], NodeClass] = {}
        self._domain_of: dict[tuple[str, ...], Domain] = {}

    def class_for(
        self, accelerator: str, slots: int, path: tuple[str, ...], labels: Mapping[str, str]
    ) -> NodeClass:
        key = (accelerator, slots, path[:BLOCK], tuple(sorted(labels.items())))
        class_ = self._class_of.get(key)
        if class_ is None:
            known = {**labels, LEVELS[REGION].value: path[REGION], LEVELS[CLUSTER].value: path[1]}
            class_ = NodeClass(self._next_class, key, accelerator, slots, known)
            self._next_class += 1
            self._class_of[key] = class_
        return class_

    def rack_of(self, path: tuple[str, ...]) -> Domain:
        """The rack at a path of (region, cluster, block, rack), made if it is new."""
        domain = self._domain_of.get(path)
        if domain is None:
            parent = self.rack_of(path[:-1]) if len(path) > 1 else None
            domain = Domain(len(path) - 1, path, parent)
            self._domain_of[path] = domain
            siblings = [self.domains[domain.level]]
            if parent is not None:
                siblings.append(parent.children)
            for list_ in siblings:
                insort(list_, domain, key=lambda d: d.path)
        return domain

    def add(self, node: Node) -> None:
        self.epoch += 1
        self.by_index[node.index] = node
        node.class_.size += 1
        self.classes[node.class_.id] = node.class_
        domain: Domain | None = node.rack
        while domain is not None:
            domain.size += 1
            domain = domain.parent
        insort(node.rack.nodes, node, key=lambda n: n.index)
        self._count(node, node.available, 1)

    def remove(self, node: Node) -> None:
        self.epoch += 1
        del self.by_index[node.index]
        self.changed.pop(node, None)
        nodes = node.rack.nodes
        del nodes[bisect_left(nodes, node.index, key=lambda n: n.index)]
        self._count(node, node.available, -1)
        node.class_.size -= 1
        if not node.class_.size:
            del self.classes[node.class_.id]
            del self._class_of[node.class_.key]
        self._leave(node.rack, node.class_.id)

    def _leave(self, domain: Domain | None, class_: int) -> None:
        """A node left the domain; one without nodes is no more, as if it had never been."""
        while domain is not None:
            if not any(domain.counts[class_]):
                del domain.counts[class_], domain.free[class_]
            domain.size -= 1
            if not domain.size:
                self.domains[domain.level].remove(domain)
                del self._domain_of[domain.path]
                if domain.parent is not None:
                    domain.parent.children.remove(domain)
            domain = domain.parent

    def update(self, node: Node) -> None:
        """Bring the counts up to date after the node's slots or state changed."""
        self.changed[node] = None
        available = node.count_available()
        if available != node.available:
            before, node.available = node.available, available
            self._move(node, before)

    def _move(self, node: Node, before: int) -> None:
        """Count the node with the free slots that it has now, and no more with those before."""
        class_, available = node.class_, node.available
        id_, more = class_.id, available - before
        class_.counts[before] -= 1
        class_.counts[available] += 1
        class_.free += more
        self._enter(class_, node)
        domain: Domain | None = node.rack
        while domain is not None:
            counts = domain.counts[id_]
            counts[before] -= 1
            counts[available] += 1
            domain.free[id_] += more
            domain = domain.parent

    def _count(self, node: Node, available: int, by: int) -> None:
        class_ = node.class_
        class_.counts[available] += by
        class_.free += by * available
        if by > 0:
            self._enter(class_, node)
        domain: Domain | None = node.rack
        while domain is not None:
            counts = domain.counts.get(class_.id)
            if counts is None:
                counts = domain.counts[class_.id] = [0] * (class_.slots + 1)
                domain.free[class_.id] = 0
            counts[available] += by
            domain.free[class_.id] += by * available
            domain = domain.parent

    def _enter(self, class_: NodeClass, node: Node) -> None:
        available = node.available
        heap = class_.heaps[available]
        heappush(heap, node.index)
        if len(heap) > 64 and len(heap) > 4 * class_.counts[available]:
            heap[:] = {i for i in heap if self._has(i, class_, available)}
            heapify(heap)

    def _has(self, index: int, class_: NodeClass, available: int) -> bool:
        node = self.by_index.get(index)
        return node is not None and node.available == available and node.class_ is class_

    def smallest(self, class_: NodeClass, available: int) -> Node | None:
        """The node with the smallest index that has exactly these free slots."""
        heap = class_.heaps[available]
        while heap:
            if self._has(heap[0], class_, available):
                return self.by_index[heap[0]]
            heappop(heap)
        return None

    def smallest_two(self, class_: NodeClass, available: int) -> list[Node]:
        """The nodes, two at most, with the smallest indexes that have exactly these free slots."""
        first = self.smallest(class_, available)
        if first is None:
            return []
        heap = class_.heaps[available]
        while heap and heap[0] == first.index:  # it may stand there more than once
            heappop(heap)
        second = self.smallest(class_, available)
        heappush(heap, first.index)
        return [first] if second is None else [first, second]

    def nodes(self) -> Iterator[Node]:
        """All nodes in the order of their indexes."""
        return iter(self.by_index.values())


_PATH_LABELS: Final = {LEVELS[BLOCK].value, LEVELS[RACK].value, LEVELS[NODE].value}


def is_local(selector: Selector) -> bool:
    """True iff the selector speaks of a place within a cluster, which a class does not tell."""
    return selector.label in _PATH_LABELS


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    return labels.get(selector.label) in selector.values
