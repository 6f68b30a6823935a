"""Large gangs land: one that lacks room gathers free nodes, and its equals do not take them."""

from __future__ import annotations

from typing import Any

from domain import commands as c
from domain import specs
from domain.facts import AttemptStarted, JobFinished, ShapeBlocked
from tests.domain.given import Given, job, node, of

AT_ONCE = (0, 0, 0, 0)


def world(nodes: int = 4, queue: str = "skip", **policy: Any) -> Given:
    """Full nodes of 8 slots, each with a job of its own: `filler-0` and so on."""
    given = Given()
    given.round(
        *(node(f"n{i}") for i in range(nodes)),
        c.SetQuota(
            account="team",
            quotas=(specs.Quota(accelerator="h100", nominal=8 * nodes),),
            queues=(specs.Queue(queue="q", order="strict" if queue == "strict" else "skip"),),
        ),
        c.SetPolicy(
            parameters=specs.PolicyParameters(
                preemption=False,
                gathering=policy.pop("gathering", True),
                gather_after_s=policy.pop("gather_after_s", AT_ONCE),
                **policy,
            )
        ),
        *(job(f"filler-{i}", slots=8) for i in range(nodes)),
    )
    return given


def ends(name: str) -> c.ReportAttempt:
    return c.ReportAttempt(job=name, attempt=1, state="finished")


def stream_of_small_jobs(given: Given, nodes: int) -> str | None:
    """Each filler ends in turn while small jobs keep coming; the round in which the gang starts."""
    for i in range(nodes):
        small = [job(f"small-{i}-{k}", slots=4) for k in range(4)]
        started = of(AttemptStarted, given.facts(ends(f"filler-{i}"), *small, after_s=60))
        if any(f.job == "gang" for f in started):
            return f"filler-{i}"
    return None


def test_a_gang_lands_amid_a_stream_of_small_jobs() -> None:
    given = world()
    given.round(job("gang", count=3, slots=8))
    given.round()
    assert stream_of_small_jobs(given, 4) == "filler-2"


def test_without_gathering_it_starves() -> None:
    given = world(gathering=False)
    given.round(job("gang", count=3, slots=8))
    given.round()
    assert stream_of_small_jobs(given, 4) is None


def test_a_stronger_tier_takes_what_is_gathered() -> None:
    given = world()
    given.round(job("gang", count=3, slots=8))
    given.round()
    premium = job("first", slots=8, tier=specs.Tier.PREMIUM)
    facts = given.facts(ends("filler-0"), premium, after_s=60)
    assert [f.job for f in of(AttemptStarted, facts)] == ["first"]


def test_only_what_it_needs_is_hidden() -> None:
    given = world()
    given.round(job("gang", count=1, groups=(specs.ReplicaGroup(count=2, slots=8),)))
    given.round()
    facts = given.facts(*(ends(f"filler-{i}") for i in range(3)), job("small"), after_s=60)
    assert {f.job for f in of(AttemptStarted, facts)} == {"gang", "small"}


def test_one_gang_of_a_type_gathers_at_a_time_the_oldest_first() -> None:
    given = world()
    given.round(job("gang", count=3, slots=8))
    given.round(job("later", count=2, slots=8), after_s=1)
    facts = given.facts(ends("filler-0"), ends("filler-1"), after_s=60)
    assert not of(AttemptStarted, facts), "the younger gang would fit on what the older one gathers"
    facts = given.facts(ends("filler-2"), after_s=60)
    assert [f.job for f in of(AttemptStarted, facts)] == ["gang"]


def test_everyone_is_told_why_it_waits() -> None:
    given = world()
    given.round(job("gang", count=3, slots=8))
    given.round()
    given.round(ends("filler-0"), job("small"), after_s=60)
    reasons = {s.spec.groups[0].count: s.reason for s in given.cell.shapes.values() if s.waiting}
    assert reasons == {3: "gathering", 1: "behind_gang"}
    given.round(c.CancelJob(job="gang"), after_s=1)
    assert not any(s.waiting for s in given.cell.shapes.values())


def test_it_gathers_only_after_the_wait_that_its_tier_has_to_bear() -> None:
    given = world(gather_after_s=(600, 600, 600, 600))
    given.round(job("gang", count=3, slots=8))
    early = given.facts(ends("filler-0"), job("small-0", slots=8), after_s=60)
    assert [f.job for f in of(AttemptStarted, early)] == ["small-0"]
    late = given.facts(ends("filler-1"), job("small-1", slots=8), after_s=600)
    assert not of(AttemptStarted, late)
    assert of(ShapeBlocked, late)


def test_a_strict_queue_is_not_passed_by() -> None:
    given = world(queue="strict")
    given.round(job("first", slots=8, count=4), job("gang", count=3, slots=8))
    facts = given.facts(*(ends(f"filler-{i}") for i in range(3)), after_s=60)
    assert len(of(JobFinished, facts)) == 3
    assert not of(AttemptStarted, facts)
