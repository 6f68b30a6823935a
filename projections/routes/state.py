"""The state as it is: quota tree, queues, nodes, capacity, reservations, what waits and why."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from domain.specs import Level, Tier
from projections import paging
from projections.cache import RememberingRoute
from projections.problems import Problem
from projections.reading import Cursor, Limit, Read, bare
from projections.store import Fields

router = APIRouter(prefix="/v1", tags=["state"], route_class=RememberingRoute)


@router.get("/summary")
async def summary(read: Read) -> dict[str, Any]:
    """Counts of jobs and nodes, slots and free slots by type, the policy."""
    found = await read.get("summary")
    return read.answer(cell=read.cell, **bare(found or {}))


@router.get("/accounts")
async def accounts(read: Read, cursor: Cursor = None, limit: Limit = 1000) -> dict[str, Any]:
    """The quota tree: each account with its parent, nominal, used, borrowed and lent amounts."""
    return await paging.of_partition(read, "accounts", (), cursor, limit)


@router.get("/accounts/{account}")
async def account(read: Read, account: str) -> dict[str, Any]:
    return await _one(read, "accounts", account)


@router.get("/queues")
async def queues(
    read: Read, account: str | None = None, cursor: Cursor = None, limit: Limit = 1000
) -> dict[str, Any]:
    return await paging.of_partition(
        read, "queues", (), cursor, limit, keep=_matches(account=account)
    )


@router.get("/policies")
async def policies(read: Read, cursor: Cursor = None, limit: Limit = 100) -> dict[str, Any]:
    """Policies: which version counts, which is on trial, all versions, and the document."""
    return await paging.of_partition(read, "policies", (), cursor, limit)


@router.get("/policies/{policy}")
async def policy(read: Read, policy: str) -> dict[str, Any]:
    return await _one(read, "policies", policy)


@router.get("/nodes")
async def nodes(
    read: Read,
    status: str | None = None,
    accelerator: str | None = None,
    cluster: str | None = None,
    rack: str | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    keep = _matches(status=status, accelerator=accelerator, cluster=cluster, rack=rack)
    return await paging.of_partition(read, "nodes", (), cursor, limit, keep=keep)


@router.get("/nodes/{node}")
async def node(read: Read, node: str) -> dict[str, Any]:
    return await _one(read, "nodes", node)


@router.get("/capacity")
async def capacity(
    read: Read,
    level: Annotated[Level, Query(description="Which domains.")] = Level.CLUSTER,
    accelerator: str | None = None,
    cursor: Cursor = None,
    limit: Limit = 1000,
) -> dict[str, Any]:
    """Free slots by fabric domain and accelerator type; `free_by_node` has k -> nodes with k free.

    A domain takes a gang of n replicas of g slots iff the sum of floor(k / g) x nodes is n or more.
    """
    return await paging.of_partition(
        read, "capacity", (level.value,), cursor, limit, keep=_matches(accelerator=accelerator)
    )


@router.get("/reservations")
async def reservations(
    read: Read,
    account: str | None = None,
    status: str | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    keep = _matches(account=account, status=status)
    return await paging.of_partition(read, "reservations", (), cursor, limit, keep=keep)


@router.get("/reservations/{reservation}")
async def reservation(read: Read, reservation: str) -> dict[str, Any]:
    return await _one(read, "reservations", reservation)


@router.get("/shapes")
async def shapes(
    read: Read,
    queue: str | None = None,
    account: str | None = None,
    tier: Tier | None = None,
    reason: str | None = None,
    waiting: bool | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Groups of equal jobs: how many of them wait, and why."""
    same = _matches(queue=queue, account=account, tier=tier, reason=reason)
    return await paging.of_partition(
        read,
        "shapes",
        (),
        cursor,
        limit,
        keep=lambda row: same(row) and waiting in (None, row["waiting"] > 0),
    )


def _matches(**wanted: str | None) -> Any:
    asked = {n: str(v) for n, v in wanted.items() if v is not None}

    def keep(row: Fields) -> bool:
        return all(row[n] == v for n, v in asked.items())

    return keep


async def _one(read: Read, table: str, name: str) -> dict[str, Any]:
    found = await read.get(table, name)
    if found is None:
        raise Problem(404, "not_found", f"{table} has no {name!r}", round=read.applied.round)
    return read.answer(**bare(found))
