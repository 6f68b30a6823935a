"""A simulated half day, busy enough that jobs wait and are displaced, and its read model."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from domain.cell import Cell
from domain.evolve import evolve
from domain.ledger import unseal
from projections.rows import project
from projections.sqlite_store import SqliteStore
from projections.store import Applied
from projections.tables import Key, Row
from streams import workload
from streams.keys import FileSigner
from streams.simulate import Simulation

CELL = "local"
START_MS = 1_735_689_600_000
HOURS = 12
JOBS = 4000


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The ledger of the half day."""
    made: list[bytes] = []
    signer = FileSigner(tmp_path_factory.mktemp("key") / "cell.pem")
    scenario = workload.day(1, START_MS, JOBS)
    simulation = Simulation(CELL, scenario, signer, made.append, origin_ms=START_MS)
    for _ in simulation.run(START_MS + HOURS * 3_600_000):
        pass
    return made


@pytest.fixture(scope="session")
def filled(records: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> SqliteStore:
    """Its read model; tests only read it."""
    return fill(records, tmp_path_factory.mktemp("rows") / "rows.sqlite")


def fill(records: list[bytes], path: Path, cell: str = CELL) -> SqliteStore:
    """Project all at once: of each key the last row."""
    store = SqliteStore(path)
    state = Cell(cell)
    rows: dict[tuple[str, Key], Row] = {}
    applied = Applied()
    for position, record in enumerate(records):
        round, head = unseal(record, None)
        for row in project(state, round, head, evolve(state, round, head)):
            rows[row.table, row.key] = row
        applied = Applied(head.round, head.hash, position, round.header.now_ms)
    asyncio.run(store.write(cell, list(rows.values()), applied))
    return store
