"""The single writer: one outcome for each command, whatever happens to it and its log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from domain.cell import Cell
from domain.ledger import Round
from domain.ports import Log
from streams.decider import OutcomeUnknown
from streams.remembered import LogTooShort
from tests.streams.cells import NAME, Site, admitted, drain, no_gaps, started, submit, world


class FaultyLog:
    """A real log whose next append does something first, and may lose its answer."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.before: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.lands = True
        self.answers = True

    async def append(self, record: bytes) -> int:
        before, self.before = self.before, None
        if before is not None:
            await before()
        if not self.lands:
            self.lands = True
            raise TimeoutError("the log did not answer")
        position = await self.log.append(record)
        if not self.answers:
            self.answers = True
            raise TimeoutError("the log did not answer")
        return position

    def read(self, position: int) -> AsyncIterator[tuple[int, bytes]]:
        return self.log.read(position)

    async def end(self) -> int:
        return await self.log.end()


def test_commands_become_rounds_and_are_told_after_belief(site: Site) -> None:
    async def go() -> None:
        seen = []

        def told(round: Round, cell: Cell) -> None:
            remembered = site.remembered.read()
            assert remembered == cell.head
            seen.append((round.header.round, cell.head.round))

        decider = await started(site, told=told)
        await site.send(*world())
        made = await drain(decider)
        await site.send(submit("j1"), submit("j2"))
        made += await drain(decider)
        assert made == await site.rounds() == site.told
        assert seen == [(1, 1), (2, 2)]
        assert admitted(made) == ["j1", "j2"]
        assert decider.cell.head == await site.head()
        assert await decider.step() is None, "an idle cell makes no rounds"

    asyncio.run(go())


def test_nothing_is_decided_before_recovery(site: Site) -> None:
    with pytest.raises(RuntimeError, match="recovered first"):
        asyncio.run(site.decider().step())


@pytest.mark.parametrize("snapshot_facts", [1, 3, 10_000])
def test_a_restart_gives_the_same_cell(site: Site, snapshot_facts: int) -> None:
    async def go() -> None:
        await site.send(*world())
        digests = []
        for number in range(5):
            decider = await started(site, snapshot_facts=snapshot_facts)
            digests.append(decider.cell.digest())
            await site.send(submit(f"j{number}"), submit(f"k{number}"))
            await drain(decider)
            assert (await started(site)).cell.digest() == decider.cell.digest()
        assert len(set(digests)) == 5
        assert bool(site.snapshots.latest()) == (snapshot_facts < 100)
        assert len(admitted(await site.rounds())) == 10
        no_gaps(await site.rounds())

    asyncio.run(go())


def _damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    match how:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "empty":
            path.write_bytes(b"")
        case "flipped":
            path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
        case "renamed":
            path.rename(path.with_name("000000000009-000000000000.snapshot"))


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "renamed"])
@pytest.mark.parametrize("amount", [1, 3])
def test_damaged_snapshots_are_passed_over(site: Site, how: str, amount: int) -> None:
    async def go() -> None:
        decider = await started(site, snapshot_facts=1)
        await site.send(*world())
        for number in range(4):
            await site.send(submit(f"j{number}"))
            await drain(decider)
        kept = sorted((site.path / "snapshots").iterdir())
        assert len(kept) == 3
        for path in kept[-amount:]:
            _damage(path, how)
        assert (await started(site)).cell.digest() == decider.cell.digest()

    asyncio.run(go())


@pytest.mark.parametrize("lands", [True, False])
def test_an_append_without_an_answer(site: Site, lands: bool) -> None:
    async def go() -> None:
        log = FaultyLog(site.log)
        decider = await started(site, log=log)
        await site.send(*world(), submit("j1"))
        log.lands, log.answers = lands, False
        with pytest.raises(OutcomeUnknown):
            await decider.step()
        assert site.told == []
        with pytest.raises(RuntimeError):
            await decider.step()
        log.answers = True
        cell = await decider.recover()
        assert cell.head.round == (1 if lands else 0)
        assert site.remembered.read() == (cell.head if lands else None)
        await site.send(submit("j2"))
        await drain(decider)
        assert admitted(await site.rounds()) == ["j1", "j2"]
        no_gaps(await site.rounds())

    asyncio.run(go())


def test_the_record_of_another_writer_that_was_faster_is_the_believed_one(site: Site) -> None:
    async def go() -> None:
        log = FaultyLog(site.log)
        slow = await started(site, log=log)
        fast = await started(site)
        await site.send(*world(), submit("j1"))

        async def overtake() -> None:
            await site.send(submit("j2"))
            await drain(fast)

        log.before = overtake
        assert await slow.step() is None
        assert slow.rebuilds == 1
        assert slow.cell.digest() == fast.cell.digest()
        assert len(site.told) == 1, "the loser told nobody"
        await site.send(submit("j3"))
        assert await slow.step() is not None
        assert await site.log.end() == 3
        assert admitted(await site.rounds()) == ["j1", "j2", "j3"]
        no_gaps(await site.rounds())

    asyncio.run(go())


def test_two_writers_taking_turns(site: Site) -> None:
    async def go() -> None:
        writers = [await started(site), await started(site)]
        await site.send(*world())
        for number in range(30):
            await site.send(submit(f"j{number}"))
            for writer in writers if number % 3 else reversed(writers):
                await writer.step()
        for writer in writers:
            await drain(writer)
        found = await site.rounds()
        no_gaps(found)
        assert admitted(found) == [f"j{n}" for n in range(30)]
        assert writers[0].rebuilds > 0
        assert writers[1].rebuilds > 0
        assert await site.log.end() > len(found)

    asyncio.run(go())


def test_strangers_in_the_log_are_passed_over(site: Site) -> None:
    async def go() -> None:
        log = FaultyLog(site.log)
        decider = await started(site, log=log)
        await site.send(*world())

        async def junk() -> None:
            await site.log.append(b"\xff junk")
            async for _, record in site.log.read(0):
                await site.log.append(record)
                break

        for number in range(3):
            log.before = junk
            await site.send(submit(f"j{number}"))
            assert await decider.step() is not None
        assert decider.rebuilds == 0
        assert (await started(site)).cell.digest() == decider.cell.digest()
        no_gaps(await site.rounds())

    asyncio.run(go())


def test_a_log_shorter_than_memory_is_refused(site: Site) -> None:
    async def go() -> None:
        decider = await started(site)
        for number in range(3):
            await site.send(submit(f"j{number}"))
            await drain(decider)
        site.database.write("DELETE FROM ledger WHERE position > ?", [(2,)])
        with pytest.raises(LogTooShort, match=r"round 3 .*ends at round 2"):
            await started(site)
        # Someone goes on from the shorter log: a fork.
        other = await started(site, remembered=False)
        await site.send(submit("other"), submit("one more"[:3]))
        await drain(other)
        assert other.cell.head.round == 3
        with pytest.raises(LogTooShort, match="another record"):
            await started(site)

    asyncio.run(go())


def test_a_fork_behind_a_snapshot_is_refused(site: Site) -> None:
    async def go() -> None:
        decider = await started(site, snapshot_facts=1)
        await site.send(*world())
        await drain(decider)
        await site.send(submit("j"))
        await drain(decider)
        assert site.snapshots.latest() is not None
        site.database.write("DELETE FROM ledger WHERE position > ?", [(0,)])
        with pytest.raises(LogTooShort, match="ends at round 0"):
            await started(site)

    asyncio.run(go())


def test_run_recovers_and_ends_when_stopped(site: Site) -> None:
    async def go() -> None:
        await site.send(*world(), submit("j"))
        decider = site.decider(max_wait_ms=5, told=lambda *_: decider.stop())
        await asyncio.wait_for(decider.run(), 30)
        assert admitted(site.told) == ["j"]
        assert decider.name == NAME

    asyncio.run(go())
