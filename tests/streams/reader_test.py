"""Reading a ledger: what is believed, from where, and for how long."""

from __future__ import annotations

import asyncio
from pathlib import Path

from msgspec.structs import replace

from domain.cell import Cell
from domain.ledger import Head, Header, seal
from streams import rounds
from streams.keys import FileSigner
from streams.reader import LedgerReader, catch_up, restore
from tests.streams.cells import NAME, START_MS, Site, drain, submit, world


async def _some_rounds(site: Site, amount: int) -> Cell:
    decider = site.decider()
    await decider.recover()
    await site.send(*world())
    for _ in range(amount):
        await site.send(submit(f"j{site.sent}"))
        await drain(decider)
    return decider.cell


def test_only_what_extends_the_chain_is_believed(site: Site, tmp_path: Path) -> None:
    async def go() -> None:
        cell = await _some_rounds(site, 3)
        records = [record async for _, record in site.log.read(0)]
        first = records[0]
        header = Header(4, START_MS, 1, 1)
        thief = FileSigner(tmp_path / "thief.pem")
        made = rounds.propose(Cell.restore(cell.snapshot()), header, [], site.signer)
        forged = seal(made.round, thief)[0]
        fork = seal(replace(made.round, prev="00" * 32), site.signer)[0]
        other = Cell("other")
        foreign = rounds.propose(other, Header(1, START_MS, 1, 1), [], site.signer).record
        for record in (b"", first, forged, foreign, fork, made.record, made.record):
            await site.log.append(record)
        reader = LedgerReader(site.log, NAME, site.ring)
        found = [b.position async for b in reader.read()]
        assert found == [0, 1, 2, 8]
        assert reader.passed_over == 6
        assert (reader.head.round, reader.head_position, reader.position) == (4, 8, 10)

    asyncio.run(go())


def test_a_reader_follows_what_comes(site: Site) -> None:
    async def go() -> None:
        seen: list[int] = []
        done = asyncio.Event()

        async def follow() -> None:
            async for believed in LedgerReader(site.log, NAME, site.ring).follow(0.001):
                seen.append(believed.head.round)
                if len(seen) == 5:
                    done.set()

        follower = asyncio.create_task(follow())
        await _some_rounds(site, 5)
        await asyncio.wait_for(done.wait(), 30)
        follower.cancel()
        assert seen == [1, 2, 3, 4, 5]

    asyncio.run(go())


def test_restored_from_a_snapshot_the_fold_goes_on(site: Site) -> None:
    async def go() -> None:
        early = await _some_rounds(site, 3)
        site.snapshots.save(3, 2, early.snapshot())
        cell = await _some_rounds(site, 3)
        restored, reader = await restore(NAME, site.log, site.ring, site.snapshots)
        assert (restored.head.round, reader.position) == (3, 3)
        assert [b.head.round async for b in catch_up(restored, reader)] == [4, 5, 6]
        assert restored.digest() == cell.digest()
        assert restored.inputs == cell.inputs

    asyncio.run(go())


def test_a_snapshot_of_another_ledger_does_not_count(site: Site) -> None:
    async def go() -> None:
        cell = await _some_rounds(site, 2)
        lie = Cell.restore(cell.snapshot())
        lie.believe(Head(2, "00" * 32), {})
        site.snapshots.save(2, 1, lie.snapshot())
        other = Cell("other")
        _, head = seal(
            rounds.propose(other, Header(1, 0, 1, 1), [], site.signer).round, site.signer
        )
        other.believe(head, {})
        site.snapshots.save(3, 1, other.snapshot())
        restored, reader = await restore(NAME, site.log, site.ring, site.snapshots)
        assert restored.head == Head()
        assert reader.position == 0

    asyncio.run(go())
