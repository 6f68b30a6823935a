"""Renting on Kafka: a process that reads the ledger, and gives commands like an operator's."""

from __future__ import annotations

import asyncio
from typing import Final

from domain.ledger import Signer, Verifier
from domain.ports import Clock, Snapshots
from domain.snapshots import Saving
from streams.kafka import KafkaCommandSink, KafkaLog
from streams.reader import catch_up, restore
from streams.renting import Renter
from streams.voice import Voice

SOURCE: Final = "renter"


async def rent(
    bootstrap: str,
    name: str,
    renter: Renter,
    clock: Clock,
    session: str,
    verifier: Verifier,
    snapshots: Snapshots | None = None,
    signer: Signer | None = None,
    *,
    every_s: float = 10.0,
) -> None:
    """Rent for the cell until cancelled; `session` makes the ids of its commands new.

    Where commands are signed, the signer is an operator's.
    """
    async with KafkaLog(bootstrap, name) as log, KafkaCommandSink(bootstrap, name) as sink:
        voice = Voice(sink, SOURCE, session, clock, signer)
        cell, reader = await restore(name, log, verifier, snapshots)
        saving = Saving(snapshots, cell.head.round)
        while True:
            async for _ in catch_up(cell, reader, saving):
                pass
            for command in renter.step(cell, clock.now_ms()):
                await voice.say(command)
            await asyncio.sleep(every_s)
