"""The projector: folds the ledger with the one fold, and writes what each round changed.

It holds a cell of its own. So a row is never computed from a row, dropping all tables loses
nothing, and the digest in each record proves that the projector's state is the decider's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from domain.cell import Cell
from domain.evolve import evolve
from domain.ledger import BrokenRecord, Head, NewerEngine, Round, Verifier, extends, unseal
from domain.ports import Snapshots
from domain.snapshots import whole
from projections.rows import project
from projections.store import Applied, Store
from projections.tables import Row

SNAPSHOT_FACTS: Final = 100_000


class Forked(Exception):
    """The store holds a round that this ledger does not: it must be reset, or the log is wrong."""


class Projector:
    """One cell's projector into one store. Also fits `aquifer`'s role of the same name."""

    def __init__(
        self,
        name: str,
        store: Store,
        verifier: Verifier | None,
        snapshots: Snapshots | None = None,
        on_applied: Callable[[Applied], None] = lambda applied: None,
    ) -> None:
        """Without a verifier signatures are not checked: another reader has done it."""
        self._store = store
        self._verifier = verifier
        self._snapshots = snapshots
        self._on_applied = on_applied
        self._cell = Cell(name)
        self._applied = Applied()
        self._facts = 0
        self.passed_over = 0
        """Records that were not believed."""

    @property
    def cell(self) -> Cell:
        return self._cell

    async def position(self) -> int:
        """Restore the state, and say where in the log to read from."""
        name = self._cell.name
        self._applied = await self._store.applied(name)
        self._cell, position = self._restored(name)
        return position + 1

    def _restored(self, name: str) -> tuple[Cell, int]:
        """The newest snapshot that is not ahead of the store, and its record's position."""
        if self._snapshots is not None:
            for cell, position in whole(self._snapshots, name, Cell, self._applied.round):
                return cell, position
        return Cell(name), -1

    async def on_record(self, position: int, record: bytes) -> None:
        """Apply a record if it is believed. Raises Divergence, Forked or NewerEngine."""
        try:
            round, head = unseal(record, self._verifier)
        except NewerEngine as newer:
            if extends(self._cell.head, newer.outline, self._cell.name):
                raise
            self.passed_over += 1
            return
        except BrokenRecord:
            self.passed_over += 1
            return
        if not extends(self._cell.head, round, self._cell.name):
            self.passed_over += 1
            return
        await self.on_round(round, head, position)

    async def on_round(self, round: Round, head: Head, position: int) -> None:
        """Apply a believed round."""
        rows = self.rows_of(round, head)
        applied = Applied(head.round, head.hash, position, round.header.now_ms)
        if head.round == self._applied.round and head.hash != self._applied.hash:
            raise Forked(f"round {head.round} is another one in the store")
        if head.round > self._applied.round:
            await self._store.write(self._cell.name, rows, applied)
            self._applied = applied
            self._on_applied(applied)
        self._facts += len(round.facts)
        if self._snapshots is not None and self._facts >= SNAPSHOT_FACTS:
            self._snapshots.save(head.round, position, self._cell.snapshot())
            self._facts = 0

    def rows_of(self, round: Round, head: Head) -> list[Row]:
        """Fold the round, and the rows that it makes."""
        changes = evolve(self._cell, round, head)
        return project(self._cell, round, head, changes)
