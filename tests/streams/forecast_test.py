"""Start estimates: exact where run times are known, honest about what they rest on."""

from __future__ import annotations

from typing import Any

import pytest

from domain.cell import Cell
from domain.commands import SetPolicy, SubmitJob
from domain.facts import AttemptStarted
from domain.ledger import Round
from domain.specs import Flavour, PolicyParameters, ReplicaGroup, Runtime, Tier
from streams import traces
from streams.forecast import Forecast, Outlook, heads
from streams.scenario import EPOCH_MS, arrival
from streams.simulate import Simulation
from streams.traces import Options, Row
from tests.streams.simulate_test import OneKey


def backlog(
    seed: int, *, estimates: bool, jobs: int = 40, last_s: int = 100, preemption: bool = True
) -> Simulation:
    """Jobs of two partitions that have all come by `last_s`."""
    rows = []
    for i in range(jobs):
        mixed = (i * 7919 + seed * 104_729) % 1009
        size = (1, 2, 4, 8, 16)[mixed % 5]
        rows.append(Row(f"j{i}", i * last_s // jobs, 60 + mixed * 13 % 9000, size, "pq"[mixed % 2]))
    nodes = traces.partition_nodes({"p": 2, "q": 2}, 8)
    scenario = traces.scenario(rows, nodes, Options(preemptible=True, estimates=estimates))
    policy = PolicyParameters(preemption=preemption)
    scenario.arrivals.insert(0, arrival(0, SetPolicy(parameters=policy)))
    simulation = Simulation("c", scenario, OneKey(), lambda record: None, patience_ms=0)
    for _ in simulation.run(EPOCH_MS + 1000 * last_s):
        pass
    return simulation


def first_starts(simulation: Simulation) -> dict[str, int]:
    """When jobs start from here to the end, by the simulation itself."""
    starts: dict[str, int] = {}

    def see(cell: Cell, made: Round) -> None:
        for fact in made.facts:
            if isinstance(fact, AttemptStarted):
                starts.setdefault(fact.job, made.header.now_ms)

    simulation._then = see
    for _ in simulation.run():
        pass
    return starts


@pytest.mark.parametrize("seed", range(8))
def test_with_known_run_times_the_forecast_is_what_happens(seed: int) -> None:
    simulation = backlog(seed, estimates=True, preemption=False)
    cell = simulation.cell
    assert not cell.estimates.version, "with a model, estimates are corrected by it"
    wanted = [job.id for job in cell.jobs.values() if job.queued]
    before = cell.snapshot()
    forecast = Outlook(cell, simulation.now_ms).look(wanted)
    assert cell.snapshot() == before
    assert len(wanted) > 10
    starts = first_starts(simulation)
    assert {e.job: e.at_ms for e in forecast.expected} == {j: starts[j] for j in wanted}
    for expected in forecast.expected:
        assert expected.ends.keys() <= {"estimate"}
        assert not expected.reason
        assert expected.nodes


def test_with_preemption_it_is_off_by_little() -> None:
    """The books count whole seconds, so that what is lost is known to the second only."""
    off_ms = waited_ms = 0
    for seed in range(8):
        simulation = backlog(seed, estimates=True)
        wanted = [job.id for job in simulation.cell.jobs.values() if job.queued]
        forecast = Outlook(simulation.cell, simulation.now_ms).look(wanted)
        now_ms, starts = simulation.now_ms, first_starts(simulation)
        for expected in forecast.expected:
            assert expected.at_ms is not None
            off_ms += abs(expected.at_ms - starts[expected.job])
            waited_ms += starts[expected.job] - now_ms
    assert off_ms < waited_ms // 20


def test_without_any_knowledge_what_runs_has_as_much_before_it_as_behind_it() -> None:
    simulation = backlog(1, estimates=False)
    forecast = Outlook(simulation.cell, simulation.now_ms + 60_000).look(
        [job.id for job in heads(simulation.cell)]
    )
    first = min(e.at_ms for e in forecast.expected if e.at_ms is not None)
    assert first > simulation.now_ms + 60_000
    later = [e for e in forecast.expected if e.at_ms is not None and e.ends]
    assert later
    assert all(e.ends.keys() == {"unknown"} and not e.model for e in later)


def asks(cell: Cell, *, replicas: int = 1, **fields: Any) -> SubmitJob:
    accelerator = next(iter(cell.fabric.classes.values())).accelerator
    given: dict[str, Any] = {
        "job": "new",
        "queue": min(cell.queues),
        "groups": (ReplicaGroup(slots=8, count=replicas),),
        "flavours": (Flavour(accelerator=accelerator),),
        "runtime": Runtime(estimate_s=60),
    }
    return SubmitJob(**(given | fields))


def test_what_is_supposed_is_refused_or_starts_at_somebodys_cost() -> None:
    rows = [Row(f"j{i}", i, 10_000, 8, "p") for i in range(4)]
    nodes = traces.partition_nodes({"p": 2}, 8)
    scenario = traces.scenario(rows, nodes, Options(preemptible=True))
    simulation = Simulation("c", scenario, OneKey(), lambda record: None)
    for _ in simulation.run(EPOCH_MS + 4_000_000):
        pass
    cell, now_ms = simulation.cell, EPOCH_MS + 4_000_000

    def supposed(command: SubmitJob) -> Forecast:
        outlook = Outlook(cell, now_ms)
        outlook.suppose(command)
        return outlook.look(["new"])

    nowhere = supposed(asks(cell, queue="nowhere"))
    assert nowhere.refused is not None
    assert nowhere.refused.field == "queue"
    assert not nowhere.expected
    waits = supposed(asks(cell)).expected[0]
    at_once = supposed(asks(cell, tier=Tier.PREMIUM)).expected[0]
    assert at_once.at_ms is not None
    assert waits.at_ms is None or at_once.at_ms < waits.at_ms
    assert at_once.victims
    assert all(cell.jobs[v.job].run is not None for v in at_once.victims)
    assert sum(n for _, n in at_once.nodes) == 1
    assert "new" not in cell.jobs


def test_what_never_starts_says_why() -> None:
    simulation = backlog(2, estimates=True, jobs=3)
    outlook = Outlook(simulation.cell, simulation.now_ms)
    outlook.suppose(asks(simulation.cell, replicas=100))
    found = outlook.look(["new"]).expected[0]
    assert found.at_ms is None
    assert found.reason


def test_a_look_ahead_ends_where_it_was_told_to() -> None:
    simulation = backlog(3, estimates=True)
    wanted = [job.id for job in simulation.cell.jobs.values() if job.queued]
    forecast = Outlook(simulation.cell, simulation.now_ms).look(wanted, rounds=5)
    assert forecast.rounds >= 5
    told = {e.job: e for e in forecast.expected}
    assert len(told) == len(wanted)
    assert any(e.at_ms is None for e in told.values())
