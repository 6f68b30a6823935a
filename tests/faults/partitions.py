"""`python -m tests.faults.partitions FOLDER`: three regions with networks of their own, cut apart.

Run it in a network and a mount namespace of its own (`unshare -rnm`). Each region is in a network
namespace with its Kafka and all its processes; a bridge joins them. Any two are cut, both ways and
one way; links lose and delay; and in every region the decider is killed at each step of a hand-off.
It prints what it found as JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, Final

from aiokafka.errors import KafkaError

from aquifer.clocks import SystemClock
from aquifer.trust import verifier_of
from domain.facts import AttemptStarted
from streams.kafka import KafkaLog
from streams.reader import LedgerReader
from streams.topics import create_topics
from tests.faults.regional import Region
from tests.faults.regions_test import JOBS, NAMES, settle, submit, verdict

CUT_S: Final = 8
OVER_S: Final = 110
"""All troubles together."""
LOSS_S: Final = 30
SETTLED_WITHIN_S: Final = 300
STEPS: Final = (
    "HandoffOffered",
    "HandoffPrepared",
    "HandoffReleased",
    "HandoffAccepted",
    "HandoffCompleted",
    "HandoffConfirmed",
)
NOBODY: Final = "02:00:00:00:00:99"
SLOW: Final = "tbf rate 96kbit burst 3kb latency 400ms"
"""What does not fit waits for up to 0.4 s, and what waits longer is lost."""


def _run(words: str) -> None:
    subprocess.run(words.split(), check=True)


class Network:
    """A bridge, and behind it a network namespace for each region."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.hosts = {name: f"10.77.0.{11 + n}" for n, name in enumerate(names)}
        for words in (
            "mount -t tmpfs none /run",
            "mkdir /run/netns",
            "ip link set lo up",
            "ip link add br0 type bridge",
            "ip addr add 10.77.0.1/24 dev br0",
            "ip link set br0 up",
        ):
            _run(words)
        for name, host in self.hosts.items():
            _run(f"ip netns add {name}")
            _run(f"ip link add v-{name} type veth peer name eth0 netns {name}")
            _run(f"ip link set v-{name} master br0 up")
            self._in(name, f"ip addr add {host}/24 dev eth0")
            self._in(name, "ip link set eth0 up")
            self._in(name, "ip link set lo up")

    def within(self, name: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{name}"]

    def _in(self, name: str, words: str) -> None:
        _run(" ".join((*self.within(name), words)))

    def cut(self, source: str, target: str) -> None:
        """What one says to the other goes to nobody; nothing is answered, nothing refused."""
        host = self.hosts[target]
        self._in(source, f"ip neigh replace {host} lladdr {NOBODY} dev eth0 nud permanent")

    def join(self, source: str, target: str) -> None:
        self._in(source, f"ip neigh del {self.hosts[target]} dev eth0")

    def slow(self, name: str) -> None:
        self._in(name, f"tc qdisc add dev eth0 root {SLOW}")

    def fast(self, name: str) -> None:
        self._in(name, "tc qdisc del dev eth0 root")


class Trial:
    def __init__(self, folder: Path) -> None:
        self.network = Network(NAMES)
        hosts, within = self.network.hosts, self.network.within
        self.regions = {n: Region(folder / n, n, hosts[n], within(n)) for n in NAMES}
        self.killed: dict[str, list[str]] = {name: [] for name in NAMES}
        """By region: the steps at which its decider was killed."""
        self.phases: list[dict[str, Any]] = []

    async def run(self) -> dict[str, Any]:
        regions, clock = list(self.regions.values()), SystemClock()
        for region in regions:
            region.meet(regions)
            await create_topics(region.kafka.bootstrap, region.name)
            await region.send(region.first_commands(), clock.now_ms())
            region.start()
        killers = [asyncio.create_task(self._kill_at_steps(region)) for region in regions]
        try:
            await asyncio.gather(self._troubles(), *(submit(r, clock, OVER_S) for r in regions))
            async with asyncio.timeout(SETTLED_WITHIN_S):
                await settle(regions)
        except TimeoutError:
            tails = "\n".join(region.tails() for region in regions)
            raise AssertionError(f"it did not settle; the logs end:\n{tails}") from None
        finally:
            for killer in killers:
                killer.cancel()
            await asyncio.gather(*killers, return_exceptions=True)
            await asyncio.gather(*(region.stop() for region in regions))
        found = verdict([await region.rounds() for region in regions])
        return {
            "jobs": sum(JOBS.values()),
            "outcomes": found.outcomes,
            "faults": found.faults,
            "hand_offs": found.hand_offs,
            "proven": [(await region.proof()).intact for region in regions],
            "killed_at": self.killed,
            "phases": self.phases,
        }

    async def _troubles(self) -> None:
        for a, b in combinations(NAMES, 2):
            await self._phase(f"{a} x {b}", [(a, b), (b, a)])
        for a, b in permutations(NAMES, 2):
            await self._phase(f"{a} > {b}", [(a, b)])
        begin = await self._started()
        for name in NAMES:
            self.network.slow(name)
        await asyncio.sleep(LOSS_S)
        for name in NAMES:
            self.network.fast(name)
        await self._tell("loss and delay", begin)

    async def _phase(self, what: str, ways: list[tuple[str, str]]) -> None:
        begin = await self._started()
        for way in ways:
            self.network.cut(*way)
        await asyncio.sleep(CUT_S)
        for way in ways:
            self.network.join(*way)
        await self._tell(what, begin)

    async def _started(self) -> dict[str, tuple[int, int]]:
        """By region: attempts started, and rounds."""
        found = {}
        for name, region in self.regions.items():
            rounds = await region.rounds()
            facts = (f for r in rounds for f in r.facts)
            found[name] = (sum(isinstance(f, AttemptStarted) for f in facts), len(rounds))
        return found

    async def _tell(self, what: str, begin: dict[str, tuple[int, int]]) -> None:
        end = await self._started()
        gained = {
            n: [after - before for after, before in zip(end[n], begin[n], strict=True)]
            for n in NAMES
        }
        told = {"what": what, "started": {n: g[0] for n, g in gained.items()}}
        self.phases.append(told | {"rounds": {n: g[1] for n, g in gained.items()}})
        print(json.dumps(self.phases[-1]), file=sys.stderr, flush=True)

    async def _kill_at_steps(self, region: Region) -> None:
        """Follow the region's ledger; at the first fact of each step its decider is killed."""
        killed, head = self.killed[region.name], None
        ring = verifier_of(region.settings, region.folder)
        while True:
            try:
                async with KafkaLog(region.kafka.bootstrap, region.name) as log:
                    reader = LedgerReader(log, region.name, ring, *(head or ()))
                    async for believed in reader.follow():
                        head = (believed.head, believed.position)
                        for fact in believed.round.facts:
                            step = type(fact).__name__
                            if step in STEPS and step not in killed:
                                killed.append(step)
                                await region.roles["worker"].kill()
            except KafkaError:
                await asyncio.sleep(1)


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
