"""Kafka clients with the settings that the ports rely on, and what their use has in common."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from streams.topics import RECORD_BYTES

REQUEST_MS: Final = 15_000
"""A write that is not acknowledged for so long counts as failed: a broker restarts in less."""

FETCH_WAIT_MS: Final = 500
"""The broker answers a fetch at once when it has a record, and after this long without one."""

SESSION_MS: Final = 6000
"""A killed member of a group keeps its partitions for so long; brokers allow no less."""

STALLED_S: Final = 60
"""A read to the end that makes no progress for so long is given up."""

BATCH_BYTES: Final = 512 * 1024


def make_producer(bootstrap: str, name: str | None = None) -> AIOKafkaProducer:
    """All replicas acknowledge, retries write nothing twice, nothing waits for company."""
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        transactional_id=name,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=BATCH_BYTES,
        max_request_size=RECORD_BYTES,
        request_timeout_ms=REQUEST_MS,
    )


async def make_only_producer(bootstrap: str, name: str) -> AIOKafkaProducer:
    """Started. From its first record on, a partition refuses those of earlier ones of this name.

    Kafka gives the name's producer id with a higher epoch, and a partition takes no lower one than
    it has seen. Its records are in no transaction: one of a record costs ten times the latency,
    and would say no more.
    """
    producer = make_producer(bootstrap, name)
    await Connected(producer).__aenter__()
    producer._txn_manager.transactional_id = None
    return producer


def make_consumer(bootstrap: str, group: str | None = None) -> AIOKafkaConsumer:
    """Without a group its position is set by `seek`; one that does not exist is an error."""
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="none" if group is None else "earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
        max_partition_fetch_bytes=2 * RECORD_BYTES,
        request_timeout_ms=2 * REQUEST_MS,
        session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=SESSION_MS // 4,
    )


class Connected:
    """Owns Kafka clients from `__aenter__` to `__aexit__`."""

    def __init__(self, *clients: AIOKafkaConsumer | AIOKafkaProducer) -> None:
        self._clients = clients

    async def __aenter__(self) -> Self:
        try:
            for client in self._clients:
                await client.start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        for client in self._clients:
            await client.stop()


async def read_to_end(
    consumer: AIOKafkaConsumer, partition: TopicPartition, position: int
) -> AsyncIterator[ConsumerRecord]:
    """Records from `position` up to the end as it is at the call.

    Raises OffsetOutOfRangeError if records from `position` on are there no more, and
    KafkaTimeoutError if the broker tells of more records and does not hand them out.
    """
    end = (await consumer.end_offsets([partition]))[partition]
    # Without a pause between the two: an assignment without a position is an error to come.
    consumer.assign([partition])
    consumer.seek(partition, position)
    moved_at = time.monotonic()
    while position < end:
        taken = await consumer.getmany(partition, timeout_ms=1000)
        for record in taken.get(partition, ()):
            if record.offset >= end:
                return
            yield record
        if taken:
            position = await consumer.position(partition)
            moved_at = time.monotonic()
        elif time.monotonic() - moved_at > STALLED_S:
            raise KafkaTimeoutError(f"{partition} stands still at {position} before {end}")


async def send_all(
    producer: AIOKafkaProducer,
    name: str,
    records: Iterable[tuple[bytes | None, bytes, Sequence[tuple[str, bytes]]]],
) -> None:
    """Send (key, value, headers) in their order; returns when all are stored, raises if one is
    not. No future is left behind unawaited: a failure must not pass unseen."""
    futures = [
        await producer.send(name, value, key=key, headers=list(headers))
        for key, value, headers in records
    ]
    failures = [
        result
        for result in await asyncio.gather(*futures, return_exceptions=True)
        if isinstance(result, BaseException)
    ]
    if failures:
        raise failures[0]
