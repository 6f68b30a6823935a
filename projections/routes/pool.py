"""The pool: regions as this one knows them, jobs that come and go, rights; what peers answer."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from projections import paging, pool_rows
from projections.cache import RememberingRoute
from projections.reading import Admitted, Cursor, Limit, Read, bare, services_of
from projections.services import Services

router = APIRouter(prefix="/v1", tags=["pool"], route_class=RememberingRoute)
asked = APIRouter(prefix="/v1", tags=["pool"])
"""What peers answer belongs to no round of this region, and is not kept."""


@router.get("/pool/regions")
async def regions(read: Read, cursor: Cursor = None, limit: Limit = 100) -> dict[str, Any]:
    """This region and its peers: free slots, how fresh that is, flows of jobs, rights to spare."""
    page = await paging.of_partition(read, "regions", (), cursor, limit)
    at_ms = read.applied.at_ms
    items = [{**row, "inventory": pool_rows.state(row, at_ms)} for row in page["items"]]
    return {**page, "items": items}


@router.get("/pool/hand-offs")
async def hand_offs(
    read: Read,
    step: str | None = None,
    peer: str | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Jobs that are offered, on their way, awaited, came from a peer, or are guarded."""

    def keep(row: dict[str, Any]) -> bool:
        return step in (None, row["step"]) and peer in (None, row["peer"])

    return await paging.of_partition(read, "hand_offs", (), cursor, limit, keep=keep)


@router.get("/pool/rights")
async def rights(read: Read, cursor: Cursor = None, limit: Limit = 100) -> dict[str, Any]:
    """Quota of the pool that this region holds, and what it sent to and received from peers."""
    return await paging.of_partition(read, "rights", (), cursor, limit)


@asked.get("/pool")
async def pool(
    services: Annotated[Services, Depends(services_of)], reader: Admitted
) -> dict[str, Any]:
    """The whole pool: each region's own summary with its age, or why it does not answer."""
    applied = await services.store.applied(services.cell)
    row = await services.store.get("summary", (services.cell,))
    own = {"region": services.cell, "answers": True, "round": applied.round, "at_ms": applied.at_ms}
    parts = [{**own, **bare(row or {})}]
    if services.ask_peers is not None:
        parts += await services.ask_peers()
    now_ms = time.time_ns() // 1_000_000
    return {"parts": [_aged(part, now_ms) for part in parts]}


def _aged(part: dict[str, Any], now_ms: int) -> dict[str, Any]:
    """With the time since the part's newest round."""
    return {**part, "age_ms": max(0, now_ms - part["at_ms"])} if part["answers"] else part
