"""What Kueue's users met, and what holds here instead. The numbers are of kubernetes-sigs/kueue.

Preemption is looked at until nothing more happens (`settle`): a loop would never get quiet.
"""

from __future__ import annotations

from typing import Any

from domain import commands as c
from domain import specs
from domain.facts import AttemptEnded, AttemptStarted, PreemptionDecided
from tests.domain.given import Given, job, of
from tests.domain.preemption_test import EAGER, account, obeyed, quota, saved, settle, tree

PREMIUM, BASIC = specs.Tier.PREMIUM, specs.Tier.BASIC


def running(world: Given) -> list[str]:
    return [j.id for j in world.cell.jobs.values() if j.run is not None]


def test_2821_a_strong_claim_above_its_quota_does_not_evict_what_then_passes_it() -> None:
    """A claim that had to borrow evicted a weaker job, which was older, got in first, and again.

    Here a claim beyond its nominal quota preempts its own account's alone, and holds what it frees.
    """
    world = tree(account("org", parent=None), account("a", quota(8)), account("b", quota(8)))
    settle(
        world, job("weak", queue="a", slots=8, tier=BASIC), job("own", queue="b", slots=8), most=0
    )
    decided = settle(world, job("strong", queue="b", slots=8, tier=PREMIUM), most=1)
    assert [v.job for d in decided for v in d.victims] == ["own"]
    assert running(world) == ["weak", "strong"]


def test_3779_tenants_without_quota_below_one_cohort_do_not_loop() -> None:
    """Below a nested cohort, a guaranteed tenant's second claim evicted one job for ever.

    Sizes as reported, in slots: the cohort has 30, the tenants nothing of their own.
    """
    world = tree(
        account("org", parent=None),
        c.SetQuota(account="cohort", parent="org", quotas=(quota(6),)),
        account("a", parent="cohort"),
        account("b", parent="cohort"),
        account("c", quota(3), parent="cohort"),
        nodes=1,
    )
    best = [job(f"a{i}", queue="a", slots=2) for i in range(2)]
    best += [job(f"b{i}", queue="b", slots=1) for i in range(2)]
    settle(world, *best, most=0)
    settle(world, job("guaranteed-1", queue="c", slots=1, tier=PREMIUM), most=2)
    settle(world, job("guaranteed-2", queue="c", slots=2, tier=PREMIUM), most=2)
    assert {"guaranteed-1", "guaranteed-2"} <= set(running(world))


def test_7101_gangs_of_another_project_do_not_flap() -> None:
    """Four gangs of 2 held a pool of 8; gangs of 6, 5, 4 and 3 came, and evictions flapped.

    Neither project has a quota of its own: nobody has a claim, and nobody moves.
    """
    pool = account("org", quota(8), parent=None)
    world = tree(pool, account("a"), account("b"), nodes=1)
    settle(world, *(job(f"a{i}", queue="a", count=2) for i in range(4)), most=0)
    for size in (6, 5, 4, 3):
        settle(world, job(f"b{size}", queue="b", count=size), most=0)
    assert running(world) == ["a0", "a1", "a2", "a3"]


def test_7101_with_quota_of_its_own_the_gang_lands_once() -> None:
    world = tree(
        account("org", parent=None), account("a", quota(4)), account("b", quota(4)), nodes=1
    )
    settle(world, *(job(f"a{i}", queue="a", count=2) for i in range(4)), most=0)
    decided = settle(world, *(job(f"b{n}", queue="b", count=n) for n in (6, 5, 4, 3)), most=2)
    assert len(decided) == 1
    assert len(decided[0].victims) == 2
    assert running(world) in (["a0", "a1", "b4"], ["a0", "a1", "b3"])


def test_14543_victims_of_ones_own_and_of_others_in_one_claim() -> None:
    """Victims of the preemptor's own queue made others eligible, and were then let go again.

    After that the others' eviction was not allowed, and two jobs evicted each other for ever. Here
    what may be a victim depends on nothing that the search itself chooses.
    """
    world = tree(
        account("org", parent=None), account("a", quota(8)), account("b", quota(4)), nodes=2
    )
    settle(world, *(job(f"own{i}", queue="a", slots=2, tier=BASIC) for i in range(4)), most=0)
    settle(world, *(job(f"lent{i}", queue="b", slots=2) for i in range(4)), most=0)
    wants = [job(f"up{i}", queue="a", slots=4, tier=PREMIUM) for i in range(3)]
    settle(world, *wants, *(job(f"more{i}", queue="b", slots=4) for i in range(3)), most=6)
    assert {"up0", "up1"} <= set(running(world))


def test_13662_victims_that_end_apart_do_not_come_back_before_the_claim_starts() -> None:
    """Of two victims the first to end was admitted again while the other one still ended."""
    world = tree(account("org", parent=None), account("a", quota(8)), account("b"), nodes=1)
    settle(world, *(job(f"b{i}", queue="b", slots=4) for i in range(2)), most=0)
    claimed = of(PreemptionDecided, world.facts(job("whole", queue="a", slots=8), after_s=1))
    assert [v.job for v in claimed[0].victims] == ["b0", "b1"]
    early, late = (c.ReportAttempt(job=f"b{i}", attempt=1, state="stopped") for i in range(2))
    facts = world.facts(early, after_s=1)
    assert of(AttemptEnded, facts)
    assert not of(AttemptStarted, facts), "the slots are held for the claim"
    assert not of(PreemptionDecided, world.facts(after_s=5))
    assert [f.job for f in of(AttemptStarted, world.facts(late, after_s=1))] == ["whole"]


def test_477_the_victim_is_the_one_that_saved_its_work_last() -> None:
    """Victims were chosen by priority and age, whatever work was lost with them."""
    world = tree(account("org", parent=None), account("a", quota(8)), account("b", quota(8)))
    keeps = specs.Runtime(checkpoint_interval_s=600)
    jobs = [job(f"b{i}", queue="b", slots=8, runtime=keeps) for i in range(2)]
    settle(world, *jobs, most=0)
    world.round(after_s=1000)
    reports = [r for r in saved(world) if isinstance(r, c.ReportCheckpoint)]
    world.round(*(r for r in reports if r.job == "b0"))
    decided = settle(world, job("mine", queue="a", slots=8), most=1)
    assert [v.job for d in decided for v in d.victims] == ["b0"], "the younger one would lose more"


def test_8309_small_jobs_pass_a_gang_for_a_while_and_not_for_ever() -> None:
    """A strict queue stood still behind a gang; a best-effort queue let all pass it for ever.

    A skip queue lets them pass only until the gang has waited for its tier's time.
    """
    policy = specs.PolicyParameters(
        preemption=False, gathering=True, gather_after_s=(0, 0, 3600, 3600)
    )
    world = tree(account("org", parent=None), account("a", quota(16)), policy=policy)
    hog: dict[str, Any] = {"queue": "a", "slots": 8, "preemptible": False}
    world.round(job("x", **hog), job("gang", count=2, **hog))
    world.round(*obeyed(world))
    assert [f.job for f in of(AttemptStarted, world.facts(job("passes", **hog)))] == ["passes"]
    world.round(*obeyed(world), after_s=3600)
    ends = c.ReportAttempt(job="x", attempt=1, state="finished")
    assert not of(AttemptStarted, world.facts(ends, job("late", **hog), after_s=1))
    ends = c.ReportAttempt(job="passes", attempt=1, state="finished")
    assert [f.job for f in of(AttemptStarted, world.facts(ends, after_s=1))] == ["gang"]


def test_1873_a_quota_or_policy_that_changes_counts_at_once() -> None:
    """Settings counted only for what came after them, or after a restart."""
    world = tree(account("org", parent=None), account("a", quota(0)), policy=EAGER)
    world.round(job("waits", queue="a", slots=4))
    assert running(world) == []
    started = of(AttemptStarted, world.facts(account("a", quota(8))))
    assert [f.job for f in started] == ["waits"]
    weak = job("weak", queue="a", slots=8, tier=BASIC)
    off = specs.PolicyParameters(preemption=False)
    assert not of(PreemptionDecided, world.facts(c.SetPolicy(parameters=off), weak, after_s=1))
    shrunk = world.facts(account("a", quota(2)), after_s=1)
    assert not of(AttemptEnded, shrunk), "what runs goes on; it is borrowed now"
