"""A decider on Kafka beside others of its cell: it follows the ledger until it is its turn."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn

from streams.decider import Decider
from streams.election import Election
from streams.kafka import KafkaLog

LOOK_S: Final = 0.2
"""How often one that follows reads on: so much is left to read at most when it takes over."""


async def stand_by(decider: Decider, log: KafkaLog, election: Election) -> NoReturn:
    """Raises what `Decider.step` raises, also when another one has taken over meanwhile: a write
    that Kafka refuses is an unknown outcome like any other."""
    await decider.recover()
    while True:
        while not election.leads(decider.name):
            await decider.follow()
            await asyncio.sleep(LOOK_S)
        await log.take_over()
        await decider.take_over()
        while election.leads(decider.name):
            await decider.step()
