"""`python -m tests.faults.losses FOLDER`: a region, a process or a link is lost.

Run it in a network and a mount namespace of its own (`unshare -rnm`), as `tests.faults.partitions`.
Work keeps coming in all regions, in the first more than it can do. What went on and what stood
still is read from the ledgers afterwards, by the times in them. It prints that as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import count, permutations
from pathlib import Path
from typing import Any, Final, NamedTuple

from aquifer.clocks import SystemClock
from domain.facts import AttemptEnded, AttemptStarted
from domain.ledger import Round
from domain.pool_facts import HandoffReleased
from streams.topics import create_topics
from tests.faults.partitions import Network
from tests.faults.regional import Region
from tests.faults.regions_test import NAMES, verdict

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
    def __init__(self, folder: Path) -> None:
        self.network = Network(NAMES)
        hosts, within = self.network.hosts, self.network.within
        self.regions = {n: Region(folder / n, n, hosts[n], within(n)) for n in NAMES}
        self.clock = SystemClock()
        self.submitted = 0
        self.phases: list[Phase] = []

    async def run(self) -> dict[str, Any]:
        regions = list(self.regions.values())
        for region in regions:
            region.meet(regions)
            await create_topics(region.kafka.bootstrap, region.name)
            await region.send(region.first_commands(), self.clock.now_ms())
            region.start()
        loads = [asyncio.create_task(self._load(region)) for region in regions]
        try:
            await asyncio.sleep(2 * BETWEEN_S)
            for what, (lose, give_back) in self._losses().items():
                begin = self.clock.now_ms()
                await lose()
                await asyncio.sleep(LOST_S)
                self.phases.append(Phase(what, begin, self.clock.now_ms()))
                await give_back()
                await asyncio.sleep(BETWEEN_S)
                print(what, file=sys.stderr, flush=True)
            end_ms = self.clock.now_ms()
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
            async with asyncio.timeout(SETTLED_WITHIN_S):
                await self._settle()
        except TimeoutError:
            tails = "\n".join(region.tails() for region in regions)
            raise AssertionError(f"it did not settle; the logs end:\n{tails}") from None
        finally:
            await asyncio.gather(*(region.stop() for region in regions))
        ledgers = {name: await region.rounds() for name, region in self.regions.items()}
        found = verdict(list(ledgers.values()))
        return {
            "jobs": self.submitted,
            "outcomes": found.outcomes,
            "faults": found.faults,
            "hand_offs": found.hand_offs,
            "proven": [(await region.proof()).intact for region in regions],
            "lost_s": LOST_S,
            "losses": list(told(self.phases, ledgers, end_ms)),
        }

    async def _load(self, region: Region) -> None:
        """Jobs without end; while its Kafka is down, the producer of a job tries again."""
        for number in count():
            job = region.job(number, (2, 4, 8)[number % 3], 60 + number * 37 % 200)
            self.submitted += 1
            while True:
                with suppress(Exception):
                    async with asyncio.timeout(10):
                        await region.send([job], self.clock.now_ms())
                    break
                await asyncio.sleep(1)
            await asyncio.sleep(EVERY_S[region.name])

    async def _settle(self) -> None:
        while True:
            found = verdict([await region.rounds() for region in self.regions.values()])
            if sum(found.outcomes.values()) >= self.submitted and not found.in_flight:
                return
            await asyncio.sleep(2)

    def _losses(self) -> dict[str, tuple[Act, Act]]:
        """What is lost, and how; and how it is given back."""
        east = self.regions["east"]
        nothing = self._each(self.network.cut, [])
        made: dict[str, tuple[Act, Act]] = {"nothing": (nothing, nothing)}
        for role in ("worker", "relay", "agents"):
            made[f"east's {role}"] = east.roles[role].stop, self._starting(east, role)
        made["east's Kafka"] = self._kafka_down(east), self._kafka_up(east)
        made["all of east"] = self._down(east), self._up(east)
        made["all of west"] = self._down(self.regions["west"]), self._up(self.regions["west"])
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

    def _down(self, region: Region) -> Act:
        """kill -9 of all, at once."""

        async def act() -> None:
            region.kafka.kill()
            for role in region.roles.values():
                await role.kill()
                await role.stop()

        return act

    def _up(self, region: Region) -> Act:
        async def act() -> None:
            await asyncio.to_thread(region.kafka.start)
            for role in region.roles.values():
                role.start()

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


def main(folder: Path) -> None:
    trial = Trial(folder)
    try:
        for region in trial.regions.values():
            region.kafka.start()
        print(json.dumps(asyncio.run(trial.run())))
    finally:
        for region in trial.regions.values():
            region.kafka.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
