"""Where a single replica with a share of a device or with host parts goes.

An index of the nodes' free parts, derived from the nodes. A bucket holds the nodes of one kind with
the same choice of device: a shared one with so much free, or so many unused ones. Nodes that have
the same left are one state of it. Within a bucket only the host CPU matters to the worth that is
lost, so the best state of it is found by bisection.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
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
    """Nodes of one kind that offer the same device, by what they have left."""

    __slots__ = ("free", "free_milli", "kind", "states")

    def __init__(self, kind: Kind, free_milli: int, free: int) -> None:
        self.kind = kind
        self.free_milli = free_milli
        """Of the device: below 1000 a shared one, 1000 unused ones, 0 if none is asked for."""
        self.free = free
        """Unused devices of the node, if they are what is offered."""
        self.states: list[Entry] = []


class Kind:
    """Nodes of one class with the same host CPU."""

    __slots__ = ("buckets", "class_", "cpu_milli", "worth")

    def __init__(self, class_: NodeClass, cpu_milli: int) -> None:
        self.class_ = class_
        self.cpu_milli = cpu_milli
        self.worth: Worth
        self.buckets: dict[tuple[int, int], Bucket] = {}


Signature = tuple[int, int, int, int, int, tuple[int, ...]]
"""(node class, host CPU; free devices, CPU, memory, and rests of shared devices)"""


class State:
    """What some nodes of one kind have left: the same all of them."""

    __slots__ = (
        "buckets",
        "cpu_milli",
        "free",
        "free_milli",
        "key",
        "kind",
        "memory_mib",
        "nodes",
        "number",
        "rests",
        "signature",
    )

    def __init__(self, signature: Signature, kind: Kind, number: int) -> None:
        self.signature = signature
        self.kind = kind
        self.number = number
        """To tell it from others of the same key."""
        _, _, self.free, self.cpu_milli, self.memory_mib, self.rests = signature
        self.free_milli = self.free * WHOLE + sum(self.rests)
        self.key = 0
        """Devices beyond what the CPU feeds, or, if there is no worth to lose, what is left."""
        self.buckets: list[Bucket] = []
        self.nodes: list[int] = []
        """Their indexes, in order."""

    def gained(self, before: State) -> bool:
        """True iff something may fit now that did not before."""
        return (
            self.free > before.free
            or self.cpu_milli > before.cpu_milli
            or self.memory_mib > before.memory_mib
            or any(now > then for now, then in zip_longest(self.rests, before.rests, fillvalue=0))
        )


Entry = tuple[int, int, State]
"""(key, number, state)"""


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
        self._states: dict[Signature, State] = {}
        """Those that some node is in."""
        self._state_of: dict[int, State] = {}
        """By index of the node, if it takes new work."""
        self._made = 0
        """States so far."""
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
            if any(self._node(need, state) is not None for _, _, state in bucket.states):
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

    def _node(self, need: Need, state: State, last: bool = False) -> int | None:
        """The first, or last, of the state's nodes that may be chosen; its devices are enough."""
        group = need.groups[0]
        if state.cpu_milli < group.host_cpu_milli or state.memory_mib < group.host_memory_mib:
            return None
        if not need.local:
            return state.nodes[-1 if last else 0]
        nodes = self.cell.fabric.by_index
        order = reversed(state.nodes) if last else iter(state.nodes)
        return next((i for i in order if allows(need.placement, nodes[i])), None)

    def _best(self, need: Need, classes: Sequence[NodeClass]) -> tuple[list[Spot], int]:
        group = need.groups[0]
        asked_milli = group.slots * group.share_milli
        growth: dict[Kind, int] = {}
        bounds: list[tuple[int, int, int, Bucket]] = []
        for position, (loss, bucket) in enumerate(self._offered(need, classes)):
            if bucket.states:
                by = growth.get(bucket.kind)
                if by is None:
                    by = bucket.kind.worth.fed_milli(group.host_cpu_milli) - asked_milli
                    growth[bucket.kind] = by
                if self._scored:
                    likely = bucket.states[0] if by >= 0 else bucket.states[-1]
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
        group = need.groups[0]
        cpu_milli, memory_mib = group.host_cpu_milli, group.host_memory_mib
        for entries, last in self._in_order(bucket.states, by):
            found: State | None = None
            index = -1
            for key, _, state in entries:
                if found is not None and key != found.key:
                    break
                if state.cpu_milli < cpu_milli or state.memory_mib < memory_mib:
                    continue  # so for most of a bucket: it is not asked further
                node = self._node(need, state, last)
                if node is not None and (found is None or (node > index) == last):
                    found, index = state, node
            if found is not None:
                left_milli = found.free_milli - group.slots * group.share_milli
                left_cpu = found.cpu_milli - cpu_milli
                left = left_milli * self._cpu_max + left_cpu * self._slots_max * WHOLE
                total = loss + stranded(found.key, by) if self._scored else 0
                return Spot(total, left, index, bucket.free_milli, self.cell.fabric.by_index[index])
        return None

    def _in_order(self, entries: list[Entry], by: int) -> list[tuple[list[Entry], bool]]:
        """From what is just fed after, to where nothing more is lost, then the others.

        With each piece, whether of nodes with equal keys the last is taken.
        """
        if not self._scored:
            return [(entries, False)]
        if by >= 0:
            at = bisect_right(entries, (-by, END))
            return [(entries[:at][::-1], True), (entries[at:], False)]
        at = bisect_left(entries, (-by,))
        return [(entries[at:], False), (entries[:at][::-1], True)]

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
        """All nodes by their state; the buckets are filled when these are weighed."""
        for cache in (self._kinds, self._states, self._state_of, self._no_room):
            cache.clear()
        self._gains += 1
        nodes = sorted(self.cell.fabric.nodes(), key=lambda n: n.index)
        self._cpu_max = max((n.host_cpu_milli for n in nodes), default=0) or 1
        self._slots_max = max((n.class_.slots for n in nodes), default=0) or 1
        for node in nodes:
            if node.schedulable:
                state = self._state_of[node.index] = self._state(node)
                state.nodes.append(node.index)

    def _weigh(self) -> None:
        """What is asked is another mix: other worths and keys, so other buckets."""
        cell = self.cell
        self._scored = cell.policy.node_score == "fragmentation" and bool(cell.mix.entries)
        self._asked.clear()
        self._offers.clear()
        self._buckets.clear()
        for kind in self._kinds.values():
            kind.worth = self._worth_of(kind)
            kind.buckets.clear()
        for state in self._states.values():
            self._shelve(state)

    def _update(self, node: Node) -> None:
        before = self._state_of.pop(node.index, None)
        state = self._state(node) if node.schedulable else None
        if state is not None:
            self._state_of[node.index] = state
            if state is before:
                return
            if before is None or state.gained(before):
                self._gains += 1
            if not state.nodes:
                self._shelve(state)
            insort(state.nodes, node.index)
        if before is not None:
            del before.nodes[bisect_left(before.nodes, node.index)]
            if not before.nodes:
                del self._states[before.signature]
                for bucket in before.buckets:
                    del bucket.states[bisect_left(bucket.states, (before.key, before.number))]

    def _state(self, node: Node) -> State:
        """What the node has left."""
        rests: tuple[int, ...] = ()
        if node.partial:
            rests = tuple(sorted((WHOLE - used for used in node.partial.values()), reverse=True))
        parts = (node.available, node.free_cpu_milli, node.free_memory_mib, rests)
        signature = (node.class_.id, node.host_cpu_milli, *parts)
        state = self._states.get(signature)
        if state is None:
            self._made += 1
            state = self._states[signature] = State(signature, self._kind_of(node), self._made)
        return state

    def _shelve(self, state: State) -> None:
        """Put the state into the buckets of all that its nodes offer."""
        kind, state.key = state.kind, self._key(state)
        offers = [(0, 0), *((rest, 0) for rest in sorted(set(state.rests)))]
        if state.free:
            offers.append((WHOLE, state.free))
        state.buckets = []
        for offer in offers:
            bucket = kind.buckets.get(offer)
            if bucket is None:
                bucket = kind.buckets[offer] = Bucket(kind, *offer)
                self._buckets.append(bucket)
            insort(bucket.states, (state.key, state.number, state))
            state.buckets.append(bucket)

    def _key(self, state: State) -> int:
        if self._scored:
            worth = state.kind.worth
            fed_milli = worth.fed_milli(state.cpu_milli) if worth.cpu_milli else state.free_milli
            return state.free_milli - fed_milli
        return state.free_milli * self._cpu_max + state.cpu_milli * self._slots_max * WHOLE

    def _kind_of(self, node: Node) -> Kind:
        key = (node.class_.id, node.host_cpu_milli)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = Kind(node.class_, node.host_cpu_milli)
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
