"""Jobs and their attempts, from submission to the one end that each job has."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from domain import shapes
from domain.commands import AmendJob, CancelJob, PreemptJob, ReportAttempt, ReportCheckpoint
from domain.facts import (
    AttemptEnded,
    AttemptReported,
    AttemptRunning,
    AttemptStarted,
    AttemptStopping,
    CheckpointRecorded,
    Held,
    JobAdmitted,
    JobAmended,
    JobCancelled,
    JobClaimed,
    JobFailed,
    JobFinished,
    JobRequeued,
    Placed,
    PreemptionDecided,
    Victim,
)
from domain.refusals import Refused

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.ledger import Accepted
    from domain.reservations import Reservation
    from domain.shapes import Shape
    from domain.turn import Turn

MAX_JOBS: Final = 4_000_000
MAX_BACKOFF_S: Final = 3600


class JobState(IntEnum):
    WAITING = 0
    CLAIMED = 1
    """Slots are held; some of them are still in use by others."""
    STARTING = 2
    RUNNING = 3
    STOPPING = 4


class Job:
    __slots__ = (
        "attained_slot_s",
        "attempts",
        "estimate_s",
        "failures",
        "id",
        "lost_slot_s",
        "mark",
        "not_before_ms",
        "number",
        "preemptions",
        "queued",
        "rank",
        "run",
        "seniority_ms",
        "shape",
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
        self.attempts = 0
        self.attained_slot_s = 0
        """Slot-seconds that its attempts have had, and among them those that were lost."""
        self.lost_slot_s = 0
        self.rank = 0
        """Its place in the line, by the policy's order; smaller first."""
        self.failures = 0
        self.preemptions = 0
        self.not_before_ms = 0
        """It backs off until then after an attempt failed."""
        self.queued = False
        """In the line of its shape."""
        self.run: Run | None = None
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
            self.attempts,
            self.attained_slot_s,
            self.lost_slot_s,
            self.failures,
            self.preemptions,
            self.not_before_ms,
            self.run.state() if self.run else None,
        )


class Run:
    """A job's current attempt: the slots that are its own, or that it waits for."""

    __slots__ = (
        "accelerator",
        "attempt",
        "checkpoint_ms",
        "flavour",
        "job",
        "missing",
        "nodes",
        "reported",
        "reservation",
        "running_ms",
        "started_ms",
        "stop_by_ms",
        "stop_reason",
    )

    def __init__(self, job: Job, attempt: int, flavour: int, nodes: list[Placed]) -> None:
        self.job = job
        self.attempt = attempt
        self.flavour = flavour
        self.accelerator = job.shape.needs[flavour].accelerator
        self.nodes = nodes
        self.missing: dict[str, int] = {}
        """Of a claim: slots by node that others still use."""
        self.started_ms = 0
        self.running_ms = 0
        self.checkpoint_ms = 0
        """The work until then is safe; 0: none is."""
        self.stop_by_ms = 0
        self.stop_reason = ""
        self.reported: set[str] = set()
        """Nodes whose agents reported the end of their part."""
        self.reservation: Reservation | None = None

    @property
    def status(self) -> JobState:
        if self.stop_by_ms:
            return JobState.STOPPING
        if not self.started_ms:
            return JobState.CLAIMED
        return JobState.RUNNING if self.running_ms else JobState.STARTING

    def slots_by_node(self) -> dict[str, int]:
        """Whole slots by node; shared devices are counted by their node."""
        groups = self.job.shape.spec.groups
        slots: dict[str, int] = {}
        for node, replicas, group, device in self.nodes:
            own = replicas * groups[group].slots if device < 0 else 0
            slots[node] = slots.get(node, 0) + own
        return slots

    def lost_slot_s(self, now_ms: int) -> int:
        """Slot-seconds of work that would be lost if it ended now."""
        if not self.running_ms:
            return 0
        since = max(self.running_ms, self.checkpoint_ms)
        return self.job.shape.slots * max(0, now_ms - since) // 1000

    def held_slot_s(self, now_ms: int) -> int:
        """Slot-seconds of the attempt so far."""
        since = self.started_ms or now_ms
        return self.job.shape.slots * max(0, now_ms - since) // 1000

    def state(self) -> tuple[object, ...]:
        return (
            self.attempt,
            self.flavour,
            self.nodes,
            sorted(self.missing.items()),
            self.started_ms,
            self.running_ms,
            self.checkpoint_ms,
            self.stop_by_ms,
            self.stop_reason,
            sorted(self.reported),
            self.reservation.id if self.reservation else None,
        )


# --- decide ---------------------------------------------------------------------------------------


def submit_job(turn: Turn, accepted: Accepted, at: int) -> None:
    cell = turn.cell
    key, own, _ = shapes.split(accepted.data)
    job = own["job"]
    if job in cell.jobs or cell.memory.knows_name(job):
        raise Refused("job_exists", "job", f"a job named {job!r} was submitted before")
    if len(cell.jobs) >= MAX_JOBS:
        raise Refused("too_many_jobs", "job", f"a cell holds at most {MAX_JOBS} live jobs")
    shape = cell.shape_of.get(key)
    if shape is None:
        shape_id = cell.next_shape
        cell.check_shape(key, accepted)
    else:
        shape_id = shape.id
    turn.emit(JobAdmitted(at, shape_id))


def cancel_job(turn: Turn, command: CancelJob, at: int) -> None:
    job = _known(turn, command.job)
    run = job.run
    if run is None:
        turn.emit(JobCancelled(job.id))
    elif not run.started_ms:
        turn.end(run, "cancelled")
    elif run.stop_reason == "cancelled":
        raise Refused("job_stopping", "job", "it is being cancelled already")
    elif run.stop_by_ms:  # it stops for another reason, and must not come back
        turn.emit(AttemptStopping(job.id, run.attempt, "cancelled", run.stop_by_ms))
    else:
        turn.stop(run, "cancelled")


def amend_job(turn: Turn, command: AmendJob, at: int) -> None:
    job = _known(turn, command.job)
    if job.run is not None:
        raise Refused("job_not_waiting", "job", "only a waiting job can be amended")
    key = shapes.amended(job.shape.key, command.tier, command.priority)
    shape = turn.cell.shape_of.get(key)
    turn.emit(JobAmended(at, shape.id if shape else turn.cell.next_shape))


def preempt_job(turn: Turn, command: PreemptJob, at: int) -> None:
    job = _known(turn, command.job)
    run = job.run
    if run is None or not run.started_ms or run.stop_by_ms:
        raise Refused("job_not_running", "job", "it holds no slots that could be freed")
    cost = run.lost_slot_s(turn.header.now_ms)
    turn.emit(PreemptionDecided("", "operator", [Victim(job.id, run.attempt, cost)], 1))
    turn.stop(run, "preempted")


def report_attempt(turn: Turn, command: ReportAttempt, at: int) -> None:
    run = _live_run(turn, command.job, command.attempt)
    names = {placed[0] for placed in run.nodes}
    if not names.issuperset(command.nodes):
        raise Refused("not_its_node", "nodes", "the attempt has no part on some of these nodes")
    if command.state == "running":
        if not run.running_ms and not run.stop_by_ms:
            turn.emit(AttemptRunning(at, run.job.id))
    elif command.state == "failed" and not run.stop_by_ms:
        turn.end(run, "failed")
    elif not command.nodes or names <= run.reported.union(command.nodes):
        turn.end(run, _reason_of_end(run, command.state))
    else:
        turn.emit(AttemptReported(at, run.job.id))


def _reason_of_end(run: Run, state: str) -> str:
    if state == "finished":
        return "finished"
    return run.stop_reason or ("failed" if state == "failed" else "preempted")


def report_checkpoint(turn: Turn, command: ReportCheckpoint, at: int) -> None:
    run = _live_run(turn, command.job, command.attempt)
    if not run.checkpoint_ms < command.at_ms <= turn.header.now_ms:
        raise Refused("stale_checkpoint", "at_ms", "it must be newer than the last, and not ahead")
    turn.emit(CheckpointRecorded(at, run.job.id))


def expire_stops(turn: Turn) -> None:
    """Attempts that did not stop in their grace period count as ended; overrunning ones stop.

    What is beyond the round's work stays due.
    """
    timers = turn.cell.timers
    for run in timers.due_runs(turn.header.now_ms):
        if turn.work <= 0:
            timers.run(run)
            continue
        turn.work -= 1
        if run.stop_by_ms:
            turn.end(run, run.stop_reason)
        else:
            turn.stop(run, "overran")


def start_ready_claims(turn: Turn) -> None:
    """Claims whose slots have all become free turn into attempts."""
    for run in turn.cell.ready_claims():
        turn.emit(AttemptStarted(run.job.id, run.attempt))


def _known(turn: Turn, id_: str) -> Job:
    job = turn.cell.jobs.get(id_)
    if job is None:
        raise Refused("unknown_job", "job", f"no live job is named {id_!r}")
    return job


def _live_run(turn: Turn, job: str, attempt: int) -> Run:
    run = _known(turn, job).run
    if run is None or run.attempt != attempt or not run.started_ms:
        raise Refused("stale_attempt", "attempt", "it is not the job's current attempt")
    return run


# --- evolve ---------------------------------------------------------------------------------------


def apply_admitted(cell: Cell, fact: JobAdmitted) -> None:
    key, own, estimate = shapes.split(cell.accepted(fact.command).data)
    shape = cell.shape_of.get(key) or cell.add_shape(key)
    job = Job(own["job"], cell.next_job, shape, cell.now_ms, estimate)
    cell.next_job += 1
    cell.jobs[job.id] = job
    shape.jobs += 1
    shape.queue.waiting += 1
    cell.join_line(job)
    cell.touch(job)


def apply_amended(cell: Cell, fact: JobAmended) -> None:
    command = cell.command(fact.command, AmendJob)
    job = cell.jobs[command.job]
    key = shapes.amended(job.shape.key, command.tier, command.priority)
    if command.estimate_s is not None:
        job.estimate_s = command.estimate_s
    old, queued = job.shape, job.queued
    if queued:
        old.leave(job)
    job.shape = cell.shape_of.get(key) or cell.add_shape(key)
    job.shape.jobs += 1
    if queued:
        cell.join_line(job)
    cell.leave_shape(old)
    cell.touch(job)


def apply_requeued(cell: Cell, fact: JobRequeued) -> None:
    job = cell.jobs[fact.job]
    job.not_before_ms = fact.not_before_ms
    if fact.not_before_ms:
        cell.timers.back_off(job)
    else:
        cell.join_line(job)
    cell.touch(job)


def apply_claimed(cell: Cell, fact: JobClaimed) -> None:
    run = _new_run(cell, fact.job, fact.attempt, fact.flavour, fact.nodes)
    cell.claims[run] = None
    cell.occupy(run, fact.waits_for)


def apply_started(cell: Cell, fact: AttemptStarted) -> None:
    job = cell.jobs[fact.job]
    run = job.run
    if run is None:
        run = _new_run(cell, fact.job, fact.attempt, fact.flavour, fact.nodes)
        no_waits: list[Held] = []
        cell.occupy(run, no_waits)
    run.started_ms = cell.now_ms
    cell.started(run)
    cell.timers.overrun(run)
    cell.touch(job)


def _new_run(cell: Cell, id_: str, attempt: int, flavour: int, nodes: list[Placed]) -> Run:
    job = cell.jobs[id_]
    job.attempts = attempt
    run = job.run = Run(job, attempt, flavour, nodes)
    reservation = job.shape.spec.reservation
    if reservation is not None:
        run.reservation = cell.reservations[reservation]
    job.shape.queue.waiting -= 1
    job.shape.leave(job)
    return run


def apply_running(cell: Cell, fact: AttemptRunning) -> None:
    job = cell.jobs[fact.job]
    assert job.run is not None, "a job without an attempt cannot run"
    job.run.running_ms = cell.now_ms
    cell.touch(job)


def apply_checkpoint(cell: Cell, fact: CheckpointRecorded) -> None:
    job = cell.jobs[fact.job]
    assert job.run is not None, "a job without an attempt has no checkpoint"
    job.run.checkpoint_ms = cell.command(fact.command, ReportCheckpoint).at_ms
    cell.touch(job)


def apply_reported(cell: Cell, fact: AttemptReported) -> None:
    job = cell.jobs[fact.job]
    assert job.run is not None, "a job without an attempt has no reports"
    job.run.reported.update(cell.command(fact.command, ReportAttempt).nodes)
    cell.touch(job)


def apply_stopping(cell: Cell, fact: AttemptStopping) -> None:
    job = cell.jobs[fact.job]
    assert job.run is not None, "a job without an attempt cannot stop"
    job.run.stop_by_ms = fact.stop_by_ms
    job.run.stop_reason = fact.reason
    cell.timers.stop_by(job.run)
    cell.touch(job)


def apply_ended(cell: Cell, fact: AttemptEnded) -> None:
    job = cell.jobs[fact.job]
    run = job.run
    assert run is not None, "only an attempt can end"
    job.run = None
    job.attained_slot_s += run.held_slot_s(cell.now_ms)
    job.lost_slot_s += fact.lost_slot_s
    job.shape.queue.waiting += 1
    cell.vacate(run)
    if fact.reason == "failed":
        job.failures += 1
    elif fact.reason in ("preempted", "drained") and run.started_ms:
        job.preemptions += 1
    cell.touch(job)


def apply_gone(cell: Cell, fact: JobFinished | JobFailed | JobCancelled) -> None:
    job = cell.jobs.pop(fact.job)
    job.not_before_ms = 0
    if job.queued:
        job.shape.leave(job)
    job.shape.queue.waiting -= 1
    cell.memory.remember_name(job.id, cell.now_ms)
    cell.leave_shape(job.shape)
    cell.left(job)
