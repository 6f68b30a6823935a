"""The single writer: one outcome for each command, whatever happens to it and its log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import domain.decide
from domain.cell import Cell
from domain.commands import CordonNode, Runtime
from domain.facts import AttemptStarted, JobAdmitted, NodeLost
from domain.ledger import Accepted, Header, Round, canonical
from domain.ports import Inbox, Log
from streams import quarantine
from streams.decider import Decider, OutcomeUnknown
from streams.remembered import LogTooShort
from streams.rounds import Poisoned
from tests.streams.cells import NAME, START_MS, Site, drain, submit, world


@pytest.fixture
def site(tmp_path: Path) -> Any:
    site = Site(tmp_path)
    yield site
    site.database.close()


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


# --- poison ---


def _trip_over(monkeypatch: pytest.MonkeyPatch, node: str) -> None:
    """A fault planted in the domain: cordoning this node trips an assertion half way."""

    def decide(cell: Cell, header: Header, accepted: list[Accepted]) -> Round:
        quarantined = set(header.quarantined)
        names = [bytes(c.data) for c in accepted if (c.partition, c.offset) not in quarantined]
        made = domain.decide.decide(cell, header, accepted)
        assert not any(node.encode() in name for name in names), "an invariant broke"
        return made

    monkeypatch.setattr("streams.rounds.decide", decide)


def test_poison_stops_the_cell_and_names_the_command(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        decider = await started(site)
        await site.send(*world())
        await drain(decider)
        _trip_over(monkeypatch, "poison")
        await site.send(*[submit(f"j{n}") for n in range(5)], CordonNode(node="poison"))
        await site.send(*[submit(f"k{n}") for n in range(5)])
        for _ in range(2):
            with pytest.raises(Poisoned, match="an invariant broke") as caught:
                await decider.step()
            assert caught.value.places == [(0, 8)]
            assert caught.value.round == 2
            assert await site.log.end() == 1, "nothing was written"
            await decider.recover()

        quarantine.add(site.path / "quarantine.json", (0, 8))
        taken_out = quarantine.load(site.path / "quarantine.json")
        decider = await started(site, quarantined=taken_out)
        made = await drain(decider)
        assert [(r.code, r.command) for m in made for r in m.refusals] == [("quarantined", 5)]
        assert [m.header.quarantined for m in made] == [[(0, 8)]]
        assert len(admitted(made)) == 10

    asyncio.run(go())


def test_poison_without_a_command(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        decider = await started(site)
        await site.send(submit("j"))

        def decide(*_: object) -> Round:
            raise KeyError("always")

        monkeypatch.setattr("streams.rounds.decide", decide)
        with pytest.raises(Poisoned, match=r"KeyError.*: none") as caught:
            await decider.step()
        assert caught.value.places == []

    asyncio.run(go())


# --- bounds and time ---


def test_rounds_are_cut_by_count_and_by_bytes(site: Site) -> None:
    async def go() -> None:
        await site.send(*[submit(f"j{n}") for n in range(10)])
        made = await drain(await started(site, max_commands=4))
        assert [len(r.commands) for r in made] == [4, 4, 2]
        await site.send(*[submit(f"k{n}", labels={"l": "x" * 250}) for n in range(4)])
        made = await drain(await started(site, max_bytes=1400))
        assert [len(r.commands) for r in made] == [2, 2]
        await site.send(submit("long", labels={"l": "x" * 250}))
        made = await drain(await started(site, max_bytes=1))
        assert [len(r.commands) for r in made] == [1], "one command always fits"

    asyncio.run(go())


def test_a_record_that_is_too_large_is_decided_in_smaller_rounds(site: Site) -> None:
    async def go() -> None:
        decider = await started(site, max_record=6000)
        await site.send(*world(4), *[submit(f"j{n}") for n in range(30)])
        while len(admitted(await site.rounds())) < 30:
            await decider.step()
        await drain(decider)
        found = await site.rounds()
        no_gaps(found)
        assert decider.rebuilds > 0
        assert all(len(canonical(r)) < 6000 for r in found)
        assert admitted(found) == [f"j{n}" for n in range(30)]
        assert sum(isinstance(f, AttemptStarted) for r in found for f in r.facts) == 30

    asyncio.run(go())


def test_work_that_is_left_over_is_done_in_the_next_rounds(site: Site) -> None:
    async def go() -> None:
        decider = await started(site, work=3)
        await site.send(*world(4), *[submit(f"j{n}") for n in range(10)])
        made = await drain(decider)
        starts = [sum(isinstance(f, AttemptStarted) for f in r.facts) for r in made]
        assert starts == [3, 3, 3, 1]

    asyncio.run(go())


def test_what_is_due_is_decided_without_a_command(site: Site) -> None:
    async def go() -> None:
        decider = await started(site)
        await site.send(*world(nodes=1, lease_s=10))
        await drain(decider)
        site.clock.ms += 9_999
        assert await drain(decider) == []
        site.clock.ms += 2
        (made,) = await drain(decider)
        assert [type(f) for f in made.facts] == [NodeLost]
        assert made.header.now_ms == START_MS + 10_001

    asyncio.run(go())


def test_time_never_goes_back(site: Site) -> None:
    async def go() -> None:
        decider = await started(site)
        for step_ms in (0, -3_600_000, 3_600_000):
            site.clock.ms += step_ms
            await site.send(submit(f"j{site.sent}"))
            await drain(decider)
        times = [r.header.now_ms for r in await site.rounds()]
        assert times == [START_MS] * 3

    asyncio.run(go())


class SlowInbox:
    """A real inbox that hands out a few commands at a time."""

    def __init__(self, inbox: Inbox, few: int) -> None:
        self.inbox = inbox
        self.few = few

    async def take(self, after: Mapping[str, int], limit: int, wait_ms: int) -> Sequence[Accepted]:
        return await self.inbox.take(after, min(self.few, limit), wait_ms)


@pytest.mark.parametrize("limit", [1000, 3])
@pytest.mark.parametrize("work", [1000, 2])
def test_commands_replayed_by_their_time_give_the_same_records(
    site: Site, limit: int, work: int
) -> None:
    async def replay(few: int) -> list[bytes]:
        site.told.clear()
        site.database.write("DELETE FROM ledger", [()])
        site.clock.ms += 12_345
        decider = await started(
            site,
            inbox=SlowInbox(site.inbox(), few),
            remembered=False,
            by_command_time=True,
            max_commands=limit,
            work=work,
        )
        await drain(decider)
        assert sum(len(r.commands) for r in site.told) == site.sent
        times = [r.header.now_ms - START_MS for r in site.told]
        assert times == sorted(times)
        assert len(set(times)) == 4
        if limit == work:
            assert times == [0, 1, 1000, 5000]
        return [r async for _, r in site.log.read(0)]

    async def go() -> None:
        await site.send(*world(), time_ms=START_MS)
        for time_ms in (1, 1000, 1000, 900, 5000):
            jobs = [submit(f"j{site.sent}-{i}") for i in "abcd"]
            await site.send(*jobs, time_ms=START_MS + time_ms)
        await site.send(CordonNode(node="n0"), submit("last"), time_ms=START_MS + 5000)
        assert await replay(1) == await replay(1000) == await replay(5)

    asyncio.run(go())


def test_run_recovers_and_ends_when_stopped(site: Site) -> None:
    async def go() -> None:
        await site.send(*world(), submit("j"))
        decider = site.decider(max_wait_ms=5, told=lambda *_: decider.stop())
        await asyncio.wait_for(decider.run(), 30)
        assert admitted(site.told) == ["j"]
        assert decider.name == NAME

    asyncio.run(go())


def test_a_cluster_that_falls_silent_is_lost_in_bounded_rounds(site: Site) -> None:
    async def go() -> None:
        decider = await started(site, work=10)
        await site.send(*world(nodes=40, lease_s=10))
        await site.send(*[submit(f"j{n}", 4, runtime=Runtime(max_s=5)) for n in range(80)])
        await drain(decider)
        assert sum(1 for job in decider.cell.jobs.values() if job.run) == 80
        site.clock.ms += 5_000  # all overrun at once
        stopped = await drain(decider)
        assert [len(r.facts) for r in stopped] == [10] * 8
        decider = await started(site, work=10)
        site.clock.ms += 5_001
        lost = await drain(decider)
        nodes = [f.node for r in lost for f in r.facts if isinstance(f, NodeLost)]
        assert sorted(nodes) == sorted(decider.cell.nodes)
        assert max(len(r.facts) for r in lost) < 40
        assert len(lost) >= 10
        assert (await started(site)).cell.digest() == decider.cell.digest()

    asyncio.run(go())
