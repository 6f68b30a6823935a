"""The hand-off of a job between two regions, step by step, and what may go wrong with it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from domain import facts as f
from domain.commands import CancelJob, DrainNode, ReportAttempt
from domain.ledger import Accepted, Round
from domain.pool import facts as pool_facts
from domain.pool.commands import SetPeers
from domain.pool.outlook import outlook
from domain.pool.specs import HandoffRules, PeerSpec
from domain.specs import Dataset, Deadline, Locality, Runtime, Tier
from tests.domain.given import job, node, of
from tests.domain.pooled import RULES, Regional, pair


def full(region: Regional) -> None:
    """The one slot is taken."""
    assert of(f.AttemptStarted, region.say(job("first")).facts)


def offered(**asked: Any) -> tuple[Regional, Regional]:
    east, west = pair()
    full(east)
    assert of(pool_facts.HandoffOffered, east.say(job("j", **asked)).facts)
    return east, west


def released() -> tuple[Regional, Regional]:
    east, west = offered()
    west.hear(east.take("OfferHandoff"))
    assert of(pool_facts.HandoffReleased, east.hear(west.take("AnswerHandoff")).facts)
    return east, west


def kinds(round: Round) -> list[str]:
    return [type(fact).__name__ for fact in round.facts]


def test_a_job_that_waits_goes_where_there_is_room() -> None:
    east, west = offered()
    assert "j" in east.cell.jobs, "an offer moves nothing"
    assert kinds(west.hear(east.take("OfferHandoff"))) == ["HandoffPrepared"]
    assert "HandoffReleased" in kinds(east.hear(west.take("AnswerHandoff"), after_s=1))
    assert "j" not in east.cell.jobs
    taken = west.hear(east.take("ReleaseHandoff"), after_s=1)
    assert kinds(taken) == ["HandoffAccepted", "AttemptStarted"]
    there = west.cell.jobs["j@east"]
    assert there.seniority_ms == 1_000_000, "seniority travels"
    assert kinds(east.hear(west.take("AcknowledgeHandoff"))) == ["HandoffCompleted"]
    assert not east.cell.pool.flights
    assert kinds(west.hear(east.take("ConfirmHandoff"))) == ["HandoffConfirmed"]
    ended = west.say(ReportAttempt(job="j@east", attempt=1, state="finished"))
    assert "JobFinished" in kinds(ended)
    assert west.cell.pool.tombstones["j@east"].confirmed


def test_a_deadline_travels() -> None:
    deadline = Deadline(finish_by_ms=9_000_000, hardness="hard")
    east, west = offered(deadline=deadline)
    west.hear(east.take("OfferHandoff"))
    east.hear(west.take("AnswerHandoff"))
    west.hear(east.take("ReleaseHandoff"))
    there = west.cell.jobs["j@east"]
    assert (there.deadline_ms, there.hard) == (9_000_000, True)


def test_it_may_start_at_home_until_it_is_released() -> None:
    east, west = offered()
    west.hear(east.take("OfferHandoff"))
    started = east.say(ReportAttempt(job="first", attempt=1, state="finished"))
    assert of(f.AttemptStarted, started.facts)[0].job == "j"
    withdrawn = of(pool_facts.HandoffWithdrawn, east.hear(west.take("AnswerHandoff")).facts)
    assert [w.reason for w in withdrawn] == ["not_waiting"]
    assert kinds(west.hear(east.take("WithdrawHandoff"))) == ["HandoffLapsed"]
    assert not west.cell.jobs
    assert west.cell.nodes["west-0"].used == 0


def test_what_waits_there_comes_first() -> None:
    east, west = offered()
    offer = east.take("OfferHandoff")
    asked = Accepted(0, west.offset, offer.id, "east", offer.type, "east", 0, Raw(offer.body))
    west.offset += 1
    both = west.kept(west.decide([replace(asked, time_ms=west.now_ms), west.accept(job("local"))]))
    assert [s.job for s in of(f.AttemptStarted, both.facts)] == ["local"]
    assert [d.reason for d in of(pool_facts.HandoffDeclined, both.facts)] == ["no_capacity"]
    reply = of(pool_facts.HandoffWithdrawn, east.hear(west.take("AnswerHandoff")).facts)
    assert [(w.reason, w.detail) for w in reply] == [("declined", "no_capacity")]
    assert not of(pool_facts.HandoffOffered, east.say().facts), "it lets the peer rest"


def test_an_offer_without_an_answer_is_withdrawn_and_the_slots_are_freed() -> None:
    east, west = offered()
    west.hear(east.take("OfferHandoff"))
    gone = of(pool_facts.HandoffWithdrawn, east.say(after_s=10).facts)
    assert [w.reason for w in gone] == ["no_answer"]
    assert kinds(west.say(after_s=30)) == ["HandoffLapsed"]
    late = of(pool_facts.HandoffWithdrawn, east.hear(west.take("AnswerHandoff")).facts)
    assert [w.reason for w in late] == ["not_offered"]


def test_a_release_is_taken_even_if_the_slots_are_gone() -> None:
    east, west = released()
    west.say(after_s=30)
    assert not west.cell.jobs
    full(west)
    assert kinds(west.hear(east.take("ReleaseHandoff")))[0] == "HandoffAccepted"
    assert west.cell.jobs["j@east"].queued


def test_a_release_that_comes_twice_makes_one_job() -> None:
    east, west = released()
    release = east.take("ReleaseHandoff")
    west.hear(release)
    assert west.hear(release).duplicates == [0]
    refused = west.hear(release, id_="again").refusals
    assert [r.code for r in refused] == ["stale_token"]
    west.say(ReportAttempt(job="j@east", attempt=1, state="finished"))
    assert [r.code for r in west.hear(release, id_="late").refusals] == ["stale_token"]


def test_nothing_takes_a_released_job_back() -> None:
    east, west = released()
    assert east.refusal(CancelJob(job="j")) == "job_elsewhere"
    assert east.refusal(job("j")) == "job_exists"
    answer = west.cell
    assert answer.pool.prepared
    east.say(ReportAttempt(job="first", attempt=1, state="finished"), after_s=3600)
    assert "j" not in east.cell.jobs
    assert list(east.cell.pool.flights) == ["j"]


def test_a_held_place_is_lost_with_its_node() -> None:
    east, west = offered()
    west.hear(east.take("OfferHandoff"))
    assert kinds(west.say(DrainNode(node="west-0")))[:2] == ["NodeDraining", "HandoffLapsed"]
    assert west.refusal(CancelJob(job="j@east")) == "unknown_job"


def test_a_job_for_which_slots_are_held_is_not_here_yet() -> None:
    east, west = offered()
    west.hear(east.take("OfferHandoff"))
    assert west.refusal(CancelJob(job="j@east")) == "unknown_job"
    assert west.cell.pool.seen("j@east") == -1


def test_only_who_speaks_for_a_region_is_heard() -> None:
    east, west = offered()
    offer = east.take("OfferHandoff")
    assert [r.code for r in west.hear(offer, actor="mallory").refusals] == ["not_that_peer"]
    stranger = Regional("north", ("west",))
    assert [r.code for r in west.hear(stranger.advert("west")).refusals] == ["unknown_peer"]


def test_a_former_ledger_of_a_region_is_not_heard_any_more() -> None:
    east, west = offered()
    offer = east.take("OfferHandoff")
    reborn = Regional("east", ("west",), epoch=2)
    west.hear(reborn.advert("west"))
    assert [r.code for r in west.hear(offer).refusals] == ["stale_epoch"]


def test_a_job_of_a_former_ledger_is_another_job() -> None:
    east, west = released()
    west.hear(east.take("ReleaseHandoff"))
    reborn = Regional("east", ("west",), epoch=2)
    reborn.hear(west.advert("east"))
    assert west.cell.pool.id_of(reborn.cell.pool.token_of("j")) == "j@east@2"


@pytest.mark.parametrize(
    ("locality", "moves"),
    [
        (Locality(), True),
        (Locality(max_hops=0), False),
        (Locality(forbidden=("west",)), False),
        (Locality(regions=("east",)), False),
        (Locality(regions=("east", "west")), True),
        (Locality(data=(Dataset(size_mib=1 << 30, regions=("east",)),)), False),
        (Locality(data=(Dataset(size_mib=1 << 30, regions=("east", "west")),)), True),
    ],
)
def test_where_a_job_may_go(locality: Locality, moves: bool) -> None:
    east, _ = pair()
    full(east)
    offers = of(pool_facts.HandoffOffered, east.say(job("j", locality=locality)).facts)
    assert bool(offers) == moves


def test_a_hand_off_must_save_enough() -> None:
    east, west = pair(rules=HandoffRules(min_benefit_s=60))
    full(east)
    assert not of(pool_facts.HandoffOffered, east.say(job("j")).facts)
    assert not of(pool_facts.HandoffOffered, east.say(after_s=60).facts), "its inventory is stale"
    late = of(pool_facts.HandoffOffered, east.hear(west.advert("east"), id_="new").facts)
    assert late[0].why.benefit_s >= late[0].why.threshold_s == 60


def test_old_inventory_is_not_believed() -> None:
    east, _ = pair()
    full(east)
    assert not of(pool_facts.HandoffOffered, east.say(job("j"), after_s=301).facts)


def priced(milli: int) -> dict[str, Any]:
    return {"labels": {"price": str(milli)}}


def test_a_dearer_region_has_to_save_more_waiting() -> None:
    rules = HandoffRules(min_benefit_s=0, price_s=2)
    east, west = pair(rules=rules)
    full(east)
    west.say(node("west-0", slots=1, path={"region": "west"}, **priced(30)))
    east.hear(west.advert("east"), id_="priced")
    assert not of(pool_facts.HandoffOffered, east.say(job("j")).facts)
    heard = east.hear(west.advert("east"), id_="again", after_s=60)
    (offer,) = of(pool_facts.HandoffOffered, heard.facts)
    assert (offer.why.price_s, offer.why.local_wait_s, offer.why.benefit_s) == (60, 60, 0)


def test_data_is_where_a_region_says_so() -> None:
    east, west = pair()
    full(east)
    asked = Locality(data=(Dataset(name="corpus", size_mib=60_000),))
    started = east.say(job("j", locality=asked))
    assert not of(pool_facts.HandoffOffered, started.facts), "its data would travel for a minute"
    peers = (PeerSpec(region="east", actor="east"),)
    west.say(SetPeers(region="west", peers=peers, rules=RULES, datasets=("corpus",)))
    assert of(pool_facts.HandoffOffered, east.hear(west.advert("east"), id_="corpus").facts)


def test_the_outlook_is_that_of_what_runs() -> None:
    east, _ = pair(nodes=2, slots=4)
    east.say(job("long", slots=4, runtime=Runtime(estimate_s=7200), tier=Tier.BASIC))
    east.say(job("short", slots=2, runtime=Runtime(estimate_s=600), preemptible=False))
    (told,) = outlook(east.cell)
    assert told.evictable == (0, 0, 0, 4)
    assert told.waits_s == (0, 0, 600, 7200)
    assert told.free_in == (4, 8, 8)
    assert told.largest_gang == 0
