"""Windows that recur, nodes that are away, what is offered instead, and what was delivered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from pydantic import ValidationError

from domain import commands as c
from domain.calendar import Window
from domain.cell import Cell
from domain.facts import (
    AttemptStarted,
    AttemptStopping,
    JobRequeued,
    MaintenanceBegan,
    MaintenanceEnded,
    NodeCordoned,
    NodeDraining,
    PreemptionDecided,
    ReservationActive,
    ReservationClaimed,
    ReservationClosing,
    ReservationEnded,
    ReservationMissed,
)
from domain.specs import Level, Tier
from tests.domain.given import Given, job, node, of
from tests.domain.refusals_test import account, maintenance, report, window
from tests.domain.time_test import at_the_bound, world

HOUR_S = 3600
START_MS = 2_000_000


def refused(given: Given, command: c.Command) -> tuple[str, list[str]]:
    """The code, and what is offered instead."""
    round = given.round(command)
    (one,) = round.refusals
    return one.code, one.message.partition("instead: ")[2].split(", ")


windows = st.builds(
    lambda start, length, more, until: Window(start, start + length, length + more, until),
    st.integers(0, 50),
    st.integers(1, 20),
    st.integers(0, 30),
    st.integers(0, 300),
)


@examples(windows, st.integers(0, 300), st.integers(1, 100))
def test_windows_are_those_that_a_walk_over_all_finds(
    one: Window, from_ms: int, length: int
) -> None:
    every = [(one.start_ms + n * one.every_ms, one.end_ms + n * one.every_ms) for n in range(400)]
    every = [w for w in every if w[0] < one.until_ms]
    to_ms = from_ms + length
    assert one.within(from_ms, to_ms) == [w for w in every if w[0] < to_ms and from_ms < w[1]]
    later = [w for w in every if w[0] > one.start_ms and w[1] > from_ms]
    assert one.after(from_ms) == (later[0] if later else None)


def test_each_window_of_a_recurring_reservation_is_bound_anew() -> None:
    given = world()
    given.round(window(start_ms=START_MS, end_ms=START_MS + 60_000, every_s=300))
    for n in range(3):
        start_ms = START_MS + n * 300_000
        assert of(ReservationActive, at_the_bound(given, start_ms))
        facts = at_the_bound(given, start_ms + 60_000)
        (closing,) = of(ReservationClosing, facts)
        assert (closing.due_slot_s, closing.delivered_slot_s) == (480, 480)
        (ended,) = of(ReservationEnded, facts)
        assert ended.next_start_ms == start_ms + 300_000
        assert Cell.restore(given.cell.snapshot()).digest() == given.cell.digest()


def test_after_its_last_window_it_is_no_more() -> None:
    given = world()
    given.round(
        window(
            start_ms=START_MS, end_ms=START_MS + 60_000, every_s=300, until_ms=START_MS + 300_000
        )
    )
    at_the_bound(given, START_MS)
    (ended,) = of(ReservationEnded, at_the_bound(given, START_MS + 60_000))
    assert not ended.next_start_ms
    assert not given.cell.reservations


def test_a_job_that_did_not_end_in_one_window_goes_on_in_the_next() -> None:
    given = world()
    given.round(window(start_ms=START_MS, end_ms=START_MS + 60_000, every_s=300))
    assert not of(AttemptStarted, given.facts(job("runs", reservation="r")))
    assert of(AttemptStarted, at_the_bound(given, START_MS))
    given.round(report("running"))
    assert of(AttemptStopping, at_the_bound(given, START_MS + 60_000))
    assert of(JobRequeued, given.facts(report("stopped")))
    (started,) = of(AttemptStarted, at_the_bound(given, START_MS + 300_000))
    assert started.attempt == 2


def test_what_is_lent_makes_room_within_the_lead() -> None:
    given = world()
    given.facts(job("runs", slots=8, preemptible=True))
    given.round(report("running"))
    given.round(window(start_ms=START_MS, end_ms=START_MS + 60_000, lead_s=100))
    facts = at_the_bound(given, START_MS - 100_000)
    assert of(PreemptionDecided, facts)[0].cause == "reservation"
    assert of(ReservationClaimed, facts)
    given.facts(report("stopped"))
    assert of(ReservationActive, at_the_bound(given, START_MS)), "on its moment, not after it"
    (closing,) = of(ReservationClosing, at_the_bound(given, START_MS + 60_000))
    assert (closing.due_slot_s, closing.delivered_slot_s) == (480, 480)


def test_a_promise_that_was_missed_is_a_fact_with_its_shortfall() -> None:
    given = world()
    given.facts(job("runs", slots=8, preemptible=False, tier=Tier.RESERVED))
    given.round(report("running"))
    given.round(window(start_ms=START_MS, end_ms=START_MS + 60_000))
    given.now_ms = START_MS
    (missed,) = of(ReservationMissed, given.facts())
    assert missed.shortfall_slots == 8
    given.facts(report("finished"), after_s=45)
    given.now_ms = START_MS + 60_000
    (closing,) = of(ReservationClosing, given.facts())
    assert (closing.due_slot_s, closing.delivered_slot_s) == (480, 120)


def test_a_refusal_offers_another_time_level_type_and_count() -> None:
    given = Given()
    given.round(
        account("a", "q"),
        node("n0"),
        node("n1"),
        node("n2", rack="k1"),
        *(node(f"m{i}", accelerator="h200") for i in range(3)),
    )
    code, offers = refused(given, window(count=3, required_level=Level.RACK))
    assert code == "never_fits"
    assert offers == ["required_level=block", "accelerator=h200", "count=2"]
    given.round(window("first", count=2))
    code, offers = refused(given, window(count=2))
    assert code == "window_is_taken"
    end_ms = 1_000_000 + HOUR_S * 1000
    assert offers == [f"start_ms={end_ms}", "accelerator=h200", "count=1"]
    moved = window(count=2, start_ms=end_ms, end_ms=end_ms + HOUR_S * 1000)
    assert not given.round(moved).refusals, "an offer holds"


def test_a_recurring_window_may_not_meet_another_one_later() -> None:
    given = world()
    day_ms = 86_400_000
    given.round(window("daily", start_ms=START_MS, end_ms=START_MS + 60_000, every_s=86_400))
    late: dict[str, Any] = {"start_ms": START_MS + 5 * day_ms, "end_ms": START_MS + 5 * day_ms + 1}
    assert refused(given, window("later", **late))[0] == "window_is_taken"
    between: dict[str, Any] = {"start_ms": START_MS + 60_000, "end_ms": START_MS + day_ms}
    assert not given.round(window("between", **between)).refusals


def test_a_maintenance_drains_its_nodes_and_gives_them_back() -> None:
    given = world(node("n0"), node("n1"))
    given.facts(job("runs", slots=8, preemptible=False))
    given.round(report("running"))
    times: dict[str, Any] = {"start_ms": START_MS, "end_ms": START_MS + 60_000}
    given.round(maintenance(**times, lead_s=100, every_s=600, until_ms=START_MS + 1_200_000))
    for n in range(2):
        facts = at_the_bound(given, START_MS + n * 600_000 - 100_000)
        assert of(MaintenanceBegan, facts)[0].nodes == ["n0"]
        assert of(NodeDraining, facts)
        if not n:
            assert of(AttemptStopping, facts)[0].reason == "drained"
            (started,) = of(AttemptStarted, given.facts(report("stopped")))
            assert started.nodes[0][0] == "n1"
            given.facts(report("running", attempt=2))
        assert given.cell.nodes["n0"].status == "drained"
        assert Cell.restore(given.cell.snapshot()).digest() == given.cell.digest()
        facts = at_the_bound(given, START_MS + n * 600_000 + 60_000)
        assert of(NodeCordoned, facts)
        assert bool(of(MaintenanceEnded, facts)[0].next_start_ms) == (not n)
        assert given.cell.nodes["n0"].schedulable
    assert not given.cell.maintenances


def test_what_an_operator_drained_stays_drained_after_a_maintenance() -> None:
    given = world()
    given.round(c.DrainNode(node="n0"), maintenance(start_ms=START_MS, end_ms=START_MS + 60_000))
    given.now_ms = START_MS
    given.round()
    given.now_ms = START_MS + 60_000
    assert of(MaintenanceEnded, given.facts())
    assert given.cell.nodes["n0"].status == "drained"


def test_a_window_during_a_maintenance_has_no_use_of_its_nodes() -> None:
    given = world(node("n0"), node("n1"))
    given.round(maintenance(start_ms=START_MS, end_ms=START_MS + 60_000))
    asked = window(count=2, start_ms=START_MS + 59_999, end_ms=START_MS + 70_000)
    assert refused(given, asked) == ("never_fits", [f"start_ms={START_MS + 60_000}", "count=1"])


def test_a_rented_node_is_drained_before_it_leaves_and_promised_to_nobody_after() -> None:
    until_ms = START_MS + 900_000
    given = world(node("n0", until_ms=until_ms, lead_s=300))
    given.facts(job("runs", slots=8, preemptible=False))
    given.round(report("running"))
    late = window(start_ms=until_ms - 400_000, end_ms=until_ms)
    assert refused(given, late)[0] == "never_fits"
    facts = at_the_bound(given, until_ms - 300_000)
    assert of(NodeDraining, facts)
    assert of(AttemptStopping, facts)
    assert Cell.restore(given.cell.snapshot()).digest() == given.cell.digest()


def test_a_lease_that_was_extended_ends_later() -> None:
    given = world(node("n0", until_ms=START_MS, lead_s=0))
    given.round(node("n0", until_ms=START_MS + 60_000, lead_s=0))
    given.now_ms = START_MS
    assert not of(NodeDraining, given.facts())
    assert of(NodeDraining, at_the_bound(given, START_MS + 60_000))


@pytest.mark.parametrize("early_ms", [30_000, 0])
def test_a_rented_node_that_was_removed_before_its_end_leaves_no_more(early_ms: int) -> None:
    until_ms = START_MS + 60_000
    given = world(node("n0", until_ms=until_ms, lead_s=0), node("n1"))
    given.now_ms = until_ms - early_ms
    assert not of(NodeDraining, given.facts(c.RemoveNode(node="n0")))
    given.now_ms = until_ms
    assert not of(NodeDraining, given.facts())
    given.facts(node("n0"))
    assert not given.cell.nodes["n0"].draining


@pytest.mark.parametrize("make", [window, maintenance])
def test_a_window_does_not_reach_into_the_next(make: Callable[..., c.Command]) -> None:
    times = {"start_ms": START_MS, "end_ms": START_MS + 60_001}
    with pytest.raises(ValidationError, match="every_s must not be shorter"):
        make(**times, every_s=60)
    assert make(**times, every_s=61)
