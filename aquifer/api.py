"""The read API of a profile: its services, and the server in this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from aquifer.errors import Misuse, Trouble
from aquifer.output import note

if TYPE_CHECKING:
    from aquifer.settings import Settings
    from domain.ports import Clock, CommandSink, DeadLetters
    from projections.cassandra_store import CassandraStore
    from projections.services import Services
    from projections.store import Store


def services(
    settings: Settings,
    store: Store,
    clock: Clock,
    sink: CommandSink | None = None,
    dead_letters: DeadLetters | None = None,
) -> Services:
    """What the API is made of; without a sink it only reads.

    Where commands have to be signed it only reads, too: it has nobody's key.
    """
    import secrets

    from domain.ports import Message
    from projections.cursors import Cursors
    from projections.services import Services
    from streams.envelope import structured

    key = settings.cursor_key
    return Services(
        store=store,
        cell=settings.cell,
        envelope=lambda command, source, id_: structured(
            command, source=source, id=id_, time_ms=clock.now_ms()
        ),
        sink=sink if settings.actors is None else None,
        dead_letters=dead_letters,
        resend=lambda letter: Message(letter.value, letter.headers, letter.key),
        cursors=Cursors(key.get_secret_value().encode() if key else secrets.token_bytes(32)),
    )


async def serve(given: Services, host: str, port: int) -> None:
    """Serve until a signal comes. Raises Trouble if the address is not to be had."""
    import uvicorn

    from projections.http import create_app

    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise Trouble(f"cannot listen on {host}:{port}: {error.strerror}") from error
    note(f"read API and dashboard: http://{host}:{listener.getsockname()[1]}")
    config = uvicorn.Config(create_app(given), log_level="warning")
    await uvicorn.Server(config).serve(sockets=[listener])


def api(
    port: Annotated[int | None, typer.Option(help="Instead of AQUIFER_PORT; 0: any.")] = None,
) -> None:
    """Serve the read API of a cell on Kafka and Cassandra, until stopped."""
    from aquifer.settings import load

    settings = load()
    if settings.kafka is None:
        raise Misuse("AQUIFER_KAFKA is not set: the embedded cell's API is in `aquifer run`")
    with suppress(KeyboardInterrupt):
        asyncio.run(_api(settings, settings.kafka, settings.port if port is None else port))


async def _api(settings: Settings, bootstrap: str, port: int) -> None:
    from aquifer.clocks import SystemClock
    from streams.kafka import KafkaCommandSink, KafkaDeadLetters

    async with (
        cassandra(settings) as store,
        KafkaCommandSink(bootstrap, settings.cell) as sink,
        KafkaDeadLetters(bootstrap, settings.cell) as letters,
    ):
        given = services(settings, store, SystemClock(), sink, letters)
        await serve(given, settings.host, port)


async def connect_cassandra(settings: Settings) -> CassandraStore:
    """The read model in Cassandra. Raises Misuse, and Trouble if it is not to be reached."""
    from cassandra.cluster import NoHostAvailable

    from projections.cassandra_store import CassandraStore

    hosts, port = settings.contact_points
    if not hosts:
        raise Misuse("AQUIFER_CASSANDRA is not set: the read model is there")
    try:
        return await CassandraStore.connect(hosts, port, settings.keyspace)
    except NoHostAvailable as error:
        raise Trouble(f"Cassandra at {', '.join(hosts)}:{port}: {error}") from error


@asynccontextmanager
async def cassandra(settings: Settings) -> AsyncIterator[CassandraStore]:
    """As `connect_cassandra`, closed at the end."""
    store = await connect_cassandra(settings)
    try:
        yield store
    finally:
        await store.close()
