"""Promises over HTTP: what is due now, and what was in the windows that closed."""

from __future__ import annotations

from pathlib import Path

from domain.specs import TIERS
from projections.http import create_app
from projections.services import Services
from projections.sqlite_store import SqliteStore
from tests.domain.given import job
from tests.domain.promises_test import DAY_S, account, runs, world
from tests.projections.asking import Caller
from tests.projections.conftest import CELL, fill


def test_what_is_due_now_is_what_the_cell_says(tmp_path: Path) -> None:
    given = world(account("a", 8), name=CELL)
    given.round(job("x", queue="a", slots=4), job("y", queue="a", slots=8))
    runs(given, "x")
    given.round(after_s=1000)
    caller = Caller(create_app(Services(fill(given.records, tmp_path / "rows"), CELL)))
    (item,) = caller.get("/v1/promises").json()["items"]
    assert item["tier"] == "standard"
    assert item["due_slot_s"] == 8 * 1000 * 7 // 10
    assert item["delivered_slot_s"] == 4 * 1000
    pledge = given.cell.pledges[("a", "h100")]
    rank = TIERS.index(item["tier"])
    assert item["slack_slot_s"] == pledge.slack(rank, given.cell.now_ms) // 10**12
    assert caller.get("/v1/promises?account=b").json()["items"] == []


def test_closed_windows_are_kept_by_account_newest_first(tmp_path: Path) -> None:
    given = world(account("a", 8), name=CELL)
    given.round(job("x", queue="a", slots=8))
    given.round(after_s=DAY_S)
    given.round(after_s=DAY_S)
    caller = Caller(create_app(Services(fill(given.records, tmp_path / "rows"), CELL)))
    items = caller.get("/v1/windows?account=a").json()["items"]
    assert [i["to_ms"] - i["from_ms"] for i in items] == [DAY_S * 1000] * 2
    assert items[0]["from_ms"] == items[1]["to_ms"]
    assert all(i["met"] and i["tier"] == "standard" for i in items)
    assert [i["starts"] for i in items] == [0, 1]
    assert caller.get("/v1/windows?account=b").json()["items"] == []


def test_a_simulated_day_has_promises(filled: SqliteStore) -> None:
    items = Caller(create_app(Services(filled, CELL))).get("/v1/promises").json()["items"]
    assert {i["tier"] for i in items} >= {"premium", "standard"}
    assert all(
        i["slack_slot_s"] - (i["delivered_slot_s"] - i["due_slot_s"]) in (0, -1) for i in items
    )
