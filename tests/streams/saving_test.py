"""Roles that follow a ledger save where they are: a restart folds a bounded part of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from domain.snapshots import Saving
from streams.dispatch import Instruction
from streams.dispatcher import dispatch
from streams.reader import LedgerReader, catch_up, restore
from streams.snapshots import FileSnapshots
from tests.streams.cells import NAME, Site, drain, started, submit, world

AFTER = 20
JOBS = 100


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr("domain.snapshots.SAVED_AFTER", AFTER)
    site = Site(tmp_path)

    async def decide() -> None:
        decider = await started(site, snapshot_facts=1_000_000)
        await site.send(*world(16))
        for n in range(JOBS):
            await site.send(submit(f"j{n}"))
            await drain(decider)

    asyncio.run(decide())
    return site


class Followed:
    """The site's ledger, and what was read of it."""

    def __init__(self, site: Site) -> None:
        self._log = site.log
        self.read_from: list[int] = []

    async def read(self, position: int) -> AsyncIterator[tuple[int, bytes]]:
        async for found in self._log.read(position):
            yield found

    async def follow(self, position: int) -> AsyncIterator[tuple[int, bytes]]:
        self.read_from.append(position)
        async for found in self._log.read(position):
            yield found
        await asyncio.Event().wait()


class Told:
    """The instructions so far, by round."""

    def __init__(self) -> None:
        self.rounds: list[int] = []

    async def send(self, round: int, instructions: Sequence[Instruction]) -> None:
        self.rounds.append(round)

    async def last_round(self) -> int | None:
        return self.rounds[-1] if self.rounds else None


def _dispatched(site: Site, told: Told, snapshots: FileSnapshots) -> Followed:
    """The role, killed once it has read everything."""
    log = Followed(site)

    async def go() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await dispatch(NAME, log, told, snapshots, site.ring)

    asyncio.run(go())
    return log


def test_dispatch_that_has_a_folder_of_its_own_starts_near_the_end(
    site: Site, tmp_path: Path
) -> None:
    own, told = FileSnapshots(tmp_path / "own"), Told()
    told.rounds.append(1)  # it is not new: it follows
    assert _dispatched(site, told, own).read_from == [0]
    assert own.newest() > 0
    last = told.rounds[-1]
    (again,) = _dispatched(site, told, own).read_from
    rounds = asyncio.run(site.rounds())
    behind = [r for r in rounds if again < r.header.round <= last]
    assert sum(len(r.facts) for r in behind) <= 2 * AFTER


def test_those_that_share_a_folder_save_once_among_them(site: Site, tmp_path: Path) -> None:
    shared = FileSnapshots(tmp_path / "shared")

    async def go() -> list[int]:
        """Two that go on in turn, a round at a time; how many facts lie between snapshots."""
        followers = [await restore(NAME, site.log, site.ring, None) for _ in range(2)]
        savings = [Saving(shared, 0) for _ in followers]
        steps = [
            catch_up(cell, reader, saving)
            for (cell, reader), saving in zip(followers, savings, strict=True)
        ]
        between: list[int] = []
        facts = saved = 0
        while True:
            found = [await anext(step, None) for step in steps]
            if found[0] is None:
                return between
            facts += len(found[0].round.facts)
            if shared.newest() != saved:
                saved = shared.newest()
                between.append(facts)
                facts = 0

    between = asyncio.run(go())
    assert len(between) > 3
    assert AFTER <= min(between) <= max(between) <= JOBS, "after so many facts, or live jobs"


def test_what_was_saved_is_the_state_there(site: Site, tmp_path: Path) -> None:
    saved = FileSnapshots(tmp_path / "saved")

    async def go() -> None:
        cell, reader = await restore(NAME, site.log, site.ring, None)
        async for _ in catch_up(cell, reader, Saving(saved, 0)):
            pass
        for round, position in saved.kept():
            there, after = await restore(NAME, site.log, site.ring, saved, round)
            assert (there.head.round, after.position) == (round, position + 1)
            fresh = LedgerReader(site.log, NAME, site.ring, there.head, position)
            async for _ in catch_up(there, fresh):
                pass
            assert there.snapshot() == cell.snapshot()

    asyncio.run(go())
