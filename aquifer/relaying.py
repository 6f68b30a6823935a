"""`aquifer relay`: a region's letters on their way to its peers, over their Kafka or over HTTPS."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, model_validator

from aquifer.errors import Misuse, rules_of
from aquifer.output import USAGE, fail, note
from domain.ports import CommandSink, Message
from domain.specs import Name
from streams.peers import Undeliverable

if TYPE_CHECKING:
    import httpx

    from aquifer.settings import Settings

SEND_S: Final = 10
PASSING: Final = (408, 425, 429)
"""Answers below 500 that say nothing about the letter itself."""


class PeerWay(BaseModel):
    """How a peer is reached: its Kafka, or its read API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka: str | None = None
    """Bootstrap servers, host:port with commas between."""
    cell: Name | None = None
    """Its cell, whose topics these are; by default the region's name."""
    url: str | None = None
    read: str | None = None
    """Its read API, for questions, where letters go by Kafka."""
    token: SecretStr | None = None
    """Of a reader that its API knows."""
    ca: Path | None = None
    """Certificates of those who may have signed its own."""
    certificate: Path | None = None
    key: Path | None = None
    """With these the relay shows who it is."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.kafka is None) == (self.url is None):
            raise ValueError("give either kafka or url")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        return self


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    peers: dict[Name, PeerWay]


def load_ways(path: Path) -> dict[str, PeerWay]:
    """Of a JSON file `{"peers": {REGION: {...}}}`. Raises Misuse, which names the field."""
    try:
        return _Table.model_validate(json.loads(path.read_bytes())).peers
    except ValidationError as error:
        raise Misuse(f"{path}: {'; '.join(rules_of(error))}") from None
    except (OSError, ValueError) as error:
        raise Misuse(f"{path}: {error}") from error


class Reopening:
    """A way in that is opened when it is needed, and anew after it failed."""

    def __init__(self, opener: Callable[[], AbstractAsyncContextManager[CommandSink]]) -> None:
        self._opener = opener
        self._open = AsyncExitStack()
        self._sink: CommandSink | None = None

    async def send(self, message: Message) -> None:
        """Raises Undeliverable, or whatever the way in raises."""
        try:
            async with asyncio.timeout(SEND_S):
                if self._sink is None:
                    self._sink = await self._open.enter_async_context(self._opener())
                await self._sink.send(message)
        except Undeliverable:
            raise
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._sink, stack, self._open = None, self._open, AsyncExitStack()
        await stack.aclose()


class HttpLetters:
    """A peer's read API as its way in."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def send(self, message: Message) -> None:
        """Raises Undeliverable if the peer will never take the letter, httpx.HTTPError."""
        headers = {name: value.decode() for name, value in message.headers}
        answer = await self._client.post("/v1/letters", content=message.value, headers=headers)
        if 400 <= answer.status_code < 500 and answer.status_code not in PASSING:
            raise Undeliverable(f"{answer.status_code} {answer.text[:200]}")
        answer.raise_for_status()


def opener(region: str, way: PeerWay) -> Callable[[], AbstractAsyncContextManager[CommandSink]]:
    return lambda: _opened(region, way)


@asynccontextmanager
async def _opened(region: str, way: PeerWay) -> AsyncIterator[CommandSink]:
    if way.kafka is not None:
        from streams.kafka import KafkaCommandSink

        async with KafkaCommandSink(way.kafka, way.cell or region) as topic:
            yield topic
        return
    assert way.url is not None, "it is one or the other"
    async with client_of(way, way.url, SEND_S) as client:
        yield HttpLetters(client)


def client_of(way: PeerWay, url: str, timeout_s: int) -> httpx.AsyncClient:
    """Of a peer's read API: it proves who it is, and so do we if it asks."""
    import httpx

    headers = {"Authorization": f"Bearer {way.token.get_secret_value()}"} if way.token else {}
    verify = ssl.create_default_context(cafile=way.ca)
    if way.certificate is not None:
        verify.load_cert_chain(way.certificate, way.key)
    return httpx.AsyncClient(base_url=url, headers=headers, verify=verify, timeout=timeout_s)


def relay() -> None:
    """Bring this region's letters to its peers (AQUIFER_PEERS), until stopped."""
    from aquifer.serve import bootstrap_of, play
    from aquifer.settings import load

    settings = load()
    if settings.peers is None:
        fail("AQUIFER_PEERS is not set: it names the peers and how to reach them", USAGE)
    play(_relay(settings, bootstrap_of(settings), load_ways(settings.peers)))


async def _relay(settings: Settings, bootstrap: str, ways: dict[str, PeerWay]) -> None:
    from aquifer.clocks import SystemClock
    from aquifer.folder import Folder
    from aquifer.trust import signer_of, verifier_of
    from streams.kafka import KafkaLog
    from streams.peers import Relay
    from streams.snapshots import FileSnapshots

    folder = Folder(settings.state_dir)
    signer, verifier = signer_of(settings, folder), verifier_of(settings, folder)
    sinks = {region: Reopening(opener(region, way)) for region, way in ways.items()}
    known = (verifier, FileSnapshots(folder.snapshots))
    async with KafkaLog(bootstrap, settings.cell) as log:
        note(f"relay of {settings.cell} to {', '.join(sorted(ways))}; stop with Ctrl-C")
        try:
            await Relay(settings.cell, log, *known, sinks, signer, SystemClock()).run()
        finally:
            for sink in sinks.values():
                await sink.close()
