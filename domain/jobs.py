"""Jobs and their attempts, from submission to the one end that each job has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from domain import deadlines, estimates, shapes
from domain.commands import AmendJob, CancelJob, PreemptJob
from domain.facts import (
    AttemptStopping,
    DeadlineInfeasible,
    JobAdmitted,
    JobAmended,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobRequeued,
    PreemptionDecided,
    Victim,
)
from domain.policies import admission
from domain.policies.attributes import Phase
from domain.pool import guarding
from domain.refusals import Refused
from domain.runs import JobState, Run

if TYPE_CHECKING:
    from domain.accounting import Entry
    from domain.cell import Cell
    from domain.ledger import Accepted
    from domain.shapes import Shape
    from domain.turn import Turn

MAX_JOBS: Final = 4_000_000
MAX_BACKOFF_S: Final = 3600


class Job:
    __slots__ = (
        "attained_slot_s",
        "attempts",
        "booked",
        "deadline_ms",
        "estimate_s",
        "failures",
        "hard",
        "id",
        "late",
        "lost_slot_s",
        "mark",
        "next_part",
        "not_before_ms",
        "number",
        "parts",
        "preempted_on",
        "preempted_then",
        "preemptions",
        "queued",
        "rank",
        "resumes",
        "run",
        "seniority_ms",
        "shape",
        "shrunk_ms",
    )
    kind = "job"

    def __init__(
        self, id_: str, number: int, shape: Shape, seniority_ms: int, estimate_s: int | None
    ) -> None:
        self.id = id_
        self.number = number
        """Order of admission in the cell."""
        self.shape = shape
        self.seniority_ms = seniority_ms
        """When it was admitted; kept through preemptions and failures."""
        self.estimate_s = estimate_s
        self.deadline_ms = 0
        """0: it has none."""
        self.hard = False
        self.late = False
        """It cannot be in time any more, as far as its estimate tells."""
        self.attempts = 0
        self.attained_slot_s = 0
        """Slot-seconds that its attempts have had, and among them those that were lost."""
        self.lost_slot_s = 0
        self.rank = 0
        """Its place in the line, by the policy's order; smaller first."""
        self.failures = 0
        self.preemptions = 0
        self.preempted_on = 0
        """The day (since the epoch) of the last preemption, and how many there were on it."""
        self.preempted_then = 0
        self.not_before_ms = 0
        """It backs off until then after an attempt failed."""
        self.resumes = False
        """An earlier attempt left a checkpoint."""
        self.booked: Entry | None = None
        self.queued = False
        """In the line of its shape."""
        self.run: Run | None = None
        self.parts: dict[int, Run] = {}
        """What an elastic attempt has grown by, in the order of growth."""
        self.next_part = 1
        self.shrunk_ms = 0
        self.mark = 0

    @property
    def status(self) -> JobState:
        return JobState.WAITING if self.run is None else self.run.status

    def state(self) -> tuple[object, ...]:
        return (
            self.id,
            self.number,
            self.shape.id,
            self.seniority_ms,
            self.estimate_s,
            (self.deadline_ms, self.hard, self.late) if self.deadline_ms else None,
            self.attempts,
            self.attained_slot_s,
            self.lost_slot_s,
            self.failures,
            self.preemptions,
            self.preempted_on,
            self.preempted_then,
            self.resumes,
            self.not_before_ms,
            self.run.state() if self.run else None,
            self._growth(),
        )

    def _growth(self) -> tuple[object, ...] | None:
        if self.next_part == 1:
            return None
        parts = [(number, part.state()) for number, part in self.parts.items()]
        return (self.next_part, self.shrunk_ms, parts)


# --- decide ---------------------------------------------------------------------------------------


def submit_job(turn: Turn, accepted: Accepted, at: int) -> None:
    cell = turn.cell
    key, own, estimate = cell.split(at)
    job = own["job"]
    if job in cell.jobs or cell.memory.knows_name(job) or cell.pool.knows(job):
        raise Refused("job_exists", "job", f"a job named {job!r} was submitted before")
    if len(cell.jobs) >= MAX_JOBS:
        raise Refused("too_many_jobs", "job", f"a cell holds at most {MAX_JOBS} live jobs")
    shape = cell.shape_of.get(key)
    spec = cell.check_shape(key, accepted) if shape is None else shape.spec
    verdict = admission.AS_ASKED
    if Phase.ADMIT in cell.rulebook.by_phase:
        verdict = admission.judge(cell, key, spec, own, estimate)
        if verdict.rules:
            shape = cell.shape_of.get(shapes.amended(key, verdict.tier, verdict.priority))
    late_ms = deadlines.check(turn, own, estimate)
    turn.emit(JobAdmitted(at, shape.id if shape else cell.next_shape, *verdict))
    if late_ms is not None:
        turn.emit(DeadlineInfeasible(job, late_ms))


def cancel_job(turn: Turn, command: CancelJob, at: int) -> None:
    job = known(turn, command.job)
    run = job.run
    if turn.cell.pool.guards.held_back(job.id):
        raise Refused("job_stopping", "job", "it has come to its end; its guardian is being asked")
    if run is None:
        turn.emit(guarding.ending(turn.cell, JobCancelled(job.id)))
    elif not run.started_ms:
        turn.end(run, "cancelled")
    elif run.stop_reason == "cancelled":
        raise Refused("job_stopping", "job", "it is being cancelled already")
    elif run.stop_by_ms:  # it stops for another reason, and must not come back
        turn.emit(AttemptStopping(job.id, run.attempt, "cancelled", run.stop_by_ms))
    else:
        turn.stop(run, "cancelled")


def amend_job(turn: Turn, command: AmendJob, at: int) -> None:
    job = known(turn, command.job)
    if job.run is not None or turn.cell.pool.guards.held_back(job.id):
        raise Refused("job_not_waiting", "job", "only a waiting job can be amended")
    key = shapes.amended(job.shape.key, command.tier, command.priority)
    shape = turn.cell.shape_of.get(key)
    turn.emit(JobAmended(at, shape.id if shape else turn.cell.next_shape))


def preempt_job(turn: Turn, command: PreemptJob, at: int) -> None:
    job = known(turn, command.job)
    run = job.run
    if run is None or not run.started_ms or run.stop_by_ms:
        raise Refused("job_not_running", "job", "it holds no slots that could be freed")
    cost = run.lost_slot_s(turn.header.now_ms)
    turn.emit(PreemptionDecided("", "operator", [Victim(job.id, run.attempt, cost)], 1))
    turn.stop(run, "preempted")


def known(turn: Turn, id_: str) -> Job:
    job, pool = turn.cell.jobs.get(id_), turn.cell.pool
    if job is None and id_ in pool.tombstones and pool.tombstones[id_].to:
        region = pool.tombstones[id_].to
        raise Refused("job_elsewhere", "job", f"it was handed over to region {region!r}")
    if job is None or id_ in pool.prepared:
        raise Refused("unknown_job", "job", f"no live job is named {id_!r}")
    return job


# --- evolve ---------------------------------------------------------------------------------------


def apply_admitted(cell: Cell, fact: JobAdmitted) -> None:
    key, own, estimate = cell.split(fact.command)
    if fact.rules:
        key = shapes.amended(key, fact.tier, fact.priority)
    shape = cell.shape_of.get(key) or cell.add_shape(key)
    job = Job(own["job"], cell.next_job, shape, cell.now_ms, estimate)
    deadlines.set_deadline(job, deadlines.of(own))
    cell.next_job += 1
    cell.jobs[job.id] = job
    shape.jobs += 1
    shape.queue.waiting += 1
    cell.join_line(job)
    guarding.entered(cell, job)
    cell.touch(job)


def apply_amended(cell: Cell, fact: JobAmended) -> None:
    command = cell.command(fact.command, AmendJob)
    job = cell.jobs[command.job]
    key = shapes.amended(job.shape.key, command.tier, command.priority)
    if command.estimate_s is not None:
        job.estimate_s = command.estimate_s
    if command.deadline is not None:
        deadlines.set_deadline(job, command.deadline)
    job.late = False
    old, queued = job.shape, job.queued
    if queued:
        old.leave(job)
    job.shape = cell.shape_of.get(key) or cell.add_shape(key)
    job.shape.jobs += 1
    if queued:
        cell.join_line(job)
    cell.leave_shape(old)
    guarding.amended(cell, job)
    cell.touch(job)


def apply_requeued(cell: Cell, fact: JobRequeued) -> None:
    job = cell.jobs[fact.job]
    job.not_before_ms = fact.not_before_ms
    if fact.not_before_ms:
        cell.timers.back_off(job)
    else:
        cell.join_line(job)
    cell.touch(job)


def apply_gone(cell: Cell, fact: JobFinished | JobFailed | JobCancelled) -> None:
    job = cell.jobs.pop(fact.job)
    job.not_before_ms = 0
    if job.queued:
        job.shape.leave(job)
    job.shape.queue.waiting -= 1
    cell.memory.remember_name(job.id, cell.now_ms)
    cell.pool.ended(cell, job)
    if isinstance(fact, JobFinished):
        estimates.ended(cell, job)
    cell.leave_shape(job.shape)
    cell.left(job)
