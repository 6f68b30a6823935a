"""A whole cell on real servers under load: two deciders, two APIs, one process for each other role.

Each fault says how long it took until its role worked again, seen from outside.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Final

import httpx
from aiokafka.errors import KafkaError
from msgspec.json import encode

from domain.commands import RegisterNode, SubmitJob
from domain.ports import Message
from domain.specs import Flavour, ReplicaGroup, Runtime
from infra.cassandra import LocalCassandra
from infra.kafka import LocalKafka
from infra.redis import LocalRedis
from infra.server import fixed_ports
from projections.cassandra_store import CassandraStore
from streams.election import SESSION_MS
from streams.envelope import body_of, structured
from streams.kafka import KafkaCommandSink
from streams.keys import FileSigner, KeyRing
from streams.topics import create_topics
from tests.faults.checks import Place, answered_otherwise
from tests.faults.client import Client
from tests.faults.history import Op, check, originals, truth
from tests.faults.pair import settled
from tests.faults.supervised import Supervised
from tests.faults.watch import Watch
from tests.system.command_file import QUEUES, capacity

CELL: Final = "site"
HOST: Final = "127.0.0.1"
CLIENTS: Final = 6
PER_S: Final = 6.0
"""Operations a second of each client."""
BULK_PER_S: Final = 20
BULK: Final = "urn:bulk"
FAR: Final = 300
"""So many commands before some copies."""
SPEED: Final = 60
WITHIN_S: Final = 300
QUIET_S: Final = 10
"""When nothing more was decided for so long nothing will be."""
APIS: Final = ("api-1", "api-2")
DECIDERS: Final = ("decider-1", "decider-2")
FAULTS: Final = (
    "intake", "decider", "standby", "dispatch", "projector", "api", "agents",
    "kafka", "cassandra", "redis",
)  # fmt: skip


class Site:
    def __init__(self, folder: Path, planted: Mapping[str, str] | None = None) -> None:
        """`planted`: bugs by the process that has them (`tests.faults.planted`)."""
        self._folder = folder
        self._planted = planted or {}
        self.kafka = LocalKafka(folder / "kafka")
        self.cassandra = LocalCassandra(folder / "cassandra")
        self.redis = LocalRedis(folder / "redis")
        signers = {name: FileSigner(folder / f"{name}.pem") for name in DECIDERS}
        ring = KeyRing([signer.public for signer in signers.values()])
        ring.save(folder / "keys.json")
        writers = {signer.key_id: name for name, signer in signers.items()}
        self.watch = Watch(self.kafka.bootstrap, CELL, ring, writers)
        self.place = Place(self.kafka.bootstrap, CELL, ring, self.cassandra)
        self._ports = fixed_ports(folder, APIS, [HOST])
        self.roles = self._roles()
        self.history: list[Op] = []
        self.sent: set[str] = set()
        """Ids of the commands that Kafka acknowledged to the bulk producer."""
        self._going_on = True
        self._store: CassandraStore | None = None

    def _roles(self) -> dict[str, Supervised]:
        nodes = self._folder / "nodes.json"
        specs = [c for c in capacity() if isinstance(c, RegisterNode)]
        nodes.write_bytes(b"\n".join(encode(body_of(spec)) for spec in specs))
        arguments = {name: ["worker", "--role", "decider"] for name in DECIDERS}
        arguments |= {r: ["worker", "--role", r] for r in ("intake", "dispatch", "projector")}
        arguments |= {name: ["api", "--port", str(self._ports[name])] for name in APIS}
        arguments["agents"] = ["agents", "--nodes", str(nodes), "--speed", str(SPEED)]
        common = {
            "AQUIFER_CELL": CELL,
            "AQUIFER_KAFKA": self.kafka.bootstrap,
            "AQUIFER_CASSANDRA": f"{HOST}:{self.cassandra.port}",
            "AQUIFER_KEYSPACE": CELL,
            "AQUIFER_REDIS": self.redis.url,
            "AQUIFER_KEYS": str(self._folder / "keys.json"),
        }
        made = {}
        for name, given in arguments.items():
            key = name if name in DECIDERS else DECIDERS[0]
            own = {
                "AQUIFER_STATE_DIR": str(self._folder / name),
                "AQUIFER_SIGNING_KEY": str(self._folder / f"{key}.pem"),
            }
            log = self._folder / f"{name}.log"
            made[name] = Supervised(given, common | own, log, self._planted.get(name))
        return made

    # --- life -------------------------------------------------------------------------------------

    @contextmanager
    def servers(self) -> Iterator[None]:
        with ExitStack() as stack:
            for server in (self.kafka, self.cassandra, self.redis):
                stack.enter_context(server)
            yield

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """All roles run under load; at the end the load ends, and they go on."""
        await create_topics(self.kafka.bootstrap, CELL)
        self._store = await self.place.store(CELL)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._stop)
            for role in self.roles.values():
                role.start()
            await stack.enter_async_context(self.watch.watching())
            await self._set_up()
            urls = [self.url(api) for api in APIS]
            clients = [Client(n, urls, self.history) for n in range(CLIENTS)]
            load = [asyncio.create_task(c.run(lambda: self._going_on, PER_S)) for c in clients]
            load.append(asyncio.create_task(self._bulk()))
            try:
                yield
            finally:
                self._going_on = False
                await asyncio.gather(*load)
            await self._check()

    def url(self, api: str) -> str:
        return f"http://{HOST}:{self._ports[api]}"

    async def _stop(self) -> None:
        assert self._store is not None, "it runs"
        await self._store.close()
        await asyncio.gather(*(role.stop() for role in self.roles.values()))

    async def _set_up(self) -> None:
        async with asyncio.timeout(WITHIN_S), KafkaCommandSink(self.kafka.bootstrap, CELL) as sink:
            for number, command in enumerate(c for c in capacity() if c.__class__ != RegisterNode):
                now_ms = time.time_ns() // 1_000_000
                made = structured(command, source="urn:set-up", id=f"s{number}", time_ms=now_ms)
                await sink.send(made)
            await self.watch.until_other("")
            for api in APIS:
                await self._answers(api)

    async def _bulk(self) -> None:
        """Small jobs at a steady rate, some twice, at once or much later; what is not acknowledged
        is sent again."""
        random, number = Random(3), 0
        before: deque[Message] = deque(maxlen=FAR)
        while self._going_on:
            try:
                async with KafkaCommandSink(self.kafka.bootstrap, CELL) as sink:
                    while self._going_on:
                        job = SubmitJob(
                            job=f"bulk-{number}",
                            queue=random.choice(QUEUES),
                            groups=(ReplicaGroup(slots=1),),
                            flavours=(Flavour(accelerator="h100"),),
                            runtime=Runtime(estimate_s=30, grace_s=5),
                            max_restarts=3,
                        )
                        now_ms = time.time_ns() // 1_000_000
                        id_ = f"id-{number}"
                        message = structured(job, source=BULK, id=id_, time_ms=now_ms)
                        copies = [message] * random.choice((1, 1, 2))
                        if len(before) == FAR and random.random() < 0.3:
                            copies.append(before[0])
                        for copy in copies:
                            await sink.send(copy)
                        before.append(message)
                        self.sent.add(id_)
                        number += 1
                        await asyncio.sleep(1 / BULK_PER_S)
            except KafkaError:
                await asyncio.sleep(0.5)

    # --- faults -----------------------------------------------------------------------------------

    async def fault(self, what: str, random: Random) -> float:
        """kill -9 of a role or a server; seconds until it works again."""
        async with asyncio.timeout(WITHIN_S):
            begin = time.monotonic()
            match what:
                case "decider":
                    await self.roles[self.watch.leader].kill()
                    await self.watch.until_newer("decider", time.time())
                case "standby":
                    (other,) = set(DECIDERS) - {self.watch.leader}
                    starts = self.roles[other].starts
                    await self.roles[other].kill()
                    await self.roles[other].started(starts + 1)
                    await settled(self.kafka.bootstrap, len(DECIDERS))
                case "intake" | "dispatch" | "agents":
                    await self.roles[what].kill()
                    await self.watch.until_newer(what, time.time())
                case "projector":
                    await self.roles["projector"].kill()
                    await self._projects()
                case "api":
                    api = random.choice(APIS)
                    await self.roles[api].kill()
                    await self._answers(api)
                case "kafka":
                    self.kafka.kill()
                    killed_s = time.time()
                    await asyncio.to_thread(self.kafka.start)
                    await self.watch.until_newer("decider", killed_s)
                case "cassandra":
                    self.cassandra.kill()
                    await asyncio.to_thread(self.cassandra.start)
                    await self._projects()
                case "redis":
                    self.redis.kill()
                    await self._answers(random.choice(APIS), "/v1/jobs?limit=1")
            seconds = time.monotonic() - begin
            if what == "redis":
                await asyncio.to_thread(self.redis.start)
            return seconds

    async def both_stand(self) -> None:
        """Wait until a second decider is there to take over."""
        await asyncio.sleep(2 * SESSION_MS / 1000)  # dead members are forgotten by then
        async with asyncio.timeout(WITHIN_S):
            await settled(self.kafka.bootstrap, len(DECIDERS))

    async def _projects(self) -> None:
        await asyncio.sleep(0.2)  # what was on its way when it was killed has arrived
        before = await self._applied()
        while await self._applied() <= before:  # noqa: ASYNC110  in another process
            await asyncio.sleep(0.05)

    async def _applied(self) -> int:
        assert self._store is not None, "it runs"
        while True:
            try:
                return (await self._store.applied(CELL)).round
            except Exception:  # the driver has many of them for a server that is not there
                await asyncio.sleep(0.1)

    async def _answers(self, api: str, path: str = "/livez") -> None:
        async with httpx.AsyncClient(timeout=2) as http:
            while True:
                try:
                    if (await http.get(self.url(api) + path)).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.05)

    # --- what must hold ---------------------------------------------------------------------------

    async def _check(self) -> None:
        """Let everything come to its end; what does not hold is in `faults_found`."""
        self.faults_found: list[str] = []
        before = -1
        while (left := self._undecided()) not in (0, before):  # what stays is lost
            before = left
            await asyncio.sleep(QUIET_S)
        for name in ("intake", "agents", *DECIDERS):
            await self.roles[name].stop()
        rounds = await self.place.rounds()
        async with asyncio.timeout(WITHIN_S):
            await self.place.projected(len(rounds))
            await self.place.told(rounds)
        await self.place.check_ledger()
        self.rows, divergent = await self.place.compare_tables()
        self.faults_found += [f"divergent: {row}" for row in divergent]
        self.faults_found += answered_otherwise(rounds)
        self.rounds = len(rounds)
        self.commands = sum(len(r.commands) for r in rounds)
        self.faults_found += self.seen_by_clients()
        decided = self._decided(BULK)
        self.faults_found += [f"lost: {id_}" for id_ in sorted(self.sent - decided.keys())]
        self.faults_found += [f"doubled: {id_}" for id_, n in sorted(decided.items()) if n > 1]

    def seen_by_clients(self) -> list[str]:
        """What their history shows that must not be; a lost write may only be late yet."""
        return check(list(self.history), truth(CELL, list(self.watch.believed)))

    def _decided(self, source: str) -> Counter[str]:
        found: Counter[str] = Counter()
        for one in self.watch.believed:
            found.update(c.id for c in originals(one.round) if c.source == source)
        return found

    def _undecided(self) -> int:
        http = self._decided("http")
        acknowledged = {op.key for op in self.history if op.kind == "write" and op.result == "ok"}
        return len(acknowledged - http.keys()) + len(self.sent - self._decided(BULK).keys())
