"""Jobs that outlive their region: copies, votes, adoption, and what a region that is back hears."""

from __future__ import annotations

from typing import Any

import pytest

from domain import facts as f
from domain.commands import AmendJob, CancelJob, ReportAttempt, SetQuota
from domain.ledger import Round
from domain.pool import guard_facts as g
from domain.pool.commands import FenceRegion, SetPeers
from domain.pool.specs import HandoffRules, PeerSpec
from domain.specs import Locality, Quota, Tier
from streams import outbox
from tests.domain.given import job, of
from tests.domain.pooled import Regional

RULES = HandoffRules(min_benefit_s=0, lost_s=60)
NAMES = ("east", "north", "west")
FAILOVER = Locality(on_region_loss="failover")


class Three:
    """Three regions, and the letters between them that are not cut off."""

    def __init__(self, names: tuple[str, ...] = NAMES, **more: Any) -> None:
        self.regions = {n: Regional(n, names, rules=RULES, **more) for n in names}
        self.cut: set[str] = set()
        self.tell()

    def __getitem__(self, name: str) -> Regional:
        return self.regions[name]

    def alive(self) -> list[Regional]:
        return [r for n, r in self.regions.items() if n not in self.cut]

    def post(self) -> list[Round]:
        """Deliver until nobody has anything to say."""
        rounds = []
        for _ in range(20):
            found = False
            for region in self.alive():
                out, region.out = region.out, []
                for letter in out:
                    if letter.to not in self.cut:
                        rounds.append(self.regions[letter.to].hear(letter))
                        found = True
            if not found:
                return rounds
        raise AssertionError("they never stop talking")

    def tell(self) -> list[Round]:
        """Everyone says what it has, and all that stands."""
        rounds = []
        for region in self.alive():
            for to in self.regions:
                if to not in self.cut and to != region.cell.name:
                    letter = region.advert(to)
                    rounds.append(self.regions[to].hear(letter, id_=f"a{region.offset}"))
            region.out += [s for s in outbox.standing(region.cell) if s not in region.out]
        return rounds + self.post()

    def pass_(self, seconds: int) -> list[Round]:
        """Time, in steps of half a minute."""
        rounds = []
        for _ in range(seconds // 30):
            for region in self.alive():
                rounds.append(region.say(after_s=30))
            rounds += self.tell()
        return rounds

    def guarded(self, name: str = "j", **more: Any) -> tuple[Regional, Regional]:
        """A job that runs in the east, and its region and guardian."""
        east = self["east"]
        east.say(job(name, locality=FAILOVER, **more))
        self.post()
        guard = east.cell.pool.guards.of[name]
        assert guard.kept
        return east, self[guard.by]


def brought_back(**more: Any) -> tuple[Three, Regional, Regional, list[Round]]:
    """The east is cut off, its guardian brings its job back, and the east does not know of it."""
    three = Three()
    east, guardian = three.guarded(**more)
    three.cut = {"east"}
    rounds = three.pass_(120)
    east.now_ms = guardian.now_ms
    return three, east, guardian, rounds


def facts(rounds: list[Round], kind: type[Any]) -> list[Any]:
    return [fact for round in rounds for fact in of(kind, round.facts)]


def test_a_guarded_job_ends_when_its_guardian_has_let_go() -> None:
    three = Three()
    east, guardian = three.guarded()
    assert "j@east" in guardian.cell.pool.guards.copies
    ended = east.say(ReportAttempt(job="j", attempt=1, state="finished"))
    assert of(g.OutcomeAsked, ended.facts)
    assert not of(f.JobFinished, ended.facts)
    assert not east.cell.nodes["east-0"].used, "its slots are free at once"
    assert east.refusal(CancelJob(job="j")) == "job_stopping"
    assert east.refusal(AmendJob(job="j", tier=Tier.PREMIUM)) == "job_not_waiting"
    assert facts(three.post(), f.JobFinished)
    assert not east.cell.pool.guards.of
    assert guardian.cell.pool.guards.copies["j@east"].ended_ms


def test_one_that_waits_is_not_guarded() -> None:
    three = Three()
    east = three["east"]
    east.say(job("j"))
    assert not east.cell.pool.guards.of
    assert of(f.JobFinished, east.say(ReportAttempt(job="j", attempt=1, state="finished")).facts)


@pytest.mark.parametrize("outcome", ["cancelled", "failed"])
def test_other_ends_are_asked_for_too(outcome: str) -> None:
    three = Three()
    east, _ = three.guarded(max_restarts=0)
    if outcome == "failed":
        east.say(ReportAttempt(job="j", attempt=1, state="failed"))
        assert [e.reason for e in facts(three.post(), f.JobFailed)] == ["failed"]
    else:
        east.say(CancelJob(job="j"))
        east.say(ReportAttempt(job="j", attempt=1, state="stopped"))
        assert facts(three.post(), f.JobCancelled)


def test_a_majority_brings_back_the_job_of_a_lost_region() -> None:
    _, east, guardian, rounds = brought_back()
    assert {fact.region for fact in facts(rounds, g.RegionDoubted)} == {"east"}
    assert [fact.region for fact in facts(rounds, g.RegionFenced)] == ["east"]
    assert [fact.job for fact in facts(rounds, g.JobAdopted)] == ["j@east"]
    there = guardian.cell.jobs["j@east"]
    assert there.run is not None
    assert there.seniority_ms == east.cell.jobs["j"].seniority_ms, "seniority outlives the region"
    assert guardian.cell.pool.token_of("j@east") == ("east", "j", 1, 1)
    again = guardian.cell.pool.guards.of["j@east"].by
    assert again not in ("", "east"), "it is guarded by the third region now"


def test_a_region_that_is_back_gives_up_what_was_brought_back() -> None:
    three, east, guardian, _ = brought_back()
    ended = east.say(ReportAttempt(job="j", attempt=1, state="finished"))
    assert not of(f.JobFinished, ended.facts), "it may not end what may have been brought back"
    three.cut = set()
    rounds = three.tell()
    assert facts(rounds, g.JobTaken)
    assert facts(rounds, g.JobLeft)
    assert "j" not in east.cell.jobs
    assert east.refusal(CancelJob(job="j")) == "job_elsewhere"
    rounds += three.pass_(60)
    assert "east" in [fact.region for fact in facts(rounds, g.RegionTrusted)]
    run = guardian.cell.jobs["j@east"].run
    assert run is not None
    guardian.say(ReportAttempt(job="j@east", attempt=run.attempt, state="finished"))
    assert len(facts(three.post(), f.JobFinished)) == 1
    assert not any(p.given for r in three.regions.values() for p in r.cell.pool.peers.values())


def test_what_still_runs_there_is_stopped() -> None:
    three, east, _, _ = brought_back()
    three.cut = set()
    rounds = three.tell()
    assert [s.reason for s in facts(rounds, f.AttemptStopping)] == ["taken_over"]
    assert "j" in east.cell.jobs, "until its agents have stopped it"
    left = east.say(ReportAttempt(job="j", attempt=1, state="stopped"))
    assert of(g.JobLeft, left.facts)
    assert not east.cell.nodes["east-0"].used


def test_jobs_end_while_their_guardian_is_lost() -> None:
    three = Three()
    east, guardian = three.guarded()
    name = guardian.cell.name
    three.cut = {name}
    rounds = three.pass_(120)
    assert [fact.region for fact in facts(rounds, g.RegionFenced)] == [name]
    ended = east.say(ReportAttempt(job="j", attempt=1, state="finished"))
    assert of(f.JobFinished, ended.facts)
    assert east.cell.pool.guards.of["j"].over
    assert east.refusal(job("j")) == "job_exists"
    guardian.now_ms = east.now_ms
    three.cut = set()
    rounds = three.tell() + three.pass_(60)
    assert facts(rounds, g.CopyEnded)
    assert [fact.region for fact in facts(rounds, g.RegionTrusted)] == [name]
    assert not east.cell.pool.guards.of
    assert not facts(rounds, g.JobAdopted)


def test_what_had_come_to_its_end_ends_when_the_guardian_is_held_for_lost() -> None:
    three = Three()
    east, guardian = three.guarded()
    three.cut = {guardian.cell.name}
    east.say(ReportAttempt(job="j", attempt=1, state="finished"))
    assert facts(three.pass_(120), f.JobFinished)


def test_of_two_regions_that_are_cut_apart_only_one_is_held_for_lost() -> None:
    """Both doubt the other; the third hears neither, and then both at once."""
    three = Three()
    east, guardian = three.guarded()
    third = next(r for n, r in three.regions.items() if r not in (east, guardian))
    for region in three.regions.values():
        region.say(after_s=61)
    said = [(east, guardian), (guardian, east)]
    votes = 0
    for speaker, _ in said:
        assert speaker.cell.pool.guards.fences
        heard = third.hear(speaker.advert(third.cell.name))
        votes += len(of(g.VoteGiven, heard.facts))
    assert votes == 1
    fenced = 0
    for speaker, _ in said:
        heard = speaker.hear(third.advert(speaker.cell.name))
        fenced += len(of(g.RegionFenced, heard.facts))
    assert fenced == 1


def test_who_hears_the_region_gives_no_vote() -> None:
    three = Three()
    _, guardian = three.guarded()
    third = next(n for n in NAMES if n not in ("east", guardian.cell.name))
    for region in three.regions.values():
        region.say(after_s=61)
    three[third].hear(three["east"].advert(third))
    heard = three[third].hear(guardian.advert(third))
    assert not of(g.VoteGiven, heard.facts)


def test_a_vote_of_an_earlier_time_does_not_count() -> None:
    three = Three()
    _, guardian = three.guarded()
    name = guardian.cell.name
    third = next(r for n, r in three.regions.items() if n not in ("east", name))
    for region in three.regions.values():
        region.say(after_s=61)
    third.hear(guardian.advert(third.cell.name))
    late = third.advert(name)
    assert of(g.RegionTrusted, guardian.hear(three["east"].advert(name), after_s=1).facts)
    guardian.say(after_s=61)
    assert guardian.cell.pool.guards.fences
    assert not of(g.RegionFenced, guardian.hear(late).facts)


def test_two_regions_need_an_operator() -> None:
    two = Three(("east", "west"))
    _, west = two.guarded()
    two.cut = {"east"}
    assert not facts(two.pass_(300), g.JobAdopted)
    fenced = west.say(FenceRegion(region="east"))
    assert of(g.RegionFenced, fenced.facts)
    assert of(g.JobAdopted, fenced.facts)
    assert west.refusal(FenceRegion(region="east")) == "region_is_fenced"
    assert west.refusal(FenceRegion(region="nowhere")) == "unknown_peer"


def test_a_region_that_will_not_come_back_can_be_taken_out() -> None:
    three = Three()
    _, guardian = three.guarded()
    west = three["west"]
    west.say(job("w", locality=FAILOVER.model_copy(update={"regions": ("west", "east")})))
    three.post()
    assert west.cell.pool.guards.of["w"].by == "east"
    left = tuple(PeerSpec(region=n, actor=n) for n in NAMES if n not in ("east", "west"))
    without = SetPeers(region="west", peers=left, rules=RULES)
    assert west.refusal(without) == "peer_in_use"
    three.cut = {"east"}
    three.pass_(120)
    west.say(without)
    assert not west.cell.pool.guards.fences
    assert west.cell.pool.guards.of["w"].by == "", "no other may run it"
    assert all(kept.source != "east" for kept in west.cell.pool.unconfirmed())
    ended = west.say(ReportAttempt(job="w", attempt=1, state="finished"))
    assert of(f.JobFinished, ended.facts)
    assert guardian.cell.jobs["j@east"], "what it brought back stays"


def test_a_guarded_job_is_handed_over_to_its_guardian_only() -> None:
    three = Three()
    east, _ = three.guarded("first")
    east.say(job("j", locality=FAILOVER))
    rounds = three.post()
    three.pass_(60)
    by = next(n for n, r in three.regions.items() if "j@east" in r.cell.jobs)
    assert by != "east"
    assert not facts(rounds, g.JobAdopted)
    assert three[by].cell.pool.guards.of["j@east"].kept
    assert "j@east" not in three[by].cell.pool.guards.copies, "the copy has become the job"


def test_an_amended_job_is_brought_back_as_amended() -> None:
    three = Three()
    east = three["east"]
    east.say(job("first"), job("j", locality=FAILOVER.model_copy(update={"max_hops": 0})))
    three.post()
    east.say(AmendJob(job="j", tier=Tier.PREMIUM))
    three.tell()
    guardian = three[east.cell.pool.guards.of["j"].by]
    three.cut = {"east"}
    three.pass_(120)
    assert guardian.cell.jobs["j@east"].shape.spec.tier is Tier.PREMIUM


def test_a_peer_that_may_not_run_it_is_not_its_guardian() -> None:
    three = Three()
    east = three["east"]
    where = FAILOVER.model_copy(update={"forbidden": ("north",)})
    east.say(*(job(f"j{n}", locality=where) for n in range(20)))
    assert {guard.by for guard in east.cell.pool.guards.of.values()} == {"west"}
    east.say(job("only", locality=FAILOVER.model_copy(update={"regions": ("east",)})))
    assert east.cell.pool.guards.of["only"].by == ""
    assert of(f.JobCancelled, east.say(CancelJob(job="only")).facts)


def test_a_guardian_without_the_queue_refuses_and_another_is_asked() -> None:
    three = Three()
    quota = Quota(accelerator="h100", nominal=100)
    for name in ("north", "west"):
        three[name].say(SetQuota(account="a", quotas=(quota,)))
        assert "q" not in three[name].cell.queues
    east = three["east"]
    assert of(g.JobGuarded, east.say(job("j", locality=FAILOVER)).facts)
    for _ in range(2):
        letter = east.take("GuardJob")
        peer = three[letter.to]
        assert of(g.CopyEnded, peer.hear(letter).facts)
        east.hear(peer.take("AnswerGuard"))
    assert east.cell.pool.guards.of["j"].by == ""


def test_letters_that_come_twice_or_late_change_nothing() -> None:
    three = Three()
    east = three["east"]
    east.say(job("j", locality=FAILOVER))
    guard = east.take("GuardJob")
    guardian = three[guard.to]
    guardian.hear(guard)
    east.hear(guardian.take("AnswerGuard"))
    assert guardian.hear(guard, id_="again").refusals[0].code == "stale_token"
    assert guardian.take("AnswerGuard"), "and is told once more"
    east.say(ReportAttempt(job="j", attempt=1, state="finished"))
    end = east.take("EndGuard")
    guardian.hear(end)
    assert guardian.hear(guard, id_="late").refusals[0].code == "stale_token"
    assert guardian.cell.pool.guards.copies["j@east"].ended_ms
    assert guardian.hear(end, id_="twice").refusals[0].code == "stale_token"
    answer = guardian.take("AnswerGuard")
    assert of(f.JobFinished, east.hear(answer).facts)
    assert east.hear(answer, id_="again").refusals[0].code == "stale_token"


def test_an_end_that_overtakes_its_copy_counts() -> None:
    three = Three()
    east = three["east"]
    east.say(job("j", locality=FAILOVER))
    guard = east.take("GuardJob")
    guardian = three[guard.to]
    east.say(ReportAttempt(job="j", attempt=1, state="finished"))
    assert of(g.CopyEnded, guardian.hear(east.take("EndGuard")).facts)
    assert guardian.hear(guard).refusals[0].code == "stale_token"


def test_what_ended_is_forgotten_in_the_end() -> None:
    three = Three()
    east, guardian = three.guarded()
    east.say(ReportAttempt(job="j", attempt=1, state="finished"))
    three.post()
    window_s = guardian.cell.policy.duplicate_window_s
    guardian.say(after_s=window_s + 1)
    assert not guardian.cell.pool.guards.copies


def test_copies_outlive_the_ledger_of_their_region() -> None:
    """It comes back empty, with a higher epoch: nobody else can have the job any more."""
    three = Three()
    _, guardian = three.guarded()
    new = Regional("east", NAMES, rules=RULES, epoch=2)
    heard = guardian.hear(new.advert(guardian.cell.name))
    assert of(g.JobAdopted, heard.facts)
    new.hear(guardian.advert("east"))
    told = guardian.take("AcknowledgeHandoff")
    assert new.hear(told).refusals[0].code == "stale_token"
    assert guardian.hear(new.take("ConfirmHandoff")).facts


def test_peers_are_not_doubted_where_nothing_depends_on_them() -> None:
    three = Three()
    three.cut = {"east"}
    assert not facts(three.pass_(300), g.RegionDoubted)


def test_a_release_to_the_guardian_that_took_the_job_meanwhile() -> None:
    """The hand-off and the adoption make the same token: one job, whichever comes first."""
    two = Three(("east", "west"))
    east, west = two["east"], two["west"]
    east.say(job("first"))
    east.say(job("j", locality=FAILOVER))
    west.hear(east.take("GuardJob"))
    west.hear(east.take("OfferHandoff"))
    east.hear(west.take("AnswerHandoff"))
    adopted = west.say(FenceRegion(region="east"))
    assert of(g.JobAdopted, adopted.facts)
    release = west.hear(east.take("ReleaseHandoff"))
    assert release.refusals[0].code == "stale_token"
    assert list(west.cell.jobs) == ["j@east"]
    east.hear(west.take("AcknowledgeHandoff"))
    assert not east.cell.pool.flights


def test_a_job_that_backs_off_is_gone_when_it_was_taken() -> None:
    three, east, _, _ = brought_back(max_restarts=3)
    east.say(ReportAttempt(job="j", attempt=1, state="failed"))
    assert east.cell.jobs["j"].not_before_ms
    three.cut = set()
    assert facts(three.tell(), g.JobLeft)
    assert not east.say(after_s=3600).facts, "nothing of it comes back"
    assert "j" not in east.cell.jobs


def test_an_answer_about_an_older_copy_does_not_count() -> None:
    three = Three()
    east = three["east"]
    east.say(job("first"), job("j", locality=FAILOVER.model_copy(update={"max_hops": 0})))
    guardian = three[east.cell.pool.guards.of["j"].by]
    guardian.hear(east.take("GuardJob"))
    old = guardian.take("AnswerGuard")
    east.say(AmendJob(job="j", tier=Tier.PREMIUM))
    assert east.hear(old).refusals[0].code == "stale_token"
    guardian.hear(east.take("GuardJob"))
    east.hear(guardian.take("AnswerGuard"))
    assert east.cell.pool.guards.of["j"].kept


def test_an_owner_hears_in_the_end_that_its_job_was_taken() -> None:
    """The first acknowledgement is lost; whatever became of the job since, its end is answered."""
    three, east, guardian, _ = brought_back()
    run = guardian.cell.jobs["j@east"].run
    assert run is not None
    guardian.say(ReportAttempt(job="j@east", attempt=run.attempt, state="finished"))
    three.post()
    east.say(ReportAttempt(job="j", attempt=1, state="finished"))
    guardian.hear(east.take("EndGuard"))
    assert of(g.JobLeft, east.hear(guardian.take("AcknowledgeHandoff")).facts)
