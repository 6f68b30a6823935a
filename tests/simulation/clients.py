"""aiokafka's consumer and producer, as the adapters use them, on the simulated broker.

They take the place of the real classes in `streams.kafka_clients`; all adapters above stay real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    KafkaTimeoutError,
    OffsetOutOfRangeError,
)

from tests.simulation.broker import TIMEOUT_S, Broker, Group, Partition, Record, Write
from tests.simulation.loop import PROCESS

FETCH = 500
"""Records that one fetch takes from a partition at most."""


class Clients:
    """Which broker is behind which bootstrap address."""

    brokers: ClassVar[dict[str, Broker]] = {}


class Producer:
    """Idempotent: what one producer writes to one partition keeps its order."""

    def __init__(self, *, bootstrap_servers: str, **_: object) -> None:
        self._broker = Clients.brokers[bootstrap_servers]
        self._process = PROCESS.get()
        self._arrival: dict[Partition, float] = {}

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> asyncio.Future[Record]:
        broker = self._broker
        assert value is not None
        sent = tuple(headers or ())
        broker.on_write(self._process, topic, value, sent)
        number = broker.partition_for(topic, key) if partition is None else partition
        target = broker.partitions[TopicPartition(topic, number)]
        now = broker.loop.time()
        at = max(now + broker.latency(self._process), self._arrival.get(target, 0.0))
        self._arrival[target] = at
        reply: asyncio.Future[Record] = broker.loop.create_future()
        write = Write(target, key, value, sent, self._process, None, now + TIMEOUT_S, reply)
        broker.write(write, at)
        return reply

    async def send_and_wait(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> Record:
        return await (await self.send(topic, value, key, partition, headers))


class Consumer:
    def __init__(self, *, bootstrap_servers: str, group_id: str | None = None, **_: object) -> None:
        self._broker = Clients.brokers[bootstrap_servers]
        self._process = PROCESS.get()
        self._group_id = group_id
        self._group: Group | None = None
        self._member = 0
        self._listener: Any = None
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()

    # --- connection and requests ------------------------------------------------------------------

    async def start(self) -> None:
        await self._reach()
        if self._group is not None:
            self._member = self._broker.join(self._group, self._process)

    async def stop(self) -> None:
        if self._group is not None:
            self._broker.leave(self._group, self._member)

    async def _reach(self) -> None:
        """There and back, as soon as the broker can be reached. Raises KafkaTimeoutError."""
        broker, loop = self._broker, self._broker.loop
        there = broker.reachable_at(self._process)
        late = there - loop.time() > 2 * TIMEOUT_S
        wait = 2 * TIMEOUT_S if late else there - loop.time()
        await asyncio.sleep(wait + broker.latency(self._process))
        if late:
            raise KafkaTimeoutError("no answer in time")

    async def end_offsets(self, parts: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        await self._reach()
        return {at: self._broker.partitions[at].end for at in parts}

    async def beginning_offsets(self, parts: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        await self._reach()
        return dict.fromkeys(parts, 0)

    # --- which partitions, and where --------------------------------------------------------------

    def assign(self, parts: Sequence[TopicPartition]) -> None:
        self._positions = {at: self._positions.get(at, 0) for at in parts}
        self._paused.clear()

    def assignment(self) -> Collection[TopicPartition]:
        return frozenset(self._positions)

    def seek(self, at: TopicPartition, offset: int) -> None:
        self._positions[at] = offset

    def pause(self, *parts: TopicPartition) -> None:
        self._paused.update(parts)

    async def position(self, at: TopicPartition) -> int:
        return self._positions[at]

    def subscribe(self, topics: Sequence[str], listener: Any = None) -> None:
        assert self._group_id is not None, "only a member of a group subscribes"
        self._group = self._broker.group(self._group_id, list(topics))
        self._listener = listener

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        await self._reach()
        group = self._group
        assert group is not None
        if self._member not in group.members:
            raise CommitFailedError("the group went on without this member")
        for at, offset in offsets.items():
            if group.owner.get(at) != self._member:
                raise CommitFailedError(f"{at} belongs to another member")
            group.committed[at] = offset

    async def _rebalance(self, group: Group) -> None:
        """Give up what is another's now, and take what is ours and free."""
        if self._member not in group.members:
            await self._revoke(set(self._positions))
            self._member = self._broker.join(group, self._process)
        lost = {at for at in self._positions if group.target.get(at) != self._member}
        if lost:
            await self._revoke(lost)
            for at in lost:
                if group.owner.get(at) == self._member:
                    del group.owner[at]
        for at, member in group.target.items():
            if member == self._member and at not in self._positions and at not in group.owner:
                group.owner[at] = member
                self._positions[at] = group.committed.get(at, 0)

    async def _revoke(self, parts: set[TopicPartition]) -> None:
        if parts and self._listener is not None:
            await self._listener.on_partitions_revoked(parts)
        for at in parts:
            self._positions.pop(at, None)

    # --- reading ----------------------------------------------------------------------------------

    async def getmany(
        self, *parts: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        broker, loop = self._broker, self._broker.loop
        deadline = loop.time() + timeout_ms / 1000
        await asyncio.sleep(broker.latency(self._process))
        while True:
            if self._group is not None:
                await self._rebalance(self._group)
            wanted = [at for at in (parts or self._positions) if at not in self._paused]
            reachable = broker.reachable_at(self._process)
            if reachable <= loop.time():
                taken = self._fetch(wanted, max_records)
                if taken:
                    return taken
            if loop.time() >= deadline:
                return {}
            await self._wait(wanted, reachable, deadline)

    def _fetch(
        self, wanted: Sequence[TopicPartition], limit: int | None
    ) -> dict[TopicPartition, list[Record]]:
        taken: dict[TopicPartition, list[Record]] = {}
        left = FETCH if limit is None else limit
        for at in wanted:
            partition = self._broker.partitions[at]
            if self._positions[at] > partition.end:
                raise OffsetOutOfRangeError({at: self._positions[at]})
            found = partition.from_(self._positions[at], left)
            if found:
                taken[at] = found
                left -= len(found)
                self._positions[at] = found[-1].offset + 1
            if not left:
                break
        return taken

    async def _wait(
        self, wanted: Sequence[TopicPartition], reachable: float, deadline: float
    ) -> None:
        loop = self._broker.loop
        waiter: asyncio.Future[None] = loop.create_future()
        until = deadline
        if reachable > loop.time():
            until = min(deadline, reachable)
        elif self._group is not None:
            until = min(deadline, loop.time() + 1.0)
        loop.call_at(until, _wake, waiter)
        if reachable <= loop.time():
            for at in wanted:
                self._broker.partitions[at].waiters.append(waiter)
        await waiter


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
