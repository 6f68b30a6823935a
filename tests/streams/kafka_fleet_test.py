"""The fleet on real Kafka: it obeys the dispatch topic, and what stands survives its restart."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from aiokafka import TopicPartition

from domain.commands import RegisterNode
from domain.specs import FabricPath
from infra.kafka import LocalKafka
from streams.agent import Work
from streams.dispatch import Group, Kill, Start
from streams.fleet import Fleet
from streams.kafka_clients import Connected, make_consumer, read_to_end
from streams.kafka_dispatch import KafkaDispatch
from streams.kafka_fleet import run_fleet
from streams.topics import create_topics, topic

pytestmark = pytest.mark.servers

PATH = FabricPath(region="r", cluster="c", block="b", rack="k")
WAIT_S = 60
PARTITIONS = 2


class ClockAt:
    """Stands still where it is put."""

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms

    def now_ms(self) -> int:
        return self.at_ms


def start(job: str, attempt: int, at_ms: int) -> Start:
    return Start(job, attempt, "gpu", [("n1", 1, 0, -1)], [Group("main", 1)], at_ms)


async def said(bootstrap: str, cell: str) -> set[tuple[str, str, int]]:
    """(job, state, attempt) of all reports of attempts on the topic of commands."""
    reports = set()
    for number in range(PARTITIONS):
        consumer = make_consumer(bootstrap)
        async with Connected(consumer):
            partition = TopicPartition(topic("cmd", cell), number)
            async for record in read_to_end(consumer, partition, 0):
                event = json.loads(record.value)
                if event["type"] == "aquifer.ReportAttempt.v1":
                    data = event["data"]
                    reports.add((data["job"], data["state"], data["attempt"]))
    return reports


async def until(bootstrap: str, cell: str, wanted: set[tuple[str, str, int]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            if await said(bootstrap, cell) == wanted:
                return
            await asyncio.sleep(0.2)


def fleet_of_one(now_ms: int) -> Fleet:
    fleet = Fleet(lambda _: Work(60_000))
    spec = RegisterNode(node="n1", accelerator="gpu", slots=8, path=PATH)
    fleet.add_nodes([spec], now_ms)
    return fleet


def running(bootstrap: str, cell: str, clock: ClockAt, session: str) -> asyncio.Task[None]:
    return asyncio.create_task(
        run_fleet(bootstrap, cell, fleet_of_one(clock.at_ms), clock, session)
    )


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_a_fleet_that_starts_anew_runs_what_stands_and_nothing_else(
    kafka: LocalKafka, fresh_name: str
) -> None:
    async def go() -> None:
        await create_topics(kafka.bootstrap, fresh_name, command_partitions=PARTITIONS)
        clock = ClockAt(1_000_000)
        async with KafkaDispatch(kafka.bootstrap, fresh_name) as told:
            fleet = running(kafka.bootstrap, fresh_name, clock, "s1")
            await told.send(1, [start("short", 1, 1_000_000), start("long", 1, 1_000_000)])
            first = {("short", "running", 1), ("long", "running", 1)}
            await until(kafka.bootstrap, fresh_name, first)
            await end(fleet)
            await told.send(2, [Kill("short", 1), start("late", 2, 1_010_000)])
            clock.at_ms = 1_060_000
            fleet = running(kafka.bootstrap, fresh_name, clock, "s2")
            second = {("long", "finished", 1), ("late", "running", 2)}
            await until(kafka.bootstrap, fresh_name, first | second)
            await end(fleet)

    asyncio.run(go())
