"""Deadlines: what cannot be met any more is said at once, and stands in nobody's way.

A waiting job is late from its latest start on: its deadline less the time that it still needs by
its estimate; without an estimate, the deadline itself. A late job with a soft deadline comes after
those that can still be in time; one with a hard deadline is refused at admission, or fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from domain import ordering
from domain.facts import DeadlineAtRisk, DeadlineInfeasible, JobFailed
from domain.pool import guarding
from domain.refusals import Refused
from domain.specs import Deadline

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.jobs import Job
    from domain.turn import Turn


def check(turn: Turn, own: Mapping[str, Any], estimate_s: int | None) -> int | None:
    """Of a new job: when it can finish at the earliest, if that is too late. Raises Refused."""
    deadline = of(own)
    earliest_ms = turn.header.now_ms + 1000 * (estimate_s or 0)
    if deadline is None or earliest_ms <= deadline.finish_by_ms:
        return None
    if deadline.hardness == "hard":
        rule = f"it cannot finish before {earliest_ms}"
        raise Refused("deadline_infeasible", "deadline", rule)
    return earliest_ms


def keep(turn: Turn) -> None:
    """Jobs whose latest start has passed while they wait. What is beyond the work stays due."""
    now_ms = turn.header.now_ms
    for job in turn.cell.timers.late_jobs(now_ms):
        if turn.work <= 0:
            turn.cell.timers.deadline(job)
            continue
        turn.work -= 1
        if job.hard:
            turn.emit(guarding.ending(turn.cell, JobFailed(job.id, "deadline")))
        else:
            finish_ms = now_ms + job.deadline_ms - ordering.latest_start_ms(job, now_ms)
            turn.emit(DeadlineAtRisk(job.id, finish_ms))


def apply_late(cell: Cell, fact: DeadlineInfeasible | DeadlineAtRisk) -> None:
    """It takes its place behind those that can still be in time."""
    job = cell.jobs[fact.job]
    job.late = True
    job.shape.leave(job)
    cell.join_line(job)
    cell.touch(job)


def of(own: Mapping[str, Any]) -> Deadline | None:
    """The deadline among the fields of a SubmitJob that are the job's own."""
    return Deadline.model_validate(own["deadline"]) if "deadline" in own else None


def set_deadline(job: Job, deadline: Deadline | None) -> None:
    if deadline is not None:
        job.deadline_ms, job.hard = deadline.finish_by_ms, deadline.hardness == "hard"
