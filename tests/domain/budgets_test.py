"""Budgets of slot-seconds: what is spent, what then waits, and what may be reclaimed."""

from __future__ import annotations

import pytest
from hypothesis import given as property_of
from hypothesis import strategies as st

from domain import commands as c
from domain import specs
from domain.budgets import Budget
from domain.cell import Cell
from domain.facts import AttemptStarted, PreemptionDecided, ShapeBlocked
from domain.quota import Account
from domain.timers import next_due_ms
from tests.domain.given import Given, job, node, of

HOUR_S = 3600
START_MS = 1000 * HOUR_S * 500


def account(name: str, nominal: int, slot_s: int = 0) -> c.SetQuota:
    entry = specs.Quota(accelerator="h100", nominal=nominal)
    budget = specs.Budget(accelerator="h100", slot_s=max(1, slot_s), period_s=HOUR_S)
    return c.SetQuota(
        account=name,
        parent="org",
        quotas=(entry,),
        queues=(specs.Queue(queue=name),),
        budgets=(budget,) if slot_s else (),
    )


def world(*accounts: c.SetQuota) -> Given:
    """A cell at the beginning of a period."""
    given = Given(now_ms=START_MS)
    parameters = specs.PolicyParameters(min_run_s=(0,) * 4, sla_window_s=10 * 86_400)
    given.round(c.SetPolicy(parameters=parameters), c.SetQuota(account="org"), *accounts)
    given.round(node("n1"))
    return given


def report(given: Given, name: str, state: str) -> None:
    given.round(c.ReportAttempt.model_validate({"job": name, "attempt": 1, "state": state}))


def test_when_the_budget_is_used_up_new_work_waits_for_the_next_period() -> None:
    given = world(account("a", 8, slot_s=4 * 600))
    given.round(job("x", queue="a", slots=4))
    report(given, "x", "running")
    assert next_due_ms(given.cell) == given.now_ms + 600_000
    given.now_ms += 600_000
    assert Cell.restore(given.cell.snapshot()).digest() == given.cell.digest()
    (blocked,) = of(ShapeBlocked, given.facts(job("y", queue="a", slots=1)))
    assert (blocked.reason, blocked.where) == ("budget_exhausted", "a")
    assert given.cell.jobs["x"].run is not None, "what runs goes on"
    report(given, "x", "finished")
    assert next_due_ms(given.cell) == START_MS + HOUR_S * 1000
    given.now_ms = START_MS + HOUR_S * 1000
    (started,) = of(AttemptStarted, given.facts())
    assert started.job == "y"


def test_a_millisecond_before_nothing_is_exhausted() -> None:
    given = world(account("a", 8, slot_s=4 * 600))
    given.round(job("x", queue="a", slots=4))
    given.now_ms += 599_999
    assert of(AttemptStarted, given.facts(job("y", queue="a", slots=1)))


def test_what_runs_beyond_its_budget_may_be_reclaimed() -> None:
    for slot_s, causes in ((8 * 600, ["reclaim"]), (8 * 86_400, [])):
        given = world(account("a", 8, slot_s=slot_s), account("b", 8))
        given.round(job("x", queue="a", slots=8))
        report(given, "x", "running")
        given.round(job("mine", queue="b", slots=8))
        facts = given.facts(after_s=1200) + given.facts(after_s=600)
        assert [d.cause for d in of(PreemptionDecided, facts)] == causes


def test_a_claim_on_a_budget_that_is_used_up_preempts_nobody() -> None:
    given = world(account("a", 8, slot_s=1), account("b", 0))
    given.round(job("first", queue="a", slots=1))
    given.round(job("loan", queue="b", slots=7), after_s=10)
    report(given, "loan", "running")
    facts = given.facts(job("mine", queue="a", slots=4), after_s=1)
    assert of(PreemptionDecided, facts + given.facts(after_s=1800)) == []


def test_a_budget_that_is_set_again_goes_on_and_another_begins_anew() -> None:
    given = world(account("a", 8, slot_s=4 * 600))
    given.round(job("x", queue="a", slots=4))
    given.round(account("a", 6, slot_s=4 * 600), after_s=300)
    (budget,) = given.cell.accounts["a"].budgets
    assert budget.spent(given.cell.now_ms) == 4000 * 300_000
    given.round(account("a", 6, slot_s=4 * 700))
    (budget,) = given.cell.accounts["a"].budgets
    assert budget.spent(given.cell.now_ms) == 0
    given.round(account("a", 6))
    assert given.cell.budgeted == []


def test_budgets_that_say_the_same_twice_are_refused() -> None:
    budget = specs.Budget(accelerator="h100", slot_s=1, period_s=60)
    with pytest.raises(ValueError, match="budgets must differ"):
        c.SetQuota(account="a", budgets=(budget, budget.model_copy(update={"slot_s": 2})))


@property_of(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 9)), max_size=20))
def test_spent_is_the_sum_over_each_second_of_the_period(steps: list[tuple[int, int]]) -> None:
    spec = specs.Budget(accelerator="h100", slot_s=1, period_s=60)
    budget = Budget(spec, Account("a"), 0)
    now_s, rate = 0, 0
    seconds: list[int] = []
    for elapsed, slots in steps:
        seconds += [rate] * elapsed
        now_s += elapsed
        naive = sum(seconds[now_s - now_s % 60 :])
        assert budget.spent(now_s * 1000) == naive * 1_000_000
        budget.settle(slots * 1000, now_s * 1000)
        rate = slots
