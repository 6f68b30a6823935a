"""Room for large gangs: blocked gangs gather free nodes until they have enough.

Without it a gang waits for a moment at which enough nodes happen to be free at once, and smaller
jobs that take each node as it comes put that moment off for ever. A gathering gang hides the nodes
that suit it, and the quota for them, from all others of its tier and below. It binds to none: each
round takes anew what is nearest to what it needs, so that it starts as soon as any nodes are
enough, and not only those that a plan made ahead would name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from domain import placement
from domain.fabric import RACK, Domain
from domain.laying import Ask
from domain.placement import Blocked
from domain.quota import MILLI

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.nodes import Node
    from domain.shapes import Demand, Need

REASON: Final = "gathering"
"""Why a gang waits that gathers; while it stands, the gang goes on with it."""
BEHIND: Final = "behind_gang"
BLOCKED: Final = ("no_capacity", "fragmented", "quota_exceeded", REASON, BEHIND)

Candidate = tuple[int, bool, int, int, "Demand"]
"""(tier, not gathering yet, seniority and number of the head; demand)"""


def candidates(cell: Cell) -> list[Candidate]:
    """The gang of each accelerator type that gathers, of those that lacked room when last tried.

    One at a time: two that both hold a part of what they need may wait for each other for ever.
    """
    if not cell.policy.gathering:
        return []
    found: list[Candidate] = []
    for demand in cell.demands.values():
        if not demand.waiting or demand.reservation is not None or not demand.needs[0].gang:
            continue
        best: Candidate | None = None
        for shape in demand.shapes.values():
            job = shape.head() if shape.waiting and shape.reason in BLOCKED else None
            after_ms = cell.policy.gather_after_s[shape.tier] * 1000
            if job is not None and cell.now_ms - job.seniority_ms >= after_ms:
                fresh = shape.reason != REASON
                one = (shape.tier, fresh, job.seniority_ms, job.number, demand)
                best = one if best is None or one[:4] < best[:4] else best
        if best is not None:
            found.append(best)
    first: dict[str, Candidate] = {}
    for candidate in sorted(found, key=lambda c: c[:4]):
        first.setdefault(candidate[4].needs[0].accelerator, candidate)
    return list(first.values())


class Kept(NamedTuple):
    """What is hidden for a gang: nodes, and quota in thousandths of slots."""

    nodes: list[Node]
    quota: int


class Gathering:
    """The gangs that gather in one round, and what they hide."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.kept: dict[Demand, Kept] = {}
        self._fit: dict[int, bool] = {}
        """By need: does it fit on what is hidden now?"""
        self._waiting = candidates(cell)
        self._waiting.reverse()

    def begin(self, tier: int) -> bool:
        """Hide what gangs of this tier gather, now that all stronger ones have been served."""
        began = False
        while self._waiting and self._waiting[-1][0] <= tier:
            self.hide(self._waiting.pop()[4])
            began = True
        return began

    def hide(self, demand: Demand) -> None:
        self._fit.clear()
        need, account = demand.needs[0], demand.account
        type_ = need.accelerator
        available = account.available(type_)
        # Only what is its own, and only if that can be enough: what it may borrow is others' own.
        nominal = account.brings(type_)
        own = nominal - account.uses(type_) if nominal >= demand.size else 0
        quota = max(0, min(demand.size, own, available))
        in_hand = demand.size if available >= demand.size else quota
        account.charge(type_, quota)
        self.kept[demand] = Kept(_keep(self.cell, need, in_hand // MILLI), quota)

    def show(self, demand: Demand) -> None:
        """Let the gang see what was hidden for it."""
        self._fit.clear()
        kept = self.kept.pop(demand)
        demand.account.charge(demand.needs[0].accelerator, -kept.quota)
        for node in kept.nodes:
            node.kept = False
            self.cell.fabric.update(node)

    def end(self) -> None:
        for demand in list(self.kept):
            self.show(demand)

    def told(self, demand: Demand, blocked: Blocked) -> Blocked:
        """Why the demand waits: it gathers, or another gang does, or it is as it was."""
        if blocked.reason not in BLOCKED:
            return blocked
        if demand in self.kept:
            return Blocked(REASON, blocked.needed_milli, blocked.available_milli)
        if any(self._fits(need) for need in demand.needs):
            return Blocked(BEHIND, blocked.needed_milli, blocked.available_milli)
        return blocked

    def _fits(self, need: Need) -> bool:
        """True iff some replica of the need would fit on what is hidden."""
        found = self._fit.get(need.id)
        if found is None:
            slots = min(g.slots for g in need.groups)
            ids = {c.id for c in need.classes(self.cell)} if self.kept else ()
            found = self._fit[need.id] = any(
                node.class_.id in ids and node.class_.slots - node.used >= slots
                for kept in self.kept.values()
                for node in kept.nodes
            )
        return found


def _keep(cell: Cell, need: Need, slots: int) -> list[Node]:
    """Hide the free nodes of one domain that the gang would take, up to so many slots."""
    classes = need.classes(cell)
    best: tuple[int, tuple[str, ...]] | None = None
    domain: Domain | None = None
    asks = [(Ask(classes, g.slots, g.max_per_node), g) for g in need.groups]
    for one in cell.fabric.domains[min(need.required, RACK)]:
        held = sum(min(ask.holds(one), group.count) * group.slots for ask, group in asks)
        if held and (best is None or (-held, one.path) < best):
            best, domain = (-held, one.path), one
    nodes: list[Node] = []
    if domain is None:
        return nodes
    for group in sorted(need.groups, key=lambda g: -g.slots):
        most = min(group.count, slots // group.slots)
        slots -= most * group.slots
        for node in placement.roomiest(domain, classes, group, most):
            node.kept = True
            cell.fabric.update(node)
            nodes.append(node)
    return nodes
