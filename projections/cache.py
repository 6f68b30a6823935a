"""Answers that were given before: an answer is good as long as its round is the newest one.

The key holds the round's hash, so nothing has to be invalidated, and another ledger under the same
name is another key. It also holds for whom the answer was made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute

from projections.volatile import Volatile

KEEP_S: Final = 60
MAX_BYTES: Final = 1024 * 1024


class Cache:
    def __init__(self, shared: Volatile) -> None:
        self._shared = shared

    async def get(self, key: str) -> bytes | None:
        body = await self._shared.ask(lambda redis: redis.get(key))
        return body if isinstance(body, bytes) else None

    async def put(self, key: str, body: bytes) -> None:
        if len(body) <= MAX_BYTES:
            await self._shared.ask(lambda redis: redis.set(key, body, ex=KEEP_S))


def key_of(*parts: str) -> str:
    return f"aquifer:answer:{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"


class Remembered(Exception):
    """Ends a request with the answer that was given before."""

    def __init__(self, body: bytes, headers: dict[str, str]) -> None:
        super().__init__("remembered")
        self.body = body
        self.headers = headers


class RememberingRoute(APIRoute):
    """Keeps each good answer under the key that `reading` has left at the request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def remembering(request: Request) -> Response:
            response = await answer(request)
            kept: tuple[Cache, str] | None = getattr(request.state, "kept", None)
            if kept is not None and response.status_code == 200:
                cache, key = kept
                await cache.put(key, bytes(response.body))
            return response

        return remembering
