"""Ways to a peer: tables of them, HTTPS that both sides prove, failures that pass or do not."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from aquifer.api import listen, serve, services
from aquifer.clocks import SystemClock
from aquifer.errors import Misuse
from aquifer.folder import Folder
from aquifer.relaying import PeerWay, Reopening, load_ways, opener
from aquifer.settings import Settings
from aquifer.trust import identity_of, signer_of
from domain.commands import AdvertiseInventory, CancelJob, Command
from domain.ports import CommandSink, Message
from projections.sqlite_store import SqliteStore
from streams.envelope import structured
from streams.keys import FileSigner
from streams.peers import Undeliverable
from streams.sqlite import Database, SqliteCommandSink, SqliteDeadLetters, SqliteInbox

ADVERT = AdvertiseInventory(region="west", epoch=1, round=3)


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        ({"peers": {"w": {}}}, "peers.w: Value error, give either kafka or url"),
        ({"peers": {"w": {"kafka": "a:1", "url": "http://x"}}}, "either kafka or url"),
        ({"peers": {"w": {"url": "u", "certificate": "c"}}}, "certificate and key go together"),
        ({"peers": {"w": {"kafka": "a:1", "colour": 1}}}, "peers.w.colour"),
        ({}, "peers"),
    ],
)
def test_a_wrong_table_names_the_field(table: object, rule: str, tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    file.write_text(json.dumps(table))
    with pytest.raises(Misuse, match=rule):
        load_ways(file)
    with pytest.raises(Misuse):
        load_ways(tmp_path / "nothing.json")


def test_a_way_is_opened_anew_after_it_failed() -> None:
    told: list[str] = []
    fails = [OSError("no route"), None, OSError("gone"), None]

    class Sink:
        async def send(self, message: Message) -> None:
            error = fails.pop(0)
            if error is not None:
                raise error

    @asynccontextmanager
    async def open_() -> AsyncIterator[CommandSink]:
        told.append("open")
        yield Sink()
        told.append("close")

    async def go() -> None:
        way, message = Reopening(open_), Message(b"", (), None)
        for expected in (False, True, False, True):
            try:
                await way.send(message)
                assert expected
            except OSError:
                assert not expected
        await way.close()

    asyncio.run(go())
    assert told == ["open", "close", "open", "close", "open", "close"]


# --- HTTPS ----------------------------------------------------------------------------------------


class Authority:
    """Signs certificates for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
        self.file = folder / "ca.pem"
        made = self._certificate(self._name, self._key.public_key(), ca=True)
        self.file.write_bytes(made.public_bytes(Encoding.PEM))

    def _certificate(
        self, name: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        authority = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(here, critical=False)
            .add_extension(authority, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        made = self._certificate(subject, key.public_key(), ca=False)
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files[0].write_bytes(made.public_bytes(Encoding.PEM))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files[1].write_bytes(pem)
        return files


class Served:
    """East's read API over HTTPS, which believes letters of west."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        certificate, key = self.authority.issue("east")
        self.west = FileSigner(folder / "west.pem")
        actor = {
            "actor": "west",
            "keys": {self.west.key_id: self.west.public.hex()},
            "roles": ["peer"],
            "regions": ["west"],
        }
        (folder / "actors.json").write_text(json.dumps({"actors": [actor]}))
        self.settings = Settings(
            cell="east",
            state_dir=folder,
            actors=folder / "actors.json",
            tls_certificate=certificate,
            tls_key=key,
            tls_clients=self.authority.file,
        )
        signer_of(self.settings, Folder(folder))
        self.database = Database(folder / "cell.sqlite")
        self.store = SqliteStore(folder / "rows.sqlite")
        self.dead = SqliteDeadLetters(self.database)
        self.listener = listen(self.settings, 0)
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        sink = SqliteCommandSink(self.database)
        given = services(self.settings, self.store, SystemClock(), sink, self.dead)
        task = asyncio.create_task(serve(self.settings, given, self.listener))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.listener.close()
            await self.store.close()

    def letter(self, command: Command, signer: FileSigner | None = None) -> Message:
        signer = signer or self.west
        now_ms = SystemClock().now_ms()
        return structured(
            command,
            source="west",
            id="1",
            time_ms=now_ms,
            key_id=signer.key_id,
            sign=signer.sign,
        )

    async def accepted(self) -> list[str]:
        inbox = SqliteInbox(self.database, identity_of(self.settings), self.dead, SystemClock())
        return [command.type for command in await inbox.take({}, 100, 0)]


def test_letters_go_over_https_that_both_sides_prove(tmp_path: Path) -> None:
    east = Served(tmp_path)
    certificate, key = east.authority.issue("west")
    shown = PeerWay(url=east.url, ca=east.authority.file, certificate=certificate, key=key)
    hidden = PeerWay(url=east.url, ca=east.authority.file)
    trusting_others = PeerWay(url=east.url, certificate=certificate, key=key)

    async def go() -> None:
        async with east.running():
            for stranger in (hidden, trusting_others):
                with pytest.raises((httpx.HTTPError, ssl.SSLError)):
                    await Reopening(opener("east", stranger)).send(east.letter(ADVERT))
            way = Reopening(opener("east", shown))
            await way.send(east.letter(ADVERT))
            with pytest.raises(Undeliverable, match="only letters of peers"):
                await way.send(east.letter(CancelJob(job="j")))
            with pytest.raises(Undeliverable, match="400"):
                await way.send(Message(b"{}", east.letter(ADVERT).headers, None))
            await way.send(east.letter(ADVERT, FileSigner(tmp_path / "stranger.pem")))
            await way.close()
            assert await east.accepted() == ["AdvertiseInventory"], "a stranger's key is not west's"

    asyncio.run(go())
    east.database.close()


def test_where_nothing_is_signed_no_letters_are_taken(tmp_path: Path) -> None:
    database, store = Database(tmp_path / "c.sqlite"), SqliteStore(tmp_path / "r.sqlite")
    given = services(Settings(), store, SystemClock(), SqliteCommandSink(database))
    assert given.letters is None
    database.close()
    asyncio.run(store.close())
