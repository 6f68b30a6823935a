"""What a read model's store must be able to do; SQLite and Cassandra do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from projections.tables import Key, Row

Fields = dict[str, Any]
"""A row by column, key columns included; json columns are decoded."""


class Applied(Struct, frozen=True):
    """Up to where a cell's ledger is in the store."""

    round: int = 0
    hash: str = ""
    position: int = -1
    """Of the round's record in the log."""
    at_ms: int = 0
    """The round's time."""


class Store(Protocol):
    async def write(self, cell: str, rows: Sequence[Row], applied: Applied) -> None:
        """Write the rows, at most one of each key, and then how far they go.

        A row that was written before with the same or a later round stays as it is.
        """
        ...

    async def get(self, table: str, key: Key) -> Fields | None: ...

    async def scan(
        self,
        table: str,
        partition: Key,
        *,
        after: Key | None = None,
        limit: int = 100,
        backwards: bool = False,
    ) -> list[Fields]:
        """Rows of a partition in clustering order, from the first one past `after` on."""
        ...

    async def applied(self, cell: str) -> Applied: ...

    async def cells(self) -> list[str]:
        """The cells that the store serves, sorted."""
        ...

    async def reset(self, cell: str) -> None:
        """Forget all of the cell, so that it is projected anew."""
        ...

    async def close(self) -> None: ...
