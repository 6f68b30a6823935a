"""Attempts: claimed, started, running, stopping, ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain import accounting, delays, elastic, promises, slots
from domain.commands import ReportAttempt, ReportCheckpoint
from domain.fact import Held, Placed
from domain.facts import (
    AttemptEnded,
    AttemptReported,
    AttemptRunning,
    AttemptStarted,
    AttemptStopping,
    CheckpointRecorded,
    JobClaimed,
)
from domain.jobs import known
from domain.refusals import Refused
from domain.runs import Run

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.turn import Turn


# --- decide ---------------------------------------------------------------------------------------


def report_attempt(turn: Turn, command: ReportAttempt, at: int) -> None:
    run = _live_run(turn, command.job, command.attempt)
    if command.part:
        elastic.report_part(turn, command, run)
        return
    names = _names(run) if command.nodes else frozenset()
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


def _names(run: Run) -> frozenset[str]:
    """Of all nodes that it lies on."""
    return frozenset(placed[0] for r in (run, *run.job.parts.values()) for placed in r.nodes)


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
    for run in slots.ready_claims(turn.cell):
        turn.emit(AttemptStarted(run.job.id, run.attempt))


def _live_run(turn: Turn, job: str, attempt: int) -> Run:
    run = known(turn, job).run
    if run is None or run.attempt != attempt or not run.started_ms:
        raise Refused("stale_attempt", "attempt", "it is not the job's current attempt")
    return run


# --- evolve ---------------------------------------------------------------------------------------


def apply_claimed(cell: Cell, fact: JobClaimed) -> None:
    run = _new_run(cell, fact.job, fact.attempt, fact.flavour, fact.nodes)
    cell.claims[run] = None
    slots.occupy(cell, run, fact.waits_for)


def apply_started(cell: Cell, fact: AttemptStarted) -> None:
    job = cell.jobs[fact.job]
    run = job.run
    if run is None:
        run = _new_run(cell, fact.job, fact.attempt, fact.flavour, fact.nodes)
        no_waits: list[Held] = []
        slots.occupy(cell, run, no_waits)
    run.started_ms = cell.now_ms
    delays.started(cell, run)
    slots.count_started(cell, run)
    promises.started(cell, run)
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
    slots.moved(cell, job.run)
    cell.touch(job)


def apply_checkpoint(cell: Cell, fact: CheckpointRecorded) -> None:
    job = cell.jobs[fact.job]
    assert job.run is not None, "a job without an attempt has no checkpoint"
    at_ms = cell.command(fact.command, ReportCheckpoint).at_ms
    accounting.checkpointed(cell, job.run, at_ms)
    job.run.checkpoint_ms = at_ms
    slots.moved(cell, job.run)
    cell.touch(job)


def apply_reported(cell: Cell, fact: AttemptReported) -> None:
    job = cell.jobs[fact.job]
    assert job.run is not None, "a job without an attempt has no reports"
    named = cell.command(fact.command, ReportAttempt).nodes
    job.run.reported = job.run.reported.union(named)
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
    accounting.ended(cell, run, fact.reason)
    job.resumes = job.resumes or bool(run.checkpoint_ms)
    job.attained_slot_s += run.held_slot_s(cell.now_ms)
    job.lost_slot_s += fact.lost_slot_s
    job.shape.queue.waiting += 1
    for part in list(job.parts.values()):
        elastic.drop(cell, part)
    slots.vacate(cell, run)
    if fact.reason == "failed":
        job.failures += 1
    elif fact.reason in ("preempted", "drained") and run.started_ms:
        job.preemptions += 1
        day = cell.now_ms // promises.DAY_MS
        job.preempted_then = 1 + (job.preempted_then if job.preempted_on == day else 0)
        job.preempted_on = day
    cell.touch(job)
