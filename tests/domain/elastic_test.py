"""Elastic jobs: they grow into what is idle, and shrink before anything dies."""

from __future__ import annotations

from domain import commands as c
from domain import specs
from domain.cell import Cell
from domain.elastic import REST_MS
from domain.facts import (
    AttemptGrown,
    AttemptShrinking,
    AttemptShrunk,
    AttemptStarted,
    AttemptStopping,
    PreemptionDecided,
)
from domain.timers import next_due_ms
from tests.domain.given import Given, job, node, of


def account(name: str, nominal: int, parent: str | None = None) -> c.SetQuota:
    quotas = (specs.Quota(accelerator="h100", nominal=nominal),)
    return c.SetQuota(account=name, parent=parent, quotas=quotas, queues=(specs.Queue(queue=name),))


def world(nodes: int = 2, nominal: int = 16) -> Given:
    given = Given()
    given.round(*(node(f"n{i}", rack=f"k{i}") for i in range(nodes)), account("q", nominal))
    return given


def elastic(name: str = "e", queue: str = "q", **more: int) -> c.SubmitJob:
    fields = {"count": 1, "slots": 2, "grow_to": 4, **more}
    return job(name, queue=queue, groups=(specs.ReplicaGroup.model_validate(fields),))


def shrunk(name: str, *parts: int) -> list[c.ReportAttempt]:
    return [c.ReportAttempt(job=name, attempt=1, state="stopped", part=p) for p in parts]


def test_it_grows_into_what_is_idle_and_no_further() -> None:
    given = world()
    facts = given.facts(elastic())
    assert len(of(AttemptStarted, facts)) == 1
    assert [f.part for f in of(AttemptGrown, facts)] == [1, 2, 3]
    assert given.cell.accounts["q"].own["h100"] == 8000
    assert not of(AttemptGrown, given.facts(after_s=10))


def test_it_grows_within_quota() -> None:
    given = world(nominal=5)
    assert len(of(AttemptGrown, given.facts(elastic()))) == 1


def test_it_grows_in_steps_of_its_own() -> None:
    given = world()
    grown = of(AttemptGrown, given.facts(elastic(grow_to=6, grow_by=2)))
    assert [sum(p[1] for p in f.nodes) for f in grown] == [2, 2]


def test_it_stays_in_its_domain() -> None:
    given = world()
    rack = specs.Placement(required_level=specs.Level.RACK)
    given.round(elastic(slots=8, grow_to=2).model_copy(update={"placement": rack}))
    assert not given.cell.jobs["e"].parts, "its rack has no second node"


def test_what_waits_comes_before_growth() -> None:
    given = world()
    facts = given.facts(elastic(grow_to=8), *(job(f"j{i}", slots=4) for i in range(3)))
    assert len(of(AttemptStarted, facts)) == 4
    assert len(of(AttemptGrown, facts)) == 1


def test_it_shrinks_for_a_job_of_its_own_account_before_anything_dies() -> None:
    given = world(nodes=1, nominal=8)
    given.round(elastic())
    given.round(c.ReportAttempt(job="e", attempt=1, state="running"))
    facts = given.facts(job("next", slots=3), after_s=1)
    assert [f.part for f in of(AttemptShrinking, facts)] == [1, 2]
    assert not of(AttemptStopping, facts)
    victims = of(PreemptionDecided, facts)[0].victims
    assert [(v.job, v.cost_slot_s) for v in victims] == [("e", 0), ("e", 0)]
    started = of(AttemptStarted, given.facts(*shrunk("e", 1, 2)))
    assert [f.job for f in started] == ["next"]
    assert given.cell.jobs["e"].run is not None


def test_it_gives_back_what_it_borrowed() -> None:
    given = Given()
    org = c.SetQuota(account="org")
    given.round(node("n0"), node("n1"), org, account("a", 8, "org"), account("b", 8, "org"))
    given.round(elastic(queue="a", grow_to=8))
    assert len(given.cell.jobs["e"].parts) == 7
    facts = given.facts(job("owner", queue="b", slots=8), after_s=1)
    assert len(of(AttemptShrinking, facts)) == 4
    assert not of(AttemptStopping, facts)


def test_what_shrank_rests_before_it_grows_again() -> None:
    given = world(nodes=1, nominal=8)
    given.round(elastic())
    given.round(job("next", slots=2), after_s=1)
    given.round(*shrunk("e", 1))
    done = given.facts(c.ReportAttempt(job="next", attempt=1, state="finished"), after_s=10)
    assert not of(AttemptGrown, done)
    grown: list[int] = []
    while not grown:
        due_ms = next_due_ms(given.cell)
        assert due_ms is not None
        given.now_ms = due_ms
        grown = [given.now_ms for _ in of(AttemptGrown, given.facts())]
    assert grown == [given.cell.jobs["e"].shrunk_ms + REST_MS]


def test_a_part_that_does_not_stop_counts_as_gone_after_its_grace() -> None:
    given = world(nodes=1, nominal=8)
    given.round(elastic())
    given.round(job("next", slots=2), after_s=1)
    facts = given.facts(after_s=30)
    assert [(f.part, f.reason) for f in of(AttemptShrunk, facts)] == [(1, "preempted")]


def test_a_lost_node_takes_the_parts_on_it_and_the_gang_only_if_it_is_there() -> None:
    given = world()
    given.round(elastic(slots=8, grow_to=2))
    base, part = given.cell.jobs["e"].run, given.cell.jobs["e"].parts[1]
    assert base is not None
    facts = given.facts(c.RemoveNode(node=part.nodes[0][0]))
    assert [f.part for f in of(AttemptShrunk, facts)] == [1]
    given.round(c.RemoveNode(node=base.nodes[0][0]))
    assert given.cell.jobs["e"].run is None
    assert given.cell.accounts["q"].own["h100"] == 0


def test_its_end_gives_everything_back() -> None:
    given = world()
    given.round(elastic())
    given.round(c.ReportAttempt(job="e", attempt=1, state="finished"), after_s=10)
    assert given.cell.accounts["q"].own["h100"] == 0
    assert all(n.used == 0 for n in given.cell.nodes.values())
    assert not given.cell.elastic
    assert not any(given.cell.preemptible.values())


def test_what_a_part_did_is_lost_with_its_attempt() -> None:
    given = world(nominal=16)
    given.round(elastic())
    given.round(c.ReportAttempt(job="e", attempt=1, state="running"))
    facts = given.facts(c.PreemptJob(job="e"), after_s=100)
    assert of(PreemptionDecided, facts)[0].victims[0].cost_slot_s == 100 * 8


def test_a_restored_cell_knows_the_parts() -> None:
    given = world(nodes=1, nominal=8)
    given.round(elastic())
    given.round(job("next", slots=3), after_s=1)
    cell = Cell.restore(given.cell.snapshot())
    assert cell.jobs["e"].state() == given.cell.jobs["e"].state()
    given.cell = cell
    assert [f.job for f in of(AttemptStarted, given.facts(*shrunk("e", 1, 2)))] == ["next"]


def test_reports_of_parts_that_are_not_there_are_refused() -> None:
    given = world()
    given.round(elastic())
    assert given.refusal(shrunk("e", 9)[0]) == "stale_attempt"
