"""A job that may fail over, at the region that runs it.

    guarded -> (it runs, moves, fails, starts again) -> outcome asked -> guard ended -> its end
                                                     or taken -> left

`domain.pool.guardian` is the other side, `domain.pool.guards` says why this is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from domain.commands import AcknowledgeHandoff, AnswerGuard, FromPeer, GuardJob
from domain.facts import AnyFact, JobCancelled, JobFailed, JobFinished
from domain.ledger import canonical
from domain.pool import travel
from domain.pool.guard_facts import (
    GuardEnded,
    GuardKept,
    JobGuarded,
    JobLeft,
    JobTaken,
    OutcomeAsked,
)
from domain.pool.guards import Guard
from domain.pool.state import after, as_token, of_token
from domain.refusals import Refused

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.jobs import Job
    from domain.pool.facts import TokenOf
    from domain.turn import Turn

GUARDED_PER_ROUND: Final = 1024
End = JobFinished | JobFailed | JobCancelled
WORDS: Final = {JobFinished: "finished", JobFailed: "failed", JobCancelled: "cancelled"}


# --- decide ---------------------------------------------------------------------------------------


def keep(turn: Turn) -> None:
    """Give a guardian to jobs that need one."""
    cell, pool = turn.cell, turn.cell.pool
    if pool.region is None or not pool.guards.alone:
        return
    able = _able(cell)
    if not able:
        return
    left = GUARDED_PER_ROUND
    alone = (cell.jobs[id_] for id_ in pool.guards.alone)
    for job in sorted(alone, key=lambda job: job.number):
        if left <= 0:
            cell.unfinished = True
            return
        by = _guardian(cell, job, able)
        if by is not None:
            left -= 1
            turn.emit(JobGuarded(job.id, by))


def _able(cell: Cell) -> list[str]:
    """Peers that are heard, and not held for lost."""
    pool = cell.pool
    since_ms = cell.now_ms - 1000 * pool.own.rules.forget_s
    fences = pool.guards.fences
    peers = (p for p in pool.peers.values() if p.id not in fences)
    return [p.id for p in peers if p.heard_ms and p.heard_ms >= since_ms]


def _guardian(cell: Cell, job: Job, able: list[str]) -> str | None:
    """The peer that guards the job, by rendezvous; "" if all refused, None if it has to wait."""
    pool, where = cell.pool, job.shape.spec.locality
    guard = pool.guards.of.get(job.id)
    past = guard.past if guard is not None else []

    may = [peer for peer in pool.peers if where.allows(peer) and peer not in past]
    found = [peer for peer in able if peer in may]
    if not found:
        return None if may else ""
    return max(found, key=lambda peer: travel.rendezvous(job.id, peer))


def ending(cell: Cell, fact: AnyFact) -> AnyFact:
    """Of the end of a job: the question to its guardian whether it may end so, if it has one."""
    if not isinstance(fact, End) or not cell.pool.guards.must_ask(fact.job):
        return fact
    return OutcomeAsked(fact.job, WORDS[type(fact)], getattr(fact, "reason", ""))


def _asked(guard: Guard) -> End:
    if guard.outcome == "failed":
        return JobFailed(guard.id, guard.reason)
    return JobFinished(guard.id) if guard.outcome == "finished" else JobCancelled(guard.id)


def end_unasked(turn: Turn, region: str) -> None:
    """The guardian is held for lost and cannot agree: what has come to an end ends."""
    guards = turn.cell.pool.guards
    for guard in [g for _, g in sorted(guards.by.get(region, {}).items()) if g.outcome]:
        if not guard.over and not guard.taken:
            turn.emit(_asked(guard))


def answer_guard(turn: Turn, command: AnswerGuard, at: int) -> None:
    guard = _named(turn.cell, command)
    if guard is None or (command.kept and (guard.kept or command.amended != guard.amended)):
        raise Refused("stale_token", "token", "this region guards no such job, as far as is known")
    if command.kept:
        turn.emit(GuardKept(at, guard.id))
        return
    turn.emit(GuardEnded(at, guard.id))
    if guard.outcome and not guard.over and not guard.taken:
        turn.emit(_asked(guard))


def _named(cell: Cell, command: AnswerGuard) -> Guard | None:
    token = of_token(command.token)
    guard = cell.pool.guards.of.get(cell.pool.id_of(token))
    if guard is None or (guard.by, guard.token) != (command.region, token):
        return None
    return guard


def taken(turn: Turn, command: AcknowledgeHandoff, at: int) -> bool:
    """The guardian says that the job is its own; False if it guards none of this token."""
    pool = turn.cell.pool
    token = of_token(command.token)
    guard = pool.guards.of.get(pool.id_of(token))
    if guard is None or guard.by != command.region or guard.taken:
        return False
    if token != after(guard.token):
        return False
    if guard.over:  # two operators held each other's region for lost
        turn.emit(GuardEnded(at, guard.id))
        return True
    turn.emit(JobTaken(at, guard.id))
    run = turn.cell.jobs[guard.id].run
    if run is None:
        turn.emit(JobLeft(guard.id, guard.by))
    else:
        turn.stop(run, "taken_over")
    return True


# --- evolve ---------------------------------------------------------------------------------------


def apply_guarded(cell: Cell, fact: JobGuarded) -> None:
    pool, job = cell.pool, cell.jobs[fact.job]
    token = pool.token_of(job.id)
    old = pool.guards.of.get(job.id)
    guard = Guard(job.id, token, _body(cell, job, token) if fact.by else b"")
    guard.by = fact.by
    guard.past = old.past if old is not None and fact.by else []
    pool.guards.drop(cell, job.id)
    pool.guards.put(guard)
    cell.touch(guard)


def _body(cell: Cell, job: Job, token: TokenOf, amended: int = 0) -> bytes:
    own = cell.pool.own
    message = GuardJob(
        region=own.id,
        epoch=own.epoch,
        token=as_token(token),
        spec=travel.spec_of(job),
        history=travel.history_of(job),
        owners=travel.owners_of(cell, job),
        amended=amended,
    )
    return canonical(message.model_dump(mode="json", exclude_defaults=True))


def _told(cell: Cell, fact: GuardKept | GuardEnded | JobTaken) -> Guard:
    """Of what a guardian said."""
    command = cell.parsed(fact.command)
    assert isinstance(command, FromPeer), "a guardian said so"
    cell.pool.heard(cell, command)
    guard = cell.pool.guards.of[fact.job]
    cell.touch(guard)
    return guard


def apply_kept(cell: Cell, fact: GuardKept) -> None:
    _told(cell, fact).kept = True


def apply_ended(cell: Cell, fact: GuardEnded) -> None:
    guard, guards = _told(cell, fact), cell.pool.guards
    if guard.over or guard.outcome:
        guards.drop(cell, fact.job)
    else:
        guards.declined(guard)


def apply_asked(cell: Cell, fact: OutcomeAsked) -> None:
    job, guard = cell.jobs[fact.job], cell.pool.guards.of[fact.job]
    guard.outcome, guard.reason = fact.outcome, fact.reason
    job.not_before_ms = 0
    if job.queued:
        job.shape.leave(job)
    cell.touch(job)
    cell.touch(guard)


def apply_taken(cell: Cell, fact: JobTaken) -> None:
    _told(cell, fact).taken = True


def apply_left(cell: Cell, fact: JobLeft) -> None:
    token = after(cell.pool.token_of(fact.job))
    travel.leave(cell, cell.jobs[fact.job], token, fact.to)


def entered(cell: Cell, job: Job) -> None:
    """A new job of this region."""
    if job.shape.spec.locality.on_region_loss == "failover":
        cell.pool.guards.alone[job.id] = None


def amended(cell: Cell, job: Job) -> None:
    """What its guardian has of it is old."""
    guard = cell.pool.guards.of.get(job.id)
    if guard is not None and guard.by:
        guard.amended += 1
        guard.body, guard.kept = _body(cell, job, guard.token, guard.amended), False
        cell.touch(guard)


def restore(cell: Cell) -> None:
    """Once jobs and guards are there: who has come to an end is in no line, who needs one waits."""
    guards, prepared = cell.pool.guards, cell.pool.prepared
    for job in cell.jobs.values():
        guard = guards.of.get(job.id)
        if job.queued and guards.held_back(job.id):
            job.shape.leave(job)
        if job.id not in prepared and (guard is None or (guard.past and not guard.by)):
            entered(cell, job)
