"""Gangs with host parts make room: slots, CPU and memory of each node alike, and no more."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domain import commands as c
from domain import specs
from domain.facts import JobClaimed, PreemptionDecided
from domain.runs import JobState
from tests.domain.given import Given, job, node, of
from tests.domain.preemption_test import EAGER, account, quota, settle, until_quiet


def asked(
    count: int, slots: int, cpu: int, memory: int = 0, **more: Any
) -> tuple[specs.ReplicaGroup, ...]:
    group = specs.ReplicaGroup(
        count=count, slots=slots, host_cpu_milli=1000 * cpu, host_memory_mib=memory, **more
    )
    return (group,)


def world(nodes: int, slots: int = 8, cpu: int = 32, racks: int = 1) -> Given:
    """Account a owns all; b borrows."""
    made = Given()
    made.round(
        c.SetPolicy(parameters=EAGER),
        account("org", parent=None),
        account("a", quota(nodes * slots)),
        account("b"),
        *(
            node(
                f"n{i}",
                rack=f"k{i % racks}",
                slots=slots,
                host_cpu_milli=1000 * cpu,
                host_memory_mib=1024,
            )
            for i in range(nodes)
        ),
    )
    return made


def test_a_gang_reclaims_nodes_for_slots_and_cpu() -> None:
    given = world(3)
    settle(given, *(job(f"b{i}", queue="b", groups=asked(1, 8, 32)) for i in range(3)), most=0)
    (decided,) = settle(given, job("gang", queue="a", groups=asked(2, 4, 16)), most=1)
    assert (decided.preemptor, decided.cause, len(decided.victims)) == ("gang", "reclaim", 1)
    assert given.cell.jobs["gang"].status is JobState.RUNNING


def test_cpu_alone_is_made_room_for() -> None:
    """Slots are free everywhere; it is the CPU that borrowers use up."""
    given = world(2)
    settle(given, *(job(f"b{i}", queue="b", groups=asked(1, 1, 30)) for i in range(2)), most=0)
    decided = settle(given, job("gang", queue="a", groups=asked(2, 2, 8)), most=1)
    assert [len(d.victims) for d in decided] == [1], "two replicas fit where one borrower was"
    assert given.cell.jobs["gang"].status is JobState.RUNNING


def test_a_gang_stays_in_one_rack() -> None:
    given = world(4, racks=2)
    settle(given, *(job(f"b{i}", queue="b", groups=asked(1, 8, 32)) for i in range(4)), most=0)
    where = specs.Placement(required_level=specs.Level.RACK)
    gang = job("gang", queue="a", groups=asked(2, 8, 32), placement=where)
    (decided,) = settle(given, gang, most=1)
    assert len(decided.victims) == 2
    run = given.cell.jobs["gang"].run
    assert run is not None
    assert len({given.cell.nodes[placed[0]].rack for placed in run.nodes}) == 1


def test_no_more_replicas_on_a_node_than_are_asked_for() -> None:
    given = world(2)
    settle(given, *(job(f"b{i}", queue="b", groups=asked(1, 8, 32)) for i in range(2)), most=0)
    gang = job("gang", queue="a", groups=asked(2, 1, 1, max_per_node=1))
    (decided,) = settle(given, gang, most=1)
    assert len(decided.victims) == 2


some = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(0, 16), st.integers(0, 512))


@settings(max_examples=80, deadline=None)
@given(
    nodes=st.integers(1, 4),
    racks=st.integers(1, 2),
    borrowed=st.lists(some, min_size=1, max_size=8),
    wanted=some,
    level=st.sampled_from((specs.Level.REGION, specs.Level.RACK)),
    most_on_a_node=st.none() | st.integers(1, 2),
)
def test_what_is_claimed_fits_when_its_victims_are_gone(
    nodes: int,
    racks: int,
    borrowed: list[tuple[int, int, int, int]],
    wanted: tuple[int, int, int, int],
    level: specs.Level,
    most_on_a_node: int | None,
) -> None:
    given = world(nodes, slots=4, cpu=16, racks=racks)
    settle(
        given,
        *(job(f"b{i}", queue="b", groups=asked(*one)) for i, one in enumerate(borrowed)),
        most=0,
    )
    groups = asked(*wanted, max_per_node=most_on_a_node)
    where = specs.Placement(required_level=level)
    facts = given.facts(job("gang", queue="a", groups=groups, placement=where))
    claimed, decided = of(JobClaimed, facts), of(PreemptionDecided, facts)
    assert len(claimed) == len(decided) <= 1
    until_quiet(given, most=len(borrowed))
    known = given.cell.jobs.get("gang")
    runs = known is not None and known.status is JobState.RUNNING
    count, slots, cpu, memory = wanted
    per_node = min(4 // slots, 16 // max(1, cpu), 1024 // max(1, memory), most_on_a_node or 9)
    in_one = nodes if level is specs.Level.REGION else -(-nodes // racks)
    assert runs == (per_node * in_one >= count), "it runs if it would fit without the others"
    for here in given.cell.nodes.values():
        assert here.used <= 4
        assert here.free_cpu_milli >= 0
        assert here.free_memory_mib >= 0
