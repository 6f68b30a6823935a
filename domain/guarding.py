"""A job that may fail over, at the region that runs it.

    guarded -> (it runs, moves, fails, starts again) -> outcome asked -> guard ended -> its end
                                                     or taken -> left

`domain.guardian` is the other side, `domain.guards` says why this is right.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from domain import travel
from domain.commands import AcknowledgeHandoff, AnswerGuard, FromPeer, GuardJob
from domain.facts import JobCancelled, JobFailed, JobFinished
from domain.guard_facts import (
    GuardEnded,
    GuardKept,
    JobGuarded,
    JobLeft,
    JobTaken,
    OutcomeAsked,
)
from domain.guards import Guard
from domain.ledger import canonical
from domain.pool import as_token, of_token
from domain.pool_specs import Owner
from domain.refusals import Refused

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.jobs import Job
    from domain.pool_facts import TokenOf
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
    left = GUARDED_PER_ROUND if able else 0
    for job in sorted(map(cell.jobs.__getitem__, pool.guards.alone), key=_number) if able else ():
        if left <= 0:
            cell.unfinished = True
            return
        by = _guardian(cell, job, able)
        if by is not None:
            left -= 1
            turn.emit(JobGuarded(job.id, by))


def _number(job: Job) -> int:
    return job.number


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

    def may(peer: str) -> bool:
        allowed = not where.regions or peer in where.regions
        return allowed and peer not in where.forbidden and peer not in past

    found = [peer for peer in able if may(peer)]
    if not found:
        return None if any(map(may, pool.peers)) else ""
    return max(found, key=lambda peer: _rendezvous(job.id, peer))


def _rendezvous(job: str, peer: str) -> bytes:
    return hashlib.blake2b(f"{job}\0{peer}".encode(), digest_size=8).digest()


def ending(cell: Cell, fact: End) -> End | OutcomeAsked:
    """The end of a job, or the question to its guardian whether it may end so."""
    if not cell.pool.guards.must_ask(fact.job):
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
    old = command.kept and command.amended != guard.amended if guard is not None else True
    if guard is None or old or (command.kept and guard.kept):
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
    if token != (*guard.token[:3], guard.token[3] + 1):
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
    own, passport = cell.pool.own, cell.pool.passports.get(job.id)
    owners = [*(passport.owners if passport is not None else []), (own.id, cell.now_ms)]
    message = GuardJob(
        region=own.id,
        epoch=own.epoch,
        token=as_token(token),
        spec=travel.spec_of(job),
        history=travel.history_of(job),
        owners=tuple(Owner(region=region, left_ms=left_ms) for region, left_ms in owners[-8:]),
        amended=amended,
    )
    return canonical(message.model_dump(mode="json", exclude_defaults=True))


def _from(cell: Cell, at: int) -> None:
    command = cell.parsed(at)
    assert isinstance(command, FromPeer), "a guardian said so"
    cell.pool.heard(cell, command)


def apply_kept(cell: Cell, fact: GuardKept) -> None:
    _from(cell, fact.command)
    guard = cell.pool.guards.of[fact.job]
    guard.kept = True
    cell.touch(guard)


def apply_ended(cell: Cell, fact: GuardEnded) -> None:
    _from(cell, fact.command)
    guards = cell.pool.guards
    guard = guards.of[fact.job]
    if guard.over or guard.outcome:
        guards.drop(cell, fact.job)
        return
    guards.declined(guard)
    cell.touch(guard)


def apply_asked(cell: Cell, fact: OutcomeAsked) -> None:
    job, guard = cell.jobs[fact.job], cell.pool.guards.of[fact.job]
    guard.outcome, guard.reason = fact.outcome, fact.reason
    job.not_before_ms = 0
    if job.queued:
        job.shape.leave(job)
    cell.touch(job)
    cell.touch(guard)


def apply_taken(cell: Cell, fact: JobTaken) -> None:
    _from(cell, fact.command)
    guard = cell.pool.guards.of[fact.job]
    guard.taken = True
    cell.touch(guard)


def apply_left(cell: Cell, fact: JobLeft) -> None:
    home, name, term, hop = cell.pool.token_of(fact.job)
    travel.leave(cell, cell.jobs[fact.job], (home, name, term, hop + 1), fact.to)


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
