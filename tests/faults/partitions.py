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
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, Final

from aiokafka.errors import KafkaError

from aquifer.clocks import SystemClock
from aquifer.trust import verifier_of
from domain.facts import AttemptStarted
from streams.ending import end
from streams.kafka import KafkaLog
from streams.reader import LedgerReader
from tests.faults.regional import Region, running
from tests.faults.regions_test import JOBS, NAMES, settle, submit_all, verdict

CUT_S: Final = 8
"""At least; a phase goes on until each region has decided in it."""
ALIVE_WITHIN_S: Final = 90
"""Its decider may just have been killed and start anew."""
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


class Apart:
    """Regions with networks of their own."""

    def __init__(self, folder: Path) -> None:
        self.network = Network(NAMES)
        hosts, within = self.network.hosts, self.network.within
        self.regions = {n: Region(folder / n, n, hosts[n], within(n)) for n in NAMES}

    async def report(self, jobs: int) -> dict[str, Any]:
        """What their ledgers say in the end."""
        regions = self.regions.values()
        found = verdict([await region.rounds() for region in regions])
        return {
            "jobs": jobs,
            "outcomes": found.outcomes,
            "faults": found.faults,
            "hand_offs": found.hand_offs,
            "proven": [(await region.proof()).intact for region in regions],
        }


def play(trial: Callable[[Apart], Coroutine[Any, Any, dict[str, Any]]]) -> None:
    """Print what the trial finds, as JSON; the folder is the program's argument."""
    apart = Apart(Path(sys.argv[1]))
    try:
        for region in apart.regions.values():
            region.kafka.start()
        print(json.dumps(asyncio.run(trial(apart))))
    finally:
        for region in apart.regions.values():
            region.kafka.stop()


class Trial:
    def __init__(self, apart: Apart) -> None:
        self.apart, self.network, self.regions = apart, apart.network, apart.regions
        self.killed: dict[str, list[str]] = {name: [] for name in NAMES}
        """By region: the steps at which its decider was killed."""
        self.phases: list[dict[str, Any]] = []

    async def run(self) -> dict[str, Any]:
        regions, clock, jobs = list(self.regions.values()), SystemClock(), sum(JOBS.values())
        async with running(regions, clock):
            killers = [asyncio.create_task(self._kill_at_steps(region)) for region in regions]
            try:
                submits = (submit_all(r, clock, OVER_S) for r in regions)
                await asyncio.gather(self._troubles(), *submits)
                await settle(regions, jobs, SETTLED_WITHIN_S)
            finally:
                await end(killers)
        return {
            **await self.apart.report(jobs),
            "killed_at": self.killed,
            "phases": self.phases,
        }

    async def _troubles(self) -> None:
        for a, b in combinations(NAMES, 2):
            await self._phase(f"{a} x {b}", CUT_S, self._cut((a, b), (b, a)))
        for a, b in permutations(NAMES, 2):
            await self._phase(f"{a} > {b}", CUT_S, self._cut((a, b)))
        await self._phase("loss and delay", LOSS_S, self._slow())

    @contextmanager
    def _cut(self, *ways: tuple[str, str]) -> Iterator[None]:
        for way in ways:
            self.network.cut(*way)
        yield
        for way in ways:
            self.network.join(*way)

    @contextmanager
    def _slow(self) -> Iterator[None]:
        for name in NAMES:
            self.network.slow(name)
        yield
        for name in NAMES:
            self.network.fast(name)

    async def _phase(self, what: str, for_s: int, trouble: AbstractContextManager[None]) -> None:
        """It lasts at least so long, and until each region has decided in it."""
        begin = await self._counted()
        with trouble:
            await asyncio.sleep(for_s)
            async with asyncio.timeout(ALIVE_WITHIN_S):
                while True:
                    now = await self._counted()
                    rounds = {name: now[name][1] - begin[name][1] for name in NAMES}
                    if all(rounds.values()):
                        break
                    await asyncio.sleep(1)
        started = {name: now[name][0] - begin[name][0] for name in NAMES}
        self.phases.append({"what": what, "started": started, "rounds": rounds})
        print(json.dumps(self.phases[-1]), file=sys.stderr, flush=True)

    async def _counted(self) -> dict[str, tuple[int, int]]:
        """By region: attempts started, and rounds."""
        found = {}
        for name, region in self.regions.items():
            rounds = await region.rounds()
            facts = (f for r in rounds for f in r.facts)
            found[name] = (sum(isinstance(f, AttemptStarted) for f in facts), len(rounds))
        return found

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


if __name__ == "__main__":
    play(lambda apart: Trial(apart).run())
