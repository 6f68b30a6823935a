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

from domain import consolidation, estimates, ordering, part_eviction, promises, rule_eviction
from domain.eviction import Eligible, Plan, Wanted, cost_of, plan
from domain.nodes import WHOLE
from domain.policies.effects import PPM
from domain.runs import SURPLUS
from domain.specs import TIERS

if TYPE_CHECKING:
    from domain.jobs import Job
    from domain.placement import Blocked
    from domain.quota import Account
    from domain.runs import Run
    from domain.shapes import Demand, Need, Shape
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


def _weighed(run: Run, now_ms: int) -> int:
    """The cost as rules of policies weigh it."""
    return cost_of(run, now_ms) * run.job.shape.ruling.loss_ppm // PPM


class Victims:
    """What may make room for shapes that claim their nominal quota, in one round."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.cell = turn.cell
        self._cost = _weighed if self.cell.rulebook.weighs else cost_of
        self._old: dict[tuple[str, int], list[Run]] = {}
        self._owned: dict[tuple[str, int], dict[Account, list[Run]]] = {}
        self._lower_own: dict[tuple[Account, str, int], Eligible] = {}
        self._borrowed: dict[str, list[Run]] = {}
        self._services: dict[tuple[Account, str, int], list[tuple[int, Run]]] = {}
        self._lower: dict[tuple[str, int, bool], Eligible] = {}
        self._movable: dict[tuple[str, int], Eligible] = {}
        self.moves: dict[tuple[int, int], Plan | None] = {}
        """By need and tier: what would have to move, as long as nothing was preempted since."""

    def _old_enough(self, accelerator: str, tier: int) -> list[Run]:
        """Attempts on a type in a tier that have had their minimum run time."""
        key = (accelerator, tier)
        found = self._old.get(key)
        if found is None:
            min_run_s = self.cell.policy.min_run_s[tier] if tier != SURPLUS else 0
            since = self.turn.header.now_ms - min_run_s * 1000
            found = self._old[key] = []
            oldest = self.turn.header.now_ms + 1
            protects = self.cell.rulebook.protects
            for run in self.cell.preemptible.get(key, ()):
                if run.stop_by_ms or not run.running_ms:
                    continue
                if run.running_ms <= since:
                    if not protects or not run.job.shape.ruling.protected:
                        found.append(run)
                elif run.running_ms < oldest:
                    oldest = run.running_ms
            if oldest <= self.turn.header.now_ms:  # a claim may have its victim from then on
                self.cell.wake(oldest + min_run_s * 1000)
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
                (self._cost(run, now), -run.job.number, -run.part, run)
                for tier in range(1, SURPLUS + 1)
                for run in (self._old_enough(accelerator, tier) if any(owing.values()) else ())
                if owing[run.job.shape.queue.account]
            ]
            for *_, run in sorted(runs, key=lambda r: r[:3]):
                account = run.job.shape.queue.account
                if owing[account] > 0:
                    owing[account] -= run.size
                    found.append(run)
        return found

    def weakest_preemptor(self, demand: Demand) -> int:
        """The weakest tier in which the demand may find victims; -1 if its shapes surely have none.

        Tiers that are not weaker than the strongest of them are not looked at.
        """
        rank = -1
        strongest = min(s.tier for s in demand.shapes.values())
        for need in demand.needs:
            if self.cell.preemptible.get((need.accelerator, SURPLUS)):
                return len(TIERS)
            within = demand.account.within_nominal(need.accelerator, demand.size)
            if within and self._borrowers(need.accelerator):
                return len(TIERS)
            for tier in range(len(TIERS) - 1, max(rank + 1, strongest), -1):
                if within and self._old_enough(need.accelerator, tier):
                    rank = tier - 1
                    break
                if self._own(demand.account, need.accelerator, tier):
                    rank = tier - 1
                    break
        return rank

    def of(self, shape: Shape, job: Job, accelerator: str) -> Iterator[Eligible]:
        """Victims of a claim by its quota and tier, then those that the policy's order offers."""
        account = shape.queue.account
        in_deficit = promises.in_deficit(self.cell, shape)
        if not in_deficit and shape.pledge is not None:
            promises.wake_when_turned(self.cell, shape.pledge, shape.tier)
        if account.within_nominal(accelerator, shape.size):
            yield self.lower(shape.tier, accelerator, in_deficit)
        else:
            yield self._own_lower(account, shape.tier, accelerator)
        policy = self.cell.policy
        if policy.yield_ratio_milli and policy.order != "seniority":
            yield self._yielding(shape, job, accelerator)

    def _yielding(self, shape: Shape, job: Job, accelerator: str) -> Eligible:
        """Attempts of the same account and tier that come after the job by the policy's factor."""
        policy, now = self.cell.policy, self.turn.header.now_ms
        own, ratio = max(1, ordering.service(self.cell, job, now)), policy.yield_ratio_milli
        least = -(-own * ratio // 1000)
        found: dict[Run, int] = {}
        if own >= ordering.UNKNOWN:  # whoever comes last has no claim on others
            return Eligible(found)
        for service, run in self._by_service(shape.queue.account, accelerator, shape.tier):
            other = run.job.shape
            if other.priority > shape.priority or run.stop_by_ms:
                continue
            if service >= least:
                found[run] = self._cost(run, now)
            elif policy.order == "earliest_deadline":  # the job's slack falls to its part of this
                self.cell.wake(now + own - service * 1000 // ratio)
                break
            elif policy.order == "least_attained" and other.slots:
                # it has had enough when it has held these
                slot_s = run.held_slot_s(now) + least - service
                self.cell.wake(run.started_ms - (-1000 * slot_s // other.slots))
            elif policy.order == "least_remaining" and run.job.estimate_s is None and other.slots:
                # it has as much before it as behind it once it has run longer than was expected
                self.cell.wake(
                    run.started_ms + 1000 * estimates.until_left_s(self.cell, run, least)
                )
        return Eligible(found)

    def _by_service(self, account: Account, accelerator: str, tier: int) -> list[tuple[int, Run]]:
        """Attempts of an account that are old enough; those that come last in the order first."""
        key = (account, accelerator, tier)
        found = self._services.get(key)
        if found is None:
            now = self.turn.header.now_ms
            runs = [
                (-ordering.service(self.cell, r.job, now), r.job.number, r)
                for r in self._own(account, accelerator, tier)
            ]
            runs.sort(key=lambda r: r[:2])
            found = self._services[key] = [(-minus, run) for minus, _, run in runs]
        return found

    def movable(self, tier: int, accelerator: str) -> Eligible:
        """Attempts of no stronger tier that may move."""
        key = (accelerator, tier)
        found = self._movable.get(key)
        if found is None:
            now = self.turn.header.now_ms
            runs = (r for t in range(tier, len(TIERS)) for r in self._old_enough(accelerator, t))
            runs = (r for r in runs if consolidation.may_move(r) and not r.stop_by_ms)
            runs = (r for r in runs if not promises.spared(self.cell, r))
            found = self._movable[key] = Eligible({r: self._cost(r, now) for r in runs})
        return found

    def _own(self, account: Account, accelerator: str, tier: int) -> list[Run]:
        """Attempts of an account on a type in a tier that are old enough."""
        key = (accelerator, tier)
        by_account = self._owned.get(key)
        if by_account is None:
            by_account = self._owned[key] = {}
            for run in self._old_enough(accelerator, tier):
                by_account.setdefault(run.job.shape.queue.account, []).append(run)
        return by_account.get(account, [])

    def _own_lower(self, account: Account, tier: int, accelerator: str) -> Eligible:
        """Weaker tiers of an account, and what elastic attempts of any have grown by.

        What an account gives to its own, it need not be lent.
        """
        key = (account, accelerator, tier)
        found = self._lower_own.get(key)
        if found is None:
            now = self.turn.header.now_ms
            tiers = range(tier + 1, len(TIERS))
            runs = [r for t in tiers for r in self._own(account, accelerator, t)]
            runs = [r for r in runs if not promises.spared(self.cell, r)]
            runs += self._old_enough(accelerator, SURPLUS)
            found = Eligible({r: self._cost(r, now) for r in runs if not r.stop_by_ms})
            self._lower_own[key] = found
        return found

    def lower(self, tier: int, accelerator: str, in_deficit: bool) -> Eligible:
        """Weaker tiers, and borrowers. Some may have been told to stop since, in this round.

        What promises spare is spared, unless the claim's own promise is not kept.
        """
        key = (accelerator, tier, in_deficit)
        found = self._lower.get(key)
        if found is None:
            now = self.turn.header.now_ms
            runs = [
                r for t in range(tier + 1, SURPLUS + 1) for r in self._old_enough(accelerator, t)
            ]
            if not in_deficit:
                runs = [r for r in runs if not promises.spared(self.cell, r)]
            runs.extend(self._borrowers(accelerator))
            found = Eligible({r: self._cost(r, now) for r in runs if not r.stop_by_ms})
            self._lower[key] = found
        return found


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
        for found in _plans(turn, victims, shape, job, need, blocked):
            patience_ms = found.cost * 1000 // max(1, shape.slots)
            if found.cause != consolidation.CAUSE:  # what moves has to be worth it at any delay
                patience_ms = min(delay_ms, patience_ms)
            if waited_ms >= patience_ms:
                return flavour, found
            turn.cell.wake(job.seniority_ms + patience_ms)
    return None


def _may_claim(need: Need) -> bool:
    """A claim holds whole slots, and waits for them; it holds no shares of devices."""
    return all(g.slots > 0 and g.share_milli == WHOLE for g in need.groups)


def _plans(
    turn: Turn, victims: Victims, shape: Shape, job: Job, need: Need, blocked: Blocked
) -> Iterator[Plan]:
    """What makes room and quota for the job, in the order in which it is to be taken."""
    groups = tuple((g.count, g.slots, g.max_per_node or 1 << 30) for g in need.groups)
    wanted = Wanted(need.classes(turn.cell), groups, need.required)
    for eligible in victims.of(shape, job, need.accelerator):
        if need.plain:
            found = plan(turn, wanted, eligible)
        elif need.ruled:
            found = rule_eviction.plan(turn, need, eligible)
        else:
            found = part_eviction.plan(turn, need, eligible)
        if found is not None:
            found = _with_quota(shape, need.accelerator, found, eligible)
        if found is not None:
            yield found
    if not need.plain or not consolidation.wanted(turn.cell, blocked):
        return
    if shape.queue.account.available(need.accelerator) < shape.size:
        return  # what moves gives no quota back
    key = (need.id, shape.tier)
    if key not in victims.moves:
        moves = plan(turn, wanted, victims.movable(shape.tier, need.accelerator))
        if moves is not None and not consolidation.fits_elsewhere(turn.cell, moves):
            moves = None
        victims.moves[key] = moves
    found = victims.moves[key]
    if found is not None:
        yield found._replace(cause=consolidation.CAUSE)


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
