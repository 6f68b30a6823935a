"""Three regions, each with a Kafka of its own: killed, cut off, and no job lost or run by two."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from aquifer.clocks import SystemClock
from domain.facts import AttemptStarted
from domain.ledger import Round
from streams.ownership import Ownership, Verdict
from tests.faults.regional import Region, running

NAMES = ("east", "north", "west")
JOBS = {"east": 60, "north": 8, "west": 8}
OVER_S = 45
SETTLED_WITHIN_S = 300


def verdict(ledgers: list[list[Round]]) -> Verdict:
    pool = Ownership()
    for rounds in ledgers:
        pool.ledger().read(rounds)
    return pool.verdict()


async def submit(region: Region, clock: SystemClock, number: int) -> None:
    """A job of the region, tried again while its Kafka is down."""
    job = region.job(number, (2, 4, 8)[number % 3], 60 + number * 37 % 200)
    while True:
        try:
            async with asyncio.timeout(20):
                await region.send([job], clock.now_ms())
            return
        except Exception:  # its Kafka is down: the producer of a job tries again
            await asyncio.sleep(1)


async def submit_all(region: Region, clock: SystemClock, over_s: int = OVER_S) -> None:
    """The region's jobs, spread over the time of the faults."""
    for number in range(JOBS[region.name]):
        await asyncio.sleep(over_s / JOBS[region.name])
        await submit(region, clock, number)


async def started(region: Region) -> int:
    rounds = await region.rounds()
    return sum(isinstance(f, AttemptStarted) for r in rounds for f in r.facts)


async def faults(east: Region, north: Region, west: Region) -> None:
    """One after the other; while a Kafka is down, the other regions start jobs."""
    await asyncio.sleep(10)
    await east.roles["relay"].kill()
    await asyncio.sleep(3)
    await north.roles["worker"].kill()
    await asyncio.sleep(3)
    await east.roles["worker"].kill()
    await west.roles["relay"].pause()
    await asyncio.sleep(10)
    before = await started(east), await started(west)
    north.kafka.kill()
    await asyncio.sleep(15)
    after = await started(east), await started(west)
    assert after[0] > before[0], "the region with the most work goes on"
    await asyncio.to_thread(north.kafka.start)
    await west.roles["relay"].resume()
    await west.roles["worker"].kill()
    await asyncio.sleep(3)
    east.kafka.kill()
    await asyncio.sleep(5)
    await asyncio.to_thread(east.kafka.start)


async def settle(regions: Sequence[Region], jobs: int, within_s: int) -> None:
    """Until every job has its outcome. While they grow, the ledgers are of different moments.

    Raises TimeoutError.
    """
    async with asyncio.timeout(within_s):
        while True:
            found = verdict([await region.rounds() for region in regions])
            if sum(found.outcomes.values()) >= jobs and not found.in_flight:
                return
            await asyncio.sleep(2)


@pytest.mark.servers
@pytest.mark.slow
def test_regions_with_their_own_kafka_lose_nothing_and_run_nothing_twice(tmp_path: Path) -> None:
    regions = [Region(tmp_path / name, name) for name in NAMES]
    clock = SystemClock()

    async def go() -> None:
        async with running(regions, clock):
            await asyncio.gather(faults(*regions), *(submit_all(r, clock) for r in regions))
            await settle(regions, sum(JOBS.values()), SETTLED_WITHIN_S)
        found = verdict([await region.rounds() for region in regions])
        assert not found.faults, found.faults
        assert found.outcomes == {"JobFinished": sum(JOBS.values())}
        assert found.hand_offs > 0
        for region in regions:
            proof = await region.proof()
            assert proof.intact, proof.broken
        assert all(r.roles["worker"].starts >= 2 for r in regions)

    try:
        for region in regions:
            region.kafka.start()
        asyncio.run(go())
    finally:
        for region in regions:
            region.kafka.stop()
