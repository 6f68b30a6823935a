"""A cell as the embedded profile has it: decider and agents in one process, without dispatch.

The decider tells the agents of each believed round, and of all that stands after a recovery. What
kills one kills both; then the attempts begin anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aquifer.together import together
from domain.cell import Cell
from domain.commands import Command
from domain.ledger import Round
from streams.dispatch import Instruction, instructions, outstanding
from streams.envelope import structured
from streams.fleet import Fleet, live
from streams.kafka import KafkaCommandSink, KafkaInbox, KafkaLog
from tests.simulation.cluster import BUS, CELL
from tests.simulation.invariants import Fence
from tests.simulation.keys import Key
from tests.simulation.loop import START_MS, Process

if TYPE_CHECKING:
    from tests.simulation.world import World

FLEET = "fleet-0"


async def play(world: World, process: Process) -> None:
    told: asyncio.Queue[Sequence[Instruction]] = asyncio.Queue()

    def tell(cell: Cell, new: list[Instruction]) -> None:
        for instruction in new:
            world.guard(world.chain.check_told, cell.head.round, instruction)
        told.put_nowait(new)

    async def believed(round: Round, cell: Cell) -> None:
        world.guard(world.chain.check_round, process.name, round)
        tell(cell, instructions(cell, round))

    async def recovered(cell: Cell) -> None:
        tell(cell, outstanding(cell))

    async with (
        KafkaLog(BUS, CELL) as log,
        KafkaInbox(BUS, CELL) as inbox,
        KafkaCommandSink(BUS, CELL) as sink,
    ):
        decider = world.decider(process, log, inbox, believed, recovered)
        fleet = _taken_over(world, await decider.recover())
        over: dict[str, int] = {}
        for job, attempt in world.chain.ends:
            over[job] = max(attempt, over.get(job, 0))
        Fence(process.name, fleet, world.guard, over)
        clock, key = world.clock(process.name), Key(f"key-{FLEET}")
        session, number = f"{process.name}-{world.starts[process.name]}", 0

        async def send(command: Command) -> None:
            nonlocal number
            number += 1
            await sink.send(
                structured(
                    command,
                    source="fleet",
                    id=f"{session}-{number}",
                    time_ms=clock.now_ms(),
                    key_id=key.key_id,
                    sign=key.sign,
                )
            )

        await together(decider.run(), live(fleet, told, send, clock))


def _taken_over(world: World, cell: Cell) -> Fleet:
    """The nodes that the cell knows are up; the others register."""
    nodes = world.work.nodes
    fleet = Fleet(
        lambda start: world.work.work[start.job],
        patience_ms=500,
        outages=world.outages({n.node for n in nodes}),
        origin_ms=START_MS,
    )
    up = [n for n in nodes if n.node in cell.nodes and not cell.nodes[n.node].lost]
    now_ms = world.clock("decider").now_ms()
    fleet.add_nodes(up, now_ms, known=True)
    fleet.add_nodes([n for n in nodes if n not in up], now_ms)
    return fleet
