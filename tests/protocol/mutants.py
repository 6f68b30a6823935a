"""Faults seeded into the real protocol: the check must find each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from msgspec import Struct

from domain import decide, evolve
from domain.cell import Cell
from domain.commands import AdvertiseInventory, SendRights
from domain.jobs import Job
from domain.pool import (
    fencing,
    guardian,
    guards,
    handoff,
    peers,
    rights,
)
from domain.pool import state as pool
from domain.pool.facts import HandoffReleased, RightsReceived
from domain.pool.guard_facts import CopyEnded, VoteGiven
from domain.pool.specs import Amount
from domain.turn import Turn
from tests.protocol import models
from tests.protocol.explore import Model


def _no_fence(patch: pytest.MonkeyPatch) -> None:
    """The commit record takes a result from any attempt: set in the model."""


def _take_back(patch: pytest.MonkeyPatch) -> None:
    """The source keeps the job in its line after the release."""

    def apply(cell: Cell, fact: HandoffReleased) -> None:
        shape = cell.jobs[fact.job].shape
        shape.jobs += 1  # so that it outlives the release
        handoff.apply_released(cell, fact)
        job = Job(fact.job, cell.next_job, shape, cell.now_ms, None)
        cell.next_job += 1
        cell.jobs[job.id] = job
        shape.queue.waiting += 1
        cell.join_line(job)
        cell.touch(job)

    patch.setitem(evolve.APPLY, HandoffReleased, apply)


def _no_epoch(patch: pytest.MonkeyPatch) -> None:
    """A token does not tell of which ledger of its home it is."""

    def id_of(self: pool.Pool, token: Any) -> str:
        home, name, _, _ = token
        return str(name) if home == self.own.id else f"{name}@{home}"

    def check(turn: Turn, command: Any, at: int) -> None:
        assert command.region in turn.cell.pool.peers

    patch.setattr(pool.Pool, "id_of", id_of)
    patch.setattr(peers, "check_sender", check)


def _added_deltas(patch: pytest.MonkeyPatch) -> None:
    """What a donor says is added to what it said before."""

    def merge(cell: Cell, donor: str, total: Amount) -> None:
        held = cell.pool.rights[total.account, total.accelerator]
        held.received[donor] = held.received.get(donor, 0) + total.milli
        rights.impose(cell, held)

    def send(turn: Turn, command: SendRights, at: int) -> None:
        turn.emit(RightsReceived(at))

    patch.setattr(rights, "merge", merge)
    patch.setattr(rights, "send_rights", send)
    patch.setitem(decide.DECIDE, SendRights.__name__, send)


def _no_memory_of_tokens(patch: pytest.MonkeyPatch) -> None:
    """A region takes any release for a new one."""
    patch.setattr(pool.Pool, "seen", lambda self, id_: -1)


def _forgets_what_flies(patch: pytest.MonkeyPatch) -> None:
    """The source says once that the job is the peer's, and forgets it."""

    def apply(cell: Cell, fact: HandoffReleased) -> None:
        handoff.apply_released(cell, fact)
        cell.pool.flights[fact.job].token = (*cell.pool.flights[fact.job].token[:3], -1)

    patch.setitem(evolve.APPLY, HandoffReleased, apply)


def _ends_unasked(patch: pytest.MonkeyPatch) -> None:
    """A guarded job ends without its guardian's consent."""
    patch.setattr(guards.Guards, "must_ask", lambda self, job: False)


def _forgets_what_ended(patch: pytest.MonkeyPatch) -> None:
    """The guardian agrees to the end, and takes a late copy for a new one."""

    def apply(cell: Cell, fact: CopyEnded) -> None:
        guardian.apply_ended(cell, fact)
        cell.pool.guards.discard(cell, fact.job)

    patch.setitem(evolve.APPLY, CopyEnded, apply)


def _two_votes(patch: pytest.MonkeyPatch) -> None:
    """A region agrees with each of two others that the other one is lost."""

    def consider(turn: Turn, heard: AdvertiseInventory) -> None:
        for doubt in heard.lost:
            if doubt.region in turn.cell.pool.peers:
                turn.emit(VoteGiven(doubt.region, heard.region, doubt.since_ms))

    patch.setattr(fencing, "consider", consider)


def _to_anyone(patch: pytest.MonkeyPatch) -> None:
    """A guarded job is handed over to another region than its guardian."""
    patch.setattr(guards.Guards, "keeps_from", lambda self, job, peer: False)


class Mutant(Struct, frozen=True):
    seed: Callable[[pytest.MonkeyPatch], None]
    model: Callable[[], Model]
    found: tuple[str, ...]
    """What the check may say of it."""
    fence: bool = True


LOST: Final = ("j is lost", "j is in two places", "it can never complete")

TWICE: Final = ("j has two outcomes", "j has two owners", "j ended and is still there")

MUTANTS: Final = {
    "no fence": Mutant(_no_fence, models.two_by_two, ("i was committed twice",), fence=False),
    "take back": Mutant(_take_back, models.two_by_one, ("j is in two places", "j has two owners")),
    "no epoch": Mutant(_no_epoch, models.reborn, (*LOST, "j has two owners")),
    "added deltas": Mutant(_added_deltas, models.rights_on_request, ()),
    "no memory of tokens": Mutant(
        _no_memory_of_tokens,
        models.two_by_one,
        ("j has two owners", "j has two outcomes", "j ended and is still there"),
    ),
    "ends unasked": Mutant(_ends_unasked, models.owner_lost, TWICE),
    "forgets what ended": Mutant(_forgets_what_ended, models.owner_lost, TWICE),
    "two votes": Mutant(_two_votes, models.voted, TWICE),
    "to anyone": Mutant(_to_anyone, models.moved_from_its_guardian, (*TWICE, *LOST)),
    "forgets what flies": Mutant(_forgets_what_flies, models.two_by_one, LOST),
}


@contextmanager
def seeded(name: str) -> Iterator[Model]:
    """The model of a mutant, with its fault in place."""
    mutant = MUTANTS[name]
    with pytest.MonkeyPatch.context() as patch:
        mutant.seed(patch)
        model = mutant.model()
        model.fence = mutant.fence
        yield model
