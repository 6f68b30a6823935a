"""The projector: rows are the fold of the believed ledger, wherever it begins, however often."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from domain.ledger import unseal
from projections.projector import Forked, Projector
from projections.sqlite_store import SqliteStore
from projections.store import Applied
from projections.tables import TABLES
from streams.snapshots import FileSnapshots
from tests.projections.conftest import CELL

SOME = 400
"""Records; enough for jobs that run, wait and end."""


def contents(store: SqliteStore) -> dict[str, list[Any]]:
    """All rows of all tables, with the rounds that wrote them."""
    return {
        name: store._fetch(f"SELECT * FROM {name} ORDER BY {', '.join(table.key)}", ())
        for name, table in {**TABLES, "applied": TABLES["summary"]}.items()
    }


async def project(store: SqliteStore, records: list[bytes], **more: Any) -> Projector:
    """As a new process: from where it stands to the end."""
    projector = Projector(CELL, store, None, **more)
    position = await projector.position()
    for at, record in enumerate(records[position:], position):
        await projector.on_record(at, record)
    return projector


@pytest.fixture(scope="module")
def once(records: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> SqliteStore:
    store = SqliteStore(tmp_path_factory.mktemp("once") / "rows.sqlite")
    asyncio.run(project(store, records[:SOME]))
    return store


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "rows.sqlite")


def test_projecting_again_changes_nothing(
    once: SqliteStore, store: SqliteStore, records: list[bytes]
) -> None:
    for _ in range(2):
        asyncio.run(project(store, records[:SOME]))
        assert contents(store) == contents(once)
    assert len(contents(once)["job_events"]) > 100


@pytest.mark.parametrize("cut", [0, 1, 137, SOME - 1, SOME])
def test_a_restart_anywhere_makes_no_difference(
    once: SqliteStore, store: SqliteStore, records: list[bytes], cut: int
) -> None:
    asyncio.run(project(store, records[:cut]))
    asyncio.run(project(store, records[:SOME]))
    assert contents(store) == contents(once)


@pytest.mark.parametrize("seed", range(5))
def test_rounds_that_are_written_together_end_in_the_same_rows(
    once: SqliteStore,
    store: SqliteStore,
    records: list[bytes],
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever it knew of more, and wherever it was killed before it wrote."""
    random = Random(seed)
    monkeypatch.setattr("projections.projector.WRITTEN_AT_ONCE", (2, 7, 500)[seed % 3])
    writes: list[Applied] = []

    async def some(until: int, to_the_end: bool) -> None:
        projector = Projector(CELL, store, None, on_applied=writes.append)
        position = await projector.position()
        for at in range(position, until):
            more = random.random() < 0.9 and not (to_the_end and at == until - 1)
            if random.random() < 0.1:
                await projector.on_record(at, b"{}", more=True)
            await projector.on_record(at, records[at], more)

    for until in sorted(random.sample(range(SOME), 4)):
        asyncio.run(some(until, to_the_end=False))
    asyncio.run(some(SOME, to_the_end=True))
    assert contents(store) == contents(once)
    assert len(writes) < SOME * 3 // 4
    assert [w.round for w in writes] == sorted({w.round for w in writes})


def test_what_was_gathered_is_written_although_nothing_believed_follows(
    store: SqliteStore, records: list[bytes]
) -> None:
    async def go() -> None:
        projector = Projector(CELL, store, None)
        await projector.position()
        for at in range(10):
            await projector.on_record(at, records[at], more=True)
        assert (await store.applied(CELL)).round == 0
        await projector.on_record(10, b"{}")
        assert (await store.applied(CELL)).round == 10

    asyncio.run(go())


def test_after_a_reset_the_tables_are_the_same(
    once: SqliteStore, store: SqliteStore, records: list[bytes]
) -> None:
    asyncio.run(project(store, records[:SOME]))
    asyncio.run(store.reset(CELL))
    assert not any(contents(store).values())
    asyncio.run(project(store, records[:SOME]))
    assert contents(store) == contents(once)


def test_with_a_snapshot_only_the_tail_is_read(
    once: SqliteStore,
    store: SqliteStore,
    records: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("domain.snapshots.SAVED_AFTER", 100)
    snapshots = FileSnapshots(tmp_path / "snapshots")
    asyncio.run(project(store, records[: SOME // 2], snapshots=snapshots))
    again = Projector(CELL, store, None, snapshots)
    assert 0 < asyncio.run(again.position()) <= SOME // 2
    assert again.cell.head.round > 0
    asyncio.run(project(store, records[:SOME], snapshots=snapshots))
    assert contents(store) == contents(once)


def test_a_damaged_snapshot_or_one_ahead_of_the_store_is_passed_by(
    once: SqliteStore, store: SqliteStore, records: list[bytes], tmp_path: Path
) -> None:
    snapshots = FileSnapshots(tmp_path / "snapshots")
    ahead = asyncio.run(project(SqliteStore(tmp_path / "ahead.sqlite"), records[:300]))
    snapshots.save(300, 299, ahead.cell.snapshot())
    snapshots.save(90, 89, b"damaged")
    asyncio.run(project(store, records[:100]))
    projector = Projector(CELL, store, None, snapshots)
    assert asyncio.run(projector.position()) == 0
    asyncio.run(project(store, records[:SOME], snapshots=snapshots))
    assert contents(store) == contents(once)


def test_records_that_are_not_believed_are_passed_over(
    once: SqliteStore, store: SqliteStore, records: list[bytes]
) -> None:
    mixed: list[bytes] = []
    for i, record in enumerate(records[:SOME]):
        mixed.append(record)
        mixed.append((record, b"{}", records[SOME - i - 1], b"")[i % 4])
    projector = asyncio.run(project(store, mixed))
    assert projector.passed_over == SOME
    for name, rows in contents(once).items():
        if name != "applied":
            assert contents(store)[name] == rows


def test_after_a_gap_nothing_is_believed(store: SqliteStore, records: list[bytes]) -> None:
    projector = asyncio.run(project(store, records[:10] + records[11:50]))
    assert projector.cell.head.round == 10
    assert asyncio.run(store.applied(CELL)).round == 10
    assert projector.passed_over == 39


def test_a_store_of_another_ledger_is_refused(store: SqliteStore, records: list[bytes]) -> None:
    head = unseal(records[9], None)[1]
    asyncio.run(store.write(CELL, [], Applied(head.round, "another", 9, 0)))
    with pytest.raises(Forked, match="round 10 "):
        asyncio.run(project(store, records[:20]))
