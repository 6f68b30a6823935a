"""The embedded profile: one cell in one process, with SQLite behind every port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aquifer.folder import Folder
from aquifer.settings import Settings
from aquifer.trust import identity_of, signer_of, verifier_of
from domain.cell import Cell
from domain.commands import Command
from domain.ledger import Round
from domain.ports import Clock
from streams import quarantine
from streams.decider import Decider
from streams.dispatch import Instruction, instructions, outstanding
from streams.envelope import structured
from streams.fleet import Fleet, live
from streams.remembered import RememberedHead
from streams.snapshots import FileSnapshots
from streams.sqlite import Database, SqliteCommandSink, SqliteDeadLetters, SqliteInbox, SqliteLog

FLEET: Final = "fleet"
"""Source of what the fleet reports."""


class Embedded:
    """The ports of one cell on its folder's files. Made in the event loop that uses it."""

    def __init__(self, settings: Settings, folder: Folder, clock: Clock) -> None:
        self.name = settings.cell
        self.folder = folder
        self.clock = clock
        self.database = Database(folder.ledger)
        self.log = SqliteLog(self.database)
        self.sink = SqliteCommandSink(self.database)
        self.dead_letters = SqliteDeadLetters(self.database)
        identity = identity_of(settings)
        self._signs = identity.signed
        self.inbox = SqliteInbox(self.database, identity, self.dead_letters, clock)
        self.snapshots = FileSnapshots(folder.snapshots)
        self.signer = signer_of(settings, folder)
        self.verifier = verifier_of(settings, folder)
        self.told: asyncio.Queue[Sequence[Instruction]] = asyncio.Queue()

    def decider(self) -> Decider:
        """The cell's decider, of whose rounds the fleet hears once they are believed."""

        async def believed(round: Round, cell: Cell) -> None:
            told = instructions(cell, round)
            if told:
                self.told.put_nowait(told)

        async def recovered(cell: Cell) -> None:
            self.told.put_nowait(outstanding(cell))

        return Decider(
            self.name,
            self.log,
            self.inbox,
            self.signer,
            self.verifier,
            self.clock,
            snapshots=self.snapshots,
            remembered=RememberedHead(self.folder.head),
            quarantined=quarantine.load(self.folder.quarantine),
            on_believed=believed,
            on_recovered=recovered,
        )

    async def send(self, command: Command, source: str, id_: str) -> None:
        """Where commands are signed, what the cell's own process says is signed with its key."""
        now_ms = self.clock.now_ms()
        key, sign = (self.signer.key_id, self.signer.sign) if self._signs else (None, None)
        message = structured(command, source=source, id=id_, time_ms=now_ms, key_id=key, sign=sign)
        await self.sink.send(message)

    async def run_fleet(self, fleet: Fleet, session: str) -> None:
        """The agents, until cancelled; `session` makes the ids of their reports new."""
        number = 0

        async def send(command: Command) -> None:
            nonlocal number
            number += 1
            await self.send(command, FLEET, f"{session}-{number}")

        await live(fleet, self.told, send, self.clock)


@asynccontextmanager
async def opened(settings: Settings, folder: Folder, clock: Clock) -> AsyncIterator[Embedded]:
    ports = Embedded(settings, folder, clock)
    try:
        yield ports
    finally:
        ports.database.close()
