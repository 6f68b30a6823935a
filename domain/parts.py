"""Where a single replica with a share of a device or with host parts goes.

An index of the nodes' free parts, derived from the nodes. A bucket holds the nodes of one kind with
the same choice of device: a shared one with so much free, or so many unused ones. Within a bucket
only the host CPU matters to the worth that is lost, so the best node of it is found by bisection.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, NamedTuple

from domain.fabric import NodeClass
from domain.fragmentation import WHOLE, Asked, Worth, asked_of, stranded, worth_of
from domain.nodes import allows

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.nodes import Node
    from domain.shapes import Need

END: Final = 1 << 62

Entry = tuple[int, int]
"""(key, index of the node); the key is what the node has free beyond what its CPU feeds, or, if
there is no worth to lose, what it has left."""


class Spot(NamedTuple):
    """A node for a replica; the smallest is the best."""

    loss: int
    """Worth that the replica takes."""
    left: int
    """CPU and devices left over, each weighed by the most that a node has of the other."""
    number: int
    """The node's index."""
    free_milli: int
    """Of the device before: 1000 if it is unused, 0 if none is asked for."""
    node: Node


class Bucket:
    """Nodes of one kind that offer the same device, by their keys."""

    __slots__ = ("free", "free_milli", "kind", "nodes")

    def __init__(self, kind: Kind, free_milli: int, free: int) -> None:
        self.kind = kind
        self.free_milli = free_milli
        """Of the device: below 1000 a shared one, 1000 unused ones, 0 if none is asked for."""
        self.free = free
        """Unused devices of the node, if they are what is offered."""
        self.nodes: list[Entry] = []


class Kind:
    """Nodes of one class with the same host CPU."""

    __slots__ = ("buckets", "class_", "cpu_milli", "worth")

    def __init__(self, class_: NodeClass, cpu_milli: int) -> None:
        self.class_ = class_
        self.cpu_milli = cpu_milli
        self.worth: Worth
        self.buckets: dict[tuple[int, int], Bucket] = {}


class _Known:
    """A node as the index has it."""

    __slots__ = ("buckets", "cpu_milli", "free", "free_milli", "key", "kind", "memory_mib", "rests")

    def __init__(self, node: Node, kind: Kind) -> None:
        self.kind = kind
        self.free = node.available
        self.cpu_milli = node.free_cpu_milli
        self.memory_mib = node.free_memory_mib
        self.rests: list[int] = []
        if node.partial:
            self.rests = sorted((WHOLE - used for used in node.partial.values()), reverse=True)
        self.free_milli = self.free * WHOLE + sum(self.rests)
        self.key = 0
        self.buckets: list[Bucket] = []

    def same(self, before: _Known) -> bool:
        return (
            self.free == before.free
            and self.cpu_milli == before.cpu_milli
            and self.memory_mib == before.memory_mib
            and self.rests == before.rests
        )

    def gained(self, before: _Known) -> bool:
        """True iff something may fit now that did not before."""
        return (
            self.free > before.free
            or self.cpu_milli > before.cpu_milli
            or self.memory_mib > before.memory_mib
            or any(now > then for now, then in zip_longest(self.rests, before.rests, fillvalue=0))
        )


class Parts:
    """The index; it is built when the first such replica asks for a place."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self._epoch = -1
        self._weighed: tuple[object, ...] | None = None
        self._scored = False
        self._kinds: dict[tuple[int, int], Kind] = {}
        self._asked: dict[str, Asked] = {}
        self._buckets: list[Bucket] = []
        self._offers: dict[tuple[object, ...], tuple[list[int], list[tuple[int, Bucket]]]] = {}
        self._known: dict[int, _Known] = {}
        self._gains = 0
        self._no_room: dict[object, int] = {}
        """By key of a need: the gains when it had no room; it has none until there are more."""
        self._cpu_max = self._slots_max = 0

    def has_room(self, need: Need) -> bool:
        """True iff some node has a place for the need."""
        self._refresh()
        if self._no_room.get(need.key) == self._gains:
            return False
        for _, bucket in self._offered(need, need.classes(self.cell)):
            if any(self._fits(need, index) for _, index in bucket.nodes):
                return True
        self._no_room[need.key] = self._gains
        return False

    def find(self, need: Need) -> tuple[list[Spot], int]:
        """The best place and the next best of other buckets; and how many were compared."""
        if self.has_room(need):
            for members in _by_preference(need, need.classes(self.cell)):
                spots, compared = self._best(need, members)
                if spots:
                    return spots, compared
        return [], 0

    def _fits(self, need: Need, index: int) -> bool:
        """True iff the node's host has room, and may be chosen; its devices are the bucket's."""
        group, node = need.groups[0], self.cell.fabric.by_index[index]
        return (
            node.free_cpu_milli >= group.host_cpu_milli
            and node.free_memory_mib >= group.host_memory_mib
            and (not need.local or allows(need.placement, node))
        )

    def _best(self, need: Need, classes: Sequence[NodeClass]) -> tuple[list[Spot], int]:
        group = need.groups[0]
        asked_milli = group.slots * group.share_milli
        growth: dict[Kind, int] = {}
        bounds: list[tuple[int, int, int, Bucket]] = []
        for position, (loss, bucket) in enumerate(self._offered(need, classes)):
            if bucket.nodes:
                by = growth.get(bucket.kind)
                if by is None:
                    by = bucket.kind.worth.fed_milli(group.host_cpu_milli) - asked_milli
                    growth[bucket.kind] = by
                if self._scored:
                    likely = bucket.nodes[0] if by >= 0 else bucket.nodes[-1]
                    bounds.append((loss + stranded(likely[0], by), position, loss, bucket))
                else:
                    bounds.append((0, position, 0, bucket))
        heapify(bounds)
        spots: list[Spot] = []
        compared, best = 0, END
        while bounds and bounds[0][0] <= best:
            _, _, loss, bucket = heappop(bounds)
            spot = self._in_bucket(bucket, need, loss, growth[bucket.kind])
            if spot is not None:
                compared += 1
                best = min(best, spot.loss)
                spots.append(spot)
                spots.sort()
                del spots[2:]
        return spots, compared

    def _in_bucket(self, bucket: Bucket, need: Need, loss: int, by: int) -> Spot | None:
        """The node of the bucket that loses least, and of those the one that is fed best after."""
        group, nodes = need.groups[0], self.cell.fabric.by_index
        for key, index in self._in_order(bucket.nodes, by):
            if self._fits(need, index):
                node = nodes[index]
                left_milli = self._known[index].free_milli - group.slots * group.share_milli
                left_cpu = node.free_cpu_milli - group.host_cpu_milli
                left = left_milli * self._cpu_max + left_cpu * self._slots_max * WHOLE
                total = loss + stranded(key, by) if self._scored else 0
                return Spot(total, left, index, bucket.free_milli, node)
        return None

    def _in_order(self, nodes: Sequence[Entry], by: int) -> Iterator[Entry]:
        """From the node that is just fed after, to where nothing more is lost, then the others."""
        if not self._scored:
            yield from nodes
        elif by >= 0:
            at = bisect_right(nodes, (-by, END))
            yield from (nodes[i] for i in range(at - 1, -1, -1))
            yield from (nodes[i] for i in range(at, len(nodes)))
        else:
            at = bisect_left(nodes, (-by, -1))
            yield from (nodes[i] for i in range(at, len(nodes)))
            yield from (nodes[i] for i in range(at - 1, -1, -1))

    def _offered(self, need: Need, classes: Sequence[NodeClass]) -> list[tuple[int, Bucket]]:
        """Buckets with a fit device, and the worth that the replica takes of it."""
        group = need.groups[0]
        slots, share = group.slots, group.share_milli
        ids = tuple(c.id for c in classes)
        seen, offers = self._offers.setdefault((slots, share, ids), ([0], []))
        for bucket in self._buckets[seen[0] :]:
            kind = bucket.kind
            if kind.class_.id not in ids:
                continue
            if not slots:
                if not bucket.free_milli:
                    offers.append((0, bucket))
            elif bucket.free >= slots if share == WHOLE else bucket.free_milli >= share:
                loss = kind.worth.loss(slots, share, bucket.free_milli, bucket.free)
                offers.append((loss, bucket))
        seen[0] = len(self._buckets)
        return offers

    # --- the index --------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Bring the index up to date with the nodes that changed, and with what is asked."""
        cell = self.cell
        if self._epoch != cell.fabric.epoch:
            self._epoch = cell.fabric.epoch
            self._build()
        else:
            for node in cell.fabric.changed:
                self._update(node)
        cell.fabric.changed = {}
        basis = (cell.fabric.epoch, cell.mix.version, cell.policy.node_score)
        if self._weighed != basis:
            self._weighed = basis
            self._weigh()

    def _build(self) -> None:
        """All nodes in their buckets, which are in no order yet."""
        for cache in (self._kinds, self._offers, self._known, self._no_room):
            cache.clear()
        self._buckets.clear()
        self._gains += 1
        nodes = list(self.cell.fabric.nodes())
        self._cpu_max = max((n.spec.host_cpu_milli for n in nodes), default=0) or 1
        self._slots_max = max((n.class_.slots for n in nodes), default=0) or 1
        for node in nodes:
            if node.schedulable:
                known = self._known[node.index] = self._offered_by(node)
                for bucket in known.buckets:
                    bucket.nodes.append((known.key, node.index))

    def _weigh(self) -> None:
        """What is asked is another mix: other worths and keys, the same buckets."""
        cell = self.cell
        self._scored = cell.policy.node_score == "fragmentation" and bool(cell.mix.entries)
        self._asked.clear()
        self._offers.clear()
        self._buckets = [bucket for bucket in self._buckets if bucket.nodes]
        for kind in self._kinds.values():
            kind.worth = self._worth_of(kind)
            kind.buckets = {offer: b for offer, b in kind.buckets.items() if b.nodes}
        for known in self._known.values():
            known.key = self._key(known)
        for bucket in self._buckets:
            bucket.nodes = sorted((self._known[index].key, index) for _, index in bucket.nodes)

    def _update(self, node: Node) -> None:
        before = self._known.pop(node.index, None)
        known = self._offered_by(node) if node.schedulable else None
        if before is not None:
            if known is not None and known.same(before):
                self._known[node.index] = before
                return
            entry = (before.key, node.index)
            for bucket in before.buckets:
                del bucket.nodes[bisect_left(bucket.nodes, entry)]
        if known is not None:
            self._known[node.index] = known
            if before is None or known.gained(before):
                self._gains += 1
            for bucket in known.buckets:
                insort(bucket.nodes, (known.key, node.index))

    def _offered_by(self, node: Node) -> _Known:
        """The node's free parts, and the buckets in which they belong."""
        kind = self._kind_of(node)
        known = _Known(node, kind)
        known.key = self._key(known)
        offers = [(0, 0)]
        if known.rests:
            offers.extend((rest, 0) for rest in sorted(set(known.rests)))
        if known.free:
            offers.append((WHOLE, known.free))
        for offer in offers:
            bucket = kind.buckets.get(offer)
            if bucket is None:
                bucket = kind.buckets[offer] = Bucket(kind, *offer)
                self._buckets.append(bucket)
            known.buckets.append(bucket)
        return known

    def _key(self, known: _Known) -> int:
        if self._scored:
            worth = known.kind.worth
            fed_milli = worth.fed_milli(known.cpu_milli) if worth.cpu_milli else known.free_milli
            return known.free_milli - fed_milli
        return known.free_milli * self._cpu_max + known.cpu_milli * self._slots_max * WHOLE

    def _kind_of(self, node: Node) -> Kind:
        key = (node.class_.id, node.spec.host_cpu_milli)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = Kind(node.class_, node.spec.host_cpu_milli)
            kind.worth = self._worth_of(kind)
        return kind

    def _worth_of(self, kind: Kind) -> Worth:
        asked = self._asked_of(kind.class_.accelerator)
        return worth_of(asked, kind.class_, kind.cpu_milli)

    def _asked_of(self, accelerator: str) -> Asked:
        asked = self._asked.get(accelerator)
        if asked is None:
            entries = self.cell.mix.entries if self._scored else []
            classes = self.cell.fabric.classes.values()
            asked = self._asked[accelerator] = asked_of(entries, classes, accelerator)
        return asked


def _by_preference(need: Need, classes: Sequence[NodeClass]) -> Iterable[Sequence[NodeClass]]:
    """The classes in groups of equal preference, the most preferred first."""
    if not need.prefers:
        return (classes,)
    ranks: dict[int, list[NodeClass]] = {}
    for class_ in classes:
        ranks.setdefault(-need.preference(class_), []).append(class_)
    return (members for _, members in sorted(ranks.items()))
