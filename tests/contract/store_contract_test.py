"""What every store of the read model must do, on SQLite and on real Cassandra."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from projections.cassandra_store import CassandraStore
from projections.sqlite_store import SqliteStore
from projections.store import Applied, Store
from projections.tables import Row

Make = Callable[[], Awaitable[Store]]
CELL = "cell"


@pytest.fixture(params=["sqlite", pytest.param("cassandra", marks=pytest.mark.servers)])
def make(request: pytest.FixtureRequest, tmp_path: Path, fresh_name: str) -> Make:
    """Opens the same store each time it is called."""
    if request.param == "sqlite":

        async def sqlite() -> Store:
            return SqliteStore(tmp_path / "rows.sqlite")

        return sqlite
    server = request.getfixturevalue("cassandra")

    async def cassandra() -> Store:
        keyspace = f"k_{fresh_name}"[:40]
        return await CassandraStore.connect(server.contact_points, server.port, keyspace)

    return cassandra


def run(make: Make, go: Callable[[Store], Awaitable[Any]]) -> Any:
    async def opened() -> Any:
        store = await make()
        try:
            return await go(store)
        finally:
            await store.close()

    return asyncio.run(opened())


def event(job: str, round: int, n: int, text: str = "x") -> Row:
    values = {"at_ms": round * 1000, "event": text, "body": {"n": n}}
    return Row("job_events", (CELL, job, round, n), values, round)


def queue(name: str, round: int, waiting: int) -> Row:
    values = {
        "account": "a",
        "weight": 1000,
        "strict": waiting % 2 == 1,
        "waiting": waiting,
        "usage_milli": {"h100": waiting},
    }
    return Row("queues", (CELL, name), values, round)


def gone(name: str, round: int) -> Row:
    return Row("queues", (CELL, name), None, round)


def at(round: int) -> Applied:
    return Applied(round, f"hash{round}", round - 1, round * 1000)


def test_an_empty_store(make: Make) -> None:
    async def go(store: Store) -> None:
        assert await store.applied(CELL) == Applied()
        assert await store.cells() == []
        assert await store.get("queues", (CELL, "q")) is None
        assert await store.scan("queues", (CELL,)) == []

    run(make, go)


def test_rows_come_back_as_they_were(make: Make) -> None:
    async def go(store: Store) -> None:
        await store.write(CELL, [queue("q", 1, 3)], at(1))
        found = await store.get("queues", (CELL, "q"))
        assert found == {
            "cell": CELL,
            "queue": "q",
            "account": "a",
            "weight": 1000,
            "strict": True,
            "waiting": 3,
            "usage_milli": {"h100": 3},
        }
        assert await store.applied(CELL) == at(1)
        assert await store.cells() == [CELL]

    run(make, go)


def test_an_older_round_changes_nothing(make: Make) -> None:
    """A zombie's late batch, and a repeated one."""

    async def go(store: Store) -> None:
        await store.write(CELL, [queue("q", 5, 7)], at(5))
        await store.write(CELL, [queue("q", 3, 1), queue("r", 3, 1)], at(5))
        assert (await store.get("queues", (CELL, "q")) or {})["waiting"] == 7
        assert (await store.get("queues", (CELL, "r")) or {})["waiting"] == 1
        await store.write(CELL, [gone("q", 6)], at(6))
        await store.write(CELL, [gone("r", 2)], at(6))
        assert await store.get("queues", (CELL, "q")) is None
        assert await store.get("queues", (CELL, "r")) is not None

    run(make, go)


def test_pages_of_a_partition(make: Make) -> None:
    async def go(store: Store) -> None:
        rows = [event("j", r, n) for r in (9, 10, 11) for n in range(60)]
        await store.write(CELL, [*rows, event("other", 10, 0)], at(11))
        seen: list[tuple[int, int]] = []
        after: tuple[int, int] | None = None
        while True:
            page = await store.scan("job_events", (CELL, "j"), after=after, limit=50)
            if not page:
                break
            seen += [(row["round"], row["n"]) for row in page]
            after = seen[-1]
        assert seen == [(r, n) for r in (9, 10, 11) for n in range(60)]
        last = await store.scan("job_events", (CELL, "j"), limit=2, backwards=True)
        assert [(row["round"], row["n"]) for row in last] == [(11, 59), (11, 58)]
        before = await store.scan("job_events", (CELL, "j"), after=(10, 0), limit=1, backwards=True)
        assert [(row["round"], row["n"]) for row in before] == [(9, 59)]

    run(make, go)


def test_state_survives_the_connection(make: Make) -> None:
    run(make, lambda store: store.write(CELL, [queue("q", 1, 2)], at(1)))

    async def go(store: Store) -> None:
        assert await store.applied(CELL) == at(1)
        assert (await store.get("queues", (CELL, "q")) or {})["waiting"] == 2

    run(make, go)


def test_after_a_reset_all_is_written_anew(make: Make) -> None:
    """Also rounds that are older than those that were there before."""

    async def go(store: Store) -> None:
        await store.write(CELL, [queue("q", 9, 9), queue("r", 9, 9), event("j", 9, 0)], at(9))
        await store.write("twin", [], at(4))
        await store.reset(CELL)
        assert await store.applied(CELL) == Applied()
        assert await store.cells() == ["twin"]
        assert await store.scan("queues", (CELL,)) == []
        await store.write(CELL, [queue("q", 1, 1)], at(1))
        assert [r["queue"] for r in await store.scan("queues", (CELL,))] == ["q"]
        assert await store.applied(CELL) == at(1)

    run(make, go)

    async def reopened(store: Store) -> None:
        await store.write(CELL, [queue("q", 2, 2)], at(2))
        assert (await store.get("queues", (CELL, "q")) or {})["waiting"] == 2

    run(make, reopened)
