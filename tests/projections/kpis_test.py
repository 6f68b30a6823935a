"""Usage and key figures over HTTP: views of the books of the cell, and of nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from domain.accounting import NOBODY, Use
from domain.cell import Cell
from domain.evolve import evolve
from domain.ledger import unseal
from projections import kpis
from projections.http import create_app
from projections.services import Services
from projections.sqlite_store import SqliteStore
from tests.projections.asking import Caller
from tests.projections.conftest import CELL


@pytest.fixture(scope="module")
def caller(filled: SqliteStore) -> Caller:
    return Caller(create_app(Services(filled, CELL)))


@pytest.fixture(scope="module")
def cell(records: list[bytes]) -> Cell:
    folded = Cell(CELL)
    for record in records:
        evolve(folded, *unseal(record, None))
    return folded


def test_usage_is_that_of_the_books(caller: Caller, cell: Cell) -> None:
    items = caller.get("/v1/usage").json()["items"]
    found = {(i["account"], i["accelerator"]): i for i in items}
    assert found.keys() == {id_ for id_ in cell.books if id_[0] != NOBODY}
    for id_, item in found.items():
        totals = cell.books[id_].totals(cell.now_ms)
        assert item["total_slot_s"] == sum(totals) // 1_000_000
        for use in Use:
            assert item["slot_s"].get(use.name.lower(), 0) == totals[use] // 1_000_000
    assert sum(i["slot_s"]["productive"] for i in items) > 0


def test_usage_is_filtered(caller: Caller, cell: Cell) -> None:
    owner, accelerator = next(id_ for id_ in sorted(cell.books) if id_[0] != NOBODY)
    items = caller.get(f"/v1/usage?account={owner}&accelerator={accelerator}").json()["items"]
    assert [(i["account"], i["accelerator"]) for i in items] == [(owner, accelerator)]


def test_key_figures_add_up_to_the_capacity(caller: Caller, cell: Cell) -> None:
    body = caller.get("/v1/kpis").json()
    whole = body["all"]
    assert 0 <= whole["capacity_slot_s"] - sum(whole["slot_s"].values()) < len(Use)
    totals = [book.totals(cell.now_ms) for book in cell.books.values()]
    assert whole["capacity_slot_s"] == sum(map(sum, totals)) // 1_000_000
    productive = sum(t[Use.PRODUCTIVE] for t in totals)
    assert whole["goodput_ppm"] == productive * 1_000_000 // sum(map(sum, totals))
    assert 0 < whole["goodput_ppm"] <= whole["allocation_ppm"] <= 1_000_000
    parts = body["by_accelerator"].values()
    assert sum(p["capacity_slot_s"] for p in parts) <= whole["capacity_slot_s"]


def test_delays_count_every_first_start(caller: Caller, cell: Cell) -> None:
    delays = caller.get("/v1/kpis").json()["delays"]
    started = {d["tier"]: d["starts"] for d in delays}
    assert sum(started.values()) == sum(sum(d.counts) for d in cell.delays.values()) > 0
    for one in delays:
        assert one["p50_below_s"] <= one["p95_below_s"]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([0, 0, 0], (1, 1)),
        ([100, 0, 0], (1, 1)),
        ([50, 45, 5], (1, 2)),
        ([49, 45, 6], (2, 4)),
    ],
)
def test_percentiles_are_bounds(counts: list[int], expected: tuple[int, int]) -> None:
    row: dict[str, Any] = {"tier": "basic", "counts": counts, "total_ms": 7, "late": 0}
    found = kpis.delay(row)
    assert (found["p50_below_s"], found["p95_below_s"]) == expected
