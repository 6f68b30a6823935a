"""How fresh an answer is: the round that it reflects, as ETag, header and in the body."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request, Response

from projections.access import Reader, Sight
from projections.cache import Remembered, key_of
from projections.problems import NotModified, Problem
from projections.services import Services
from projections.store import Applied, Fields
from projections.tables import TABLES, Key

POLL_S: Final = 0.01
MAX_LIMIT: Final = 1000

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items of a page.")]
Cursor = Annotated[str | None, Query(max_length=1024, description="`next` of the page before.")]


def services_of(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


async def admitted(
    request: Request, services: Annotated[Services, Depends(services_of)]
) -> Reader | None:
    """Who asks, within the limits of that caller; strangers are counted by their address."""
    readers = services.readers
    reader = readers.find(request.headers.get("authorization")) if readers else None
    if services.limits is not None:
        address = request.client.host if request.client else ""
        wait_ms = await services.limits.take(f"actor:{reader.actor}" if reader else address)
        if wait_ms:
            headers = {"Retry-After": str(-(-wait_ms // 1000))}
            raise Problem(429, "too_many_requests", "slow down", headers=headers, wait_ms=wait_ms)
    if readers is not None and reader is None:
        headers = {"WWW-Authenticate": "Bearer"}
        raise Problem(401, "unauthenticated", "a reader's token is asked for", headers=headers)
    return reader


Admitted = Annotated[Reader | None, Depends(admitted)]


class Reading:
    """One request's view of the store: what its reader may see, and nothing else."""

    def __init__(self, services: Services, applied: Applied, sight: Sight, query: str) -> None:
        self._services = services
        self._sight = sight
        self.cell = services.cell
        self.applied = applied
        self.query = query
        """Path and filters, to which a cursor is bound."""

    async def get(self, table: str, *key: str | int) -> Fields | None:
        """The row with this key in the cell, if it is seen."""
        row = await self._services.store.get(table, (self.cell, *key))
        return self._sight.shown(table, row)

    async def scan(
        self, table: str, partition: Key, after: Key | None, limit: int, backwards: bool = False
    ) -> list[tuple[Key, Fields | None]]:
        """Clustering keys from `after` on, each with its row, or None where it is not seen."""
        rows = await self._services.store.scan(
            table, (self.cell, *partition), after=after, limit=limit, backwards=backwards
        )
        names = TABLES[table].clustering
        return [(tuple(row[n] for n in names), self._sight.shown(table, row)) for row in rows]

    def answer(self, **body: Any) -> dict[str, Any]:
        return {"round": self.applied.round, "at_ms": self.applied.at_ms, **body}

    def page(self, items: list[Fields], after: tuple[Any, ...] | None) -> dict[str, Any]:
        """A page; `after` is where the next one begins, or None."""
        cursor = None if after is None else self._services.cursors.make(self.query, after)
        return self.answer(items=[bare(item) for item in items], next=cursor)

    def after(self, cursor: str | None) -> tuple[Any, ...] | None:
        return self._services.cursors.read(self.query, cursor)


def bare(item: Fields) -> Fields:
    """The row without what belongs to the store."""
    return {n: v for n, v in item.items() if n not in ("cell", "bucket")}


async def reading(
    request: Request,
    response: Response,
    services: Annotated[Services, Depends(services_of)],
    reader: Admitted,
    min_round: Annotated[
        int | None, Query(ge=0, description="Answer with at least this round; waits for it.")
    ] = None,
) -> Reading:
    applied = await _at_least(services, min_round or 0)
    etag = f'W/"{services.cell}.{applied.round}"'
    headers = {
        "ETag": etag,
        "Aquifer-Round": str(applied.round),
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization",
    }
    if etag in [t.strip() for t in request.headers.get("if-none-match", "").split(",")]:
        raise NotModified(headers)
    sight = await services.sight(reader, applied)
    await _recall(request, services, applied, sight, headers)
    response.headers.update(headers)
    given = sorted((k, v) for k, v in request.query_params.items() if k not in _UNBOUND)
    return Reading(services, applied, sight, f"{request.url.path}?{given}")


async def _recall(
    request: Request, services: Services, applied: Applied, sight: Sight, headers: dict[str, str]
) -> None:
    """Raises Remembered if the same was answered before; else says where to keep the answer."""
    if services.cache is None:
        return
    asked = json.dumps(sorted(request.query_params.multi_items()))
    whose = "" if sight.accounts is None else f"actor:{sight.actor}"
    key = key_of(services.cell, applied.hash, whose, request.url.path, asked)
    body = await services.cache.get(key)
    if body is not None:
        raise Remembered(body, headers)
    request.state.kept = (services.cache, key)


_UNBOUND: Final = ("cursor", "limit", "min_round")


async def _at_least(services: Services, round: int) -> Applied:
    deadline = time.monotonic() + services.wait_s
    while True:
        applied = await services.store.applied(services.cell)
        if applied.round >= round:
            return applied
        if time.monotonic() >= deadline:
            detail = f"round {round} is asked for, the read model is at {applied.round}"
            raise Problem(503, "not_yet", detail, headers={"Retry-After": "1"}, round=applied.round)
        await asyncio.sleep(POLL_S)


Read = Annotated[Reading, Depends(reading)]
