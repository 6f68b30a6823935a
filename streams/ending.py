"""How tasks are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final

AGAIN_S: Final = 60.0
"""Longer than what is done at an end takes: a worker waits 30 s for what it is just starting, and
its election has 10 s to leave."""


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel them until all are done. A single cancellation can get lost: whatever a task waits for
    may come at the same moment, and a library may take the cancellation for its own."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # it is seen, and nobody needs to be warned of it
