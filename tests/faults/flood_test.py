"""One producer floods the cell: nothing valid is refused, memory is bounded, others are served."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import pytest
from aiokafka.partitioner import DefaultPartitioner

from domain.commands import Command
from domain.ports import Message
from infra.kafka import LocalKafka
from streams.envelope import structured
from streams.kafka import KafkaDeadLetters, KafkaLog
from streams.kafka_clients import Connected, make_producer, send_all
from streams.keys import KeyRing
from streams.reader import LedgerReader
from streams.topics import create_topics, topic
from tests.faults.history import originals
from tests.faults.supervised import Supervised
from tests.system.command_file import capacity, submission

FLOOD: Final = 30_000
"""Commands that pile up while the worker is stopped: thirty rounds of the largest size."""
FLOODER: Final = "flood"
OTHERS: Final = 40
MOST_MIB: Final = 500
WITHIN_S: Final = 240


def _message(source: str, number: int, command: Command) -> Message:
    now_ms = time.time_ns() // 1_000_000
    return structured(command, source=source, id=str(number), time_ms=now_ms)


def _submissions(source: str, amount: int) -> Iterator[Message]:
    random = Random(2)
    for number in range(amount):
        job = {"job": f"{source}-{number}"}
        yield _message(source, number, submission(random, number).model_copy(update=job))


async def _send(bootstrap: str, cell: str, messages: Iterator[Message]) -> None:
    producer = make_producer(bootstrap)
    async with Connected(producer):
        records = [(m.key, m.value, m.headers) for m in messages]
        await send_all(producer, topic("cmd", cell), records)


def _partition(source: str) -> int:
    parts = list(range(4))
    return int(DefaultPartitioner()(source.encode(), parts, parts))


async def _decided(bootstrap: str, cell: str, ring: KeyRing, amount: int) -> list[tuple[str, str]]:
    """(source, id) of so many commands in the order in which they were decided.

    Intake is at least once: what a pause of the worker left uncommitted comes again, and is known.
    """
    found: list[tuple[str, str]] = []
    async with asyncio.timeout(WITHIN_S), KafkaLog(bootstrap, cell) as log:
        async for believed in LedgerReader(log, cell, ring).follow():
            found += [(c.source, c.id) for c in originals(believed.round)]
            if len(found) >= amount:
                break
    return found


@pytest.mark.servers
@pytest.mark.slow
def test_a_flood_of_one_producer(kafka: LocalKafka, fresh_name: str, tmp_path: Path) -> None:
    bootstrap, cell = kafka.bootstrap, fresh_name
    environment = {
        "AQUIFER_CELL": cell,
        "AQUIFER_STATE_DIR": str(tmp_path / "state"),
        "AQUIFER_KAFKA": bootstrap,
    }
    arguments = ["worker", "--role", "intake", "--role", "decider"]
    worker = Supervised(arguments, environment, tmp_path / "worker.log")
    ready = [_message("set-up", n, command) for n, command in enumerate(capacity())]

    other = next(
        n for n in (f"other-{k}" for k in range(99)) if _partition(n) != _partition(FLOODER)
    )

    async def go() -> tuple[list[tuple[str, str]], int, int]:
        await create_topics(bootstrap, cell)
        worker.start()
        try:
            await _send(bootstrap, cell, iter(ready))
            while not (tmp_path / "state" / "keys.json").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            ring = KeyRing.load(tmp_path / "state" / "keys.json")
            await _decided(bootstrap, cell, ring, len(ready))
            await worker.pause()
            await _send(bootstrap, cell, _submissions(FLOODER, FLOOD))
            await _send(bootstrap, cell, _submissions(other, OTHERS))
            await worker.resume()
            decided = await _decided(bootstrap, cell, ring, len(ready) + FLOOD + OTHERS)
            peak_mib = worker.peak_mib()
        finally:
            await worker.stop()
        async with KafkaDeadLetters(bootstrap, cell) as letters:
            return decided, peak_mib, len([letter async for letter in letters.read()])

    decided, peak_mib, dead = asyncio.run(go())
    assert dead == 0
    assert len(set(decided)) == len(decided) == len(ready) + FLOOD + OTHERS
    served = max(at for at, (source, _) in enumerate(decided) if source == other)
    assert served < FLOOD // 2, "it waits for a part of the flood, and not for all of it"
    assert peak_mib < MOST_MIB
