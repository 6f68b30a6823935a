"""What survives a process: snapshots, the remembered head, and the read model's tables.

Each may be full for a while. Snapshots may also be damaged or lost; a row store writes row by row,
so that a crash can come between any two.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from domain.ledger import Head
from projections.sqlite_store import SqliteStore, _fields
from projections.store import Applied, Fields
from projections.tables import TABLES, Key, Row
from streams.remembered import RememberedHead


class Disk:
    """Of one process; `full` until there is room again."""

    def __init__(self) -> None:
        self.full = False

    def check(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on device")


class Snapshots:
    """Keeps all that were ever saved; which of them a reader finds, and how whole, is a fault."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.saved: list[tuple[int, int, bytes]] = []
        self.saves = 0
        self.damage: dict[int, str] = {}
        """What happens to the n-th one: torn, flipped, or lost."""
        self.hidden: set[int] = set()
        """Rounds whose snapshots a reader does not find."""
        self.happened: Callable[[str], None] = lambda kind: None

    def save(self, round: int, position: int, state: bytes) -> None:
        self._disk.check()
        self.saves += 1
        kind = self.damage.get(self.saves)
        if kind is not None:
            self.happened(f"snapshot {kind}")
        if kind == "lost":
            return
        if kind == "torn":
            state = state[: len(state) // 2]
        elif kind == "flipped":
            middle = len(state) // 2
            state = state[:middle] + bytes([state[middle] ^ 1]) + state[middle + 1 :]
        self.saved = [k for k in self.saved if k[0] != round]
        self.saved.append((round, position, state))
        self.saved.sort()

    def latest(self, not_after: int | None = None) -> tuple[int, int, bytes] | None:
        for found in reversed(self.saved):
            if found[0] not in self.hidden and (not_after is None or found[0] <= not_after):
                return found
        return None

    def newest(self) -> int:
        return max((round for round, *_ in self.saved), default=0)


class Remembered(RememberedHead):
    """In a file of its own; the file survives, and is replaced whole."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(Path("nowhere"))
        self._disk = disk
        self.head: Head | None = None

    def read(self) -> Head | None:
        return self.head

    def write(self, head: Head) -> None:
        self._disk.check()
        self.head = head


Contents = dict[str, dict[Key, dict[str, Any]]]
"""All rows that there are, by table and key."""


class RowStore:
    """A store as Cassandra is one: no transactions, each row keeps the latest round's version."""

    def __init__(self, disk: Disk, seed: int) -> None:
        self._disk = disk
        self._random = random.Random(seed)
        self.tables: dict[str, dict[Key, tuple[int, dict[str, Any] | None]]] = {
            name: {} for name in TABLES
        }
        self.done: dict[str, Applied] = {}
        self.on_applied: Callable[[Applied], None] = lambda applied: None

    async def write(self, cell: str, rows: Sequence[Row], applied: Applied) -> None:
        stops = self._random.randrange(len(rows) + 1)
        for n, row in enumerate(rows):
            if n == stops:
                await asyncio.sleep(self._random.random() * 0.002)
            self._disk.check()
            table, key = self.tables[row.table], row.key
            if table.get(key, (-1, None))[0] < row.round:
                table[key] = (row.round, row.values)
        await asyncio.sleep(self._random.random() * 0.002)
        self._disk.check()
        self.done[cell] = applied
        self.on_applied(applied)

    async def get(self, table: str, key: Key) -> Fields | None:
        raise NotImplementedError("nobody asks the simulated store")

    async def scan(
        self,
        table: str,
        partition: Key,
        *,
        after: Key | None = None,
        limit: int = 100,
        backwards: bool = False,
    ) -> list[Fields]:
        raise NotImplementedError("nobody asks the simulated store")

    async def applied(self, cell: str) -> Applied:
        await asyncio.sleep(self._random.random() * 0.002)
        return self.done.get(cell, Applied())

    async def cells(self) -> list[str]:
        return sorted(self.done)

    async def reset(self, cell: str) -> None:
        self.drop(cell)

    def drop(self, cell: str) -> None:
        for table in self.tables.values():
            table.clear()
        self.done.clear()

    async def close(self) -> None:
        pass

    def shut(self) -> None:
        pass

    def contents(self) -> Contents:
        return {
            name: {key: values for key, (_, values) in table.items() if values is not None}
            for name, table in self.tables.items()
        }


class SqlStore(SqliteStore):
    """The real one; its file survives the processes."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(Path(":memory:"))
        self._disk = disk
        self.on_applied: Callable[[Applied], None] = lambda applied: None

    def write_now(self, cell: str, rows: Sequence[Row], applied: Applied) -> None:
        self._disk.check()
        super().write_now(cell, rows, applied)
        self.on_applied(applied)

    def drop(self, cell: str) -> None:
        self._reset(cell)

    def contents(self) -> Contents:
        found: Contents = {}
        for name, table in TABLES.items():
            width = len(table.key)
            statement = f"SELECT {', '.join(table.columns)} FROM {name}"
            found[name] = {
                row[:width]: dict(list(_fields(table, row).items())[width:])
                for row in self._fetch(statement, ())
            }
        return found

    def shut(self) -> None:
        self._connection.close()
