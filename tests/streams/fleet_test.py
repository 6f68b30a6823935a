"""A fleet ends when it is told to, whatever comes at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from aquifer.clocks import SystemClock
from domain.commands import Command
from streams.agent import Work
from streams.dispatch import Instruction
from streams.fleet import Fleet, live


@pytest.mark.parametrize("later", range(6))
def test_a_cancellation_is_not_lost_when_an_instruction_comes_with_it(later: int) -> None:
    async def send(command: Command) -> None:
        raise AssertionError("nobody has anything to say")

    async def go() -> None:
        told: asyncio.Queue[Sequence[Instruction]] = asyncio.Queue()
        fleet = Fleet(lambda _: Work(1000))
        task = asyncio.create_task(live(fleet, told, send, SystemClock()))
        await asyncio.sleep(0.01)
        told.put_nowait([])
        for _ in range(later):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=1)
        ended = task.cancelled()
        task.cancel()
        assert ended

    asyncio.run(go())
