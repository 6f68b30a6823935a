"""What Armada's users met, and what holds here instead. The numbers are of armadaproject/armada."""

from __future__ import annotations

from typing import Any

import pytest

from domain import commands as c
from domain import specs
from domain.cell import Cell
from domain.decide import decide
from domain.facts import (
    AttemptEnded,
    AttemptStarted,
    JobRequeued,
    NodeLost,
    PreemptionDecided,
    ShapeBlocked,
)
from domain.ledger import ENGINE, Header
from tests.domain.given import Given, job, node, of
from tests.domain.preemption_test import EAGER, account, obeyed, quota, settle, tree

BASIC, PREMIUM = specs.Tier.BASIC, specs.Tier.PREMIUM


def ends(name: str, attempt: int = 1, state: Any = "finished") -> c.ReportAttempt:
    return c.ReportAttempt(job=name, attempt=attempt, state=state)


def test_703_4185_2253_whoever_waits_has_the_right_reason_from_its_first_round_on() -> None:
    """Why a job was pending was a question to the operators; the reason was empty, or wrong."""
    world = tree(
        account("org", parent=None),
        account("a", quota(64), quota(0, "npu", borrowing_limit=0)),
        account("b", quota(4, borrowing_limit=0)),
    )
    world.round(job("hog", queue="a", slots=5), job("hog-2", queue="a", slots=5))
    zone = specs.Placement(require=(specs.Selector(label="zone", values=("z",)),))
    npu = (specs.Flavour(accelerator="npu"),)
    asked = {
        "j1": (job("j1", queue="b", slots=8), "over_quota"),
        "j2": (job("j2", queue="a", slots=12), "never_fits"),
        "j3": (job("j3", queue="a", placement=zone), "no_matching_nodes"),
        "j4": (job("j4", queue="a", slots=8), "no_capacity"),
        "j5": (job("j5", queue="a", slots=6), "fragmented"),
        "j6": (job("j6", queue="a", flavours=npu), "over_quota"),
    }
    facts = world.facts(*(command for command, _ in asked.values()))
    told = {f.shape: f.reason for f in of(ShapeBlocked, facts)}
    found = {j.id: told.get(j.shape.id) for j in world.cell.jobs.values() if j.run is None}
    assert found == {name: reason for name, (_, reason) in asked.items()}


def test_4918_a_command_is_taken_off_the_input_by_the_record_that_answers_it() -> None:
    """A cursor moved before the output was published, or a message was acknowledged that was not
    written: events were lost, and a nightly job repaired what it found.

    The position of the input and the facts are in one record: who does not believe the record
    stands before the command, and decides it again to the same bytes.
    """
    world = tree(account("org", parent=None), account("a", quota(8)))
    before = world.cell.snapshot()
    accepted = world.accept(job("j", queue="a"))
    round = world.decide([accepted])
    lost = Cell.restore(before)
    assert lost.inputs.get("0", 0) < round.inputs["0"]
    again = decide(lost, Header(round.header.round, world.now_ms, 100_000, ENGINE), [accepted])
    assert again == round
    lost.believe(world.cell.head, again.inputs)
    assert lost.digest() == world.cell.digest()


def test_4879_a_node_is_never_given_more_than_it_has() -> None:
    """Nodes were over-packed, and a node that shrank for a moment had all its jobs evicted.

    A node with work on it that comes back smaller is refused; its work goes on.
    """
    world = tree(account("org", parent=None), account("a", quota(64)), nodes=1)
    world.round(*(job(f"j{i}", queue="a", slots=3) for i in range(3)))
    n0 = world.cell.nodes["n0"]
    assert n0.used == 6
    world.round(node("n0", slots=4))
    assert world.last is not None
    assert [r.code for r in world.last.refusals] == ["node_in_use"]
    assert (n0.used, len(n0.runs)) == (6, 2)


@pytest.mark.parametrize("names", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")])
def test_5053_names_of_queues_decide_nothing(names: tuple[str, str, str]) -> None:
    """Evicted jobs were in the order of their queues' names: all of A's first, then B's.

    Whatever the two borrowers are called, the one whose work is the youngest goes.
    """
    owner, elder, younger = names
    world = tree(
        account("org", parent=None), account(owner, quota(16)), account(elder), account(younger)
    )
    settle(world, job("old", queue=elder, slots=8), most=0)
    world.round(after_s=1000)
    settle(world, job("young", queue=younger, slots=8), most=0)
    decided = settle(world, job("mine", queue=owner, slots=8), most=1)
    assert [v.job for d in decided for v in d.victims] == ["young"]


def test_5096_work_on_its_second_choice_is_not_replaced_by_its_like() -> None:
    """Jobs away from home stood below new jobs of their own class: each cycle replaced them all."""
    both = tuple(specs.Flavour(accelerator=t) for t in ("h100", "npu"))
    world = tree(account("org", parent=None), account("a", quota(8), quota(8, "npu")), nodes=1)
    world.round(node("npu", accelerator="npu", kind="npu"))
    wave = [job(f"j{i}", queue="a", slots=8, flavours=both) for i in range(6)]
    settle(world, *wave[:2], most=0)
    settle(world, *wave[2:], most=0)
    assert [j.id for j in world.cell.jobs.values() if j.run] == ["j0", "j1"]


def test_5071_what_was_chosen_as_a_victim_does_not_start_again_in_that_round() -> None:
    """A job that was marked as preempted was placed again further on in the same pass.

    So another one had to go later, out of order.
    """
    world = tree(account("org", parent=None), account("a", quota(8)), account("b"), nodes=1)
    settle(world, *(job(f"b{i}", queue="b", slots=4) for i in range(2)), most=0)
    commands = [job("mine", queue="a", slots=4), job("more", queue="b", slots=4)]
    facts = world.facts(*commands, after_s=10)
    victims = {v.job for d in of(PreemptionDecided, facts) for v in d.victims}
    assert len(victims) == 1
    assert not victims & {f.job for f in of(AttemptStarted, facts)}
    until = [f.job for f in of(AttemptStarted, world.facts(*obeyed(world), after_s=1))]
    assert until == ["mine"]


def test_5068_a_weak_claim_does_not_evict_a_stronger_tier_that_stays_within_its_quota() -> None:
    """Preemption for fair shares evicted jobs of a higher class."""
    world = tree(account("org", parent=None), account("a", quota(8)), account("b", quota(8)))
    settle(world, *(job(f"b{i}", queue="b", slots=4, tier=PREMIUM) for i in range(2)), most=0)
    settle(world, job("a-strong", queue="a", slots=8, tier=PREMIUM), most=0)
    settle(world, job("a-weak", queue="a", slots=4, tier=BASIC), most=0)
    assert sum(j.run is not None for j in world.cell.jobs.values()) == 3


def test_4340_4683_a_gang_comes_back_whole_and_by_itself() -> None:
    """Preempted or failed work had to be submitted anew; gangs were never tried again."""
    world = tree(account("org", parent=None), account("a", quota(16)))
    gang = job("gang", queue="a", count=2, slots=8, max_restarts=1)
    settle(world, gang, most=0)
    settle(world, c.PreemptJob(job="gang"), most=1)
    assert world.cell.jobs["gang"].attempts == 2
    failed = world.facts(ends("gang", 2, "failed"), after_s=1)
    assert [f.reason for f in of(JobRequeued, failed)] == ["failed"]
    world.round(after_s=3600)
    run = world.cell.jobs["gang"].run
    assert run is not None
    assert (run.attempt, sorted(run.slots_by_node().values())) == (3, [8, 8])


def test_4683_a_gang_that_loses_a_node_waits_as_a_whole() -> None:
    world = tree(account("org", parent=None), account("a", quota(16)), nodes=1)
    world.round(node("leased", lease_s=60))
    world.round(job("gang", queue="a", count=2, slots=8), c.ReportNode(node="leased"))
    world.round(*obeyed(world))
    facts = world.facts(after_s=61)
    assert of(NodeLost, facts)
    assert [f.reason for f in of(AttemptEnded, facts)] == ["node_lost"]
    assert all(not n.runs for n in world.cell.nodes.values())
    back = of(AttemptStarted, world.facts(node("leased", lease_s=60), after_s=1))
    assert [(f.job, f.attempt) for f in back] == [("gang", 2)]


def test_5073_preemption_is_no_more_than_the_policy_lets_it_be() -> None:
    """Preemption to fair shares threw away so much work that it got a rate limit."""
    policy = EAGER.model_copy(update={"max_preemptions_per_round": 2})
    world = tree(account("org", parent=None), account("a", quota(16)), account("b"), policy=policy)
    settle(world, *(job(f"b{i}", queue="b", slots=2) for i in range(8)), most=0)
    wants = [job(f"a{i}", queue="a", slots=2) for i in range(8)]
    facts = world.facts(*wants, after_s=60)
    assert sum(len(d.victims) for d in of(PreemptionDecided, facts)) <= 2
    most = max(len(of(PreemptionDecided, world.facts(after_s=1))) for _ in range(5))
    assert most <= 2


def test_a_gang_larger_than_a_rounds_budget_runs_all_the_same() -> None:
    """A gang larger than the burst of the rate limit was never scheduled."""
    policy = EAGER.model_copy(update={"max_preemptions_per_round": 1})
    world = tree(account("org", parent=None), account("a", quota(16)), account("b"), policy=policy)
    settle(world, *(job(f"b{i}", queue="b", slots=2) for i in range(8)), most=0)
    settle(world, job("gang", queue="a", count=2, slots=8), most=1)
    assert world.cell.jobs["gang"].run is not None


def test_310_larger_comes_first_in_every_sense_of_priority() -> None:
    """Three notions of priority, in one of which lower came first."""
    world = tree(account("org", parent=None), account("a", quota(8)), nodes=1)
    world.round(job("runs", queue="a", slots=8, preemptible=False))
    waiting = [
        job("low", queue="a", slots=8, priority=1),
        job("high", queue="a", slots=8, priority=2),
        job("stronger", queue="a", slots=8, tier=PREMIUM),
    ]
    world.round(*waiting)
    order = ["runs"]
    while len(order) < 4:
        order += [f.job for f in of(AttemptStarted, world.facts(ends(order[-1]), after_s=1))]
    assert order == ["runs", "stronger", "high", "low"]


def test_2910_a_job_of_several_parts_is_one_job() -> None:
    """A job was one pod, and a gang a label on several of them."""
    world = tree(account("org", parent=None), account("a", quota(16)))
    parts = (
        specs.ReplicaGroup(name="head", slots=2),
        specs.ReplicaGroup(name="workers", count=2, slots=6),
    )
    started = of(AttemptStarted, world.facts(job("j", queue="a", groups=parts)))
    assert [(f.job, sum(n for _, n, _, _ in f.nodes)) for f in started] == [("j", 3)]
    assert not world.cell.jobs["j"].failures
    world.round(ends("j"))
    assert all(not n.used for n in world.cell.nodes.values())


def test_2857_a_submission_that_comes_twice_makes_one_job_and_says_so() -> None:
    """Two systems kept state, so no check for duplicates could be exact."""
    world = tree(account("org", parent=None), account("a", quota(8)))
    one = world.accept(job("j", queue="a"), id_="once")
    first = world.decide([one, one])
    later = world.decide([one], after_s=3600)
    other: Given = world
    other.cell = Cell.restore(world.cell.snapshot())
    restored = other.decide([one], after_s=1)
    assert (first.duplicates, later.duplicates, restored.duplicates) == ([1], [0], [0])
    assert len(world.cell.jobs) == 1
