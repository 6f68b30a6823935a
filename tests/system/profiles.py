"""The same messages through the embedded and through the distributed profile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from msgspec.structs import replace

from domain.ledger import Round
from domain.ports import DeadLetter, Log, Message
from streams.decider import Decider, Settings
from streams.ending import end
from streams.faust_app import Role, Worker, run_worker
from streams.identity import Identity
from streams.kafka import KafkaCommandSink, KafkaDeadLetters, KafkaLog
from streams.kafka_clients import Connected, make_consumer
from streams.keys import FileSigner, KeyRing
from streams.reader import LedgerReader
from streams.snapshots import FileSnapshots
from streams.sqlite import Database, SqliteCommandSink, SqliteDeadLetters, SqliteInbox, SqliteLog
from streams.topics import create_topics, topic
from tests.system.command_file import START_MS

COMMAND_CLOCK = Settings(by_command_time=True, max_commands=40, max_wait_ms=3000)
"""Time is the commands' own, and rounds are small: the bound of a round is met, too."""


OPEN = Identity()


class StillClock:
    def now_ms(self) -> int:
        return START_MS


class Outcome:
    """What a profile made of the messages."""

    def __init__(self, rounds: list[Round], letters: list[DeadLetter]) -> None:
        self.rounds = rounds
        self.letters = letters


async def believed(log: Log, cell: str, ring: KeyRing) -> list[Round]:
    return [b.round async for b in LedgerReader(log, cell, ring).read()]


async def embedded(
    folder: Path, cell: str, messages: Sequence[Message], identity: Identity = OPEN
) -> Outcome:
    database = Database(folder / "cell.sqlite")
    signer = FileSigner(folder / "key.pem")
    ring = KeyRing([signer.public])
    try:
        sink, letters = SqliteCommandSink(database), SqliteDeadLetters(database)
        for message in messages:
            await sink.send(message)
        inbox = SqliteInbox(database, identity, letters, StillClock())
        log = SqliteLog(database)
        settings = replace(COMMAND_CLOCK, max_wait_ms=0)  # all is there
        decider = Decider(cell, log, inbox, signer, ring, StillClock(), settings=settings)
        await decider.recover()
        while await decider.step() is not None:
            pass
        return Outcome(await believed(log, cell, ring), [x async for x in letters.read()])
    finally:
        database.close()


async def distributed(
    folder: Path,
    bootstrap: str,
    cell: str,
    messages: Sequence[Message],
    rounds: int,
    identity: Identity = OPEN,
) -> Outcome:
    """Through intake and decider in Faust workers, until the ledger has so many rounds.

    Intake has all messages before the decider starts: by command time it takes a complete input.
    """
    await create_topics(bootstrap, cell, command_partitions=1)
    signer = FileSigner(folder / "key.pem")
    ring = KeyRing([signer.public])
    async with (
        KafkaCommandSink(bootstrap, cell) as sink,
        KafkaDeadLetters(bootstrap, cell) as letters,
        KafkaLog(bootstrap, cell) as log,
    ):
        for message in messages:
            await sink.send(message)

        async def role(role: Role) -> None:
            await run_worker(
                Worker(
                    bootstrap=bootstrap,
                    cell=cell,
                    roles=(role,),
                    folder=folder,
                    clock=StillClock(),
                    verifier=ring,
                    snapshots=FileSnapshots(folder / "snapshots"),
                    identity=identity,
                    signer=signer,
                    settings=COMMAND_CLOCK,
                )
            )

        async with running(role("intake")) as intake:
            await _until_taken_in(bootstrap, cell, intake)
        async with running(role("decider")) as decider:
            while await log.end() < rounds:
                await asyncio.sleep(0.05)
                assert not decider.done(), decider.exception()
            await asyncio.sleep(1)  # it must not go on from here
        return Outcome(await believed(log, cell, ring), [x async for x in letters.read()])


@asynccontextmanager
async def running(role: Coroutine[None, None, None]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(role)
    try:
        yield task
    finally:
        await end((task,))
        if not task.cancelled():
            task.result()


async def _until_taken_in(bootstrap: str, cell: str, intake: asyncio.Task[None]) -> None:
    """Intake has stored what became of every message and said so."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    consumer = make_consumer(bootstrap)
    part = TopicPartition(topic("cmd", cell), 0)
    await admin.start()
    try:
        async with Connected(consumer):
            end = (await consumer.end_offsets([part]))[part]
        while True:
            with suppress(GroupCoordinatorNotAvailableError):  # the group is just being made
                offsets = await admin.list_consumer_group_offsets(f"aquifer.intake.{cell}")
                if part in offsets and offsets[part].offset == end:
                    return
            await asyncio.sleep(0.05)
            assert not intake.done(), intake.exception()
    finally:
        await admin.close()
