"""The proof of a ledger by several processes: each decides a range of rounds again.

The ranges lie between the snapshots that were kept. None of these is trusted: a range that begins
with a snapshot is proven by one process, and that the rounds before it end in just these bytes is
proven by another, so that all hangs together from the ledger's first record on. What does not hold
is left to `replay.verify`, which names it.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from msgspec import Struct

from domain.cell import Cell
from domain.ledger import BrokenRecord, Head
from domain.snapshots import DamagedSnapshot
from streams.keys import KeyRing
from streams.reader import Readable
from streams.replay import Verdict, prove
from streams.snapshots import FileSnapshots


class Range(Struct):
    """Records that follow each other, and the state before them."""

    cell: str
    before: bytes
    """A snapshot; empty: there was no round before."""
    records: list[bytes]
    after: bytes | None = None
    """Hash of the snapshot of the state after them; None: the ledger ends here."""


async def verify_in_parallel(
    log: Readable,
    snapshots: FileSnapshots,
    verifier: KeyRing,
    cell_name: str,
    expected: Head | None,
    processes: int,
) -> AsyncIterator[Verdict | None]:
    """Yields a growing verdict after each proven range; None at the end if something is wrong.

    `expected` is a head that the ledger must hold.
    """
    verdict = Verdict(cell_name)
    seen = expected is None or expected.round == 0
    running: deque[asyncio.Future[tuple[Verdict, bool] | None]] = deque()
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        ranges = _ranges(log, snapshots, cell_name)
        more = True
        while more or running:
            while more and len(running) < 2 * processes:
                part = await anext(ranges, None)
                if part is None:
                    more = False
                    break
                ask = partial(prove_range, part, verifier.publics, expected)
                running.append(loop.run_in_executor(pool, ask))
            if running:
                done = await running.popleft()
                if done is None:
                    for waiting in running:
                        waiting.cancel()
                    yield None
                    return
                _add(verdict, done[0])
                seen = seen or done[1]
                yield verdict
    if not seen:
        yield None


def _add(verdict: Verdict, done: Verdict) -> None:
    verdict.head = done.head
    verdict.records += done.records
    verdict.facts += done.facts
    verdict.commands += done.commands
    verdict.strays += done.strays
    verdict.folded += done.folded


async def _ranges(log: Readable, snapshots: FileSnapshots, cell_name: str) -> AsyncIterator[Range]:
    cuts = {position: round for round, position in snapshots.kept()}
    part = Range(cell_name, b"", [])
    async for position, record in log.read(0):
        part.records.append(record)
        if position in cuts:
            found = snapshots.latest(cuts[position])
            if found is not None and found[1] == position:
                part.after = hashlib.sha256(found[2]).digest()
                yield part
                part = Range(cell_name, found[2], [])
    if part.records:
        yield part


def prove_range(
    part: Range, publics: tuple[bytes, ...], expected: Head | None
) -> tuple[Verdict, bool] | None:
    """In a process of its own: the range's verdict, or None if it does not hold.

    Beside it whether one of its records made the expected head.
    """
    try:
        cell = Cell.restore(part.before) if part.before else Cell(part.cell)
    except DamagedSnapshot:
        return None
    verdict = Verdict(part.cell, cell.head)
    verifier = KeyRing(publics)
    seen = False
    for record in part.records:
        verdict.records += 1
        try:
            prove(cell, record, verifier, verdict)
        except BrokenRecord:
            return None
        seen = seen or cell.head == expected
    if part.after is not None and hashlib.sha256(cell.snapshot()).digest() != part.after:
        return None
    return verdict, seen
