"""The proof of a ledger by several processes: each decides a range of rounds again.

One pass folds the facts from the start, which is cheaper than deciding, and hands each range with
the state before it to another process. So no stored snapshot is trusted: every state comes from the
facts before it, and each of these facts is decided again by someone. That a range ends where the
next one begins is checked by hash. What does not hold is left to `replay.verify`, which names it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from msgspec import Struct

from domain.cell import Cell
from domain.evolve import Divergence, evolve
from domain.ledger import BrokenRecord, Head, extends, read_unchecked
from streams.keys import KeyRing
from streams.reader import Readable
from streams.replay import Verdict, prove

RANGE_FACTS: Final = 20_000
"""Of a range, about; a range ends with a record."""


class Range(Struct):
    """Records that follow each other, and the state before them."""

    cell: str
    state: bytes
    """A snapshot; empty: there was no round before."""
    records: list[bytes]
    head: Head
    """After the last record, as the fold has it."""
    facts: int = 0


async def verify_in_parallel(
    log: Readable, verifier: KeyRing, cell_name: str, expected: Head | None, processes: int
) -> AsyncIterator[Verdict | None]:
    """Yields a growing verdict after each proven range; None at the end if something is wrong.

    `expected` is a head that the ledger must hold.
    """
    verdict = Verdict(cell_name)
    seen = expected is None or expected.round == 0
    running: deque[asyncio.Future[Verdict | None]] = deque()
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        ranges = _ranges(log, cell_name)
        more = True
        while more or running:
            while more and len(running) < 2 * processes:
                try:
                    part = await anext(ranges)
                except StopAsyncIteration:
                    more = False
                    break
                except (BrokenRecord, Divergence, AssertionError, KeyError):
                    yield None
                    return
                seen = seen or expected == part.head or _holds(part, expected)
                running.append(loop.run_in_executor(pool, prove_range, part, verifier.publics))
            if running:
                done = await running.popleft()
                if done is None:
                    for waiting in running:
                        waiting.cancel()
                    yield None
                    return
                _add(verdict, done)
                yield verdict
    if not seen:
        yield None


def _holds(part: Range, expected: Head | None) -> bool:
    """True iff a record of the range made this head. Its hash is checked where it is proven."""
    if expected is None:
        return True
    mark = f'"hash":"{expected.hash}"'.encode()
    return any(mark in record[-1000:] for record in part.records)


def _add(verdict: Verdict, done: Verdict) -> None:
    verdict.head = done.head
    verdict.records += done.records
    verdict.facts += done.facts
    verdict.commands += done.commands
    verdict.strays += done.strays
    verdict.folded += done.folded


async def _ranges(log: Readable, cell_name: str) -> AsyncIterator[Range]:
    """Raises BrokenRecord, Divergence, AssertionError, KeyError: the fold stops there."""
    cell = Cell(cell_name)
    part = Range(cell_name, b"", [], Head())
    async for _, record in log.read(0):
        round, head = read_unchecked(record)
        part.records.append(record)
        if extends(cell.head, round, cell_name):
            evolve(cell, round, head)
            part.facts += len(round.facts)
            part.head = head
        if part.facts >= RANGE_FACTS:
            yield part
            part = Range(cell_name, cell.snapshot(), [], cell.head)
    if part.records:
        yield part


def prove_range(part: Range, publics: tuple[bytes, ...]) -> Verdict | None:
    """In a process of its own: the range's verdict, or None if it does not hold."""
    cell = Cell.restore(part.state) if part.state else Cell(part.cell)
    verdict = Verdict(part.cell, cell.head)
    verifier = KeyRing(publics)
    for record in part.records:
        verdict.records += 1
        try:
            prove(cell, record, verifier, verdict)
        except BrokenRecord:
            return None
    return verdict if cell.head == part.head else None
