"""How fresh an answer is: the round that it reflects, as ETag, header and in the body."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request, Response

from projections.problems import NotModified, Problem
from projections.services import Services
from projections.store import Applied, Fields

POLL_S: Final = 0.01
MAX_LIMIT: Final = 1000

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items of a page.")]
Cursor = Annotated[str | None, Query(max_length=1024, description="`next` of the page before.")]


def services_of(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


class Reading:
    """One request's view of the store."""

    def __init__(self, services: Services, applied: Applied, query: str) -> None:
        self.services = services
        self.store = services.store
        self.cell = services.cell
        self.applied = applied
        self.query = query
        """Path and filters, to which a cursor is bound."""

    def answer(self, **body: Any) -> dict[str, Any]:
        return {"round": self.applied.round, "at_ms": self.applied.at_ms, **body}

    def page(self, items: list[Fields], after: tuple[Any, ...] | None) -> dict[str, Any]:
        """A page; `after` is where the next one begins, or None."""
        cursor = None if after is None else self.services.cursors.make(self.query, after)
        return self.answer(items=[bare(item) for item in items], next=cursor)

    def after(self, cursor: str | None) -> tuple[Any, ...] | None:
        return self.services.cursors.read(self.query, cursor)


def bare(item: Fields) -> Fields:
    """The row without what belongs to the store."""
    return {n: v for n, v in item.items() if n not in ("cell", "bucket")}


async def reading(
    request: Request,
    response: Response,
    services: Annotated[Services, Depends(services_of)],
    min_round: Annotated[
        int | None, Query(ge=0, description="Answer with at least this round; waits for it.")
    ] = None,
) -> Reading:
    applied = await _at_least(services, min_round or 0)
    etag = f'W/"{services.cell}.{applied.round}"'
    headers = {"ETag": etag, "Aquifer-Round": str(applied.round), "Cache-Control": "no-cache"}
    if etag in [t.strip() for t in request.headers.get("if-none-match", "").split(",")]:
        raise NotModified(headers)
    response.headers.update(headers)
    given = sorted((k, v) for k, v in request.query_params.items() if k not in _UNBOUND)
    return Reading(services, applied, f"{request.url.path}?{given}")


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
