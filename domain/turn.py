"""One turn of the decider: facts are emitted, and applied as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain import elastic
from domain.evolve import apply
from domain.facts import (
    AnyFact,
    AttemptEnded,
    AttemptStopping,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobRequeued,
    NodeDrained,
    ReservationUnbound,
)
from domain.jobs import MAX_BACKOFF_S
from domain.ledger import Header
from domain.pool import guarding
from domain.pool.facts import HandoffLapsed
from domain.pool.guard_facts import JobLeft

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.commands import OfferHandoff
    from domain.jobs import Job
    from domain.nodes import Node
    from domain.reservations import Reservation
    from domain.runs import Run


class Turn:
    """The cell, the round's header, and the facts of the round so far."""

    __slots__ = ("asked", "cell", "facts", "header", "work")

    def __init__(self, cell: Cell, header: Header) -> None:
        self.cell = cell
        self.header = header
        self.facts: list[AnyFact] = []
        self.asked: list[tuple[int, int, OfferHandoff]] = []
        """Peers' offers of the round: seniority of the job, index of the command, and the offer."""
        self.work = header.work
        """Work units left; a placement or a search for victims costs one or more."""

    def emit(self, fact: AnyFact) -> None:
        self.facts.append(fact)
        apply(self.cell, fact)

    def settle(self) -> None:
        """Bring what the rules of policies say up to date; it is paid for in units of work."""
        self.work -= self.cell.rulebook.settle(self.cell)

    def stop(self, run: Run, reason: str) -> None:
        """Ask for the attempt's end, which comes with its agents' report or with its grace."""
        if not run.started_ms:
            self.end(run, reason)
        elif run.part and not run.stop_by_ms:
            elastic.stop(self, run, reason)
        elif not run.stop_by_ms:
            # Not within this round: what makes room is not placed again by the round it does so.
            grace_ms = max(1, run.job.shape.spec.runtime.grace_s * 1000)
            stop_by = self.header.now_ms + grace_ms
            self.emit(AttemptStopping(run.job.id, run.attempt, reason, stop_by))

    def end(self, run: Run, reason: str) -> None:
        """End the attempt, and say what becomes of its job."""
        job = run.job
        parts = [] if run.part else list(job.parts.values())
        if run.part:
            elastic.end(self, run, reason)
        elif job.id in self.cell.pool.prepared:
            self.emit(HandoffLapsed(job.id, reason))
        else:
            lost = 0 if reason == "finished" else run.lost_slot_s(self.header.now_ms)
            self.emit(AttemptEnded(job.id, run.attempt, reason, lost))
            self.emit(guarding.ending(self.cell, self._after(job, reason)))
        for id_ in dict.fromkeys(placed[0] for r in (run, *parts) for placed in r.nodes):
            node = self.cell.nodes[id_]
            if node.draining:
                self._settle(node)

    def _after(self, job: Job, reason: str) -> AnyFact:
        guard = self.cell.pool.guards.of.get(job.id)
        if guard is not None and guard.taken:
            return JobLeft(job.id, guard.by)
        if reason == "finished":
            return JobFinished(job.id)
        if reason == "cancelled":
            return JobCancelled(job.id)
        if reason == "reservation_ended" and self._recurs(job):
            return JobRequeued(job.id, reason)
        if reason in ("overran", "reservation_ended"):
            return JobFailed(job.id, reason)
        if reason == "failed":
            if job.failures > job.shape.spec.max_restarts:
                return JobFailed(job.id, "failed")
            backoff_s = self.cell.policy.requeue_backoff_s << (job.failures - 1)
            not_before = self.header.now_ms + 1000 * min(backoff_s, MAX_BACKOFF_S)
            return JobRequeued(job.id, reason, not_before)
        return JobRequeued(job.id, reason)

    def _recurs(self, job: Job) -> bool:
        return self.cell.reservations[job.shape.spec.reservation or ""].recurs

    def _settle(self, node: Node) -> None:
        """A part of a draining node became free."""
        for reservation in sorted(node.held, key=lambda r: r.id):
            self.unbind(reservation, node)
        if not node.runs and not node.held:
            self.emit(NodeDrained(node.id))

    def unbind(self, reservation: Reservation, node: Node) -> None:
        """Take the node from the reservation, once no job in it uses the node."""
        if node.id not in reservation.used:
            self.emit(ReservationUnbound(reservation.id, node.id))
