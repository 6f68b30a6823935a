"""The order of jobs within a line, by the policy's `order`: the smaller rank comes first.

seniority        all ranks are equal: first come, first served.
least_attained   log2 of the slot-seconds that the job has had: what needs little is soon done, and
                 nothing need be known of durations (least attained service; Tiresias, NSDI'19,
                 uses it on GPUs). What was lost counts, too: so two jobs that keep no checkpoint
                 take turns at doubling times, and each ends.
least_remaining  the slot-seconds that the job's estimate says are left (shortest remaining
                 service); jobs without an estimate come last.

Seniority decides between equal ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.jobs import Job

UNKNOWN: Final = 1 << 60


def rank(cell: Cell, job: Job) -> int:
    """The job's place in its line."""
    order = cell.policy.order
    if order == "seniority":
        return 0
    if order == "least_attained":
        return job.attained_slot_s.bit_length()
    return remaining_slot_s(job, job.attained_slot_s)


def service(cell: Cell, job: Job, now_ms: int) -> int:
    """What the order compares, in slot-seconds, as it is now: the larger has to yield."""
    attained = job.attained_slot_s
    if job.run is not None:
        attained += job.run.held_slot_s(now_ms)
    if cell.policy.order == "least_attained":
        return attained
    return remaining_slot_s(job, attained)


def remaining_slot_s(job: Job, attained_slot_s: int) -> int:
    if job.estimate_s is None:
        return UNKNOWN
    done = attained_slot_s - job.lost_slot_s
    return max(0, job.shape.slots * job.estimate_s - done)
