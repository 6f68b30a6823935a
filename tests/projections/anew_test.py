"""What is gone and is there anew within one round is there; what is gone altogether is not."""

from __future__ import annotations

from pathlib import Path

from domain.commands import CancelReservation, RemoveNode, RequestReservation, SetQuota
from domain.pool.commands import FenceRegion, SetPeers
from domain.pool.specs import PeerSpec
from domain.specs import Queue, Quota
from projections.http import create_app
from projections.services import Services
from tests.domain.given import Given, node
from tests.domain.pooled import RULES, Regional
from tests.projections.asking import Caller
from tests.projections.conftest import fill


def caller(given: Given, folder: Path) -> Caller:
    name = given.cell.name
    store = fill(given.records, folder / "rows.sqlite", name)
    return Caller(create_app(Services(store, name)))


def test_a_node_that_is_registered_again_in_the_round_that_removes_it(tmp_path: Path) -> None:
    given = Given()
    given.round(node("n0"), node("n1", rack="k1"))
    given.round(RemoveNode(node="n0"), node("n0", slots=4))
    asked = caller(given, tmp_path)
    assert asked.get("/v1/nodes/n0").json()["slots"] == 4
    racks = asked.get("/v1/capacity?level=rack").json()["items"]
    assert {r["path"]: r["slots"] for r in racks} == {"r/c/b/k0": 4, "r/c/b/k1": 8}


def test_a_node_that_moves_to_another_rack(tmp_path: Path) -> None:
    given = Given()
    given.round(node("n0"))
    given.round(RemoveNode(node="n0"), node("n0", rack="k1"))
    racks = caller(given, tmp_path).get("/v1/capacity?level=rack").json()["items"]
    assert [r["path"] for r in racks] == ["r/c/b/k1"]


def test_a_queue_that_is_dropped_and_made_again(tmp_path: Path) -> None:
    given = Given()
    quotas = (Quota(accelerator="h100", nominal=8),)
    with_queue = SetQuota(account="a", quotas=quotas, queues=(Queue(queue="q"),))
    given.round(with_queue)
    given.round(SetQuota(account="a", quotas=quotas), with_queue)
    queues = caller(given, tmp_path).get("/v1/queues").json()["items"]
    assert [q["queue"] for q in queues] == ["q"]


def test_a_reservation_that_is_cancelled_and_asked_for_again(tmp_path: Path) -> None:
    given = Given()
    quotas = (Quota(accelerator="h100", nominal=8),)
    given.round(node("n0"), SetQuota(account="a", quotas=quotas, queues=(Queue(queue="q"),)))
    wanted = RequestReservation(
        reservation="r",
        account="a",
        queues=("q",),
        accelerator="h100",
        count=1,
        slots=8,
        start_ms=given.now_ms + 600_000,
        end_ms=given.now_ms + 1_200_000,
    )
    given.round(wanted)
    round = given.round(CancelReservation(reservation="r"), wanted)
    told = caller(given, tmp_path).get("/v1/reservations/r").json()["status"]
    live = "r" in given.cell.reservations
    assert (told != "ended") == live, round.refusals


def _peers(*regions: str) -> SetPeers:
    peers = tuple(PeerSpec(region=r, actor=r) for r in regions)
    return SetPeers(region="east", peers=peers, rules=RULES)


def test_a_region_that_leaves_the_pool_and_comes_back(tmp_path: Path) -> None:
    east = Regional("east", ("east", "north", "west"))
    east.say(_peers("north"), _peers("north", "west"))
    regions = caller(east, tmp_path).get("/v1/pool/regions").json()["items"]
    assert {r["region"] for r in regions} == {"east", "north", "west"}


def test_a_region_that_was_held_for_lost_leaves_the_pool(tmp_path: Path) -> None:
    east = Regional("east", ("east", "north", "west"))
    assert not east.say(FenceRegion(region="west")).refusals
    assert not east.say(_peers("north")).refusals
    regions = caller(east, tmp_path).get("/v1/pool/regions").json()["items"]
    assert {r["region"] for r in regions} == {"east", "north"}
