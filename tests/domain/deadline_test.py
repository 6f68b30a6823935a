"""Deadlines: their order, what is told when they cannot be met, and who yields to whom."""

from __future__ import annotations

from typing import Any

from domain import commands as c
from domain import specs
from domain.cell import Cell
from domain.facts import (
    AttemptStarted,
    DeadlineAtRisk,
    DeadlineInfeasible,
    JobAdmitted,
    JobFailed,
    PreemptionDecided,
)
from tests.domain.given import Given, job, of
from tests.domain.time_test import at, at_the_bound, world

BY_DEADLINE = specs.PolicyParameters(order="earliest_deadline")
YIELDING = BY_DEADLINE.model_copy(
    update={"yield_ratio_milli": 2000, "min_run_s": (0, 0, 0, 0), "queue_delay_s": (0, 0, 0, 0)}
)


def report(state: Any, name: str, attempt: int = 1) -> c.ReportAttempt:
    return c.ReportAttempt(job=name, attempt=attempt, state=state)


def due(
    name: str, by_ms: int, *, hard: bool = False, estimate_s: int | None = None, **more: Any
) -> c.SubmitJob:
    """A job that takes a whole node, to be finished by a moment."""
    deadline = specs.Deadline(finish_by_ms=by_ms, hardness="hard" if hard else "soft")
    runtime = specs.Runtime(estimate_s=estimate_s, **more.pop("runtime", {}))
    return job(name, slots=8, deadline=deadline, runtime=runtime, **more)


def full(policy: specs.PolicyParameters = BY_DEADLINE) -> Given:
    """One node, in use by a job that says nothing of its length."""
    given = world()
    given.round(c.SetPolicy(parameters=policy), job("first", slots=8))
    given.round(report("running", "first"))
    return given


def starts(given: Given, finished: str) -> list[str]:
    facts = given.facts(report("finished", finished))
    return [f.job for f in of(AttemptStarted, facts)]


def test_the_earliest_deadline_comes_first_and_none_comes_last() -> None:
    given = full()
    now = given.now_ms
    given.round(job("whenever", slots=8), due("later", now + 9000), due("sooner", now + 8000))
    given.cell = Cell.restore(given.cell.snapshot())
    order = ["first"]
    while len(order) < 4:
        order += starts(given, order[-1])
    assert order == ["first", "sooner", "later", "whenever"]


def test_a_deadline_is_the_jobs_own_and_makes_no_new_shape() -> None:
    given = full()
    given.round(*(due(f"j{n}", given.now_ms + 1000 * n) for n in range(1, 9)))
    assert len({j.shape.id for j in given.cell.jobs.values()}) == 1


def test_without_the_order_a_deadline_changes_nothing() -> None:
    given = full(specs.PolicyParameters())
    given.round(job("elder", slots=8), due("urgent", given.now_ms + 1000))
    assert starts(given, "first") == ["elder"]


def test_a_soft_deadline_that_cannot_be_met_is_told_at_admission() -> None:
    given = full()
    facts = given.facts(due("x", given.now_ms + 99_999, estimate_s=100))
    assert [type(f) for f in facts[:2]] == [JobAdmitted, DeadlineInfeasible]
    assert of(DeadlineInfeasible, facts)[0].earliest_finish_ms == given.now_ms + 100_000
    assert not of(DeadlineAtRisk, given.facts(after_s=1000)), "it is told once"
    assert not of(DeadlineInfeasible, given.facts(due("y", given.now_ms + 100_000, estimate_s=100)))


def test_a_hard_deadline_that_cannot_be_met_is_refused() -> None:
    given = full()
    before = given.cell.next_job
    refused = due("x", given.now_ms + 99_999, estimate_s=100, hard=True)
    assert given.refusal(refused) == "deadline_infeasible"
    assert given.refusal(due("x", given.now_ms - 1, hard=True)) == "deadline_infeasible"
    assert given.cell.next_job == before
    assert of(JobAdmitted, given.facts(due("x", given.now_ms + 1, hard=True)))


def test_a_waiting_job_is_late_right_after_its_latest_start() -> None:
    given = full()
    deadline = given.now_ms + 500_000
    given.round(due("x", deadline, estimate_s=300))
    told = of(DeadlineAtRisk, at_the_bound(given, deadline - 300_000 + 1))
    assert [(f.job, f.earliest_finish_ms) for f in told] == [("x", deadline + 1)]
    assert not of(DeadlineAtRisk, given.facts(after_s=1000)), "it is told once"


def test_without_an_estimate_a_job_is_late_after_its_deadline() -> None:
    given = full()
    deadline = given.now_ms + 500_000
    given.round(due("x", deadline))
    assert of(DeadlineAtRisk, at_the_bound(given, deadline + 1))


def test_a_waiting_job_with_a_hard_deadline_fails_when_it_is_late() -> None:
    given = full()
    deadline = given.now_ms + 500_000
    given.round(due("x", deadline, estimate_s=300, hard=True))
    failed = of(JobFailed, at_the_bound(given, deadline - 300_000 + 1))
    assert [(f.job, f.reason) for f in failed] == [("x", "deadline")]
    assert "x" not in given.cell.jobs


def test_late_jobs_let_those_pass_that_can_still_be_in_time() -> None:
    given = full()
    now = given.now_ms
    given.round(due("lost", now + 1000), due("saved", now + 90_000), job("any", slots=8))
    at(given, now + 1001)
    given.cell = Cell.restore(given.cell.snapshot())
    assert starts(given, "first") == ["saved"]
    assert starts(given, "saved") == ["lost"], "by seniority among those that come last"


def test_what_is_late_beyond_a_rounds_work_is_told_in_the_next() -> None:
    given = full()
    deadline = given.now_ms + 1000
    given.round(*(due(f"j{n}", deadline) for n in range(5)))
    given.now_ms = deadline + 1
    told = [len(of(DeadlineAtRisk, given.round(work=2).facts)) for _ in range(4)]
    assert told == [2, 2, 1, 0]


def test_another_deadline_or_estimate_gives_a_job_its_place_back() -> None:
    given = full()
    now = given.now_ms
    given.round(due("x", now + 1000), due("y", now + 90_000))
    at(given, now + 1001)
    moved = specs.Deadline(finish_by_ms=now + 80_000)
    given.round(c.AmendJob(job="x", deadline=moved, estimate_s=10))
    assert starts(given, "first") == ["x"]


def test_a_job_that_started_in_time_is_left_alone() -> None:
    given = full()
    deadline = given.now_ms + 1000
    given.round(due("x", deadline, hard=True))
    given.round(report("finished", "first"))
    assert not given.facts(after_s=100)
    assert given.cell.jobs["x"].run is not None


def test_a_job_with_little_slack_takes_the_place_of_one_with_twice_as_much() -> None:
    """The slack of what runs stays as it is; that of what waits shrinks until it is half of it."""
    given = world()
    now = given.now_ms
    given.round(c.SetPolicy(parameters=YIELDING), due("calm", now + 1_100_000, estimate_s=100))
    given.round(report("running", "calm"))
    given.round(due("urgent", now + 700_000, estimate_s=100))
    bound = now + 100_000  # 1000 s of slack are twice the 500 s that are left then
    decided = of(PreemptionDecided, at_the_bound(given, bound))
    assert [(d.preemptor, [v.job for v in d.victims]) for d in decided] == [("urgent", ["calm"])]


def test_nobody_yields_to_what_is_late_and_what_is_late_yields() -> None:
    given = world()
    now = given.now_ms
    given.round(c.SetPolicy(parameters=YIELDING), due("tight", now + 101_000, estimate_s=100))
    given.round(report("running", "tight"), due("lost", now + 1, estimate_s=100))
    assert not of(PreemptionDecided, at(given, now + 50_000))
    given.round(report("finished", "tight"))
    given.round(report("running", "lost"))
    facts = given.facts(due("urgent", now + 60_000_000, estimate_s=100), after_s=101)
    assert [v.job for d in of(PreemptionDecided, facts) for v in d.victims] == ["lost"]


def test_two_jobs_of_equal_slack_do_not_take_turns_for_ever() -> None:
    """Each change of places needs half the slack that the loser had; both end."""
    given = world()
    now = given.now_ms
    keeps = {"checkpoint_interval_s": 60, "grace_s": 0}
    given.round(
        c.SetPolicy(parameters=YIELDING),
        *(due(n, now + 5_000_000, estimate_s=2000, runtime=keeps) for n in ("x", "y")),
    )
    decided = 0
    for _ in range(600):
        runs = [j.run for j in given.cell.jobs.values() if j.run is not None]
        commands: list[c.Command] = [
            report("running" if not r.running_ms else "stopped", r.job.id, r.attempt)
            for r in runs
            if r.started_ms and (r.stop_by_ms or not r.running_ms)
        ]
        decided += len(of(PreemptionDecided, given.facts(*commands, after_s=10)))
    assert 1 <= decided <= 12
