"""The fleet on Kafka: instructions from the dispatch topic, reports to the commands.

A fleet that starts reads the whole topic first: what stands at its end is what its nodes should
run. An attempt that is older than the topic's retention is not known to it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from aiokafka import TopicPartition

from domain.ledger import Signer
from domain.ports import Clock
from streams.dispatch import Instruction, decode, standing
from streams.fleet import Fleet, live
from streams.kafka import KafkaCommandSink
from streams.kafka_clients import Connected, make_consumer, read_to_end
from streams.kafka_dispatch import instructions_from
from streams.topics import topic
from streams.voice import Voice

SOURCE: Final = "fleet"


async def told_before(bootstrap: str, cell: str) -> tuple[list[Instruction], int]:
    """All that the dispatch topic holds, and the position after it."""
    partition = TopicPartition(topic("dispatch", cell), 0)
    consumer = make_consumer(bootstrap)
    async with Connected(consumer):
        position = (await consumer.beginning_offsets([partition]))[partition]
        told: list[Instruction] = []
        async for record in read_to_end(consumer, partition, position):
            told.append(decode(record.value))
            position = record.offset + 1
    return told, position


async def run_fleet(
    bootstrap: str,
    cell: str,
    fleet: Fleet,
    clock: Clock,
    session: str,
    signer: Signer | None = None,
) -> None:
    """Run the fleet until cancelled; `session` makes the ids of its reports new.

    Where commands are signed its reports are, too, by the signer.
    """
    told, position = await told_before(bootstrap, cell)
    fleet.handle(standing(told), clock.now_ms())
    queue: asyncio.Queue[Sequence[Instruction]] = asyncio.Queue()

    async def listen() -> None:
        async with aclosing(instructions_from(bootstrap, cell, position)) as instructions:
            async for _, instruction in instructions:
                queue.put_nowait([instruction])

    async with KafkaCommandSink(bootstrap, cell) as sink:
        voice = Voice(sink, SOURCE, session, clock, signer)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen())
            tasks.create_task(live(fleet, queue, voice.say, clock))
