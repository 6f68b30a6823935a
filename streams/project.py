"""The projector role: hands each record of the ledger to a read model, in order, without a gap.

A Faust agent tells of new records; where the read model stands is for the read model to say. So
what the group has committed does not matter: not after a crash, and not after the tables were
dropped.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from streams.reader import Readable

LOOK_S: Final = 1


class Projector(Protocol):
    """The door to a read model; it may be asked to apply what it has applied before."""

    async def position(self) -> int:
        """Of the first record that is not in the read model yet."""
        ...

    async def on_record(self, position: int, record: bytes, more: bool = False) -> None:
        """Believed or not: that is for the projector to find. Raises to stop the worker.

        `more`: the next record is there already, so this one's rows may wait for its.
        """
        ...


class Projection:
    """Keeps one read model in step with the ledger."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector
        self._log: Readable | None = None
        self._next = 0
        self._one_at_a_time = asyncio.Lock()

    async def run(self, log: Readable) -> None:
        """Until cancelled. It looks by itself, too: the ledger may hold what the read model has
        not and stay silent, and a consumer group may be long in handing out its partition."""
        async with self._one_at_a_time:
            self._next = await self._projector.position()
            self._log = log
        while True:
            async with self._one_at_a_time:
                await self._catch_up(log)
            await asyncio.sleep(LOOK_S)

    async def tell(self, position: int, record: bytes) -> None:
        """There is a record at this position."""
        async with self._one_at_a_time:
            if self._log is None:
                return  # `run` will find it
            if position == self._next:
                await self._apply(position, record)
            elif position > self._next:
                await self._catch_up(self._log)

    async def _catch_up(self, log: Readable) -> None:
        before: tuple[int, bytes] | None = None
        async for found in log.read(self._next):
            if before is not None:
                await self._apply(*before, more=True)
            before = found
        if before is not None:
            await self._apply(*before)

    async def _apply(self, position: int, record: bytes, more: bool = False) -> None:
        await self._projector.on_record(position, record, more)
        self._next = position + 1
