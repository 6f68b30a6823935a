"""What travels of a job between regions, and how it leaves the one that had it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from domain.commands import SubmitJob
from domain.pool import rights
from domain.pool.specs import Amount, History, Owner

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.jobs import Job
    from domain.pool.facts import TokenOf


def spec_of(job: Job) -> SubmitJob:
    """The job's specification; its labels stay where it was submitted."""
    body = {**msgspec.json.decode(job.shape.key), "job": job.id.partition("@")[0]}
    if job.estimate_s is not None:
        body["runtime"] = {**body.get("runtime", {}), "estimate_s": job.estimate_s}
    if job.deadline_ms:
        hardness = "hard" if job.hard else "soft"
        body["deadline"] = {"finish_by_ms": job.deadline_ms, "hardness": hardness}
    return SubmitJob.model_validate_json(msgspec.json.encode(body))


def owners_of(cell: Cell, job: Job) -> tuple[Owner, ...]:
    """Where the job was, latest last; it leaves this region now."""
    passport = cell.pool.passports.get(job.id)
    before = passport.owners if passport is not None else []
    owners = [*before, (cell.pool.own.id, cell.now_ms)]
    return tuple(Owner(region=region, left_ms=left_ms) for region, left_ms in owners[-8:])


def history_of(job: Job) -> History:
    return History(
        seniority_ms=job.seniority_ms,
        attempts=job.attempts,
        attained_slot_s=job.attained_slot_s,
        lost_slot_s=job.lost_slot_s,
        failures=job.failures,
        preemptions=job.preemptions,
    )


def rendezvous(*about: object) -> bytes:
    """A draw that all regions make alike, and none before the others: the largest wins."""
    return hashlib.blake2b("\0".join(map(str, about)).encode(), digest_size=8).digest()


def rights_to_offer(cell: Cell, job: Job) -> tuple[Amount, ...]:
    """Rights that could travel with the job, by the types that it accepts."""
    account = job.shape.queue.account.id
    found = []
    for need in job.shape.needs:
        milli = min(job.shape.size, rights.surplus(cell, account, need.accelerator))
        if milli:
            amount = Amount(account=account, accelerator=need.accelerator, milli=milli)
            found.append(amount)
    return tuple(found)


def leave(cell: Cell, job: Job, token: TokenOf, to: str) -> None:
    """Of a job without an attempt: it is another region's, under the next token."""
    del cell.jobs[job.id]
    cell.pool.guards.drop(cell, job.id)
    cell.pool.bury(cell, job.id, token, to)
    job.not_before_ms = 0
    if job.queued:
        job.shape.leave(job)
    job.shape.queue.waiting -= 1
    cell.memory.remember_name(job.id, cell.now_ms)
    cell.leave_shape(job.shape)
    cell.left(job)
