"""A client of the bus: it sends its commands in order, and repeats each until it is acknowledged.

What it has to send survives it, as an outbox does: after a crash it goes on with the same ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

from aiokafka.errors import KafkaError

from domain.commands import Command
from domain.ports import Message
from streams.envelope import binary, structured
from streams.kafka import KafkaCommandSink
from tests.simulation.cluster import BUS, CELL
from tests.simulation.keys import OPERATOR, Key
from tests.simulation.loop import START_MS, Process
from tests.simulation.workload import Item


class Client:
    def __init__(self, number: int, items: list[Item], seed: int) -> None:
        self.name = f"client-{number}"
        actor = OPERATOR if number == 0 else self.name
        self._key = Key(f"key-{actor}")
        self._random = Random(seed)
        self._numbered = 0
        self.waiting: list[tuple[str, Item]] = []
        """What is not acknowledged yet: id and command."""
        self.acknowledged: dict[str, Item] = {}
        for item in items:
            self._add(item)
        self._more = asyncio.Event()

    def _add(self, item: Item) -> None:
        self._numbered += 1
        self.waiting.extend([(f"{self.name}-{self._numbered}", item)] * item.copies)

    def order(self, commands: Sequence[Command], at_s: float) -> None:
        """More to send."""
        for command in commands:
            self._add(Item(at_s, 0, command))
        self._more.set()

    async def run(self, process: Process) -> None:
        loop = asyncio.get_running_loop()
        async with KafkaCommandSink(BUS, CELL) as sink:
            while True:
                if not self.waiting:
                    self._more.clear()
                    await self._more.wait()
                id_, item = self.waiting[0]
                if item.at_s > loop.time():
                    await asyncio.sleep(item.at_s - loop.time())
                try:
                    await sink.send(self._message(id_, item))
                except KafkaError:
                    await asyncio.sleep(0.2 + self._random.random())
                    continue
                self.acknowledged[id_] = self.waiting.pop(0)[1]

    def _message(self, id_: str, item: Item) -> Message:
        if item.command is None:
            return Message(item.raw + id_.encode(), (), self.name.encode())
        make = binary if item.binary else structured
        return make(
            item.command,
            source=self.name,
            id=id_,
            time_ms=START_MS + int(item.at_s * 1000),
            key_id=self._key.key_id,
            sign=self._key.sign,
        )
