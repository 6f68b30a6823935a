"""The dispatch role, cut off and started again: nothing that agents must hear is left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from domain.commands import CancelJob
from infra.kafka import LocalKafka
from streams.dispatch import Instruction, Start, Stop
from streams.dispatcher import dispatch
from streams.kafka import KafkaLog
from streams.kafka_dispatch import KafkaDispatch, instructions_from
from streams.topics import create_topics, topic
from tests.streams.cells import NAME, Site, drain, started, submit, world

pytestmark = pytest.mark.servers
WITHIN_S = 60


@asynccontextmanager
async def dispatching(kafka: LocalKafka, cell: str, site: Site) -> AsyncIterator[None]:
    async def role() -> None:
        async with (
            KafkaLog(kafka.bootstrap, cell) as log,
            KafkaDispatch(kafka.bootstrap, cell) as told,
        ):
            await dispatch(NAME, log, told, site.snapshots, site.ring)

    task = asyncio.create_task(role())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def heard(
    kafka: LocalKafka, cell: str, enough: Callable[[list[Instruction]], bool], position: int = 0
) -> list[Instruction]:
    """What agents hear, until it is enough."""
    found: list[Instruction] = []
    async with asyncio.timeout(WITHIN_S):
        async with aclosing(instructions_from(kafka.bootstrap, cell, position)) as told:
            async for _, instruction in told:
                found.append(instruction)
                if enough(found):
                    break
    return found


def jobs(found: list[Instruction], kind: type[Start] | type[Stop]) -> set[str]:
    return {i.job for i in found if isinstance(i, kind)}


class Copy:
    """Copies the ledger of an embedded cell to Kafka as it grows, with junk between."""

    def __init__(self, site: Site, kafka: LocalKafka, cell: str) -> None:
        self._site = site
        self._kafka = kafka
        self._cell = cell
        self._copied = 0

    async def on(self) -> None:
        async with KafkaLog(self._kafka.bootstrap, self._cell) as log:
            async for _, record in self._site.log.read(self._copied):
                await log.append(b"no record")
                await log.append(record)
                self._copied += 1


def test_cut_off_and_started_again(kafka: LocalKafka, fresh_name: str, tmp_path: Path) -> None:
    site = Site(tmp_path)
    copy = Copy(site, kafka, fresh_name)

    async def go() -> None:
        await create_topics(kafka.bootstrap, fresh_name)
        decider = await started(site, snapshot_facts=3)
        await site.send(*world(1), *(submit(f"j{n}") for n in range(3)))
        await drain(decider)
        await copy.on()
        async with dispatching(kafka, fresh_name, site):
            first = await heard(kafka, fresh_name, lambda f: len(jobs(f, Start)) == 3)
        assert jobs(first, Start) == {"j0", "j1", "j2"}
        # While nobody dispatches: a stop, and another start.
        await site.send(CancelJob(job="j0"), submit("j3"))
        await drain(decider)
        await copy.on()
        async with dispatching(kafka, fresh_name, site):
            second = await heard(
                kafka, fresh_name, lambda f: "j3" in jobs(f, Start) and "j0" in jobs(f, Stop)
            )
        assert jobs(second, Start) == {"j0", "j1", "j2", "j3"}
        assert jobs(second, Stop) == {"j0"}

    asyncio.run(go())
    site.database.close()


def test_after_all_that_was_told_is_gone(
    kafka: LocalKafka, fresh_name: str, tmp_path: Path
) -> None:
    """The topic keeps instructions for a time only: then agents hear all that stands."""
    site = Site(tmp_path)
    copy = Copy(site, kafka, fresh_name)

    async def go() -> None:
        await create_topics(kafka.bootstrap, fresh_name)
        decider = await started(site)
        await site.send(*world(1), submit("old"), submit("other"))
        await drain(decider)
        await copy.on()
        async with dispatching(kafka, fresh_name, site):
            await heard(kafka, fresh_name, lambda f: len(jobs(f, Start)) == 2)
        end = await _forget(kafka, topic("dispatch", fresh_name))
        await site.send(submit("new"))
        await drain(decider)
        await copy.on()
        async with dispatching(kafka, fresh_name, site):
            found = await heard(kafka, fresh_name, lambda f: len(jobs(f, Start)) == 3, end)
        assert jobs(found, Start) == {"old", "other", "new"}

    asyncio.run(go())
    site.database.close()


async def _forget(kafka: LocalKafka, name: str) -> int:
    """Delete all records of the topic, as its retention would; the offset of the next one."""
    part = TopicPartition(name, 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        low = await admin.delete_records({part: RecordsToDelete(before_offset=-1)})
    finally:
        await admin.close()
    return int(low[part])
