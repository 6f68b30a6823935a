"""What a believed round says to the peers: nothing that is not in the ledger is ever said.

A message's id is made of its content and the sender's epoch, so that whoever derives it, however
often, gives it the same one: the receiver knows it again.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
from msgspec import Struct

from domain.cell import Cell
from domain.commands import (
    AcknowledgeHandoff,
    AmendJob,
    AnswerGuard,
    AnswerHandoff,
    ConfirmHandoff,
    EndGuard,
    FromPeer,
    GuardJob,
    OfferHandoff,
    ReleaseHandoff,
    RequestRights,
    SendRights,
    WithdrawHandoff,
)
from domain.facts import AnyFact, JobAmended
from domain.ledger import Round, canonical
from domain.pool import travel
from domain.pool.facts import (
    HandoffAccepted,
    HandoffCompleted,
    HandoffDeclined,
    HandoffOffered,
    HandoffPrepared,
    HandoffReleased,
    HandoffWithdrawn,
    RightsRequested,
    RightsSent,
)
from domain.pool.guard_facts import (
    CopyEnded,
    CopyKept,
    JobAdopted,
    JobGuarded,
    JobTaken,
    OutcomeAsked,
)
from domain.pool.guards import Guard
from domain.pool.rights import Rights
from domain.pool.specs import Amount
from domain.pool.state import Flight, Passport, Tombstone, after, as_token, of_token

ANSWERED: Final = {
    kind.__name__ for kind in (AcknowledgeHandoff, ReleaseHandoff, GuardJob, EndGuard)
}
"""What a peer says again until it is answered."""
_any: Final = msgspec.json.Decoder(dict[str, Any])


class Letter(Struct, frozen=True, gc=False):
    """A command for a peer's inbox."""

    to: str
    type: str
    id: str
    body: bytes
    """Canonical JSON, as in `Accepted.data`."""


def letters(cell: Cell, round: Round) -> list[Letter]:
    """What peers must hear of the round; `cell` is the state right after it."""
    if cell.pool.region is None:
        return []
    found = []
    for fact in round.facts:
        letter = _letter(cell, round, fact)
        if letter is not None:
            found.append(letter)
    return found + _confirmations(cell, round)


def _confirmations(cell: Cell, round: Round) -> list[Letter]:
    """A peer that says a thing once more has not heard the answer."""
    again = list(round.duplicates)
    again += (r.command for r in round.refusals if r.code == "stale_token")
    found = []
    for index in sorted(again):
        said = cell.parsed(index) if round.commands[index].type in ANSWERED else None
        answer = _again(cell, said) if isinstance(said, FromPeer) else None
        if answer is not None:
            found.append(answer)
    return found


def _again(cell: Cell, said: FromPeer) -> Letter | None:
    """The answer as the state has it now."""
    pool, me = cell.pool, _me(cell)
    match said:
        case AcknowledgeHandoff() if not _flies(cell, said):
            return letter(cell, said.region, ConfirmHandoff(token=said.token, **me))
        case ReleaseHandoff() if pool.seen(pool.id_of(of_token(said.token))) >= said.token.hop:
            return letter(cell, said.region, AcknowledgeHandoff(token=said.token, **me))
        case GuardJob() | EndGuard():
            return _about_copy(cell, said)
    return None


def _about_copy(cell: Cell, asked: GuardJob | EndGuard) -> Letter | None:
    """What became of the copy that a peer asks about once more."""
    token = of_token(asked.token)
    id_ = cell.pool.id_of(token)
    if cell.pool.seen(id_) > asked.token.hop:  # whoever has the job now, it came by this region
        mine = AcknowledgeHandoff(token=as_token(after(token)), **_me(cell))
        return letter(cell, asked.region, mine)
    copy = cell.pool.guards.copies.get(id_)
    if copy is None or copy.token != token:
        return None
    if copy.ended_ms:
        return _copy(cell, asked, None)
    if isinstance(asked, EndGuard):
        return None
    return _copy(cell, asked, GuardJob.model_validate_json(copy.body))


def _copy(cell: Cell, asked: GuardJob | EndGuard, kept: GuardJob | None) -> Letter:
    """Which copy is kept, if one is."""
    amended = kept.amended if kept is not None else 0
    told = AnswerGuard(token=asked.token, kept=kept is not None, amended=amended, **_me(cell))
    return letter(cell, asked.region, told)


def _me(cell: Cell) -> dict[str, Any]:
    """Who speaks."""
    return {"region": cell.pool.own.id, "epoch": cell.pool.own.epoch}


def _flies(cell: Cell, heard: AcknowledgeHandoff) -> bool:
    """The job is on its way still, as far as this ledger knows."""
    flight = cell.pool.flights.get(cell.pool.id_of(of_token(heard.token)))
    return flight is not None and flight.token == of_token(heard.token)


def standing(cell: Cell) -> list[Letter]:
    """What a peer must have heard in the end: jobs on their way, and those that came.

    Said again from time to time, until it is answered: a peer may have lost its inbox.
    """
    pool = cell.pool
    if pool.region is None:
        return []
    found = [_in_flight(flight) for _, flight in sorted(pool.flights.items())]
    for kept in pool.unconfirmed():
        found.append(_came(cell, kept))
    for guard in pool.guards.of.values():
        if guard.by and not guard.taken and (guard.outcome or guard.over or not guard.kept):
            found.append(_guard(cell, guard))
    for rights in pool.rights.values():
        for peer, milli in sorted(rights.sent.items()):
            found.append(letter(cell, peer, _total(cell, rights, milli)))
    return found


def _guard(cell: Cell, guard: Guard) -> Letter:
    """What the guardian has to hear of the job."""
    if not (guard.outcome or guard.over):
        return _sealed(guard.by, GuardJob.__name__, guard.body)
    return letter(cell, guard.by, EndGuard(token=as_token(guard.token), **_me(cell)))


def _came(cell: Cell, kept: Passport | Tombstone) -> Letter:
    """The job is this region's, or was since."""
    return letter(cell, kept.source, AcknowledgeHandoff(token=as_token(kept.token), **_me(cell)))


def _total(cell: Cell, rights: Rights, milli: int) -> SendRights:
    row = Amount(account=rights.account, accelerator=rights.accelerator, milli=milli)
    return SendRights(total=row, **_me(cell))


def letter(cell: Cell, to: str, command: FromPeer) -> Letter:
    body = canonical(command.model_dump(mode="json", exclude_defaults=True))
    return _sealed(to, type(command).__name__, body)


def _sealed(to: str, type_: str, body: bytes) -> Letter:
    epoch = _any.decode(body)["epoch"]
    digest = hashlib.blake2b(type_.encode() + body, digest_size=16).hexdigest()
    return Letter(to, type_, f"{epoch}.{digest}", body)


def _in_flight(flight: Flight) -> Letter:
    return _sealed(flight.to, ReleaseHandoff.__name__, flight.body)


def _letter(cell: Cell, round: Round, fact: AnyFact) -> Letter | None:
    """What the fact says, and to whom; None if it is no peer's business."""
    pool, me = cell.pool, _me(cell)
    match fact:
        case HandoffOffered():
            return letter(cell, fact.to, _offer(cell, fact, me))
        case HandoffWithdrawn() if fact.reason != "declined":
            token = as_token(fact.token)
            gone = WithdrawHandoff(token=token, offered_ms=fact.offered_ms, **me)
            return letter(cell, fact.to, gone)
        case HandoffReleased():
            return _in_flight(pool.flights[fact.job])
        case HandoffCompleted() | JobTaken():
            heard = cell.command(fact.command, AcknowledgeHandoff)
            return letter(cell, heard.region, ConfirmHandoff(token=heard.token, **me))
        case HandoffPrepared() | HandoffDeclined():
            return _answer(cell, fact, me)
        case HandoffAccepted():
            released = cell.command(fact.command, ReleaseHandoff)
            return letter(cell, released.region, AcknowledgeHandoff(token=released.token, **me))
        case JobGuarded() if fact.by:
            return _guard(cell, pool.guards.of[fact.job])
        case JobAmended():
            name = cell.command(fact.command, AmendJob).job
            guard = pool.guards.of.get(name)
            return _guard(cell, guard) if guard is not None and guard.by else None
        case OutcomeAsked() if fact.job in pool.guards.of:
            return _guard(cell, pool.guards.of[fact.job])
        case CopyKept():
            kept = cell.command(fact.command, GuardJob)
            return _copy(cell, kept, kept)
        case CopyEnded():
            asked = cell.parsed(fact.command)
            assert isinstance(asked, GuardJob | EndGuard)
            return _copy(cell, asked, None)
        case JobAdopted():
            return _came(cell, pool.passports.get(fact.job) or pool.tombstones[fact.job])
        case RightsRequested():
            amount = Amount(account=fact.account, accelerator=fact.accelerator, milli=fact.milli)
            asked = RequestRights(amount=amount, asked_ms=round.header.now_ms, **me)
            return letter(cell, fact.to, asked)
        case RightsSent():
            rights = pool.rights[fact.account, fact.accelerator]
            return letter(cell, fact.to, _total(cell, rights, rights.sent[fact.to]))
    return None


def _offer(cell: Cell, fact: HandoffOffered, me: dict[str, Any]) -> OfferHandoff:
    job = cell.jobs[fact.job]
    return OfferHandoff(
        token=as_token(cell.pool.token_of(job.id)),
        offered_ms=cell.pool.offers[job.id].made_ms,
        spec=travel.spec_of(job),
        history=travel.history_of(job),
        rights=travel.rights_to_offer(cell, job),
        **me,
    )


def _answer(cell: Cell, fact: HandoffPrepared | HandoffDeclined, me: dict[str, Any]) -> Letter:
    asked = cell.command(fact.command, OfferHandoff)
    about = {"token": asked.token, "offered_ms": asked.offered_ms, **me}
    if isinstance(fact, HandoffDeclined):
        retry_s = fact.retry_after_s
        no = AnswerHandoff(prepared=False, reason=fact.reason, retry_after_s=retry_s, **about)
        return letter(cell, asked.region, no)
    rights: tuple[Amount, ...] = ()
    if fact.rights_milli:
        account = cell.queues[asked.spec.queue].account.id
        accelerator = asked.spec.flavours[fact.flavour].accelerator
        rights = (Amount(account=account, accelerator=accelerator, milli=fact.rights_milli),)
    return letter(cell, asked.region, AnswerHandoff(prepared=True, rights=rights, **about))
