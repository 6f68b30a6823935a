"""What may make room for a claim: weaker tiers, borrowers, and what the policy's order offers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from domain import estimates, ordering, promises
from domain.policies.effects import PPM
from domain.preemption import consolidation
from domain.preemption.eviction import Candidates, Eligible, Plan, cost_of
from domain.preemption.preemptible import dearness_ms, merged
from domain.runs import SURPLUS
from domain.specs import TIERS

if TYPE_CHECKING:
    from domain.jobs import Job
    from domain.preemption.preemptible import Entry
    from domain.quota import Account
    from domain.runs import Run
    from domain.shapes import Demand, Shape
    from domain.turn import Turn


def _weighed(run: Run, now_ms: int) -> int:
    """The cost as rules of policies weigh it."""
    return cost_of(run, now_ms) * run.job.shape.ruling.loss_ppm // PPM


class Victims:
    """What may make room for claims in one round; each question is answered once."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.cell = turn.cell
        self._cost = _weighed if self.cell.rulebook.weighs else cost_of
        self._since: dict[tuple[str, int], int] = {}
        self._owed: dict[str, dict[Account, int]] = {}
        self._ranks: dict[tuple[Account | None, str, int], int] = {}
        self._any: dict[tuple[Account | None, str, int], bool] = {}
        self._lower: dict[tuple[str, int, bool], Candidates] = {}
        self._own_lower: dict[tuple[Account, str, int], Candidates] = {}
        self._services: dict[tuple[Account, str, int], list[tuple[int, Run]]] = {}
        self._movable: dict[tuple[str, int], Eligible] = {}
        self.moves: dict[tuple[int, int], Plan | None] = {}
        """By need and tier: what would have to move, as long as nothing was preempted since."""

    def end(self) -> None:
        """The searches hold this object: let go of them, so that no garbage collector has to."""
        self._lower.clear()
        self._own_lower.clear()

    def weakest_preemptor(self, demand: Demand) -> int:
        """The weakest tier in which the demand may find victims; -1 if its shapes surely have none.

        Tiers that are not weaker than the strongest of them are not looked at.
        """
        found = -1
        for need in demand.needs:  # max() takes longer on machine code, and this is asked often
            found = max(found, self._weakest(demand, need.accelerator, demand.strongest))
        return found

    def _weakest(self, demand: Demand, accelerator: str, strongest: int) -> int:
        within = demand.account.within_nominal(accelerator, demand.size)
        key = (None if within else demand.account, accelerator, strongest)
        rank = self._ranks.get(key)
        if rank is None:
            rank = self._ranks[key] = self._found_weakest(*key)
        return rank

    def _found_weakest(self, account: Account | None, accelerator: str, strongest: int) -> int:
        """With an account its own weaker tiers are all that there is, beside what has grown."""
        if self.cell.preemptible.get((accelerator, SURPLUS)):
            return len(TIERS)
        if account is None and self._has_borrower(accelerator):
            return len(TIERS)
        for tier in range(len(TIERS) - 1, strongest, -1):
            if self._has_old_enough(account, accelerator, tier):
                return tier - 1
        return -1

    def of(self, shape: Shape, job: Job, accelerator: str) -> Iterator[Candidates]:
        """Victims of a claim by its quota and tier, then those that the policy's order offers."""
        account = shape.queue.account
        in_deficit = promises.in_deficit(self.cell, shape)
        if not in_deficit and shape.pledge is not None:
            promises.wake_when_turned(self.cell, shape.pledge, shape.tier)
        if account.within_nominal(accelerator, shape.size):
            yield self.lower(shape.tier, accelerator, in_deficit)
        else:
            yield self._lower_of(account, shape.tier, accelerator)
        policy = self.cell.policy
        if policy.yield_ratio_milli and policy.order != "seniority":
            yield self._yielding(shape, job, accelerator)

    def least_s(self, candidates: Candidates) -> int:
        """What any of them loses at least for each of its slots, in whole seconds."""
        first = candidates.first()
        if first is None or self.cell.rulebook.weighs:
            return 0
        return max(0, self.turn.header.now_ms + dearness_ms(first)) // 1000

    # --- by quota and tier ------------------------------------------------------------------------

    def lower(self, tier: int, accelerator: str, in_deficit: bool) -> Candidates:
        """Weaker tiers, and borrowers. Some may have been told to stop since, in this round.

        What promises spare is spared, unless the claim's own promise is not kept.
        """
        key = (accelerator, tier, in_deficit)
        found = self._lower.get(key)
        if found is None:
            held: dict[Account, int] = {}
            for (type_, weaker), preemptible in self.cell.preemptible.items():
                if type_ == accelerator:
                    for owner, size in preemptible.held.items():
                        if weaker > tier or owner in self._owing(accelerator):
                            held[owner] = held.get(owner, 0) + size
            runs = self._weaker(tier, accelerator, in_deficit)
            found = self._lower[key] = Candidates(runs, self._cost_now, held)
        return found

    def _weaker(self, tier: int, accelerator: str, in_deficit: bool) -> Iterator[Run]:
        for run, borrows in self._with_borrowers(accelerator, tier):
            if borrows or (run.tier > tier and (in_deficit or not promises.spared(self.cell, run))):
                yield run

    def _with_borrowers(self, accelerator: str, tier: int) -> Iterator[tuple[Run, bool]]:
        """Attempts, cheapest first, and whether they borrow: of each account no more than it does.

        Attempts of weaker tiers, and of all but the strongest those of accounts that borrow.
        """
        owing = dict(self._owing(accelerator))
        lists = self._known(accelerator, range(tier + 1, SURPLUS + 1))
        for account in owing:
            lists += self._known(accelerator, range(1, tier + 1), account)
        for run in self._old_of(lists):
            account = run.job.shape.queue.account
            borrows = account in owing
            if borrows:
                owing[account] -= run.size
                if owing[account] <= 0:
                    del owing[account]
            yield run, borrows

    def _owing(self, accelerator: str) -> dict[Account, int]:
        """What accounts borrow, in thousandths of slots."""
        found = self._owed.get(accelerator)
        if found is None:
            accounts = (a for a in self.cell.accounts.values() if a.queues)
            owed = ((a, a.borrowed(accelerator)) for a in accounts)
            found = self._owed[accelerator] = {a: amount for a, amount in owed if amount > 0}
        return found

    def _has_borrower(self, accelerator: str) -> bool:
        return any(
            self._has_old_enough(account, accelerator, tier)
            for account in self._owing(accelerator)
            for tier in range(1, SURPLUS + 1)
        )

    def _lower_of(self, account: Account, tier: int, accelerator: str) -> Candidates:
        """Weaker tiers of an account, and what elastic attempts of any have grown by.

        What an account gives to its own, it need not be lent.
        """
        key = (account, accelerator, tier)
        found = self._own_lower.get(key)
        if found is None:
            grown = self.cell.preemptible.get((accelerator, SURPLUS))
            held = dict(grown.held) if grown is not None else {}
            for weaker in range(tier + 1, len(TIERS)):
                preemptible = self.cell.preemptible.get((accelerator, weaker))
                if preemptible is not None:
                    more = preemptible.held.get(account, 0)
                    held[account] = held.get(account, 0) + more
            runs = self._weaker_of(account, tier, accelerator)
            found = self._own_lower[key] = Candidates(runs, self._cost_now, held)
        return found

    def _weaker_of(self, account: Account, tier: int, accelerator: str) -> Iterator[Run]:
        own = self._known(accelerator, range(tier + 1, len(TIERS)), account)
        for run in self._old_of(own + self._known(accelerator, (SURPLUS,))):
            if not promises.spared(self.cell, run):
                yield run

    # --- by the policy's order --------------------------------------------------------------------

    def _yielding(self, shape: Shape, job: Job, accelerator: str) -> Candidates:
        """Attempts of the same account and tier that come after the job by the policy's factor."""
        policy, now = self.cell.policy, self.turn.header.now_ms
        own, ratio = max(1, ordering.service(self.cell, job, now)), policy.yield_ratio_milli
        least = -(-own * ratio // 1000)
        found: dict[Run, int] = {}
        if own >= ordering.UNKNOWN:  # whoever comes last has no claim on others
            return Candidates(found, found.__getitem__, {})
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
        held = {shape.queue.account: sum(run.size for run in found)}
        return Candidates(sorted(found, key=dearness_ms), found.__getitem__, held)

    def _by_service(self, account: Account, accelerator: str, tier: int) -> list[tuple[int, Run]]:
        """Attempts of an account that are old enough; those that come last in the order first."""
        key = (account, accelerator, tier)
        found = self._services.get(key)
        if found is None:
            now = self.turn.header.now_ms
            runs = [
                (-ordering.service(self.cell, r.job, now), r.job.number, r)
                for r in self._old_enough(accelerator, (tier,), account)
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
            runs = self._old_enough(accelerator, range(tier, len(TIERS)))
            runs = (r for r in runs if consolidation.may_move(r))
            runs = (r for r in runs if not promises.spared(self.cell, r))
            found = self._movable[key] = Eligible({r: self._cost(r, now) for r in runs})
        return found

    # --- who has run long enough ------------------------------------------------------------------

    def _old_enough(
        self, accelerator: str, tiers: Iterable[int], account: Account | None = None
    ) -> Iterator[Run]:
        """Attempts, of an account or of all, that have had their minimum run time, in order."""
        return self._old_of(self._known(accelerator, tiers, account))

    def _old_of(self, lists: list[list[Entry]]) -> Iterator[Run]:
        for entry in merged(lists):  # a generator expression would be a list on machine code
            if self._may_go(entry[3]):
                yield entry[3]

    def _known(
        self, accelerator: str, tiers: Iterable[int], account: Account | None = None
    ) -> list[list[Entry]]:
        """By tier those in order: all that have had their minimum run time are."""
        return [self._entries(accelerator, tier, account) for tier in tiers]

    def _entries(self, accelerator: str, tier: int, account: Account | None) -> list[Entry]:
        preemptible = self.cell.preemptible.get((accelerator, tier))
        if preemptible is None:
            return []
        self._since_ms(accelerator, tier)
        ordered = preemptible.ordered if account is None else preemptible.by_account.get(account)
        return ordered.entries if ordered is not None else []

    def _may_go(self, run: Run) -> bool:
        if run.running_ms > self._since_ms(run.accelerator, run.tier) or run.stop_by_ms:
            return False
        return not (self.cell.rulebook.protects and run.job.shape.ruling.protected)

    def _since_ms(self, accelerator: str, tier: int) -> int:
        """Attempts that began to run after this have not had their minimum run time.

        The others stand in order from the first call on.
        """
        key = (accelerator, tier)
        since = self._since.get(key)
        if since is None:
            min_run_ms = 1000 * self.cell.policy.min_run_s[tier] if tier != SURPLUS else 0
            since = self._since[key] = self.turn.header.now_ms - min_run_ms
            preemptible = self.cell.preemptible[key]
            preemptible.grow_old(since)
            young_ms = preemptible.began_after(since)
            if young_ms is not None:  # a claim may have its victim from then on
                self.cell.wake(young_ms + min_run_ms)
        return since

    def _has_old_enough(self, account: Account | None, accelerator: str, tier: int) -> bool:
        key = (account, accelerator, tier)
        found = self._any.get(key)
        if found is None:
            found = any(True for _ in self._old_enough(accelerator, (tier,), account))
            self._any[key] = found
        return found

    def _cost_now(self, run: Run) -> int:
        return self._cost(run, self.turn.header.now_ms)
