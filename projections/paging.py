"""Pages over rows: of one partition, or of buckets that follow one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from projections.reading import Reading
from projections.store import Fields
from projections.tables import BUCKET, Key

SCANNED: Final = 5000
"""Rows that one request looks at; a page may be short, and `next` goes on from there."""
CHUNK: Final = 500


def _everything(row: Fields) -> bool:
    return True


async def of_partition(
    read: Reading,
    table: str,
    partition: Key,
    cursor: str | None,
    limit: int,
    *,
    keep: Callable[[Fields], bool] = _everything,
    backwards: bool = False,
) -> dict[str, Any]:
    after = read.after(cursor)
    items, after = await _collect(read, table, partition, after, limit, keep, backwards)
    return read.page(items, after)


async def _collect(
    read: Reading,
    table: str,
    partition: Key,
    after: Key | None,
    limit: int,
    keep: Callable[[Fields], bool],
    backwards: bool,
) -> tuple[list[Fields], Key | None]:
    """Rows that are kept, and where to go on; None at the end of the partition."""
    items: list[Fields] = []
    scanned = 0
    while True:
        rows = await read.scan(table, partition, after, CHUNK, backwards)
        for after, row in rows:
            if row is not None and keep(row):
                items.append(row)
                if len(items) == limit:
                    return items, after
        scanned += len(rows)
        if len(rows) < CHUNK:
            return items, None
        if scanned >= SCANNED:
            return items, after


async def of_buckets(
    read: Reading,
    table: str,
    last: int,
    cursor: str | None,
    limit: int,
    *,
    keep: Callable[[Fields], bool] = _everything,
    oldest_first: bool = False,
) -> dict[str, Any]:
    """Rows of the buckets up to the one that holds number `last`, newest first by default."""
    after = read.after(cursor)
    bucket = int(after[0]) if after else (0 if oldest_first else max(0, last) // BUCKET)
    inner = tuple(after[1:]) if after and len(after) > 1 else None
    items: list[Fields] = []
    scanned = 0
    while 0 <= bucket <= last // BUCKET:
        more, inner = await _collect(
            read, table, (bucket,), inner, limit - len(items), keep, not oldest_first
        )
        items.extend(more)
        scanned += BUCKET
        if inner is not None:
            return read.page(items, (bucket, *inner))
        bucket += 1 if oldest_first else -1
        if len(items) >= limit or scanned >= SCANNED:
            return read.page(items, (bucket,) if 0 <= bucket <= last // BUCKET else None)
    return read.page(items, None)
