"""Reading a ledger: of all records in a log, those that are believed.

A record is believed if it is whole, signed by the cell's key, and extends the chain; of two that do
so the first is. Others (of a zombie, a retry, a stranger) are passed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from msgspec import Struct

from domain.cell import Cell
from domain.evolve import evolve
from domain.ledger import BrokenRecord, Head, Round, Verifier, as_next, unseal
from domain.ports import Snapshots
from domain.snapshots import Saving, whole


class Readable(Protocol):
    """What a log must be able to do to be read."""

    def read(self, position: int) -> AsyncIterator[tuple[int, bytes]]: ...


class Believed(Struct, frozen=True, gc=False):
    position: int
    round: Round
    head: Head
    record: bytes


class LedgerReader:
    """Walks one cell's log; stands after the record that made `head`."""

    def __init__(
        self,
        log: Readable,
        cell: str,
        verifier: Verifier,
        head: Head | None = None,
        head_position: int = -1,
    ) -> None:
        """`head_position` is where the record stands that made `head`."""
        self._log = log
        self._cell = cell
        self._verifier = verifier
        self.head = head or Head()
        self.head_position = head_position
        self.position = head_position + 1
        """Where to read next."""
        self.passed_over = 0
        """Records that were not believed."""

    async def read(self) -> AsyncIterator[Believed]:
        """The believed records up to the log's end as it is now."""
        async for position, record in self._log.read(self.position):
            self.position = position + 1
            believed = self.judge(position, record)
            if believed is not None:
                yield believed

    def judge(self, position: int, record: bytes) -> Believed | None:
        """The record if it is believed; then the head is that of this record.

        Raises NewerEngine if a version after this one goes on with the ledger.
        """
        found = as_next(record, self.head, self._cell, self._verifier)
        if found is None:
            self.passed_over += 1
            return None
        round, head = found
        self.advance(head, position)
        return Believed(position, round, head, record)

    def advance(self, head: Head, position: int) -> None:
        """The record at this position is believed, and made this head."""
        self.head, self.head_position, self.position = head, position, position + 1

    async def follow(self, poll_s: float = 0.02) -> AsyncIterator[Believed]:
        """The believed records for ever, as they come."""
        while True:
            async for believed in self.read():
                yield believed
            await asyncio.sleep(poll_s)


async def restore(
    name: str,
    log: Readable,
    verifier: Verifier,
    snapshots: Snapshots | None,
    not_after: int | None = None,
) -> tuple[Cell, LedgerReader]:
    """The cell of the newest snapshot that its ledger bears out, and a reader that stands there.

    A snapshot counts if it is whole and the record at its position has its hash; with `not_after`
    if it is of that round or before. Without one the cell is empty, and the reader stands at the
    log's start.
    """
    kept = whole(snapshots, name, Cell, not_after) if snapshots is not None else ()
    for cell, position in kept:
        if await _stands(log, verifier, position, cell.head):
            return cell, LedgerReader(log, name, verifier, cell.head, position)
    return Cell(name), LedgerReader(log, name, verifier)


async def _stands(log: Readable, verifier: Verifier, position: int, head: Head) -> bool:
    async for found, record in log.read(position):
        try:
            return found == position and unseal(record, verifier)[1] == head
        except BrokenRecord:
            return False
    return False


async def catch_up(
    cell: Cell, reader: LedgerReader, saving: Saving | None = None
) -> AsyncIterator[Believed]:
    """Fold the believed records into the cell; yields each after it was applied.

    Raises domain.evolve.Divergence.
    """
    async for believed in reader.read():
        evolve(cell, believed.round, believed.head)
        yield believed
        if saving is not None:
            saving.went_on(cell, len(believed.round.facts), believed.position)
