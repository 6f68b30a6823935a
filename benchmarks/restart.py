"""Time from the start of a decider to its first new decision, with and without a snapshot."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.decide import Bench
from domain.cell import Cell
from domain.ledger import ENGINE, Accepted, Header
from streams.decider import Decider
from streams.keys import FileSigner, KeyRing
from streams.reader import LedgerReader, catch_up
from streams.snapshots import FileSnapshots
from streams.sqlite import Database, SqliteLog

NODES = 1000
SHAPES = 400
ENDS = 400
"""Attempts that end, and jobs that arrive, in each round."""


class One:
    """An inbox with one command."""

    def __init__(self, command: Accepted) -> None:
        self.command = command

    async def take(self, after: object, limit: int, wait_ms: int) -> Sequence[Accepted]:
        return [self.command]


class Now:
    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms


class History:
    """A ledger in SQLite, and its latest snapshot."""

    def __init__(self, folder: Path) -> None:
        self.signer = FileSigner(folder / "cell.key")
        self.verifier = KeyRing([self.signer.public])
        self.database = Database(folder / "cell.db", synchronous="OFF", group=500)
        self.log = SqliteLog(self.database)
        self.snapshots = FileSnapshots(folder / "snapshots")
        self.bench = Bench(NODES, SHAPES, 1)
        self.bench.signer = self.signer
        self.facts = 0
        self.rounds = 0
        self.since = 0

    def write(self, facts: int, each: int) -> None:
        """Rounds until there are so many facts; a snapshot after each `each`."""
        bench = self.bench
        self._round(bench.first_commands())
        for first in range(0, NODES, 500):
            self._round([bench.node(n) for n in range(first, first + 500)])
        self._round([bench.submit() for _ in range(5000)])
        while self.facts < facts:
            self._round(bench.load(ENDS))
            if self.since >= each:
                self.since = 0
                self.database.commit()
                cell = bench.cell
                self.snapshots.save(cell.head.round, self.rounds - 1, cell.snapshot())
        self.database.commit()

    def _round(self, commands: list[Accepted]) -> None:
        bench = self.bench
        bench.now_ms += 100
        header = Header(bench.cell.head.round + 1, bench.now_ms, 100_000, ENGINE)
        round, record, head = bench.decided(header, commands)
        bench.cell.believe(head, round.inputs)
        bench.hear(round)
        self.log.write(record)
        self.rounds += 1
        self.facts += len(round.facts)
        self.since += len(round.facts)

    def decider(self, snapshots: FileSnapshots | None) -> Decider:
        bench = self.bench
        inbox, clock = One(bench.submit()), Now(bench.now_ms + 1000)
        name = bench.cell.name
        return Decider(
            name, self.log, inbox, self.signer, self.verifier, clock, snapshots=snapshots
        )


async def _start(history: History, snapshots: FileSnapshots | None) -> dict[str, Any]:
    cpu, wall = time.process_time(), time.perf_counter()
    decider = history.decider(snapshots)
    await decider.recover()
    recovered = time.perf_counter() - wall
    round = await decider.step()
    assert round is not None, "there was a command to decide"
    assert round.header.round > 1, "it goes on where the ledger ended"
    return {
        "first_decision_s": round_(time.perf_counter() - wall),
        "recovered_s": round_(recovered),
        "cpu_s": round_(time.process_time() - cpu),
    }


def round_(seconds: float) -> float:
    return round(seconds, 2)


async def _verified(history: History) -> bool:
    """True iff the snapshot is the state that the fold of all records before it gives."""
    found = history.snapshots.latest()
    assert found is not None, "the history has a snapshot"
    number, _, state = found
    cell = Cell(history.bench.cell.name)
    async for believed in catch_up(cell, LedgerReader(history.log, cell.name, history.verifier)):
        if believed.round.header.round == number:
            break
    return cell.digest() == Cell.restore(state).digest()


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks restart", description=__doc__)
    parser.add_argument("--facts", type=int, default=1_000_000)
    parser.add_argument("--snapshot-facts", type=int, default=100_000)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder))
        history.write(args.facts, args.snapshot_facts)
        result: dict[str, Any] = {
            "facts": history.facts,
            "rounds": history.rounds,
            "facts_after_snapshot": history.since,
            "with_snapshot": asyncio.run(_start(history, history.snapshots)),
            "without_snapshot": asyncio.run(_start(history, None)),
            "snapshot_equals_fold": asyncio.run(_verified(history)),
        }
        history.database.close()
    return result
