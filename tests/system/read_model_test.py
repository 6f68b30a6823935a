"""Both profiles' read models answer alike: SQLite after one ledger, Cassandra after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.ledger import Head, Round, canonical, digest
from infra.cassandra import LocalCassandra
from infra.kafka import LocalKafka
from projections.cassandra_store import CassandraStore
from projections.http import create_app
from projections.projector import Projector
from projections.services import Services
from projections.sqlite_store import SqliteStore
from projections.store import Store
from tests.system import profiles
from tests.system.command_file import messages

AMOUNT = 400
LISTS = (
    "/v1/summary",
    "/v1/accounts",
    "/v1/queues",
    "/v1/nodes?limit=7",
    "/v1/capacity?level=region",
    "/v1/capacity?level=cluster",
    "/v1/capacity?level=rack&accelerator=npu",
    "/v1/reservations",
    "/v1/shapes?limit=5",
    "/v1/shapes?waiting=true",
    "/v1/jobs?limit=9",
    "/v1/jobs?state=running",
    "/v1/jobs?oldest_first=true&queue=red&limit=4",
    "/v1/decisions?limit=11",
    "/v1/decisions?event=PreemptionDecided",
    "/v1/rounds?limit=13",
)


async def fill(store: Store, cell: str, rounds: Sequence[Round]) -> None:
    projector = Projector(cell, store, None)
    await projector.position()
    for position, round in enumerate(rounds):
        head = Head(round.header.round, digest(canonical(round)).hex())
        await projector.on_round(round, head, position)


def without_hash(value: Any) -> Any:
    """Each profile signs with a key of its own, so that the chains of hashes differ."""
    if isinstance(value, dict):
        return {n: without_hash(v) for n, v in value.items() if n not in ("hash", "next")}
    if isinstance(value, list):
        return [without_hash(v) for v in value]
    return value


async def answers(store: Store, cell: str) -> dict[str, Any]:
    """All pages of all lists, each job's story, and each command's outcome."""
    found: dict[str, Any] = {}
    transport = httpx.ASGITransport(create_app(Services(store, cell)))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:

        async def ask(path: str) -> Any:
            response = await client.get(path)
            assert response.status_code == 200, f"{path}: {response.text}"
            found[path] = without_hash(response.json())
            return response.json()

        for path in LISTS:
            pages, cursor, mark = 0, "", "&" if "?" in path else "?"
            while pages == 0 or cursor:
                response = await client.get(f"{path}{mark}cursor={cursor}" if cursor else path)
                assert response.status_code == 200, f"{path}: {response.text}"
                found[f"{path} page {pages}"] = without_hash(response.json())
                cursor, pages = response.json().get("next"), pages + 1
        for item in (await ask("/v1/jobs?limit=1000"))["items"]:
            await ask(f"/v1/jobs/{item['job']}")
    return found


@pytest.mark.servers
def test_equal_answers(
    kafka: LocalKafka, cassandra: LocalCassandra, fresh_name: str, tmp_path: Path
) -> None:
    async def go() -> tuple[dict[str, Any], dict[str, Any]]:
        folders = [tmp_path / "one", tmp_path / "two"]
        for folder in folders:
            folder.mkdir()
        sent = messages(3, AMOUNT)
        one = await profiles.embedded(folders[0], fresh_name, sent)
        two = await profiles.distributed(
            folders[1], kafka.bootstrap, fresh_name, sent, len(one.rounds)
        )
        rows = SqliteStore(folders[0] / "rows.sqlite")
        ring = await CassandraStore.connect(
            cassandra.contact_points, cassandra.port, f"k_{fresh_name}"[:40]
        )
        try:
            await fill(rows, fresh_name, one.rounds)
            await fill(ring, fresh_name, two.rounds)
            return await answers(rows, fresh_name), await answers(ring, fresh_name)
        finally:
            await rows.close()
            await ring.close()

    mine, theirs = asyncio.run(go())
    assert mine.keys() == theirs.keys()
    for path, answer in mine.items():
        assert answer == theirs[path], path
    assert sum("/v1/jobs/" in path for path in mine) > 50
