"""The ports on Kafka: ledger, inbox, way in, and dead letters of a cell.

Positions come from the caller, never from a consumer group. Each adapter is an async context
manager that owns its connections. After any KafkaError of a write its outcome is unknown; the
owner stops and starts again from what the topics hold.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from msgspec import Raw, Struct

from domain.ledger import Accepted, canonical
from domain.ports import DeadLetter, Message
from streams.kafka_clients import (
    Connected,
    make_consumer,
    make_only_producer,
    make_producer,
    read_to_end,
    send_all,
)
from streams.topics import topic

LETTER_HEADER: Final = "aquifer-dead-letter"


class KafkaLog(Connected):
    """The ledger: topic ledger.<cell> with one partition. A position is an offset."""

    def __init__(self, bootstrap: str, cell: str) -> None:
        self._bootstrap = bootstrap
        self._partition = TopicPartition(topic("ledger", cell), 0)
        self._producer = make_producer(bootstrap)
        self._ends = make_consumer(bootstrap)
        self._readers: list[AIOKafkaConsumer] = []
        super().__init__(self._producer, self._ends)

    async def __aexit__(self, *failure: Any) -> None:
        await super().__aexit__(*failure)
        for consumer in self._readers:
            await consumer.stop()

    async def take_over(self) -> None:
        """Be the one writer: from our next record on, Kafka refuses those of earlier ones."""
        writer = await make_only_producer(self._bootstrap, f"aquifer.{self._partition.topic}")
        self._clients = (writer, self._ends)
        before, self._producer = self._producer, writer
        await before.stop()

    async def append(self, record: bytes) -> int:
        name, number = self._partition
        stored = await self._producer.send_and_wait(name, record, partition=number)
        return int(stored.offset)

    async def read(self, position: int) -> AsyncGenerator[tuple[int, bytes], None]:
        consumer = await self._reader()
        try:
            async for record in read_to_end(consumer, self._partition, position):
                yield record.offset, record.value
        finally:
            consumer.pause(*consumer.assignment())  # it must not fetch while nobody reads
            self._readers.append(consumer)

    async def _reader(self) -> AIOKafkaConsumer:
        """One that nobody uses now: those who poll the log need not connect each time."""
        if self._readers:
            return self._readers.pop()
        consumer = make_consumer(self._bootstrap)
        await Connected(consumer).__aenter__()
        return consumer

    async def end(self) -> int:
        return int((await self._ends.end_offsets([self._partition]))[self._partition])

    async def follow(self, position: int) -> AsyncIterator[tuple[int, bytes]]:
        """(position, record) from `position` on, for ever: waits at the end for more."""
        consumer = make_consumer(self._bootstrap)
        async with Connected(consumer):
            consumer.assign([self._partition])
            consumer.seek(self._partition, position)
            while True:
                taken = await consumer.getmany(self._partition, timeout_ms=10_000)
                for record in taken.get(self._partition, ()):
                    yield record.offset, record.value


class _Stored(Struct, frozen=True, gc=False, omit_defaults=True):
    """An accepted command as its topic holds it; its place there is its position."""

    id: str
    source: str
    type: str
    actor: str
    time_ms: int
    data: Raw
    key: str | None = None
    sig: str | None = None


_stored: Final = msgspec.json.Decoder(_Stored, strict=True)


def encode_accepted(accepted: Accepted) -> bytes:
    """Canonical JSON of all but its position."""
    a = accepted
    return canonical(_Stored(a.id, a.source, a.type, a.actor, a.time_ms, a.data, a.key, a.sig))


def decode_accepted(value: bytes | None, partition: int, offset: int, time_ms: int) -> Accepted:
    """The command at this position of the topic.

    What intake did not write becomes a command of no known type, which the decider refuses: it
    gets an outcome in the ledger and stops nothing.
    """
    try:
        s = _stored.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        place = f"{partition}-{offset}"
        return Accepted(partition, offset, place, "unknown", "", "unknown", time_ms, Raw(b"{}"))
    return Accepted(
        partition, offset, s.id, s.source, s.type, s.actor, s.time_ms, s.data, s.key, s.sig
    )


class KafkaInbox(Connected):
    """The accepted commands: topic accepted.<cell> with one partition."""

    def __init__(self, bootstrap: str, cell: str) -> None:
        self._partition = TopicPartition(topic("accepted", cell), 0)
        self._consumer = make_consumer(bootstrap)
        self._next: int | None = None
        """Where the consumer stands; None before its first use."""
        self._taken: list[Accepted] = []
        """What it handed out last: a round may be too small for it, and asks again."""
        super().__init__(self._consumer)

    async def take(self, after: Mapping[str, int], limit: int, wait_ms: int) -> Sequence[Accepted]:
        """Raises OffsetOutOfRangeError if the topic does not reach as far as `after` says."""
        position = after.get(str(self._partition.partition), 0)
        first = bisect_left(self._taken, position, key=lambda c: c.offset)
        if first < len(self._taken) and self._taken[0].offset <= position:
            return self._taken[first : first + limit]
        if self._next is None:
            self._consumer.assign([self._partition])
        if position != self._next:
            self._consumer.seek(self._partition, position)
        taken = await self._consumer.getmany(timeout_ms=wait_ms, max_records=limit)
        self._taken = [
            decode_accepted(r.value, r.partition, r.offset, r.timestamp)
            for r in taken.get(self._partition, ())
        ]
        self._next = self._taken[-1].offset + 1 if self._taken else position
        return self._taken


class KafkaAccepted(Connected):
    """Where intake puts what it let through."""

    def __init__(self, bootstrap: str, cell: str) -> None:
        self._topic = topic("accepted", cell)
        self._producer = make_producer(bootstrap)
        super().__init__(self._producer)

    async def put(self, accepted: Iterable[Accepted]) -> None:
        """Returns when all are stored, in their order."""
        values = [(None, encode_accepted(a), ()) for a in accepted]
        await send_all(self._producer, self._topic, values)


class KafkaCommandSink(Connected):
    """The way in: topic cmd.<cell>. Messages with equal keys keep their order."""

    def __init__(self, bootstrap: str, cell: str) -> None:
        self._topic = topic("cmd", cell)
        self._producer = make_producer(bootstrap)
        super().__init__(self._producer)

    async def send(self, message: Message) -> None:
        await self._producer.send_and_wait(
            self._topic, message.value, key=message.key, headers=list(message.headers)
        )


class _Reason(Struct, frozen=True):
    partition: int
    offset: int
    code: str
    field: str
    message: str
    time_ms: int


_reason: Final = msgspec.json.Decoder(_Reason, strict=True)


class KafkaDeadLetters(Connected):
    """Topic dead.<cell>: each message as it came, with the reason as its first header."""

    def __init__(self, bootstrap: str, cell: str) -> None:
        self._bootstrap = bootstrap
        self._partition = TopicPartition(topic("dead", cell), 0)
        self._producer = make_producer(bootstrap)
        super().__init__(self._producer)

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        values = []
        for letter in letters:
            why = _Reason(
                letter.partition,
                letter.offset,
                letter.code,
                letter.field,
                letter.message,
                letter.time_ms,
            )
            headers = ((LETTER_HEADER, canonical(why)), *letter.headers)
            values.append((letter.key, letter.value, headers))
        await send_all(self._producer, self._partition.topic, values)

    async def read(self) -> AsyncIterator[DeadLetter]:
        seen: set[tuple[int, int]] = set()
        consumer = make_consumer(self._bootstrap)
        async with Connected(consumer):
            first = (await consumer.beginning_offsets([self._partition]))[self._partition]
            async for record in read_to_end(consumer, self._partition, first):
                letter = _letter(record)
                if (letter.partition, letter.offset) not in seen:
                    seen.add((letter.partition, letter.offset))
                    yield letter


def _letter(record: ConsumerRecord) -> DeadLetter:
    (_, reason), *headers = record.headers
    why = _reason.decode(reason)
    return DeadLetter(
        why.partition,
        why.offset,
        why.code,
        why.field,
        why.message,
        why.time_ms,
        record.value or b"",
        tuple((name, value or b"") for name, value in headers),
        record.key,
    )
