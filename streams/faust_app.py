"""The worker of a cell: a Faust app whose services are the roles that it plays.

The composition root makes a `Worker` and runs `await run_worker(worker)`: it checks the topics,
plays the roles until it is cancelled, and raises what made a role fail. The process then ends and
is started again by whatever supervises it: each role picks up from what its topics hold.
`create_topics` (streams.topics) comes first, once for a cell.

Faust gives the lifecycle and the projector's agent, which may repeat itself. What must neither
lose nor double anything owns its consumer and producer (docs/adr/0002-intake.md).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import faust
import mode
from faust.app.base import BootStrategy

from domain.ledger import Signer, Verifier
from domain.ports import Clock, Snapshots
from streams.decider import Decider, Settings
from streams.dispatcher import dispatch
from streams.election import Election, session_ms
from streams.heap import tended
from streams.identity import Identity
from streams.kafka import KafkaInbox, KafkaLog
from streams.kafka_dispatch import KafkaDispatch
from streams.kafka_intake import take_in
from streams.project import Projection, Projector
from streams.remembered import RememberedHead
from streams.rounds import Place
from streams.standby import stand_by
from streams.topics import RECORD_BYTES, WrongTopics, check_topics, topic

Role = Literal["intake", "decider", "dispatch", "projector"]
ROLES: Final[tuple[Role, ...]] = ("intake", "decider", "dispatch", "projector")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What a worker is, and what its roles need; the composition root fills it in."""

    bootstrap: str
    """Kafka's brokers, host:port with commas between."""
    cell: str
    roles: tuple[Role, ...]
    folder: Path
    """The worker's own: remembers the topics' ids, and Faust writes here."""
    clock: Clock
    verifier: Verifier
    snapshots: Snapshots
    """Decider and dispatch start from them; the decider also writes them."""
    identity: Identity | None = None
    """Intake needs it."""
    signer: Signer | None = None
    """The decider needs it."""
    remembered: RememberedHead | None = None
    """The decider refuses a ledger that does not hold this head, and keeps it up to date."""
    quarantined: Collection[Place] = ()
    settings: Settings | None = None
    """Bounds of the decider's rounds."""
    projector: Projector | None = None
    """The projector needs it."""

    def __post_init__(self) -> None:
        needs = {"intake": self.identity, "decider": self.signer, "projector": self.projector}
        lacking = [role for role in self.roles if role in needs and needs[role] is None]
        if lacking or not self.roles:
            raise ValueError(f"nothing was given for the roles {lacking or self.roles}")


START_S: Final = 30
Failed = asyncio.Future[Exception]
"""Gets what made the first role fail. A crash of Faust's would end in its own clean-up."""


class RoleService(mode.Service):  # type: ignore[misc]
    """One role as a service of the app. Stopping it cancels it."""

    def __init__(self, role: Role, play: Callable[[], Awaitable[None]], failed: Failed) -> None:
        super().__init__()
        self._role = role
        self._play = play
        self._failed = failed

    def _repr_info(self) -> str:
        return self._role

    @mode.Service.task  # type: ignore[untyped-decorator]
    async def _run(self) -> None:
        try:
            await self._play()
            raise RuntimeError(f"the role {self._role} came to an end")
        except Exception as error:
            _fail(self._failed, error)


def _fail(failed: Failed, error: Exception) -> None:
    if not failed.done():
        failed.set_result(error)


class WorkerApp(faust.App):  # type: ignore[misc]
    """An app without agents leaves Faust's own consumer alone: it makes a loop for its thread."""

    async def on_start(self) -> None:
        if self.boot_strategy.enable_kafka:
            await super().on_start()
        else:
            self.finalize()


def build_app(worker: Worker, failed: Failed) -> faust.App:
    """The Faust app of a worker; nothing has been started."""
    projecting = "projector" in worker.roles
    app = WorkerApp(
        f"aquifer.projector.{worker.cell}",
        broker=[f"kafka://{host}" for host in worker.bootstrap.split(",")],
        datadir=worker.folder / "faust",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        stream_wait_empty=False,
        broker_session_timeout=10,
        worker_redirect_stdouts=False,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=2 * RECORD_BYTES,
        key_serializer="raw",
        value_serializer="raw",
    )
    app.boot_strategy = BootStrategy(app, enable_kafka=projecting)
    if projecting:
        assert worker.projector is not None, "checked when the worker was made"
        _add_projector(app, worker, worker.projector, failed)
    plays = {"intake": _intake, "decider": _decide, "dispatch": _dispatch}
    for role in worker.roles:
        if role != "projector":
            app.add_dependency(RoleService(role, partial(plays[role], worker), failed))
    return app


def _add_projector(app: faust.App, worker: Worker, projector: Projector, failed: Failed) -> None:
    projection = Projection(projector)

    ledger = app.topic(topic("ledger", worker.cell), value_type=bytes)

    @app.agent(ledger, concurrency=1)  # type: ignore[untyped-decorator]
    async def project(stream: faust.StreamT[bytes]) -> None:
        async for event in stream.events():
            try:
                await projection.tell(event.message.offset, event.message.value)
            except Exception as error:  # Faust would take it for an acknowledgement
                _fail(failed, error)
                await asyncio.Event().wait()

    async def play() -> None:
        async with KafkaLog(worker.bootstrap, worker.cell) as log:
            await projection.run(log)

    app.add_dependency(RoleService("projector", play, failed))


async def _intake(worker: Worker) -> None:
    assert worker.identity is not None, "checked when the worker was made"
    await take_in(worker.bootstrap, worker.cell, worker.identity, worker.clock)


async def _decide(worker: Worker) -> None:
    span_ms = await session_ms(worker.bootstrap)
    async with Election(worker.bootstrap, [worker.cell], span_ms) as election:
        await decide(worker, election)


async def decide(worker: Worker, election: Election) -> None:
    """The decider's role, for as long as it is not cancelled."""
    assert worker.signer is not None, "checked when the worker was made"
    async with (
        KafkaLog(worker.bootstrap, worker.cell) as log,
        KafkaInbox(worker.bootstrap, worker.cell) as inbox,
    ):
        decider = Decider(
            worker.cell,
            log,
            inbox,
            worker.signer,
            worker.verifier,
            worker.clock,
            snapshots=worker.snapshots,
            remembered=worker.remembered,
            quarantined=worker.quarantined,
            settings=worker.settings,
        )
        await stand_by(decider, log, election)


async def _dispatch(worker: Worker) -> None:
    async with (
        KafkaLog(worker.bootstrap, worker.cell) as log,
        KafkaDispatch(worker.bootstrap, worker.cell) as told,
    ):
        await dispatch(worker.cell, log, told, worker.snapshots, worker.verifier)


async def run_worker(worker: Worker) -> None:
    """Play the roles until cancelled. Raises WrongTopics before anything is started, and what
    made a role fail.

    The process should do nothing else: its memory is tended for a cell.
    """
    await check(worker)
    async with tended():
        await _play(worker)


async def _play(worker: Worker) -> None:
    failed: Failed = asyncio.get_running_loop().create_future()
    app = build_app(worker, failed)
    starting = asyncio.create_task(app.start())
    try:
        await asyncio.shield(starting)
        while not failed.done() and not app.should_stop:  # noqa: ASYNC110  either may end it
            await asyncio.sleep(0.1)
        if app.crash_reason is not None:
            raise app.crash_reason
        raise failed.result() if failed.done() else RuntimeError("the app stopped by itself")
    finally:
        # A start that is cut off leaves Faust's consumer thread where no stop reaches it.
        await asyncio.wait([starting], timeout=START_S)
        await app.stop()


async def check(worker: Worker) -> None:
    """Topics as they must be, and the same ones as at the worker's last start."""
    remembered = worker.folder / f"topics.{worker.cell}.json"
    known = json.loads(remembered.read_text()) if remembered.exists() else {}
    faults, ids = await check_topics(worker.bootstrap, worker.cell, known)
    if faults:
        raise WrongTopics(faults)
    remembered.parent.mkdir(parents=True, exist_ok=True)
    remembered.write_text(json.dumps(ids, indent=1, sort_keys=True))
