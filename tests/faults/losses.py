"""`python -m tests.faults.losses FOLDER`: a region, a process or a link is lost.

Run it in a network and a mount namespace of its own (`unshare -rnm`), as `tests.faults.partitions`.
Work keeps coming in all regions, in the first more than it can do. What went on and what stood
still is read from the ledgers afterwards, by the times in them. It prints that as JSON.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from itertools import count, permutations
from typing import Any, Final, NamedTuple

from aquifer.clocks import SystemClock
from domain.facts import AttemptEnded, AttemptStarted
from domain.ledger import Round
from domain.pool.facts import HandoffReleased
from streams.ending import end
from tests.faults.partitions import Apart, play
from tests.faults.regional import Region, running
from tests.faults.regions_test import NAMES, settle, submit

LOST_S: Final = 15
BETWEEN_S: Final = 25
"""Before the first loss, and after each: all goes on, and what was left lying is done."""
SETTLED_WITHIN_S: Final = 200
EVERY_S: Final = {"east": 0.8, "north": 4.0, "west": 4.0}
"""So often a job is submitted; a region can do one in 1.7 s."""

Act = Callable[[], Awaitable[None]]


class Phase(NamedTuple):
    what: str
    from_ms: int
    to_ms: int


class Trial:
    def __init__(self, apart: Apart) -> None:
        self.apart, self.network, self.regions = apart, apart.network, apart.regions
        self.clock = SystemClock()
        self.submitted = 0
        self.over = False
        self.phases: list[Phase] = []

    async def run(self) -> dict[str, Any]:
        regions = list(self.regions.values())
        async with running(regions, self.clock):
            loads = [asyncio.create_task(self._load(region)) for region in regions]
            try:
                await self._lose_all()
                end_ms, self.over = self.clock.now_ms(), True
                await asyncio.gather(*loads)
            finally:
                await end(loads)
            await settle(regions, self.submitted, SETTLED_WITHIN_S)
        ledgers = {name: await region.rounds() for name, region in self.regions.items()}
        return {
            **await self.apart.report(self.submitted),
            "lost_s": LOST_S,
            "losses": list(told(self.phases, ledgers, end_ms)),
        }

    async def _lose_all(self) -> None:
        """One thing after the other."""
        await asyncio.sleep(2 * BETWEEN_S)
        for what, (lose, give_back) in self._losses().items():
            begin_ms = self.clock.now_ms()
            await lose()
            await asyncio.sleep(LOST_S)
            self.phases.append(Phase(what, begin_ms, self.clock.now_ms()))
            await give_back()
            await asyncio.sleep(BETWEEN_S)
            print(what, file=sys.stderr, flush=True)

    async def _load(self, region: Region) -> None:
        """Jobs until all is over."""
        for number in count():
            if self.over:
                return
            await submit(region, self.clock, number)
            self.submitted += 1
            await asyncio.sleep(EVERY_S[region.name])

    def _losses(self) -> dict[str, tuple[Act, Act]]:
        """What is lost, and how; and how it is given back."""
        east = self.regions["east"]
        nothing = self._each(self.network.cut, [])
        made: dict[str, tuple[Act, Act]] = {"nothing": (nothing, nothing)}
        for role in ("worker", "relay", "agents"):
            made[f"east's {role}"] = east.roles[role].stop, self._starting(east, role)
        made["east's Kafka"] = self._kafka_down(east), self._kafka_up(east)
        made["all of east"] = east.fall, east.rise
        made["all of west"] = self.regions["west"].fall, self.regions["west"].rise
        for name, ways in {
            "link east - west": [("east", "west"), ("west", "east")],
            "link east > west": [("east", "west")],
            "both links of east": [way for way in permutations(NAMES, 2) if "east" in way],
        }.items():
            made[name] = self._each(self.network.cut, ways), self._each(self.network.join, ways)
        return made

    def _starting(self, region: Region, role: str) -> Act:
        async def act() -> None:
            region.roles[role].start()

        return act

    def _kafka_down(self, region: Region) -> Act:
        async def act() -> None:
            region.kafka.kill()

        return act

    def _kafka_up(self, region: Region) -> Act:
        async def act() -> None:
            await asyncio.to_thread(region.kafka.start)

        return act

    def _each(self, change: Callable[[str, str], None], ways: list[tuple[str, str]]) -> Act:
        async def act() -> None:
            for way in ways:
                change(*way)

        return act


def told(
    phases: list[Phase], ledgers: dict[str, list[Round]], end_ms: int
) -> Iterator[dict[str, Any]]:
    """By loss: rounds, starts, ends and hand-offs of each region while it lasted, and seconds
    from its end to each region's next start and next hand-off; None if there was none."""
    for n, phase in enumerate(phases):
        until_ms = phases[n + 1].from_ms if n + 1 < len(phases) else end_ms
        row: dict[str, Any] = {"what": phase.what, "regions": {}}
        for name, rounds in ledgers.items():
            during = [r for r in rounds if phase.from_ms <= r.header.now_ms < phase.to_ms]
            after = [r for r in rounds if phase.to_ms <= r.header.now_ms < until_ms]
            row["regions"][name] = {
                "rounds": len(during),
                "started": _amount(during, AttemptStarted),
                "ended": _amount(during, AttemptEnded),
                "moved_away": _amount(during, HandoffReleased),
                "next_start_s": _next_s(after, AttemptStarted, phase.to_ms),
                "next_moved_away_s": _next_s(after, HandoffReleased, phase.to_ms),
            }
        yield row


def _amount(rounds: list[Round], kind: type[object]) -> int:
    return sum(isinstance(fact, kind) for r in rounds for fact in r.facts)


def _next_s(rounds: list[Round], kind: type[object], from_ms: int) -> float | None:
    found = (r.header.now_ms for r in rounds if _amount([r], kind))
    first = next(found, None)
    return None if first is None else round((first - from_ms) / 1000, 1)


if __name__ == "__main__":
    play(lambda apart: Trial(apart).run())
