"""The projector role: hands each record of the ledger to a read model, in order, without a gap.

A Faust agent tells of new records; where the read model stands is for the read model to say. So
what the group has committed does not matter: not after a crash, and not after the tables were
dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol


class Projector(Protocol):
    """The door to a read model; it may be asked to apply what it has applied before."""

    async def position(self) -> int:
        """Of the first record that is not in the read model yet."""
        ...

    async def on_record(self, position: int, record: bytes) -> None:
        """Believed or not: that is for the projector to find. Raises to stop the worker."""
        ...


class Readable(Protocol):
    def read(self, position: int) -> AsyncIterator[tuple[int, bytes]]: ...


class Projection:
    """Keeps one read model in step with the ledger."""

    def __init__(self, log: Readable, projector: Projector) -> None:
        self._log = log
        self._projector = projector
        self._next: int | None = None
        self._one_at_a_time = asyncio.Lock()

    async def catch_up(self) -> None:
        """Apply all that the ledger holds."""
        async with self._one_at_a_time:
            await self._catch_up()

    async def tell(self, position: int, record: bytes) -> None:
        """There is a record at this position."""
        async with self._one_at_a_time:
            if position == self._next:
                await self._apply(position, record)
            elif self._next is None or position > self._next:
                await self._catch_up()

    async def _catch_up(self) -> None:
        if self._next is None:
            self._next = await self._projector.position()
        async for position, record in self._log.read(self._next):
            await self._apply(position, record)

    async def _apply(self, position: int, record: bytes) -> None:
        await self._projector.on_record(position, record)
        self._next = position + 1
