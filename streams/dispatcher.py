"""The dispatch role: follows the ledger and tells node agents what the believed rounds say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from domain.evolve import evolve
from domain.ledger import Verifier
from domain.ports import Snapshots
from domain.snapshots import Saving
from streams.dispatch import Instruction, instructions, outstanding
from streams.reader import Readable, catch_up, restore


class Followed(Readable, Protocol):
    """A ledger that can be waited for (`streams.kafka.KafkaLog`)."""

    def follow(self, position: int) -> AsyncIterator[tuple[int, bytes]]: ...


class Told(Protocol):
    """Where instructions go (`streams.kafka_dispatch.KafkaDispatch`)."""

    async def send(self, round: int, instructions: Sequence[Instruction]) -> None: ...

    async def last_round(self) -> int | None: ...


async def dispatch(
    name: str, log: Followed, told: Told, snapshots: Snapshots, verifier: Verifier
) -> None:
    """Runs until it is cancelled. Instructions of the last round told are told again.

    If what was told is older than `told` keeps, agents hear once more all that stands.
    """
    last = await told.last_round()
    not_after = None if last is None else max(0, last - 1)
    cell, reader = await restore(name, log, verifier, snapshots, not_after)
    saving = Saving(snapshots, cell.head.round)
    if last is None:
        async for _ in catch_up(cell, reader, saving):
            pass
        last = cell.head.round
        await told.send(last, outstanding(cell))
    async for position, record in log.follow(reader.position):
        believed = reader.judge(position, record)
        if believed is None:
            continue
        evolve(cell, believed.round, believed.head)
        number = believed.round.header.round
        new = instructions(cell, believed.round) if number >= last else ()
        if new:
            await told.send(number, new)
        saving.went_on(cell, len(believed.round.facts), position)
