"""Redis, for what may be lost: whoever asks gets no answer rather than trouble or delay."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

ANSWER_S: Final = 0.1
PAUSE_S: Final = 2.0

T = TypeVar("T")


class Volatile:
    """A Redis that is left alone for a while after it did not answer."""

    def __init__(self, url: str, answer_s: float = ANSWER_S) -> None:
        self._redis = Redis.from_url(
            url,
            socket_timeout=answer_s,
            socket_connect_timeout=answer_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._silent_until = 0.0

    async def ask(self, what: Callable[[Redis], Awaitable[T]]) -> T | None:
        """The answer; None also if there is none in time."""
        if time.monotonic() < self._silent_until:
            return None
        try:
            return await what(self._redis)
        except (RedisError, OSError):
            self._silent_until = time.monotonic() + PAUSE_S
            return None

    async def close(self) -> None:
        await self._redis.aclose()
