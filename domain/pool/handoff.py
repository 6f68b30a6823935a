"""The hand-off of a waiting job, at the region that lets it go.

    offered -> released -> completed,  or  offered -> withdrawn

The job stays here, waits, and may start here until the one round that releases it. That is done
once for a token, to one region that holds slots for the job, and is never taken back. From then on
this ledger holds the job for its new owner until that says that it has it. `domain.pool.takeover`
is the other side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.commands import AcknowledgeHandoff, AnswerHandoff, ReleaseHandoff
from domain.ledger import canonical
from domain.pool import guarding, rights, travel
from domain.pool.facts import HandoffCompleted, HandoffOffered, HandoffReleased, HandoffWithdrawn
from domain.pool.inventory import take
from domain.pool.state import MAX_FLIGHTS, MAX_TOMBSTONES, Flight, Offer, after, as_token, of_token
from domain.refusals import Refused

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.pool.state import Pool
    from domain.turn import Turn


# --- decide ---------------------------------------------------------------------------------------


def answer_handoff(turn: Turn, command: AnswerHandoff, at: int) -> None:
    """A place is held over there: release the job; or there is none: let it rest."""
    pool = turn.cell.pool
    token = of_token(command.token)
    id_ = pool.id_of(token)
    offer = pool.offers.get(id_)
    stands = offer is not None and (offer.to, offer.token, offer.made_ms) == (
        command.region,
        token,
        command.offered_ms,
    )
    if offer is None or not stands:
        if not command.prepared:
            raise Refused("stale_token", "token", "no such offer stands")
        if pool.seen(id_) > token[3]:
            raise Refused("stale_token", "token", "the job has left already")
        gone = (id_, command.region, token, command.offered_ms, "not_offered")
        turn.emit(HandoffWithdrawn(*gone))
        return
    if not command.prepared:
        rest_s = max(command.retry_after_s, pool.own.rules.rest_s)
        until_ms = turn.header.now_ms + 1000 * rest_s
        withdraw(turn, offer, "declined", command.reason, until_ms)
        return
    reason = _hindrance(turn.cell, offer, command)
    if reason:
        withdraw(turn, offer, reason)
    else:
        turn.emit(HandoffReleased(at, id_, offer.to))


def _hindrance(cell: Cell, offer: Offer, answer: AnswerHandoff) -> str:
    """Why the job cannot be released now; empty if it can."""
    job = cell.jobs.get(offer.id)
    if job is None or not job.queued or cell.pool.token_of(job.id) != offer.token:
        return "not_waiting"
    if job.shape.id != offer.shape:
        return "amended"
    if cell.pool.guards.keeps_from(job.id, offer.to):
        return "guarded"
    for amount in answer.rights:
        if rights.surplus(cell, amount.account, amount.accelerator) < amount.milli:
            return "no_rights"
    return ""


def withdraw(turn: Turn, offer: Offer, reason: str, detail: str = "", rest_ms: int = 0) -> None:
    at = (offer.id, offer.to, offer.token, offer.made_ms)
    turn.emit(HandoffWithdrawn(*at, reason, detail, rest_ms))


def expire_offers(turn: Turn) -> None:
    pool = turn.cell.pool
    now_ms = turn.header.now_ms
    due = [id_ for id_, offer in pool.offers.items() if offer.until_ms <= now_ms]
    for id_ in sorted(due):
        rest_ms = now_ms + 1000 * pool.own.rules.rest_s
        withdraw(turn, pool.offers[id_], "no_answer", rest_ms=rest_ms)


def acknowledge_handoff(turn: Turn, command: AcknowledgeHandoff, at: int) -> None:
    pool = turn.cell.pool
    token = of_token(command.token)
    if guarding.taken(turn, command, at):
        return
    flight = pool.flights.get(pool.id_of(token))
    if flight is None or (flight.token, flight.to) != (token, command.region):
        raise Refused("stale_token", "token", "no such job is on its way to this region")
    turn.emit(HandoffCompleted(at, flight.id))


def has_room(pool: Pool) -> bool:
    """True iff one more job may leave: what is remembered of them is bounded."""
    return len(pool.flights) < MAX_FLIGHTS and len(pool.tombstones) < MAX_TOMBSTONES


# --- evolve ---------------------------------------------------------------------------------------


def apply_offered(cell: Cell, fact: HandoffOffered) -> None:
    pool, job = cell.pool, cell.jobs[fact.job]
    token = pool.token_of(job.id)
    offer = Offer(job.id, fact.to, token, job.shape.id, cell.now_ms, fact.until_ms)
    pool.offers[job.id] = offer
    cell.touch(offer)
    peer, need = pool.peers[fact.to], job.shape.needs[fact.flavour]
    for key, free in sorted(peer.stock.items()):
        left = take(free, need.groups) if key[0] == need.accelerator else None
        if left is not None:
            peer.stock[key] = left
            cell.touch(peer)
            return


def apply_withdrawn(cell: Cell, fact: HandoffWithdrawn) -> None:
    pool = cell.pool
    offer = pool.offers.get(fact.job)
    if offer is None or (offer.to, offer.made_ms) != (fact.to, fact.offered_ms):
        return  # it was withdrawn before; the peer is told again
    del pool.offers[fact.job]
    cell.left(offer)
    peer = pool.peers.get(fact.to)
    if peer is not None and fact.rest_until_ms:
        peer.rests[offer.shape] = fact.rest_until_ms
        cell.touch(peer)


def apply_released(cell: Cell, fact: HandoffReleased) -> None:
    answer = cell.command(fact.command, AnswerHandoff)
    pool = cell.pool
    pool.heard(cell, answer)
    offer = pool.offers.pop(fact.job)
    cell.left(offer)
    job = cell.jobs[fact.job]
    token = after(pool.token_of(job.id))
    sent = []
    for amount in answer.rights:
        held = pool.rights[amount.account, amount.accelerator]
        total = rights.give(cell, held, fact.to, amount.milli)
        sent.append(amount.model_copy(update={"milli": total}))
    message = ReleaseHandoff(
        region=pool.own.id,
        epoch=pool.own.epoch,
        token=as_token(token),
        offered_ms=offer.made_ms,
        spec=travel.spec_of(job),
        history=travel.history_of(job),
        owners=travel.owners_of(cell, job),
        rights=tuple(sent),
    )
    body = canonical(message.model_dump(mode="json", exclude_defaults=True))
    flight = pool.flights[job.id] = Flight(job.id, token, fact.to, body)
    cell.touch(flight)
    travel.leave(cell, job, token, fact.to)


def apply_completed(cell: Cell, fact: HandoffCompleted) -> None:
    cell.pool.heard(cell, cell.command(fact.command, AcknowledgeHandoff))
    cell.left(cell.pool.flights.pop(fact.job))
