"""Preemption at least cost: which whole gangs make room for a claim that is higher.

Why it cannot loop. A claim preempts only within its account's nominal quota. Its victims borrow, or
have a weaker tier. A victim that is placed again by preemption does so within its own nominal
quota, so what it takes is borrowed or weaker still. Order attempts by (within nominal, tier): each
preemption replaces some by one that stands strictly higher, never higher by a lower, and there are
finitely many places. Within a round, nothing that was preempted is placed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple

from domain import ordering
from domain.commands import TIERS
from domain.fabric import RACK, Domain, NodeClass
from domain.facts import Held, Victim
from domain.placement import nodes_of

if TYPE_CHECKING:
    from domain.jobs import Job, Run
    from domain.nodes import Node
    from domain.quota import Account
    from domain.shapes import Demand, Shape
    from domain.turn import Turn

NODES_A_UNIT: Final = 32
"""Nodes that are searched for victims at the cost of one unit of work."""


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

    @property
    def victims(self) -> list[Victim]:
        return [Victim(r.job.id, r.attempt, cost_of(r, self.now_ms)) for r in self.runs]

    def waits_for(self, *slots: int) -> list[Held]:
        """Slots by node that are not free yet; `slots` by group of the claim."""
        wanted: dict[Node, int] = {}
        for node, replicas, group in self.placed:
            wanted[node] = wanted.get(node, 0) + replicas * slots[group]
        return [(n.id, w - n.available) for n, w in wanted.items() if w > n.available]


class Eligible:
    """Attempts that may be preempted, with their cost in slot-seconds."""

    __slots__ = ("_by_node", "cost")

    def __init__(self, cost: dict[Run, int]) -> None:
        self.cost = cost
        self._by_node: dict[str, list[tuple[int, int, Run]]] | None = None

    def by_node(self) -> dict[str, list[tuple[int, int, Run]]]:
        """By node: (cost of a slot in thousandths, number of the job, attempt), cheapest first."""
        found = self._by_node
        if found is None:
            found = self._by_node = {}
            for run, cost in self.cost.items():
                part = cost * 1000 // max(1, run.job.shape.slots)
                for placed in run.nodes:
                    found.setdefault(placed[0], []).append((part, run.job.number, run))
            for runs in found.values():
                if len(runs) > 1:
                    runs.sort(key=lambda r: r[:2])
        return found


def cost_of(run: Run, now_ms: int) -> int:
    """Slot-seconds lost: since the last checkpoint, plus the time to restore it."""
    shape = run.job.shape
    return run.lost_slot_s(now_ms) + shape.slots * shape.spec.runtime.restore_s


def _running(turn: Turn) -> Iterator[Run]:
    """Attempts that may be stopped: started, not stopping, preemptible, in no reservation."""
    for runs in turn.cell.preemptible.values():
        for run in runs:
            if not run.stop_by_ms:
                yield run


def unreserved(turn: Turn) -> Eligible:
    """What may make room for a reservation's window: all preemptible work outside of one."""
    now = turn.header.now_ms
    return Eligible({r: cost_of(r, now) for r in _running(turn)})


class Victims:
    """What may make room for shapes that claim their nominal quota, in one round."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.cell = turn.cell
        self._old: dict[tuple[str, int], list[Run]] = {}
        self._borrowed: dict[str, list[Run]] = {}
        self._lower: dict[tuple[str, int], Eligible] = {}

    def _old_enough(self, accelerator: str, tier: int) -> list[Run]:
        """Attempts on a type in a tier that have had their minimum run time."""
        key = (accelerator, tier)
        found = self._old.get(key)
        if found is None:
            since = self.turn.header.now_ms - self.cell.policy.min_run_s[tier] * 1000
            runs = self.cell.preemptible.get(key, {})
            found = [r for r in runs if 0 < r.running_ms <= since and not r.stop_by_ms]
            self._old[key] = found
        return found

    def _borrowers(self, accelerator: str) -> list[Run]:
        """Attempts of accounts that borrow, cheapest first: of each no more than it borrows."""
        found = self._borrowed.get(accelerator)
        if found is None:
            found = self._borrowed[accelerator] = []
            accounts = self.cell.accounts.values()
            owing = {a: a.borrowed(accelerator) for a in accounts if a.queues}
            now = self.turn.header.now_ms
            runs = [
                (cost_of(run, now), -run.job.number, run)
                for tier in range(1, len(TIERS))
                for run in (self._old_enough(accelerator, tier) if any(owing.values()) else ())
                if owing[run.job.shape.queue.account]
            ]
            for _, _, run in sorted(runs, key=lambda r: r[:2]):
                account = run.job.shape.queue.account
                if owing[account] > 0:
                    owing[account] -= run.job.shape.size
                    found.append(run)
        return found

    def weakest_preemptor(self, demand: Demand) -> int:
        """The weakest tier in which the demand may find victims; -1 if there surely are none."""
        rank = -1
        for need in demand.needs:
            if demand.account.within_nominal(need.accelerator, demand.size):
                if self._borrowers(need.accelerator):
                    return len(TIERS)
                for tier in range(len(TIERS) - 1, rank + 1, -1):
                    if self._old_enough(need.accelerator, tier):
                        rank = tier - 1
                        break
        return rank

    def of(self, shape: Shape, job: Job, accelerator: str) -> Iterator[Eligible]:
        """Victims of a claim within nominal quota, then those that the policy's order offers."""
        if shape.queue.account.within_nominal(accelerator, shape.size):
            yield self.lower(shape.tier, accelerator)
        policy = self.cell.policy
        if policy.yield_ratio_milli and policy.order != "seniority":
            yield self._yielding(shape, job, accelerator)

    def _yielding(self, shape: Shape, job: Job, accelerator: str) -> Eligible:
        """Attempts of the same account and tier that come after the job by the policy's factor."""
        now, ratio = self.turn.header.now_ms, self.cell.policy.yield_ratio_milli
        least = max(1, ordering.service(self.cell, job, now)) * ratio
        found: dict[Run, int] = {}
        for run in self._old_enough(accelerator, shape.tier):
            other = run.job.shape
            same = other.queue.account is shape.queue.account
            if not same or other.priority > shape.priority or run.stop_by_ms:
                continue
            if ordering.service(self.cell, run.job, now) * 1000 >= least:
                found[run] = cost_of(run, now)
        return Eligible(found)

    def lower(self, tier: int, accelerator: str) -> Eligible:
        """Weaker tiers, and borrowers. Some may have been told to stop since, in this round."""
        found = self._lower.get((accelerator, tier))
        if found is None:
            now = self.turn.header.now_ms
            runs = [
                r for t in range(tier + 1, len(TIERS)) for r in self._old_enough(accelerator, t)
            ]
            runs.extend(self._borrowers(accelerator))
            found = Eligible({r: cost_of(r, now) for r in runs if not r.stop_by_ms})
            self._lower[(accelerator, tier)] = found
        return found


def plan(turn: Turn, wanted: Wanted, eligible: Eligible) -> Plan | None:
    """The cheapest set of victims that makes room, or None if there is none."""
    if not eligible.cost:
        return None
    classes = {c.id for c in wanted.classes}
    level = min(wanted.level, RACK)
    evictable: dict[Domain, list[Node]] = {}
    for id_ in eligible.by_node():
        node = turn.cell.nodes[id_]
        if node.schedulable and node.class_.id in classes:
            domain = node.rack
            while domain.level > level and domain.parent is not None:
                domain = domain.parent
            if wanted.within is None or domain is wanted.within:
                evictable.setdefault(domain, []).append(node)
    plans = []
    for domain in sorted(evictable, key=lambda d: d.path):
        turn.work -= 1 + len(evictable[domain]) // NODES_A_UNIT
        found = _Search(turn, domain, classes, evictable[domain], eligible).plan(wanted)
        if found is not None:
            plans.append(found)
    if not plans:
        return None
    plans.sort(key=lambda p: (p.cost, len(p.runs), p.domain.path))
    second = plans[1].cost if len(plans) > 1 else None
    return plans[0]._replace(candidates=len(plans), runner_up_cost=second)


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
        runs = sorted(self.victims, key=lambda r: r.job.number)
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
        """Cost (thousandths) and victims that make room for one replica on the node."""
        got, cost = self._free(node), 0
        killed: list[Run] = []
        for part, _, run in self.eligible.by_node().get(node.id, ()):
            if got >= slots:
                break
            own = node.runs.get(run, 0)
            if own and not run.stop_by_ms and run not in self.victims:
                got += own
                cost += part * own
                killed.append(run)
        return (cost, killed) if got >= slots else None

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
        for run in sorted(self.victims, key=lambda r: (-costs[r], r.job.number)):
            parts = [(self.turn.cell.nodes[i], n) for i, n in run.slots_by_node().items()]
            if all(self.free.get(node, held) >= held for node, held in parts):
                for node, held in parts:
                    if node in self.free:
                        self.free[node] -= held
                del self.victims[run]


def for_shape(turn: Turn, victims: Victims, shape: Shape, job: Job) -> tuple[int, Plan] | None:
    """(flavour, plan) by which the head of a blocked shape may preempt, if it may.

    Waiting is paid for in slot-seconds, as a victim's loss is. To preempt as soon as the wait has
    cost as much as the loss is the rule of the ski rental: never more than twice the least cost.
    """
    waited_ms = turn.header.now_ms - job.seniority_ms
    delay_ms = turn.cell.policy.queue_delay_s[shape.tier] * 1000
    for flavour, need in enumerate(shape.needs):
        if not need.plain or shape.spec.flavours[flavour].after_wait_s:
            continue
        groups = tuple((g.count, g.slots, g.max_per_node or 1 << 30) for g in need.groups)
        wanted = Wanted(need.classes(turn.cell), groups, need.required)
        for eligible in victims.of(shape, job, need.accelerator):
            found = plan(turn, wanted, eligible)
            if found is not None:
                found = _with_quota(shape, need.accelerator, found, eligible)
            if found is None:
                continue
            patience_ms = min(delay_ms, found.cost * 1000 // max(1, shape.slots))
            if waited_ms >= patience_ms:
                return flavour, found
            turn.cell.wake(job.seniority_ms + patience_ms)
    return None


def _with_quota(shape: Shape, accelerator: str, found: Plan, eligible: Eligible) -> Plan | None:
    """Add victims until the quota that the claim needs is free, too."""
    account = shape.queue.account
    short = shape.size - account.available(accelerator)
    runs: dict[Run, None] = dict.fromkeys(found.runs)
    freed = sum(r.job.shape.size for r in runs if _frees(r, account, accelerator))
    for run, cost in sorted(eligible.cost.items(), key=lambda e: (e[1], e[0].job.number)):
        if freed >= short:
            break
        if run not in runs and not run.stop_by_ms and _frees(run, account, accelerator):
            runs[run] = None
            freed += run.job.shape.size
            found = found._replace(cost=found.cost + cost)
    if freed < short:
        return None
    return found._replace(runs=sorted(runs, key=lambda r: r.job.number))


def _frees(run: Run, account: Account, accelerator: str) -> bool:
    """True iff the end of the attempt gives quota to the account."""
    owner = run.job.shape.queue.account
    if run.accelerator != accelerator:
        return False
    return owner is account or owner.borrowed(accelerator) > 0
