"""Rules on where the replicas of a gang lie: slices, spreading, and other jobs beside them.

Replicas are counted up the fabric tree: a node has room for so many, a domain for the sum of its
children, less what a rule of its level takes: a slice that does not fit whole, or more than may lie
together. Then they are handed down again. For one group the answer is exact.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

from domain.fabric import NODE
from domain.specs import LEVELS, Affinity, ReplicaGroup

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.nodes import Node
    from domain.runs import Run
    from domain.shapes import Need

Item = TypeVar("Item")
Tie = TypeVar("Tie", bound=tuple[int | str, ...])


class Room(Protocol):
    """A node with what it has left."""

    node: Node

    def replicas(self, group: ReplicaGroup) -> int: ...


RoomT = TypeVar("RoomT", bound=Room)
ROOT: Final = -1
MANY: Final = 1 << 30


def greedy(items: list[tuple[int, Tie, Item]], want: int) -> list[tuple[Item, int]] | None:
    """Take the largest items whole, and best fit for the rest: the fewest items.

    Items are (how much it holds, tie-break, item); the answer is (item, how much of it).
    """
    if sum(i[0] for i in items) < want:
        return None
    items.sort(key=lambda i: (-i[0], i[1]))
    chosen: list[tuple[Item, int]] = []
    for position, (holds, _, item) in enumerate(items):
        if holds < want:
            chosen.append((item, holds))
            want -= holds
            continue
        enough = [i for i in items[position:] if i[0] >= want]
        best = min(enough, key=lambda i: (i[0], i[1]))
        chosen.append((best[2], want))
        return chosen
    raise AssertionError("the sum says that there is enough")


# --- slices and spreading -------------------------------------------------------------------------


def ruled(group: ReplicaGroup) -> bool:
    """True iff a rule says how the group's replicas lie to each other, beyond a node's."""
    return bool(group.slices) or group.spread is not None


Limits = dict[int, tuple[int, tuple[int, ...]]]
"""By level: the most that may lie together, and the slices that it takes whole."""


def limits_of(group: ReplicaGroup) -> Limits:
    """What the group's rules say, for the levels of which they speak.

    What a spread leaves of a domain still comes in whole slices of this level or a narrower one.
    """
    slices = [(LEVELS.index(part.level), part.size) for part in group.slices]
    most = {}
    if group.spread is not None:
        most[LEVELS.index(group.spread.level)] = group.spread.max_replicas
    levels = most.keys() | {level for level, _ in slices}
    return {
        level: (most.get(level, MANY), tuple(size for at, size in slices if at >= level))
        for level in levels
    }


class _Branch(Generic[RoomT]):
    """A domain, or a node, and how many replicas may lie in it."""

    def __init__(self, level: int, path: tuple[str, ...]) -> None:
        self.level = level
        self.path = path
        self.children: dict[str, _Branch[RoomT]] = {}
        self.room: RoomT | None = None
        self.holds = 0

    def count(self, group: ReplicaGroup, limits: Limits) -> int:
        if self.room is not None:
            found = self.room.replicas(group)
        else:
            found = sum(c.count(group, limits) for c in self.children.values())
        self.holds = limited(limits, self.level, found)
        return self.holds

    def share_out(self, want: int) -> list[tuple[RoomT, int]]:
        """So many replicas, in the fewest children."""
        if self.room is not None:
            return [(self.room, want)]
        items = [(c.holds, c.path, c) for c in self.children.values() if c.holds]
        shares = greedy(items, want)
        assert shares is not None, "it was counted that they fit"
        return [placed for child, share in shares for placed in child.share_out(share)]


def limited(limits: Limits, level: int, count: int) -> int:
    """Of so many replicas for which there is room in a domain, those that the rules allow."""
    limit = limits.get(level)
    if limit is None:
        return count
    most, slices = limit
    count = min(count, most)
    for size in slices:
        count -= count % size
    return count


def choose(group: ReplicaGroup, rooms: Sequence[RoomT]) -> list[tuple[RoomT, int]] | None:
    """Rooms for all replicas of the group; None if the rules leave no place for them."""
    root: _Branch[RoomT] = _Branch(ROOT, ())
    for room in rooms:
        branch, path = root, (*room.node.rack.path, room.node.id)
        for level, name in enumerate(path):
            below = branch.children.get(name)
            if below is None:
                below = branch.children[name] = _Branch(level, path[: level + 1])
            branch = below
        branch.room = room
    fits = root.count(group, limits_of(group)) >= group.count
    return root.share_out(group.count) if fits else None


# --- other jobs -----------------------------------------------------------------------------------


Keyed = list[dict[tuple[str, ...], int]]
"""By level: the domains in which attempts that name a key lie, each with how often."""


class Lying(NamedTuple):
    """Where the jobs of a key lie: domains of the rule's level."""

    rule: Affinity
    domains: Collection[tuple[str, ...]]

    def allows(self, path: tuple[str, ...]) -> bool:
        """True iff a replica may lie in this domain of the rule's level."""
        inside = path in self.domains
        return not inside if self.rule.mode == "apart" else inside or not self.domains

    def matters(self) -> bool:
        """False if there is no job of the key: then it allows everything."""
        return bool(self.domains)


def lying(cell: Cell, need: Need) -> list[Lying]:
    """For each rule of the need, where jobs that name its key have their nodes."""
    found = []
    for rule in need.placement.affinity:
        keyed = cell.keyed.get(rule.key)
        found.append(Lying(rule, keyed[LEVELS.index(rule.level)] if keyed is not None else ()))
    return found


def obeys(where: Iterable[Lying], node: Node) -> bool:
    """True iff a replica on the node lies with, and apart from, whom it should."""
    path = path_of(node)
    return all(lying.allows(path[: LEVELS.index(lying.rule.level) + 1]) for lying in where)


def path_of(node: Node) -> tuple[str, ...]:
    path = (*node.rack.path, node.id)
    assert len(path) == NODE + 1, "a node lies in a domain of each level"
    return path


def count_keys(cell: Cell, run: Run, by: int) -> None:
    """The run's replicas lie on their nodes: with `by` 1 from now on, with -1 no more."""
    for rule in run.job.shape.affinity:
        keyed = cell.keyed.setdefault(rule.key, [{} for _ in LEVELS])
        for id_ in dict.fromkeys(placed[0] for placed in run.nodes):
            path = path_of(cell.nodes[id_])
            for level, domains in enumerate(keyed):
                where = path[: level + 1]
                domains[where] = domains.get(where, 0) + by
                if not domains[where]:
                    del domains[where]
        if not keyed[NODE]:
            del cell.keyed[rule.key]
