"""The embedded cell's read model: filled in bulk when it is behind, and then kept in step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from aquifer.moments import NOW, Moment
from aquifer.output import progress
from projections.projector import Projector
from projections.store import Applied, Store
from streams.reader import LedgerReader, Readable

if TYPE_CHECKING:
    from domain.ledger import Verifier
    from domain.ports import Snapshots
    from projections.tables import Key, Row

BULK: Final = 500
"""Rounds that are written at once; only the last row of each key counts."""


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
    applied = await store.applied(ledger.name)
    rows: dict[tuple[str, Key], Row] = {}
    waiting = 0
    with progress("filling the read model") as tell:
        async for believed in reader.read():
            if until.is_before(believed.round.header):
                break
            made = projector.rows_of(believed.round, believed.head)
            if believed.head.round <= applied.round:
                continue
            rows.update({(row.table, row.key): row for row in made})
            at_ms = believed.round.header.now_ms
            applied = Applied(believed.head.round, believed.head.hash, believed.position, at_ms)
            waiting += 1
            if waiting == BULK:
                await store.write(ledger.name, list(rows.values()), applied)
                tell(believed.position, max(believed.position, ledger.size))
                rows.clear()
                waiting = 0
        if waiting:
            await store.write(ledger.name, list(rows.values()), applied)


async def follow(ledger: Ledger, store: Store) -> None:
    """Keep the read model in step with the ledger, until cancelled."""
    projector, reader = await _begin(ledger, store)
    async for believed in reader.follow():
        await projector.on_round(believed.round, believed.head, believed.position)
