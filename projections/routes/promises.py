"""Promises: what tiers owe in the window that runs, and what they delivered in those before."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from domain.specs import TIERS
from projections import paging, promised
from projections.cache import RememberingRoute
from projections.reading import Cursor, Limit, Read
from projections.store import Fields

router = APIRouter(prefix="/v1", tags=["promises"], route_class=RememberingRoute)


@router.get("/promises")
async def promises(
    read: Read, account: str | None = None, cursor: Cursor = None, limit: Limit = 1000
) -> dict[str, Any]:
    """By account, accelerator type and tier: due and delivered slot-seconds so far, and slack."""

    def keep(row: Fields) -> bool:
        return account in (None, row["account"])

    page = await paging.of_partition(read, "pledges", (), cursor, limit, keep=keep)
    at_ms = read.applied.at_ms
    return {**page, "items": [v for row in page["items"] for v in promised.standing(row, at_ms)]}


@router.get("/windows")
async def windows(
    read: Read, account: str = "", cursor: Cursor = None, limit: Limit = 100
) -> dict[str, Any]:
    """Closed windows of an account, newest first: what was due, delivered, and whether it met."""
    page = await paging.of_partition(read, "windows", (account,), cursor, limit, backwards=True)
    return {**page, "items": [_closed(row["body"]) for row in page["items"]]}


def _closed(body: Fields) -> Fields:
    return {"starts": 0, "late": 0, **body, "tier": TIERS[body["tier"]].value}
