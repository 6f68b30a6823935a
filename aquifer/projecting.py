"""The embedded cell's read model: filled in bulk after a simulation, and then kept in step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aquifer.output import progress
from projections.projector import Projector
from projections.sqlite_store import SqliteStore
from projections.store import Applied
from streams.reader import LedgerReader

if TYPE_CHECKING:
    from aquifer.embedded import Embedded
    from projections.tables import Key, Row

BULK: Final = 500
"""Rounds that are written at once; only the last row of each key counts."""


async def fill(ports: Embedded, store: SqliteStore) -> None:
    """Project all that the ledger holds past what is in the store."""
    projector = Projector(ports.name, store, None, ports.snapshots)
    position = await projector.position()
    done = await store.applied(ports.name)
    reader = LedgerReader(ports.log, ports.name, ports.verifier, projector.cell.head, position)
    end = await ports.log.end()
    rows: dict[tuple[str, Key], Row] = {}
    waiting = 0
    applied = done
    with progress("filling the read model") as tell:
        async for believed in reader.read():
            made = projector.rows_of(believed.round, believed.head)
            if believed.head.round <= done.round:
                continue
            rows.update({(row.table, row.key): row for row in made})
            at_ms = believed.round.header.now_ms
            applied = Applied(believed.head.round, believed.head.hash, believed.position, at_ms)
            waiting += 1
            if waiting == BULK:
                await store.write(ports.name, list(rows.values()), applied)
                tell(believed.position, end)
                rows.clear()
                waiting = 0
        await store.write(ports.name, list(rows.values()), applied)
        tell(end, end)


async def follow(ports: Embedded, projector: Projector) -> None:
    """Keep the read model in step with the ledger, until cancelled."""
    position = await projector.position()
    reader = LedgerReader(ports.log, ports.name, ports.verifier, projector.cell.head, position)
    async for believed in reader.follow():
        await projector.on_round(believed.round, believed.head, believed.position)
