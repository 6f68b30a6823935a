"""Where equal replicas lie in the fabric: how many a domain holds, and the fewest places for them.

Counted from the free slots by class that each domain knows; only where a rule speaks of nodes are
these looked at one by one. For one group of whole slots the answer is exact under all its rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from domain import rules
from domain.fabric import NODE, RACK, Domain, NodeClass
from domain.rules import MANY
from domain.specs import LEVELS, ReplicaGroup

if TYPE_CHECKING:
    from domain.nodes import Node

NOWHERE: Final = -1


class Ask:
    """What equal replicas ask of the domains in which they lie."""

    __slots__ = ("classes", "deepest", "limits", "per_node", "slots", "where")

    def __init__(
        self,
        classes: Iterable[NodeClass],
        slots: int,
        per_node: int | None = None,
        group: ReplicaGroup | None = None,
        where: Sequence[rules.Lying] = (),
    ) -> None:
        """`group` has the rules for how they lie to each other, `where` those for other jobs."""
        self.classes = {c.id for c in classes}
        self.slots = slots
        self.per_node = per_node or MANY
        self.limits = rules.limits_of(group) if group is not None else {}
        self.where = [(LEVELS.index(w.rule.level), w) for w in where if w.matters()]
        self.deepest = max((NOWHERE, *self.limits, *(level for level, _ in self.where)))
        """The narrowest level of which a rule speaks."""

    def free(self, domain: Domain) -> int:
        """Free slots of the classes, whatever the rules say."""
        free = 0
        for id_, slots in domain.free.items():
            if id_ in self.classes:
                free += slots
        return free

    def roomy(
        self, domains: Iterable[Domain], level: int, want: int
    ) -> Iterator[tuple[int, Domain]]:
        """Domains of a level, in these ones, with so many free slots of the classes."""
        for domain in domains:
            free = self.free(domain)
            if free >= want:
                if domain.level == level:
                    yield free, domain
                else:
                    yield from self.roomy(domain.children, level, want)

    def most(self, domain: Domain) -> int:
        """How many may lie in the domain, with what rules of wider levels leave of it."""
        for level, lying in self.where:
            if level < domain.level and not lying.allows(domain.path[: level + 1]):
                return 0
        found = self.holds(domain)
        for level in range(domain.level - 1, -1, -1):
            found = rules.limited(self.limits, level, found)
        return found

    def holds(self, domain: Domain) -> int:
        level = domain.level
        for at, lying in self.where:
            if at == level and not lying.allows(domain.path):
                return 0
        if self.deepest <= level:
            found = self._by_counts(domain)
        elif level == RACK:
            found = sum(self.on(node) for node in domain.nodes)
        else:
            found = sum(self.holds(child) for child in domain.children)
        return rules.limited(self.limits, level, found)

    def on(self, node: Node) -> int:
        """How many fit on the node."""
        if node.available < self.slots or node.class_.id not in self.classes:
            return 0
        for level, lying in self.where:
            if level == NODE and not lying.allows(rules.path_of(node)):
                return 0
        most = min(node.available // self.slots, self.per_node)
        return rules.limited(self.limits, NODE, most)

    def _by_counts(self, domain: Domain) -> int:
        slots, per_node, found = self.slots, self.per_node, 0
        for id_, counts in domain.counts.items():
            if id_ in self.classes and domain.free[id_] >= slots:
                for k in range(slots, len(counts)):
                    if counts[k]:
                        found += counts[k] * min(k // slots, per_node)
        return found


def choose(domain: Domain, ask: Ask, count: int) -> list[tuple[Node, int]] | None:
    """The fewest children of the domain, recursively, that hold so many; None if they do not."""
    if domain.level == RACK:
        items = [(ask.on(n), (n.available, n.index), n) for n in domain.nodes]
        return rules.greedy([i for i in items if i[0]], count)
    parts = [(ask.holds(child), child.path, child) for child in domain.children]
    shares = rules.greedy([p for p in parts if p[0]], count)
    if shares is None:
        return None
    nodes: list[tuple[Node, int]] = []
    for child, share in shares:
        below = choose(child, ask, share)
        assert below is not None, "the counts say that it holds them"
        nodes.extend(below)
    return nodes
