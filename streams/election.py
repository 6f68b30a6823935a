"""Which process decides which cells: Kafka's assignment, in one group of all that can.

An election says who should write, at once when a process leaves and within a session when it dies
or is stopped. Who may write is never up to it: `KafkaLog.take_over` shuts earlier writers out, and
a record is believed by its chain. So whoever has a cell goes on while the group is settling.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)
from aiokafka.errors import for_code
from msgspec import Struct

from streams.kafka_clients import Connected
from streams.topics import topic

GROUP: Final = "aquifer.deciders"
SESSION_MS: Final = 2000
"""A process that was not heard of for so long loses its cells; longer if the brokers say so."""
LIMIT: Final = "group.min.session.timeout.ms"
TURN_MS: Final = 200
STOP_S: Final = 10


class Claim(Struct, frozen=True):
    """What a process has when it comes to an assignment."""

    stands_for: Collection[str]
    has: Collection[str] = ()
    term: int = 0
    """Of the assignment by which it has them: a process that was away has an old one."""


def share(claims: Mapping[str, Claim]) -> dict[str, list[str]]:
    """Names for each member: what it has already, up to an equal part, and what nobody has.

    Of two who claim a name, the one with the later term has it. What nobody has goes to who has
    least, and of those to one that was there before: it has followed the ledger.
    """
    names = sorted({name for claim in claims.values() for name in claim.stands_for})
    most = -(-len(names) // max(1, len(claims)))
    given: dict[str, list[str]] = {member: [] for member in sorted(claims)}
    free: list[str] = []
    for name in names:
        holders = [m for m in given if name in claims[m].has and name in claims[m].stands_for]
        newest = max(holders, key=lambda m: claims[m].term, default=None)
        if newest is not None and len(given[newest]) < most:
            given[newest].append(name)
        else:
            free.append(name)
    for name in free:
        standing = [m for m in given if name in claims[m].stands_for]
        given[min(standing, key=lambda m: (len(given[m]), -claims[m].term))].append(name)
    _even(given, claims)
    return given


def _even(given: dict[str, list[str]], claims: Mapping[str, Claim]) -> None:
    """Who has most gives to who has least."""
    while True:
        least = min(given, key=lambda m: len(given[m]))
        most = max(given, key=lambda m: len(given[m]))
        movable = [name for name in given[most] if name in claims[least].stands_for]
        if len(given[most]) - len(given[least]) < 2 or not movable:
            return
        given[most].remove(movable[-1])
        given[least].append(movable[-1])


class Election:
    """Stands for cells from `__aenter__` to `__aexit__`; leaving hands them over at once.

    It lives in a thread with a loop of its own: a decider that works on a large state for seconds
    is slow, and not dead.
    """

    name = "aquifer-deciders"
    """Of the way to assign, in Kafka's protocol."""

    def __init__(self, bootstrap: str, cells: Sequence[str], session_ms: int) -> None:
        self._bootstrap = bootstrap
        self._cells = {topic("accepted", cell): cell for cell in cells}
        self._session_ms = session_ms
        self._mine: frozenset[str] = frozenset()
        self._term = 0
        self._failure: Exception | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="election", daemon=True)

    def leads(self, cell: str) -> bool:
        """Whether this process should decide the cell. Raises what ended the election."""
        if self._failure is not None:
            raise self._failure
        return topic("accepted", cell) in self._mine

    def shut_out(self, cell: str) -> None:
        """Another one decides the cell: it is not ours until we are told so anew."""
        self._mine -= {topic("accepted", cell)}

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        await asyncio.to_thread(self._thread.join, STOP_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._stand())
        except Exception as error:
            self._failure = error

    async def _stand(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            group_id=GROUP,
            partition_assignment_strategy=(self,),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=self._session_ms,
            heartbeat_interval_ms=self._session_ms // 6,
        )
        consumer.subscribe(list(self._cells), listener=_FetchNothing(consumer))
        async with Connected(consumer):
            while not self._stopping.is_set():
                await consumer.getmany(timeout_ms=TURN_MS)  # raises what went wrong in the group

    # --- what aiokafka asks of an assignor --------------------------------------------------------

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        said = json.dumps({"has": sorted(self._mine), "term": self._term})
        return ConsumerProtocolMemberMetadata(0, list(topics), said.encode())

    def assign(
        self, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        claims = {m: Claim(d.subscription, **json.loads(d.user_data)) for m, d in members.items()}
        term = str(1 + max(claim.term for claim in claims.values())).encode()
        return {
            member: ConsumerProtocolMemberAssignment(0, [(name, [0]) for name in names], term)
            for member, names in share(claims).items()
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        self._mine = frozenset(name for name, _ in assignment.assignment)
        self._term = int(assignment.user_data)


class _FetchNothing(ConsumerRebalanceListener):  # type: ignore[misc]
    """Whoever has a cell reads its topic by the ledger's offsets, not by the group's."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        pass

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._consumer.pause(*assigned)


async def session_ms(bootstrap: str) -> int:
    """As short as we want it, or as the brokers allow."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        brokers = (await admin.describe_cluster())["brokers"]
        asked = [
            ConfigResource(ConfigResourceType.BROKER, str(broker["node_id"]), {LIMIT: None})
            for broker in brokers
        ]
        limits = [SESSION_MS]
        for answer in await admin.describe_configs(asked):
            for code, message, _, name, entries in answer.resources:
                if code:
                    raise for_code(code)(f"settings of broker {name}: {message}")
                limits += [int(entry[1]) for entry in entries]
    finally:
        await admin.close()
    return max(limits)
