"""kill -9 of each role, of Kafka and of Cassandra while 5,000 submissions come in, some twice.

Every command has exactly one outcome, the chain has no gap and re-decides to the same bytes, each
start of an attempt was told to the agents, and the tables are those of a fresh projection.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest
from aiokafka.errors import KafkaError

from domain.facts import JobAdmitted
from domain.ledger import Round
from domain.ports import Message
from infra.cassandra import LocalCassandra
from infra.kafka import LocalKafka
from streams.envelope import structured
from streams.kafka import KafkaCommandSink
from streams.keys import KeyRing
from streams.topics import create_topics
from tests.faults.checks import Place
from tests.faults.supervised import Supervised
from tests.system.command_file import capacity, submission

COMMANDS = 5000
AT_ONCE = 20
PER_S = 250
"""Slow enough that the faults meet work in progress."""
SETTLED_WITHIN_S = 300
CELL = "faults"


def _messages() -> list[Message]:
    """Each command once to three times, the copies near each other or far apart."""
    random = Random(5)
    commands = [*capacity(), *(submission(random, n) for n in range(COMMANDS))]
    now_ms = time.time_ns() // 1_000_000
    places: list[tuple[float, Message]] = []
    for number, command in enumerate(commands):
        source = f"urn:{number % 8}" if number >= len(capacity()) else "urn:set-up"
        message = structured(command, source=source, id=f"id-{number}", time_ms=now_ms)
        places.append((number, message))
        if source != "urn:set-up":
            for _ in range(random.choice((0, 0, 1, 2))):
                places.append((number + random.choice((0.5, 300, 2500)), message))
    return [message for _, message in sorted(places, key=lambda p: p[0])]


class Site:
    """Servers and roles, and what is done to them."""

    def __init__(self, folder: Path) -> None:
        self.kafka = LocalKafka(folder / "kafka")
        self.cassandra = LocalCassandra(folder / "cassandra")
        self.state = folder / "state"
        environment = {
            "AQUIFER_CELL": CELL,
            "AQUIFER_STATE_DIR": str(self.state),
            "AQUIFER_KAFKA": self.kafka.bootstrap,
            "AQUIFER_CASSANDRA": f"127.0.0.1:{self.cassandra.port}",
            "AQUIFER_KEYSPACE": CELL,
        }
        self.roles = {
            name: Supervised(
                ["worker", *(part for role in roles for part in ("--role", role))],
                environment,
                folder / f"{name}.log",
            )
            for name, roles in {
                "worker": ("intake", "decider"),
                "projector": ("projector",),
                "dispatch": ("dispatch",),
            }.items()
        }

    async def send(self, messages: list[Message]) -> None:
        """At a steady rate; what Kafka does not acknowledge is sent again."""
        sent = 0
        begin = time.monotonic()
        while sent < len(messages):
            try:
                async with KafkaCommandSink(self.kafka.bootstrap, CELL) as sink:
                    while sent < len(messages):
                        some = messages[sent : sent + AT_ONCE]
                        await asyncio.gather(*(sink.send(message) for message in some))
                        sent += len(some)
                        await asyncio.sleep(begin + sent / PER_S - time.monotonic())
            except KafkaError:
                await asyncio.sleep(0.5)

    async def restart(self, server: LocalKafka | LocalCassandra) -> None:
        server.kill()
        await asyncio.sleep(1)
        await asyncio.to_thread(server.start)

    async def faults(self, over_s: float) -> None:
        """One after the other, spread over the time in which commands come in."""
        worker, projector = self.roles["worker"], self.roles["projector"]
        acts: list[Callable[[], Awaitable[None]]] = [
            projector.kill,
            lambda: self.restart(self.cassandra),
            self.roles["dispatch"].kill,
            worker.kill,
            lambda: self.restart(self.kafka),
            projector.kill,
            worker.kill,
        ]
        begin = time.monotonic()
        for number, act in enumerate(acts, 1):
            await asyncio.sleep(begin + over_s * number / (len(acts) + 1) - time.monotonic())
            await act()

    def place(self) -> Place:
        ring = KeyRing.load(self.state / "keys.json")
        return Place(self.kafka.bootstrap, CELL, ring, self.cassandra)


async def _decided(site: Site, amount: int) -> list[Round]:
    """Wait until so many commands have been decided; the rounds, of which none is made any more."""
    known = 0
    while known < amount:
        await asyncio.sleep(1)
        rounds = await site.place().rounds()
        known = len({(c.source, c.id) for r in rounds for c in r.commands})
    await site.roles["worker"].stop()
    return await site.place().rounds()


def _check_outcomes(rounds: list[Round], messages: list[Message]) -> None:
    assert [r.header.round for r in rounds] == list(range(1, len(rounds) + 1))
    outcomes: Counter[tuple[str, str]] = Counter()
    for round in rounds:
        admitted = {f.command for f in round.facts if isinstance(f, JobAdmitted)}
        refused = {refusal.command for refusal in round.refusals}
        repeated = set(round.duplicates)
        for index, command in enumerate(round.commands):
            if index not in repeated:
                outcomes[command.source, command.id] += 1
            if command.type == "SubmitJob":
                told = (index in admitted) + (index in refused) + (index in repeated)
                assert told == 1, f"{command.id} has {told} outcomes in round {round.header.round}"
    assert len(outcomes) == COMMANDS + len(capacity())
    assert set(outcomes.values()) == {1}
    taken = sum(len(r.commands) for r in rounds)
    assert taken >= len(messages), "every copy was taken in"


async def _settle(site: Site) -> list[Round]:
    try:
        async with asyncio.timeout(SETTLED_WITHIN_S):
            rounds = await _decided(site, COMMANDS + len(capacity()))
            await site.place().projected(len(rounds))
            await site.place().told(rounds)
            return rounds
    except TimeoutError:
        tails = "\n".join(f"{name}: {role.tail()}" for name, role in site.roles.items())
        raise AssertionError(f"it did not settle; the logs end:\n{tails}") from None


@pytest.mark.servers
@pytest.mark.slow
def test_kill_everything_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    site = Site(tmp_path_factory.mktemp("faults"))
    messages = _messages()

    async def go() -> None:
        await create_topics(site.kafka.bootstrap, CELL)
        for role in site.roles.values():
            role.start()
        try:
            await asyncio.gather(site.send(messages), site.faults(len(messages) / PER_S))
            rounds = await _settle(site)
        finally:
            await asyncio.gather(*(role.stop() for role in site.roles.values()))
        assert site.roles["worker"].starts >= 3
        assert site.roles["projector"].starts >= 4, "twice killed, and stopped without Cassandra"
        _check_outcomes(rounds, messages)
        await site.place().check_ledger()
        rows, divergent = await site.place().compare_tables()
        assert rows > COMMANDS
        assert divergent == []

    with site.kafka, site.cassandra:
        asyncio.run(go())
