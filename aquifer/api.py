"""The read API of a profile: its services, and the server in this process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aquifer.errors import Misuse, Trouble
from aquifer.output import note

if TYPE_CHECKING:
    from aquifer.settings import Settings
    from domain.commands import Command
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

    from domain.commands import COMMANDS, FromPeer
    from domain.ports import Message
    from projections.cursors import Cursors
    from projections.services import Services
    from streams.envelope import ACTOR, SIGNATURE, STRUCTURED, Malformed, parse, structured

    def envelope(command: Command, source: str, id_: str, actor: str | None) -> Message:
        message = structured(command, source=source, id=id_, time_ms=clock.now_ms())
        named = ((ACTOR, actor.encode()),) if actor is not None else ()
        return Message(message.value, message.headers + named, message.key)

    async def post(body: bytes, signature: str) -> None:
        headers = (("content-type", STRUCTURED.encode()), (SIGNATURE, signature.encode()))
        try:
            said = parse(Message(body, headers, None))
        except Malformed as error:
            raise ValueError(str(error)) from error
        if not issubclass(COMMANDS[said.model], FromPeer):
            raise ValueError("type: only letters of peers come this way")
        assert sink is not None, "letters are taken where there is a way in"
        await sink.send(Message(body, headers, said.source.encode()))

    ask_peers = None
    if settings.peers is not None:
        from aquifer.asking import Peers
        from aquifer.relaying import load_ways

        ask_peers = Peers(load_ways(settings.peers)).summaries
    key = settings.cursor_key
    return Services(
        store=store,
        cell=settings.cell,
        envelope=envelope,
        sink=sink if settings.actors is None else None,
        letters=post if sink is not None and settings.actors is not None else None,
        ask_peers=ask_peers,
        dead_letters=dead_letters,
        resend=lambda letter: Message(letter.value, letter.headers, letter.key),
        cursors=Cursors(key.get_secret_value().encode() if key else secrets.token_bytes(32)),
    )


def listen(settings: Settings, port: int | None) -> socket.socket:
    """A socket at the settings' address. Raises Trouble if that is not to be had."""
    port = settings.port if port is None else port
    try:
        return socket.create_server((settings.host, port))
    except OSError as error:
        raise Trouble(f"cannot listen on {settings.host}:{port}: {error.strerror}") from error


def _tls(settings: Settings) -> dict[str, Any]:
    """What the server is told of certificates."""
    import ssl

    if settings.tls_certificate is None:
        return {}
    asked = ssl.CERT_NONE if settings.tls_clients is None else ssl.CERT_REQUIRED
    return {
        "ssl_certfile": settings.tls_certificate,
        "ssl_keyfile": settings.tls_key,
        "ssl_ca_certs": settings.tls_clients,
        "ssl_cert_reqs": asked,
    }


async def serve(settings: Settings, given: Services, listener: socket.socket) -> None:
    """Serve until a signal comes; who asks from outside is known, limited and answered faster."""
    import uvicorn

    from projections.http import create_app

    host, port, *_ = listener.getsockname()
    async with guarded(settings, given) as served:
        scheme = "http" if settings.tls_certificate is None else "https"
        note(f"read API and dashboard: {scheme}://{host}:{port}")
        config = uvicorn.Config(
            create_app(served), lifespan="off", log_level="warning", **_tls(settings)
        )
        await uvicorn.Server(config).serve(sockets=[listener])


@asynccontextmanager
async def guarded(settings: Settings, given: Services) -> AsyncIterator[Services]:
    """The services with readers, limits and cache. Raises Misuse for a wrong table of readers."""
    from projections.access import Readers
    from projections.cache import Cache
    from projections.limits import Limits
    from projections.volatile import Volatile

    try:
        readers = Readers.load(settings.readers) if settings.readers else None
    except (OSError, ValueError) as error:
        raise Misuse(f"AQUIFER_READERS: {error}") from error
    shared = Volatile(settings.redis.get_secret_value()) if settings.redis else None
    rate = settings.rate_limit
    try:
        yield replace(
            given,
            readers=readers,
            limits=Limits(rate, 2 * rate, shared) if rate else None,
            cache=Cache(shared) if shared else None,
        )
    finally:
        if shared:
            await shared.close()


def api(
    port: Annotated[int | None, typer.Option(help="Instead of AQUIFER_PORT; 0: any.")] = None,
) -> None:
    """Serve the read API of a cell on Kafka and Cassandra, until stopped."""
    from aquifer.settings import load
    from aquifer.together import until_stopped

    settings = load()
    if settings.kafka is None:
        raise Misuse("AQUIFER_KAFKA is not set: the embedded cell's API is in `aquifer run`")
    until_stopped(_api(settings, settings.kafka, listen(settings, port)))


async def _api(settings: Settings, bootstrap: str, listener: socket.socket) -> None:
    from aquifer.clocks import SystemClock
    from streams.kafka import KafkaCommandSink, KafkaDeadLetters

    async with (
        cassandra(settings) as store,
        KafkaCommandSink(bootstrap, settings.cell) as sink,
        KafkaDeadLetters(bootstrap, settings.cell) as letters,
    ):
        given = services(settings, store, SystemClock(), sink, letters)
        await serve(settings, given, listener)


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
