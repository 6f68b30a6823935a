"""Renting on Kafka: a process that reads the ledger, and gives commands like an operator's."""

from __future__ import annotations

import asyncio
from typing import Final

from domain.ledger import Verifier
from domain.ports import Clock, Snapshots
from streams.envelope import Sign, structured
from streams.kafka import KafkaCommandSink, KafkaLog
from streams.reader import catch_up, restore
from streams.renting import Renter

SOURCE: Final = "renter"


async def rent(
    bootstrap: str,
    name: str,
    renter: Renter,
    clock: Clock,
    session: str,
    verifier: Verifier,
    snapshots: Snapshots | None = None,
    key_id: str | None = None,
    sign: Sign | None = None,
    *,
    every_s: float = 10.0,
) -> None:
    """Rent for the cell until cancelled; `session` makes the ids of its commands new.

    Where commands are signed, `key_id` and `sign` are an operator's.
    """
    number = 0
    async with KafkaLog(bootstrap, name) as log, KafkaCommandSink(bootstrap, name) as sink:
        cell, reader = await restore(name, log, verifier, snapshots)
        while True:
            async for _ in catch_up(cell, reader):
                pass
            now_ms = clock.now_ms()
            for command in renter.step(cell, now_ms):
                number += 1
                id_ = f"{session}-{number}"
                message = structured(
                    command, source=SOURCE, id=id_, time_ms=now_ms, key_id=key_id, sign=sign
                )
                await sink.send(message)
            await asyncio.sleep(every_s)
