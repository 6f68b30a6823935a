"""The embedded cell's read model: filled in bulk when it is behind, and then kept in step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from aquifer.moments import NOW, Moment
from aquifer.output import progress
from domain.cell import Changes, Entity
from domain.evolve import evolve
from domain.jobs import Job
from domain.ledger import BrokenRecord, read_unchecked
from projections.projector import Projector
from projections.rows import project
from projections.store import Applied, Store
from streams.reader import Believed, LedgerReader, Readable, restore

if TYPE_CHECKING:
    from domain.ledger import Round, Verifier
    from domain.ports import Snapshots
    from projections.tables import Row

TOLD_EVERY: Final = 500
"""Rounds."""


class Ledger(Struct, frozen=True):
    """What is projected."""

    name: str
    """Of the cell."""
    log: Readable
    verifier: Verifier
    size: int
    """Records in the log, about."""
    snapshots: Snapshots | None = None


async def _begin(ledger: Ledger, store: Store) -> tuple[Projector, LedgerReader]:
    """A projector where the store is, or some way before it, and a reader that stands there."""
    projector = Projector(ledger.name, store, None, ledger.snapshots)  # the reader verifies
    head_position = await projector.position() - 1
    head = projector.cell.head
    return projector, LedgerReader(ledger.log, ledger.name, ledger.verifier, head, head_position)


async def fill(ledger: Ledger, store: Store, until: Moment = NOW) -> None:
    """Project all that the ledger holds, up to a moment, and the store does not."""
    projector, reader = await _begin(ledger, store)
    with progress("filling the read model") as tell:
        async for believed in reader.read():
            if until.is_before(believed.round.header):
                break
            await projector.on_round(believed.round, believed.head, believed.position, more=True)
            if believed.head.round % TOLD_EVERY == 0:
                tell(believed.position, max(believed.position, ledger.size))
        await projector.write()


async def fill_state(ledger: Ledger, store: Store, until: Moment) -> None:
    """Write what stood at a moment, from the nearest snapshot: no history, and no jobs."""
    found = await state_at(ledger, until, jobs=False)
    if found is not None:
        await store.write(ledger.name, *found)


async def state_at(
    ledger: Ledger, until: Moment, *, jobs: bool
) -> tuple[list[Row], Applied] | None:
    """Rows of what stood at a moment, with its live jobs or without; None: there was nothing.

    The nearest snapshot is as far away as they are spaced, whatever the ledger's length.
    """
    at_most = until.round
    if until.at_ms is not None:
        at_most = await _round_at(ledger, until.at_ms)
    cell, reader = await restore(
        ledger.name, ledger.log, ledger.verifier, ledger.snapshots, at_most
    )
    last: Believed | None = None
    async for believed in reader.read():
        if until.is_before(believed.round.header):
            break
        evolve(cell, believed.round, believed.head)
        last = believed
    if last is None:
        if not cell.head.round:
            return None
        position = reader.head_position
        last = Believed(position, await _round_of(ledger, position), cell.head, b"")
    everything: list[Entity] = [e for e in cell.entities() if jobs or not isinstance(e, Job)]
    nothing_new = replace(last.round, commands=[], duplicates=[], refusals=[], facts=[])
    rows = project(cell, nothing_new, last.head, Changes(everything, []))
    applied = Applied(cell.head.round, cell.head.hash, last.position, cell.now_ms)
    return rows, applied


async def _round_at(ledger: Ledger, at_ms: int) -> int:
    """The last round up to a time, or one before it; found by halves."""
    low, high = 0, ledger.size
    found = 0
    while low < high:
        middle = (low + high) // 2
        round = await _round_of(ledger, middle)
        if round.header.now_ms <= at_ms:
            found, low = round.header.round, middle + 1
        else:
            high = middle
    return found


async def _round_of(ledger: Ledger, position: int) -> Round:
    """The round of the first readable record from a position on."""
    async for _, record in ledger.log.read(position):
        try:
            return read_unchecked(record)[0]
        except BrokenRecord:
            continue
    raise BrokenRecord("end", None, f"no record stands at {position} or after it")


async def follow(ledger: Ledger, store: Store) -> None:
    """Keep the read model in step with the ledger, until cancelled."""
    projector, reader = await _begin(ledger, store)
    async for believed in reader.follow():
        await projector.on_round(believed.round, believed.head, believed.position)
