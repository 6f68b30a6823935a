"""One small world from one seed: all roles of a cell on a simulated cluster, with faults.

The roles are the product's own, down to its Kafka adapters; clients, supervisor and operator are
the simulation's. After the faults the world heals: then all work must come to its end.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from random import Random
from typing import Any, Final

from aiokafka import TopicPartition

from domain.cell import Cell
from domain.commands import CancelJob, Command, CordonNode
from domain.ledger import Head, Round
from projections.projector import Projector
from projections.store import Applied
from streams import dispatcher, kafka_fleet, kafka_intake
from streams.decider import Decider, Settings
from streams.dispatch import Kill, decode
from streams.fleet import Fleet
from streams.kafka import KafkaInbox, KafkaLog
from streams.kafka_dispatch import ROUND_HEADER, KafkaDispatch
from streams.project import Projection
from streams.rounds import Place, Poisoned
from streams.scenario import Outage
from tests.simulation import embedded, workload
from tests.simulation.broker import Broker, Record
from tests.simulation.client import Client
from tests.simulation.clients import Clients
from tests.simulation.cluster import BUS, CELL, TOPICS
from tests.simulation.disk import Disk, Remembered, RowStore, Snapshots, SqlStore
from tests.simulation.faults import Fault
from tests.simulation.injector import Injector
from tests.simulation.invariants import Chain, Fence
from tests.simulation.keys import Key, identity
from tests.simulation.loop import START_MS, Clock, Process, Violation, VirtualLoop

logging.getLogger("streams").setLevel(logging.CRITICAL)

HEAL_S: Final = 10.0
"""So long after the span of commands and faults nothing fails any more."""
LONGEST_S: Final = 3600.0
"""So long after that all work must have come to its end."""
LOOK_S: Final = 4.0
SETTLE_S: Final = 12.0
MOST_STEPS: Final = 300_000
MAY_END: Final = {"KafkaError", "OSError", "OutcomeUnknown", "Poisoned"}
"""What may end a process while something fails; the supervisor starts it again."""

Role = Callable[[Process], Coroutine[Any, Any, None]]


class World:
    def __init__(self, seed: int, planned: list[Fault], work: workload.Workload) -> None:
        random = Random(seed)
        self.seed = seed
        self.work = work
        self.planned = planned
        self.embedded = seed % 5 == 2
        """The cell is one process, as in the embedded profile."""
        self.healed = False
        self._healed_s = workload.span(seed).seconds + HEAL_S
        self.violation: Violation | None = None
        self.loop = VirtualLoop(random.getrandbits(64))  # type: ignore[abstract]
        self.broker = Broker(self.loop, random.getrandbits(64), TOPICS)
        self.key = Key("cell")
        self.partition = {at.topic.split(".")[0]: p for at, p in self.broker.partitions.items()}
        self.chain = Chain(CELL, self.partition["accepted"], self.key.verify)
        self.broker.on_record = self._on_record
        self.broker.on_write = self._on_write
        Clients.brokers[BUS] = self.broker
        self.clocks: dict[str, Clock] = {}
        self.disks: dict[str, Disk] = {}
        self.snapshots = Snapshots(self.disk("decider"))
        self.remembered = {n: Remembered(self.disk(n)) for n in ("decider", "standby")}
        self.stores: dict[str, RowStore | SqlStore] = {
            "projector": RowStore(self.disk("projector"), random.getrandbits(64))
        }
        if seed % 4 == 0:
            self.stores["projector-1"] = SqlStore(self.disk("projector-1"))
        for name, store in self.stores.items():
            store.on_applied = partial(self._on_applied, name)
        self.projector_snapshots = {name: Snapshots(self.disk(name)) for name in self.stores}
        self.settings = _settings(random)
        self.quarantined: set[Place] = set()
        self.processes: dict[str, Process] = {}
        self.starts: Counter[str] = Counter()
        self.cells: dict[Process, Callable[[], Cell | None]] = {}
        self._checked: dict[Process, Head] = {}
        self.applied = dict.fromkeys(self.stores, 0)
        self._goal: dict[TopicPartition, int] = {}
        self.killed: dict[str, int] = {}
        """By job: the newest attempt that the dispatch topic says is over."""
        self.ends = dict.fromkeys(self.broker.partitions, 0)
        """How far each topic was when all had come to its end."""
        self._random = Random(random.getrandbits(64))
        self.identity = identity(3, len(work.fleets))
        self.clients = [
            Client(n, [i for i in work.items if i.client == n], random.getrandbits(32))
            for n in range(3)
        ]
        self.injector = Injector(self)
        self.loop.after_step = self._after_step

    # --- roles ------------------------------------------------------------------------------------

    def roles(self) -> dict[str, Role]:
        roles: dict[str, Role] = {
            "intake": self._take_in,
            **dict.fromkeys(self.stores, self.project),
            **{client.name: client.run for client in self.clients},
        }
        if self.seed % 3 == 0:
            roles["intake-1"] = self._take_in
        if self.embedded:
            return roles | {"decider": partial(embedded.play, self)}
        fleets = {f"fleet-{n}": self._run_fleet for n in range(len(self.work.fleets))}
        return roles | {"decider": self.decide, "dispatch": self._dispatch} | fleets

    def decider(
        self,
        process: Process,
        log: KafkaLog,
        inbox: KafkaInbox,
        on_believed: Callable[[Round, Cell], Awaitable[None]],
        on_recovered: Callable[[Cell], Awaitable[None]],
    ) -> Decider:
        made = Decider(
            CELL,
            log,
            inbox,
            self.key,
            self.key,
            self.clock(process.name),
            snapshots=self.snapshots,
            remembered=self.remembered[process.name],
            quarantined=self.quarantined,
            settings=self.settings,
            on_believed=on_believed,
            on_recovered=on_recovered,
        )
        self.cells[process] = lambda: made._cell
        return made

    async def decide(self, process: Process) -> None:
        async def told(round: Round, cell: Cell) -> None:
            self.guard(self.chain.check_round, process.name, round)

        async def recovered(cell: Cell) -> None:
            self.guard(self.chain.check_head, process.name, cell.head)

        async with KafkaLog(BUS, CELL) as log, KafkaInbox(BUS, CELL) as inbox:
            await self.decider(process, log, inbox, told, recovered).run()

    async def _take_in(self, process: Process) -> None:
        await kafka_intake.take_in(BUS, CELL, self.identity, self.clock(process.name))

    async def _dispatch(self, process: Process) -> None:
        async with KafkaLog(BUS, CELL) as log, KafkaDispatch(BUS, CELL) as told:
            await dispatcher.dispatch(CELL, log, told, self.snapshots, self.key)

    async def project(self, process: Process) -> None:
        projector = Projector(
            CELL, self.stores[process.name], self.key, self.projector_snapshots[process.name]
        )
        projection = Projection(projector)
        self.cells[process] = lambda: projector.cell

        async def tell(log: KafkaLog) -> None:
            async for position, record in log.follow(0):
                await projection.tell(position, record)

        async with KafkaLog(BUS, CELL) as log, asyncio.TaskGroup() as tasks:
            tasks.create_task(projection.run(log))
            tasks.create_task(tell(log))

    async def _run_fleet(self, process: Process) -> None:
        number = int(process.name.partition("-")[2])
        nodes = [self.work.nodes[n] for n in self.work.fleets[number]]
        fleet = Fleet(
            lambda start: self.work.work[start.job],
            patience_ms=500,
            outages=self.outages({n.node for n in nodes}),
            origin_ms=START_MS,
        )
        clock = self.clock(process.name)
        fleet.add_nodes(nodes, clock.now_ms())
        Fence(process.name, fleet, self.guard, self.killed)
        session = f"{process.name}-{self.starts[process.name]}"
        key = Key(f"key-{process.name}")
        await kafka_fleet.run_fleet(BUS, CELL, fleet, clock, session, key)

    def outages(self, nodes: set[str]) -> list[Outage]:
        found: list[Outage] = []
        if self.healed:
            return found
        for fault in self.planned:
            if fault.kind == "outage" and fault.who in nodes:
                at_ms = int(fault.at_s * 1000)
                found.append(Outage(at_ms, at_ms + int(fault.for_s * 1000), fault.who))
        return found

    # --- processes --------------------------------------------------------------------------------

    def clock(self, name: str) -> Clock:
        return self.clocks.setdefault(name, Clock(self.loop))

    def disk(self, name: str) -> Disk:
        return self.disks.setdefault(name, Disk())

    def start(self, name: str, role: Role) -> None:
        before = self.processes.get(name)
        if before is not None and before.alive:
            return
        process = self.processes[name] = Process(name)
        self.starts[name] += 1
        main = self.loop.spawn(process, role(process))
        main.add_done_callback(
            lambda task: self._ended(process, role, task), context=self.loop.nowhere
        )

    def kill(self, name: str) -> None:
        self.end(self.processes[name])

    def end(self, process: Process) -> None:
        """kill -9"""
        if process.alive:
            self.loop.kill(process)
            self.broker.silent(process)

    def _ended(self, process: Process, role: Role, main: asyncio.Task[None]) -> None:
        """A process ended by itself: what made it do so may only be one of the faults."""
        self.loop.kill(process)
        error = main.exception()
        if error is None:
            return
        for leaf in _leaves(error):
            names = {cls.__name__ for cls in type(leaf).__mro__}
            if not names & MAY_END:
                text = f"{process.name} ended: {type(leaf).__name__}: {leaf}"
                self.violate(Violation(text), leaf)
            if isinstance(leaf, Poisoned):
                self._quarantine(leaf)
        if self.processes.get(process.name) is not process or process.name == "standby":
            return
        delay = 0.5 + 2 * self._random.random()
        self.loop.outside_at(self.loop.time() + delay, self.start, process.name, role)

    def _quarantine(self, poisoned: Poisoned) -> None:
        """The operator takes the command out; it must be one that is known to be poison."""
        accepted = self.partition["accepted"]
        for place in poisoned.places:
            found = accepted.from_(place[1], 1)
            if not found or workload.POISON_MARK not in found[0].value:
                self.violate(Violation(f"decide tripped over {place}: {poisoned.detail}"), poisoned)
        if not poisoned.places:
            self.violate(Violation(f"decide tripped: {poisoned.detail}"), poisoned)
        self.injector.happen("poison")
        self.quarantined.update(poisoned.places)

    # --- invariants after each step ---------------------------------------------------------------

    def _after_step(self, process: Process) -> None:
        if self.violation is not None:
            raise self.violation
        cell = self.cells.get(process)
        if cell is not None:
            self._check_cell(process, cell())
        self.injector.after_step(process)

    def violate(self, violation: Violation, cause: BaseException | None = None) -> None:
        if self.violation is None:
            violation.__cause__ = cause
            self.violation = violation

    def guard(self, check: Callable[..., None], *args: Any) -> None:
        """A violation ends the schedule, whoever might catch it."""
        try:
            check(*args)
        except Violation as violation:
            self.violate(violation)

    def _check_cell(self, process: Process, cell: Cell | None) -> None:
        if cell is None or cell.head is self._checked.get(process):
            return
        self._checked[process] = cell.head
        self.guard(self.chain.check_head, process.name, cell.head)

    def _on_record(self, record: Record) -> None:
        if record.topic == f"ledger.{CELL}":
            try:
                self.chain.on_record(record)
            except Exception as error:
                found = error if isinstance(error, Violation) else Violation(repr(error))
                self.violate(found, error)
        elif record.topic == f"dispatch.{CELL}":
            told = decode(record.value)
            if isinstance(told, Kill):
                self.killed[told.job] = max(told.attempt, self.killed.get(told.job, 0))

    def _on_write(self, process: Process, topic: str, value: bytes, headers: Any) -> None:
        if topic == f"dispatch.{CELL}":
            round = int(dict(headers)[ROUND_HEADER])
            self.guard(self.chain.check_told, round, decode(value))

    def _on_applied(self, name: str, applied: Applied) -> None:
        before, self.applied[name] = self.applied[name], applied.round
        if applied.round < before:
            text = f"the read model goes back from round {before} to {applied.round}"
            self.violate(Violation(text))
        self.guard(self.chain.check_head, "the read model", Head(applied.round, applied.hash))

    # --- the schedule -----------------------------------------------------------------------------

    def run(self) -> None:
        """Raises Violation."""
        gc.disable()
        try:
            with self.loop:
                self.injector.plan()
                for name, role in self.roles().items():
                    self.start(name, role)
                self._go_to(self._healed_s)
                self._heal()
                self._drain()
        finally:
            gc.enable()

    def close(self) -> None:
        for store in self.stores.values():
            store.shut()

    def _go_to(self, until: float) -> None:
        self.loop.run_until(until)
        if self.violation is not None:
            raise self.violation
        if self.loop.handled > MOST_STEPS:
            raise Violation("it runs and runs without an end")

    def _heal(self) -> None:
        self.healed = True
        self.injector.heal()
        for name, role in self.roles().items():
            self.loop.resume(self.processes[name])
            self.start(name, role)
        self.clients[0].order(self.work.healing(), self.loop.time() + 1.0)

    def _drain(self) -> None:
        """Let all work come to its end."""
        end = self._healed_s + LONGEST_S
        while (left := self._left()) is not None:
            if self.loop.time() >= end:
                raise Violation(f"it does not come to its end: {left}")
            self._bring_back()
            self._go_to(self.loop.time() + LOOK_S)
        self.ends = {at: partition.end for at, partition in self.broker.partitions.items()}
        self._go_to(self.loop.time() + SETTLE_S)
        for _ in range(1000):
            behind = self._behind()
            if behind is None:
                return
            self._go_to(self.loop.time() + 0.05)
        raise Violation(f"{behind} is never at the end of the ledger")

    def _behind(self) -> str | None:
        """Who has not taken in yet what the ledger holds."""
        for process, cell in self.cells.items():
            state = cell() if process.alive else None
            if process.alive and (state is None or state.head != self.chain.head):
                return process.name
        late = [name for name, round in self.applied.items() if round != self.chain.head.round]
        return f"the read model of {late[0]}" if late else None

    def _bring_back(self) -> None:
        """The operator wants all nodes: uncordoned once they are drained, and those registered
        again that were removed, for which their fleets start anew. Nobody waits for a reservation
        that is over."""
        cell = self.chain.cell
        nodes = cell.nodes
        orders: list[Command] = [
            CordonNode(node=n.id, cordoned=False) for n in nodes.values() if n.cordoned
        ]
        for job in cell.jobs.values():
            name = job.shape.spec.reservation
            if name is not None and name not in cell.reservations:
                orders.append(CancelJob(job=job.id))
        if orders and not self.clients[0].waiting:
            self.clients[0].order(orders, self.loop.time())
        roles = self.roles()
        for n, indexes in enumerate(self.work.fleets):
            if any(self.work.nodes[i].node not in nodes for i in indexes):
                name = "decider" if self.embedded else f"fleet-{n}"
                self.kill(name)
                self.start(name, roles[name])

    def _left(self) -> str | None:
        """What is still to be done; None if there is nothing."""
        for client in self.clients:
            if client.waiting:
                self._goal.clear()
                return f"{client.name} waits for {client.waiting[0]}"
        if not self._goal:
            inputs = (p for p in self.broker.partitions.items() if p[0].topic.startswith("cmd."))
            self._goal = {at: partition.end for at, partition in inputs}
        for group in self.broker.groups.values():
            for at, goal in self._goal.items():  # also of those that nobody reads just now
                if at.topic.startswith("cmd.") and group.committed.get(at, 0) < goal:
                    return f"intake is at {group.committed.get(at, 0)} of {at}"
        accepted = self.partition["accepted"]
        if accepted.at not in self._goal:  # now that all commands are taken in, and not before
            self._goal[accepted.at] = accepted.end
        if self.chain.taken < self._goal[accepted.at]:
            return f"accepted commands from {self.chain.taken} on are not decided"
        if self.chain.naive.jobs:
            return f"jobs {sorted(self.chain.naive.jobs)} have no end"
        return None


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _settings(random: Random) -> Settings:
    return Settings(
        max_commands=random.choice((1, 2, 5, 1000)),
        max_bytes=random.choice((1000, 5000, 250_000)),
        max_record=random.choice((900_000, 900_000, 12_000)),
        work=random.choice((1, 2, 5, 1000)),
        max_wait_ms=random.choice((1000, 3000, 10_000)),
        snapshot_facts=random.choice((1, 5, 20, 60)),
    )
