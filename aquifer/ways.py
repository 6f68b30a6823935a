"""The ways in for the command line: a running read API, Kafka, or the embedded cell's file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aquifer.clocks import SystemClock
from aquifer.errors import Trouble
from aquifer.folder import existing
from domain.commands import Command
from domain.ports import CommandSink
from streams.envelope import body_of, structured

if TYPE_CHECKING:
    from aquifer.settings import Settings

SOURCE: Final = "cli"
TIMEOUT_S: Final = 30


class NoWay(Trouble):
    """The commands could not be handed on; some of them may have been."""


async def send(
    settings: Settings, url: str | None, commands: Sequence[tuple[str, Command]]
) -> None:
    """Hand on (id, command) in their order. Raises NoWay."""
    if url is not None:
        await _post(url, commands)
        return
    clock = SystemClock()
    async with sink(settings) as way:
        for id_, command in commands:
            await way.send(structured(command, source=SOURCE, id=id_, time_ms=clock.now_ms()))


@asynccontextmanager
async def sink(settings: Settings) -> AsyncIterator[CommandSink]:
    """The profile's own way in. Raises Trouble."""
    if settings.kafka is not None:
        from aiokafka.errors import KafkaError

        from streams.kafka import KafkaCommandSink

        try:
            async with KafkaCommandSink(settings.kafka, settings.cell) as topic:
                yield topic
        except KafkaError as error:
            raise NoWay(f"Kafka: {error}") from error
        return
    from streams.sqlite import Database, SqliteCommandSink

    database = Database(existing(settings.state_dir).ledger)
    try:
        yield SqliteCommandSink(database)
    finally:
        database.close()


async def _post(url: str, commands: Sequence[tuple[str, Command]]) -> None:
    import httpx

    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:
        for id_, command in commands:
            try:
                answer = await client.post(
                    f"/v1/commands/{type(command).__name__}",
                    json=body_of(command),
                    headers={"Idempotency-Key": id_},
                )
            except httpx.HTTPError as error:
                raise NoWay(f"{url}: {error or type(error).__name__}") from error
            if answer.is_error:
                raise NoWay(f"{url}: {answer.status_code} {answer.text}")
