"""A small pool for an explicit-state check: each region is a real cell, `decide` and `evolve`.

What a cell does depends on its own state and on what it hears, so each of its steps is taken once
and remembered. States of a cell are equal if they differ only in what decides nothing: counters,
the books, and the memory of command ids, which is emptied before each step, so that no duplicate is
recognised by its id.
"""

from __future__ import annotations

import hashlib
from itertools import count
from typing import Any, Final

from msgspec import Raw, Struct

from domain.cell import Cell
from domain.commands import AdvertiseInventory, Command, CordonNode, PreemptJob, ReportAttempt
from domain.decide import decide
from domain.evolve import evolve
from domain.facts import JobCancelled, JobFailed, JobFinished
from domain.ledger import ENGINE, Accepted, Head, Header
from domain.memory import Memory
from domain.pool import fencing, inventory
from domain.pool.commands import FenceRegion
from domain.pool.facts import HandoffAccepted
from domain.pool.specs import Amount, Stock
from domain.pool.state import Offer, Peer
from streams import dispatch, outbox
from streams.dispatch import Start
from streams.outbox import Letter
from tests.domain.given import body_of

TICK_MS: Final = 60_000
"""Longer than offers, claims, rests and grace periods."""
START_MS: Final = 1_000_000
H100: Final = "h100"

Identity = tuple[str, str, int]
"""Home, name there, and term: one job wherever it is."""
Token = tuple[int, int, int]
"""Term, hop, attempt."""


class Heard(Struct, frozen=True):
    """Anything that a cell can be told: a letter of a peer, a report, an operator's command."""

    to: str
    source: str
    type: str
    body: bytes


class Process(Struct, frozen=True, order=True):
    """An attempt as its agents run it."""

    region: str
    job: Identity
    token: Token
    id: str


class Local(Struct, frozen=True):
    """What a cell's state says of the pool."""

    snapshot: bytes
    now_ms: int
    owned: dict[Identity, int]
    """Hops of the jobs that are this region's."""
    seen: dict[Identity, int]
    flights: list[tuple[Identity, int, str]]
    """Job, hop, and to whom."""
    rights: dict[tuple[str, str], int]
    used: int
    """Thousandths of slots of attempts that started, under rights."""
    running: tuple[str, ...]


class Step(Struct, frozen=True):
    """What a cell did when it heard something."""

    state: int
    said: tuple[Heard, ...]
    starts: tuple[Process, ...]
    ended: tuple[Identity, ...]


class Regions:
    """The cells' states by number, and the steps between them."""

    def __init__(self, cells: list[Cell], ticks: int, surplus: int = 0) -> None:
        self.names = [cell.name for cell in cells]
        self.ticks = ticks
        self._surplus = surplus
        self.locals: list[Local] = []
        self._numbers: dict[bytes, int] = {}
        self._steps: dict[tuple[int, Heard | None], Step] = {}
        self._ids = count()
        self.start = [self.enter(cell) for cell in cells]

    def enter(self, cell: Cell) -> int:
        """The number of a cell's state, after it has heard what its peers seem to have."""
        state = self._intern(cell)
        for heard in self.hints(cell.name):
            state = self.hear(state, heard).state
        return state

    def first_starts(self) -> frozenset[Process]:
        """What agents were told before the first step."""
        cells = (Cell.restore(self.locals[n].snapshot) for n in self.start)
        return frozenset(
            process_of(cell, told)
            for cell in cells
            for told in dispatch.outstanding(cell)
            if isinstance(told, Start)
        )

    def first_said(self) -> list[Heard]:
        """What peers were to hear before the first step."""
        cells = (Cell.restore(self.locals[n].snapshot) for n in self.start)
        return [_posted(cell, letter) for cell in cells for letter in outbox.standing(cell)]

    def hear(self, state: int, heard: Heard) -> Step:
        found = self._steps.get((state, heard))
        if found is None:
            accepted = self._accepted(heard, self.locals[state].now_ms)
            found = self._steps[state, heard] = self._step(state, [accepted], 0)
        return found

    def tick(self, state: int) -> Step | None:
        """Time passes; None at the end of time."""
        local = self.locals[state]
        if local.now_ms >= START_MS + self.ticks * TICK_MS:
            return None
        found = self._steps.get((state, None))
        if found is None:
            found = self._steps[state, None] = self._step(state, [], TICK_MS)
        return found

    def hints(self, to: str) -> list[Heard]:
        """Each peer says that it has a free slot, true or not."""
        stock = (Stock(accelerator=H100, cluster="c", free=(0, 1)),)
        spare: tuple[Amount, ...] = ()
        if self._surplus:
            spare = (Amount(account="a", accelerator=H100, milli=self._surplus),)
        return [
            _heard(
                to, n, AdvertiseInventory(region=n, epoch=1, round=0, stock=stock, surplus=spare)
            )
            for n in self.names
            if n != to
        ]

    def _accepted(self, heard: Heard, now_ms: int) -> Accepted:
        n = next(self._ids)
        return Accepted(0, n, str(n), "s", heard.type, heard.source, now_ms, Raw(heard.body))

    def _step(self, state: int, accepted: list[Accepted], later_ms: int) -> Step:
        local = self.locals[state]
        cell, twin = _restored(local.snapshot), _restored(local.snapshot)
        before = _views(cell)
        header = Header(cell.head.round + 1, local.now_ms + later_ms, 1000, ENGINE)
        round = decide(cell, header, accepted)
        evolve(twin, round, Head())
        assert outbox.letters(twin, round) == outbox.letters(cell, round)
        said = [_posted(cell, letter) for letter in outbox.letters(cell, round)]
        if _views(cell) == before:
            cell.believe(Head(header.round - 1), {})
        else:  # a newer advert has a higher round, so that an older one does not replace it
            cell.believe(Head(header.round), {})
            said += [self._advert(cell, to) for to in cell.pool.peers]
        starts = tuple(
            process_of(cell, told)
            for told in dispatch.instructions(cell, round)
            if isinstance(told, Start)
        )
        ended = tuple(
            _ended(self.locals[state], cell, f)
            for f in round.facts
            if isinstance(f, JobFinished | JobFailed | JobCancelled)
            or (isinstance(f, HandoffAccepted) and f.failed)
        )
        return Step(self._intern(cell), tuple(said), starts, ended)

    def _advert(self, cell: Cell, to: str) -> Heard:
        (hint,) = (h for h in self.hints(to) if h.source == cell.name)
        said = inventory.advert(cell)
        views = {"round": said.round, "lost": said.lost, "votes": said.votes}
        command = AdvertiseInventory.model_validate_json(hint.body).model_copy(update=views)
        return _heard(to, cell.name, command)

    def _intern(self, cell: Cell) -> int:
        key = state_key(cell)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.locals)
            self.locals.append(_local(cell))
        return number


def _restored(snapshot: bytes) -> Cell:
    cell = Cell.restore(snapshot)
    cell.memory = Memory()
    return cell


def _views(cell: Cell) -> tuple[Any, ...]:
    """What it says of regions that are held for lost."""
    return fencing.doubts(cell.pool), fencing.votes(cell.pool)


def _posted(cell: Cell, letter: Letter) -> Heard:
    return Heard(letter.to, cell.name, letter.type, letter.body)


def _heard(to: str, source: str, command: Command) -> Heard:
    return Heard(to, source, type(command).__name__, body_of(command))


def report(process: Process) -> Heard:
    done = ReportAttempt(job=process.id, attempt=process.token[2], state="finished")
    return _heard(process.region, "agent", done)


def preempt(region: str, job: str) -> Heard:
    return _heard(region, "operator", PreemptJob(job=job))


def cordon(region: str, cordoned: bool) -> Heard:
    command = CordonNode(node=f"{region}-0", cordoned=cordoned)
    return _heard(region, "operator", command)


def fence(region: str, lost: str) -> Heard:
    return _heard(region, "operator", FenceRegion(region=lost))


def _identity(cell: Cell, id_: str) -> Identity:
    return cell.pool.token_of(id_)[:3]


def process_of(cell: Cell, start: Start) -> Process:
    home, name, term, hop = cell.pool.token_of(start.job)
    return Process(cell.name, (home, name, term), (term, hop, start.attempt), start.job)


def _ended(before: Local, cell: Cell, fact: Any) -> Identity:
    tombstone = cell.pool.tombstones.get(fact.job)
    if tombstone is not None:
        return tombstone.token[:3]
    return (cell.pool.own.id, fact.job, cell.pool.own.epoch)


def _local(cell: Cell) -> Local:
    pool = cell.pool
    owned = {
        _identity(cell, id_): pool.token_of(id_)[3] for id_ in cell.jobs if id_ not in pool.prepared
    }
    seen = {t.token[:3]: t.token[3] for t in pool.tombstones.values()}
    started = [j.run for j in cell.jobs.values() if j.run is not None and j.run.started_ms]
    return Local(
        cell.snapshot(),
        cell.now_ms,
        owned,
        seen | owned,
        [(f.token[:3], f.token[3], f.to) for f in pool.flights.values()],
        {key: rights.held for key, rights in pool.rights.items()},
        sum(run.job.shape.size for run in started) if pool.rights else 0,
        tuple(run.job.id for run in started if not run.stop_by_ms),
    )


def state_key(cell: Cell) -> bytes:
    """Equal for states from which the same can be decided."""
    shapes = {id_: rank for rank, id_ in enumerate(sorted(cell.shapes))}
    jobs = [
        (j.id, j.shape.key, j.queued, *j.state()[3:])
        for j in sorted(cell.jobs.values(), key=lambda j: j.number)
    ]
    pool: list[Any] = []
    for entity in cell.pool.entities():
        state = list(entity.state())
        if isinstance(entity, Offer):
            state[3] = shapes.get(entity.shape, -1)
        elif isinstance(entity, Peer):
            if not cell.pool.own.rules.lost_s:
                state[6] = 0  # when it was heard: all is fresh here
            state[9] = [(shapes[s], until) for s, until in entity.rests.items() if s in shapes]
        pool.append((entity.kind, state))
    parts = (
        cell.name,
        cell.now_ms,
        cell.head.round,
        [n.state() for n in cell.nodes.values()],
        jobs,
        [(a.id, sorted(a.nominal.items())) for a in cell.accounts.values()],
        sorted(pool, key=repr),
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
