"""What Volcano's users met, and what holds here instead. The numbers are of volcano-sh/volcano."""

from __future__ import annotations

from typing import Any

from domain import specs
from domain.facts import AttemptStarted, JobClaimed, PreemptionDecided
from tests.domain.given import Given, job, node, of
from tests.domain.preemption_test import account, quota, settle, tree

MOST: dict[str, Any] = {"borrowing_limit": 5}


def running(world: Given) -> list[str]:
    return [j.id for j in world.cell.jobs.values() if j.run is not None]


def halves(nodes: int = 1, nominal: int = 8) -> Given:
    return tree(
        account("org", parent=None),
        account("a", quota(nominal)),
        account("b", quota(nominal)),
        nodes=nodes,
    )


def test_3729_two_queues_do_not_reclaim_from_each_other_for_ever() -> None:
    """11 units, two queues that deserve 5 and may use 10: jobs of 2 took turns without end.

    What is taken back is what was lent, whole jobs of it, and no queue is pushed below its own.
    """
    world = tree(
        account("org", parent=None),
        account("a", quota(5, **MOST)),
        account("b", quota(5, **MOST)),
        nodes=0,
    )
    world.round(node("n", slots=11))
    settle(world, *(job(f"a{i}", queue="a", slots=2) for i in range(5)), most=0)
    decided = settle(world, *(job(f"b{i}", queue="b", slots=2) for i in range(5)), most=2)
    assert {d.cause for d in decided} == {"reclaim"}
    held = running(world)
    assert len(held) == 5
    assert sum(name.startswith("b") for name in held) == 2, "its 5, in jobs of 2"


def test_4756_a_claim_on_what_was_lent_is_not_kept_out_by_a_full_cluster() -> None:
    """With all capacity in use, jobs were not let into the queue from which reclaiming starts."""
    world = halves(nominal=4)
    settle(world, job("borrows", queue="a", slots=8), most=0)
    decided = settle(world, job("owns", queue="b", slots=4), most=1)
    assert [d.preemptor for d in decided] == ["owns"]
    assert "owns" in running(world)


def test_4607_one_gang_is_evicted_whole_and_not_a_part_of_each() -> None:
    """Node by node, one pod of each of many gangs was evicted: all of them failed.

    A victim is a gang; the fewest slot-seconds go, so here one of the four and no other.
    """
    world = halves(nodes=4, nominal=16)
    settle(world, *(job(f"a{i}", queue="a", count=4, slots=2) for i in range(4)), most=0)
    decided = settle(world, job("b", queue="b", count=4, slots=2), most=1)
    assert len(decided) == 1
    assert len(decided[0].victims) == 1
    victim = world.cell.jobs[decided[0].victims[0].job]
    assert victim.run is None, "all of it ended"
    assert len(running(world)) == 4


def test_5881_nothing_is_evicted_that_would_not_help() -> None:
    """Pods were evicted for a job that did not fit after it either.

    The claim fits in no domain even without the borrower's jobs, so nobody is touched.
    """
    world = halves(nodes=2, nominal=16)
    settle(world, job("fixed", queue="a", slots=5, preemptible=False), most=0)
    settle(world, job("small", queue="a", slots=3), job("other", queue="a", slots=8), most=0)
    alone = specs.Placement(required_level=specs.Level.NODE)
    settle(world, job("large", queue="b", count=3, slots=4, placement=alone), most=0)
    assert running(world) == ["fixed", "small", "other"]


def test_5881_no_more_is_evicted_than_is_needed() -> None:
    """For one slot a whole node of ten was drained."""
    world = halves(nominal=4)
    settle(world, *(job(f"a{i}", queue="a") for i in range(8)), most=0)
    world.round(after_s=60)
    decided = of(PreemptionDecided, world.facts(job("b", queue="b")))
    assert len(decided) == 1
    assert len(decided[0].victims) == 1
    assert of(JobClaimed, world.last.facts if world.last else [])


def test_4778_two_types_of_npus_in_one_cell_are_both_used() -> None:
    """With two NPU types in a cluster, only pods of one of them were ever scheduled."""
    world = Given()
    types = ("ascend910b3", "ascend910b4")
    world.round(
        account("a", *(quota(8, t) for t in types), parent=None),
        *(node(t, accelerator=t, kind="npu") for t in types),
    )
    jobs = [job(t, queue="a", slots=8, flavours=(specs.Flavour(accelerator=t),)) for t in types]
    assert sorted(f.job for f in of(AttemptStarted, world.facts(*jobs))) == list(types)


def test_4833_what_is_used_of_one_type_does_not_count_against_another() -> None:
    """With both kinds of cards in a cluster, one kind's jobs waited for the other kind's state.

    Or NPU jobs beyond the queue's quota used it up for jobs that wanted no NPU.
    """
    world = Given()
    world.round(
        account("a", quota(8, "npu", borrowing_limit=0), quota(8), parent=None),
        *(node(f"npu{i}", accelerator="npu", kind="npu") for i in range(2)),
        node("gpu"),
    )
    npu = (specs.Flavour(accelerator="npu"),)
    full = [job(f"npu{i}", queue="a", slots=8, flavours=npu) for i in range(3)]
    started = of(AttemptStarted, world.facts(*full, job("gpu", queue="a", slots=8)))
    assert [f.job for f in started] == ["npu0", "gpu"]
    waiting = next(s for s in world.cell.shapes.values() if s.waiting)
    assert (waiting.reason, waiting.where) == ("quota_exceeded", "a")


def test_4506_the_second_choice_of_type_is_taken_when_the_first_is_full() -> None:
    """A pod asks for one resource name: with that type full it waits beside idle ones."""
    world = Given()
    world.round(
        account("a", quota(8), quota(8, "npu"), parent=None),
        node("gpu"),
        node("npu", accelerator="npu", kind="npu"),
    )
    both = (specs.Flavour(accelerator="h100"), specs.Flavour(accelerator="npu"))
    jobs = [job(f"j{i}", queue="a", slots=8, flavours=both) for i in range(2)]
    started = of(AttemptStarted, world.facts(*jobs))
    assert [(f.job, f.flavour) for f in started] == [("j0", 0), ("j1", 1)]
