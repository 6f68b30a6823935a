"""Copies of peers' jobs: kept, ended, or adopted once their region is held for lost.

`domain.pool.guarding` is the other side.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import TYPE_CHECKING, Final

from domain.cell import MAX_SHAPES
from domain.commands import EndGuard, GuardJob
from domain.jobs import MAX_JOBS
from domain.pool import takeover
from domain.pool.facts import HandoffLapsed
from domain.pool.guard_facts import CopyEnded, CopyKept, JobAdopted
from domain.pool.guards import Copy
from domain.pool.specs import MAX_HOP
from domain.pool.state import MAX_TOMBSTONES, Passport, after, of_token
from domain.refusals import Refused

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.pool.facts import TokenOf
    from domain.turn import Turn

ADOPTED_PER_ROUND: Final = 256


# --- decide ---------------------------------------------------------------------------------------


def guard_job(turn: Turn, command: GuardJob, at: int) -> None:
    cell, pool = turn.cell, turn.cell.pool
    token = of_token(command.token)
    id_ = pool.id_of(token)
    copy = pool.guards.copies.get(id_)
    if _is_past(cell, id_, token, command.region) or (copy and not _renews(turn, copy, token, at)):
        raise Refused("stale_token", "token", "this or a newer one was seen")
    full = len(pool.guards.copies) >= MAX_TOMBSTONES or token[3] >= MAX_HOP
    # A region that is held for lost is to ask another: its jobs are not brought back one by one.
    if full or pool.guards.fenced(command.region) or takeover.not_allowed(cell, command.spec):
        turn.emit(CopyEnded(at, id_))
    else:
        turn.emit(CopyKept(at, id_))


def _renews(turn: Turn, copy: Copy, token: TokenOf, at: int) -> bool:
    """True iff the message is about a newer token, or the job was amended under this one."""
    if copy.token[3] != token[3]:
        return copy.token[3] < token[3]
    return not copy.ended_ms and copy.body != bytes(turn.cell.accepted(at).data)


def end_guard(turn: Turn, command: EndGuard, at: int) -> None:
    cell, pool = turn.cell, turn.cell.pool
    token = of_token(command.token)
    id_ = pool.id_of(token)
    copy = pool.guards.copies.get(id_)
    ended = copy is not None and (copy.token[3] > token[3] or bool(copy.ended_ms))
    if ended or _is_past(cell, id_, token, command.region):
        raise Refused("stale_token", "token", "it was adopted, or let go before")
    turn.emit(CopyEnded(at, id_))


def _is_past(cell: Cell, id_: str, token: TokenOf, source: str) -> bool:
    """True iff the job is known here by a newer token, or by this one and is not the source's."""
    seen = cell.pool.seen(id_)
    if seen != token[3]:
        return seen > token[3]
    tombstone = cell.pool.tombstones.get(id_)
    return tombstone is None or tombstone.to != source


def adopt(turn: Turn) -> None:
    """Bring back the jobs of regions that are held for lost, or that lost their ledger."""
    pool = turn.cell.pool
    left = ADOPTED_PER_ROUND
    for (region, epoch), copies in sorted(pool.guards.copies_of.items()):
        if not pool.is_gone(region, epoch):
            continue
        for id_ in nsmallest(min(left, max(0, turn.work)), copies):
            left, turn.work = left - 1, turn.work - 1
            _adopt(turn, copies[id_])


def _adopt(turn: Turn, copy: Copy) -> None:
    cell = turn.cell
    command = _command(copy)
    if copy.id in cell.pool.prepared:
        turn.emit(HandoffLapsed(copy.id, "adopted"))
    failed = takeover.not_allowed(cell, command.spec)
    if not failed and copy.id in cell.jobs:
        failed = "job_exists"
    if not failed and (len(cell.jobs) >= MAX_JOBS or len(cell.shapes) >= MAX_SHAPES):
        failed = "full"
    turn.emit(JobAdopted(copy.id, takeover.shape_id(cell, command, failed), failed))


def _command(copy: Copy) -> GuardJob:
    return GuardJob.model_validate_json(copy.body)


# --- evolve ---------------------------------------------------------------------------------------


def apply_kept(cell: Cell, fact: CopyKept) -> None:
    command = cell.command(fact.command, GuardJob)
    body = bytes(cell.accepted(fact.command).data)
    _put(cell, fact.job, command, body)


def apply_ended(cell: Cell, fact: CopyEnded) -> None:
    command = cell.parsed(fact.command)
    assert isinstance(command, GuardJob | EndGuard), "its source ended it, or it was not wanted"
    _put(cell, fact.job, command, b"")


def _put(cell: Cell, id_: str, command: GuardJob | EndGuard, body: bytes) -> None:
    pool = cell.pool
    pool.heard(cell, command)
    pool.guards.discard(cell, id_)
    copy = Copy(id_, of_token(command.token), command.region, command.epoch, body)
    copy.ended_ms = 0 if body else cell.now_ms
    pool.guards.keep(copy)
    cell.touch(copy)


def apply_adopted(cell: Cell, fact: JobAdopted) -> None:
    pool = cell.pool
    copy = pool.guards.copies[fact.job]
    command = _command(copy)
    pool.guards.discard(cell, fact.job)
    token = after(copy.token)
    if fact.failed:
        takeover.end_unheard(cell, fact.job, token, copy.source)
        return
    takeover.queue(cell, fact.job, command)
    passport = pool.passports[fact.job] = Passport(fact.job, token, copy.source)
    takeover.own(cell, passport, token, command.owners)
