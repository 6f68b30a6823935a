"""What users of KAI, Slurm, SkyPilot and others met, and what holds here instead."""

from __future__ import annotations

from domain import commands as c
from domain import specs
from domain.facts import AttemptStarted, JobFailed, JobRequeued, PreemptionDecided, ShapeBlocked
from domain.ledger import unseal
from tests.domain.given import Given, job, node, of
from tests.domain.preemption_test import EAGER, account, quota, tree


def ends(name: str, attempt: int, state: str) -> c.ReportAttempt:
    return c.ReportAttempt.model_validate({"job": name, "attempt": attempt, "state": state})


def test_ci_infra_1058_a_node_that_fails_all_it_gets_is_left_by_each_job_for_a_while() -> None:
    """One dead GPU rejected 554 pods in under two hours: the emptiest node got every next one.

    A failed job rests, each time twice as long, and fails for good after its `max_restarts`. The
    node's agent says that it is unhealthy, and then it gets nothing.
    """
    world = tree(account("org", parent=None), account("a", quota(8)), nodes=1)
    world.round(job("j", queue="a", slots=8, max_restarts=2))
    rests = []
    for attempt in (1, 2):
        facts = world.facts(ends("j", attempt, "failed"))
        rests += [f.not_before_ms - world.now_ms for f in of(JobRequeued, facts)]
        world.round(after_s=rests[-1] // 1000)
    assert rests == [30_000, 60_000]
    assert of(JobFailed, world.facts(ends("j", 3, "failed")))
    world.round(c.ReportNode(node="n0", healthy=False))
    assert not of(AttemptStarted, world.facts(job("next", queue="a")))
    assert of(AttemptStarted, world.facts(c.ReportNode(node="n0")))


def test_kai_136_an_attempt_has_its_minimum_run_time() -> None:
    """Work was preempted before it had done anything."""
    policy = EAGER.model_copy(update={"min_run_s": (0, 600, 600, 600)})
    world = tree(
        account("org", parent=None), account("a", quota(8)), account("b"), policy=policy, nodes=1
    )
    world.round(job("b", queue="b", slots=8))
    world.round(ends("b", 1, "running"))
    assert not of(PreemptionDecided, world.facts(job("a", queue="a", slots=8), after_s=599))
    assert of(PreemptionDecided, world.facts(after_s=1))


def test_kai_1087_each_accelerator_type_has_its_own_quota() -> None:
    """Quota was of GPUs of whatever kind: the new ones went to whoever came first."""
    world = Given()
    world.round(
        account("a", quota(8, "h100", borrowing_limit=0), quota(0, "b200"), parent=None),
        node("old"),
        node("new", accelerator="b200"),
    )
    new = (specs.Flavour(accelerator="b200"),)
    jobs = [job("wants-new", queue="a", slots=8, flavours=new), job("old", queue="a", slots=8)]
    assert [f.job for f in of(AttemptStarted, world.facts(*jobs))] == ["old"]


def test_cook_201_the_reasons_of_a_wait_are_a_series_with_times() -> None:
    """Only the last reason was known, and only while the process lived."""
    world = tree(account("org", parent=None), account("a", quota(0)), nodes=1)
    start = world.now_ms
    world.round(job("hog", queue="a", slots=8), job("j", queue="a", slots=4))
    world.round(account("a", quota(64)), after_s=60)
    world.round(c.CordonNode(node="n0"), after_s=60)
    shape = world.cell.jobs["j"].shape.id
    read = [unseal(record, None)[0] for record in world.records]
    series = [
        (round.header.now_ms - start, fact.reason)
        for round in read
        for fact in of(ShapeBlocked, round.facts)
        if fact.shape == shape
    ]
    assert series == [(0, "over_quota"), (60_000, "no_capacity")]
