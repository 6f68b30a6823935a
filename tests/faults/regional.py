"""A region with a Kafka, decider, relay and agents of its own, in processes that may be killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aquifer.folder import Folder
from aquifer.settings import Settings
from aquifer.trust import signer_of, verifier_of
from domain.commands import Command, RegisterNode, SetQuota, SubmitJob
from domain.ledger import Round
from domain.pool.commands import SetPeers
from domain.pool.specs import HandoffRules, PeerSpec
from domain.ports import Clock, Message
from domain.specs import FabricPath, Flavour, Locality, Queue, Quota, ReplicaGroup, Runtime
from infra.kafka import LocalKafka
from streams.envelope import structured
from streams.kafka import KafkaCommandSink, KafkaLog
from streams.reader import LedgerReader
from streams.replay import Verdict, verify
from streams.topics import create_topics
from tests.faults.supervised import Supervised

NODES, SLOTS = 2, 8
SPEED = 30
RULES = HandoffRules(min_benefit_s=1, min_work_ppm=0, offer_s=10, claim_s=60, rest_s=3)
ROLES = ("worker", "relay", "agents")


class Region:
    def __init__(
        self, folder: Path, name: str, host: str = "127.0.0.1", within: Sequence[str] = ()
    ) -> None:
        """`within`: words that start a command in the region's own network, if it has one."""
        self.name = name
        self.host = host
        self._within = within
        self.kafka = LocalKafka(folder / "kafka", heap_mib=256, host=host, within=within)
        self.folder = Folder(folder / "state")
        self.settings = Settings(
            cell=name,
            state_dir=self.folder.root,
            kafka=self.kafka.bootstrap,
            actors=folder / "actors.json",
            peers=folder / "peers.json",
        )
        self.signer = signer_of(self.settings, self.folder)
        self.sent = 0
        self.rules = RULES
        self._nodes = folder / "nodes.jsonl"
        self._logs = folder
        self.roles: dict[str, Supervised] = {}

    def meet(self, regions: list[Region]) -> None:
        """Know the keys of all regions, and the ways to the others; write down the nodes."""
        assert self.settings.actors is not None
        assert self.settings.peers is not None
        actors = [
            {
                "actor": other.name,
                "keys": {other.signer.key_id: other.signer.public.hex()},
                "roles": ["operator" if other is self else "peer"],
                "regions": [other.name],
            }
            for other in regions
        ]
        self.settings.actors.write_text(json.dumps({"actors": actors}))
        ways = {r.name: {"kafka": r.kafka.bootstrap} for r in regions if r is not self}
        self.settings.peers.write_text(json.dumps({"peers": ways}))
        path = FabricPath(region=self.name, cluster=self.name, block="b", rack="r")
        nodes = [
            RegisterNode(node=f"{self.name}-{i}", accelerator="h100", slots=SLOTS, path=path)
            for i in range(NODES)
        ]
        self._nodes.write_text("\n".join(n.model_dump_json() for n in nodes))
        self._peers = tuple(PeerSpec(region=r, actor=r) for r in ways)

    def first_commands(self) -> list[Command]:
        quota = Quota(accelerator="h100", nominal=NODES * SLOTS)
        return [
            SetPeers(region=self.name, peers=self._peers, rules=self.rules),
            SetQuota(account="all", quotas=(quota,), queues=(Queue(queue="batch"),)),
        ]

    def job(self, number: int, slots: int, estimate_s: int, failover: bool = False) -> SubmitJob:
        return SubmitJob(
            job=f"{self.name}-{number}",
            queue="batch",
            groups=(ReplicaGroup(slots=slots),),
            flavours=(Flavour(accelerator="h100"),),
            runtime=Runtime(estimate_s=estimate_s),
            locality=Locality(on_region_loss="failover" if failover else "wait"),
        )

    def start(self) -> None:
        environment = {
            "AQUIFER_CELL": self.name,
            "AQUIFER_KAFKA": self.kafka.bootstrap,
            "AQUIFER_STATE_DIR": str(self.folder.root),
            "AQUIFER_ACTORS": str(self.settings.actors),
            "AQUIFER_PEERS": str(self.settings.peers),
        }
        deciding = [f"--role={role}" for role in ("intake", "decider", "dispatch")]
        words = {
            "worker": ["worker", *deciding],
            "relay": ["relay"],
            "agents": ["agents", "--nodes", str(self._nodes), "--speed", str(SPEED)],
        }
        for role in ROLES:
            log = self._logs / f"{role}.log"
            self.roles[role] = Supervised(words[role], environment, log, within=self._within)
            self.roles[role].start()

    async def stop(self) -> None:
        for role in self.roles.values():
            await role.stop()

    def message(self, command: Command, now_ms: int) -> Message:
        self.sent += 1
        return structured(
            command,
            source="test",
            id=f"{self.name}-{self.sent}",
            time_ms=now_ms,
            key_id=self.signer.key_id,
            sign=self.signer.sign,
        )

    async def send(self, commands: list[Command], now_ms: int) -> None:
        async with KafkaCommandSink(self.kafka.bootstrap, self.name) as sink:
            for command in commands:
                await sink.send(self.message(command, now_ms))

    async def fall(self) -> None:
        """kill -9 of all, at once."""
        self.kafka.kill()
        for role in self.roles.values():
            await role.kill()
            await role.stop()

    async def rise(self) -> None:
        await asyncio.to_thread(self.kafka.start)
        for role in self.roles.values():
            role.start()

    async def rounds(self) -> list[Round]:
        ring = verifier_of(self.settings, self.folder)
        async with KafkaLog(self.kafka.bootstrap, self.name) as log:
            return [b.round async for b in LedgerReader(log, self.name, ring).read()]

    async def proof(self) -> Verdict:
        ring = verifier_of(self.settings, self.folder)
        proven = Verdict(self.name)
        async with KafkaLog(self.kafka.bootstrap, self.name) as log:
            async for verdict in verify(log, ring, cell_name=self.name):
                proven = verdict
        return proven

    def tails(self) -> str:
        return "\n".join(f"{self.name} {name}: {r.tail()}" for name, r in self.roles.items())


@asynccontextmanager
async def running(regions: Sequence[Region], clock: Clock) -> AsyncIterator[None]:
    """All regions know each other and run. What does not come in time ends with their logs."""
    for region in regions:
        region.meet(list(regions))
        await create_topics(region.kafka.bootstrap, region.name)
        await region.send(region.first_commands(), clock.now_ms())
        region.start()
    try:
        yield
    except TimeoutError:
        tails = "\n".join(region.tails() for region in regions)
        raise AssertionError(f"it did not come in time; the logs end:\n{tails}") from None
    finally:
        await asyncio.gather(*(region.stop() for region in regions))
