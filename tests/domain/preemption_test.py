"""Preemption gets quiet: between two events from outside there is a bounded number of them.

The worlds are those in which other schedulers were seen to preempt for ever: accounts that reclaim
from each other, borrowers below a common parent, second choices, victims by the name of a queue.
"""

from __future__ import annotations

import sys
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import commands as c
from domain import specs
from domain.cell import Cell
from domain.facts import JobClaimed, PreemptionDecided, SlaWindowClosed
from domain.preemption import claims, eviction
from domain.runs import JobState
from domain.timers import next_due_ms
from tests.domain.given import Given, job, node, of

EAGER = specs.PolicyParameters(min_run_s=(0, 0, 0, 0), queue_delay_s=(0, 0, 0, 0))
MOVING = EAGER.model_copy(update={"consolidation": True})
LEAVES = ("a", "b", "c")
TYPES = ("h100", "npu")


def quota(nominal: int, type_: str = "h100", **limits: Any) -> specs.Quota:
    return specs.Quota(accelerator=type_, nominal=nominal, **limits)


def account(name: str, *quotas: specs.Quota, parent: str | None = "org") -> c.SetQuota:
    queues = (specs.Queue(queue=name),) if name in LEAVES else ()
    return c.SetQuota(account=name, parent=parent, quotas=quotas, queues=queues)


def until_quiet(world: Given, most: int) -> list[PreemptionDecided]:
    """Let agents obey, and time pass to each due moment, until nothing more happens.

    Attempts run for ever: whatever ends was preempted. `most`: bound of the preemptions.
    """
    decided: list[PreemptionDecided] = []
    silent = 0
    while silent < 3:
        facts = world.facts(*obeyed(world), after_s=1)
        decided += of(PreemptionDecided, facts)
        assert len(decided) <= most, "it does not get quiet"
        moved = [f for f in facts if not isinstance(f, SlaWindowClosed)]  # these go on for ever
        silent = 0 if moved else silent + 1
        due_ms = next_due_ms(world.cell)
        if not facts and due_ms is not None:
            world.now_ms = max(world.now_ms, due_ms)
    world.facts(after_s=86_400)
    assert not of(PreemptionDecided, world.facts(after_s=86_400)), "a day later it still is"
    return decided


def obeyed(world: Given) -> list[c.Command]:
    """What agents that do at once what they are told report."""
    reports: list[c.Command] = []
    for known in world.cell.jobs.values():
        status = known.status
        state: Any = {JobState.STARTING: "running", JobState.STOPPING: "stopped"}.get(status)
        if state is not None and known.run is not None:
            report = c.ReportAttempt(job=known.id, attempt=known.run.attempt, state=state)
            reports.append(report)
    return reports


def saved(world: Given) -> list[c.Command]:
    """Checkpoints of all that runs."""
    runs = [j.run for j in world.cell.jobs.values() if j.run and j.status is JobState.RUNNING]
    at_ms = world.now_ms
    return [c.ReportCheckpoint(job=r.job.id, attempt=r.attempt, at_ms=at_ms) for r in runs]


def settle(world: Given, *commands: c.Command, most: int) -> list[PreemptionDecided]:
    first = world.facts(*commands)
    assert world.last is not None
    assert not world.last.refusals, world.last.refusals
    return [*of(PreemptionDecided, first), *until_quiet(world, most)]


def tree(*accounts: c.SetQuota, nodes: int = 2, policy: specs.PolicyParameters = EAGER) -> Given:
    world = Given()
    known = [node(f"n{i}", rack=f"k{i // 2}") for i in range(nodes)]
    world.round(c.SetPolicy(parameters=policy), *accounts, *known)
    return world


def test_two_that_own_half_each_reclaim_once_from_one_another() -> None:
    """Both borrow in turn; each gets back what is its own, and then no more."""
    world = tree(account("org", parent=None), account("a", quota(8)), account("b", quota(8)))
    settle(world, *(job(f"a{i}", queue="a", slots=4) for i in range(6)), most=0)
    decided = settle(world, *(job(f"b{i}", queue="b", slots=4) for i in range(6)), most=2)
    assert len(decided) == 2
    running = Counter(j.shape.queue.id for j in world.cell.jobs.values() if j.run)
    assert running == {"a": 2, "b": 2}


def test_sizes_that_do_not_fill_a_quota_do_not_take_turns() -> None:
    """Each wants 5 of its 8 again and again: a third gang fits only as a borrower, who yields."""
    world = tree(account("org", parent=None), account("a", quota(8)), account("b", quota(8)))
    jobs = [job(f"{q}{i}", queue=q, slots=5) for q in "ab" for i in range(3)]
    assert len(settle(world, *jobs, most=2)) <= 2
    assert {j.shape.queue.id for j in world.cell.jobs.values() if j.run} == {"a", "b"}


def test_borrowers_below_one_parent_do_not_reclaim_from_each_other() -> None:
    """All quota is the parent's: whoever came first keeps it, of whatever name."""
    for order in (LEAVES, LEAVES[::-1]):
        pool = account("org", quota(16), parent=None)
        world = tree(pool, *(account(q, quota(0)) for q in LEAVES))
        jobs = [job(f"{q}{i}", queue=q, slots=8) for q in order for i in range(2)]
        for one in jobs:
            settle(world, one, most=0)
        held = [j.id for j in world.cell.jobs.values() if j.run]
        assert held == [jobs[0].job, jobs[1].job]


def test_a_victim_of_two_groups_on_a_node_counts_once() -> None:
    """It holds 2 slots there: with the one that is free they are no 4."""
    world = tree(account("org", quota(8), parent=None), account("a", quota(8)), nodes=1)
    settle(world, job("stays", queue="a", slots=5, preemptible=False), most=0)
    groups = tuple(specs.ReplicaGroup(name=name, slots=1) for name in ("x", "y"))
    settle(world, job("victim", queue="a", groups=groups, tier=specs.Tier.BASIC), most=0)
    settle(world, job("claim", queue="a", slots=4), most=0)
    assert len(settle(world, job("less", queue="a", slots=3), most=1)) == 1
    assert {j.id for j in world.cell.jobs.values() if j.run} == {"stays", "less"}


def test_a_stronger_tier_takes_the_cheapest_and_not_the_first_name() -> None:
    """Within its own nominal; what has lost least goes, though its name and queue come last."""
    world = tree(account("org", parent=None), account("a", quota(16)), account("b", quota(8)))
    settle(world, job("a-old", queue="a", slots=8, tier=specs.Tier.BASIC), most=0)
    world.round(after_s=3600)
    settle(world, job("b-young", queue="b", slots=8, tier=specs.Tier.BASIC), most=0)
    decided = settle(world, job("up", queue="a", slots=8, tier=specs.Tier.PREMIUM), most=1)
    assert [v.job for d in decided for v in d.victims] == ["b-young"]


def test_a_victim_does_not_come_back_over_its_second_choice() -> None:
    """What is evicted from the first type takes the second, and nobody moves again."""
    quotas = (quota(8), quota(8, "npu"))
    world = tree(account("org", parent=None), account("a", *quotas), account("b", *quotas), nodes=1)
    world.round(node("npu", accelerator="npu", kind="npu"))
    both = tuple(specs.Flavour(accelerator=t) for t in TYPES)
    settle(world, *(job(f"a{i}", queue="a", slots=8, flavours=both) for i in range(3)), most=0)
    decided = settle(
        world, *(job(f"b{i}", queue="b", slots=8, flavours=both) for i in range(3)), most=4
    )
    assert len(decided) <= 2
    assert sum(j.run is not None for j in world.cell.jobs.values()) == 2


def test_an_operator_preempts_once_and_the_job_comes_back_once() -> None:
    world = tree(account("org", parent=None), account("a", quota(8)), nodes=1)
    settle(world, job("x", queue="a", slots=8), most=0)
    decided = settle(world, c.PreemptJob(job="x"), most=1)
    assert [d.cause for d in decided] == ["operator"]
    assert world.cell.jobs["x"].attempts == 2


@pytest.mark.parametrize("keeps", [True, False])
def test_a_yielding_order_does_not_let_two_jobs_take_turns(keeps: bool) -> None:
    """By least attained service, whoever yields has had more by a factor, and the factor grows.

    Also of jobs that keep no checkpoint: what they lost, they have had.
    """
    policy = specs.PolicyParameters(
        order="least_attained",
        yield_ratio_milli=4000,
        min_run_s=(0, 60, 60, 60),
        queue_delay_s=(0, 0, 0, 0),
    )
    world = tree(account("org", quota(8), parent=None), account("a"), nodes=1, policy=policy)
    world.round(job("x", queue="a", slots=8), job("y", queue="a", slots=8))
    times = []
    for _ in range(600):
        world.now_ms += 60_000
        reports = [*obeyed(world), *(saved(world) if keeps else ())]
        if of(PreemptionDecided, world.facts(*reports)):
            times.append(world.now_ms)
    gaps = [b - a for a, b in pairwise(times)]
    assert len(gaps) >= 2, "the newcomer does get its turn, and the other one its own"
    assert all(2 * before < after for before, after in pairwise(gaps))


leaf_quotas = st.builds(
    quota,
    nominal=st.integers(0, 16),
    type_=st.sampled_from(TYPES),
    borrowing_limit=st.none() | st.integers(0, 8),
    lending_limit=st.none() | st.integers(0, 8),
)
some_jobs = st.tuples(
    st.sampled_from(LEAVES),
    st.sampled_from((1, 3, 4, 5, 8)),
    st.integers(1, 3),
    st.sampled_from(tuple(specs.Tier)),
    st.sampled_from((("h100",), ("npu",), ("h100", "npu"), ("npu", "h100"))),
    st.booleans(),
    st.sampled_from(("", "", "pairs", "spread", "apart", "node")),
)


def ruled(rule: str) -> dict[str, Any]:
    """Of a job of up to three replicas: how they lie."""
    node_level = specs.Level.NODE
    apart = specs.Affinity(key="k", level=node_level, mode="apart")
    rules: dict[str, dict[str, Any]] = {
        "pairs": {"count": 2, "slices": (specs.Slice(size=2, level=node_level),)},
        "spread": {"spread": specs.Spread(level=node_level, max_replicas=1)},
        "apart": {"placement": specs.Placement(affinity=(apart,))},
        "node": {"placement": specs.Placement(required_level=node_level)},
    }
    return rules.get(rule, {})


def job_of(name: str, some: tuple[Any, ...]) -> c.SubmitJob:
    queue, slots, count, tier, types, preemptible, rule = some
    rules = ruled(rule)
    placement = rules.pop("placement", specs.Placement())
    return job(
        name,
        queue=queue,
        tier=tier,
        preemptible=preemptible,
        groups=(specs.ReplicaGroup(**{"count": count, "slots": slots, **rules}),),
        flavours=tuple(specs.Flavour(accelerator=t) for t in types),
        placement=placement,
    )


@pytest.mark.parametrize("nested", [False, True])
@settings(max_examples=60, deadline=None)
@given(
    quotas=st.lists(
        st.lists(leaf_quotas, max_size=2, unique_by=lambda q: q.accelerator),
        min_size=3,
        max_size=3,
    ),
    wanted=st.lists(some_jobs, min_size=1, max_size=16),
    policy=st.sampled_from(
        (
            EAGER,
            MOVING,
            specs.PolicyParameters(),
            specs.PolicyParameters(queue_delay_s=(0, 60, 60, 60)),
        )
    ),
)
def test_any_world_gets_quiet(
    nested: bool, quotas: list[list[specs.Quota]], wanted: list[Any], policy: specs.PolicyParameters
) -> None:
    """No job is preempted more often than there are jobs that may stand above it."""
    above = [account("org", parent=None), account("part")] if nested else []
    parents = ("part", "part", "org") if nested else ("org", "org", "org")
    leaves = [
        account(q, *entries, parent=p)
        for q, entries, p in zip(LEAVES, quotas, parents, strict=True)
    ]
    world = tree(*(above or [account("org", parent=None)]), *leaves, policy=policy)
    world.round(*(node(f"m{i}", accelerator="npu", kind="npu", slots=4) for i in range(2)))
    jobs = [job_of(f"j{i}", some) for i, some in enumerate(wanted)]
    half = len(jobs) // 2
    settle(world, *jobs[:half], most=half * half)
    decided = settle(world, *jobs[half:], most=len(jobs) * len(jobs))
    claimed = Counter(d.preemptor for d in decided)
    assert not claimed or max(claimed.values()) <= len(jobs)


def test_a_claim_is_started_when_its_victims_are_gone() -> None:
    world = tree(account("org", parent=None), account("a", quota(8)), account("b"), nodes=1)
    settle(world, job("x", queue="b", slots=8), most=0)
    claimed = of(JobClaimed, world.facts(job("y", queue="a", slots=8)))
    assert claimed[0].waits_for == [("n0", 8)]
    until_quiet(world, most=0)
    assert world.cell.jobs["y"].status is JobState.RUNNING
    assert world.cell.jobs["x"].status is JobState.WAITING


def test_a_claim_that_waits_for_quota_alone_is_started() -> None:
    """There are free slots, but others borrow the quota: its victims free no slot that it needs."""
    world = tree(account("org", parent=None), account("a", quota(8)), account("b"), nodes=2)
    settle(world, job("x", queue="b", slots=8), most=0)
    facts = world.facts(job("y", queue="a", slots=4))
    assert of(JobClaimed, facts)[0].waits_for == []
    restored = Cell.restore(world.cell.snapshot())
    assert next_due_ms(restored) == next_due_ms(world.cell) == world.now_ms
    until_quiet(world, most=0)
    assert world.cell.jobs["y"].status is JobState.RUNNING


def test_what_gives_no_quota_to_the_claim_is_no_victim() -> None:
    """The end of a growth elsewhere does not let an account use more than its own limit."""
    world = Given()
    world.facts(
        c.SetPolicy(parameters=EAGER),
        account("org", parent=None),
        account("a", quota(4, borrowing_limit=0)),
        account("b", quota(4)),
        account("c", quota(8)),
        *(node(f"n{i}") for i in range(2)),
    )
    growing = specs.ReplicaGroup(count=1, slots=1, grow_to=8)
    settle(
        world, job("own", queue="a", slots=4), job("grows", queue="b", groups=(growing,)), most=0
    )
    used = world.cell.accounts["b"].own["h100"]
    assert used == 8000, "it borrows"
    settle(world, job("more", queue="a", slots=1), most=0)
    assert world.cell.accounts["a"].own["h100"] == 4000
    assert world.cell.accounts["b"].own["h100"] == used


@pytest.mark.parametrize("count", [1, 3, 6])
def test_where_few_are_not_enough_more_are_looked_at(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "STEPS", (1, 4, sys.maxsize))
    world = tree(account("org", parent=None), account("a", quota(48)), account("b"), nodes=6)
    for i in range(6):
        settle(world, job(f"b{i}", queue="b", slots=8), most=0)
        world.round(after_s=60)
    (decided,) = settle(world, job("gang", queue="a", count=count, slots=8), most=1)
    assert [v.job for v in decided.victims] == [f"b{i}" for i in range(6 - count, 6)]


def test_room_is_not_searched_where_quota_would_be_lacking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by measuring: on a large cell such searches took most of each round."""
    limited = account("a", quota(4, borrowing_limit=0))
    world = tree(account("org", parent=None), limited, account("b", quota(12)))
    mine = job("mine", queue="a", slots=4)
    others = [job(f"b{i}", queue="b", slots=6, tier=specs.Tier.BASIC) for i in range(2)]
    settle(world, mine, *others, most=0)
    searched = []
    monkeypatch.setattr(claims, "plan", lambda *given: searched.append(given))
    settle(world, job("more", queue="a", slots=4), most=0)
    assert not searched
    settle(world, job("above", queue="a", slots=4, tier=specs.Tier.PREMIUM), most=0)
    assert searched, "the account's own, in a weaker tier, may end for it"


@pytest.mark.parametrize(
    ("there", "sizes"), [(0, [0]), (1, [1]), (2, [2]), (3, [2, 3]), (9, [2, 4, 9])]
)
def test_candidates_are_looked_at_once_and_no_further_than_asked(
    there: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "STEPS", (2, 4, sys.maxsize))
    runs: list[Any] = [object() for _ in range(there)]
    asked: list[Any] = []

    def cost(run: Any) -> int:
        asked.append(run)
        return 1

    candidates = eviction.Candidates(iter(runs), cost, {})
    assert candidates.first() is (runs[0] if runs else None)
    assert asked == runs[:1]
    for _ in range(2):
        assert [len(e.cost) for e in candidates.widening()] == sizes
    assert asked == runs
