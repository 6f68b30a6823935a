"""The dispatch topic: instructions to node agents, at least once, in the order of the rounds.

Each record says which round it follows from, so that the topic itself tells how far a dispatcher
came. One partition: an attempt's start, stop and kill must not overtake each other.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from aiokafka import TopicPartition

from streams.dispatch import Instruction, decode, encode
from streams.kafka_clients import Connected, make_consumer, make_producer, read_to_end, send_all
from streams.topics import topic

ROUND_HEADER: Final = "aquifer-round"


class KafkaDispatch(Connected):
    """Writes instructions and remembers for which rounds."""

    def __init__(self, bootstrap: str, cell: str) -> None:
        self._partition = TopicPartition(topic("dispatch", cell), 0)
        self._producer = make_producer(bootstrap)
        self._consumer = make_consumer(bootstrap)
        super().__init__(self._producer, self._consumer)

    async def send(self, round: int, instructions: Sequence[Instruction]) -> None:
        """Returns when all are stored. The key is the job, for those who look at the topic."""
        headers = ((ROUND_HEADER, str(round).encode()),)
        records = [(i.job.encode(), encode(i), headers) for i in instructions]
        await send_all(self._producer, self._partition.topic, records)

    async def last_round(self) -> int | None:
        """The round of the newest record; all of the rounds before it were told.

        0 if nothing was ever told; None if what was told is older than the topic keeps.
        """
        tp = self._partition
        end = (await self._consumer.end_offsets([tp]))[tp]
        first = (await self._consumer.beginning_offsets([tp]))[tp]
        if first == end:
            return 0 if end == 0 else None
        async for record in read_to_end(self._consumer, tp, end - 1):
            return int(dict(record.headers)[ROUND_HEADER])
        return None


async def instructions_from(
    bootstrap: str, cell: str, position: int | None = None
) -> AsyncGenerator[tuple[int, Instruction], None]:
    """(position, instruction) for ever, for agents: from `position` on, or from now on."""
    tp = TopicPartition(topic("dispatch", cell), 0)
    consumer = make_consumer(bootstrap)
    async with Connected(consumer):
        if position is None:
            position = (await consumer.end_offsets([tp]))[tp]
        consumer.assign([tp])
        consumer.seek(tp, position)
        while True:
            taken = await consumer.getmany(tp, timeout_ms=10_000)
            for record in taken.get(tp, ()):
                yield record.offset, decode(record.value)
