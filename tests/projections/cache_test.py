"""Answers kept in Redis: the same answers, sooner; and right ones when Redis is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.redis import LocalRedis
from projections.cache import Cache
from projections.http import create_app
from projections.services import Services
from projections.sqlite_store import SqliteStore
from projections.store import Applied
from projections.tables import Row
from projections.volatile import Volatile
from tests.projections.access_test import READERS, token

pytestmark = pytest.mark.servers

PATIENT_S = 30
"""A slow machine is no reason to leave Redis alone."""

Ask = Callable[[str], Awaitable[httpx.Response]]


def queue(name: str, account: str, waiting: int, cell: str, round: int) -> Row:
    values = {"account": account, "weight": 1, "strict": False, "usage_milli": {}}
    return Row("queues", (cell, name), {**values, "waiting": waiting}, round)


def account(name: str, cell: str) -> Row:
    values: dict[str, Any] = {"parent": None, "weight": 1, "quotas": {}, "queues": []}
    return Row("accounts", (cell, name), values, 1)


async def with_api(
    url: str, path: Path, cell: str, go: Callable[[Ask, SqliteStore], Awaitable[None]], **more: Any
) -> None:
    store, shared = SqliteStore(path), Volatile(url, PATIENT_S)
    app = create_app(Services(store, cell, cache=Cache(shared), **more))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:

        async def ask(whose: str) -> httpx.Response:
            name, _, path = whose.partition(" ")
            return await client.get(path, headers={"Authorization": f"Bearer {token(name)}"})

        await go(ask, store)
    await shared.close()
    await store.close()


def waiting(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [item["waiting"] for item in answer.json()["items"]]


def test_an_answer_is_kept_for_its_round_and_no_longer(
    redis_server: LocalRedis, tmp_path: Path, fresh_name: str
) -> None:
    async def go(ask: Ask, store: SqliteStore) -> None:
        first = Applied(1, "a" * 64, 0, 1)
        await store.write(fresh_name, [queue("q", "x", 3, fresh_name, 1)], first)
        answer = await ask("ops /v1/queues")
        assert waiting(answer) == [3]
        # A row that no round has changed: only who reads the store sees it.
        await store.write(fresh_name, [queue("q", "x", 4, fresh_name, 2)], first)
        again = await ask("ops /v1/queues")
        assert waiting(again) == [3]
        assert again.content == answer.content
        for name in ("etag", "aquifer-round", "content-type", "cache-control", "vary"):
            assert again.headers[name] == answer.headers[name]
        assert waiting(await ask("ops /v1/queues?limit=5")) == [4]
        await store.write(fresh_name, [], Applied(2, "b" * 64, 1, 2))
        assert waiting(await ask("ops /v1/queues")) == [4]

    asyncio.run(with_api(redis_server.url, tmp_path / "rows.sqlite", fresh_name, go))


def test_a_ledger_made_anew_has_other_answers(
    redis_server: LocalRedis, tmp_path: Path, fresh_name: str
) -> None:
    async def go(ask: Ask, store: SqliteStore) -> None:
        for hash, count in (("a", 1), ("b", 2)):
            await store.reset(fresh_name)
            rows = [queue("q", "x", count, fresh_name, 1)]
            await store.write(fresh_name, rows, Applied(1, hash * 64, 0, 1))
            assert waiting(await ask("ops /v1/queues")) == [count]

    asyncio.run(with_api(redis_server.url, tmp_path / "rows.sqlite", fresh_name, go))


def test_readers_do_not_get_each_others_answers(
    redis_server: LocalRedis, tmp_path: Path, fresh_name: str
) -> None:
    async def go(ask: Ask, store: SqliteStore) -> None:
        rows = [
            queue("q1", "research", 1, fresh_name, 1),
            queue("q2", "vision", 2, fresh_name, 1),
        ]
        for name in ("research", "vision"):
            rows.append(account(name, fresh_name))
        await store.write(fresh_name, rows, Applied(1, "a" * 64, 0, 1))
        for _ in range(2):
            assert waiting(await ask("ops /v1/queues")) == [1, 2]
            assert waiting(await ask("mine /v1/queues")) == [1]
            assert waiting(await ask("none /v1/queues")) == []
            assert (await ask("stranger /v1/queues")).status_code == 401

    path = tmp_path / "rows.sqlite"
    asyncio.run(with_api(redis_server.url, path, fresh_name, go, readers=READERS))


def test_problems_are_not_kept(redis_server: LocalRedis, tmp_path: Path, fresh_name: str) -> None:
    async def go(ask: Ask, store: SqliteStore) -> None:
        applied = Applied(1, "a" * 64, 0, 1)
        await store.write(fresh_name, [], applied)
        path = "ops /v1/accounts/x"
        assert (await ask(path)).status_code == 404
        await store.write(fresh_name, [account("x", fresh_name)], applied)
        assert (await ask(path)).status_code == 200

    asyncio.run(with_api(redis_server.url, tmp_path / "rows.sqlite", fresh_name, go))


def test_killing_redis_costs_speed_and_never_an_answer(tmp_path: Path, fresh_name: str) -> None:
    (tmp_path / "redis").mkdir()
    server = LocalRedis(tmp_path / "redis")

    async def go(ask: Ask, store: SqliteStore) -> None:
        applied = Applied(1, "a" * 64, 0, 1)
        await store.write(fresh_name, [queue("q", "x", 3, fresh_name, 1)], applied)
        assert waiting(await ask("ops /v1/queues")) == [3]
        server.kill()
        await store.write(fresh_name, [queue("q", "x", 4, fresh_name, 2)], applied)
        for _ in range(3):
            assert waiting(await ask("ops /v1/queues")) == [4]

    server.start()
    try:
        asyncio.run(with_api(server.url, tmp_path / "rows.sqlite", fresh_name, go))
    finally:
        server.stop()
