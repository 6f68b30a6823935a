"""What was decided: rounds, decisions with their reasons, and the outcome of each command."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path

from projections import paging
from projections.cache import RememberingRoute
from projections.problems import Problem
from projections.reading import Cursor, Limit, Read, bare
from projections.tables import BUCKET

router = APIRouter(prefix="/v1", tags=["history"], route_class=RememberingRoute)

Decision = Literal["AttemptStarted", "JobClaimed", "PreemptionDecided"]


@router.get("/rounds")
async def rounds(read: Read, cursor: Cursor = None, limit: Limit = 100) -> dict[str, Any]:
    """Rounds, newest first: what they took in, what they decided, and their hash in the chain."""
    return await paging.of_buckets(read, "rounds", read.applied.round, cursor, limit)


@router.get("/rounds/{number}")
async def round(read: Read, number: Annotated[int, Path(ge=0, lt=2**63)]) -> dict[str, Any]:
    found = await read.get("rounds", number // BUCKET, number)
    if found is None:
        raise Problem(404, "not_found", f"round {number} is not there", round=read.applied.round)
    return {**bare(found), "reflects": read.applied.round}


@router.get("/decisions")
async def decisions(
    read: Read,
    event: Decision | None = None,
    subject: str | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Placements, claims and preemptions with what they were weighed against, newest first."""
    wanted = {n: v for n, v in (("event", event), ("subject", subject)) if v is not None}
    return await paging.of_buckets(
        read,
        "decisions",
        read.applied.round,
        cursor,
        limit,
        keep=lambda row: all(row[n] == v for n, v in wanted.items()),
    )


@router.get("/commands/{source}/{id:path}")
async def outcome(read: Read, source: str, id: str) -> dict[str, Any]:
    """What became of a command: accepted (its facts are in that round), or refused and why."""
    found = await read.get("outcomes", source, id)
    if found is None:
        detail = "no such command was decided yet; if it was malformed it is a dead letter"
        raise Problem(404, "not_decided", detail, round=read.applied.round)
    return {**bare(found), "reflects": read.applied.round}
