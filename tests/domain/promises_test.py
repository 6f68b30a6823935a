"""What a tier promises: who comes first for it, who is spared, and what is told."""

from __future__ import annotations

from typing import Any

from domain import commands as c
from domain import specs
from domain.cell import Cell
from domain.facts import (
    AttemptStarted,
    PreemptionDecided,
    PromiseVoided,
    ShapeBlocked,
    SlaWindowClosed,
)
from domain.timers import next_due_ms
from tests.domain.given import Given, job, node, of

HOUR_S = 3600
DAY_S = 86_400


def account(name: str, nominal: int, **limits: Any) -> c.SetQuota:
    entry = specs.Quota(accelerator="h100", nominal=nominal, **limits)
    return c.SetQuota(
        account=name, parent="org", quotas=(entry,), queues=(specs.Queue(queue=name),)
    )


def world(*accounts: c.SetQuota, nodes: int = 1, name: str = "test", **policy: object) -> Given:
    """A cell at the beginning of a day."""
    given = Given(name, now_ms=20_000 * DAY_S * 1000)
    parameters = specs.PolicyParameters.model_validate(policy)
    given.round(c.SetPolicy(parameters=parameters), c.SetQuota(account="org"), *accounts)
    given.round(*(node(f"n{n}") for n in range(nodes)))
    return given


def runs(given: Given, *names: str) -> None:
    given.round(*(c.ReportAttempt(job=n, attempt=1, state="running") for n in names))


def test_a_window_tells_what_was_due_and_delivered() -> None:
    given = world(account("a", 8), min_run_s=(0,) * 4)
    given.round(job("long", queue="a", slots=8), job("late", queue="a", slots=8))
    runs(given, "long")
    assert next_due_ms(given.cell) == given.now_ms + DAY_S * 1000
    given.round(c.ReportAttempt(job="long", attempt=1, state="finished"), after_s=DAY_S // 2)
    closed = of(SlaWindowClosed, given.facts(after_s=DAY_S // 2))
    assert closed == [
        SlaWindowClosed(
            account="a",
            accelerator="h100",
            tier=2,
            from_ms=20_000 * DAY_S * 1000,
            to_ms=20_001 * DAY_S * 1000,
            due_slot_s=8 * DAY_S * 7 // 10,
            delivered_slot_s=8 * DAY_S,
            met=True,
            starts=2,
            late=1,
        )
    ]


def test_a_window_that_was_not_kept_says_so() -> None:
    given = world(account("a", 8), account("b", 8), preemption=False)
    given.round(job("first", queue="b", slots=8, tier=specs.Tier.BASIC))
    given.round(job("x", queue="a", slots=4))
    (closed,) = of(SlaWindowClosed, given.facts(after_s=DAY_S))
    assert (closed.due_slot_s, closed.delivered_slot_s) == (4 * DAY_S * 7 // 10, 0)
    assert not closed.met


def test_nothing_is_due_beyond_nominal_quota_nor_to_basic_work() -> None:
    given = world(account("a", 0), account("b", 16, lending_limit=16), nodes=1)
    given.round(job("borrows", queue="a", slots=8), job("y", queue="b", tier=specs.Tier.BASIC))
    assert of(SlaWindowClosed, given.facts(after_s=2 * DAY_S)) == []
    assert next_due_ms(given.cell) is None


def test_a_wait_that_is_promised_makes_no_deficit_a_longer_one_does() -> None:
    given = world(account("a", 8), account("b", 8), nodes=2)
    given.round(*(job(n, queue="b", slots=8, preemptible=False) for n in ("b0", "b1")))
    runs(given, "b0", "b1")
    given.round(job("a0", queue="a", slots=8))
    given.round(after_s=HOUR_S)
    assert not given.cell.pledges[("a", "h100")].in_deficit(2, given.cell.now_ms)
    given.round(after_s=1)
    pledge = given.cell.pledges[("a", "h100")]
    assert pledge.in_deficit(2, given.cell.now_ms)
    restored = Cell.restore(given.cell.snapshot())
    assert restored.pledges[("a", "h100")].in_deficit(2, restored.now_ms)
    assert not given.cell.pledges[("b", "h100")].in_deficit(2, given.cell.now_ms)


def test_deficit_decides_between_queues() -> None:
    """Without its deficit the queue with the larger share would have to wait."""
    for fraction, first in ((700_000, "poor"), (0, "rich")):
        given = world(
            account("poor", 16),
            account("rich", 16),
            nodes=1,
            gpu_time_fraction_ppm=(0, 0, fraction, 0),
            preemption=False,
        )
        given.round(job("filler", queue="rich", slots=8, tier=specs.Tier.RESERVED))
        given.round(job("p", queue="poor", slots=5))
        given.round(after_s=4 * HOUR_S)
        given.round(job("r", queue="rich", slots=4))
        done = c.ReportAttempt(job="filler", attempt=1, state="finished")
        (started,) = of(AttemptStarted, given.facts(done))
        assert started.job == {"poor": "p", "rich": "r"}[first]


def standard_runs(given: Given, *names: str) -> None:
    given.round(*(job(n, queue="b", slots=8) for n in names))
    runs(given, *names)


def preempts(given: Given, name: str, after_s: int) -> list[str]:
    """Whom a premium job of another account preempts when it has waited so long."""
    facts = given.facts(job(name, queue="a", slots=8, tier=specs.Tier.PREMIUM), after_s=100)
    decided = of(PreemptionDecided, facts + given.facts(after_s=after_s))
    return [victim.job for d in decided for victim in d.victims]


def test_a_job_is_preempted_by_stronger_tiers_no_more_than_its_budget() -> None:
    for budget, victims in ((1, ["s"]), (0, [])):
        given = world(
            account("a", 8),
            account("b", 8),
            preemptions_per_day=(0, 0, budget, 0),
            min_run_s=(0,) * 4,
        )
        standard_runs(given, "s")
        assert preempts(given, "p", 300) == victims


def test_a_job_that_would_lose_too_much_is_spared_until_the_claim_is_in_deficit() -> None:
    given = world(account("a", 8), account("b", 8), max_lost_s=(0, 0, 60, 0), min_run_s=(0,) * 4)
    standard_runs(given, "s")
    assert preempts(given, "p", 250) == []
    wake_ms = next_due_ms(given.cell)
    assert wake_ms is not None
    given.now_ms = wake_ms
    assert [d.victims[0].job for d in of(PreemptionDecided, given.facts())] == ["s"]
    assert given.cell.now_ms == wake_ms


def test_a_borrower_is_not_spared() -> None:
    given = world(
        account("a", 0),
        account("b", 8),
        preemptions_per_day=(0, 0, 0, 0),
        max_lost_s=(0, 0, 0, 0),
        min_run_s=(0,) * 4,
    )
    given.round(job("x", queue="a", slots=8))
    runs(given, "x")
    (decided,) = of(PreemptionDecided, given.facts(job("mine", queue="b", slots=8)))
    assert decided.cause == "reclaim"


def test_a_promise_that_cannot_be_kept_is_voided_at_once_and_holds_again_when_it_can() -> None:
    given = world(account("a", 4), account("b", 32), nodes=1)
    given.round(job("one", queue="b", slots=8))
    facts = given.facts(job("big", queue="a", slots=8), job("never", queue="b", slots=16))
    void = {f.shape: f.reason for f in of(PromiseVoided, facts)}
    blocked = {f.shape: f.reason for f in of(ShapeBlocked, facts)}
    big, never = (given.cell.jobs[n].shape.id for n in ("big", "never"))
    assert void == {big: "larger_than_nominal", never: "never_fits"}
    assert blocked[never] == "never_fits"
    assert given.cell.pledges[("a", "h100")].waiting == [0, 0, 0, 0]
    more = given.facts(account("a", 8), node("n9", slots=16, rack="k1"))
    assert {f.shape: f.reason for f in of(PromiseVoided, more)} in ({never: ""}, {})
    assert Cell.restore(given.cell.snapshot()).digest() == given.cell.digest()
