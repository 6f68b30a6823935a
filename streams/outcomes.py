"""What became of each job, and of the promises to it: two histories of one demand, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from msgspec import Struct

from domain.accounting import Use
from domain.cell import Cell
from domain.facts import (
    AttemptEnded,
    AttemptStarted,
    JobAdmitted,
    JobCancelled,
    JobFailed,
    JobFinished,
)
from domain.ledger import Round
from domain.pool.facts import HandoffAccepted, HandoffReleased
from domain.pool.guard_facts import JobAdopted, JobLeft
from domain.specs import TIERS
from streams.measure import mean_s, rank_s, submitted_of

MILLI_MS: Final = 1_000_000
"""Thousandths of slots x milliseconds in a slot-second."""

OCCUPIED: Final = (Use.PRODUCTIVE, Use.OVERHEAD, Use.LOST_PREEMPTED, Use.LOST_FAILED)


class Outcome(Struct):
    """One job, as far as the history goes."""

    account: str
    tier: int
    admitted_ms: int
    first_ms: int = -1
    """Its first start; -1: none yet."""
    started_ms: int = -1
    """Of the attempt that runs; -1: none does."""
    run_ms: int = 0
    ended_ms: int = -1
    end: str = ""
    preemptions: int = 0
    lost_slot_s: int = 0

    def waited_ms(self, now_ms: int) -> int:
        """All time between admission and end, or now, without a run."""
        until_ms = self.ended_ms if self.end else now_ms
        running_ms = until_ms - self.started_ms if self.started_ms >= 0 else 0
        return until_ms - self.admitted_ms - self.run_ms - running_ms


class Outcomes:
    """A fold over rounds; needs the cell right after each."""

    def __init__(self, cell: Cell) -> None:
        """`cell` is the state before the first round; its jobs count with what they waited."""
        self.jobs: dict[str, Outcome] = {}
        self.now_ms = cell.now_ms
        self._spent = _spent(cell)
        for job in cell.jobs.values():
            account = job.shape.queue.account.id
            outcome = self.jobs[job.id] = Outcome(account, job.shape.tier, job.seniority_ms)
            if job.shape.slots:
                outcome.run_ms = 1000 * job.attained_slot_s // job.shape.slots
            run = job.run
            if run is not None and run.started_ms:
                outcome.started_ms = run.started_ms
            if job.attempts > (0 if run is None or run.started_ms else 1):
                outcome.first_ms = job.seniority_ms  # before the window: nothing is promised in it

    def observe(self, round: Round, cell: Cell) -> None:
        self.now_ms = now_ms = round.header.now_ms
        for fact in round.facts:
            match fact:
                case JobAdmitted():
                    shape = cell.shapes.get(fact.shape)
                    if shape is None:
                        continue  # cancelled in the same round
                    name = submitted_of(bytes(round.commands[fact.command].data)).job
                    account = shape.queue.account.id
                    self.jobs[name] = Outcome(account, shape.tier, now_ms)
                case HandoffAccepted() | JobAdopted() if fact.job in cell.jobs:
                    job = cell.jobs[fact.job]
                    account = job.shape.queue.account.id
                    self.jobs[fact.job] = Outcome(account, job.shape.tier, job.seniority_ms)
                case AttemptStarted():
                    self._started(fact.job, now_ms)
                case AttemptEnded():
                    self._attempt_ended(fact, now_ms)
                case (
                    JobFinished() | JobFailed() | JobCancelled() | HandoffReleased() | JobLeft()
                ) if fact.job in self.jobs:
                    outcome = self.jobs[fact.job]
                    outcome.ended_ms, outcome.end = now_ms, type(fact).__name__

    def _started(self, job: str, now_ms: int) -> None:
        outcome = self.jobs[job]
        outcome.started_ms = now_ms
        if outcome.first_ms < 0:
            outcome.first_ms = now_ms

    def _attempt_ended(self, fact: AttemptEnded, now_ms: int) -> None:
        outcome = self.jobs[fact.job]
        outcome.lost_slot_s += fact.lost_slot_s
        if outcome.started_ms >= 0:
            outcome.run_ms += now_ms - outcome.started_ms
            outcome.started_ms = -1
            outcome.preemptions += fact.reason == "preempted"

    def cost(self, cell: Cell) -> dict[str, dict[str, int]]:
        """Slot-seconds since the first round, of work, by account: all, and what was lost."""
        spent = {}
        for account, now in sorted(_spent(cell).items()):
            before = self._spent.get(account, (0, 0))
            all_, lost = now[0] - before[0], now[1] - before[1]
            spent[account] = {"slot_s": all_ // MILLI_MS, "lost_slot_s": lost // MILLI_MS}
        return spent


def _spent(cell: Cell) -> dict[str, tuple[int, int]]:
    """By account, thousandths of slots x milliseconds of work, and of it what was lost."""
    spent: dict[str, tuple[int, int]] = {}
    for book in cell.books.values():
        if not book.owner:
            continue
        totals = book.totals(cell.now_ms)
        all_, lost = spent.get(book.owner, (0, 0))
        all_ += sum(totals[use] for use in OCCUPIED)
        lost += totals[Use.LOST_PREEMPTED] + totals[Use.LOST_FAILED]
        spent[book.owner] = (all_, lost)
    return spent


# --- promises -------------------------------------------------------------------------------------

Promise = Callable[[Outcome, int], bool | None]
"""Whether it was kept by a moment; None: that is not decided yet, or nothing was promised."""


def queue_delay(within_s: tuple[int, ...]) -> Promise:
    """A first start within so many seconds of the admission, by tier."""

    def kept(outcome: Outcome, now_ms: int) -> bool | None:
        due_ms = outcome.admitted_ms + 1000 * within_s[outcome.tier]
        if outcome.first_ms >= 0:
            return outcome.first_ms <= due_ms
        return False if not outcome.end and now_ms > due_ms else None

    return kept


def judged(outcomes: Outcomes, promise: Promise) -> dict[str, dict[str, int]]:
    """Jobs by tier: whose promise was kept, broken, or is open."""
    words = {True: "kept", False: "broken", None: "open"}
    found = {tier: Counter[str]() for tier in TIERS}
    for outcome in outcomes.jobs.values():
        found[TIERS[outcome.tier]][words[promise(outcome, outcomes.now_ms)]] += 1
    return {
        tier.value: {word: counts[word] for word in words.values()}
        for tier, counts in found.items()
        if counts
    }


# --- tables ---------------------------------------------------------------------------------------


def by_tier(outcomes: Outcomes) -> dict[str, dict[str, Any]]:
    ranks: dict[int, list[Outcome]] = {}
    for outcome in outcomes.jobs.values():
        ranks.setdefault(outcome.tier, []).append(outcome)
    return {TIERS[rank].value: _figures(ranks[rank], outcomes.now_ms) for rank in sorted(ranks)}


def by_account(outcomes: Outcomes) -> dict[str, dict[str, Any]]:
    owners: dict[str, list[Outcome]] = {}
    for outcome in outcomes.jobs.values():
        owners.setdefault(outcome.account, []).append(outcome)
    return {owner: _figures(owners[owner], outcomes.now_ms) for owner in sorted(owners)}


def _figures(jobs: Iterable[Outcome], now_ms: int) -> dict[str, Any]:
    found = list(jobs)
    waited = sorted(o.waited_ms(now_ms) for o in found)
    completed = [o.ended_ms - o.admitted_ms for o in found if o.end == JobFinished.__name__]
    return {
        "jobs": len(found),
        "finished": len(completed),
        "queue_mean_s": mean_s(waited),
        "queue_p50_s": rank_s(waited, 50),
        "queue_p99_s": rank_s(waited, 99),
        "jct_mean_s": mean_s(completed),
        "preemptions": sum(o.preemptions for o in found),
        "lost_slot_s": sum(o.lost_slot_s for o in found),
    }
