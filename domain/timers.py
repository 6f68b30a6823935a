"""What falls due without a command: leases, grace periods, limits, back-offs, windows, deadlines.

The heaps are derived from the state and may hold entries that no longer mean anything; an entry is
looked at again when its time comes. So a heap rebuilt from a snapshot gives the same answers.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

from domain import budgets, ordering, promises
from domain.policies import gates, signals
from domain.slots import ready_claims

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.jobs import Job
    from domain.nodes import Node
    from domain.runs import Run


class Timers:
    def __init__(self) -> None:
        self._leases: list[tuple[int, int, Node]] = []
        self._leaving: list[tuple[int, int, Node]] = []
        self._entries = count()
        self._runs: list[tuple[int, int, int, int, Run]] = []
        self._backoffs: list[tuple[int, int, Job]] = []
        self._deadlines: list[tuple[int, int, Job]] = []
        """Waiting jobs that have a deadline, by the moment from which on they are late."""
        self._most_deadlines = 1024
        """With more entries than this, those that mean nothing any more are dropped."""
        self._leased: dict[Node, int] = {}
        """Time of the one entry among the leases that counts, of each node that has one."""

    def lease(self, node: Node) -> None:
        if node.lease_until_ms and node not in self._leased:
            self._leased[node] = node.lease_until_ms
            heappush(self._leases, (node.lease_until_ms, next(self._entries), node))

    def no_lease(self, node: Node) -> None:
        node.lease_until_ms = 0
        self._leased.pop(node, None)

    def leave(self, node: Node) -> None:
        if node.leaves_ms and not node.draining:
            heappush(self._leaving, (node.leaves_ms, next(self._entries), node))

    def leaving_nodes(self, now_ms: int) -> list[Node]:
        """Nodes whose time is over, in the order of their indexes."""
        found: dict[Node, None] = {}
        while self._leaving and self._leaving[0][0] <= now_ms:
            due_ms, _, node = heappop(self._leaving)
            if node.leaves_ms == due_ms:
                found[node] = None
        return sorted(found, key=lambda n: n.index)

    def stop_by(self, run: Run) -> None:
        heappush(self._runs, (run.stop_by_ms, *run.order, run.attempt, run))

    def overrun(self, run: Run) -> None:
        max_s = run.job.shape.spec.runtime.max_s
        if max_s is not None:
            due = run.started_ms + max_s * 1000
            heappush(self._runs, (due, *run.order, run.attempt, run))

    def run(self, run: Run) -> None:
        """Whichever of the two the attempt waits for now."""
        (self.stop_by if run.stop_by_ms else self.overrun)(run)

    def back_off(self, job: Job) -> None:
        heappush(self._backoffs, (job.not_before_ms, job.number, job))

    def deadline(self, job: Job) -> None:
        if job.deadline_ms and not job.late:
            if len(self._deadlines) > self._most_deadlines:
                self._deadlines = [e for e in self._deadlines if _waits_in_time(e[2])]
                heapify(self._deadlines)
                self._most_deadlines = 1024 + 2 * len(self._deadlines)
            late_ms = ordering.latest_start_ms(job) + 1
            heappush(self._deadlines, (late_ms, job.number, job))

    def silent_nodes(self, now_ms: int) -> list[Node]:
        """Nodes whose lease has run out, in the order of their indexes."""
        silent = []
        while self._leases and self._leases[0][0] <= now_ms:
            due_ms, _, node = heappop(self._leases)
            if self._leased.get(node) != due_ms:
                continue
            del self._leased[node]
            if 0 < node.lease_until_ms <= now_ms:
                silent.append(node)
            else:
                self.lease(node)
        return sorted(silent, key=lambda n: n.index)

    def due_runs(self, now_ms: int) -> list[Run]:
        """Attempts whose grace or time limit has run out, in the order of their jobs."""
        due: dict[Run, None] = {}
        while self._runs and self._runs[0][0] <= now_ms:
            run = heappop(self._runs)[4]
            if run.live and _run_due_ms(run) <= now_ms:
                due[run] = None
        return sorted(due, key=lambda r: r.order)

    def rested_jobs(self, now_ms: int) -> list[Job]:
        """Jobs whose back-off is over."""
        rested: dict[Job, None] = {}
        while self._backoffs and self._backoffs[0][0] <= now_ms:
            job = heappop(self._backoffs)[2]
            if 0 < job.not_before_ms <= now_ms:
                rested[job] = None
        return list(rested)

    def late_jobs(self, now_ms: int) -> list[Job]:
        """Jobs that have become late while they wait, in the order of their numbers."""
        late: dict[Job, None] = {}
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            job = heappop(self._deadlines)[2]
            if _waits_in_time(job) and ordering.latest_start_ms(job) < now_ms:
                late[job] = None
        return sorted(late, key=lambda j: j.number)

    def next_ms(self) -> int | None:
        """The earliest entry; nothing need be due then."""
        while self._deadlines and not _waits_in_time(self._deadlines[0][2]):
            heappop(self._deadlines)
        heaps = (self._leases, self._leaving, self._runs, self._backoffs, self._deadlines)
        tops = [heap[0][0] for heap in heaps if heap]
        return min(tops) if tops else None


def _waits_in_time(job: Job) -> bool:
    return job.queued and not job.late


def _run_due_ms(run: Run) -> int:
    if run.stop_by_ms:
        return run.stop_by_ms
    max_s = run.job.shape.spec.runtime.max_s
    return run.started_ms + max_s * 1000 if max_s is not None else 1 << 62


def next_due_ms(cell: Cell) -> int | None:
    """Earliest moment at which a round without commands may have something to decide."""
    moments = [m for m in (cell.timers.next_ms(), cell.wake_ms) if m is not None]
    if ready_claims(cell):
        moments.append(cell.now_ms)
    handoffs_ms = cell.pool.next_ms(cell.now_ms)
    if handoffs_ms is not None:
        moments.append(handoffs_ms)
    moments.extend(m for m in (signals.next_ms(cell), gates.next_ms(cell)) if m is not None)
    edges = (cell.quota_edge_ms, budgets.next_ms(cell), promises.next_ms(cell))
    moments.extend(m for m in edges if m is not None)
    for reservation in cell.reservations.values():
        moment = reservation.next_ms(cell.now_ms)
        if moment is not None:
            moments.append(moment)
    moments.extend(one.next_ms() for one in cell.maintenances.values())
    for shape in cell.fallback_shapes.values():
        head = shape.head()
        if head is not None:
            waits = [head.seniority_ms + after_s * 1000 for after_s in shape.waits_s]
            moments.extend(m for m in waits if m > cell.now_ms)
    return min(moments) if moments else None
