"""Room for gangs with rules of how they lie: the cheapest nodes on which placement finds a place.

Nodes are cleared in the order of what room for one replica costs there, until placement, which
knows the rules, finds a place on them. Attempts that are not in its way live, the dearest first.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from domain import rules
from domain.placement import Room, pack
from domain.preemption.eviction import Eligible, Plan, cheapest
from domain.preemption.part_eviction import Parts, domains, free_on, held, room

NODES_A_UNIT: Final = 8
"""Nodes that are searched at the cost of one unit of work: each takes longer than without rules."""

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from domain.fabric import Domain
    from domain.fact import Placed
    from domain.nodes import Node
    from domain.runs import Run
    from domain.shapes import Need
    from domain.turn import Turn


def plan(turn: Turn, need: Need, eligible: Eligible) -> Plan | None:
    """The cheapest victims found that make room in one domain, or None if none are enough.

    For the rules on other jobs, those that would go count as if they stayed.
    """
    if not eligible.cost:
        return None
    where = rules.lying(turn.cell, need)
    plans = []
    for domain, nodes in _in_order(turn, need, eligible):
        allowed = [n for n in nodes if rules.obeys(where, n)] if where else nodes
        plans.append(_Search(turn, need, domain, allowed, eligible).plan())
    return cheapest(plans)


def _in_order(turn: Turn, need: Need, eligible: Eligible) -> list[tuple[Domain, list[Node]]]:
    """By domain, the nodes on which a replica could lie, the cheapest first.

    Found once a round: what is claimed since changes what is cheapest, but not what is possible.
    """
    found = eligible.ordered.get(need.id)
    if found is None:
        asked = dict.fromkeys(Parts.of(group) for group in need.groups)
        found = eligible.ordered[need.id] = []
        for domain, nodes in domains(turn, need, eligible):
            turn.work -= 1 + len(nodes) // NODES_A_UNIT
            costs = {n: c for n in nodes if (c := _cost(n, asked, eligible)) is not None}
            found.append((domain, sorted(costs, key=lambda n: (costs[n], n.index))))
    return found


def _cost(node: Node, asked: Iterable[Parts], eligible: Eligible) -> int | None:
    """Of room for one replica of the group for which it costs least."""
    free = free_on(node)
    rooms = (room(node, free.less(parts), eligible) for parts in asked)
    sums = (sum(eligible.cost[run] for run in runs) for runs in rooms if runs is not None)
    return min(sums, default=None)


class _Search:
    """In one domain."""

    def __init__(
        self, turn: Turn, need: Need, domain: Domain, nodes: Sequence[Node], eligible: Eligible
    ) -> None:
        self.turn, self.need, self.domain, self.eligible = turn, need, domain, eligible
        self.nodes = nodes
        """On which a replica could lie, the cheapest first."""

    def plan(self) -> Plan | None:
        upper = min(len(self.nodes), sum(g.count for g in self.need.groups))
        while self._placed(upper) is None:
            if upper == len(self.nodes):
                return None
            upper = min(len(self.nodes), 2 * upper)
        least = bisect_left(range(upper), True, key=lambda n: self._placed(n) is not None)
        found = self._placed(least)
        assert found is not None, "the search ends at a number for which it was found"
        rooms, gone, placed = found
        runs = sorted(self._in_the_way(rooms, gone), key=lambda r: r.order)
        where = [(rooms[id_].node, replicas, group) for id_, replicas, group, _ in placed]
        cost = sum(self.eligible.cost[run] for run in runs)
        return Plan(cost, self.domain, where, runs, self.turn.header.now_ms)

    def _placed(self, number: int) -> tuple[dict[str, Room], list[Run], list[Placed]] | None:
        """Where the gang lies on so many cleared nodes; what is left there, and who has gone."""
        self.turn.work -= 1 + number // NODES_A_UNIT
        nodes = self.nodes[:number]
        rooms = {node.id: Room(node, node.available) for node in nodes}
        gone = dict.fromkeys(
            run for node in nodes for *_, run in self.eligible.on(node) if not run.stop_by_ms
        )
        for run in gone:
            for place in _places(run, rooms):
                _change(place, run, 1)
        placed = pack(self.need, list(rooms.values()))
        return None if placed is None else (rooms, list(gone), placed)

    def _in_the_way(self, rooms: dict[str, Room], gone: Sequence[Run]) -> Iterator[Run]:
        costs = self.eligible.cost
        for run in sorted(gone, key=lambda r: (-costs[r], r.order)):
            places = _places(run, rooms)
            for place in places:
                _change(place, run, -1)
            if any(_lacks(place, run) for place in places):
                for place in places:
                    _change(place, run, 1)
                yield run


def _places(run: Run, rooms: dict[str, Room]) -> list[Room]:
    ids = dict.fromkeys(placed[0] for placed in run.nodes)
    return [rooms[id_] for id_ in ids if id_ in rooms]


def _lacks(place: Room, run: Run) -> bool:
    """True iff something is short there that the attempt would hold."""
    left = (place.free, place.cpu, place.memory)
    return any(own and rest < 0 for own, rest in zip(held(place.node, run), left, strict=True))


def _change(place: Room, run: Run, by: int) -> None:
    its = held(place.node, run)
    place.free += by * its.slots
    place.cpu += by * its.cpu_milli
    place.memory += by * its.memory_mib
