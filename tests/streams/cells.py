"""Builders for tests that run a real cell on the real embedded ports."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from domain.cell import Cell
from domain.commands import Command, RegisterNode, SetQuota, SubmitJob
from domain.facts import JobAdmitted
from domain.ledger import Head, Round
from domain.ports import Inbox, Log
from domain.specs import FabricPath, Flavour, Queue, Quota, ReplicaGroup
from streams.decider import Decider, Settings
from streams.envelope import structured
from streams.identity import Identity
from streams.keys import FileSigner, KeyRing
from streams.reader import LedgerReader
from streams.remembered import RememberedHead
from streams.rounds import Place
from streams.snapshots import FileSnapshots
from streams.sqlite import Database, SqliteCommandSink, SqliteDeadLetters, SqliteInbox, SqliteLog

START_MS = 1_735_689_600_000
NAME = "c1"


class ManualClock:
    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms


class Site:
    """One cell's state directory and file; `decider()` is a new process on them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.signer = FileSigner(path / "cell.pem")
        self.ring = KeyRing([self.signer.public])
        self.database = Database(path / "cell.sqlite", synchronous="OFF")
        self.log = SqliteLog(self.database)
        self.dead_letters = SqliteDeadLetters(self.database)
        self.sink = SqliteCommandSink(self.database)
        self.snapshots = FileSnapshots(path / "snapshots")
        self.remembered = RememberedHead(path / "head.json")
        self.told: list[Round] = []
        self.sent = 0

    def inbox(self) -> SqliteInbox:
        return SqliteInbox(self.database, Identity(), self.dead_letters, self.clock)

    def decider(
        self,
        *,
        log: Log | None = None,
        inbox: Inbox | None = None,
        remembered: bool = True,
        quarantined: Collection[Place] = (),
        told: Callable[[Round, Cell], None] | None = None,
        **settings: Any,
    ) -> Decider:
        async def tell(round: Round, cell: Cell) -> None:
            self.told.append(round)
            if told is not None:
                told(round, cell)

        return Decider(
            NAME,
            log or self.log,
            inbox or self.inbox(),
            self.signer,
            self.ring,
            self.clock,
            snapshots=self.snapshots,
            remembered=self.remembered if remembered else None,
            quarantined=quarantined,
            settings=Settings(**({"max_wait_ms": 0} | settings)),
            on_believed=tell,
        )

    async def send(
        self, *commands: Command, time_ms: int | None = None, source: str = "test"
    ) -> None:
        for command in commands:
            self.sent += 1
            time = self.clock.ms if time_ms is None else time_ms
            await self.sink.send(
                structured(command, source=source, id=str(self.sent), time_ms=time)
            )

    async def rounds(self) -> list[Round]:
        """The believed rounds in the log."""
        reader = LedgerReader(self.log, NAME, self.ring)
        return [b.round async for b in reader.read()]

    async def head(self) -> Head:
        reader = LedgerReader(self.log, NAME, self.ring)
        async for _ in reader.read():
            pass
        return reader.head


def world(nodes: int = 2, slots: int = 8, lease_s: int = 0) -> list[Command]:
    """One account with one queue, and nodes of one rack."""
    quota = Quota(accelerator="h100", nominal=nodes * slots)
    account = SetQuota(account="org", quotas=(quota,), queues=(Queue(queue="q"),))
    path = FabricPath(region="r", cluster="c", block="b", rack="k")
    return [
        account,
        *(
            RegisterNode(node=f"n{i}", accelerator="h100", slots=slots, path=path, lease_s=lease_s)
            for i in range(nodes)
        ),
    ]


def submit(job: str, slots: int = 1, **fields: Any) -> SubmitJob:
    return SubmitJob(
        job=job,
        queue="q",
        groups=(ReplicaGroup(slots=slots),),
        flavours=(Flavour(accelerator="h100"),),
        **fields,
    )


async def drain(decider: Decider) -> list[Round]:
    """Rounds until there is nothing to decide any more."""
    made = []
    while (round := await decider.step()) is not None:
        made.append(round)
    return made


async def started(site: Site, **options: Any) -> Decider:
    decider = site.decider(**options)
    await decider.recover()
    return decider


def admitted(rounds: list[Round]) -> list[str]:
    """Jobs in the order of their admission, each as often as it was admitted."""
    return [
        json.loads(bytes(r.commands[f.command].data))["job"]
        for r in rounds
        for f in r.facts
        if isinstance(f, JobAdmitted)
    ]


def no_gaps(rounds: list[Round]) -> None:
    assert [r.header.round for r in rounds] == list(range(1, len(rounds) + 1))
