"""Preemption at least cost: which whole gangs make room for a claim that is higher.

Why it cannot loop. A claim preempts only within its account's nominal quota. Its victims borrow, or
have a weaker tier. A victim that is placed again by preemption does so within its own nominal
quota, so what it takes is borrowed or weaker still. Order attempts by (within nominal, tier): each
preemption replaces some by one that stands strictly higher, never higher by a lower, and there are
finitely many places. Within a round, nothing that was preempted is placed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from domain.commands import TIERS
from domain.fabric import RACK, Domain, NodeClass
from domain.facts import Held, Victim
from domain.placement import nodes_of

if TYPE_CHECKING:
    from domain.jobs import Job, Run
    from domain.nodes import Node
    from domain.shapes import Demand, Shape
    from domain.turn import Turn

DOMAINS_COMPARED: Final = 8
"""Domains whose victims are counted exactly, of those that look cheapest."""


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


Eligible = dict["Run", int]
"""Attempts that may be preempted, with their cost in slot-seconds."""


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
    return {r: cost_of(r, now) for r in _running(turn)}


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

    def lower(self, tier: int, accelerator: str) -> Eligible:
        """Weaker tiers, and borrowers; with their costs. The same object while none is stopped."""
        found = self._lower.get((accelerator, tier))
        if found is None:
            now = self.turn.header.now_ms
            runs = [
                r for t in range(tier + 1, len(TIERS)) for r in self._old_enough(accelerator, t)
            ]
            runs.extend(self._borrowers(accelerator))
            found = {r: cost_of(r, now) for r in runs if not r.stop_by_ms}
            self._lower[(accelerator, tier)] = found
        return found

    def stopped(self) -> None:
        """Some victims were told to stop: what is left has to be found anew."""
        self._borrowed.clear()
        self._lower.clear()


def plan(turn: Turn, wanted: Wanted, eligible: Eligible) -> Plan | None:
    """The cheapest set of victims that makes room, or None if there is none."""
    if not eligible:
        return None
    by_node: dict[str, list[tuple[int, int, Run]]] = {}
    for run, cost in eligible.items():
        total = max(1, run.job.shape.slots)
        for id_, slots in run.slots_by_node().items():
            if slots:
                part = cost * 1000 // total
                by_node.setdefault(id_, []).append((part, run.job.number, run))
    for runs in by_node.values():
        runs.sort(key=lambda r: r[:2])
    domains = turn.cell.fabric.domains[min(wanted.level, RACK)]
    if wanted.within is not None:
        domains = [wanted.within]
    plans = []
    for domain in domains:
        turn.work -= 1
        found = _in_domain(turn, domain, wanted, by_node, eligible)
        if found is not None:
            plans.append(found)
    if not plans:
        return None
    plans.sort(key=lambda p: (p.cost, len(p.runs), p.domain.path))
    second = plans[1].cost if len(plans) > 1 else None
    return plans[0]._replace(candidates=len(plans), runner_up_cost=second)


def _in_domain(
    turn: Turn,
    domain: Domain,
    wanted: Wanted,
    by_node: dict[str, list[tuple[int, int, Run]]],
    eligible: Eligible,
) -> Plan | None:
    classes = {c.id for c in wanted.classes}
    nodes = [n for n in nodes_of(domain) if n.class_.id in classes and n.schedulable]
    free = {n: n.available for n in nodes}
    victims: dict[Run, None] = {}
    placed: list[tuple[Node, int, int]] = []
    for index, (count, slots, per_node) in enumerate(wanted.groups):
        left = count
        while left:
            best: tuple[int, int, int, Node, list[Run]] | None = None
            for node in nodes:
                room = _room(node, slots, free, by_node.get(node.id, ()), victims)
                if room is not None:
                    scored = (room[0], free[node], node.index, node, room[1])
                    if best is None or scored[:3] < best[:3]:
                        best = scored
            if best is None:
                return None
            *_, node, killed = best
            for run in killed:
                victims[run] = None
                for id_, held in run.slots_by_node().items():
                    other = turn.cell.nodes[id_]
                    if other in free:
                        free[other] += held
            replicas = min(free[node] // slots, per_node, left)
            free[node] -= replicas * slots
            left -= replicas
            placed.append((node, replicas, index))
            if replicas == per_node:
                nodes = [n for n in nodes if n is not node]
    _spare(turn, victims, free, eligible)
    runs = sorted(victims, key=lambda r: r.job.number)
    cost = sum(eligible[r] for r in runs)
    return Plan(cost, domain, placed, runs, turn.header.now_ms)


def _room(
    node: Node,
    slots: int,
    free: dict[Node, int],
    runs: Sequence[tuple[int, int, Run]],
    victims: dict[Run, None],
) -> tuple[int, list[Run]] | None:
    """Cost (thousandths) and victims that make room for one replica on the node."""
    got, cost = free[node], 0
    killed: list[Run] = []
    for part, _, run in runs:
        if got >= slots:
            break
        if run not in victims:
            own = node.runs[run]
            got += own
            cost += part * own
            killed.append(run)
    return (cost, killed) if got >= slots else None


def _spare(turn: Turn, victims: dict[Run, None], free: dict[Node, int], eligible: Eligible) -> None:
    """Let those victims live, the dearest first, whose slots turned out not to be needed."""
    for run in sorted(victims, key=lambda r: (-eligible[r], r.job.number)):
        parts = [(turn.cell.nodes[id_], n) for id_, n in run.slots_by_node().items()]
        if all(free.get(node, held) >= held for node, held in parts):
            for node, held in parts:
                if node in free:
                    free[node] -= held
            del victims[run]


def for_shape(turn: Turn, victims: Victims, shape: Shape, job: Job) -> tuple[int, Plan] | None:
    """(flavour, plan) by which the head of a blocked shape may claim its nominal quota, if it may.

    Waiting is paid for in slot-seconds, as a victim's loss is. To preempt as soon as the wait has
    cost as much as the loss is the rule of the ski rental: never more than twice the least cost.
    """
    waited_ms = turn.header.now_ms - job.seniority_ms
    delay_ms = turn.cell.policy.queue_delay_s[shape.tier] * 1000
    account = shape.queue.account
    for flavour, need in enumerate(shape.needs):
        if not need.plain or shape.spec.flavours[flavour].after_wait_s:
            continue
        if not account.within_nominal(need.accelerator, shape.size):
            continue
        eligible = victims.lower(shape.tier, need.accelerator)
        groups = tuple((g.count, g.slots, g.max_per_node or 1 << 30) for g in need.groups)
        found = plan(turn, Wanted(need.classes(turn.cell), groups, need.required), eligible)
        if found is not None:
            found = _with_quota(shape, need.accelerator, found, eligible)
            fair_ms = found.cost * 1000 // max(1, shape.slots)
            patience_ms = min(delay_ms, fair_ms)
            if waited_ms >= patience_ms:
                return flavour, found
            turn.cell.wake(job.seniority_ms + patience_ms)
    return None


def _with_quota(shape: Shape, accelerator: str, found: Plan, eligible: Eligible) -> Plan:
    """Add borrowers until the quota that the claim reclaims is free, too."""
    account = shape.queue.account
    short = shape.size - account.available(accelerator)
    runs: dict[Any, None] = dict.fromkeys(found.runs)
    freed = sum(r.job.shape.size for r in runs if _borrows(r, accelerator))
    for run, cost in sorted(eligible.items(), key=lambda e: (e[1], e[0].job.number)):
        if freed >= short:
            break
        if run not in runs and _borrows(run, accelerator):
            runs[run] = None
            freed += run.job.shape.size
            found = found._replace(cost=found.cost + cost)
    return found._replace(runs=sorted(runs, key=lambda r: r.job.number))


def _borrows(run: Run, accelerator: str) -> bool:
    return run.accelerator == accelerator and run.job.shape.queue.account.borrowed(accelerator) > 0
