"""One of three real regions is killed whole: its jobs that may fail over are done by the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from aquifer.clocks import SystemClock
from domain.commands import AdvertiseInventory
from domain.facts import AnyFact, AttemptStarted, JobFinished
from domain.ledger import Round
from domain.pool.guard_facts import GuardKept, JobAdopted, JobTaken, RegionFenced, RegionTrusted
from tests.faults.regional import RULES, Region, running
from tests.faults.regions_test import NAMES, settle, verdict

JOBS: Final = 16
LOST_S: Final = 40
"""More than the pause between two full inventories."""
WITHIN_S: Final = 300


def facts(rounds: list[Round], kind: type[AnyFact]) -> Iterator[tuple[int, Any]]:
    """With their times."""
    return ((r.header.now_ms, f) for r in rounds for f in r.facts if isinstance(f, kind))


async def until(regions: list[Region], true: Callable[[list[list[Round]]], bool]) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            if true([await region.rounds() for region in regions]):
                return
            await asyncio.sleep(1)


def _guarded(ledgers: list[list[Round]]) -> int:
    return sum(1 for rounds in ledgers for _ in facts(rounds, GuardKept))


def _all_that_came_back_is_done(ledgers: list[list[Round]]) -> bool:
    back = {f.job for rounds in ledgers for _, f in facts(rounds, JobAdopted)}
    done = {f.job for rounds in ledgers for _, f in facts(rounds, JobFinished)}
    return bool(back) and back <= done


def _east_is_trusted(ledgers: list[list[Round]]) -> bool:
    """Who held it for lost does so no more."""
    return not any(_last_word(rounds) == RegionFenced.__name__ for rounds in ledgers)


def _last_word(rounds: list[Round]) -> str:
    """What the region decided last about the east."""
    said = (f for r in rounds for f in r.facts if isinstance(f, RegionFenced | RegionTrusted))
    return next((type(f).__name__ for f in reversed(list(said)) if f.region == "east"), "")


async def lose_east(regions: list[Region], amount: int) -> dict[str, Any]:
    """The east falls, its jobs come back elsewhere, it rises. Raises AssertionError.

    Each job takes a node for 15 s; each fourth one waits for its region if that is lost.
    """
    clock, (east, *others) = SystemClock(), regions
    for region in regions:
        region.rules = RULES.model_copy(update={"lost_s": LOST_S})
    async with running(regions, clock):
        await until(others, lambda ledgers: all(ledgers))
        await asyncio.sleep(5)
        jobs = [east.job(n, 8, 450, failover=n % 4 > 0) for n in range(amount)]
        await east.send(list(jobs), clock.now_ms())
        await until([east], lambda ledgers: _guarded(ledgers) >= amount // 2)
        lost_ms = clock.now_ms()
        await east.fall()
        await until(others, _all_that_came_back_is_done)
        done_ms = clock.now_ms()
        await east.rise()
        await settle(regions, amount, WITHIN_S)
        await until(others, _east_is_trusted)
    ledgers = [await region.rounds() for region in regions]
    found = verdict(ledgers)
    assert not found.faults, found.faults
    assert found.outcomes == {"JobFinished": amount}
    for region in regions:
        proof = await region.proof()
        assert proof.intact, proof.broken
    return {**_times(ledgers[1:], lost_ms, done_ms), "told": len(list(facts(ledgers[0], JobTaken)))}


def _times(others: list[list[Round]], lost_ms: int, done_ms: int) -> dict[str, Any]:
    """Seconds from the loss."""
    back = {f.job for rounds in others for _, f in facts(rounds, JobAdopted)}
    fenced = [at for rounds in others for at, _ in facts(rounds, RegionFenced)]
    begun: dict[str, int] = {}
    for rounds in others:
        for at, f in facts(rounds, AttemptStarted):
            if f.job in back:
                begun.setdefault(f.job, at)
    starts = sorted(begun.values())
    heard_ms = min(_heard_ms(rounds) for rounds in others)
    return {
        "lost_s": LOST_S,
        "first_start_after_last_heard_s": round((starts[0] - heard_ms) / 1000, 1),
        "brought_back": len(back),
        "fenced_after_s": [round((at - lost_ms) / 1000, 1) for at in sorted(fenced)],
        "first_start_after_s": round((starts[0] - lost_ms) / 1000, 1),
        "last_start_after_s": round((starts[-1] - lost_ms) / 1000, 1),
        "all_done_after_s": round((done_ms - lost_ms) / 1000, 1),
    }


def _heard_ms(rounds: list[Round]) -> int:
    """When the region heard last of the east before it held it for lost."""
    heard_ms = 0
    for round in rounds:
        if any(isinstance(f, RegionFenced) for f in round.facts):
            break
        adverts = (c for c in round.commands if c.type == AdvertiseInventory.__name__)
        if any(msgspec.json.decode(bytes(c.data))["region"] == "east" for c in adverts):
            heard_ms = round.header.now_ms
    return heard_ms


def play(folder: Path, amount: int) -> dict[str, Any]:
    regions = [Region(folder / name, name) for name in NAMES]
    try:
        for region in regions:
            region.kafka.start()
        return asyncio.run(lose_east(regions, amount))
    finally:
        for region in regions:
            region.kafka.stop()


@pytest.mark.servers
@pytest.mark.slow
def test_jobs_of_a_killed_region_are_done_elsewhere_and_once(tmp_path: Path) -> None:
    found = play(tmp_path, JOBS)
    assert found["brought_back"] > 0
    assert found["first_start_after_last_heard_s"] >= LOST_S, "nobody was held for lost too early"
