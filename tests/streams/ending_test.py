"""Tasks end, also one that takes a cancellation for another's."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from streams import ending


def test_a_task_that_loses_a_cancellation_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "AGAIN_S", 0.01)

    async def careless() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    async def fails() -> None:
        raise ValueError

    async def go() -> None:
        tasks = [asyncio.create_task(work) for work in (careless(), fails())]
        await asyncio.sleep(0)
        await ending.end(tasks)
        assert tasks[0].cancelled()
        assert isinstance(tasks[1].exception(), ValueError)

    asyncio.run(go())
