"""A simulated Kafka cluster: topics, acknowledgements that get lost, and a broker that restarts.

A record arrives, is synced a little later, and only then is seen and acknowledged: a broker that
crashes between the two loses it, or keeps the head of it.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError

from streams.kafka_clients import REQUEST_MS, SESSION_MS
from tests.simulation.loop import START_MS, Process, VirtualLoop

Mode = Literal["lost", "unacknowledged", "late", "doubled", "torn"]
"""What becomes of a write: it never arrives; it does and nobody is told; it does after its writer
gave up; it does twice; only its head does, and its writer is told that it failed."""

TIMEOUT_S = REQUEST_MS / 1000
SESSION_S = SESSION_MS / 1000
RETRY_S = 0.25


class Full(KafkaError):  # type: ignore[misc]
    """The broker's disk takes no more."""


@dataclass(slots=True)
class Record:
    """As aiokafka's ConsumerRecord, as far as the adapters look at it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    timestamp: int


@dataclass(slots=True, eq=False)
class Write:
    """A record on its way."""

    partition: Partition
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    process: Process
    mode: Mode | None
    deadline: float
    reply: asyncio.Future[Record]


class Partition:
    def __init__(self, at: TopicPartition) -> None:
        self.at = at
        self.records: list[Record] = []
        self.offsets: list[int] = []
        self.end = 0
        self.unsynced: list[Write] = []
        self.waiters: list[asyncio.Future[None]] = []
        self.synced_at = 0.0
        self.gaps = False
        """Its offsets are not always consecutive, as with transactions."""

    def from_(self, offset: int, limit: int) -> list[Record]:
        first = bisect_left(self.offsets, offset)
        return self.records[first : first + limit]


@dataclass
class Group:
    """Whom a consumer group's partitions are for, and who still has them."""

    topics: list[str]
    members: dict[int, Process] = field(default_factory=dict)
    target: dict[TopicPartition, int] = field(default_factory=dict)
    owner: dict[TopicPartition, int] = field(default_factory=dict)
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    number: int = 0


class Broker:
    def __init__(self, loop: VirtualLoop, seed: int, topics: dict[str, int]) -> None:
        """`topics`: number of partitions by name."""
        self.loop = loop
        self.random = random.Random(seed)
        self.partitions = {
            TopicPartition(name, n): Partition(TopicPartition(name, n))
            for name, count in topics.items()
            for n in range(count)
        }
        self.counts = topics
        self.groups: dict[str, Group] = {}
        self.writes = dict.fromkeys(topics, 0)
        self.on_write: Callable[[Process, str, bytes, Any], None] = lambda *_: None
        self.on_record: Callable[[Record], None] = lambda record: None
        # Faults:
        self.modes: dict[tuple[str, int], Mode] = {}
        """What becomes of the n-th write to a topic."""
        self.happened: Callable[[str], None] = lambda kind: None
        self.cut: dict[str, float] = {}
        """Processes that the network cuts off, by name, and until when."""
        self.slow: dict[str, float] = {}
        """Processes that everything takes long for, by name: longest latency in seconds."""
        self.full: set[str] = set()
        """Topics whose disk is full."""
        self.down_until = 0.0

    def latency(self, process: Process) -> float:
        chance = self.random.random()
        longest = self.slow.get(process.name)
        if longest is not None:
            return chance * longest
        return chance * 0.004 if chance < 0.97 else 0.2 * chance

    def reachable_at(self, process: Process) -> float:
        """When a request of the process gets through; now, mostly."""
        return max(self.loop.time(), self.cut.get(process.name, 0.0), self.down_until)

    # --- writes -----------------------------------------------------------------------------------

    def partition_for(self, topic: str, key: bytes | None) -> int:
        count = self.counts[topic]
        return zlib.crc32(key) % count if key is not None else self.random.randrange(count)

    def write(self, write: Write, at: float) -> None:
        topic = write.partition.at.topic
        self.writes[topic] += 1
        write.mode = self.modes.get((topic, self.writes[topic]))
        if write.mode == "torn" and len(write.value) < 2:
            write.mode = None
        if write.mode is not None:
            self.happened(f"write {write.mode}")
        if write.mode == "lost":
            self.loop.outside_at(write.deadline, self._fail, write)
            return
        if write.mode == "late":
            self.loop.outside_at(write.deadline, self._fail, write)
            at = write.deadline + self.random.random() * 20
        self.loop.outside_at(at, self._arrive, write)

    def _fail(self, write: Write, error: Exception | None = None) -> None:
        if not write.reply.done():
            write.reply.set_exception(error or KafkaTimeoutError("no acknowledgement in time"))

    def _arrive(self, write: Write) -> None:
        """The client tries again while it reaches nobody, up to its deadline."""
        now = self.loop.time()
        reachable = self.reachable_at(write.process)
        if reachable > now:
            if reachable >= write.deadline and write.mode != "late":
                self.loop.outside_at(max(now, write.deadline), self._fail, write)
            else:
                again = reachable + self.random.random() * RETRY_S
                self.loop.outside_at(again, self._arrive, write)
            return
        if write.partition.at.topic in self.full:
            self._fail(write, Full("no space left on device"))
            return
        partition = write.partition
        partition.unsynced.append(write)
        partition.synced_at = max(partition.synced_at, now + self.random.random() * 0.003)
        self.loop.outside_at(partition.synced_at, self._sync, write)

    def _sync(self, write: Write) -> None:
        if write not in write.partition.unsynced:
            return  # the broker crashed
        write.partition.unsynced.remove(write)
        if write.mode == "torn":
            self.store(write.partition, write.key, _torn(write.value), write.headers)
            self._fail(write, KafkaConnectionError("the broker crashed"))
            return
        record = self.store(write.partition, write.key, write.value, write.headers)
        if write.mode == "doubled":
            self.store(write.partition, write.key, write.value, write.headers)
        if write.mode == "unacknowledged":
            self.loop.outside_at(max(self.loop.time(), write.deadline), self._fail, write)
            return
        self.loop.outside_at(
            self.loop.time() + self.latency(write.process), self._acknowledge, write, record
        )

    def _acknowledge(self, write: Write, record: Record) -> None:
        if not write.reply.done():
            write.reply.set_result(record)

    def store(
        self,
        partition: Partition,
        key: bytes | None,
        value: bytes,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> Record:
        if partition.gaps and self.random.random() < 0.2:
            partition.end += 1
        at_ms = START_MS + int(self.loop.time() * 1000)
        at = partition.at
        record = Record(at.topic, at.partition, partition.end, key, value, headers, at_ms)
        partition.end += 1
        partition.records.append(record)
        partition.offsets.append(record.offset)
        waiters, partition.waiters = partition.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.on_record(record)
        return record

    def crash(self, for_s: float) -> None:
        """What was not synced is lost, or written again, or the head of it stays."""
        self.down_until = max(self.down_until, self.loop.time() + for_s)
        for partition in self.partitions.values():
            unsynced, partition.unsynced = partition.unsynced, []
            for write in unsynced:
                chance = self.random.random()
                if chance < 0.4:
                    self.loop.outside_at(self.down_until, self._arrive, write)
                    continue
                if chance > 0.8 and partition.at.topic.startswith("ledger"):
                    self.store(partition, write.key, _torn(write.value), write.headers)
                self.loop.outside_at(max(self.loop.time(), write.deadline), self._fail, write)

    # --- consumer groups --------------------------------------------------------------------------

    def group(self, name: str, topics: list[str]) -> Group:
        if name not in self.groups:
            self.groups[name] = Group(topics)
        return self.groups[name]

    def join(self, group: Group, process: Process) -> int:
        group.number += 1
        group.members[group.number] = process
        self._balance(group)
        return group.number

    def leave(self, group: Group, member: int) -> None:
        if group.members.pop(member, None) is not None:
            for at in [at for at, owner in group.owner.items() if owner == member]:
                del group.owner[at]
            self._balance(group)

    def _balance(self, group: Group) -> None:
        members = sorted(group.members)
        parts = [at for at in self.partitions if at.topic in group.topics]
        group.target = (
            {at: members[n % len(members)] for n, at in enumerate(parts)} if members else {}
        )

    def silent(self, process: Process) -> None:
        """No heartbeats from now on: its groups go on without it, unless it comes back in time."""
        self.loop.outside_at(self.loop.time() + SESSION_S, self._expel, process)

    def _expel(self, process: Process) -> None:
        cut = self.cut.get(process.name, 0.0) > self.loop.time()
        if process.alive and not process.paused and not cut:
            return
        for group in self.groups.values():
            for member in [m for m, p in group.members.items() if p is process]:
                self.leave(group, member)


def _torn(value: bytes) -> bytes:
    return value[: max(1, len(value) * 2 // 3)]
