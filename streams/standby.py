"""A decider on Kafka beside others of its cell: it follows the ledger until it is its turn."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, NoReturn

from aiokafka.errors import ProducerFenced

from streams.decider import Decider, OutcomeUnknown
from streams.election import Election
from streams.kafka import KafkaLog

warnings = logging.getLogger(__name__)

LOOK_S: Final = 0.2
"""How often one that follows reads on: so much is left to read at most when it takes over."""


async def stand_by(decider: Decider, log: KafkaLog, election: Election) -> NoReturn:
    """Raises what `Decider.step` raises. One that was shut out, as it slept or was slow to hear
    that it leads no more, follows again."""
    await decider.recover()
    while True:
        while not election.leads(decider.name):
            await decider.follow()
            await asyncio.sleep(LOOK_S)
        await log.take_over()
        await decider.take_over()
        try:
            while election.leads(decider.name):
                await decider.step()
        except OutcomeUnknown as unknown:
            if not isinstance(unknown.__cause__, ProducerFenced):
                raise
            warnings.warning("cell %s has another decider: ProducerFenced", decider.name)
            election.shut_out(decider.name)
            await decider.recover()
