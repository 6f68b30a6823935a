"""What became of the slots: usage by account, for chargeback, and the key figures of the cell."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from domain.accounting import NOBODY
from projections import kpis as views
from projections import paging
from projections.cache import RememberingRoute
from projections.paging import CHUNK
from projections.reading import Cursor, Limit, Read, Reading
from projections.store import Fields

router = APIRouter(prefix="/v1", tags=["usage"], route_class=RememberingRoute)


@router.get("/usage")
async def usage(
    read: Read,
    account: str | None = None,
    accelerator: str | None = None,
    cursor: Cursor = None,
    limit: Limit = 1000,
) -> dict[str, Any]:
    """Slot-seconds by account and accelerator type, and by use, since the account's first work.

    What was used between two moments is the difference of the answers as of these.
    """

    def keep(row: Fields) -> bool:
        wanted = account in (None, row["account"]) and accelerator in (None, row["accelerator"])
        return wanted and row["account"] != NOBODY

    page = await paging.of_partition(read, "books", (), cursor, limit, keep=keep)
    return {**page, "items": [views.usage(row, read.applied.at_ms) for row in page["items"]]}


@router.get("/kpis")
async def kpis(read: Read) -> dict[str, Any]:
    """Allocation, goodput, waste, fragmentation, in all and by type; queueing delay by tier."""
    rows, at_ms = await _all(read, "books"), read.applied.at_ms
    types = sorted({row["accelerator"] for row in rows})
    by_type = {t: [row for row in rows if row["accelerator"] == t] for t in types}
    delays = sorted(await _all(read, "delays"), key=lambda row: int(row["rank"]))
    return read.answer(
        cell=read.cell,
        all=views.figures(rows, at_ms),
        by_accelerator={t: views.figures(found, at_ms) for t, found in by_type.items()},
        delays=[views.delay(row) for row in delays],
    )


async def _all(read: Reading, table: str) -> list[Fields]:
    """The rows of a small table that the reader sees."""
    found: list[Fields] = []
    after: tuple[Any, ...] | None = None
    while True:
        more = await read.scan(table, (), after, CHUNK)
        found.extend(row for _, row in more if row is not None)
        if len(more) < CHUNK:
            return found
        after = more[-1][0]
