"""What must hold after the faults, whatever they were: of the ledger, the tables and the agents."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from domain.facts import AttemptStarted, JobAdmitted
from domain.ledger import Round
from infra.cassandra import LocalCassandra
from projections.cassandra_store import CassandraStore
from projections.projector import Projector
from streams.dispatch import Start
from streams.kafka import KafkaLog
from streams.kafka_dispatch import instructions_from
from streams.keys import KeyRing
from streams.reader import LedgerReader
from streams.replay import verify
from tests.faults.tables import all_rows


def answered_otherwise(rounds: Sequence[Round]) -> list[str]:
    """Commands that were not answered once each time that they came in."""
    found = []
    for round in rounds:
        admitted = {f.command for f in round.facts if isinstance(f, JobAdmitted)}
        refused = {refusal.command for refusal in round.refusals}
        repeated = set(round.duplicates)
        for n, command in enumerate(round.commands):
            answers = (n in admitted) + (n in refused) + (n in repeated)
            if command.type == "SubmitJob" and answers != 1:
                where = f"{command.id} in round {round.header.round}"
                found.append(f"wrong: {where} has {answers} answers")
    return found


@dataclass
class Place:
    """Where a cell's ledger and its read model are; the keyspace has the cell's name."""

    bootstrap: str
    cell: str
    ring: KeyRing
    cassandra: LocalCassandra

    async def store(self, keyspace: str) -> CassandraStore:
        port = self.cassandra.port
        return await CassandraStore.connect(self.cassandra.contact_points, port, keyspace)

    async def rounds(self) -> list[Round]:
        """The believed ones."""
        async with KafkaLog(self.bootstrap, self.cell) as log:
            return [b.round async for b in LedgerReader(log, self.cell, self.ring).read()]

    async def projected(self, rounds: int) -> None:
        """Wait until the read model is so far."""
        store = await self.store(self.cell)
        while (await store.applied(self.cell)).round < rounds:  # noqa: ASYNC110  in another process
            await asyncio.sleep(0.5)
        await store.close()

    async def check_ledger(self) -> None:
        async with KafkaLog(self.bootstrap, self.cell) as log:
            async for verdict in verify(log, self.ring, cell_name=self.cell):
                proven = verdict
        assert proven.intact, proven.broken

    async def told(self, rounds: Sequence[Round]) -> None:
        """Wait until every start that the rounds decided was told; no other one was."""
        decided = {
            (f.job, f.attempt) for r in rounds for f in r.facts if isinstance(f, AttemptStarted)
        }
        assert decided
        told: set[tuple[str, int]] = set()
        async for _, instruction in instructions_from(self.bootstrap, self.cell, 0):
            if isinstance(instruction, Start):
                told.add((instruction.job, instruction.attempt))
            if decided <= told:
                break
        assert told == decided

    async def compare_tables(self) -> tuple[int, list[str]]:
        """The tables that lived through the faults, with those of a projection that met none.

        Returns how many rows they have, and which of them are not the same.
        """
        lived, fresh = await self.store(self.cell), await self.store(f"{self.cell}_fresh")
        projector = Projector(self.cell, fresh, self.ring)
        async with KafkaLog(self.bootstrap, self.cell) as log:
            async for position, record in log.read(await projector.position()):
                await projector.on_record(position, record, more=True)
        await projector.write()
        assert await lived.applied(self.cell) == await fresh.applied(self.cell)
        contact = (self.cassandra.contact_points, self.cassandra.port)
        mine, theirs = all_rows(*contact, self.cell), all_rows(*contact, f"{self.cell}_fresh")
        await lived.close()
        await fresh.close()
        divergent = [
            f"{table} {key}"
            for table in mine
            for key in sorted(mine[table].keys() | theirs[table].keys())
            if mine[table].get(key) != theirs[table].get(key)
        ]
        return sum(map(len, mine.values())), divergent
