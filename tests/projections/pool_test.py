"""The pool over HTTP: regions, hand-offs and rights as one region has them, and what peers say."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from aquifer.asking import Peers
from aquifer.relaying import PeerWay
from domain.commands import ReportAttempt
from domain.pool.commands import GrantRights
from domain.pool.specs import Amount
from projections.http import create_app
from projections.services import Services
from tests.domain.failover_test import Three
from tests.domain.given import job
from tests.domain.handoff_test import offered, released
from tests.domain.pooled import Regional
from tests.projections.asking import Caller
from tests.projections.conftest import fill


def caller(region: Regional, folder: Path, **more: Any) -> Caller:
    name = region.cell.name
    store = fill(region.records, folder / f"{name}.sqlite", name)
    return Caller(create_app(Services(store, name, **more)))


def items(asked: Caller, path: str) -> list[dict[str, Any]]:
    answer = asked.get(f"/v1/pool/{path}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def test_regions_say_what_they_have_and_how_fresh_that_is(tmp_path: Path) -> None:
    east, _ = offered()
    own, peer = items(caller(east, tmp_path), "regions")
    assert (own["region"], own["inventory"]) == ("east", "own")
    assert (peer["region"], peer["inventory"]) == ("west", "fresh")
    assert peer["flows"] == {"offered": 1, "on_their_way": 0, "came_from": 0}
    east.say(after_s=60)
    (tmp_path / "later").mkdir()
    assert items(caller(east, tmp_path / "later"), "regions")[1]["inventory"] == "stale"
    east.say(after_s=600)
    (tmp_path / "lost").mkdir()
    assert items(caller(east, tmp_path / "lost"), "regions")[1]["inventory"] == "forgotten"


def test_hand_offs_are_listed_by_their_step_on_both_sides(tmp_path: Path) -> None:
    east, west = released()
    (row,) = items(caller(east, tmp_path), "hand-offs")
    assert (row["job"], row["step"], row["peer"]) == ("j", "released", "west")
    (row,) = items(caller(west, tmp_path), "hand-offs")
    assert (row["job"], row["step"], row["peer"]) == ("j@east", "prepared", "east")
    west.hear(east.take("ReleaseHandoff"))
    east.hear(west.take("AcknowledgeHandoff"))
    (tmp_path / "after").mkdir()
    assert items(caller(east, tmp_path / "after"), "hand-offs") == []
    (row,) = items(caller(west, tmp_path / "after"), "hand-offs?step=accepted")
    assert row["hop"] == 1


def test_guarded_jobs_and_lost_regions_are_seen_on_both_sides(tmp_path: Path) -> None:
    three = Three()
    east, guardian = three.guarded()
    name = guardian.cell.name
    (row,) = items(caller(east, tmp_path), "hand-offs?step=guarded")
    assert (row["job"], row["peer"]) == ("j", name)
    (row,) = items(caller(guardian, tmp_path), "hand-offs")
    assert (row["job"], row["step"], row["peer"]) == ("j@east", "copy", "east")
    three.cut = {"east"}
    three.pass_(120)
    east.now_ms = guardian.now_ms
    east.say(ReportAttempt(job="j", attempt=1, state="finished"))
    (tmp_path / "lost").mkdir()
    asked = caller(guardian, tmp_path / "lost")
    found = {row["region"]: row["inventory"] for row in items(asked, "regions")}
    assert found["east"] == "held for lost"
    assert not items(asked, "hand-offs?step=copy")
    asked = caller(east, tmp_path / "lost")
    assert asked.get("/v1/jobs/j").json()["state"] == "ending"
    three.cut = set()
    three.pass_(60)
    (tmp_path / "back").mkdir()
    found = {
        row["region"]: row["inventory"]
        for row in items(caller(guardian, tmp_path / "back"), "regions")
    }
    assert found["east"] == "fresh"
    ended = caller(east, tmp_path / "back").get("/v1/jobs/j").json()
    assert ended["state"] == "taken_over"


def test_rights_are_what_the_cell_holds(tmp_path: Path) -> None:
    east = Regional("east", ("west",), quota={"nominal": 0, "rights": True})
    amount = Amount(account="a", accelerator="h100", milli=3000)
    east.say(GrantRights(grant="g", amount=amount))
    (row,) = items(caller(east, tmp_path), "rights")
    held = east.cell.pool.rights["a", "h100"].held
    assert (row["account"], row["granted_milli"], row["held_milli"]) == ("a", 3000, held)


@contextmanager
def serving(region: Regional, folder: Path) -> Iterator[str]:
    name, listener = region.cell.name, socket.create_server(("127.0.0.1", 0))
    app = create_app(Services(fill(region.records, folder / f"{name}.served", name), name))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_a_pool_answers_as_far_as_its_regions_do(tmp_path: Path) -> None:
    east, west = offered()
    west.say(job("own"))
    with serving(west, tmp_path) as url:
        ways = {
            "west": PeerWay(kafka="nowhere:1", read=url),
            "gone": PeerWay(url="http://127.0.0.1:9"),
            "mute": PeerWay(kafka="nowhere:1"),
        }
        asked = caller(east, tmp_path, ask_peers=Peers(ways).summaries)
        parts = {p["region"]: p for p in asked.get("/v1/pool").json()["parts"]}
        assert asyncio.run(Peers(ways).summaries())[0]["region"] == "gone"
    assert set(parts) == {"east", "west", "gone", "mute"}
    assert parts["west"]["jobs_live"] == len(west.cell.jobs)
    assert parts["west"]["age_ms"] > 0
    assert not parts["gone"]["answers"]
    assert "Connect" in parts["gone"]["why"]
    assert parts["mute"]["why"] == "its read API is not known here"
