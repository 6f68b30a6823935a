"""The intake role: cmd.<cell> -> accepted.<cell>, or dead.<cell> with the reason.

At least once: a message's offset is committed after what became of it is stored. The fold
recognises a command that comes twice. Workers share the partitions through a consumer group.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NoReturn

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from domain.ledger import Accepted
from domain.ports import Clock, DeadLetter, Message
from streams.identity import Identity
from streams.intake import accept
from streams.kafka import KafkaAccepted, KafkaDeadLetters
from streams.kafka_clients import Connected, make_consumer
from streams.topics import topic

BATCH: Final = 250
"""Messages between two waits for the broker; bounds how long the loop is held."""

COMMIT_S: Final = 1
log: Final = logging.getLogger(__name__)


async def take_in(bootstrap: str, cell: str, identity: Identity, clock: Clock) -> NoReturn:
    """Runs until it is cancelled or a write fails; what was not committed comes again."""
    stored: dict[TopicPartition, int] = {}
    async with (
        KafkaAccepted(bootstrap, cell) as accepted,
        KafkaDeadLetters(bootstrap, cell) as dead,
        _subscribed(bootstrap, cell, stored) as consumer,
    ):
        commit = asyncio.create_task(_commit(consumer, stored))
        committed_at = time.monotonic()
        try:
            while True:
                batch = await consumer.getmany(timeout_ms=1000 * COMMIT_S, max_records=BATCH)
                await _store(batch, accepted, dead, identity, clock.now_ms())
                stored.update({part: records[-1].offset + 1 for part, records in batch.items()})
                if commit.done() and time.monotonic() - committed_at > COMMIT_S:
                    # Beside the work: a commit takes longer than a batch.
                    commit = asyncio.create_task(_commit(consumer, stored))
                    committed_at = time.monotonic()
        finally:
            await commit
            await _commit(consumer, stored)


@asynccontextmanager
async def _subscribed(
    bootstrap: str, cell: str, stored: dict[TopicPartition, int]
) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = make_consumer(bootstrap, group=f"aquifer.intake.{cell}")
    consumer.subscribe([topic("cmd", cell)], listener=_CommitFirst(consumer, stored))
    async with Connected(consumer):
        yield consumer


async def _store(
    batch: Mapping[TopicPartition, Sequence[ConsumerRecord]],
    accepted: KafkaAccepted,
    dead: KafkaDeadLetters,
    identity: Identity,
    now_ms: int,
) -> None:
    results = [
        accept(_message(record), record.partition, record.offset, identity, now_ms)
        for records in batch.values()
        for record in records
    ]
    await dead.put([r for r in results if isinstance(r, DeadLetter)])
    await accepted.put(r for r in results if isinstance(r, Accepted))


def _message(record: ConsumerRecord) -> Message:
    headers = tuple((name, value or b"") for name, value in record.headers)
    return Message(record.value or b"", headers, record.key)


async def _commit(consumer: AIOKafkaConsumer, stored: dict[TopicPartition, int]) -> None:
    """Without the commit the messages come again after a restart: no harm, so no stop.

    One that failed is made again with the next one, or the group's lag would stay for ever where
    nothing more comes.
    """
    mine = {part: next_ for part, next_ in stored.items() if part in consumer.assignment()}
    stored.clear()
    try:
        if mine:
            await consumer.commit(mine)
    except KafkaError as error:
        log.warning("offsets were not committed: %r", error)
        for part, next_ in mine.items():
            stored.setdefault(part, next_)


class _CommitFirst(ConsumerRebalanceListener):  # type: ignore[misc]
    """Before partitions go to another worker, so that it does not take in everything again."""

    def __init__(self, consumer: AIOKafkaConsumer, stored: dict[TopicPartition, int]) -> None:
        self._consumer = consumer
        self._stored = stored

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await _commit(self._consumer, self._stored)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Others may be further than what could not be committed before."""
        self._stored.clear()
