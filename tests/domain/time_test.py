"""What time does without a command: each bound at its millisecond, and one before it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from domain import commands as c
from domain import specs
from domain.cell import Cell
from domain.facts import (
    AnyFact,
    AttemptEnded,
    AttemptStarted,
    AttemptStopping,
    JobFailed,
    JobRequeued,
    NodeLost,
    PreemptionDecided,
    ReservationActive,
    ReservationClosing,
    ShapeBlocked,
)
from domain.memory import Memory
from domain.timers import next_due_ms
from tests.domain.given import Given, job, node, of
from tests.domain.refusals_test import account, report, window

WEEK_MS = 7 * 86_400_000


def world(*nodes: c.RegisterNode) -> Given:
    made = Given()
    made.round(account("a", "q"), *(nodes or (node("n0"),)))
    return made


def at_the_bound(given: Given, bound_ms: int) -> list[AnyFact]:
    """The facts at the bound; nothing comes a millisecond before it.

    The cell, and one restored from it, may ask to be looked at earlier, but not later.
    """
    for cell in (given.cell, Cell.restore(given.cell.snapshot())):
        due_ms = next_due_ms(cell)
        assert due_ms is not None
        assert due_ms <= bound_ms
    early = [f for f in at(given, bound_ms - 1) if not isinstance(f, ShapeBlocked)]
    assert not early
    assert next_due_ms(given.cell) == bound_ms
    return at(given, bound_ms)


def at(given: Given, now_ms: int) -> list[AnyFact]:
    given.now_ms = now_ms
    return given.facts()


def test_a_lease_runs_out_and_is_renewed() -> None:
    given = world(node("n0", lease_s=10))
    given.round(c.ReportNode(node="n0"), after_s=7)
    lost = at_the_bound(given, given.now_ms + 10_000)
    assert of(NodeLost, lost)[0].node == "n0"
    assert next_due_ms(given.cell) is None
    given.round(c.ReportNode(node="n0"))
    assert next_due_ms(given.cell) == given.now_ms + 10_000


def test_a_grace_period_ends_the_attempt() -> None:
    given = world()
    given.round(job("runs", runtime=specs.Runtime(grace_s=5)))
    given.round(c.CancelJob(job="runs"))
    ended = at_the_bound(given, given.now_ms + 5000)
    assert of(AttemptEnded, ended)[0].reason == "cancelled"


def test_no_grace_is_still_not_the_same_round() -> None:
    given = world()
    given.round(job("runs", runtime=specs.Runtime(grace_s=0)))
    stopping = of(AttemptStopping, given.facts(c.PreemptJob(job="runs")))
    assert stopping[0].stop_by_ms == given.now_ms + 1
    assert of(JobRequeued, at(given, given.now_ms + 1))


def test_a_time_limit_counts_from_the_start_and_fails_the_job() -> None:
    given = world()
    given.round(job("runs", runtime=specs.Runtime(max_s=60, grace_s=1)))
    started = given.now_ms
    given.round(report("running"), after_s=10)
    assert of(AttemptStopping, at_the_bound(given, started + 60_000))[0].reason == "overran"
    assert of(JobFailed, at_the_bound(given, started + 61_000))[0].reason == "overran"


def test_a_failed_job_backs_off_twice_as_long_each_time() -> None:
    given = world()
    given.round(job("runs", max_restarts=9))
    for number in range(1, 9):
        back = of(JobRequeued, given.facts(report("failed", attempt=number)))[0].not_before_ms
        assert back - given.now_ms == min(30_000 << (number - 1), 3_600_000)
        started = of(AttemptStarted, at_the_bound(given, back))
        assert started[0].attempt == number + 1


def test_a_window_opens_and_closes() -> None:
    given = world()
    start, end = given.now_ms + 1000, given.now_ms + 9000
    given.round(window(start_ms=start, end_ms=end))
    assert of(ReservationActive, at_the_bound(given, start))
    assert of(ReservationClosing, at_the_bound(given, end))[0].reason == "ended"
    assert next_due_ms(given.cell) is None


def test_a_second_choice_is_taken_when_the_wait_for_it_is_over() -> None:
    given = world(node("n0", accelerator="npu", kind="npu"))
    quotas = tuple(specs.Quota(accelerator=t, nominal=8) for t in ("h100", "npu"))
    given.round(c.SetQuota(account="a", quotas=quotas, queues=(specs.Queue(queue="q"),)))
    either = (specs.Flavour(accelerator="h100"), specs.Flavour(accelerator="npu", after_wait_s=90))
    given.round(job("waits", flavours=either))
    started = of(AttemptStarted, at_the_bound(given, given.now_ms + 90_000))
    assert [(f.job, f.flavour) for f in started] == [("waits", 1)]


def preemptible_world(policy: specs.PolicyParameters, **victim: Any) -> Given:
    """The node is full of what account b borrows; a has all of the quota."""
    given = world()
    lender = c.SetQuota(account="org")
    owner = c.SetQuota(
        account="a",
        parent="org",
        quotas=(specs.Quota(accelerator="h100", nominal=8),),
        queues=(specs.Queue(queue="q"),),
    )
    borrower = c.SetQuota(account="b", parent="org", queues=(specs.Queue(queue="p"),))
    given.round(lender, owner, borrower, c.SetPolicy(parameters=policy))
    given.round(job("runs", queue="p", slots=8, **victim))
    given.round(report("running"))
    return given


def test_a_victim_has_its_minimum_run_time() -> None:
    given = preemptible_world(specs.PolicyParameters(queue_delay_s=(0, 0, 0, 0)))
    running = given.now_ms
    given.round(job("claims", slots=8), after_s=100)
    decided = of(PreemptionDecided, at_the_bound(given, running + 600_000))
    assert [v.job for v in decided[0].victims] == ["runs"]


def test_a_claim_waits_until_its_wait_has_cost_as_much_as_its_victim_loses() -> None:
    given = preemptible_world(specs.PolicyParameters(min_run_s=(0, 0, 0, 0)))
    given.round(after_s=1000)
    given.round(job("claims", slots=8))
    seniority = given.now_ms
    # The victim loses 1000 s and more as it goes on, so patience is a bound that moves away.
    assert next_due_ms(given.cell) == seniority + 1_000_000
    assert not of(PreemptionDecided, at(given, seniority + 1_000_000))
    decided = of(PreemptionDecided, at(given, seniority + 3_600_000))
    assert decided[0].victims[0].cost_slot_s == 8 * 4600


def test_whoever_has_had_enough_yields_at_that_moment() -> None:
    given = world()
    policy = specs.PolicyParameters(
        order="least_attained",
        yield_ratio_milli=4000,
        min_run_s=(0, 0, 0, 0),
        queue_delay_s=(0, 0, 0, 0),
    )
    given.round(c.SetPolicy(parameters=policy), job("runs", slots=7))
    started = given.now_ms
    given.round(report("running"), job("next", slots=7))
    # The newcomer counts as having had 1 slot-second; four are had after 4/7 s.
    decided = of(PreemptionDecided, at_the_bound(given, started + 572))
    assert [v.job for v in decided[0].victims] == ["runs"]


# --- what is remembered ---------------------------------------------------------------------------


def test_a_command_is_a_duplicate_until_the_window_is_over() -> None:
    given = Given()
    first = given.accept(account("a", "q"))
    given.decide([first])
    began = given.now_ms
    again = replace(first, time_ms=began + WEEK_MS)
    given.now_ms = began + WEEK_MS
    assert given.decide([again]).duplicates == [0]
    given.now_ms += 1
    round = given.decide([again])
    assert (round.duplicates, len(round.facts)) == ([], 1), "its id is forgotten"


def test_a_duplicate_within_one_round_is_answered_once() -> None:
    given = world()
    one = given.accept(job("x"))
    round = given.decide([one, one, replace(one, source="another")])
    assert round.duplicates == [1]
    assert [r.code for r in round.refusals] == ["job_exists"]


def test_the_name_of_an_ended_job_is_free_after_the_window() -> None:
    given = world()
    given.round(job("runs"))
    given.round(report("finished"))
    ended = given.now_ms
    given.now_ms = ended + WEEK_MS
    assert given.refusal(job("runs")) == "job_exists"
    given.now_ms += 1
    assert not given.round(job("runs")).refusals


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=40), st.integers(1, 8))
def test_the_memory_is_what_a_list_of_all_would_say(
    steps: list[tuple[int, int]], window_ms: int
) -> None:
    """Each id is known from when it was first remembered until the window has passed."""
    memory, naive, now_ms = Memory(), dict[int, int](), 0
    for id_, later_ms in steps:
        now_ms += later_ms
        memory.forget(now_ms - window_ms)
        naive = {i: t for i, t in naive.items() if t >= now_ms - window_ms}
        assert memory.remember_command("s", str(id_), now_ms) == (id_ not in naive)
        naive.setdefault(id_, now_ms)
        assert len(memory) == len(naive)
    restored = Memory()
    restored.restore(*memory.state())
    assert (restored.state(), restored.digest) == (memory.state(), memory.digest)
    memory.forget(now_ms + 1)
    assert (memory.digest, len(memory)) == (0, 0)


def test_names_and_commands_are_remembered_apart() -> None:
    memory = Memory()
    memory.remember_name("x", 0)
    assert memory.remember_command("a", "bc", 0)
    assert memory.remember_command("x", "", 0)
    assert memory.remember_command("ab", "c", 0)
    assert not memory.remember_command("a", "bc", 0)
    assert not memory.knows_name("a")
