"""`aquifer worker` and `aquifer agents`: the processes of the distributed profile."""

from __future__ import annotations

import json
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aquifer.output import USAGE, fail, note
from aquifer.together import together, until_stopped

if TYPE_CHECKING:
    from aquifer.folder import Folder
    from aquifer.settings import Settings
    from domain.commands import Command, RegisterNode
    from projections.projector import Projector
    from streams.faust_app import Role, Worker


def worker(
    role: Annotated[
        list[str] | None,
        typer.Option(help="intake, decider, dispatch or projector; by default all of them."),
    ] = None,
    cell: Annotated[
        list[str] | None,
        typer.Option(help="Decide these cells, together with others that do; no other role."),
    ] = None,
) -> None:
    """Play the roles of a cell on Kafka, until stopped; topics that are missing are created."""
    from aquifer.settings import load
    from streams.faust_app import ROLES

    settings = load()
    if cell:
        if role != ["decider"]:
            fail("--cell: takes --role decider and no other", USAGE)
        play(_deciders(settings, bootstrap_of(settings), cell))
        return
    unknown = set(role or ()) - set(ROLES)
    if unknown:
        fail(f"--role: {', '.join(sorted(unknown))} is none of {', '.join(ROLES)}", USAGE)
    roles = tuple(r for r in ROLES if r in (role or ROLES))
    play(_worker(settings, bootstrap_of(settings), roles))


def agents(
    nodes: Annotated[
        Path | None,
        typer.Option(help="JSON lines of RegisterNode; by default the generated day's nodes."),
    ] = None,
    speed: Annotated[int, typer.Option(min=1, max=100_000, help="Divides execution times.")] = 1,
) -> None:
    """Simulate the agents of all nodes on Kafka, until stopped."""
    from aquifer.settings import load

    settings = load()
    play(_agents(settings, bootstrap_of(settings), _specs(nodes), speed))


def bootstrap_of(settings: Settings) -> str:
    if settings.kafka is None:
        fail("AQUIFER_KAFKA is not set: the embedded cell is all in `aquifer run`", USAGE)
    return settings.kafka


def _specs(path: Path | None) -> list[RegisterNode]:
    from domain.commands import RegisterNode
    from streams import workload

    if path is None:
        return workload.nodes()
    specs: list[RegisterNode] = []
    try:
        for line in path.read_text().splitlines():
            specs.append(RegisterNode.model_validate_json(line))
    except (OSError, ValueError) as error:
        fail(f"--nodes: {error}", USAGE)
    return specs


def play(work: Coroutine[Any, Any, None]) -> None:
    """Run until stopped; what it raises ends the process with 1, for whoever starts it again."""
    from aiokafka.errors import KafkaError

    from domain.ledger import NewerEngine
    from streams.decider import OutcomeUnknown
    from streams.remembered import LogTooShort
    from streams.rounds import Poisoned
    from streams.topics import WrongTopics

    try:
        until_stopped(work)
    except (KafkaError, LogTooShort, NewerEngine, OutcomeUnknown, Poisoned, WrongTopics) as error:
        fail(f"{type(error).__name__}: {error}")


async def _agents(
    settings: Settings, bootstrap: str, specs: list[RegisterNode], speed: int
) -> None:
    from aquifer.clocks import SystemClock
    from aquifer.folder import Folder
    from aquifer.trust import speaker_of
    from streams.fleet import Fleet
    from streams.kafka_fleet import run_fleet

    clock = SystemClock()
    fleet = Fleet(speed=speed)
    fleet.add_nodes(specs, clock.now_ms())
    note(f"{len(specs)} nodes of cell {settings.cell}; stop with Ctrl-C")
    speaker = speaker_of(settings, Folder(settings.state_dir))
    session = f"s{time.time_ns()}"
    await run_fleet(bootstrap, settings.cell, fleet, clock, session, speaker)


def generate(
    seed: Annotated[int, typer.Option(help="Of the day.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, max=1_000_000, help="Jobs of the day.")] = 4000,
) -> None:
    """Print the commands of a generated day as JSON lines, for `aquifer send`."""
    from streams import workload
    from streams.envelope import body_of

    day = workload.day(seed, time.time_ns() // 1_000_000, jobs)
    commands: list[Command] = [*day.quotas, *day.nodes]
    for command in commands:
        print(json.dumps({"type": type(command).__name__, **body_of(command)}))
    for arrival in day.arrivals:
        print(json.dumps({"type": arrival.type, **arrival.body}))


async def _worker(settings: Settings, bootstrap: str, roles: tuple[Role, ...]) -> None:
    from streams.faust_app import run_worker

    made = await _made(settings, bootstrap, roles)
    note(f"cell {settings.cell}: {', '.join(roles)}; stop with Ctrl-C")
    if "decider" in roles:
        await together(run_worker(made), _signing(settings, made))
    else:
        await run_worker(made)


async def _made(settings: Settings, bootstrap: str, roles: tuple[Role, ...]) -> Worker:
    """The worker, and its cell's topics if they were not there."""
    from aquifer.clocks import SystemClock
    from aquifer.folder import Folder
    from aquifer.trust import identity_of, signer_of, verifier_of
    from streams import quarantine
    from streams.faust_app import Worker
    from streams.remembered import RememberedHead
    from streams.snapshots import FileSnapshots
    from streams.topics import create_topics

    folder = Folder(settings.state_dir)
    signer = signer_of(settings, folder)
    await create_topics(bootstrap, settings.cell)
    return Worker(
        bootstrap=bootstrap,
        cell=settings.cell,
        roles=roles,
        folder=folder.root,
        clock=SystemClock(),
        verifier=verifier_of(settings, folder),
        snapshots=FileSnapshots(folder.snapshots),
        identity=identity_of(settings),
        signer=signer,
        remembered=RememberedHead(folder.head, every_s=1),
        quarantined=quarantine.load(folder.quarantine),
        projector=await _projector(settings, folder) if "projector" in roles else None,
    )


async def _signing(settings: Settings, made: Worker) -> None:
    """Checkpoints of the decider's cell, for as long as it is not cancelled."""
    from aquifer.checkpointing import keep_signing
    from aquifer.folder import Folder
    from streams.kafka import KafkaLog

    assert made.signer is not None, "it decides"
    async with KafkaLog(made.bootstrap, made.cell) as log:
        folder, period_s = Folder(settings.state_dir), settings.checkpoint_s
        await keep_signing(folder, log, made.cell, made.signer, made.verifier, period_s)


async def _deciders(settings: Settings, bootstrap: str, cells: list[str]) -> None:
    """Each cell has its own folder in the state directory."""
    from streams.deciders import run_deciders

    own = [settings.of_cell(cell) for cell in cells]
    made = [await _made(each, bootstrap, ("decider",)) for each in own]
    note(f"cells {', '.join(cells)}: decider; stop with Ctrl-C")
    signing = [_signing(each, worker) for each, worker in zip(own, made, strict=True)]
    await together(run_deciders(made), *signing)


async def _projector(settings: Settings, folder: Folder) -> Projector:
    from aquifer.api import connect_cassandra
    from aquifer.trust import verifier_of
    from projections.projector import Projector
    from streams.snapshots import FileSnapshots

    store = await connect_cassandra(settings)
    verifier = verifier_of(settings, folder)
    snapshots = FileSnapshots(folder.projector_snapshots)
    return Projector(settings.cell, store, verifier, snapshots)
