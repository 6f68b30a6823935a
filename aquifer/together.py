"""Tasks that live and end together."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any


def until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Run it until it ends, or until Ctrl-C or SIGTERM, which are a good end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        asyncio.run(work)


async def together(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until the first ends; the others are cancelled. Raises what ended the first."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
