"""Clocks: the machine's, and one that goes on from a given moment at a given speed."""

from __future__ import annotations

import asyncio
import time


class ScaledClock:
    """Stands at 0 until it is started, and then runs `speed` times as fast as the world."""

    def __init__(self, speed: int) -> None:
        self._speed = speed
        self._origin_ms = 0
        self._started_ns: int | None = None

    def start(self, at_ms: int) -> None:
        self._origin_ms = at_ms
        self._started_ns = time.monotonic_ns()

    def now_ms(self) -> int:
        if self._started_ns is None:
            return self._origin_ms
        passed_ns = time.monotonic_ns() - self._started_ns
        return self._origin_ms + passed_ns * self._speed // 1_000_000

    async def reach(self, at_ms: int) -> None:
        """Return when this moment has come."""
        await asyncio.sleep(max(0, at_ms - self.now_ms()) / 1000 / self._speed)


class SystemClock:
    """Milliseconds since the epoch, as the machine has them."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000
