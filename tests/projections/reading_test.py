"""Answers over HTTP: how fresh they are, page by page, and what is said when something is wrong."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from projections.cursors import Cursors
from projections.http import create_app
from projections.problems import Problem
from projections.services import Services
from projections.sqlite_store import SqliteStore
from projections.store import Applied
from projections.tables import TABLES
from tests.projections.asking import Caller
from tests.projections.conftest import CELL, fill

FEW = settings(max_examples=25, deadline=None)
PAGED = ("accounts", "queues", "nodes", "capacity", "reservations", "shapes", "jobs", "rounds")


@pytest.fixture(scope="module")
def caller(filled: SqliteStore) -> Caller:
    return Caller(create_app(Services(filled, CELL)))


def is_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["type"] == f"urn:aquifer:problem:{body['code']}"
    assert body["title"]
    assert body["detail"]
    return body


# --- freshness ------------------------------------------------------------------------------------


def test_every_answer_says_which_round_it_reflects(caller: Caller, records: list[bytes]) -> None:
    for kind in ("summary", *PAGED, "decisions"):
        answer = caller.get(f"/v1/{kind}")
        assert answer.json()["round"] == len(records)
        assert answer.headers["aquifer-round"] == str(len(records))
        again = caller.get(f"/v1/{kind}", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["etag"] == answer.headers["etag"]


def test_a_new_round_is_a_new_etag(records: list[bytes], tmp_path: Path) -> None:
    store = fill(records[:50], tmp_path / "rows.sqlite")
    caller = Caller(create_app(Services(store, CELL)))
    old = caller.get("/v1/summary").headers["etag"]
    asyncio.run(store.write(CELL, [], Applied(51, "h", 50, 1)))
    answer = caller.get("/v1/summary", headers={"If-None-Match": f'"other", {old}'})
    assert answer.status_code == 200
    assert answer.json()["round"] == 51


def test_a_reader_waits_for_its_round(records: list[bytes], tmp_path: Path) -> None:
    store = fill(records[:50], tmp_path / "rows.sqlite")
    app = create_app(Services(store, CELL, wait_s=60))

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            asked = asyncio.create_task(client.get("/v1/summary?min_round=51"))
            await client.get("/v1/summary")
            assert not asked.done()
            await store.write(CELL, [], Applied(51, "h", 50, 1))
            return await asked

    answer = asyncio.run(go())
    assert answer.status_code == 200
    assert answer.json()["round"] == 51


def test_a_round_that_does_not_come_is_a_problem_and_not_an_old_answer(
    filled: SqliteStore, records: list[bytes]
) -> None:
    caller = Caller(create_app(Services(filled, CELL, wait_s=0.02)))
    answer = caller.get(f"/v1/summary?min_round={len(records) + 1}")
    assert is_problem(answer, 503)["round"] == len(records)
    assert answer.headers["retry-after"] == "1"


# --- pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PAGED)
@FEW
@given(limit=st.integers(1, 1000))
def test_pages_of_any_size_make_the_whole(caller: Caller, kind: str, limit: int) -> None:
    query = "?level=rack&" if kind == "capacity" else "?"
    whole = caller.get(f"/v1/{kind}{query}limit=1000").json()["items"]
    items: list[Any] = []
    cursor = ""
    while len(items) < min(len(whole), 5 * limit):
        page = caller.get(f"/v1/{kind}{query}limit={limit}{cursor}").json()
        assert len(page["items"]) <= limit
        items += page["items"]
        if page["next"] is None:
            assert len(items) >= len(whole)
            break
        cursor = f"&cursor={page['next']}"
    assert items[: len(whole)] == whole[: len(items)]


def test_filters_find_what_has_the_value_and_nothing_else(caller: Caller) -> None:
    jobs = every(caller, "/v1/jobs")
    assert len({j["job"] for j in jobs}) == len(jobs) > 1500
    for field in ("queue", "account", "tier", "state"):
        for value in {job[field] for job in jobs}:
            found = every(caller, f"/v1/jobs?{field}={value}")
            assert found == [job for job in jobs if job[field] == value]
    assert every(caller, "/v1/jobs?oldest_first=true") == jobs[::-1]


def every(caller: Caller, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        join = "&" if "?" in path else "?"
        more = f"&cursor={cursor}" if cursor else ""
        page = caller.get(f"{path}{join}limit=1000{more}").json()
        items += page["items"]
        cursor = page["next"]
    return items


keys = st.lists(st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20), max_size=4).map(tuple)


@given(key=keys, query=st.text(max_size=40), other=st.text(max_size=40))
def test_a_cursor_is_good_for_its_query_alone(key: Any, query: str, other: str) -> None:
    cursors = Cursors(b"key")
    made = cursors.make(query, key)
    assert cursors.read(query, made) == key
    if other != query:
        with pytest.raises(Problem):
            cursors.read(other, made)
    with pytest.raises(Problem):
        Cursors(b"another").read(query, made)


@given(key=keys, at=st.integers(0, 200), by=st.integers(1, 255))
def test_a_changed_cursor_is_refused(key: Any, at: int, by: int) -> None:
    cursors = Cursors(b"key")
    made = cursors.make("query", key)
    at %= len(made)
    changed = made[:at] + chr((ord(made[at]) + by) % 256) + made[at + 1 :]
    if _bytes(changed) == _bytes(made):  # unused bits of the last character
        assert cursors.read("query", changed) == key
    else:
        with pytest.raises(Problem):
            cursors.read("query", changed)


def _bytes(cursor: str) -> bytes | None:
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except ValueError:
        return None


@FEW
@given(cursor=st.text(max_size=60))
def test_made_up_cursors_are_a_problem(caller: Caller, cursor: str) -> None:
    is_problem(caller.get("/v1/jobs", params={"cursor": cursor}), 400)


# --- problems -------------------------------------------------------------------------------------

names = st.text(max_size=30) | st.sampled_from(["0", "-1", "9" * 30, "%00", "a/b", "..", "'", "ü"])


@FEW
@example(kind="rounds", name="9" * 30)
@example(kind="rounds", name="-1")
@example(kind="jobs", name="")
@given(kind=st.sampled_from(["accounts", "nodes", "jobs", "reservations", "rounds"]), name=names)
def test_unknown_names_are_problems(caller: Caller, kind: str, name: str) -> None:
    quoted = httpx.QueryParams({"x": name})  # any text, quoted
    answer = caller.get(f"/v1/{kind}/{str(quoted)[2:]}")
    if answer.status_code != 200:
        assert is_problem(answer, answer.status_code)["status"] in (400, 404)


@FEW
@given(
    path=st.sampled_from([f"/v1/{kind}" for kind in PAGED]),
    field=st.sampled_from(["limit", "min_round", "level", "tier", "state", "waiting"]),
    value=st.text(max_size=12) | st.integers().map(str),
)
def test_any_parameter_is_answered_or_a_problem(
    filled: SqliteStore, path: str, field: str, value: str
) -> None:
    caller = Caller(create_app(Services(filled, CELL, wait_s=0)))
    answer = caller.get(path, params={field: value})
    if answer.status_code != 200:
        body = is_problem(answer, answer.status_code)
        assert body["code"] in ("invalid_parameter", "not_yet")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nope", 404, "not_found"),
        ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs?limit=0", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?limit=1001", 400, "invalid_parameter"),
        ("GET", "/v1/jobs/nobody", 404, "not_found"),
        ("GET", "/v1/commands/me/1", 404, "not_decided"),
        ("POST", "/v1/commands/SubmitJob", 405, "read_only"),
        ("GET", "/v1/dead-letters", 404, "not_found"),
    ],
)
def test_problems_by_name(caller: Caller, method: str, path: str, status: int, code: str) -> None:
    assert is_problem(caller.request(method, path), status)["code"] == code


class Broken(SqliteStore):
    """A store whose file is gone."""

    async def applied(self, cell: str) -> Applied:
        raise OSError("secret: /a/path")


def test_what_breaks_inside_is_said_without_its_insides(tmp_path: Path) -> None:
    caller = Caller(create_app(Services(Broken(tmp_path / "rows.sqlite"), CELL)))
    answer = caller.get("/v1/jobs")
    assert is_problem(answer, 500)["code"] == "internal_error"
    assert "secret" not in answer.text
    assert "secret" not in caller.get("/readyz").text
    assert is_problem(caller.get("/readyz"), 503)["code"] == "not_ready"
    assert caller.get("/livez").status_code == 200


def test_metrics_count_requests_by_route_and_not_by_name(caller: Caller) -> None:
    caller.get("/v1/jobs/somebody")
    text = caller.get("/metrics").text
    assert 'aquifer_http_requests_total{route="/v1/jobs/{job}",status="404"}' in text
    assert "somebody" not in text


def test_the_document_has_the_columns_of_the_answers(caller: Caller) -> None:
    schemas = caller.get("/openapi.json").json()["components"]["schemas"]
    for kind in PAGED:
        item = caller.get(f"/v1/{kind}?limit=1").json()["items"][0]
        assert item.keys() == schemas[kind]["properties"].keys()
        assert set(TABLES[kind].values) <= item.keys()
    assert json.dumps(schemas["SubmitJob"]).count("#/components/schemas/") > 2


def test_what_a_waiting_shape_needs_is_its_gang_whatever_the_reason(
    records: list[bytes], tmp_path: Path
) -> None:
    busy = fill(records[: len(records) * 19 // 20], tmp_path / "rows.sqlite")
    caller = Caller(create_app(Services(busy, CELL)))
    shapes = [s for s in every(caller, "/v1/shapes?waiting=true") if s["needed_milli"]]
    assert len({shape["reason"] for shape in shapes}) > 1
    for shape in shapes:
        groups = shape["spec"]["groups"]
        gang = sum(
            group.get("count", 1) * group.get("slots", 1) * group.get("share_milli", 1000)
            for group in groups
        )
        assert shape["needed_milli"] == gang, shape["reason"]
