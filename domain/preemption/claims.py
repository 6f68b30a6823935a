"""Preemption at least cost: which whole gangs make room for a claim that is higher.

Why it cannot loop. A claim preempts within its account's nominal quota: its victims borrow, or have
a weaker tier. Beyond it a claim preempts weaker tiers of its own account alone. A victim that is
placed again by preemption takes what is borrowed or weaker still. Order attempts by (within
nominal, tier): each preemption replaces some by one that stands strictly higher, never higher by a
lower, and there are finitely many places. Within a round, nothing that was preempted is placed
again. Beside that every claim may take what an elastic attempt has grown by, which claims nothing
in its turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from domain.nodes import WHOLE
from domain.preemption import consolidation, part_eviction, rule_eviction
from domain.preemption.eviction import Candidates, Eligible, Plan, Wanted, cost_of, plan
from domain.rules import MANY

if TYPE_CHECKING:
    from domain.jobs import Job
    from domain.placement import Blocked
    from domain.preemption.victims import Victims
    from domain.quota import Account
    from domain.runs import Run
    from domain.shapes import Need, Shape
    from domain.turn import Turn


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


def for_shape(
    turn: Turn, victims: Victims, shape: Shape, job: Job, blocked: Blocked
) -> tuple[int, Plan] | None:
    """(flavour, plan) by which the head of a blocked shape may preempt, if it may.

    Waiting is paid for in slot-seconds, as a victim's loss is. To preempt as soon as the wait has
    cost as much as the loss is the rule of the ski rental: never more than twice the least cost.
    """
    waited_ms = turn.header.now_ms - job.seniority_ms
    delay_s = shape.ruling.patience_s
    delay_ms = 1000 * (turn.cell.policy.queue_delay_s[shape.tier] if delay_s is None else delay_s)
    for flavour, need in enumerate(shape.needs):
        if not _may_claim(need) or shape.waits_s[flavour]:
            continue
        if shape.demand.below_ceiling(need.accelerator) < shape.size:
            continue
        free = sum(c.free for c in need.classes(turn.cell))
        lacking = max(0, shape.slots - free)
        for candidates in victims.of(shape, job, need.accelerator):
            if not _may_free_quota(shape, need.accelerator, candidates.held):
                continue  # a search for room is dear, and would be in vain
            patience_ms = _patience_ms(shape, lacking * victims.least_s(candidates))
            if waited_ms >= min(delay_ms, patience_ms):  # else nothing can be worth it yet
                found = _search(turn, shape, need, candidates)
                if found is None:
                    continue
                patience_ms = _patience_ms(shape, found.cost)
                if waited_ms >= min(delay_ms, patience_ms):
                    return flavour, found
            turn.cell.wake(job.seniority_ms + min(delay_ms, patience_ms))
        found = _moves(turn, victims, shape, need, blocked)
        if found is not None:  # what moves has to be worth it at any delay
            patience_ms = _patience_ms(shape, found.cost)
            if waited_ms >= patience_ms:
                return flavour, found
            turn.cell.wake(job.seniority_ms + patience_ms)
    return None


def _patience_ms(shape: Shape, cost_slot_s: int) -> int:
    """Until then a job of the shape has waited for as many slot-seconds."""
    return cost_slot_s * 1000 // max(1, shape.slots)


def _may_claim(need: Need) -> bool:
    """A claim holds whole slots, and waits for them; it holds no shares of devices."""
    return all(g.slots > 0 and g.share_milli == WHOLE for g in need.groups)


def _search(turn: Turn, shape: Shape, need: Need, candidates: Candidates) -> Plan | None:
    """What makes room and quota for a job of the shape."""
    for eligible in candidates.widening():
        if need.plain:
            found = plan(turn, _wanted(turn, need), eligible)
        elif need.ruled:
            found = rule_eviction.plan(turn, need, eligible)
        else:
            found = part_eviction.plan(turn, need, eligible)
        if found is not None:
            found = _with_quota(shape, need.accelerator, found, eligible)
        if found is not None:
            return found
    return None


def _moves(turn: Turn, victims: Victims, shape: Shape, need: Need, blocked: Blocked) -> Plan | None:
    """What makes room for a job of the shape by moving: it gives no quota."""
    if not need.plain or not consolidation.wanted(turn.cell, blocked):
        return None
    if shape.queue.account.available(need.accelerator) < shape.size:
        return None
    key = (need.id, shape.tier)
    if key not in victims.moves:
        movable = victims.movable(shape.tier, need.accelerator)
        found = plan(turn, _wanted(turn, need), movable)
        if found is not None and not consolidation.fits_elsewhere(turn.cell, found):
            found = None
        victims.moves[key] = found
    found = victims.moves[key]
    return None if found is None else found._replace(cause=consolidation.CAUSE)


def _wanted(turn: Turn, need: Need) -> Wanted:
    groups = tuple((g.count, g.slots, g.max_per_node or MANY) for g in need.groups)
    return Wanted(need.classes(turn.cell), groups, need.required)


def _may_free_quota(shape: Shape, accelerator: str, held: dict[Account, int]) -> bool:
    """False if the claim would lack quota though all that candidates hold were free."""
    account, size = shape.queue.account, shape.size
    if account.available(accelerator) >= size:
        return True
    for owner, amount in held.items():
        owner.charge(accelerator, -amount)
    then = account.available(accelerator)
    for owner, amount in held.items():
        owner.charge(accelerator, amount)
    return then >= size


def _with_quota(shape: Shape, accelerator: str, found: Plan, eligible: Eligible) -> Plan | None:
    """Add victims until the quota that the claim needs is free, too.

    What their ends give to the account is what the tree says once they are taken out of it: what
    others may not lend, or the account not borrow, is of no use to it.
    """
    account, size = shape.queue.account, shape.size
    runs: dict[Run, None] = {}
    for run in found.runs:
        _charge(run, -1)
        runs[run] = None
    available = account.available(accelerator)
    useless: dict[Account, None] = {}
    for run in eligible.by_cost() if available < size else ():
        owner = run.job.shape.queue.account
        if run in runs or run.stop_by_ms or owner in useless:
            continue
        _charge(run, -1)
        then = account.available(accelerator)
        if then <= available:
            _charge(run, 1)
            useless[owner] = None
            continue
        available, runs[run] = then, None
        found = found._replace(cost=found.cost + eligible.cost[run])
        if available >= size:
            break
    for run in runs:
        _charge(run, 1)
    if available < size:
        return None
    return found._replace(runs=sorted(runs, key=lambda r: r.order))


def _charge(run: Run, by: int) -> None:
    run.job.shape.queue.account.charge(run.accelerator, by * run.size)
