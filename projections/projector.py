"""The projector: folds the ledger with the one fold, and writes what each round changed.

It holds a cell of its own. So a row is never computed from a row, dropping all tables loses
nothing, and the digest in each record proves that the projector's state is the decider's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from domain.cell import Cell
from domain.evolve import evolve
from domain.ledger import Head, Round, Verifier, as_next
from domain.ports import Snapshots
from domain.snapshots import Saving, whole
from projections.rows import project
from projections.store import Applied, Store
from projections.tables import Key, Row

WRITTEN_AT_ONCE: Final = 500
"""Rounds at most, by a projector that is behind."""


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
        self._folded = Applied()
        self._rows: dict[tuple[str, Key], Row] = {}
        """Of the rounds that are applied and not written: the last one of each key."""
        self._rounds = self._facts = 0
        """Since something was written."""
        self._saving = Saving(snapshots, 0)
        self.passed_over = 0
        """Records that were not believed."""

    @property
    def cell(self) -> Cell:
        return self._cell

    async def position(self) -> int:
        """Restore the state, and say where in the log to read from."""
        name = self._cell.name
        self._applied = self._folded = await self._store.applied(name)
        self._cell, position = self._restored(name)
        self._saving = Saving(self._snapshots, self._cell.head.round)
        self._rows.clear()
        self._rounds = self._facts = 0
        return position + 1

    def _restored(self, name: str) -> tuple[Cell, int]:
        """The newest snapshot that is not ahead of the store, and its record's position."""
        if self._snapshots is not None:
            for cell, position in whole(self._snapshots, name, Cell, self._applied.round):
                return cell, position
        return Cell(name), -1

    async def on_record(self, position: int, record: bytes, more: bool = False) -> None:
        """Apply a record if it is believed. Raises Divergence, Forked or NewerEngine.

        `more`: the next one is there already, so what this one says may be written with it.
        """
        found = as_next(record, self._cell.head, self._cell.name, self._verifier)
        if found is None:
            self.passed_over += 1
        else:
            self._fold(*found, position)
        await self._write_but(more)

    async def on_round(self, round: Round, head: Head, position: int, more: bool = False) -> None:
        """Apply a believed round; `more` as above."""
        self._fold(round, head, position)
        await self._write_but(more)

    async def write(self) -> None:
        """Write all that was applied."""
        if self._folded.round > self._applied.round:
            await self._store.write(self._cell.name, list(self._rows.values()), self._folded)
            self._applied = self._folded
            self._on_applied(self._applied)
        self._rows.clear()
        self._saving.went_on(self._cell, self._facts, self._folded.position)
        self._rounds = self._facts = 0

    async def _write_but(self, more: bool) -> None:
        if self._rounds and not (more and self._rounds < WRITTEN_AT_ONCE):
            await self.write()

    def _fold(self, round: Round, head: Head, position: int) -> None:
        """Apply the round to the state, and gather the rows that the store has not."""
        changes = evolve(self._cell, round, head)
        if head.round == self._applied.round and head.hash != self._applied.hash:
            raise Forked(f"round {head.round} is another one in the store")
        if head.round > self._applied.round:
            for row in project(self._cell, round, head, changes):
                self._rows[row.table, row.key] = row
        self._folded = Applied(head.round, head.hash, position, round.header.now_ms)
        self._rounds += 1
        self._facts += len(round.facts)
