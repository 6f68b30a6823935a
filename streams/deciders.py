"""Deciders of several cells in one process, with one election for all of them.

Processes that stand for the same cells share them; each follows those that others lead, and takes
some over when a process comes or goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streams.election import Election, session_ms
from streams.ending import end
from streams.faust_app import Worker, check, decide
from streams.heap import tended


async def run_deciders(workers: Sequence[Worker]) -> None:
    """Stand for all cells until cancelled. What ends the decider of one cell is raised, and ends
    the others here: another process, or this one when it is started again, goes on with them."""
    for worker in workers:
        await check(worker)
    bootstrap = workers[0].bootstrap
    cells = [worker.cell for worker in workers]
    async with tended(), Election(bootstrap, cells, await session_ms(bootstrap)) as election:
        tasks = [asyncio.create_task(decide(worker, election)) for worker in workers]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(tasks)
        for task in done:
            task.result()
