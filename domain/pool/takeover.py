"""The hand-off of a job, at the region that takes it.

    prepared -> accepted,  or  prepared -> lapsed

For an offer slots are claimed for a bounded time. The release then makes the job this region's,
whether the claim still stands or not: without it, the job waits here. `domain.pool.handoff` is
the other side.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from domain import (
    deadlines,
    placement,
    shapes,
    slots,
)
from domain.cell import MAX_SHAPES
from domain.commands import (
    ConfirmHandoff,
    GuardJob,
    OfferHandoff,
    ReleaseHandoff,
    SubmitJob,
    WithdrawHandoff,
)
from domain.fact import Why
from domain.jobs import MAX_JOBS, Job
from domain.ledger import canonical
from domain.placement import Blocked
from domain.pool import guarding, rights
from domain.pool.facts import (
    HandoffAccepted,
    HandoffConfirmed,
    HandoffDeclined,
    HandoffLapsed,
    HandoffPrepared,
)
from domain.pool.state import MAX_TOMBSTONES, Passport, of_token
from domain.refusals import Refused
from domain.runs import Run
from domain.shapes import Need, key_of
from domain.specs import TIERS

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.pool.facts import TokenOf
    from domain.pool.specs import History, Owner
    from domain.turn import Turn

FOREVER_S: Final = 3600


# --- decide ---------------------------------------------------------------------------------------


def offer_handoff(turn: Turn, command: OfferHandoff, at: int) -> None:
    """It is answered at the end of the round: what waits here comes first."""
    pool = turn.cell.pool
    token = of_token(command.token)
    id_ = pool.id_of(token)
    if command.token.hop + 1 <= pool.seen(id_):
        raise Refused("stale_token", "token", "a newer one was seen")
    turn.asked.append((command.history.seniority_ms, at, command))


def answer_offers(turn: Turn) -> None:
    """Of the round's offers, the jobs that have waited longest come first."""
    for _, at, command in sorted(turn.asked, key=lambda asked: asked[:2]):
        reason, retry_s = _obstacle(turn.cell, command)
        if not reason:
            reason = _prepare(turn, command, at)
        if reason:
            turn.emit(HandoffDeclined(at, reason, retry_s))
    turn.asked.clear()


def _obstacle(cell: Cell, command: OfferHandoff) -> tuple[str, int]:
    """Why no place is looked for, and how long it stays so; empty if one is."""
    pool, spec = cell.pool, command.spec
    id_ = pool.id_of(of_token(command.token))
    if command.token.hop >= spec.locality.max_hops:
        return "too_many_hops", FOREVER_S
    reason = not_allowed(cell, spec)
    if reason:
        return reason, FOREVER_S
    if id_ in cell.jobs and id_ not in pool.prepared:
        return "job_exists", FOREVER_S
    full = len(cell.jobs) >= MAX_JOBS or len(pool.tombstones) >= MAX_TOMBSTONES
    if full or len(cell.shapes) >= MAX_SHAPES:
        return "full", 0
    return "", 0


def not_allowed(cell: Cell, spec: SubmitJob) -> str:
    """Why no such job may ever be this region's; empty if it may."""
    if not spec.locality.allows(cell.pool.own.id):
        return "not_allowed_here"
    if spec.queue not in cell.queues or spec.reservation is not None:
        return "unknown_queue"
    return ""


def _prepare(turn: Turn, command: OfferHandoff, at: int) -> str:
    """Hold slots for the job; or say why there are none."""
    cell, spec = turn.cell, command.spec
    pool = cell.pool
    id_ = pool.id_of(of_token(command.token))
    if id_ in pool.prepared:
        turn.emit(HandoffLapsed(id_, "offered_again"))
    account = cell.queues[spec.queue].account
    size = sum(g.count * g.slots * g.share_milli for g in spec.groups)
    brought = {a.accelerator: a.milli for a in command.rights if a.account == account.id}
    waited_s = max(0, turn.header.now_ms - command.history.seniority_ms) // 1000
    last = "waits_for_flavour"
    ruling = cell.rulebook.rule(cell, spec, cell.queues[spec.queue])
    if ruling.held:
        return "held_by_policy"
    for index, flavour in enumerate(spec.flavours):
        after_s = ruling.wait_s(flavour.accelerator, flavour.after_wait_s)
        if waited_s < after_s or turn.work <= 0:
            continue
        if ruling.room(account, flavour.accelerator) < size:
            last = "policy_ceiling"
            continue
        ours = max(0, account.available(flavour.accelerator))
        needed = max(0, size - ours)
        if needed > brought.get(flavour.accelerator, 0):
            last = "quota_exceeded"
            continue
        turn.work -= 1
        demand = key_of(flavour.accelerator, spec)
        found = placement.place(cell, Need(demand, -1, flavour.accelerator, spec, ruling.terms))
        if isinstance(found, Blocked):
            last = found.reason
            continue
        until_ms = turn.header.now_ms + 1000 * pool.own.rules.claim_s
        fact = HandoffPrepared(
            at,
            id_,
            shape_id(cell, command),
            command.history.attempts + 1,
            found.nodes,
            index,
            until_ms,
            needed,
            Why(TIERS.index(spec.tier), 0, *found[1:], index),
        )
        turn.emit(fact)
        return ""
    return last


def withdraw_handoff(turn: Turn, command: WithdrawHandoff, at: int) -> None:
    pool = turn.cell.pool
    held = pool.prepared.get(pool.id_of(of_token(command.token)))
    if held is None or (held.source, held.token, held.offered_ms) != (
        command.region,
        of_token(command.token),
        command.offered_ms,
    ):
        raise Refused("stale_token", "token", "nothing is held for it")
    turn.emit(HandoffLapsed(held.id, "withdrawn"))


def expire_claims(turn: Turn) -> None:
    held = turn.cell.pool.prepared
    now_ms = turn.header.now_ms
    for id_ in sorted(id_ for id_, passport in held.items() if passport.until_ms <= now_ms):
        turn.emit(HandoffLapsed(id_, "expired"))


def release_handoff(turn: Turn, command: ReleaseHandoff, at: int) -> None:
    """The job is ours from here on; only a token that is not newer than the last is ignored."""
    cell, pool = turn.cell, turn.cell.pool
    token = of_token(command.token)
    id_ = pool.id_of(token)
    if token[3] <= pool.seen(id_):
        raise Refused("stale_token", "token", "it was accepted before")
    held = pool.prepared.get(id_)
    if held is not None and held.offered_ms != command.offered_ms:
        turn.emit(HandoffLapsed(id_, "offered_again"))
    failed = "unknown_queue" if command.spec.queue not in cell.queues else ""
    if not failed and id_ in cell.jobs and id_ not in pool.prepared:
        failed = "job_exists"
    turn.emit(HandoffAccepted(at, id_, shape_id(cell, command, failed), failed))


def shape_id(
    cell: Cell, command: OfferHandoff | ReleaseHandoff | GuardJob, failed: str = ""
) -> int:
    """Of the shape that the job has here, or will have; -1 if it failed before it had one."""
    shape = None if failed else cell.shape_of.get(key(command))
    return -1 if failed else cell.next_shape if shape is None else shape.id


def confirm_handoff(turn: Turn, command: ConfirmHandoff, at: int) -> None:
    kept = _unconfirmed(turn.cell, command)
    if kept is None:
        raise Refused("stale_token", "token", "nothing is to be confirmed")
    turn.emit(HandoffConfirmed(at, kept))


def _unconfirmed(cell: Cell, command: ConfirmHandoff) -> str | None:
    """The job whose coming the peer may confirm."""
    pool = cell.pool
    id_ = pool.id_of(of_token(command.token))
    kept = pool.passports.get(id_) or pool.tombstones.get(id_)
    if kept is None or kept.source != command.region or kept.confirmed:
        return None
    return id_ if id_ not in pool.prepared else None


# --- evolve ---------------------------------------------------------------------------------------


def key(command: OfferHandoff | ReleaseHandoff | GuardJob) -> bytes:
    """Key of the job's shape here, and everywhere."""
    body = command.spec.model_dump(mode="json", exclude_defaults=True)
    return shapes.split(canonical(body))[0]


def apply_prepared(cell: Cell, fact: HandoffPrepared) -> None:
    command = cell.command(fact.command, OfferHandoff)
    pool = cell.pool
    pool.heard(cell, command)
    job = _enter(cell, fact.job, command)
    passport = Passport(job.id, of_token(command.token), command.region)
    passport.offered_ms = command.offered_ms
    passport.until_ms = fact.until_ms
    pool.passports[job.id] = pool.prepared[job.id] = passport
    cell.touch(passport)
    job.run = Run(job, fact.attempt, fact.flavour, fact.nodes)
    slots.occupy(cell, job.run, ())


def _enter(cell: Cell, id_: str, command: OfferHandoff | ReleaseHandoff | GuardJob) -> Job:
    shape_key = key(command)
    history = command.history
    shape = cell.shape_of.get(shape_key) or cell.add_shape(shape_key)
    seniority_ms = min(history.seniority_ms, cell.now_ms)  # the peer's clock may be ahead
    job = Job(id_, cell.next_job, shape, seniority_ms, command.spec.runtime.estimate_s)
    deadlines.set_deadline(job, command.spec.deadline)
    cell.next_job += 1
    cell.jobs[id_] = job
    shape.jobs += 1
    _take_history(job, history)
    cell.touch(job)
    return job


def _take_history(job: Job, history: History) -> None:
    job.attempts = history.attempts
    job.attained_slot_s = history.attained_slot_s
    job.lost_slot_s = history.lost_slot_s
    job.failures = history.failures
    job.preemptions = history.preemptions


def apply_declined(cell: Cell, fact: HandoffDeclined) -> None:
    cell.pool.heard(cell, cell.command(fact.command, OfferHandoff))


def apply_lapsed(cell: Cell, fact: HandoffLapsed) -> None:
    pool = cell.pool
    job = cell.jobs.pop(fact.job)
    del pool.prepared[job.id]
    cell.left(pool.passports.pop(job.id))
    assert job.run is not None, "slots are held for it"
    run, job.run = job.run, None
    slots.vacate(cell, run)
    cell.leave_shape(job.shape)
    cell.left(job)


def apply_accepted(cell: Cell, fact: HandoffAccepted) -> None:
    command = cell.command(fact.command, ReleaseHandoff)
    pool = cell.pool
    pool.heard(cell, command)
    for total in command.rights:
        rights.merge(cell, command.region, total)
    token = of_token(command.token)
    pool.guards.discard(cell, fact.job)
    if fact.failed:
        end_unheard(cell, fact.job, token, command.region)
        return
    passport = pool.prepared.pop(fact.job, None)
    if passport is None:
        queue(cell, fact.job, command)
        passport = pool.passports[fact.job] = Passport(fact.job, token, command.region)
    else:
        _claim(cell, fact)
    own(cell, passport, token, command.owners)


def end_unheard(cell: Cell, id_: str, token: TokenOf, source: str) -> None:
    """The job came and has failed at once; its source does not know yet that it came."""
    cell.pool.bury(cell, id_, token, "")
    tombstone = cell.pool.tombstones[id_]
    tombstone.source, tombstone.confirmed = source, False


def queue(cell: Cell, id_: str, command: ReleaseHandoff | GuardJob) -> None:
    job = _enter(cell, id_, command)
    job.shape.queue.waiting += 1
    cell.join_line(job)


def _claim(cell: Cell, fact: HandoffAccepted) -> None:
    """The slots that are held are the claim of its next attempt."""
    job = cell.jobs[fact.job]
    assert job.run is not None, "slots are held for it"
    job.attempts = job.run.attempt
    cell.claims[job.run] = None
    cell.touch(job)


def own(cell: Cell, passport: Passport, token: TokenOf, owners: Iterable[Owner]) -> None:
    """The job is this region's from here on."""
    tombstone = cell.pool.tombstones.pop(passport.id, None)
    if tombstone is not None:
        cell.left(tombstone)
    flight = cell.pool.flights.pop(passport.id, None)
    if flight is not None:  # it came back before its arrival was acknowledged
        cell.left(flight)
    passport.home, passport.name, passport.term, passport.hop = token
    passport.owners = [(o.region, o.left_ms) for o in owners]
    passport.until_ms = 0
    passport.confirmed = False
    cell.touch(passport)
    guarding.entered(cell, cell.jobs[passport.id])


def apply_confirmed(cell: Cell, fact: HandoffConfirmed) -> None:
    command = cell.command(fact.command, ConfirmHandoff)
    pool = cell.pool
    pool.heard(cell, command)
    kept = pool.passports.get(fact.job) or pool.tombstones[fact.job]
    pool.confirmed(cell, kept)
