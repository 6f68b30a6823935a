"""Two deciders of one cell on real Kafka: who leads, and how long nobody does after a fault.

Each signs with a key of its own, so the ledger itself says who wrote what.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from msgspec import Struct

from domain.commands import Command
from domain.ports import Message
from infra.kafka import LocalKafka
from streams.election import GROUP, SESSION_MS
from streams.envelope import structured
from streams.kafka import KafkaCommandSink
from streams.keys import FileSigner, KeyRing
from streams.topics import create_topics
from tests.faults.history import originals
from tests.faults.supervised import Supervised
from tests.faults.watch import Watch
from tests.system.command_file import capacity, submission

CELL: Final = "pair"
PER_S: Final = 50
WITHIN_S: Final = 60


class Takeover(Struct):
    """What a fault of the leading decider led to."""

    how: str
    seconds: float
    """From the fault to the first believed round of the other one."""
    late_records: int
    """Records of the old one that came after the first of the new one."""
    shut_out: bool
    """The old one tried to write, and Kafka refused it."""


class Pair:
    def __init__(self, folder: Path, versions: Mapping[str, str] | None = None) -> None:
        """`versions`: of deciders that are not of this one (`tests.faults.planted`)."""
        versions = versions or {}
        self.kafka = LocalKafka(folder / "kafka")
        signers = {name: FileSigner(folder / f"{name}.pem") for name in ("a", "b")}
        self.ring = KeyRing([signer.public for signer in signers.values()])
        self.ring.save(folder / "keys.json")
        writers = {signer.key_id: name for name, signer in signers.items()}
        self.watch = Watch(self.kafka.bootstrap, CELL, self.ring, writers)
        common = {
            "AQUIFER_CELL": CELL,
            "AQUIFER_KAFKA": self.kafka.bootstrap,
            "AQUIFER_KEYS": str(folder / "keys.json"),
        }
        self.deciders: dict[str, Supervised] = {}
        for name in signers:
            own = {
                "AQUIFER_STATE_DIR": str(folder / name),
                "AQUIFER_SIGNING_KEY": str(folder / f"{name}.pem"),
            }
            arguments = ["worker", "--role", "decider"]
            log, version = folder / f"{name}.log", versions.get(name)
            self.deciders[name] = Supervised(arguments, common | own, log, version)
        own = {
            "AQUIFER_STATE_DIR": str(folder / "a"),
            "AQUIFER_SIGNING_KEY": str(folder / "a.pem"),
        }
        self.intake = Supervised(
            ["worker", "--role", "intake"], common | own, folder / "intake.log"
        )
        self.folder = folder
        self.acknowledged: set[str] = set()
        """Ids of the commands that Kafka has stored."""
        self._sent = 0
        self._load = True

    @asynccontextmanager
    async def running(self, deciders: Sequence[str] = ("a", "b")) -> AsyncIterator[None]:
        """Intake and these deciders run, and commands come in all the time."""
        await create_topics(self.kafka.bootstrap, CELL)
        for role in (self.intake, *(self.deciders[name] for name in deciders)):
            role.start()
        sending = asyncio.create_task(self._send())
        try:
            async with self.watch.watching():
                yield
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            for role in (self.intake, *self.deciders.values()):
                await role.stop()

    def load_ends(self) -> None:
        self._load = False

    async def _send(self) -> None:
        random = Random(8)
        set_up = iter(capacity())
        while self._load:
            try:
                async with KafkaCommandSink(self.kafka.bootstrap, CELL) as sink:
                    while self._load:
                        self._sent += 1
                        command = next(set_up, None) or submission(random, self._sent)
                        await sink.send(self._message(command))
                        self.acknowledged.add(f"id-{self._sent}")
                        await asyncio.sleep(1 / PER_S)
            except (KafkaError, OSError):
                await asyncio.sleep(0.2)

    def _message(self, command: Command) -> Message:
        id_, now_ms = f"id-{self._sent}", time.time_ns() // 1_000_000
        return structured(command, source="urn:pair", id=id_, time_ms=now_ms)

    async def ready(self) -> None:
        """Both live and are members of the settled group, and one of them leads."""
        await asyncio.sleep(2 * SESSION_MS / 1000)  # dead members are forgotten by then
        async with asyncio.timeout(WITHIN_S):
            await self.watch.until_other("")
            await settled(self.kafka.bootstrap, len(self.deciders))

    async def fault(self, how: str) -> Takeover:
        """Kill the leader, or stop it and wake it when the other one leads."""
        old = self.watch.leader
        refused = self._refused(old)
        if how == "kill":
            await self.deciders[old].kill()
        else:
            await self.deciders[old].pause()
        begin = time.monotonic()
        async with asyncio.timeout(WITHIN_S):
            await self.watch.until_other(old)
        seconds = time.monotonic() - begin
        first = len(self.watch.written)
        if how == "stop":
            await self.deciders[old].resume()
        await self.ready()
        late = self.watch.written[first:].count(old)
        return Takeover(how, round(seconds, 3), late, self._refused(old) > refused)

    def decided(self) -> Counter[str]:
        """How often each command was decided, but for copies of it."""
        found: Counter[str] = Counter()
        for one in self.watch.believed:
            found.update(c.id for c in originals(one.round))
        return found

    def _refused(self, name: str) -> int:
        return self.deciders[name].said("ProducerFenced")


async def settled(bootstrap: str, deciders: int) -> None:
    """Wait until so many are members of the group of deciders, and know what they have."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        while True:
            for answer in await admin.describe_consumer_groups([GROUP]):
                for code, _, state, _, _, members, *_ in answer.groups:
                    if not code and state == "Stable" and len(members) == deciders:
                        return
            await asyncio.sleep(0.1)
    finally:
        await admin.close()
