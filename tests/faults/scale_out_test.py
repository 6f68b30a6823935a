"""Four cells over workers that come and go under load: all work is shared, and none is lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Final

import pytest
from msgspec import Raw

from domain.commands import Command
from domain.ledger import Accepted, canonical
from infra.kafka import LocalKafka
from streams.envelope import body_of
from streams.kafka import KafkaAccepted, KafkaLog
from streams.keys import FileSigner, KeyRing
from streams.replay import verify
from streams.topics import create_topics
from tests.faults.supervised import Supervised
from tests.faults.watch import Watch
from tests.system.command_file import capacity, submission

WORKERS: Final = ("w1", "w2", "w3")
WITHIN_S: Final = 120


def _accepted(number: int, command: Command) -> Accepted:
    kind, body = type(command).__name__, Raw(canonical(body_of(command)))
    now_ms = time.time_ns() // 1_000_000
    return Accepted(0, 0, f"id-{number}", "test", kind, "test", now_ms, body)


class Cells:
    """Cells that get commands all the time, and the workers that decide them."""

    def __init__(self, kafka: LocalKafka, folder: Path, cells: list[str]) -> None:
        self.bootstrap, self.cells = kafka.bootstrap, cells
        signers = {name: FileSigner(folder / f"{name}.pem") for name in WORKERS}
        self.ring = KeyRing([signer.public for signer in signers.values()])
        self.ring.save(folder / "keys.json")
        writers = {signer.key_id: name for name, signer in signers.items()}
        self.watches = {c: Watch(self.bootstrap, c, self.ring, writers) for c in cells}
        self.put: Counter[str] = Counter()
        """Commands that were stored, by cell."""
        self._going_on = True
        arguments = ["worker", "--role", "decider"]
        for cell in cells:
            arguments += ["--cell", cell]
        self.workers = {
            name: Supervised(
                arguments,
                {
                    "AQUIFER_KAFKA": self.bootstrap,
                    "AQUIFER_STATE_DIR": str(folder / name),
                    "AQUIFER_SIGNING_KEY": str(folder / f"{name}.pem"),
                    "AQUIFER_KEYS": str(folder / "keys.json"),
                },
                folder / f"{name}.log",
            )
            for name in WORKERS
        }

    async def load(self, cell: str) -> None:
        random, ready = Random(1), iter(capacity())
        async with KafkaAccepted(self.bootstrap, cell) as accepted:
            while self._going_on:
                number = self.put[cell]
                command = next(ready, None) or submission(random, number)
                await accepted.put([_accepted(number, command)])
                self.put[cell] += 1
                await asyncio.sleep(0.1)

    async def led_by(self, *workers: str) -> None:
        """Wait until these workers lead all cells, and each of them its part."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                leaders = Counter(watch.leader for watch in self.watches.values())
                even = -(-len(self.cells) // len(workers))
                if leaders.keys() == set(workers) and max(leaders.values()) <= even:
                    return
                await asyncio.sleep(0.1)

    async def changes(self) -> None:
        """Workers are added and removed."""
        w1, w2, w3 = self.workers.values()
        w1.start()
        await self.led_by("w1")
        w2.start()
        await self.led_by("w1", "w2")
        w3.start()
        await self.led_by("w1", "w2", "w3")
        await w1.stop()
        await self.led_by("w2", "w3")
        await w2.kill()  # and it comes back
        await w2.started(2)
        await self.led_by("w2", "w3")

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            for watch in self.watches.values():
                await stack.enter_async_context(watch.watching())
            for worker in self.workers.values():
                stack.push_async_callback(worker.stop)
            load = [asyncio.create_task(self.load(cell)) for cell in self.cells]
            try:
                await self.changes()
            finally:
                self._going_on = False
                await asyncio.gather(*load)
            async with asyncio.timeout(WITHIN_S):
                for cell in self.cells:
                    while len(self.decided(cell)) < self.put[cell]:  # noqa: ASYNC110
                        await asyncio.sleep(0.1)

    def decided(self, cell: str) -> list[str]:
        """Ids in the order in which they were decided."""
        believed = self.watches[cell].believed
        assert not any(one.round.duplicates for one in believed)
        return [c.id for one in believed for c in one.round.commands]


@pytest.mark.servers
@pytest.mark.slow
def test_workers_come_and_go(kafka: LocalKafka, fresh_name: str, tmp_path: Path) -> None:
    made = Cells(kafka, tmp_path, [f"{fresh_name}-{n}" for n in range(4)])

    async def go() -> None:
        for cell in made.cells:
            await create_topics(made.bootstrap, cell)
        await made.run()
        for cell in made.cells:
            async with KafkaLog(made.bootstrap, cell) as log:
                async for verdict in verify(log, made.ring, cell_name=cell):
                    proven = verdict
            assert proven.intact, proven.broken

    asyncio.run(go())
    for cell in made.cells:
        assert made.decided(cell) == [f"id-{n}" for n in range(made.put[cell])]
        assert made.put[cell] > len(capacity())
