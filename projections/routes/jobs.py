"""Jobs: where they are, their whole history, and why they wait."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter

from domain.specs import Tier
from projections import paging
from projections.cache import RememberingRoute
from projections.paging import CHUNK
from projections.problems import Problem
from projections.reading import Cursor, Limit, Read, Reading, bare
from projections.store import Fields
from projections.tables import BUCKET

router = APIRouter(prefix="/v1", tags=["jobs"], route_class=RememberingRoute)

State = Literal[
    "waiting", "claimed", "starting", "running", "stopping", "finished", "failed", "cancelled"
]


@router.get("/jobs")
async def jobs(
    read: Read,
    queue: str | None = None,
    account: str | None = None,
    tier: Tier | None = None,
    state: State | None = None,
    oldest_first: bool = False,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Jobs by admission, newest first. With filters a page may be short: go on with `next`."""
    wanted = {"queue": queue, "account": account, "tier": tier, "state": state}
    asked = {n: str(v) for n, v in wanted.items() if v is not None}
    summary = await read.get("summary")
    last = summary["jobs_admitted"] - 1 if summary else -1
    return await paging.of_buckets(
        read,
        "jobs",
        last,
        cursor,
        limit,
        keep=lambda row: all(row[n] == v for n, v in asked.items()),
        oldest_first=oldest_first,
    )


@router.get("/jobs/{job}")
async def job(read: Read, job: str) -> dict[str, Any]:
    """One job: its state, why it waits, the rules of policies for it, and all that happened."""
    row = await _row(read, job)
    events = await _all(read, "job_events", (job,))
    waiting = await _waiting(read, row) if row["state"] == "waiting" else None
    ruled = await read.get("shape_rules", row["shape"])
    rules = ruled["rules"] if ruled is not None else []
    told = [_told(e) for e in events]
    return read.answer(**bare(row), waiting=waiting, rules=rules, events=told)


async def _row(read: Reading, job: str) -> Fields:
    known = await read.get("job_numbers", job)
    row = None
    if known is not None:
        number = known["number"]
        row = await read.get("jobs", number // BUCKET, number)
    if row is None:
        raise Problem(404, "not_found", f"no job is named {job!r}", round=read.applied.round)
    return row


async def _waiting(read: Reading, row: Fields) -> dict[str, Any] | None:
    shape = await read.get("shapes", row["shape"])
    if shape is None:
        return None
    since = await _all(read, "shape_events", (row["shape"],))
    return {
        "reason": shape["reason"],
        "needed_milli": shape["needed_milli"],
        "available_milli": shape["available_milli"],
        "bound": shape["bound"],
        "alike": shape["waiting"],
        "reasons": [
            {"round": e["round"], "at_ms": e["at_ms"], **e["body"]}
            for e in since
            if e["at_ms"] >= row["submitted_ms"]
        ],
    }


def _told(event: Fields) -> dict[str, Any]:
    return {n: event[n] for n in ("round", "n", "at_ms", "event", "body")}


async def _all(read: Reading, table: str, partition: tuple[Any, ...]) -> list[Fields]:
    rows: list[Fields] = []
    after: tuple[Any, ...] | None = None
    while True:
        more = await read.scan(table, partition, after, CHUNK)
        rows.extend(row for _, row in more if row is not None)
        if len(more) < CHUNK:
            return rows
        after = more[-1][0]
