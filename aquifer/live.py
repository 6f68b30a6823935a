"""The live embedded cell: decider, fleet, workload, projector and read API in one process."""

from __future__ import annotations

import itertools
import json
import secrets
import socket
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from aquifer.api import serve, services
from aquifer.checkpointing import keep_signing
from aquifer.clocks import ScaledClock
from aquifer.embedded import Embedded, opened
from aquifer.projecting import Ledger, fill, follow
from aquifer.together import together
from domain.cell import Cell
from domain.commands import COMMANDS, Command
from projections.sqlite_store import SqliteStore
from streams import workload
from streams.agent import Work, estimated
from streams.fleet import Fleet
from streams.scenario import Arrival

if TYPE_CHECKING:
    from aquifer.folder import Folder
    from aquifer.settings import Settings

WORKLOAD: Final = "workload"
"""Source of the generated commands."""


class Origin(Struct):
    """What a simulated day leaves to the live cell."""

    fleet: Fleet
    work: dict[str, Work]
    """What its jobs really need; those of later days are added."""


class Life(Struct, frozen=True):
    """How the live cell goes on."""

    seed: int
    jobs: int
    """Of each generated day."""
    speed: int


def taken_over(cell: Cell) -> Origin:
    """A fleet for a cell that ran before: its nodes are up, and its attempts begin anew."""
    work: dict[str, Work] = {}
    fleet = Fleet(lambda start: work.get(start.job) or estimated(start))
    specs = [node.spec for node in cell.nodes.values() if not node.lost]
    fleet.add_nodes(specs, cell.now_ms, known=True)
    return Origin(fleet, work)


def new_session(cell: Cell) -> str:
    """Makes the ids of what this process reports new, also if the last one died before a round."""
    return f"r{cell.head.round}-{secrets.token_hex(4)}"


async def live(
    settings: Settings, folder: Folder, origin: Origin | None, life: Life, listener: socket.socket
) -> None:
    """Recover the cell, and keep it and its read API running until cancelled."""
    clock = ScaledClock(life.speed)
    async with opened(settings, folder, clock) as ports:
        decider = ports.decider()
        cell = await decider.recover()
        clock.start(cell.now_ms)
        origin = origin or taken_over(cell)
        session = new_session(cell)
        store = SqliteStore(folder.read_model)
        size = await ports.log.end()
        ledger = Ledger(ports.name, ports.log, ports.verifier, size, ports.snapshots)
        await fill(ledger, store)
        given = services(settings, store, clock, ports.sink, ports.dead_letters)
        try:
            await together(
                decider.run(),
                ports.run_fleet(origin.fleet, session),
                _feed(ports, clock, session, origin.work, life),
                follow(ledger, store),
                keep_signing(
                    folder,
                    ports.log,
                    ports.name,
                    ports.signer,
                    ports.verifier,
                    settings.checkpoint_s,
                ),
                serve(settings, given, listener),
            )
        finally:
            await store.close()


async def _feed(
    ports: Embedded, clock: ScaledClock, session: str, work: dict[str, Work], life: Life
) -> None:
    """One generated day after another; `session` and its number tell a day from all others."""
    for number in itertools.count(1):
        begun_ms = clock.now_ms()
        name = f"{session}d{number}"
        day = workload.day(life.seed, begun_ms, life.jobs, name)
        work.update(day.work)
        for i, arrival in enumerate(day.arrivals):
            await clock.reach(begun_ms + arrival.at_ms)
            await ports.send(_command(arrival), WORKLOAD, f"{name}-{i}")
        await clock.reach(begun_ms + workload.DAY_MS)


def _command(arrival: Arrival) -> Command:
    command: Command = COMMANDS[arrival.type].model_validate_json(json.dumps(arrival.body))
    return command
