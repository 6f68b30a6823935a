"""Tasks that live and end together."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from streams.ending import end


def until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Run it until it ends, or until Ctrl-C or SIGTERM, which cancel it and are a good end."""
    asyncio.run(_until_stopped(work))


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    task, stopped = asyncio.create_task(work), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    told = asyncio.create_task(stopped.wait())
    await asyncio.wait((task, told), return_when=asyncio.FIRST_COMPLETED)
    await end((task, told))
    if not (stopped.is_set() and task.cancelled()):
        task.result()


async def together(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until the first ends; the others are cancelled. Raises what ended the first."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)
    for task in done:
        task.result()
