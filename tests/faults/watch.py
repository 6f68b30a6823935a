"""Watches what the roles put out, to tell when one works again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from msgspec import Struct

from streams.kafka_clients import Connected, make_consumer
from streams.kafka_fleet import SOURCE as FLEET
from streams.keys import KeyRing
from streams.reader import Believed, LedgerReader
from streams.topics import topic


class _Sealed(Struct):
    key: str


class _Accepted(Struct):
    source: str
    id: str


_sealed: Final = msgspec.json.Decoder(_Sealed)
_accepted: Final = msgspec.json.Decoder(_Accepted)
AGAIN_S: Final = 0.2


class _NoLog:
    def read(self, position: int) -> Any:
        raise NotImplementedError("the watch hands in what it reads")


class Watch:
    """Follows the topics of a cell, through restarts of the broker."""

    def __init__(
        self, bootstrap: str, cell: str, ring: KeyRing, writers: Mapping[str, str]
    ) -> None:
        """`writers`: who signs with which key, by the key's id."""
        self._bootstrap = bootstrap
        self._cell = cell
        self._writers = writers
        self._reader = LedgerReader(_NoLog(), cell, ring)
        self._next: dict[TopicPartition, int] = {
            TopicPartition(topic(kind, cell), 0): 0 for kind in ("accepted", "ledger", "dispatch")
        }
        self.believed: list[Believed] = []
        self.written: list[str] = []
        """Who wrote each record that the ledger's topic holds."""
        self.leader = ""
        """Who wrote the newest believed round."""
        self.newest_s: dict[str, float] = {}
        """When the newest output of each role was made, by the wall clock of who made it."""
        self.more = asyncio.Event()
        """Set at each output."""

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            consumer = make_consumer(self._bootstrap)
            try:
                async with Connected(consumer):
                    await self._follow(consumer)
            except KafkaError:
                await asyncio.sleep(AGAIN_S)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(list(self._next))
        for partition, position in self._next.items():
            consumer.seek(partition, position)
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=1000)).items():
                for record in records:
                    self._take(partition.topic.partition(".")[0], record)
                    self._next[partition] = record.offset + 1
            self.more.set()

    def _take(self, kind: str, record: Any) -> None:
        made_s = record.timestamp / 1000
        match kind:
            case "accepted":
                self.newest_s["intake"] = made_s
                accepted = _accepted.decode(record.value)
                if accepted.source == FLEET:  # its ids begin with when it started
                    self.newest_s["agents"] = int(accepted.id[1:].partition("-")[0]) / 1e9
            case "dispatch":
                self.newest_s["dispatch"] = made_s
            case "ledger":
                self._record(record, made_s)

    def _record(self, record: Any, made_s: float) -> None:
        writer = self._writers[_sealed.decode(record.value).key]
        self.written.append(writer)
        found = self._reader.judge(record.offset, record.value)
        if found is not None:
            self.leader = writer
            self.believed.append(found)
            self.newest_s["decider"] = made_s

    async def until_newer(self, role: str, than_s: float) -> None:
        """Wait for an output of the role that was made after this moment of the wall clock."""
        while self.newest_s.get(role, 0.0) <= than_s:
            self.more.clear()
            await self.more.wait()

    async def until_other(self, leader: str) -> None:
        """Wait until another one leads."""
        while self.leader == leader:
            self.more.clear()
            await self.more.wait()
