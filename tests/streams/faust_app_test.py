"""Workers on a real broker: what they refuse, what they raise, and that they pick up again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from infra.kafka import LocalKafka
from streams.dispatch import Start
from streams.envelope import structured
from streams.faust_app import Role, Worker, run_worker
from streams.identity import Identity
from streams.kafka import KafkaCommandSink, KafkaLog
from streams.kafka_dispatch import instructions_from
from streams.keys import FileSigner, KeyRing
from streams.reader import LedgerReader
from streams.snapshots import FileSnapshots
from streams.topics import WrongTopics, create_topics
from tests.streams.cells import START_MS, submit, world

WITHIN_S = 60


class StillClock:
    def now_ms(self) -> int:
        return START_MS


class ReadModel:
    """Keeps the records that it is told of; raises for one of them."""

    def __init__(self, bad: bytes | None = None) -> None:
        self.records: list[bytes] = []
        self.start = 0
        self.bad = bad

    def holds(self, amount: int) -> bool:
        return len(self.records) == amount

    async def position(self) -> int:
        return self.start

    async def on_record(self, position: int, record: bytes, more: bool = False) -> None:
        if record == self.bad:
            raise ValueError("no such row")
        assert position == self.start + len(self.records), "in order, without a gap"
        self.records.append(record)


def worker(
    kafka: LocalKafka, cell: str, folder: Path, *roles: Role, model: ReadModel | None = None
) -> Worker:
    folder.mkdir(exist_ok=True)
    signer = FileSigner(folder / "key.pem")
    return Worker(
        bootstrap=kafka.bootstrap,
        cell=cell,
        roles=roles,
        folder=folder,
        clock=StillClock(),
        verifier=KeyRing([signer.public]),
        snapshots=FileSnapshots(folder / "snapshots"),
        identity=Identity(),
        signer=signer,
        projector=model,
    )


@asynccontextmanager
async def playing(made: Worker) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(run_worker(made))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, ValueError):
            await task


def test_a_role_needs_what_it_works_with(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="projector"):
        worker(LocalKafka(tmp_path / "kafka"), "c", tmp_path, "projector")
    with pytest.raises(ValueError, match="nothing was given"):
        worker(LocalKafka(tmp_path / "kafka"), "c", tmp_path)


@pytest.mark.servers
def test_wrong_topics_are_refused_before_anything_starts(
    kafka: LocalKafka, fresh_name: str, tmp_path: Path
) -> None:
    made = worker(kafka, fresh_name, tmp_path, "intake")
    with pytest.raises(WrongTopics, match="missing"):
        asyncio.run(run_worker(made))


@pytest.mark.servers
def test_a_recreated_topic_is_refused_at_the_next_start(
    kafka: LocalKafka, fresh_name: str, tmp_path: Path
) -> None:
    remembered = tmp_path / f"topics.{fresh_name}.json"

    async def remember() -> None:
        await create_topics(kafka.bootstrap, fresh_name)
        async with playing(worker(kafka, fresh_name, tmp_path, "intake")):
            await _until(remembered.exists)

    asyncio.run(remember())
    ids = json.loads(remembered.read_text())
    remembered.write_text(json.dumps({**ids, f"cmd.{fresh_name}": "another"}))
    with pytest.raises(WrongTopics, match="made anew"):
        asyncio.run(run_worker(worker(kafka, fresh_name, tmp_path, "intake")))


@pytest.mark.servers
def test_what_a_projector_raises_ends_the_worker(
    kafka: LocalKafka, fresh_name: str, tmp_path: Path
) -> None:
    async def go() -> None:
        await create_topics(kafka.bootstrap, fresh_name)
        model = ReadModel(bad=b"2")
        async with KafkaLog(kafka.bootstrap, fresh_name) as log:
            await log.append(b"0")
            made = worker(kafka, fresh_name, tmp_path, "projector", model=model)
            async with playing(made) as task:
                await log.append(b"1")
                await log.append(b"2")
                async with asyncio.timeout(WITHIN_S):
                    with pytest.raises(ValueError, match="no such row"):
                        await task
        assert model.records == [b"0", b"1"]

    asyncio.run(go())


@pytest.mark.servers
def test_a_projector_goes_on_from_where_its_read_model_stands(
    kafka: LocalKafka, fresh_name: str, tmp_path: Path
) -> None:
    async def go() -> None:
        await create_topics(kafka.bootstrap, fresh_name)
        async with KafkaLog(kafka.bootstrap, fresh_name) as log:
            for number in range(5):
                await log.append(b"%d" % number)
            first = ReadModel()
            async with playing(worker(kafka, fresh_name, tmp_path, "projector", model=first)):
                await _until(partial(first.holds, 5))
                await log.append(b"5")
                await _until(partial(first.holds, 6))
            again, later = ReadModel(), ReadModel()
            later.start = 4
            for model in (again, later):  # the tables were dropped; or are a little behind
                async with playing(worker(kafka, fresh_name, tmp_path, "projector", model=model)):
                    await _until(partial(model.holds, 6 - model.start))
            assert again.records == first.records
            assert later.records == [b"4", b"5"]

    asyncio.run(go())


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110  files and lists have no events
            await asyncio.sleep(0.02)


@pytest.mark.servers
def test_commands_become_rounds_and_rounds_instructions(
    kafka: LocalKafka, fresh_name: str, tmp_path: Path
) -> None:
    async def go() -> None:
        await create_topics(kafka.bootstrap, fresh_name, command_partitions=1)
        commands = [*world(1), *(submit(f"j{n}") for n in range(8))]
        messages = [
            structured(c, source="s", id=str(n), time_ms=START_MS) for n, c in enumerate(commands)
        ]
        made = worker(kafka, fresh_name, tmp_path, "intake", "decider", "dispatch")
        async with KafkaCommandSink(kafka.bootstrap, fresh_name) as sink:
            for message in messages[:-4]:
                await sink.send(message)
            async with playing(made):
                assert await _started(kafka, fresh_name, 4) == {f"j{n}" for n in range(4)}
            for message in messages[-6:]:  # two of them once more
                await sink.send(message)
            async with playing(made):
                assert await _started(kafka, fresh_name, 8) == {f"j{n}" for n in range(8)}
        async with KafkaLog(kafka.bootstrap, fresh_name) as log:
            reader = LedgerReader(log, fresh_name, made.verifier)
            found = [believed.round async for believed in reader.read()]
        ids = [c.id for r in found for i, c in enumerate(r.commands) if i not in set(r.duplicates)]
        assert ids == [str(n) for n in range(len(messages))]

    asyncio.run(go())


async def _started(kafka: LocalKafka, cell: str, amount: int) -> set[str]:
    jobs: set[str] = set()
    async with asyncio.timeout(WITHIN_S):
        async for _, instruction in instructions_from(kafka.bootstrap, cell, 0):
            if isinstance(instruction, Start):
                jobs.add(instruction.job)
            if len(jobs) == amount:
                break
    return jobs
