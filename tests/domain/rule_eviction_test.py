"""Gangs with rules of how they lie make room for themselves, under their rules, and for no more."""

from __future__ import annotations

import sys
from collections import Counter
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from domain import specs
from domain.commands import SubmitJob
from domain.preemption import eviction
from domain.runs import JobState
from tests.domain.given import Given, job
from tests.domain.part_eviction_test import asked, world
from tests.domain.preemption_test import settle
from tests.domain.rules_test import obeyed, slices, spreads

RACK, NODE = specs.Level.RACK, specs.Level.NODE
PREMIUM = specs.Tier.PREMIUM


def borrowers(made: Given, *slots: int) -> None:
    """One on each node, or as best fit lays them."""
    jobs = (job(f"b{i}", queue="b", groups=asked(1, n, 0)) for i, n in enumerate(slots))
    settle(made, *jobs, most=0)


def placed(made: Given, name: str) -> Counter[str]:
    """Replicas by node of a job that runs."""
    run = made.cell.jobs[name].run
    assert run is not None
    assert made.cell.jobs[name].status is JobState.RUNNING
    found: Counter[str] = Counter()
    for id_, replicas, _, _ in run.nodes:
        found[id_] += replicas
    return found


def test_slices_reclaim_whole_nodes() -> None:
    made = world(2)
    borrowers(made, 4, 4, 4, 4)
    pairs = (specs.Slice(size=2, level=NODE),)
    (decided,) = settle(made, job("gang", queue="a", groups=asked(2, 4, 0, slices=pairs)), most=1)
    assert (decided.cause, len(decided.victims)) == ("reclaim", 2)
    assert list(placed(made, "gang").values()) == [2]


def test_a_gang_that_spreads_takes_one_victim_on_each_of_its_nodes() -> None:
    made = world(3)
    borrowers(made, 8, 8, 8)
    apart = specs.Spread(level=NODE, max_replicas=1)
    (decided,) = settle(made, job("gang", queue="a", groups=asked(2, 2, 0, spread=apart)), most=1)
    assert len(decided.victims) == 2
    assert list(placed(made, "gang").values()) == [1, 1]


def affine(name: str, mode: str, slots: int) -> SubmitJob:
    rule = specs.Affinity.model_validate({"key": "db", "level": RACK, "mode": mode})
    where = specs.Placement(affinity=(rule,))
    return job(name, queue="a", groups=asked(1, slots, 0), placement=where, preemptible=False)


def test_affinity_names_the_rack_in_which_room_is_made() -> None:
    made = world(2, racks=2)
    settle(made, affine("first", "together", 4), most=0)
    borrowers(made, 4, 8)
    near = placed(made, "first")
    (decided,) = settle(made, affine("second", "together", 4), most=1)
    assert [v.job for v in decided.victims] == ["b0"]
    assert placed(made, "second").keys() == near.keys()


def test_apart_is_kept_although_room_would_be_cheaper_beside() -> None:
    made = world(2, racks=2)
    settle(made, affine("first", "apart", 4), most=0)
    borrowers(made, 4, 8)
    (decided,) = settle(made, affine("second", "apart", 4), most=1)
    assert [v.job for v in decided.victims] == ["b1"]
    assert not placed(made, "first").keys() & placed(made, "second").keys()


def test_a_gang_for_one_node_is_not_claimed_on_two() -> None:
    """Found by reading: the search looked in racks, also for what has to lie on one node."""
    where = specs.Placement(required_level=NODE)
    for cpu in (0, 1):
        made = world(3)
        borrowers(made, 8, 8, 8)
        too_large = job("large", queue="a", groups=asked(4, 3, cpu), placement=where)
        assert not settle(made, too_large, most=0)
        fits = job("gang", queue="a", groups=asked(4, 2, cpu), placement=where)
        (decided,) = settle(made, fits, most=1)
        assert len(decided.victims) == 1
        assert list(placed(made, "gang").values()) == [4]


@settings(max_examples=80, deadline=None)
@given(
    nodes=st.integers(1, 5),
    racks=st.integers(1, 2),
    borrowed=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    count=st.sampled_from((1, 2, 3, 4, 6)),
    slots=st.integers(1, 2),
    cpu=st.integers(0, 4),
    slices=slices,
    spread=spreads,
    level=st.sampled_from((specs.Level.REGION, RACK, NODE)),
    few=st.integers(1, 8),
)
def test_a_gang_with_rules_runs_iff_it_would_on_empty_nodes(
    nodes: int,
    racks: int,
    borrowed: list[int],
    count: int,
    slots: int,
    cpu: int,
    slices: tuple[specs.Slice, ...],
    spread: specs.Spread | None,
    level: specs.Level,
    few: int,
) -> None:
    """All that runs borrows: so room can be made wherever there would be room without it."""
    if slices and count % slices[0].size:
        count = slices[0].size
    (group,) = asked(count, slots, cpu, slices=slices, spread=spread)
    where = specs.Placement(required_level=level)
    gang = job("gang", queue="a", groups=(group,), placement=where)
    empty = world(nodes, slots=4, cpu=16, racks=racks)
    settle(empty, gang, most=0)
    made = world(nodes, slots=4, cpu=16, racks=racks)
    borrowers(made, *borrowed)
    with mock.patch.object(eviction, "STEPS", (few, sys.maxsize)):
        decided = settle(made, gang, most=1)
    runs = made.cell.jobs["gang"].status is JobState.RUNNING
    assert runs == (empty.cell.jobs["gang"].run is not None)
    if runs:
        assert obeyed(made.cell, group, dict(placed(made, "gang")))
    else:
        assert not decided, "nobody was stopped in vain"


def test_a_search_that_takes_all_work_does_not_keep_others_from_theirs() -> None:
    """The gang comes first by its tier, and its rules find no place, whoever is stopped."""
    made = world(2, racks=2)
    settle(made, job("stays", queue="a", groups=asked(1, 4, 0), preemptible=False), most=0)
    borrowers(made, 4, 8)
    apart = specs.Spread(level=NODE, max_replicas=1)
    ruled = job("gang", queue="a", groups=asked(2, 6, 0, spread=apart), tier=PREMIUM)
    made.round(ruled, job("small", queue="a", groups=asked(1, 4, 0)), work=0)
    for _ in range(4):
        made.round(work=1, after_s=1)
    assert made.cell.jobs["small"].run is not None
    assert made.cell.jobs["gang"].run is None
