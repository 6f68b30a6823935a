"""The fleet: the agents of all nodes in one process, with the faults that a scenario asks for.

It is driven by a virtual clock (`streams.simulate`) or by a real one (`live`), and speaks the same
protocol in both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from domain.commands import Command, RegisterNode
from domain.ports import Clock
from streams.agent import Agent, Work, estimated
from streams.dispatch import Instruction, Start
from streams.scenario import Outage

LONGEST_WAIT_S: Final = 0.1
"""The live fleet looks at its clock at least this often: the clock may run faster than ours."""


class Fleet:
    """One agent that speaks for all nodes, so that a gang's end is one report."""

    def __init__(
        self,
        work_of: Callable[[Start], Work] = estimated,
        *,
        speed: int = 1,
        patience_ms: int = 0,
        outages: Iterable[Outage] = (),
        origin_ms: int = 0,
    ) -> None:
        """Times of `outages` count from `origin_ms`. For the rest see `Agent`."""
        self.agent = Agent(work_of, speed=speed, patience_ms=patience_ms)
        self._specs: dict[str, RegisterNode] = {}
        self._faults: list[tuple[int, str, bool]] = []
        """(time, node, whether it comes back)"""
        for outage in outages:
            self._faults.append((origin_ms + outage.at_ms, outage.node, False))
            self._faults.append((origin_ms + outage.until_ms, outage.node, True))
        heapify(self._faults)

    def add_nodes(self, specs: Iterable[RegisterNode], now_ms: int, *, known: bool = False) -> None:
        """Bring up nodes; `known`: they are registered already, only their agents start anew."""
        for spec in specs:
            self._specs[spec.node] = spec
            if known:
                self.agent.know_node(spec, now_ms)
            else:
                self.agent.add_node(spec, now_ms)

    def fail(self, node: str, now_ms: int, until_ms: int) -> None:
        """The node falls silent now and comes back later."""
        self.agent.drop_node(node, now_ms)
        heappush(self._faults, (until_ms, node, True))

    def handle(self, instructions: Iterable[Instruction], now_ms: int) -> None:
        for instruction in instructions:
            self.agent.handle(instruction, now_ms)

    def next_ms(self) -> int | None:
        due = self.agent.next_ms()
        if not self._faults:
            return due
        fault = self._faults[0][0]
        return fault if due is None else min(due, fault)

    def advance(self, now_ms: int) -> list[Command]:
        """What the agents have to say by now, in order."""
        while self._faults and self._faults[0][0] <= now_ms:
            _, node, returns = heappop(self._faults)
            if returns:
                self.agent.add_node(self._specs[node], now_ms)
            else:
                self.agent.drop_node(node, now_ms)
        return self.agent.advance(now_ms)


async def live(
    fleet: Fleet,
    told: asyncio.Queue[Sequence[Instruction]],
    send: Callable[[Command], Awaitable[None]],
    clock: Clock,
) -> None:
    """Run the fleet until cancelled: obey what is told, send what there is to say."""
    while True:
        now_ms = clock.now_ms()
        for command in fleet.advance(now_ms):
            await send(command)
        due_ms = fleet.next_ms()
        if due_ms is not None and due_ms <= now_ms:
            continue
        try:  # asyncio.wait_for would lose a cancellation that comes together with an item
            async with asyncio.timeout(LONGEST_WAIT_S):
                told_now = await told.get()
        except TimeoutError:
            continue
        fleet.handle(told_now, clock.now_ms())
