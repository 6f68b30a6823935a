"""The order of jobs within a line, by the policy's `order`: the smaller rank comes first.

seniority        all ranks are equal: first come, first served.
least_attained   log2 of the slot-seconds that the job has had: what needs little is soon done, and
                 nothing need be known of durations (least attained service; Tiresias, NSDI'19,
                 uses it on GPUs). What was lost counts, too: so two jobs that keep no checkpoint
                 take turns at doubling times, and each ends.
least_remaining  the slot-seconds that are expected to be left (shortest remaining service): by the
                 job's estimate, else by the published model of run times. Where nothing is known,
                 the fewest slots first.
earliest_deadline  the deadline (EDF; Liu and Layland, JACM 1973). Jobs without one come later, and
                 so do jobs that cannot be in time any more: else, under overload, each would make
                 the next one late, too.

Seniority decides between equal ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from domain import estimates

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.jobs import Job

UNKNOWN: Final = 1 << 60


def rank(cell: Cell, job: Job) -> int:
    """The job's place among the jobs of its shape."""
    order = cell.policy.order
    if order == "seniority":
        return 0
    if order == "least_attained":
        return job.attained_slot_s.bit_length()
    if order == "earliest_deadline":
        return UNKNOWN if job.late or not job.deadline_ms else job.deadline_ms
    if job.estimate_s is None:  # what the model says of them changes, their order does not
        return UNKNOWN - (job.attained_slot_s - job.lost_slot_s)
    return remaining_slot_s(cell, job, job.attained_slot_s)


def place(cell: Cell, head: Job) -> int:
    """The place among other shapes of the job that is the first of its own."""
    if cell.policy.order == "least_remaining" and head.estimate_s is None:
        return remaining_slot_s(cell, head, head.attained_slot_s)
    return head.rank


def service(cell: Cell, job: Job, now_ms: int) -> int:
    """What jobs are compared by when one may have to yield, as it is now: the larger yields.

    Slot-seconds; with earliest_deadline the slack in ms, since what has slack can wait.
    """
    if cell.policy.order == "earliest_deadline":
        return slack_ms(job, now_ms)
    attained = job.attained_slot_s
    if job.run is not None:
        attained += job.run.held_slot_s(now_ms)
    if cell.policy.order == "least_attained":
        return attained
    return remaining_slot_s(cell, job, attained)


def slack_ms(job: Job, now_ms: int) -> int:
    """Time that the job could lose and still be in time; UNKNOWN: it has nothing to lose."""
    slack = latest_start_ms(job, now_ms) - now_ms
    return UNKNOWN if job.late or not job.deadline_ms or slack < 0 else slack


def latest_start_ms(job: Job, now_ms: int = 0) -> int:
    """Its deadline less the time that it still needs by its estimate, if it has one.

    Each restart costs the time to restore. `now_ms` counts for a job that runs.
    """
    if job.estimate_s is None:
        return job.deadline_ms
    restarts, slots, run = job.attempts, job.shape.slots, job.run
    done_ms = 1000 * (job.attained_slot_s - job.lost_slot_s) // slots if slots else 0
    if run is not None:
        done_ms += now_ms - (run.started_ms or now_ms)
        restarts -= 1
    needs_ms = 1000 * job.estimate_s + restarts * job.shape.restore_ms
    return job.deadline_ms - max(0, needs_ms - done_ms)


def remaining_slot_s(cell: Cell, job: Job, attained_slot_s: int) -> int:
    done, slots = attained_slot_s - job.lost_slot_s, job.shape.slots
    if job.estimate_s is not None:
        return max(0, slots * job.estimate_s - done)
    return slots * estimates.left_s(cell, job, done // slots) if slots else 0
