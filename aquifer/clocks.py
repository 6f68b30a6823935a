"""Clocks: the machine's, and one that goes on from a given moment at a given speed."""

from __future__ import annotations

import time


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class ScaledClock:
    """Starts at `origin_ms` when it is made, and then runs `speed` times as fast as the world."""

    def __init__(self, origin_ms: int, speed: int) -> None:
        self._origin_ms = origin_ms
        self._speed = speed
        self._made_ns = time.monotonic_ns()

    def now_ms(self) -> int:
        return self._origin_ms + (time.monotonic_ns() - self._made_ns) * self._speed // 1_000_000
