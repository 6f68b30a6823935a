"""Elastic jobs: a gang of `count` replicas that grows, up to `grow_to`, into what nobody else uses.

Growth comes in parts of `grow_by` replicas. Each holds its own slots, is charged to the account as
all work is, and is the first to go: every claim may take it, at no cost but its grace period. So a
job shrinks before anything dies, and never below the gang that it started with.

A job that had to shrink does not grow again for a while: an agent's work on a resize is not free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from domain import placement, slots
from domain.facts import AttemptGrown, AttemptShrinking, AttemptShrunk
from domain.quota import MILLI
from domain.refusals import Refused
from domain.runs import Run

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.commands import ReportAttempt
    from domain.turn import Turn

PARTS_A_ROUND: Final = 64
"""Parts that may grow in one round."""
JOBS_A_ROUND: Final = 64
"""Elastic jobs that are asked in one round; the others have their turn in the next ones."""
REST_MS: Final = 300_000
"""A job that shrank does not grow for so long."""


# --- decide ---------------------------------------------------------------------------------------


def grow(turn: Turn) -> None:
    """Give what is free, once all that waits has been tried, to jobs that can use more."""
    cell = turn.cell
    if not cell.elastic:
        return
    left = PARTS_A_ROUND
    for run in _turns(turn):
        if turn.work <= 0 or left <= 0:
            cell.unfinished = True
            return
        grown = _grow(turn, run, left)
        left -= grown
        if grown:
            cell.unfinished = True  # what waits may claim it


def _turns(turn: Turn) -> list[Run]:
    """Those with the fewest parts first: what is free is shared evenly."""
    runs = [r for r in turn.cell.elastic if not r.stop_by_ms]
    runs.sort(key=lambda r: (len(r.job.parts), r.job.number))
    at = turn.header.round * JOBS_A_ROUND % len(runs) if len(runs) > JOBS_A_ROUND else 0
    return runs[at : at + JOBS_A_ROUND]


def _grow(turn: Turn, run: Run, most: int) -> int:
    """Parts that the attempt grew by."""
    cell, job = turn.cell, run.job
    group, need = job.shape.spec.groups[0], job.shape.needs[run.flavour]
    assert group.grow_to is not None, "only elastic attempts are asked"
    has = group.count + group.grow_by * len(job.parts)
    ruling = job.shape.ruling
    grow_to = group.grow_to if ruling.replicas is None else min(group.grow_to, ruling.replicas)
    steps = min((grow_to - has) // group.grow_by, most) if ruling.grows else 0
    classes = need.classes(cell)
    full = sum(c.free for c in classes) < group.slots
    if steps <= 0 or full or _gathered(cell, run.accelerator):
        return 0
    if cell.now_ms < job.shrunk_ms + REST_MS:
        cell.wake(job.shrunk_ms + REST_MS)
        return 0
    within = placement.domain_of_nodes(cell, (placed[0] for placed in run.nodes), need.required)
    grown = 0
    account, size = job.shape.queue.account, group.grow_by * group.slots * MILLI
    demand = job.shape.demand
    while (
        grown < steps
        and account.available(run.accelerator) >= size
        and demand.below_ceiling(run.accelerator) >= size
    ):
        turn.work -= 1
        chosen = placement.replicas(
            cell, classes, group.grow_by, group.slots, need.required, within
        )
        if chosen is None:
            break
        nodes = [(node.id, replicas, 0, -1) for node, replicas in chosen]
        turn.emit(AttemptGrown(job.id, run.attempt, job.next_part, nodes))
        grown += 1
    return grown


def _gathered(cell: Cell, accelerator: str) -> bool:
    """True iff what is free of the type is being gathered by a gang."""
    waiting = cell.in_pieces.get(accelerator, ())
    return any(s.waiting and s.reason == "gathering" for s in waiting)


def report_part(turn: Turn, command: ReportAttempt, run: Run) -> None:
    """A part's agents say that it is gone; that it runs is no news."""
    part = run.job.parts.get(command.part)
    if part is None:
        raise Refused("stale_attempt", "part", "the attempt has no such part")
    if command.state != "running":
        turn.end(part, part.stop_reason or command.state)


def stop(turn: Turn, part: Run, reason: str) -> None:
    job = part.job
    stop_by = turn.header.now_ms + max(1, job.shape.spec.runtime.grace_s * 1000)
    turn.emit(AttemptShrinking(job.id, part.attempt, part.part, reason, stop_by))


def end(turn: Turn, part: Run, reason: str) -> None:
    if part.live:  # its attempt may have ended in the same breath, and it with it
        turn.emit(AttemptShrunk(part.job.id, part.attempt, part.part, reason))


# --- evolve ---------------------------------------------------------------------------------------


def apply_grown(cell: Cell, fact: AttemptGrown) -> None:
    job = cell.jobs[fact.job]
    base = job.run
    assert base is not None, "only an attempt can grow"
    part = Run(job, fact.attempt, base.flavour, fact.nodes, fact.part)
    part.started_ms = part.running_ms = cell.now_ms
    job.parts[fact.part] = part
    job.next_part = fact.part + 1
    slots.occupy(cell, part, ())
    slots.count_started(cell, part)


def apply_shrinking(cell: Cell, fact: AttemptShrinking) -> None:
    part = cell.jobs[fact.job].parts[fact.part]
    part.stop_by_ms, part.stop_reason = fact.stop_by_ms, fact.reason
    cell.timers.stop_by(part)
    cell.touch(part.job)


def apply_shrunk(cell: Cell, fact: AttemptShrunk) -> None:
    job = cell.jobs[fact.job]
    drop(cell, job.parts[fact.part])
    job.shrunk_ms = cell.now_ms


def drop(cell: Cell, part: Run) -> None:
    """The part gives its slots back."""
    job = part.job
    del job.parts[part.part]
    job.attained_slot_s += part.held_slot_s(cell.now_ms)
    slots.vacate(cell, part)
    cell.touch(job)
