"""The intake role: cmd.<cell> -> accepted.<cell>, or dead.<cell> with the reason.

At least once: a message's offset is committed after what became of it is stored. The fold
recognises a command that comes twice. Workers share the partitions through a consumer group.
"""

from __future__ import annotations

import logging
import time
from typing import Final, NoReturn

from aiokafka import AIOKafkaConsumer, ConsumerRecord
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
    consumer = make_consumer(bootstrap, group=f"aquifer.intake.{cell}")
    consumer.subscribe([topic("cmd", cell)])
    accepted, dead = KafkaAccepted(bootstrap, cell), KafkaDeadLetters(bootstrap, cell)
    async with accepted, dead, Connected(consumer):
        committed_at = time.monotonic()
        uncommitted = False
        while True:
            batch = await consumer.getmany(timeout_ms=1000 * COMMIT_S, max_records=BATCH)
            results = [
                accept(_message(record), record.partition, record.offset, identity, now_ms)
                for now_ms in (clock.now_ms(),)
                for records in batch.values()
                for record in records
            ]
            await dead.put([r for r in results if isinstance(r, DeadLetter)])
            await accepted.put(r for r in results if isinstance(r, Accepted))
            uncommitted = uncommitted or bool(results)
            if uncommitted and time.monotonic() - committed_at > COMMIT_S:
                committed_at = time.monotonic()
                uncommitted = not await _commit(consumer)


def _message(record: ConsumerRecord) -> Message:
    headers = tuple((name, value or b"") for name, value in record.headers)
    return Message(record.value or b"", headers, record.key)


async def _commit(consumer: AIOKafkaConsumer) -> bool:
    """Without the commit the messages come again after a restart: no harm, so no stop."""
    try:
        await consumer.commit()
    except KafkaError as error:
        log.warning("offsets were not committed: %r", error)
        return False
    return True
