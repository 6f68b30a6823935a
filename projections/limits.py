"""Rate limits: a token bucket for each caller, shared by all processes through Redis.

Without Redis each process counts for itself: a caller then gets at most as much from each of them.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, cast

from msgspec import Struct
from redis.asyncio import Redis

from projections.volatile import Volatile

CALLERS: Final = 10_000
"""Buckets that a process keeps for itself; the one used least recently goes first."""

ALMOST: Final = 1e-9
"""Parts of a token that sums of fractions may lack of it: who waited as told has waited enough."""

_TAKE: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local rate, burst, almost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', KEYS[1], 'left', 'at')
local left, at = tonumber(known[1]) or burst, tonumber(known[2]) or now
left = math.min(burst, left + math.max(0, now - at) * rate / 1000)
local wait = 0
if left >= 1 - almost then left = left - 1 else wait = math.ceil((1 - left) * 1000 / rate) end
redis.call('HSET', KEYS[1], 'left', tostring(left), 'at', now)
redis.call('PEXPIRE', KEYS[1], math.ceil(burst * 1000 / rate) + 1000)
return wait
"""


class Limits:
    """`rate` requests a second for each caller, after a burst of `burst`."""

    def __init__(
        self,
        rate: int,
        burst: int,
        shared: Volatile | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._shared = shared
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    async def take(self, caller: str) -> int:
        """0 if the caller may go on, else the milliseconds until it may."""
        if self._shared is not None:
            wait_ms = await self._shared.ask(lambda redis: self._eval(redis, caller))
            if wait_ms is not None:
                return int(wait_ms)
        return self._take_here(caller)

    async def _eval(self, redis: Redis, caller: str) -> Any:
        key = f"aquifer:limit:{caller}"
        answer = redis.eval(_TAKE, 1, key, str(self._rate), str(self._burst), str(ALMOST))
        return await cast(Any, answer)

    def _take_here(self, caller: str) -> int:
        now = self._clock()
        bucket = self._buckets.setdefault(caller, _Bucket(float(self._burst), now))
        self._buckets.move_to_end(caller)
        if len(self._buckets) > CALLERS:
            self._buckets.popitem(last=False)
        earned = max(0.0, now - bucket.at) * self._rate
        bucket.left, bucket.at = min(float(self._burst), bucket.left + earned), now
        if bucket.left >= 1 - ALMOST:
            bucket.left -= 1
            return 0
        return math.ceil((1 - bucket.left) * 1000 / self._rate)


class _Bucket(Struct):
    left: float
    at: float
