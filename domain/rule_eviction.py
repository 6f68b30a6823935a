"""Room for gangs with rules of how they lie: the cheapest attempts whose end leaves them a place.

Attempts go in the order of what a slot of theirs costs, until placement finds a place in what is
free then. Those that turn out not to be in its way live, the dearest first.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from domain import rules
from domain.eviction import NODES_A_UNIT, Eligible, Plan, cheapest
from domain.part_eviction import domains, held
from domain.placement import Room, pack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from domain.fabric import Domain
    from domain.fact import Placed
    from domain.nodes import Node
    from domain.runs import Run
    from domain.shapes import Need
    from domain.turn import Turn


def plan(turn: Turn, need: Need, eligible: Eligible) -> Plan | None:
    """The cheapest victims found that make room in one domain, or None if none are enough.

    Those whose end would let other jobs lie elsewhere than the rules say count as if they stayed.
    """
    if not eligible.cost:
        return None
    where = rules.lying(turn.cell, need)
    plans = []
    for domain, nodes in domains(turn, need, eligible):
        allowed = [n for n in nodes if rules.obeys(where, n)]
        plans.append(_Search(turn, need, domain, allowed, eligible).plan())
    return cheapest(plans)


class _Search:
    """In one domain."""

    def __init__(
        self, turn: Turn, need: Need, domain: Domain, nodes: Sequence[Node], eligible: Eligible
    ) -> None:
        self.turn, self.need, self.domain, self.eligible = turn, need, domain, eligible
        self.nodes = {n.id: n for n in nodes}
        costs: dict[Run, int] = {}
        for id_ in self.nodes:
            for part, _, run in eligible.by_node().get(id_, ()):
                if not run.stop_by_ms:
                    costs[run] = part
        self.runs = sorted(costs, key=lambda r: (costs[r], r.order))
        """What may be evicted, the cheapest slots first."""

    def plan(self) -> Plan | None:
        everything = len(self.runs)
        if self._placed(everything) is None:
            return None
        gone = bisect_left(range(everything), True, key=lambda n: self._placed(n) is not None)
        found = self._placed(gone)
        assert found is not None, "the search ends at a number for which it was found"
        rooms, placed = found
        victims = sorted(self._in_the_way(rooms, self.runs[:gone]), key=lambda r: r.order)
        return Plan(
            cost=sum(self.eligible.cost[run] for run in victims),
            domain=self.domain,
            placed=[(self.nodes[id_], replicas, group) for id_, replicas, group, _ in placed],
            runs=victims,
            now_ms=self.turn.header.now_ms,
        )

    def _placed(self, gone: int) -> tuple[dict[str, Room], list[Placed]] | None:
        """Where the gang lies without so many of the attempts, and what is left beside it."""
        self.turn.work -= 1 + len(self.nodes) // NODES_A_UNIT
        rooms = {id_: Room(node, node.available) for id_, node in self.nodes.items()}
        for run in self.runs[:gone]:
            for id_ in self._places(run):
                _change(rooms[id_], run, 1)
        placed = pack(self.need, list(rooms.values()))
        return None if placed is None else (rooms, placed)

    def _in_the_way(self, rooms: dict[str, Room], gone: Sequence[Run]) -> Iterator[Run]:
        for run in reversed(gone):
            places = [rooms[id_] for id_ in self._places(run)]
            for room in places:
                _change(room, run, -1)
            if any(_lacks(room, run) for room in places):
                for room in places:
                    _change(room, run, 1)
                yield run

    def _places(self, run: Run) -> list[str]:
        """Nodes of the search that the attempt is on."""
        ids = dict.fromkeys(placed[0] for placed in run.nodes)
        return [id_ for id_ in ids if id_ in self.nodes]


def _lacks(room: Room, run: Run) -> bool:
    """True iff something is short that the attempt would hold."""
    left = (room.free, room.cpu, room.memory)
    return any(own and rest < 0 for own, rest in zip(held(room.node, run), left, strict=True))


def _change(room: Room, run: Run, by: int) -> None:
    its = held(room.node, run)
    room.free += by * its.slots
    room.cpu += by * its.cpu_milli
    room.memory += by * its.memory_mib
