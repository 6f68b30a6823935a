"""Rounds: poison is named, bounds hold, and what is due is decided in its time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping, Sequence

import pytest

import domain.decide
from domain.cell import Cell
from domain.commands import CordonNode, ReportNode
from domain.facts import AttemptStarted, NodeLost
from domain.jobs import Job
from domain.ledger import Accepted, Header, Round, canonical
from domain.ports import Inbox
from domain.preemption.eviction import Candidates, Eligible
from domain.preemption.victims import Victims
from domain.runs import Run
from domain.shapes import Shape
from domain.specs import Runtime
from domain.turn import Turn
from streams import quarantine, rounds
from streams.rounds import Poisoned
from tests.domain.given import Given, node
from tests.golden.script import Hour
from tests.streams.cells import START_MS, Site, admitted, drain, no_gaps, started, submit, world

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


def test_poison_of_a_round_that_another_writer_has_made_meanwhile(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        slow, fast = await started(site), await started(site, max_commands=3)
        await site.send(*world(), CordonNode(node="poison"))
        await fast.step()
        _trip_over(monkeypatch, "poison")
        assert await slow.step() is None, "its state is an old one: it decides anew"
        assert slow.cell.head == fast.cell.head
        with pytest.raises(Poisoned) as caught:
            await slow.step()
        assert caught.value.places == [(0, 3)]

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


def test_what_stays_due_though_nothing_can_be_done_makes_one_round(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        decider = await started(site)
        monkeypatch.setattr("streams.decider.next_due_ms", lambda _: START_MS - 1)
        assert [r.facts for r in await drain(decider)] == [[]]
        monkeypatch.setattr("streams.decider.next_due_ms", lambda _: START_MS)
        assert [r.facts for r in await drain(decider)] == [[]]

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


def test_what_is_due_next_is_not_missed_after_a_moment_at_which_nothing_happened(
    site: Site,
) -> None:
    async def go() -> None:
        decider = await started(site)
        await site.send(*world(nodes=1, lease_s=10))
        await drain(decider)
        site.clock.ms += 5_000
        await site.send(ReportNode(node="n0"))
        await drain(decider)
        site.clock.ms += 5_000
        (made,) = await drain(decider)
        assert made.facts == [], "the lease was renewed"
        site.clock.ms += 5_001
        (made,) = await drain(decider)
        assert [type(f) for f in made.facts] == [NodeLost]

    asyncio.run(go())


def test_what_rounds_made_is_swept_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by measuring: the collector looked at 200,000 new objects at once, every 60 rounds."""
    swept: list[int] = []
    monkeypatch.setattr(gc, "collect", swept.append)
    monkeypatch.setattr(rounds, "SWEEP_AFTER", 3)
    given, sweep = Given(), rounds.Sweep()
    for made in range(1, 8):
        sweep.after(given.round(node(f"n{made}")))  # a command and a fact
        assert swept == [1] * (made // 2)


def test_what_ends_with_a_job_or_a_round_is_free_at_once() -> None:
    """Found by measuring: cycles of 3,400 objects a round cost a tenth of its time."""
    hour = Hour()
    gc.collect()
    gc.disable()
    try:
        hour.run()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kept = {type(found) for found in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not kept & {Job, Run, Shape, Turn, Victims, Candidates, Eligible}
