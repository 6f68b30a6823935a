"""Policies on real Kafka: a change under load counts from one round on, in every reader; a bad
canary is rolled back by its gate, and no person is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from domain.cell import Cell
from domain.commands import Command, SetPolicy, SetQuota, SubmitJob
from domain.evolve import evolve
from domain.facts import AttemptStarted, JobAdmitted
from domain.ledger import Round, unseal
from domain.policies.commands import ActivatePolicy, StartCanary
from domain.policies.documents import Gate
from domain.policies.facts import PolicyActivated, PolicyCanaryStarted, PolicyRolledBack
from domain.policies.rows import drawn
from domain.specs import PolicyParameters, Queue, Quota, Tier
from infra.kafka import LocalKafka
from streams import replay
from streams.agent import Work
from streams.envelope import structured
from streams.faust_app import Worker, run_worker
from streams.fleet import Fleet
from streams.identity import Identity
from streams.kafka import KafkaCommandSink, KafkaLog
from streams.kafka_fleet import run_fleet
from streams.keys import FileSigner, KeyRing
from streams.reader import LedgerReader
from streams.snapshots import FileSnapshots
from streams.topics import create_topics
from tests.domain.given import job, node
from tests.domain.policy_given import draft, rule
from tests.streams.cells import START_MS
from tests.system.profiles import running

pytestmark = pytest.mark.servers

WITHIN_S: float = 300
FASTER: float = 60
"""A minute of the cell is a second here."""
QUEUES = ("p", "q")


class FastClock:
    def __init__(self) -> None:
        self._begin = time.monotonic()

    def now_ms(self) -> int:
        return START_MS + int((time.monotonic() - self._begin) * 1000 * FASTER)


class Folding:
    """A reader that folds each record as it comes, and notes which version counts after it.

    `evolve` compares the digest of each state with the one that the record names.
    """

    def __init__(self, name: str) -> None:
        self.cell = Cell(name)
        self.rounds: list[Round] = []
        self.active: dict[int, int] = {}

    async def position(self) -> int:
        return 0

    async def on_record(self, position: int, record: bytes, more: bool = False) -> None:
        round, head = unseal(record, None)
        evolve(self.cell, round, head)
        self.rounds.append(round)
        policy = self.cell.policies.get("p")
        self.active[round.header.round] = policy.active if policy is not None else 0


class World:
    """A cell on Kafka with its workers, agents, and jobs that keep coming."""

    def __init__(self, kafka: LocalKafka, name: str, folder: Path) -> None:
        self.bootstrap, self.name, self.folder = kafka.bootstrap, name, folder
        self.clock = FastClock()
        self.signer = FileSigner(folder / "key.pem")
        self.ring = KeyRing([self.signer.public])
        self.projected = Folding(name)
        self.sent = 0
        self.sink: KafkaCommandSink
        self.log: KafkaLog

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        await create_topics(self.bootstrap, self.name, command_partitions=1)
        async with AsyncExitStack() as stack:
            self.sink = await stack.enter_async_context(KafkaCommandSink(self.bootstrap, self.name))
            self.log = await stack.enter_async_context(KafkaLog(self.bootstrap, self.name))
            await self._found()
            worker = Worker(
                bootstrap=self.bootstrap,
                cell=self.name,
                roles=("intake", "decider", "dispatch", "projector"),
                folder=self.folder,
                clock=self.clock,
                verifier=self.ring,
                snapshots=FileSnapshots(self.folder / "snapshots"),
                identity=Identity(),
                signer=self.signer,
                projector=self.projected,
            )
            fleet = Fleet(lambda _: Work(30_000))
            fleet.add_nodes([node(f"n{i}") for i in range(4)], self.clock.now_ms())
            tasks = [
                await stack.enter_async_context(running(part))
                for part in (
                    run_worker(worker),
                    run_fleet(self.bootstrap, self.name, fleet, self.clock, "1"),
                    self._load(),
                )
            ]
            self.tasks = tasks
            yield

    async def _found(self) -> None:
        quota = Quota(accelerator="h100", nominal=64)
        queues = tuple(Queue(queue=q) for q in QUEUES)
        await self.send(SetQuota(account="a", quotas=(quota,), queues=queues))
        await self.send(SetPolicy(parameters=PolicyParameters(queue_delay_s=(0, 60, 60, 60))))

    async def _load(self) -> None:
        """Jobs of both queues and two tiers, without end."""
        while True:
            n = self.sent
            tier = Tier.BASIC if n % 3 == 0 else Tier.STANDARD
            await self.send(job(f"j{n}", queue=QUEUES[n % 2], slots=1 + n % 4, tier=tier))
            await asyncio.sleep(0.02)

    async def send(self, command: Command) -> None:
        self.sent += 1
        id_, now_ms = f"c{self.sent}", self.clock.now_ms()
        await self.sink.send(structured(command, source="test", id=id_, time_ms=now_ms))

    async def until(self, seen: Callable[[Round], bool]) -> int:
        """The first projected round of which this holds."""
        at = 0
        async with asyncio.timeout(WITHIN_S):
            while True:
                for round in self.projected.rounds[at:]:
                    if seen(round):
                        return round.header.round
                at = len(self.projected.rounds)
                assert not any(t.done() for t in self.tasks), [t for t in self.tasks if t.done()]
                await asyncio.sleep(0.05)

    async def proven(self) -> replay.Verdict:
        """Every round of the ledger decided again, to the same bytes."""
        verdicts = replay.verify(self.log, self.ring, cell_name=self.name)
        *_, last = [verdict async for verdict in verdicts]
        return last

    async def read_anew(self) -> Folding:
        """What another reader makes of the ledger as far as the projector has read it."""
        other, last = Folding(self.name), self.projected.rounds[-1].header.round
        async for believed in LedgerReader(self.log, self.name, self.ring).read():
            await other.on_record(believed.position, believed.record)
            if believed.head.round >= last:
                break
        return other


def has(kind: type[object]) -> Callable[[Round], bool]:
    return lambda round: any(isinstance(fact, kind) for fact in round.facts)


def begun(tier: Tier, rounds: list[Round]) -> set[int]:
    """Rounds in which jobs of the tier were started for the first time."""
    names = {
        body.job
        for round in rounds
        for fact in round.facts
        if isinstance(fact, JobAdmitted)
        for body in [_submitted(round, fact)]
        if body.tier == tier
    }
    return {
        round.header.round
        for round in rounds
        for fact in round.facts
        if isinstance(fact, AttemptStarted) and fact.job in names
    }


def _submitted(round: Round, fact: JobAdmitted) -> SubmitJob:
    return SubmitJob.model_validate_json(bytes(round.commands[fact.command].data))


def test_a_change_under_load_counts_from_one_round_on_in_every_reader(
    kafka: LocalKafka, fresh_name: str, tmp_path: Path
) -> None:
    async def go() -> None:
        world = World(kafka, fresh_name, tmp_path)
        async with world.live():
            await world.until(lambda r: r.header.round in begun(Tier.BASIC, world.projected.rounds))
            await world.send(draft(rule("freeze", "guard", "deny", when="job.tier == 'basic'")))
            await world.send(ActivatePolicy(policy="p", version=1))
            changed = await world.until(has(PolicyActivated))
            await world.until(lambda r: r.header.round >= changed + 20)
            other, verdict = await world.read_anew(), await world.proven()
        rounds = world.projected.rounds
        assert sum(has(PolicyActivated)(round) for round in rounds) == 1
        for reader in (world.projected, other):
            counts = {n for n, version in reader.active.items() if version == 1}
            assert counts == {n for n in reader.active if n >= changed}, "from one round on"
        assert other.active.items() <= world.projected.active.items()
        assert verdict.intact
        assert verdict.rounds >= changed + 20
        basic = begun(Tier.BASIC, rounds)
        assert min(basic) < changed
        assert max(basic) < changed, "from the round of the change on none is started"
        assert max(begun(Tier.STANDARD, rounds)) > changed, "others are"
        loaded = [r for r in rounds if any(c.type == "SubmitJob" for c in r.commands)]
        assert min(r.header.round for r in loaded) < changed < loaded[-1].header.round

    asyncio.run(go())


def test_a_bad_canary_is_rolled_back_by_its_gate(
    kafka: LocalKafka, fresh_name: str, tmp_path: Path
) -> None:
    assert drawn("p") < 500_000 <= drawn("q"), "the canary is for queue p"
    starves = rule("starves", "guard", "deny", when="job.tier == 'standard'")
    late = Gate(gate="late", watch="signal.wait_standard", at_most=300)

    async def go() -> None:
        world = World(kafka, fresh_name, tmp_path)
        async with world.live():
            await world.until(has(AttemptStarted))
            await world.send(draft(starves, gates=(late,)))
            await world.send(StartCanary(policy="p", version=1, slice_ppm=500_000, for_s=7200))
            began = await world.until(has(PolicyCanaryStarted))
            ended = await world.until(has(PolicyRolledBack))
            await world.until(lambda r: r.header.round >= ended + 5)
            other, verdict = await world.read_anew(), await world.proven()
        (back,) = [
            fact
            for round in world.projected.rounds
            for fact in round.facts
            if isinstance(fact, PolicyRolledBack)
        ]
        assert began < ended
        assert (back.author, back.version, back.to) == ("gate/late", 1, 0)
        assert back.found is not None
        assert back.found > 300
        sent = [c.type for r in world.projected.rounds for c in r.commands]
        assert "RollBackPolicy" not in sent, "no person was asked"
        assert not has(PolicyActivated)(world.projected.rounds[ended - 1])
        assert other.rounds == world.projected.rounds[: len(other.rounds)]
        assert verdict.intact

    asyncio.run(go())
