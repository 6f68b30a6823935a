"""Whose every job is, from the ledgers alone: what is right passes, what is planted is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from domain.commands import ReportAttempt
from domain.facts import AnyFact, JobFinished
from domain.ledger import Round, unseal
from domain.pool.facts import HandoffAccepted, HandoffReleased
from domain.pool.guard_facts import OutcomeAsked
from streams import traces
from streams.ownership import Ownership, Verdict
from streams.pooled import Pooled
from streams.scenario import Scenario
from streams.traces import Row
from tests.domain.failover_test import Three, brought_back
from tests.streams.simulate_test import OneKey

Ledgers = dict[str, list[Round]]
REGIONS = ("east", "north", "west")


@pytest.fixture(scope="module")
def ledgers() -> Ledgers:
    """Three regions of two nodes; nearly all work comes to the first."""
    found: Ledgers = {name: [] for name in REGIONS}

    def keep(record: bytes) -> None:
        round = unseal(record, None)[0]
        found[round.cell].append(round)

    scenarios: dict[str, Scenario] = {}
    for at, name in enumerate(REGIONS):
        jobs = 40 if not at else 3
        rows = [
            Row(f"{name}-{i}", i * 7, 300 + i * 37 % 900, (1, 4, 8, 2)[i % 4], "p")
            for i in range(jobs)
        ]
        nodes = [
            n.model_copy(update={"node": f"{name}-{n.node}"})
            for n in traces.partition_nodes({"p": 2}, 8)
        ]
        scenarios[name] = traces.scenario(rows, nodes)
    for scenario in scenarios.values():
        every = {job: work for s in scenarios.values() for job, work in s.work.items()}
        for job, work in every.items():
            for name in REGIONS:
                scenario.work.setdefault(f"{job}@{name}", work)
    for _ in Pooled(scenarios, OneKey(), keep).run():
        pass
    return found


def verdict(ledgers: Ledgers) -> Verdict:
    pool = Ownership()
    for rounds in ledgers.values():
        pool.ledger().read(rounds)
    return pool.verdict()


def changed(
    ledgers: Ledgers, kind: type, change: Callable[[AnyFact], list[AnyFact]]
) -> tuple[Ledgers, str]:
    """The first fact of a kind becomes others; the region in whose ledger it is."""
    for name, rounds in ledgers.items():
        for at, round in enumerate(rounds):
            for i, fact in enumerate(round.facts):
                if isinstance(fact, kind):
                    facts = [*round.facts[:i], *change(fact), *round.facts[i + 1 :]]
                    other = [*rounds[:at], replace(round, facts=facts), *rounds[at + 1 :]]
                    return {**ledgers, name: other}, name
    raise AssertionError(f"there is no {kind.__name__}")


def test_a_pool_that_hands_over_holds(ledgers: Ledgers) -> None:
    found = verdict(ledgers)
    assert found.faults == []
    assert found.jobs == 46
    assert found.outcomes == {"JobFinished": 46}
    assert found.hand_offs > 5
    assert found.in_flight == 0


def test_the_order_in_which_ledgers_are_read_means_nothing(ledgers: Ledgers) -> None:
    assert verdict(dict(reversed(ledgers.items()))) == verdict(ledgers)


def test_a_job_on_its_way_is_no_fault(ledgers: Ledgers) -> None:
    released = next(
        (name, at)
        for name, rounds in ledgers.items()
        for at, round in enumerate(rounds)
        if any(isinstance(f, HandoffReleased) for f in round.facts)
    )
    name, at = released
    cut = {n: rounds[: at + 1] if n == name else [] for n, rounds in ledgers.items()}
    found = verdict(cut)
    assert found.faults == []
    assert found.in_flight >= 1


def test_a_job_that_was_kept_and_given_away_is_found(ledgers: Ledgers) -> None:
    wrong, _ = changed(ledgers, HandoffReleased, lambda fact: [])
    assert any("gave it to nobody" in fault for fault in verdict(wrong).faults)


def test_a_job_that_two_regions_accepted_is_found(ledgers: Ledgers) -> None:
    for name, rounds in ledgers.items():
        for round in rounds:
            if any(isinstance(f, HandoffAccepted) for f in round.facts):
                third = next(r for r in REGIONS if r != name and r != "east")
                taken = replace(round, cell=third)
                wrong = {**ledgers, third: [*ledgers[third], taken]}
                faults = verdict(wrong).faults
                assert any("its tokens are" in fault for fault in faults), faults
                return
    raise AssertionError("nothing was accepted")


def test_a_job_that_came_to_another_than_it_was_given_to_is_found(ledgers: Ledgers) -> None:
    def elsewhere(fact: AnyFact) -> list[AnyFact]:
        assert isinstance(fact, HandoffReleased)
        return [replace(fact, to=next(r for r in REGIONS if r != fact.to))]

    wrong, _ = changed(ledgers, HandoffReleased, elsewhere)
    assert any("gave it to" in fault for fault in verdict(wrong).faults)


def test_a_job_that_ends_where_it_is_not_is_found(ledgers: Ledgers) -> None:
    def ends(fact: AnyFact) -> list[AnyFact]:
        assert isinstance(fact, HandoffReleased)
        return [fact, JobFinished(fact.job)]

    wrong, name = changed(ledgers, HandoffReleased, ends)
    assert any(f"it ended in {name}, which has it not" in f for f in verdict(wrong).faults)


def test_a_job_that_ends_twice_is_found(ledgers: Ledgers) -> None:
    wrong, _ = changed(ledgers, JobFinished, lambda fact: [fact, fact])
    assert any("which has it not" in fault for fault in verdict(wrong).faults)


def of_three(three: Three) -> Ledgers:
    return {n: [unseal(r, None)[0] for r in region.records] for n, region in three.regions.items()}


def test_a_job_that_was_brought_back_has_one_owner() -> None:
    three, east, guardian, _ = brought_back()
    found = verdict(of_three(three))
    assert (found.faults, found.jobs, found.hand_offs) == ([], 1, 1)
    three.cut = set()
    three.tell()
    east.say(ReportAttempt(job="j", attempt=1, state="stopped"))
    run = guardian.cell.jobs["j@east"].run
    assert run is not None
    guardian.say(ReportAttempt(job="j@east", attempt=run.attempt, state="finished"))
    three.post()
    found = verdict(of_three(three))
    assert (found.faults, found.outcomes) == ([], {"JobFinished": 1})


def test_one_that_ended_at_home_and_was_brought_back_is_found() -> None:
    three, east, _, _ = brought_back()
    ended = east.say(ReportAttempt(job="j", attempt=1, state="finished"))
    wrong = of_three(three)
    facts = [JobFinished(f.job) if isinstance(f, OutcomeAsked) else f for f in ended.facts]
    wrong["east"][-1] = replace(ended, facts=facts)
    assert verdict(wrong).faults
