"""The ports of each profile, fresh for every test: one suite is run against all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from msgspec import Struct

from domain.ports import CommandSink, DeadLetters, Inbox, Log
from infra.kafka import LocalKafka
from streams.identity import Identity
from streams.kafka import KafkaCommandSink, KafkaDeadLetters, KafkaInbox, KafkaLog
from streams.kafka_intake import take_in
from streams.sqlite import Database, SqliteCommandSink, SqliteDeadLetters, SqliteInbox, SqliteLog
from streams.topics import create_topics


class FixedClock:
    def now_ms(self) -> int:
        return 1_735_689_600_000


class Ports(Struct):
    """All doors of one cell. A second set on the same cell is as another process has them."""

    log: Log
    inbox: Inbox
    sink: CommandSink
    dead_letters: DeadLetters


Profile = Callable[[], AbstractAsyncContextManager[Ports]]
"""Opens the ports of the test's own cell; may be called again for a second set on it."""


def embedded(path: Path) -> Profile:
    @asynccontextmanager
    async def open_() -> AsyncIterator[Ports]:
        database = Database(path)
        dead_letters = SqliteDeadLetters(database)
        inbox = SqliteInbox(database, Identity(), dead_letters, FixedClock())
        try:
            yield Ports(SqliteLog(database), inbox, SqliteCommandSink(database), dead_letters)
        finally:
            database.close()

    return open_


def distributed(bootstrap: str, cell: str) -> Profile:
    intake_runs = False

    @asynccontextmanager
    async def open_() -> AsyncIterator[Ports]:
        nonlocal intake_runs
        await create_topics(bootstrap, cell, command_partitions=1)
        first, intake_runs = not intake_runs, True
        intake = asyncio.ensure_future(
            take_in(bootstrap, cell, Identity(), FixedClock()) if first else asyncio.sleep(0)
        )
        async with (
            KafkaLog(bootstrap, cell) as log,
            KafkaInbox(bootstrap, cell) as inbox,
            KafkaCommandSink(bootstrap, cell) as sink,
            KafkaDeadLetters(bootstrap, cell) as dead_letters,
        ):
            yield Ports(log, inbox, sink, dead_letters)
        if first:
            intake_runs = False
            intake.cancel()
        await asyncio.gather(intake, return_exceptions=True)

    return open_


@pytest.fixture(params=["embedded", pytest.param("distributed", marks=pytest.mark.servers)])
def profile(request: pytest.FixtureRequest, tmp_path: Path, fresh_name: str) -> Profile:
    if request.param == "embedded":
        return embedded(tmp_path / "cell.sqlite")
    kafka: LocalKafka = request.getfixturevalue("kafka")
    return distributed(kafka.bootstrap, fresh_name)
